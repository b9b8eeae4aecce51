"""Offline, online and the oracle agree on entities of every type and on moments that are years, or nothing, apart."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dataframely as dy
import polars as pl
import pytest

from flyball.adapters.memory.online import MemoryOnline
from flyball.data import contract, dataset
from flyball.data.contract import Contract, before, event_time
from flyball.learn.features import batches, notation, offline, scan
from flyball.learn.features.declare import Entity, Latest, Window
from flyball.learn.features.lookup import Lookup
from tests.oracles import point_in_time
from tests.oracles.histories import ticks

FIRST = datetime(200, 1, 1, tzinfo=UTC)
NUMBERS = [None, 0.0, -0.0, 1 / 3, 2.0**55.9, -(2.0**55.5), 2.0**20.5, 3 * 2.0**-41, float("nan"), float("inf")]
WHOLE = [None, 2**63 - 1, -(2**63), 2**53 + 1, 7]
WHO: dict[str, list[Any]] = {
    "whole": [-(2**62), 2**62, 0, -5, 2**63 - 1, -(2**63)],
    "dense": [-3, -2, 5],
    "small": [-128, 127],
    "text": ["a", "", "1:a", "é😀", "\0", "x" * 300],
    "few": ["p", "q"],
    "yes": [True, False],
    "day": [date(1, 1, 1), date(9999, 12, 31), date(1969, 12, 31)],
    "time": [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 9, UTC),
    ],
}


class Sight(Contract):
    sight = dy.Int64(primary_key=True)
    part = dy.String(primary_key=True)
    seen = event_time(dy.Datetime(time_zone="UTC"), known=before(ticks(3)))
    whole = dy.Int64(nullable=True)
    dense = dy.Int64(nullable=True)
    small = dy.Int8(nullable=True)
    text = dy.String(nullable=True)
    few = dy.Enum(["p", "q"], nullable=True)
    yes = dy.Bool(nullable=True)
    day = dy.Date(nullable=True)
    time = dy.Datetime(time_zone="UTC", nullable=True)
    size = dy.Float64(nullable=True)
    count = dy.Int64(nullable=True)


SPEC = contract.spec(Sight)
SIZE, COUNT = Sight.size.col, Sight.count.col
MADE: dict[str, Any] = {
    "mean": SIZE.mean(),
    "sum": COUNT.sum(),
    "std": SIZE.std(),
    "var": COUNT.var(ddof=0),
    "trend": notation.trend(SIZE),
    "max": COUNT.max(),
    "kinds": SIZE.n_unique(),
    "upper": SIZE.quantile(0.7, interpolation="linear"),
    "ago": notation.since_last(),
}
READ = {name: "count" if name in ("sum", "var", "max") else "size" for name in MADE}


def history(dice: random.Random) -> list[dict[str, Any]]:
    """Rows, of which some are the same key again; in one of three widths of time."""
    width = dice.choice([9, 10**6, 3 * 10**17])
    ends = dice.random() < 0.5

    def moment() -> datetime:
        tick = dice.randrange(width)
        return FIRST + timedelta(microseconds=min(tick, tick % 9) if ends and dice.random() < 0.5 else tick)

    rows = {}
    for n in range(dice.choice([0, 1, 2, 40])):
        key, batch, seen = (dice.randrange(9), dice.choice(["", "\0"])), 1 + n // 3, moment()
        row = {name: dice.choice([*values, None]) for name, values in WHO.items()}
        row |= {
            "sight": key[0],
            "part": key[1],
            "seen": seen,
            "size": dice.choice(NUMBERS),
            "count": dice.choice(WHOLE),
        }
        rows[batch, key] = row | {"_batch": batch, "_known": max(seen - ticks(3), moment())}
    return list(rows.values())


def expected(feature: Latest | Window, row: dict[str, Any], rows: list[dict[str, Any]]) -> list[Any]:
    asked, entity = row["_asked"], [row[n] for n in feature.by.question]
    current = point_in_time.as_of(rows, SPEC.key, (), asked)
    theirs = [r for r in current if None not in entity and entity == [r[n] for n in feature.by.table]]
    others = [r for r in theirs if [r[k] for k in SPEC.key] != [row[k] for k in SPEC.key]]
    if isinstance(feature, Latest):
        best = point_in_time.latest(others, SPEC.key, SPEC.event_time, asked, feature.max_age)
        return [best[c] if best else None for c in feature.columns]
    found: list[Any] = []
    name, how = feature.name, feature.aggregate
    for over in feature.over:
        span = (asked - min(over, asked - FIRST + ticks(1)), asked)
        if how.how == "since":
            found.append(point_in_time.since(others, "_known_first", span, asked, lambda r: True))
        else:
            read = READ[name]
            value = lambda r, read=read: r[read]  # noqa: E731
            found.append(point_in_time.window(others, "_known_first", span, value, (how.how, how.level, how.pick)))
    return found


def spelt(row: Any) -> list[str]:
    """To the last bit, but of one zero; seconds beyond a century to the millisecond, since the oracle rounds them once."""
    said = [v + 0.0 if isinstance(v, float) else v for v in row]
    return [repr(round(v, 3) if isinstance(v, float) and 3e9 < v < 1e12 else v) for v in said]


@pytest.mark.parametrize("seed", range(24))
def test_entities_of_every_type_at_any_time(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)
    monkeypatch.setattr(scan, "PORTION", dice.choice([1, 3, 1 << 21]))
    rows = history(dice)
    who = [*WHO][seed % len(WHO)]
    columns = [getattr(Sight, who), Sight.text]
    by = dice.choice([columns[:1], columns])
    spans = [ticks(3), timedelta(days=9000 * 365)]
    features = notation.features(
        last=notation.latest(Sight, by=by, columns=[Sight.size, Sight.count]),
        young=notation.latest(Sight, by=by, columns=[Sight.count], max_age=ticks(4)),
        **{name: notation.window(Sight, made, by=by, over=spans) for name, made in MADE.items()},
    )
    assert isinstance(features.features[0], Latest)
    assert features.features[0].by == Entity(tuple(c.name for c in by), tuple(c.name for c in by))
    frame = pl.DataFrame(rows, schema=dataset.schema(SPEC))
    questions = [r | {"_asked": r["_known"] + ticks(dice.choice([0, 1, 2]))} for r in rows]
    questions = [r | dice.choice([{}, {"sight": 99}, {who: dice.choice(WHO[who])}]) for r in questions]
    asked = pl.DataFrame(
        [{n: r[n] for n in (*SPEC.names, "_asked")} for r in questions],
        schema={**SPEC.dtypes, "_asked": pl.Datetime("us", "UTC")},
    )
    built = offline.build(features, Sight, asked, {"Sight": frame.lazy()}).rows()
    oracle = [[v for f in features.features for v in expected(f, q, rows)] for q in questions]  # type: ignore[arg-type]
    assert [spelt(row) for row in built] == [spelt(row) for row in oracle]
    store = MemoryOnline()
    for batch in sorted({1, *frame["_batch"]}):
        batches.update(store, features, {"Sight": frame.filter(pl.col("_batch") <= batch).lazy()})
    lookup = Lookup(features, Sight, store)
    found = [lookup({n: q[n] for n in SPEC.names}, q["_asked"]) for q in questions]
    assert [spelt(row) for row in found] == [spelt(row) for row in built]
