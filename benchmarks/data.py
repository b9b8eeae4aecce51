"""The data room at its full size: validating, taking in, reading back, looking again, erasing.

Every turn is a process of its own (`data_turns`), so that its peak of memory is its own too; what it prints besides the
seconds must agree with what everybody else found in the same file. Rows: 10 million, or FLYBALL_BENCH_ROWS. Peers run in this
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
from typing import Any

from benchmarks.pairs import Case, Measure, measure

ROWS = int(os.environ.get("FLYBALL_BENCH_ROWS", "10000000"))
PEERS = {"pandera": "pandera", "dataframely": "dataframely", "great_expectations": "great_expectations"}
PYTHON = os.environ.get("FLYBALL_BENCH_PEERS", sys.executable)
TURNS = 3


def cases() -> Iterator[Case]:
    """The cases in the order of a row's life."""
    with tempfile.TemporaryDirectory(prefix="flyball-data-") as folder:
        place = Path(folder)
        turn("make", place, ROWS)
        yield _validate(place)
        yield from _ingest(place)
        yield _compared(place, "read-version", "read", "scan_delta", turns=7)
        yield from _memory(place)
        yield _compared(place, "second-apply-1000-files", "apply-again", "hash-again", turns=3)
        yield from _erase(place)


def turn(what: str, place: Path, *rest: object, python: str = sys.executable) -> dict[str, Any]:
    """One turn in its own process: its seconds, its peak of memory in megabytes, and what it found."""
    command = [python, str(Path(__file__).with_name("data_turns.py")), what, str(place), *map(str, rest)]
    environment = {**os.environ, "FLYBALL_KEY": str(place / "key.pem")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _validate(place: Path) -> Case:
    expected = turn("validate-limit", place)["found"]
    peaks: dict[str, float] = {}

    def contestant(who: str, what: str, python: str = sys.executable) -> Measure:
        def act() -> float:
            said = turn(what, place, python=python)
            assert said["found"] == expected, (who, said["found"], expected)
            peaks[who] = max(peaks.get(who, 0), said["peak_mb"])
            return float(said["seconds"])

        return act

    quick = {"ours": contestant("ours", "validate-ours"), "limit": contestant("limit", "validate-limit")}
    slow: dict[str, Measure] = {}
    for name, module in PEERS.items():
        probe = [PYTHON, "-c", f"import {module}"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            act = contestant(name, f"validate-{name}", PYTHON)
            (slow if name == "great_expectations" else quick)[name] = act
    case = measure("validate-10m", "s", quick, higher=False, turns=TURNS)
    figures = {**case.figures, **{name: [act()] for name, act in slow.items()}}  # minutes: one turn says enough
    print("peak MB:", {who: round(mb) for who, mb in peaks.items()}, file=sys.stderr)
    return Case(case.name, case.unit, case.higher, figures)


def _ingest(place: Path) -> Iterator[Case]:
    peaks: dict[str, float] = {}
    found: list[Any] = []

    def contestant(who: str, what: str) -> Measure:
        def act() -> float:
            said = turn(what, place)
            found.append(said["found"])
            assert found[-1] == found[0], (who, found[-1], found[0])
            peaks[who] = max(peaks.get(who, 0), said["peak_mb"])
            return float(said["seconds"])

        return act

    both = {"ours": contestant("ours", "ingest-ours"), "limit": contestant("limit", "ingest-limit")}
    yield measure("ingest-10m", "s", both, higher=False, turns=TURNS)
    yield Case("ingest-10m-peak", "MB", False, {who: [mb] for who, mb in peaks.items()})


def _memory(place: Path) -> Iterator[Case]:
    """Peaks of ingest at a tenth, at once and at three times the rows: what a further distinct key costs."""
    peaks = {}
    for share, rows in (("1/10", ROWS // 10), ("1", ROWS), ("3", 3 * ROWS)):
        there = place / f"rows-{rows}"
        there.mkdir()
        turn("make", there, rows)
        peaks[share] = turn("ingest-ours", there)["peak_mb"]
        (there / "x.parquet").unlink()
    bytes_a_key = (peaks["3"] - peaks["1"]) * 1e6 / (2 * ROWS)
    figures = {"ours": [peaks["1"]], "limit": [peaks["1/10"]], "three times the rows": [peaks["3"]]}
    yield Case("ingest-memory", "MB", False, figures)
    yield Case("ingest-bytes-a-further-key", "B", False, {"ours": [bytes_a_key], "limit": [8.0]})


def _compared(place: Path, name: str, ours: str, limit: str, *, turns: int) -> Case:
    def contestant(what: str) -> Measure:
        return lambda: float(turn(what, place)["seconds"])

    return measure(name, "s", {"ours": contestant(ours), "limit": contestant(limit)}, higher=False, turns=turns)


def _erase(place: Path) -> Iterator[Case]:
    said = turn("erase", place)
    yield Case("erase-one-of-10m", "s", False, {"ours": [said["seconds"]], "limit": [said["least_s"]]})
    bytes_ = {"ours": [float(said["rewritten"])], "limit": [float(said["least"])]}
    yield Case("erase-one-of-10m-bytes", "B", False, bytes_)
