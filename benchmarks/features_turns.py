"""One turn of the features benchmark: `python -m benchmarks.features_turns WHAT FOLDER [N]` prints seconds, peak memory, and
what was found.

Readings are multiples of 1/256, so that floats add up exactly in any order, and equal answers have equal sums. Run also by an
interpreter that has a peer and not us: each contestant imports what it needs, and no more.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.data_turns import Peak

START = datetime(2024, 1, 1, tzinfo=UTC)
HISTORY = timedelta(days=60)
MAX_AGE, MONTH = timedelta(days=1), timedelta(days=30)
SPANS = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
TAKEN = ("x", "y", "z")
MINUTE = 60_000_000


def micros(moment: datetime | timedelta) -> int:
    """Of a duration, or of a moment since 1970."""
    duration = moment if isinstance(moment, timedelta) else moment - datetime(1970, 1, 1, tzinfo=UTC)
    return duration // timedelta(microseconds=1)


def make(place: Path, rows: int) -> dict[str, Any]:
    """Readings of rows / 100 entities over 60 days, and rows / 10 questions about the last 40 days of them.

    `plain`: known at once, and in that order. `corrected`: one in twenty is known up to three days late, one in a hundred is
    corrected up to ten days later; in daily batches, and within each in the order of the event times.
    """
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    # Even microseconds for readings and odd ones for questions: so before and not after is never a matter of taste.
    at = micros(START) + 2 * np.arange(rows) * (micros(HISTORY) // (2 * rows))
    x = np.round(rng.normal(100, 30, rows) * 256) / 256
    plain = pl.DataFrame(
        {
            "entity": rng.integers(0, max(rows // 100, 1), rows),
            "at": at,
            "x": np.where(rng.random(rows) < 0.02, np.nan, x),
            "y": np.round(rng.exponential(50, rows) * 256) / 256,
            "z": rng.integers(0, 1000, rows),
            "_batch": np.ones(rows, dtype=np.int64),
            "_known": at,
        }
    ).with_columns(pl.col("x").fill_nan(None))
    late = pl.Series(np.where(rng.random(rows) < 0.05, 2 * rng.integers(MINUTE // 2, 3 * 1440 * MINUTE // 2, rows), 0))
    again = plain.sample(rows // 100, seed=0).with_columns(pl.col("x") + 1, pl.col("y") + 1, pl.col("z") + 1)
    after = 2 * rng.integers(3 * 1440 * MINUTE // 2 + 1, 10 * 1440 * MINUTE // 2, again.height)
    arrived = pl.concat([plain.with_columns(_known=late + plain["at"]), again.with_columns(_known=after + again["at"])])
    corrected = arrived.with_columns(_batch=(pl.col("_known") - micros(START)) // (1440 * MINUTE) + 1)
    n = rows // 10
    asked = micros(START + timedelta(days=20)) + 2 * rng.integers(0, micros(timedelta(days=40)) // 2, n) + 1
    questions = pl.DataFrame(
        {"id": np.arange(n), "entity": rng.integers(0, max(rows // 100, 1), n), "asked": asked, "_asked": asked}
    )
    for name, frame in (("plain", plain), ("corrected", corrected.sort("_batch", "at")), ("questions", questions)):
        moments = {c: pl.col(c).cast(pl.Datetime("us", "UTC")) for c in ("at", "_known", "asked", "_asked")}
        frame = frame.with_columns(**{c: e for c, e in moments.items() if c in frame.columns})
        frame.write_parquet(place / f"{name}.parquet")
    sizes = {name: frame.estimated_size() / 1e6 for name, frame in (("plain", plain), ("corrected", corrected))}
    return {name: size + questions.estimated_size() / 1e6 for name, size in sizes.items()}


def contracts() -> tuple[Any, Any]:
    """The readings and the questions, as contracts of ours."""
    import dataframely as dy

    import flyball as fb

    class Reading(fb.Contract):
        """One reading."""

        entity = dy.Int64(primary_key=True)
        at = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
        x = dy.Float64(nullable=True)
        y = dy.Float64()
        z = dy.Int64()

    class Question(fb.Contract):
        """One question."""

        id = dy.Int64(primary_key=True)
        asked = fb.event_time(dy.Datetime(time_zone="UTC"))
        entity = dy.Int64()

    return Reading, Question


def rows_of(name: str) -> tuple[str, timedelta]:
    """The file that a turn reads, and the greatest age: `plain`, `corrected`, or one of them with `-month`."""
    file, _, month = name.partition("-")
    return f"{file}.parquet", MONTH if month else MAX_AGE


def tally(found: Any) -> dict[str, Any]:
    """How many values there are in each column, and their sum, weighted by where they stand."""
    import polars as pl

    places = pl.int_range(pl.len()) % 1009 + 1
    numbers = (pl.all().cast(pl.Float64) * 2**20).round().cast(pl.Int64)
    counts, sums = found.select(pl.all().count()), found.select((numbers * places).sum())
    return {name: [counts[name][0], sums[name][0]] for name in found.columns}


# --- the latest row


def latest_ours(place: Path, name: str) -> Any:
    """One `latest` of three columns."""
    import polars as pl

    import flyball as fb
    from flyball.learn.features import offline

    file, max_age = rows_of(name)
    reading, question = contracts()
    by = (question.entity, reading.entity)
    taken = [getattr(reading, n) for n in TAKEN]
    features = fb.features(last=fb.latest(reading, by=by, max_age=max_age, columns=taken))
    questions = pl.read_parquet(place / "questions.parquet")
    found = offline.build(features, question, questions, {"Reading": pl.scan_parquet(place / file)})
    return found.rename({f"last_{n}": n for n in TAKEN})


def latest_limit(place: Path, name: str) -> Any:
    """By hand: what is known later and is about an earlier time never wins, and is dropped; then one `join_asof`."""
    import polars as pl

    file, max_age = rows_of(name)
    rows = pl.read_parquet(place / file, columns=["entity", "at", *TAKEN, "_known"]).sort("_known")
    rows = rows.filter(pl.col("at") >= pl.col("at").cum_max().over("entity"))
    questions = pl.read_parquet(place / "questions.parquet").with_row_index("_row").sort("_asked")
    found = questions.join_asof(
        rows,
        left_on="_asked",
        right_on="_known",
        by="entity",
        strategy="backward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    young = pl.col("_asked") - pl.col("at") <= max_age
    return found.sort("_row").select(pl.when(young).then(n).alias(n) for n in TAKEN)


def latest_feast(place: Path, name: str, store: str = "duckdb") -> Any:
    """Feast's historical features of an entity frame, from the faster of the two stores that run on one machine."""
    import pandas as pd
    import polars as pl

    fs, types = (importlib.import_module(name) for name in ("feast", "feast.types"))
    file, max_age = rows_of(name)
    source = fs.FileSource(path=str(place / file), timestamp_field="at")
    entity = fs.Entity(name="entity", join_keys=["entity"], value_type=fs.ValueType.INT64)
    schema = [
        fs.Field(name="x", dtype=types.Float64),
        fs.Field(name="y", dtype=types.Float64),
        fs.Field(name="z", dtype=types.Int64),
    ]
    view = fs.FeatureView(name="last", entities=[entity], ttl=max_age, schema=schema, source=source)
    config = fs.RepoConfig(
        project="bench",
        provider="local",
        registry=str(place / f"feast-{store}-{name}.db"),
        offline_store={"type": store},
        online_store=None,
        entity_key_serialization_version=3,
    )
    feast = fs.FeatureStore(config=config)
    feast.apply([entity, view])
    questions = pd.read_parquet(place / "questions.parquet", columns=["id", "entity", "asked"])
    asked = questions.rename(columns={"asked": "event_timestamp"})
    found = feast.get_historical_features(asked, [f"last:{n}" for n in TAKEN]).to_arrow()
    # The one store changes the order, the other leaves out what it finds nothing for.
    ids = pl.DataFrame({"id": questions["id"].to_numpy()})
    whole = ids.join(pl.DataFrame(found), on="id", how="left", maintain_order="left")
    return whole.select(TAKEN).fill_nan(None)


