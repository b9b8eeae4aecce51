"""One turn of the online half of the features benchmark: `python -m benchmarks.features_online WHAT FOLDER [N]`.

Ours against the same by hand: two SQLite tables, the readings and their running sums, for which every reading is known when
it is made and none is ever corrected. `look-*` prints microseconds of the middle and of the slowest hundredth of many
look-ups; `update-*` the events a second that came in batches of N. What both answer must be equal.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.features_turns import HISTORY, START, micros

END = START + HISTORY
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
LOOKS, WARM = 20_000, 2_000
EVENTS = {1: 1_000, 10: 5_000, 100: 20_000, 1_000: 100_000, 10_000: 200_000}
"""Batch size -> how many events come in such batches."""

_BARE = (
    "CREATE TABLE readings (entity INT, at INT, x, y, z, u, v, PRIMARY KEY (entity, at)) WITHOUT ROWID",
    "CREATE TABLE sums_x (entity INT, at INT, n INT, total, PRIMARY KEY (entity, at)) WITHOUT ROWID",
    "CREATE TABLE sums_y (entity INT, at INT, n INT, total, PRIMARY KEY (entity, at)) WITHOUT ROWID",
    "CREATE TABLE place (position INT)",
    "INSERT INTO place VALUES (0)",
)
_LAST = "SELECT {}, at FROM readings WHERE entity = ? AND at < ? ORDER BY at DESC LIMIT 1"
_SUM = "SELECT n, total FROM sums_{} WHERE entity = ? AND at < ? ORDER BY at DESC LIMIT 1"
_ADD = """INSERT INTO sums_x SELECT ?1, ?2, ifnull(n, 0) + 1, ifnull(total, 0.0) + ?3 FROM (SELECT 1)
    LEFT JOIN (SELECT n, total FROM sums_x WHERE entity = ?1 ORDER BY at DESC LIMIT 1)"""


def readings(rows: int, entities: int, *, after: bool = False) -> Any:
    """Observations of 60 days as one batch, or of the hour after them."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(int(after))
    length = micros(HOUR if after else HISTORY)
    at = micros(END if after else START) + np.arange(rows) * (length // rows)
    numbers = {n: np.round(rng.normal(100, 30, rows) * 256) / 256 for n in ("x", "y", "z", "u", "v")}
    frame = pl.DataFrame({"entity": rng.integers(0, entities, rows), "at": at, **numbers, "_batch": 1, "_known": at})
    moments = [pl.col(n).cast(pl.Datetime("us", "UTC")) for n in ("at", "_known")]
    return frame.with_columns(*moments, pl.col("_batch").cast(pl.Int64))


def contracts() -> tuple[Any, Any]:
    """The readings and the questions, as contracts of ours."""
    import dataframely as dy

    import flyball as fb

    numbers = {name: dy.Float64() for name in ("x", "y", "z", "u", "v")}
    at = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    made: Any = type(fb.Contract)
    reading = made("Reading", (fb.Contract,), {"entity": dy.Int64(primary_key=True), "at": at, **numbers})
    question = made(
        "Question",
        (fb.Contract,),
        {
            "id": dy.Int64(primary_key=True),
            "entity": dy.Int64(),
            "asked": fb.event_time(dy.Datetime(time_zone="UTC")),
        },
    )
    return reading, question


def features(*, ten: bool) -> tuple[Any, Any]:
    """Ten values out of two latest rows and five windows; or what is updated: one latest row and two windows."""
    import flyball as fb

    reading, question = contracts()
    by = (question.entity, reading.entity)

    def last(*names: str) -> Any:
        return fb.latest(reading, by=by, columns=[getattr(reading, n) for n in names])

    def mean(name: str, *over: timedelta) -> Any:
        return fb.window(reading, getattr(reading, name).col.mean(), by=by, over=list(over))

    if ten:
        declared = fb.features(
            one=last("x", "y"), two=last("z", "u", "v"), x=mean("x", HOUR, DAY, WEEK), y=mean("y", DAY, WEEK)
        )
    else:
        declared = fb.features(one=last("x", "y", "z"), x=mean("x", HOUR, DAY))
    return declared, question


def fill(place: Path, rows: int) -> dict[str, Any]:
    """Both stores with the history, once for look-ups and a tenth of it for updates."""
    from flyball.adapters.embedded.online import SqlOnline
    from flyball.learn.features import batches as updating

    seconds: dict[str, float] = {}
    for name, n in (("look", rows), ("update", rows // 10)):
        frame = readings(n, rows // 10)
        started = time.perf_counter()
        store = SqlOnline(place / f"{name}-ours.sqlite")
        updating.update(store, features(ten=name == "look")[0], {"Reading": frame.lazy()})
        store.close()
        seconds[f"{name}-ours"] = time.perf_counter() - started
        started = time.perf_counter()
        with bare(place / f"{name}-limit.sqlite") as connection:
            for statement in _BARE:
                connection.execute(statement)
            apply(connection, frame, 1, sums_y=True)
        seconds[f"{name}-limit"] = time.perf_counter() - started
    return {"seconds": seconds, "mb": {p.name: p.stat().st_size / 1e6 for p in sorted(place.glob("*.sqlite"))}}


@contextmanager
def bare(path: Path) -> Iterator[sqlite3.Connection]:
    """A SQLite file, set up as our store's is."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=NORMAL")
    yield connection
    connection.close()


def apply(connection: sqlite3.Connection, frame: Any, position: int, *, sums_y: bool = False) -> None:
    """A batch by hand: its rows, its running sums and its position, in one transaction."""
    import polars as pl

    rows = frame.select("entity", pl.col("at").cast(pl.Int64), "x", "y", "z", "u", "v").rows()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.executemany(_ADD, [row[:3] for row in rows])
    if sums_y:
        connection.executemany(_ADD.replace("sums_x", "sums_y"), [(*row[:2], row[3]) for row in rows])
    connection.execute("UPDATE place SET position = ?", (position,))
    connection.execute("COMMIT")


Answer = Callable[[int, datetime], list[Any]]


def by_hand(connection: sqlite3.Connection, *, ten: bool) -> Answer:
    """The same values from the tables by hand: as many look-ups as ours has features and spans."""
    shapes: list[tuple[str, tuple[timedelta, ...]]]
    last, shapes = (["x, y", "z, u, v"], [("x", (HOUR, DAY, WEEK)), ("y", (DAY, WEEK))])
    if not ten:
        last, shapes = ["x, y, z"], [("x", (HOUR, DAY))]
    lasts = [(_LAST.format(columns), [None] * (columns.count(",") + 1)) for columns in last]
    means = [(_SUM.format(name), [micros(span) for span in spans]) for name, spans in shapes]

    def answer(entity: int, asked: datetime) -> list[Any]:
        at = micros(asked)
        values: list[Any] = []
        connection.execute("BEGIN")
        for statement, nothing in lasts:
            found = connection.execute(statement, (entity, at)).fetchone()
            values += found[:-1] if found is not None else nothing
        for statement, spans in means:
            n, total = connection.execute(statement, (entity, at)).fetchone() or (0, 0.0)
            for span in spans:
                less = connection.execute(statement, (entity, at - span)).fetchone() or (0, 0.0)
                values.append((total - less[1]) / (n - less[0]) if n > less[0] else None)
        connection.execute("COMMIT")
        return values

    return answer


@contextmanager
def ours(path: Path, *, ten: bool) -> Iterator[tuple[Any, Answer]]:
    """Our store, and what answers from it."""
    from flyball.adapters.embedded.online import SqlOnline
    from flyball.learn.features.lookup import Lookup

    store = SqlOnline(path)
    lookup = Lookup(*features(ten=ten), store)
    yield store, lambda entity, asked: list(lookup({"id": 0, "entity": entity}, asked))
    store.close()


def look(answer: Answer, entities: int) -> dict[str, Any]:
    """Ask for many entities, one after another."""
    import numpy as np

    who = np.random.default_rng(7).integers(0, entities, LOOKS + WARM).tolist()
    took, given = [], []
    for entity in who:
        started = time.perf_counter()
        values = answer(entity, END)
        took.append(time.perf_counter() - started)
        given.append(values)
    took = sorted(took[WARM:])
    figures = {"p50": 1e6 * statistics.median(took), "p99": 1e6 * took[int(0.99 * len(took))]}
    return {**figures, "found": totals(given)}


def totals(given: list[list[Any]]) -> list[Any]:
    """The sum of each value, and how often there was one."""
    return [[len(there), sum(there)] for v in zip(*given, strict=True) for there in [[n for n in v if n is not None]]]


def update(place: Path, who: str, size: int, entities: int) -> dict[str, Any]:
    """Let events arrive in batches of one size, on a copy of the store; then ask."""
    # On one core: Polars starts as many threads as it finds cores when it is loaded.
    if hasattr(os, "sched_setaffinity") and "polars" not in sys.modules:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    path = place / f"again-{who}.sqlite"
    shutil.copy(place / f"update-{who}.sqlite", path)
    events = min(EVENTS[size], max(entities, 2 * size))
    import polars as pl

    from flyball.learn.features import batches as updating

    arriving = readings(events, entities, after=True)
    parts = [
        arriving[first : first + size].with_columns(_batch=pl.lit(2 + n, pl.Int64))
        for n, first in enumerate(range(0, events, size))
    ]
    then = END + HOUR
    if who == "ours":
        declared, _ = features(ten=False)
        with ours(path, ten=False) as (store, answer):
            started = time.perf_counter()
            for part in parts:
                updating.update(store, declared, {"Reading": part.lazy()})
            seconds = time.perf_counter() - started
            found = totals([answer(e, then) for e in range(min(entities, 1_000))])
    else:
        with bare(path) as connection:
            started = time.perf_counter()
            for number, part in enumerate(parts):
                apply(connection, part, 2 + number)
            seconds = time.perf_counter() - started
            answer = by_hand(connection, ten=False)
            found = totals([answer(e, then) for e in range(min(entities, 1_000))])
    path.unlink()
    return {"rate": events / seconds, "ms_a_batch": 1e3 * seconds / len(parts), "found": found}


def look_ours(place: Path, entities: int) -> dict[str, Any]:
    """Through `Lookup`."""
    with ours(place / "look-ours.sqlite", ten=True) as (_, answer):
        return look(answer, entities)


def look_limit(place: Path, entities: int) -> dict[str, Any]:
    """Prepared statements by hand."""
    with bare(place / "look-limit.sqlite") as connection:
        return look(by_hand(connection, ten=True), entities)


TURNS: Mapping[str, Callable[[Path, int], Any]] = {"fill": fill, "look-ours": look_ours, "look-limit": look_limit}


def main() -> None:
    """Run the turn that the command line names."""
    what, place, *numbers = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    said = TURNS[what](place, *numbers) if what in TURNS else update(place, what.partition("-")[2], *numbers)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
