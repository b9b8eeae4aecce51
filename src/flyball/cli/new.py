"""`flyball new`: a project that runs, small enough to read in one sitting and to change line by line into your own.

Its data are made up by a seeded generator that is part of the project, so that nothing is downloaded and every run is the same.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from flyball._kernel.errors import DeclarationError, StateError
from flyball.cli import options, say

APP = '''"""Will this order be sent back?  Asked when it is placed."""

import dataframely as dy
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import average_precision, champion, days, hours, ms, roc_auc

from {name}.preparation import orders


class Order(fb.Contract):
    """One order: known when it is placed, settled when its return period is over."""

    order_id = dy.String(primary_key=True)
    placed = fb.event_time(dy.Datetime(time_zone="UTC"))
    category = dy.Enum(["books", "shoes", "garden", "phones"])
    channel = dy.Enum(["web", "app", "shop"])
    price = dy.Float64(min=0, max=10_000, description="euros")
    customer = fb.personal(dy.String())
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=days(60))
    returned = fb.outcome(dy.Bool(nullable=True))


returns = Order.returned.col.mean()
features = fb.features(
    Order.category,
    Order.channel,
    Order.price,
    hour=Order.placed.col.dt.hour(),
    category_returns=fb.window(Order, returns, by=Order.category, over=days(30)),  # settled orders only
    customer_returns=fb.window(Order, returns, by=Order.customer, over=days(120)),
)


class Knobs(fb.Params):
    """What the search may turn."""

    leaves: int = fb.between(3, 31, start=7, log=True)


@fb.model(features, predicts=Order.returned, asked=fb.before(Order.placed, hours(0), tolerance=hours(1)))
def sent_back(knobs: Knobs) -> LGBMClassifier:
    """Boosted trees over the order and what was sent back before."""
    return LGBMClassifier(num_leaves=knobs.leaves, n_estimators=50, min_child_samples=50)


app = fb.App(
    "{name}",
    sources=[fb.files("data/orders.csv", prepare=orders, yields=Order, fresh_within=days(1))],
    model=sent_back,
    search=fb.search(trials=5, optimize=average_precision, split=fb.by_time(days(30))),
    gates=[
        roc_auc >= 0.6,
        average_precision >= average_precision.on(champion) - 0.01,
        fb.model_latency <= ms(5),
    ],
)
'''

PREPARATION = '''"""From the raw file to rows of the contract: plain functions, LazyFrame -> LazyFrame."""

import polars as pl


def orders(raw: pl.LazyFrame) -> pl.LazyFrame:
    """Cells arrive as text; what the contract can parse by itself (numbers, categories, ISO times) is left to it."""
    return raw.with_columns(pl.col("category").str.to_lowercase().str.strip_chars())
'''

GENERATOR = '''"""Makes data/orders.csv: 6,000 made-up orders, the same at every run. Replace the file with your own."""

import math
import random
from datetime import datetime, timedelta, timezone
from pathlib import Path

HEADER = "order_id,placed,category,channel,price,customer,settled,returned"


def rows() -> list[str]:
    chance = random.Random(1788)
    careless = {{f"c{{n:03d}}": chance.gauss(0, 1) for n in range(300)}}
    start = datetime(2025, 1, 1, tzinfo=timezone.utc)
    found = []
    for n in range(6000):
        placed = start + timedelta(minutes=43 * n, seconds=chance.randrange(60))
        category = chance.choices(["books", "shoes", "garden", "phones"], [5, 3, 2, 2])[0]
        channel, customer = chance.choice(["web", "app", "shop"]), chance.choice(list(careless))
        price = round(math.exp(chance.gauss({{"phones": 5.8, "shoes": 4.2}}.get(category, 3.2), 0.6)), 2)
        lean = {{"shoes": 0.9, "phones": 0.2}}.get(category, -0.9) + (channel == "web") * 0.5
        odds = -1.4 + lean + 1.1 * careless[customer] + (placed.hour < 5) * 0.6
        returned = chance.random() < 1 / (1 + math.exp(-odds))
        settled = placed + timedelta(days=14)
        times = [t.strftime("%Y-%m-%dT%H:%M:%SZ") for t in (placed, settled)]
        found.append(f"o{{n:05d}},{{times[0]}},{{category}},{{channel}},{{price}},{{customer}},{{times[1]}},{{str(returned).lower()}}")
    return found


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orders.csv").write_text("\\n".join([HEADER, *rows()]) + "\\n")


if __name__ == "__main__":
    write(Path(__file__).parent / "data")
'''

README = """# {name}

    flyball plan {name}       what would run, and why
    flyball apply {name}      ingest, train, judge, release
    flyball serve {name}      answer over HTTP

`app.py` declares everything; `preparation.py` turns the raw file into rows; `make_data.py` made the example's data.
"""


def run(
    name: Annotated[str, typer.Argument(help="A new folder, and the name of the app.", metavar="NAME")],
    as_json: options.Json = False,
) -> int:
    """Make a project that runs: app, preparation, and made-up data to try it on."""
    folder = fresh(name, "flyball new my_app", "Choose another name.")
    plain = folder.name
    files = {
        "__init__.py": f'"""The application {plain}."""\n',
        "app.py": APP.format(name=plain),
        "preparation.py": PREPARATION,
        "make_data.py": GENERATOR.format(),
        "README.md": README.format(name=plain),
        ".gitignore": ".flyball/\n",
    }
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text)
    subprocess.run([sys.executable, str(folder / "make_data.py")], check=True)  # noqa: S603 - our own text, just written
    if as_json:
        say.result({"folder": str(folder), "files": sorted(files)})
    else:
        say.line(f"{say.MARKS['done']} {folder}  [dim]next: flyball plan {folder}[/]")
    return 0


def fresh(name: str, example: str, otherwise: str) -> Path:
    """The folder of an app that is to be made; it is not there yet.

    Args:
        name: of the folder, or a path to it; its last part names the app.
        example: the verb with a name that can be one.
        otherwise: what to do where the folder is there.

    Raises:
        DeclarationError: `name-not-plain`.
        StateError: `folder-exists`.
    """
    folder = Path(name)
    plain = folder.name
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", plain) or keyword.iskeyword(plain) or importlib.util.find_spec(plain):
        raise DeclarationError(
            "name-not-plain",
            f"{plain!r} cannot name an app.",
            why="It becomes a Python package, part of paths and of addresses, and must hide no other package.",
            next=f"Use a lower-case letter, then letters, digits and underscores: {example}",
        )
    if folder.exists():
        raise StateError(
            "folder-exists", f"{folder} is there already.", why="Nothing of yours is overwritten.", next=otherwise
        )
    return folder
