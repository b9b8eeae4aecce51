"""Whatever the rows: what is measured is what a plain computation finds, in whatever order they lie, inside its interval."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from statistics import fmean

import dataframely as dy
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

import flyball as fb
from flyball._kernel.conditions import Condition, Measurement
from flyball.data import contract, dataset
from flyball.data.expectations import measuring
from flyball.data.expectations.expect import column, table
from flyball.data.expectations.measuring import Standing

START = datetime(2024, 1, 1, tzinfo=UTC)


class Reading(fb.Contract):
    number = dy.Int64(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    place = dy.String(nullable=True)
    degrees = dy.Float64(nullable=True)


PLACES = st.one_of(st.none(), st.sampled_from(["a", "b", ""]))
DEGREES = st.one_of(st.none(), st.sampled_from([math.nan, math.inf]), st.floats(-100, 100).map(lambda x: x + 0.0))
CELLS = st.lists(st.tuples(st.integers(0, 3), PLACES, DEGREES), min_size=1, max_size=40)
METRICS = {
    "complete": column(Reading.degrees).completeness,
    "mean": column(Reading.degrees).mean,
    "distinct": column(Reading.place).distinct,
    "share": column(Reading.place).share("a"),
    "outliers": column(Reading.degrees).outliers,
    "duplicates": table(Reading).duplicates,
    "daily": table(Reading).rows_per_day,
}


def measured(frame: pl.DataFrame) -> dict[str, Measurement | None]:
    expects = [Condition(metric, ">=", 0.0) for metric in METRICS.values()]
    verdicts = measuring.judge(expects, Standing(Reading, frame.lazy(), frame.height, START + timedelta(days=9)))
    return dict(zip(METRICS, (v.measurement for v in verdicts), strict=True))


def near(one: Measurement | None, other: Measurement | None) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one.estimate, other.estimate, abs_tol=1e-9)


@settings(max_examples=60, deadline=None)
@given(CELLS)
def test_measurements_are_plain_and_do_not_depend_on_the_order(
    cells: list[tuple[int, str | None, float | None]],
) -> None:
    rows = [(n, START + timedelta(days=d), p, v, 1, START) for n, (d, p, v) in enumerate(cells)]
    frame = pl.DataFrame(rows, schema=dataset.schema(contract.spec(Reading)), orient="row")
    found = measured(frame)
    values = [v for _, _, v in cells if v is not None and math.isfinite(v)]
    places = [p for _, p, _ in cells if p is not None]
    same = Counter(repr(cell) for cell in cells)
    days = Counter(d for d, _, _ in cells)
    whole = range(min(days) + 1, max(days))
    expected = {
        "complete": len(values) / len(cells),
        "mean": fmean(values) if len(values) > 1 else None,
        "distinct": len(set(places)) if places else None,
        "share": places.count("a") / len(places) if places else None,
        "duplicates": sum(n for n in same.values() if n > 1) / len(cells),
        "daily": min(days[d] for d in whole) if whole else None,
    }
    for name, value in expected.items():
        got = found[name]
        assert (got is None) == (value is None), name
        if got is not None and value is not None:
            assert math.isclose(got.estimate, value, rel_tol=1e-9, abs_tol=1e-9), name
    for got in found.values():
        assert got is None or got.low <= got.estimate <= got.high
    again = measured(frame.reverse())
    assert all(near(found[name], again[name]) for name in METRICS)
