"""Servers as processes, started, asked and stopped: each pinned to one core, the load generator to another."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STARTS_WITHIN = 60.0
SECONDS = float(os.environ.get("FLYBALL_BENCH_SECONDS", "0.5"))
"""Of one turn."""
PEERS = os.environ.get("FLYBALL_BENCH_PEERS", sys.executable)
"""The Python in which peers are installed, where that is not ours: they disagree about versions of what they share."""

_SURROUNDINGS = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")])),
    "BENTOML_DO_NOT_TRACK": "True",
}


@dataclass(frozen=True)
class Contestant:
    """A server.

    Attributes:
        command: what starts it, with {port} and {model} to fill in.
        python: runs it.
        needs: what must be importable.
        path, many: where it is asked one row, and a list of them.
        shape: rows -> what it is sent.
        read: its response -> the probabilities; None for one that does not predict.
        longer: times as long as others are asked: who answers a hundred a second needs more of them.
    """

    command: tuple[str, ...]
    python: str = sys.executable
    needs: tuple[str, ...] = ()
    path: str = "/predict"
    many: str = ""
    shape: Callable[[list[dict[str, Any]], bool], Any] = lambda rows, many: rows if many else rows[0]
    read: Callable[[Any], list[float]] | None = lambda said: [
        float(each["output"]) for each in (said if isinstance(said, list) else [said])
    ]

    longer: float = 1.0

    def where(self, many: bool) -> str:
        """The path of one row, or of many."""
        return self.many or self.path if many else self.path

    def installed(self) -> bool:
        """Whether what it needs is there."""
        wanted = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {list(self.needs)!r})))"
        return not self.needs or subprocess.run([self.python, "-c", wanted], check=False).returncode == 0


@dataclass
class Servers:
    """Those that run.

    Attributes:
        environment: of their processes.
        model: the folder with the champion's artifacts.
        place: for the bodies that they are sent.
        started: name -> seconds until it first answered.
        said: (name, connections, rows) -> what the last turn measured.
    """

    contestants: Mapping[str, Contestant]
    environment: Mapping[str, str]
    model: Path
    place: Path
    rows: Sequence[dict[str, Any]]
    running: contextlib.ExitStack
    ports: dict[str, int] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    said: dict[tuple[str, int, int], dict[str, float]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start one and wait until it answers; raises RuntimeError where it does not."""
        each = self.contestants[name]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [each.python, *(part.format(port=port, model=self.model) for part in each.command)]
        began = time.perf_counter()
        core, _ = cores()
        process = subprocess.Popen(
            command,
            env=dict(self.environment)
            | _SURROUNDINGS
            | {"BENCHMARK_MODEL": str(self.model), "BENTOML_HOME": str(self.place)},
            cwd=HERE.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if core >= 0 else None,
            start_new_session=True,
        )
        self.running.callback(stop, process)
        while time.perf_counter() < began + STARTS_WITHIN:
            if process.poll() is not None:
                said = process.stderr.read().decode(errors="replace") if process.stderr else ""
                raise RuntimeError(f"{name} did not start:\n{said[-3000:]}")
            try:
                ask(port, each, self.rows[:1], many=False)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
            else:
                self.ports[name], self.started[name] = port, time.perf_counter() - began
                return
        raise RuntimeError(f"{name} did not answer within {STARTS_WITHIN} s")

    def agree(self) -> None:
        """Everybody who predicts says the same of the same rows, one by one and together."""
        for rows in ([*([row] for row in self.rows[:8])], [list(self.rows)]):
            for some in rows:
                said = {
                    name: each.read(ask(self.ports[name], each, some, many=len(some) > 1))
                    for name, each in self.contestants.items()
                    if each.read is not None and name in self.ports
                }
                for answers in zip(*said.values(), strict=True):
                    assert max(answers) - min(answers) <= 1e-5, said

    def load(self, name: str, connections: int, rows: int = 1, figure: str = "per_second") -> float:
        """One turn of load; the figure is a rate of requests, or of rows where a request has many, or a latency in us."""
        each, many = self.contestants[name], rows > 1
        bodies = self.place / f"{name}-{rows}.bodies"
        if not bodies.exists():
            asked = [
                [self.rows[(n + m) % len(self.rows)] for m in range(rows)]
                for n in range(len(self.rows) if not many else 4)
            ]
            bodies.write_bytes(b"\n".join(json.dumps(each.shape(some, many)).encode() for some in asked) + b"\n")
        _, core = cores()
        seconds = SECONDS * each.longer
        arguments = [str(self.ports[name]), each.where(many), str(bodies), str(connections), str(seconds), str(core)]
        command = [sys.executable, "-m", "benchmarks.load", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=HERE.parent)
        assert done.returncode == 0, done.stderr[-2000:]
        said: dict[str, float] = json.loads(done.stdout)
        self.said[name, connections, rows] = said
        return said[figure] * rows if figure == "per_second" else said[figure]


def ask(port: int, each: Contestant, rows: Sequence[dict[str, Any]], *, many: bool) -> Any:
    """One request."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        body = json.dumps(each.shape(list(rows), many))
        connection.request("POST", each.where(many), body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        said = reply.read()
        if reply.status != 200:
            raise http.client.HTTPException(said[:500])
        return json.loads(said)


def cores() -> tuple[int, int]:
    """The servers' core, and the load generator's; -1: not pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return -1, -1
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else (-1, -1)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and what it started: the group is its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 15)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait(10)
    if process.stderr is not None:
        process.stderr.close()
