"""One JSON row a request: 3 categories and 12 numbers of the request, a hundred boosted trees.

Ours is a real `flyball serve`: contract check, journal and metrics on, durability "interval". The limit is a bare ASGI echo
on the same uvicorn. Servers are pinned to one core (each is idle while another is asked), the load generator to another.
`row-c1` and `row-c64` are connections; `acknowledged-c64` is ours with every answer on disk before it leaves, and its limit
is ours without that wait.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import scoring
from benchmarks.pairs import Case, Measure, measure

HERE = Path(__file__).parent
SECONDS, TURNS = 0.4, 5
_SURROUNDINGS = {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")])),
    "BENTOML_DO_NOT_TRACK": "True",
}
STARTS_WITHIN = 40.0


@dataclass(frozen=True)
class Contestant:
    """A server.

    Attributes:
        command: what starts it, with {port} and {model} to fill in.
        needs: what must be importable.
        path: where it is asked.
        shape: row -> what it is sent.
        read: its response -> the probability; None for one that does not predict.
    """

    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    path: str = "/predict"
    shape: Callable[[dict[str, Any]], Any] = lambda row: row
    read: Callable[[Any], float] | None = lambda said: float(said["output"])


def _file(name: str, *more: str) -> tuple[str, ...]:
    return ("-m", f"benchmarks.servers.{name}", "{model}", "{port}", *more)


def _flyball(app: Path, durability: str) -> Contestant:
    command = ("-m", "flyball", "serve", str(app), "--port", "{port}", "--durability", durability, "--json")
    return Contestant(command, path="/predict/scoring")


PEERS: Mapping[str, Contestant] = {
    "fastapi_onnx": Contestant(_file("by_hand", "onnx"), needs=("fastapi",)),
    "fastapi_sklearn": Contestant(_file("by_hand", "sklearn"), needs=("fastapi",)),
    "bentoml": Contestant(
        ("-m", "bentoml", "serve", "benchmarks.servers.bento:Scoring", "--host", "127.0.0.1", "--port", "{port}"),
        needs=("bentoml",),
        shape=lambda row: {"row": row},
    ),
    "mlflow": Contestant(
        _file("mlflow_pyfunc"),
        needs=("mlflow",),
        path="/invocations",
        shape=lambda row: {"dataframe_records": [row]},
        read=lambda said: float(said["predictions"][0]),
    ),
}


def cases() -> Iterator[Case]:
    """Start everybody, see that those who predict agree, then take turns."""
    with tempfile.TemporaryDirectory(prefix="flyball-serving-") as place, contextlib.ExitStack() as running:
        built = scoring.build(Path(place))
        contestants = {
            "ours": _flyball(built.app, "interval"),
            "acknowledged": _flyball(built.app, "acknowledged"),
            "limit": Contestant(_file("echo"), read=None),
            **{n: peer for n, peer in PEERS.items() if all(importlib.util.find_spec(m) for m in peer.needs)},
        }
        started = {name: _start(running, each, built) for name, each in contestants.items()}
        ports: dict[str, int] = {}
        for name, (process, port) in started.items():
            try:
                ports[name] = _ready(name, process, port, contestants[name], built)
            except RuntimeError as problem:
                if name not in PEERS:
                    raise
                print(f"left out: {problem}", file=sys.stderr)
                del contestants[name]
        _agree(contestants, ports, built)

        def asks(name: str, connections: int) -> Measure:
            bodies = Path(place) / f"{name}.bodies"
            bodies.write_bytes(b"\n".join(json.dumps(contestants[name].shape(r)).encode() for r in built.rows) + b"\n")
            return lambda: _load(ports[name], contestants[name].path, bodies, connections)

        compared = [name for name in contestants if name != "acknowledged"]
        for connections in (1, 64):
            turns = {name: asks(name, connections) for name in compared}
            yield measure(f"row-c{connections}", "req/s", turns, higher=True, turns=TURNS)
        pair = {"ours": asks("acknowledged", 64), "limit": asks("ours", 64)}
        yield measure("acknowledged-c64", "req/s", pair, higher=True, turns=TURNS)


def _cores() -> tuple[int, int]:
    """The servers' core, and the load generator's; -1: not pinned."""
    if not hasattr(os, "sched_getaffinity"):
        return -1, -1
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else (-1, -1)


def _start(
    running: contextlib.ExitStack, each: Contestant, built: scoring.Built
) -> tuple[subprocess.Popen[bytes], int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    core, _ = _cores()
    command = [sys.executable, *(part.format(port=port, model=built.model) for part in each.command)]
    process = subprocess.Popen(
        command,
        env=built.environment
        | _SURROUNDINGS
        | {"BENCHMARK_MODEL": str(built.model), "BENTOML_HOME": str(built.app.parent)},
        cwd=HERE.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=(lambda: os.sched_setaffinity(0, {core})) if core >= 0 else None,
        start_new_session=True,
    )
    running.callback(_stop, process)
    return process, port


def _stop(process: subprocess.Popen[bytes]) -> None:
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


def _ready(name: str, process: subprocess.Popen[bytes], port: int, each: Contestant, built: scoring.Built) -> int:
    """Wait until it answers."""
    end = time.perf_counter() + STARTS_WITHIN
    while time.perf_counter() < end:
        if process.poll() is not None:
            said = process.stderr.read().decode(errors="replace") if process.stderr else ""
            raise RuntimeError(f"{name} did not start:\n{said[-3000:]}")
        try:
            _ask(port, each, built.rows[0])
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        else:
            return port
    raise RuntimeError(f"{name} did not answer within {STARTS_WITHIN} s")


def _ask(port: int, each: Contestant, row: dict[str, Any]) -> Any:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("POST", each.path, json.dumps(each.shape(row)), {"Content-Type": "application/json"})
        reply = connection.getresponse()
        said = reply.read()
        assert reply.status == 200, said[:500]
        return json.loads(said)


def _agree(contestants: Mapping[str, Contestant], ports: Mapping[str, int], built: scoring.Built) -> None:
    """Everybody who predicts says the same of the same rows."""
    for row in built.rows:
        said = {
            name: each.read(_ask(ports[name], each, row)) for name, each in contestants.items() if each.read is not None
        }
        assert max(said.values()) - min(said.values()) <= 1e-5, said


def _load(port: int, path: str, bodies: Path, connections: int) -> float:
    _, core = _cores()
    arguments = [str(port), path, str(bodies), str(connections), str(SECONDS), str(core)]
    command = [sys.executable, "-m", "benchmarks.load", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=HERE.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    return float(json.loads(done.stdout)["per_second"])