def latest_feast_dask(place: Path, name: str) -> Any:
    """The same from the store that Feast takes by default."""
    return latest_feast(place, name, "dask")


# --- twelve windows


def windows_ours(place: Path, name: str) -> Any:
    """Mean, sum and count, each over four spans."""
    import polars as pl

    import flyball as fb
    from flyball.learn.features import offline

    reading, question = contracts()
    by, over = (question.entity, reading.entity), list(SPANS.values())
    features = fb.features(
        mean=fb.window(reading, reading.x.col.mean(), by=by, over=over),
        sum=fb.window(reading, reading.y.col.sum(), by=by, over=over),
        count=fb.window(reading, pl.len(), by=by, over=over),
    )
    questions = pl.read_parquet(place / "questions.parquet")
    return offline.build(features, question, questions, {"Reading": pl.scan_parquet(place / f"{name}.parquet")})


def windows_limit(place: Path, name: str) -> Any:
    """By hand: running sums of each entity, and the difference of two that `join_asof` finds; one join for each moment."""
    import polars as pl

    rows = pl.read_parquet(place / f"{name}.parquet", columns=["entity", "x", "y", "_known"]).sort("_known")
    running = rows.select(
        "entity",
        "_known",
        n=pl.col("y").cum_count().over("entity"),
        xn=pl.col("x").cum_count().over("entity"),
        xs=pl.col("x").fill_null(0).cum_sum().over("entity"),
        ys=pl.col("y").cum_sum().over("entity"),
    )
    questions = pl.read_parquet(place / "questions.parquet", columns=["entity", "_asked"]).with_row_index("_row")
    questions = questions.sort("_asked")

    def before(span: timedelta) -> Any:
        moments = questions.select("entity", _at=pl.col("_asked") - span)
        joined = moments.join_asof(
            running,
            left_on="_at",
            right_on="_known",
            by="entity",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        return joined.select(pl.col("n", "xn", "xs", "ys").fill_null(0))

    now = before(timedelta(0))
    found: dict[str, Any] = {}
    for text, span in SPANS.items():
        net = now - before(span)
        found |= {f"mean_{text}": net.select(pl.when(pl.col("xn") > 0).then(pl.col("xs") / pl.col("xn"))).to_series()}
        found |= {f"sum_{text}": net["ys"], f"count_{text}": net["n"]}
    ordered = [f"{how}_{text}" for how in ("mean", "sum", "count") for text in SPANS]
    return questions.select("_row").with_columns(**found).sort("_row").select(ordered)


TURNS: Mapping[str, Callable[[Path, str], Any]] = {
    "latest-ours": latest_ours,
    "latest-limit": latest_limit,
    "latest-feast": latest_feast,
    "latest-feast-dask": latest_feast_dask,
    "windows-ours": windows_ours,
    "windows-limit": windows_limit,
}


def _warm(what: str) -> None:
    """Load what the turn will use: what is imported is not what is measured."""
    import polars as pl

    assert pl.select(pl.lit(1)).item() == 1
    if what.endswith("-ours"):
        from flyball.learn.features import offline

        assert all((contracts(), offline))
    elif "feast" in what:
        assert importlib.import_module("feast").FeatureStore


def main() -> None:
    """Run the turn that the command line names."""
    what, place = sys.argv[1], Path(sys.argv[2])
    if what == "make":
        print(json.dumps(make(place, int(sys.argv[3]))))
        return
    _warm(what)
    peak = Peak()
    started = time.perf_counter()
    found = TURNS[what](place, sys.argv[3])
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_mb": peak.mb, "found": tally(found)}))


if __name__ == "__main__":
    main()
