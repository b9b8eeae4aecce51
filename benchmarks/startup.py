"""What it costs to begin: importing flyball against bare Python, and the command line's first answer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.pairs import Case, Measure, measure


def _seconds(*arguments: str) -> Measure:
    def turn() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - started

    return turn


def cases() -> Iterator[Case]:
    """`import`: the limit is Python that imports nothing. `help`: the limit is a bare typer application's help."""
    peers = {}
    for name in ("mlflow", "feast", "bentoml"):
        found = subprocess.run([sys.executable, "-c", f"import {name}"], check=False, capture_output=True)
        if found.returncode == 0:
            peers[name] = _seconds("-c", f"import {name}")
    bare = {"ours": _seconds("-c", "import flyball"), "limit": _seconds("-c", "pass")}
    yield measure("import", "s", {**bare, **peers}, higher=False)
    typer = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'], standalone_mode=False)"
    yield measure(
        "help", "s", {"ours": _seconds("-m", "flyball", "--help"), "limit": _seconds("-c", typer)}, higher=False
    )
