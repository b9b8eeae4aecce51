"""What follows a score leaves in a bundle, and so does a text: it says, without flyball, the very bits of a `Predictor`.

Classes and quantiles do so in `test_tasks_served`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball import cli, edge
from flyball.cycle import bundle
from flyball.cycle.session import Session
from flyball.predictor import Predictor
from tests.oracles import projects

APP = '''"""Visits, and who comes back."""

import dataframely as dy
import flyball as fb
from lightgbm import LGBMClassifier


class Visit(fb.Contract):
    """A visit."""

    visit = dy.String(primary_key=True)
    came = fb.event_time(dy.Datetime(time_zone="UTC"))
    depth = dy.Float64(min=0, max=9)
    note = dy.String(nullable=True)
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=fb.days(30))
    back = fb.outcome(dy.Bool(nullable=True))


def rows(given):
    return given


depth = fb.features(Visit.depth)
asked = fb.before(Visit.came, fb.hours(0))
small = {"n_estimators": 6, "num_leaves": 5, "min_child_samples": 5, "verbose": -1, "n_jobs": 1}


@fb.model(depth, predicts=Visit.back, asked=asked, calibrate="isotonic", decide=fb.costs(false_positive=3, false_negative=2))
def steps() -> LGBMClassifier:
    return LGBMClassifier(**small)


@fb.model(depth, predicts=Visit.back, asked=asked, calibrate="sigmoid")
def curve() -> LGBMClassifier:
    return LGBMClassifier(**small)


@fb.model(fb.features(words=fb.text(Visit.note), bits=fb.text(Visit.note, by="char", grams=(2, 3), sublinear=True)),
          predicts=Visit.back, asked=asked)
def prose() -> LGBMClassifier:
    return LGBMClassifier(**small)


app = fb.App("visits", sources=[fb.files("visits.csv", prepare=rows, yields=Visit)],
             models=[steps, curve, prose],
             search=fb.search(trials=1, optimize=fb.metrics.log_loss, split=fb.by_time(fb.days(7))))
'''
WORDS = ["came", "again", "Straße", "late", "ill", "naïve", "a", "x9", "late-night", "İ"]


def visits(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Visits, two hours apart, of which the deep ones come back, and those with a late word."""
    chance = random.Random(seed)
    for n in range(count):
        depth = chance.choice([0.0, 9.0, chance.uniform(0, 9)])
        words = chance.choices(WORDS, k=chance.randrange(8))
        yield {
            "visit": f"v{seed}/{n}",
            "came": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=2 * n),
            "depth": depth,
            "note": chance.choice([" ".join(words), " ".join(words).upper(), "", None]),
            "back": ("late" in words or depth > chance.uniform(3, 9)) != (chance.random() < 0.1),
        }


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("bundled") / "visits"
    folder.mkdir()
    seen = pl.DataFrame(list(visits(300, 1))).with_columns(settled=pl.col("came") + timedelta(days=1))
    seen.with_columns(pl.col("came", "settled").dt.to_string("iso:strict")).write_csv(folder / "visits.csv")
    (folder / "__init__.py").touch()
    (folder / "app.py").write_text(APP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYBALL_KEY", str(tmp_path_factory.mktemp("key") / "k.pem"))
        projects.forget(folder)
        assert cli.call(["apply", str(folder), "--json"]) == 0
        yield projects.opened(folder)


@pytest.mark.parametrize("model", ["steps", "curve", "prose"])
def test_a_bundle_says_the_bits_that_a_predictor_says(shop: Session, model: str, tmp_path: Path) -> None:
    said = bundle.bundle(shop, model, f"{model}-1", tmp_path / "a.zip")
    here, seen = edge.load(str(tmp_path / "a.zip")), set()
    assert (said.handed, said.within, here.selfcheck()["exact"]) == ({}, 0.0, True)
    with Predictor(shop, model) as asks:
        for row in visits(60, 2):
            sent = {name: row[name] for name in ("visit", "depth", "note")}
            answer = asks.predict({**sent, "came": row["came"]}, row["came"])
            found = here.predict({**sent, "came": row["came"].isoformat()})
            assert (found["output"], found.get("decision")) == (answer.output, answer.decision)
            seen.add((answer.output, answer.decision))
    assert len(seen) > 3, "they do not all say the same"
    assert {decided for _, decided in seen} == ({True, False} if model == "steps" else {None})
