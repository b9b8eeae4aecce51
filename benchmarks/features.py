"""Features of the past and of now: point-in-time joins and windows over ten million readings, look-ups, arriving events.

Every turn is a process of its own (`features_turns`, `features_online`), with its own peak of memory, and what it found must
be what everybody else found. Readings: 10 million, or FLYBALL_BENCH_ROWS; questions and stored events a tenth of that,
entities a hundredth. Feast runs in the interpreter that FLYBALL_BENCH_PEERS names, where it is installed. Its point-in-time
join first makes a row of each pair of question and reading that `max_age` lets through, so what it costs hangs upon that:
the first cases let one day through (1.7 readings a question), `-month` thirty days. The limit and ours do not mind.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.pairs import Case, Measure, measure

ROWS = int(os.environ.get("FLYBALL_BENCH_ROWS", "10000000"))
PYTHON = os.environ.get("FLYBALL_BENCH_PEERS", sys.executable)
TURNS = 3
BATCHES = (1, 10, 100, 1_000, 10_000)
ROOT = Path(__file__).parents[1]


def cases() -> Iterator[Case]:
    """The past first, then now."""
    with tempfile.TemporaryDirectory(prefix="flyball-features-") as folder:
        whole, tenth, online = (Path(folder) / name for name in ("whole", "tenth", "online"))
        for each in (whole, tenth, online):
            each.mkdir()
        sizes = turn("turns", "make", whole, ROWS)
        feast = {"feast": ("latest-feast", PYTHON)} if _has_feast() else {}
        yield from _past("latest-1m-10m", "latest", whole, "plain", sizes["plain"], feast)
        yield from _past("latest-1m-10m-month", "latest", whole, "plain-month", sizes["plain"], feast)
        yield from _past("latest-1m-10m-corrected", "latest", whole, "corrected", sizes["corrected"], {})
        yield from _past("windows-12", "windows", whole, "plain", sizes["plain"], {})
        smaller = turn("turns", "make", tenth, ROWS // 10)["plain"]
        feast = {"feast": ("latest-feast", PYTHON), "feast-dask": ("latest-feast-dask", PYTHON)} if feast else {}
        yield from _past("latest-100k-1m", "latest", tenth, "plain", smaller, feast)
        yield from _now(online)
    # One request's expressions: their turns need none of this, and are in a file of their own.
    if importlib.util.find_spec("benchmarks.features_request") is not None:
        yield from importlib.import_module("benchmarks.features_request").cases()


def turn(module: str, what: str, place: Path, *rest: object, python: str = sys.executable) -> dict[str, Any]:
    """One turn in its own process: what it measured, and what it found."""
    command = [python, "-m", f"benchmarks.features_{module}", what, str(place), *map(str, rest)]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    environment = {**os.environ, "PYTHONPATH": path, "FEAST_USAGE": "False"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def _has_feast() -> bool:
    probe = [PYTHON, "-c", "import feast, ibis, duckdb, dask"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


class _Turns:
    """The turns of one case: all must find the same; figures besides the one that is measured are kept."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, list[float]]] = {}
        self._found: list[Any] = []

    def of(self, who: str, figure: str, *call: Any, python: str = sys.executable) -> Measure:
        """A contestant, by what it says."""

        def act() -> float:
            said = turn(*call, python=python)
            self._found.append(said.pop("found"))
            assert self._found[-1] == self._found[0], (who, self._found[-1], self._found[0])
            for name, value in said.items():
                self.kept.setdefault(name, {}).setdefault(who, []).append(value)
            return float(said[figure])

        return act

    def case(self, name: str, unit: str, figure: str, *, higher: bool = False) -> Case:
        """The case of another figure, without the turn that did not count."""
        return Case(name, unit, higher, {who: all_[1:] or all_ for who, all_ in self.kept[figure].items()})


def _past(
    name: str, kind: str, place: Path, rows: str, size: float, peers: Mapping[str, tuple[str, str]]
) -> Iterator[Case]:
    """Seconds; and the peak of memory, of which the limit is the input itself, all of it in memory once."""
    turns = _Turns()
    both: dict[str, Measure] = {
        who: turns.of(who, "seconds", "turns", f"{kind}-{who}", place, rows) for who in ("ours", "limit")
    }
    for who, (what, python) in peers.items():
        both[who] = turns.of(who, "seconds", "turns", what, place, rows, python=python)
    yield measure(name, "s", both, higher=False, turns=TURNS)
    peaks = {who: [max(all_)] for who, all_ in turns.kept["peak_mb"].items()}
    by_hand = {"polars" if who == "limit" else who: mb for who, mb in peaks.items()}
    yield Case(f"{name}-peak", "MB", False, {**by_hand, "limit": [size]})


def _now(place: Path) -> Iterator[Case]:
    """Look-ups in a store on disk, then events that arrive in batches: many a batch, or one."""
    said = turn("online", "fill", place, ROWS // 10)
    seconds, sizes = said["seconds"], said["mb"]
    yield Case("online-fill", "s", False, {who: [seconds[f"look-{who}"]] for who in ("ours", "limit")})
    yield Case("online-size", "MB", False, {who: [sizes[f"look-{who}.sqlite"]] for who in ("ours", "limit")})
    entities, turns = ROWS // 100, _Turns()
    both = {who: turns.of(who, "p99", "online", f"look-{who}", place, entities) for who in ("ours", "limit")}
    yield measure("online-10", "us", both, higher=False, turns=TURNS)
    yield turns.case("online-10-p50", "us", "p50")
    for size in reversed(BATCHES):
        turns = _Turns()
        both = {
            who: turns.of(who, "rate", "online", f"update-{who}", place, size, entities) for who in ("ours", "limit")
        }
        name = "online-update" if size == BATCHES[-1] else f"online-update-{size}"
        yield measure(name, "events/s", both, higher=True, turns=TURNS)
        yield turns.case(f"{name}-batch", "ms", "ms_a_batch")
