"""A small app with a feature of each kind, trained once: asked by files, in this process, and at the edge."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball import cli
from flyball.cycle.session import Session
from tests.oracles import projects

APP = '''"""Orders."""

import dataframely as dy
import flyball as fb
import polars as pl
from lightgbm import LGBMClassifier


class Order(fb.Contract):
    """An order."""

    order_id = dy.String(primary_key=True)
    placed = fb.event_time(dy.Datetime(time_zone="UTC"))
    category = dy.Enum(["books", "shoes"])
    shop = dy.String(max_length=8, regex="^[a-z]+$")
    price = dy.Float64(min=0, max=1000)
    items = dy.Int32(min=1, nullable=True)
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=fb.days(30))
    returned = fb.outcome(dy.Bool(nullable=True))


features = fb.features(
    Order.category,
    Order.shop,
    Order.price,
    each=Order.price.col / Order.items.col,
    hour=Order.placed.col.dt.convert_time_zone("Europe/Berlin").dt.hour(),
    dear=pl.when(Order.price.col > 100).then(1).otherwise(0),
    lately=fb.window(Order, Order.returned.col.mean(), by=Order.category, over=fb.days(5)),
)


def rows(given):
    return given


@fb.model(features, predicts=Order.returned, asked=fb.before(Order.placed, fb.hours(0), tolerance=fb.hours(1)))
def till() -> LGBMClassifier:
    return LGBMClassifier(n_estimators=8, num_leaves=7, min_child_samples=5, verbose=-1, n_jobs=1)


app = fb.App("till", sources=[fb.files("orders.csv", prepare=rows, yields=Order)], model=till,
             search=fb.search(trials=1, optimize=fb.metrics.log_loss, split=fb.by_time(fb.days(10))))
'''
START = datetime(2026, 1, 1, tzinfo=UTC)


def orders(count: int = 500, seed: int = 7) -> list[dict[str, Any]]:
    """Questions, two hours apart."""
    chance = random.Random(seed)
    return [
        {
            "order_id": f"o{n}",
            "placed": START + timedelta(hours=2 * n),
            "category": chance.choice(["books", "shoes"]),
            "shop": chance.choice(["north", "south", "web"]),
            "price": round(chance.uniform(1, 300), 2),
            "items": chance.choice([1, 2, 3, None]),
        }
        for n in range(count)
    ]


def trained(folder: Path, patch: pytest.MonkeyPatch) -> Session:
    """The app with a champion, `till-1`, in a session."""
    chance, lines = random.Random(8), []
    for row in orders():
        back = chance.random() < (0.8 if (row["category"] == "shoes") == (row["price"] > 100) else 0.2)
        lines.append({**row, "settled": row["placed"] + timedelta(days=1), "returned": back})
    place = folder / "till"
    place.mkdir()
    pl.DataFrame(lines).with_columns(pl.col("placed", "settled").dt.to_string("iso:strict")).write_csv(
        place / "orders.csv"
    )
    (place / "__init__.py").touch()
    (place / "app.py").write_text(APP)
    patch.setenv("FLYBALL_KEY", str(folder / "key" / "k.pem"))
    projects.forget(place)
    assert cli.call(["apply", str(place), "--json"]) == 0
    return projects.opened(place)
