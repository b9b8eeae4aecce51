"""The learn room: what recording, listing, fitting and measuring cost beside the work itself.

    record-trials   1,000 trials of 20 values, each on disk, as a search writes them down; peer: MLflow on SQLite, run by run
    list-versions   10,000 versions as a table, and those of them that a condition holds for; limit: SQLite and msgspec alone

`learn_fit` has the cases that fit and measure, `learn_quality` how good a model is found in equal time. Peers run in this
interpreter where they are installed, or in the one that FLYBALL_BENCH_PEERS names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import learn_fit, learn_quality
from benchmarks.pairs import Case, Measure, measure

PYTHON = os.environ.get("FLYBALL_BENCH_PEERS", sys.executable)
TRIALS = int(os.environ.get("FLYBALL_BENCH_TRIALS", "1000"))
VERSIONS = int(os.environ.get("FLYBALL_BENCH_VERSIONS", "10000"))


def cases() -> Iterator[Case]:
    """The cases, those that need no fit first."""
    yield record()
    yield listing()
    yield from learn_fit.cases()
    yield from learn_quality.cases()


def turn(what: str, place: Path, *rest: object, python: str = sys.executable) -> float:
    """One turn in its own process, in an empty folder of its own; returns the seconds of the work itself."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        script = Path(__file__).with_name("learn_turns.py")
        command = [python, str(script), what, folder, *map(str, rest)]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["found"] == rest[-1], found
        return float(found["seconds"])


def record() -> Case:
    """Trials written down; the limit commits the same bytes in as many transactions of plain SQLite."""
    with tempfile.TemporaryDirectory(prefix="flyball-learn-") as folder:
        place = Path(folder)

        def contestant(what: str, python: str = sys.executable) -> Measure:
            return lambda: turn(what, place, TRIALS, python=python)

        quick = {
            "ours": contestant("record-ours"),
            "limit": contestant("record-limit"),
            "one transaction each": contestant("record-each"),
        }
        case = measure("record-trials", "s", quick, higher=False, turns=5)
        probe = [PYTHON, "-c", "import mlflow"]
        if subprocess.run(probe, capture_output=True, check=False).returncode:
            return case
        # Minutes: two turns say enough.
        slow = [turn("record-mlflow", place, TRIALS, python=PYTHON) for _ in range(2)]
        return Case(case.name, case.unit, case.higher, {**case.figures, "mlflow": slow})


def listing() -> Case:
    """Versions listed and filtered, in a process that has done so once before."""
    with tempfile.TemporaryDirectory(prefix="flyball-learn-") as folder:
        place = Path(folder)
        both = {
            "ours": lambda: turn("list-ours", place, VERSIONS),
            "limit": lambda: turn("list-limit", place, VERSIONS),
        }
        return measure("list-versions", "s", both, higher=False, turns=3)
