"""Judging what is expected of a table, on its rows as they stand.

All that can be counted (rows, values, days, known values) is one streaming pass over the columns that are asked for, whatever
the number of expectations; the memory it takes grows with the different values of a column whose `distinct` is asked, and
of the one that `matches` looks into. Quantiles, outliers, drift and leakage are measured on a sample of about `SAMPLE` rows
at most, drawn by a hash of the key: the same rows every time, in whatever order they lie. Their intervals are the sample's.

A count is exact, and its interval a point; a share has Wilson's interval, a mean that of the central limit theorem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from flyball._kernel import conditions
from flyball._kernel.conditions import Condition, Measurement, Verdict
from flyball.data import contract, interval
from flyball.data.contract import Contract, Spec
from flyball.data.expectations import expect, sampling
from flyball.data.expectations.expect import Expected
from flyball.data.tables import BATCH, KNOWN

SAMPLE = 100_000
"""Rows: an interval of a share is then no wider than 0.6 %."""
PAIRS = 1_000_000
"""Rows of which duplicates are sought, by a hash of their content: equal ones are drawn together."""
SEED = 1788
Found = tuple[Measurement | None, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """A table as it stands.

    Attributes:
        rows: one row a key, with the columns that `dataset.schema` tells.
        size: how many rows there are at most; decides how thinly they are sampled.
        now: the moment of the judgement.
        before: the rows of the version that was believed before, and its batch; None where there is none.
        others: the tables that relations ask.
    """

    of: type[Contract]
    rows: pl.LazyFrame
    size: int
    now: datetime
    before: tuple[pl.LazyFrame, int] | None = None
    others: Mapping[type[Contract], pl.LazyFrame] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        """The contract as plain data."""
        return contract.spec(self.of)


def judge(expects: Sequence[Condition], standing: Standing) -> list[Verdict]:
    """Every expectation of one table, in order."""
    counted = _count(expects, standing)
    sampled = _sampled(expects, standing)
    judged: list[Verdict] = []
    for each, name in zip(expects, _names(expects), strict=True):
        metric = expect.metric_of(each)
        if metric.name in sampling.MEASURED:
            found, reason = sampling.measure(metric, sampled)
        else:
            found, reason = _found(each, counted, name, standing.now)
        if found is not None and not math.isfinite(found.estimate + found.low + found.high):
            # JSON has no infinity: what is written down must be readable again.
            found, reason = None, f"the numbers of {metric.column} are too great to be told"
        judged.append(conditions.judge(each, found, reason=reason))
    return judged


def sample(rows: pl.LazyFrame, spec: Spec, size: int, columns: Sequence[str]) -> pl.DataFrame:
    """About `SAMPLE` of `size` rows, or all where there are fewer; `sampling.HALF` splits them by chance."""
    thin = max(1, math.ceil(size / SAMPLE))
    drawn = hashed(spec)
    wanted = [*map(pl.col, dict.fromkeys(columns)), (drawn // thin % 2 == 0).alias(sampling.HALF)]
    chosen = rows.filter(drawn % thin == 0) if thin > 1 else rows
    # The order of a table's rows is not defined; what follows must not depend on it.
    return chosen.select(*wanted, drawn.alias("_drawn")).collect(engine="streaming").sort("_drawn").drop("_drawn")


def hashed(spec: Spec) -> pl.Expr:
    """The key, hashed: the same for the same key, whenever and in whatever order it was read."""
    # The codes of categories depend on the order in which they were met.
    plain = (pl.col(k).cast(pl.String) if spec.column(k).dtype == pl.Categorical else pl.col(k) for k in spec.key)
    return pl.struct(plain).hash(SEED)


def present(name: str, dtype: pl.DataType) -> pl.Expr:
    """The column, where what is not a finite number is null, as it is to a model."""
    column = pl.col(name)
    return pl.when(column.is_finite()).then(column) if dtype.is_float() else column


def _names(expects: Sequence[Condition]) -> list[str]:
    return [f"e{n}" for n in range(len(expects))]


def _count(expects: Sequence[Condition], standing: Standing) -> dict[str, Any]:
    """All that is counted: name -> value, in one streaming pass."""
    spec, asked = standing.spec, list(zip(map(expect.metric_of, expects), _names(expects), strict=True))
    exact = [pl.len().alias("rows"), pl.col(KNOWN).max().alias("newest")]
    for metric, name in asked:
        exact += _exact(metric, name, spec)
    frames = [standing.rows.select(exact)]
    frames += [_pairs(standing)] if any(m.name == "duplicates" for m, _ in asked) else []
    frames += [_known(m, name, standing) for m, name in asked if m.name == "matches"]
    daily = any(m.name in ("rows_per_day", "volume") for m, _ in asked)
    if daily:
        day = pl.col(spec.event_time).dt.truncate("1d").alias("day")
        frames.append(standing.rows.group_by(day).agg(pl.len().alias("rows")))
    found = pl.collect_all(frames, engine="streaming")
    values: dict[str, Any] = {"days": found.pop().sort("day") if daily else None}
    for frame in found:
        values |= frame.row(0, named=True)
    return values


def _exact(metric: Expected, name: str, spec: Spec) -> list[pl.Expr]:
    if not metric.column:
        return []
    value = present(metric.column, spec.column(metric.column).dtype)
    n = value.count().alias(f"{name}.n")
    match metric.name:
        case "completeness" | "matches":
            return [n]
        case "mean":
            number = value.cast(pl.Float64)
            return [n, number.mean().alias(name), number.std().alias(f"{name}.std")]
        case "minimum":
            return [n, value.min().cast(pl.Float64).alias(name)]
        case "maximum":
            return [n, value.max().cast(pl.Float64).alias(name)]
        case "distinct":
            # By hash, so that long texts take no more room than numbers; two of 10 million collide with the chance 3e-6.
            return [n, value.drop_nulls().hash(SEED).n_unique().alias(name)]
        case "share":
            return [n, (value == pl.lit(metric.value)).sum().alias(name)]
        case _:
            return []


def _pairs(standing: Standing) -> pl.LazyFrame:
    """Of rows drawn by their content: how many there are, how many equal another one, and how many contents they have."""
    thin = max(1, math.ceil(standing.size / PAIRS))
    content = [c for c in standing.spec.names if c not in standing.spec.key]
    drawn = standing.rows.select(pl.struct(content).hash(SEED).alias("content")).filter(pl.col("content") % thin == 0)
    n = pl.col("n")
    return (
        drawn.group_by("content")
        .agg(pl.len().alias("n"))
        .select(
            n.sum().alias("pairs.rows"),
            n.filter(n > 1).sum().alias("pairs.equal"),
            pl.len().alias("pairs.contents"),
        )
    )


def _known(metric: Expected, name: str, standing: Standing) -> pl.LazyFrame:
    """How many values of a column the other table knows."""
    assert metric.other is not None  # noqa: S101 - of `matches`
    dtype = standing.spec.column(metric.column).dtype
    texts = dtype in (pl.String, pl.Enum, pl.Categorical)
    plain: pl.DataType = pl.String() if texts else pl.Int128() if dtype.is_integer() else dtype

    def values(rows: pl.LazyFrame, column: str) -> pl.LazyFrame:
        return rows.select(present(column, dtype).cast(plain).alias("value")).drop_nulls()

    theirs = values(standing.others[metric.other.contract], metric.other.name).unique()
    return values(standing.rows, metric.column).join(theirs, on="value", how="semi").select(pl.len().alias(name))


def _found(each: Condition, counted: Mapping[str, Any], name: str, now: datetime) -> Found:
    metric, rows = expect.metric_of(each), int(counted["rows"])
    if not rows and metric.name != "rows":
        return None, "the table has no row"
    n = int(counted.get(f"{name}.n") or 0)
    match metric.name:
        case "rows":
            return _point(rows, max(rows, 1)), ""
        case "completeness":
            return share(n, rows), ""
        case "freshness":
            return _point((now - counted["newest"]).total_seconds(), rows), ""
        case "duplicates":
            return _duplicates(counted)
        case "rows_per_day" | "volume":
            return _daily(each, counted["days"], now)
    if not n:
        return None, f"{metric.column} has no value"
    value = counted[name]
    match metric.name:
        case "share" | "matches":
            return share(int(value), n), ""
        case "mean":
            if n < 2:
                return None, "one value has no spread"
            low, high = interval.of_mean(value, counted[f"{name}.std"], n)
            return Measurement(estimate=value, low=low, high=high, n=n), ""
        case _:
            return _point(value, n), ""


def _duplicates(counted: Mapping[str, Any]) -> Found:
    """Equal rows are drawn together, so there are only as many independent draws as different contents."""
    rows, contents = int(counted["pairs.rows"]), int(counted["pairs.contents"])
    if not rows:
        return None, "no row was drawn"
    equal = int(counted["pairs.equal"])
    part = equal / rows
    low, high = interval.wilson(round(part * contents), contents)
    return Measurement(estimate=part, low=min(low, part), high=max(high, part), n=contents), ""


def _daily(each: Condition, days: pl.DataFrame, now: datetime) -> Found:
    """Of the whole days between the first and the last that have rows; what is asked decides which of them is the worst."""
    day = timedelta(days=1)
    first, last = days["day"][0], min(days["day"][-1], now.replace(hour=0, minute=0, second=0, microsecond=0))
    span = int((last - first) / day) - 1
    if span < 1:
        return None, "there is no whole day yet"
    inside = days.filter((pl.col("day") > first) & (pl.col("day") < last))
    counts = np.zeros(span)
    at = ((inside["day"] - first).dt.total_days() - 1).to_numpy()
    counts[at] = inside["rows"].to_numpy()
    where = int(counts.argmin() if each.op == ">=" else counts.argmax())
    worst, told = float(counts[where]), f"on {first + (where + 1) * day:%Y-%m-%d}"
    if each.metric.name == "volume":
        usual = float(np.median(counts))
        if not usual:
            return None, "on most days there is no row"
        worst /= usual
    return _point(worst, span), told


def share(hits: int, n: int) -> Measurement:
    """A share with Wilson's interval."""
    low, high = interval.wilson(hits, n)
    return Measurement(estimate=hits / n, low=low, high=high, n=n)


def _point(value: float, n: int) -> Measurement:
    return Measurement(estimate=float(value), low=float(value), high=float(value), n=n)


def _sampled(expects: Sequence[Condition], standing: Standing) -> sampling.Sample:
    """What is measured on samples: all rows, and where drift is asked those of before, and those that came since."""
    spec = standing.spec
    asked = [m for m in map(expect.metric_of, expects) if m.name in sampling.MEASURED]
    late = [*spec.outcomes] if any(m.name == "leakage" for m in asked) else []
    columns = [*(m.column for m in asked if m.name != "drift"), *late]
    drifts = [m.column for m in asked if m.name == "drift"]
    rows = sample(standing.rows, spec, standing.size, columns) if columns else pl.DataFrame()
    then, since = pl.DataFrame(), pl.DataFrame()
    if drifts and standing.before is not None:
        earlier, batch = standing.before
        news = standing.rows.filter(pl.col(BATCH) > batch)
        then = sample(earlier, spec, standing.size, drifts)
        since = sample(news, spec, news.select(pl.len()).collect(engine="streaming").item(), drifts)
    return sampling.Sample(spec=spec, rows=rows, before=then, since=since)
