"""One turn of a case of `learn`, in a process of its own: `learn_turns.py WHAT FOLDER COUNT` prints {"seconds", "found"}.

Every contestant records the same values: 10 knobs and 10 metrics a trial. What is found is counted afterwards, outside of the
time. Nothing of ours is imported where a peer runs.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES = 10
TURNS = 7


def values(number: int) -> tuple[dict[str, float], dict[str, float]]:
    """The knobs and the metrics of a trial."""
    return (
        {f"knob_{k}": number / 7 + k for k in range(VALUES)},
        {f"metric_{k}": number / 11 + k for k in range(VALUES)},
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds of the work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _log(folder: Path) -> Any:
    from flyball.adapters.embedded.clock import SystemClock
    from flyball.adapters.embedded.facts import SqlFacts
    from flyball.adapters.embedded.keys import FileSigner
    from flyball.runtime.places import PROJECTIONS

    return SqlFacts(folder / "facts.sqlite", SystemClock(), FileSigner(folder / "key.pem"), PROJECTIONS)


def _ended(count: int) -> list[Any]:
    """Trials whose 20 values are 10 knobs and the scores of 10 stages."""
    from flyball.learn.trying.trials import Ended, Trial

    made = []
    for number in range(count):
        knobs, metrics = values(number)
        trial = Trial(number=number, knobs=dict(knobs), score=metrics["metric_9"], stages=tuple(metrics.values()))
        made.append(Ended(trial, 0.001))
    return made


def record_ours(folder: Path, count: int) -> tuple[float, int]:
    """As a search writes its trials down: every trial durable, those of one moment in one transaction."""
    import flyball as fb
    from flyball.cycle.trying import Diary
    from flyball.learn.trying import trials

    log, about, ended = _log(folder), ("app", "model"), _ended(count)
    diary = Diary(log, about, "k" * 64, fb.roc_auc, time.monotonic)

    def work() -> None:
        for each in ended:
            diary.keep([each])
        diary.write()

    return timed(work), len(list(trials.rows(log, *about)))


def record_each(folder: Path, count: int) -> tuple[float, int]:
    """The same with a transaction for each trial: signed and on disk before the next begins."""
    import flyball as fb
    from flyball.cycle.trying import Diary
    from flyball.learn.trying import trials

    log, about, ended = _log(folder), ("app", "model"), _ended(count)
    diary = Diary(log, about, "k" * 64, fb.roc_auc, time.monotonic)

    def work() -> None:
        for each in ended:
            diary.keep([each])
            diary.write()

    return timed(work), len(list(trials.rows(log, *about)))


def record_limit(folder: Path, count: int) -> tuple[float, int]:
    """JSON in plain SQLite, as durable, a transaction every 50 ms."""
    database = sqlite3.connect(folder / "trials.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE trials (number INTEGER PRIMARY KEY, said BLOB)")

    def work() -> None:
        database.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for number in range(count):
            database.execute("INSERT INTO trials VALUES (?, ?)", (number, json.dumps(values(number))))
            if time.monotonic() - began >= 0.05:
                database.execute("COMMIT")
                database.execute("BEGIN IMMEDIATE")
                began = time.monotonic()
        database.execute("COMMIT")

    seconds = timed(work)
    return seconds, int(database.execute("SELECT count(*) FROM trials").fetchone()[0])


def record_mlflow(folder: Path, count: int) -> tuple[float, int]:
    """A run each, with its parameters and metrics logged in one call a kind, which is its fastest way."""
    import logging

    import mlflow  # type: ignore[import-not-found, unused-ignore]

    logging.disable(logging.WARNING)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("trials", artifact_location=str(folder / "artifacts"))

    def work() -> None:
        for number in range(count):
            knobs, metrics = values(number)
            with mlflow.start_run(experiment_id=experiment):
                mlflow.log_params(knobs)
                mlflow.log_metrics(metrics)

    seconds = timed(work)
    client = mlflow.MlflowClient()
    found, token = 0, None
    while True:
        page = client.search_runs([experiment], page_token=token, max_results=1000)
        found, token = found + len(page), page.token
        if not token:
            return seconds, found


def _versions(folder: Path, count: int) -> Any:
    from flyball._kernel.conditions import Measurement, Outcome, Verdict
    from flyball._kernel.facts import Fact
    from flyball.release.version import Judged, Registered

    log = _log(folder)
    verdict = Verdict(
        condition="average_precision >= average_precision.on(champion) - 0.01",
        outcome=Outcome.PASS,
        measurement=Measurement(estimate=0.71, low=0.69, high=0.72, n=26_000),
        threshold=0.65,
    )
    made: list[Fact] = []
    for number in range(1, count + 1):
        knobs, metrics = values(number)
        name = f"model-{number}"
        said = Registered(version=name, manifest=f"{number:064x}", search="k" * 64, knobs=dict(knobs), metrics=metrics)
        made.append(Fact("app", "model", said))
        made.append(Fact("app", "model", Judged(version=name, decision="release", verdicts=[verdict] * 5)))
    log.append(made)
    return log


def list_ours(folder: Path, count: int) -> tuple[float, int]:
    """All versions as a frame with a column for each of 20 values, then those above the middle of one."""
    from flyball.cycle import runs

    log = _versions(folder, count)
    condition = f"metric_3 > {count / 22 + 3}"
    rows: list[Any] = []

    def work() -> None:
        whole = runs.versions_of(log, "app", ["model"])
        rows[:] = [whole, runs.chosen(whole, condition)]

    work()
    seconds = statistics.median(timed(work) for _ in range(TURNS))
    assert rows[1].height == count // 2, rows[1].height
    return seconds, rows[0].height


def list_limit(folder: Path, count: int) -> tuple[float, int]:
    """A table with a column for each value, read by SQLite; the condition by its own engine."""
    database = sqlite3.connect(folder / "versions.sqlite")
    names = [*values(0)[0], *values(0)[1]]
    database.execute(f"CREATE TABLE versions (version TEXT, {', '.join(f'{name} REAL' for name in names)})")
    marks = ", ".join("?" * (len(names) + 1))
    rows = [(f"model-{n}", *values(n)[0].values(), *values(n)[1].values()) for n in range(1, count + 1)]
    database.executemany(f"INSERT INTO versions VALUES ({marks})", rows)
    database.commit()
    found: list[list[Any]] = []

    def work() -> None:
        whole = database.execute("SELECT * FROM versions").fetchall()
        some = database.execute("SELECT * FROM versions WHERE metric_3 > ?", (count / 22 + 3,)).fetchall()
        found[:] = [whole, some]

    work()
    seconds = statistics.median(timed(work) for _ in range(TURNS))
    assert len(found[1]) == count // 2, len(found[1])
    return seconds, len(found[0])


TURN: dict[str, Callable[[Path, int], tuple[float, int]]] = {
    "record-ours": record_ours,
    "record-each": record_each,
    "record-limit": record_limit,
    "record-mlflow": record_mlflow,
    "list-ours": list_ours,
    "list-limit": list_limit,
}

if __name__ == "__main__":
    seconds_, found_ = TURN[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
    print(json.dumps({"seconds": seconds_, "found": found_}))
