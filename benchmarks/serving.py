"""JSON rows over HTTP: 3 categories and 12 numbers of the request, a hundred boosted trees.

Ours is a real `flyball serve`: contract check, journal and metrics on, durability "interval". The limit is a bare ASGI echo on
uvicorn; "wire" is an echo on our own wire. Servers are pinned to one core (each is idle while another is asked), the load
generator to another. `row-c1` ... are connections, `batch-100` is lists of a hundred rows from 16 of them, in rows a second.
`acknowledged-c64` is ours with every answer on disk before it leaves, `shadow-c64` with another version computed beside; the
limit of both is ours without. Peers are those that FLYBALL_BENCH_PEERS, another Python, has installed, or our own.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks import scoring
from benchmarks.pairs import Case, measure
from benchmarks.serving_turns import PEERS as PYTHON
from benchmarks.serving_turns import Contestant, Servers

TURNS, SLOW = 5, 4.0


def _file(name: str, *more: str) -> tuple[str, ...]:
    return ("-m", f"benchmarks.servers.{name}", "{model}", "{port}", *more)


def _flyball(app: Path, durability: str) -> Contestant:
    command = ("-m", "flyball", "serve", str(app), "--port", "{port}", "--durability", durability, "--json")
    return Contestant(command, path="/predict/scoring")


def _outputs(said: dict[str, list[float]] | dict[str, float]) -> list[float]:
    found = said["output"] if "output" in said else said["outputs"]
    return found if isinstance(found, list) else [found]


def _bento(service: str, *needs: str) -> Contestant:
    serve = ("-m", "bentoml", "serve", f"benchmarks.servers.bento:{service}", "--host", "127.0.0.1", "--port", "{port}")
    return Contestant(
        serve,
        PYTHON,
        needs=("bentoml",),
        shape=lambda rows, many: {"rows": rows},
        read=lambda said: [float(x) for x in said],
    )


PEERS: Mapping[str, Contestant] = {
    "fastapi_onnx": Contestant(_file("by_hand", "onnx"), PYTHON, ("fastapi",), many="/batch", read=_outputs),
    "fastapi_sklearn": Contestant(
        _file("by_hand", "sklearn"), PYTHON, ("fastapi",), many="/batch", read=_outputs, longer=SLOW
    ),
    "bentoml": _bento("Scoring"),
    "bentoml_adaptive": _bento("Adaptive"),
    "mlflow": Contestant(
        _file("mlflow_pyfunc"),
        PYTHON,
        needs=("mlflow",),
        path="/invocations",
        shape=lambda rows, many: {"dataframe_records": rows},
        read=lambda said: [float(each) for each in said["predictions"]],
        longer=SLOW,
    ),
}


def cases() -> Iterator[Case]:
    """Start everybody, see that those who predict agree, then take turns."""
    with tempfile.TemporaryDirectory(prefix="flyball-serving-") as place, contextlib.ExitStack() as running:
        built = scoring.build(Path(place))
        beside = shadowed(built)
        contestants = {
            "ours": _flyball(built.app, "interval"),
            "acknowledged": _flyball(built.app, "acknowledged"),
            "shadow": replace(_flyball(beside, "interval"), read=None),  # a tree more: another answer
            "limit": Contestant(_file("echo"), read=None),
            "wire": Contestant(_file("wire_echo"), read=None),
            **{name: peer for name, peer in PEERS.items() if peer.installed()},
        }
        servers = Servers(contestants, built.environment, built.model, Path(place), built.rows, running)
        for name in contestants:
            try:
                servers.start(name)
            except RuntimeError as problem:
                if name not in PEERS:
                    raise
                print(f"left out: {problem}", file=sys.stderr)
        servers.agree()
        yield from _compared(servers, [name for name in servers.ports if name not in ("acknowledged", "shadow")])
        for name in ("acknowledged", "shadow"):
            pair = {"ours": partial(servers.load, name, 64), "limit": partial(servers.load, "ours", 64)}
            yield measure(f"{name}-c64", "req/s", pair, higher=True, turns=TURNS)
        ready = {"ours": [servers.started["ours"]], "limit": [servers.started["limit"]]}
        yield Case("start-to-ready", "s", False, ready)


def _compared(servers: Servers, names: list[str]) -> Iterator[Case]:
    for connections, latency in ((1, "p50"), (16, "p99"), (64, "p50")):
        turns = {name: partial(servers.load, name, connections) for name in names}
        taken: dict[str, list[float]] = {name: [] for name in names}

        def noted(name: str, connections: int, latency: str, taken: dict[str, list[float]]) -> float:
            found = servers.load(name, connections)
            taken[name].append(servers.said[name, connections, 1][latency] / 1000)
            return found

        turns = {name: partial(noted, name, connections, latency, taken) for name in names}
        yield measure(f"row-c{connections}", "req/s", turns, higher=True, turns=TURNS)
        yield Case(f"row-c{connections}-{latency}", "ms", False, {name: some[1:] for name, some in taken.items()})
    many = {name: partial(servers.load, name, 16, 100) for name in names}
    yield measure("batch-100", "rows/s", many, higher=True, turns=TURNS)


def shadowed(built: scoring.Built) -> Path:
    """A copy of the app that answers with a second version, and has the first compute beside it."""
    app = built.app.parent / "shadowed" / built.app.name
    shutil.copytree(built.app, app)
    code = app / "app.py"
    code.write_text(code.read_text().replace("n_estimators=100", "n_estimators=101"))
    for verb in (("apply", str(app)), ("shadow", str(app), "scoring-1")):
        command = [sys.executable, "-m", "flyball", *verb, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=built.environment)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return app
