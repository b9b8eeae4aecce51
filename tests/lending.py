"""A small app in memory that decides, calibrates and is made fair, with two versions: the second learned from more rows."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import dataframely as dy
import polars as pl
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import days, hours, log_loss, metrics, roc_auc
from flyball.adapters.memory.clock import VirtualClock
from flyball.cycle import apply, operate
from flyball.cycle.session import Session
from tests.loops import Fuse, World

START = datetime(2024, 3, 1, tzinfo=UTC)


class Loan(fb.Contract):
    """What is asked about."""

    loan = dy.String(primary_key=True)
    asked = fb.event_time(dy.Datetime(time_zone="UTC"))
    region = fb.protected(dy.Enum(["north", "south"]))
    purpose = dy.Enum(["car", "house"])
    income = dy.Float64(min=0)
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    repaid = fb.outcome(dy.Bool(nullable=True))


def plain(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


GAP = metrics.selection_rate.gap(by=Loan.region) <= 0.2


class Knobs(fb.Params):
    """What the search may turn."""

    leaves: int = fb.between(3, 7, start=5)


@fb.model(
    fb.features(Loan.region, Loan.purpose, Loan.income, hour=Loan.asked.col.dt.hour()),
    predicts=Loan.repaid,
    asked=fb.before(Loan.asked, hours(0), tolerance=hours(1)),
    calibrate="sigmoid",
    decide=fb.best(metrics.f1),
    mitigate=fb.mitigate(GAP, "thresholds"),
)
def lend(knobs: Knobs) -> LGBMClassifier:
    return LGBMClassifier(num_leaves=knobs.leaves, n_estimators=12, min_child_samples=10, n_jobs=1)


APP = fb.App(
    "lending",
    sources=[fb.files("loans-*.csv", prepare=plain, yields=Loan)],
    model=lend,
    search=fb.search(trials=2, optimize=log_loss, split=fb.by_time(days(14))),
    gates=[roc_auc >= 0.55, GAP, fb.approval(by="risk")],
)


def loans(start: datetime, length: int, seed: int) -> pl.DataFrame:
    """Twenty a day, half an hour apart; the rich repay, and the south is poorer."""
    chance, rows = random.Random(seed), []
    for n in range(length * 20):
        asked = start + timedelta(days=n // 20, minutes=30 * (n % 20))
        region = chance.choice(["north", "south"])
        income = round(chance.uniform(20, 60) + (20 if region == "north" else 0), 2)
        rows.append(
            {
                "loan": f"{seed}-{n}",
                "asked": asked,
                "region": region,
                "purpose": chance.choice(["car", "house"]),
                "income": income,
                "settled": asked + timedelta(hours=6),
                "repaid": chance.random() < min(0.95, max(0.05, (income - 20) / 60)),
            }
        )
    return pl.DataFrame(rows)


def two_versions() -> Session:
    """Version 1 answers by an override; version 2 learned from three weeks more, and waits for its approval."""
    world = World(clock=VirtualClock(START), frames={"loans-1.csv": loans(START - timedelta(days=60), 60, 1)})
    session = world.session(APP, Fuse(), "one")
    apply.apply(session, until=START)
    operate.promote(session, "lend-1", by="ada", reason="somebody must answer", override=True, at_once=True)
    world.frames["loans-2.csv"] = loans(START, 21, 2)
    world.clock.advance(timedelta(days=22))
    apply.apply(session, until=START + timedelta(days=30))
    return session
