"""Looking again when everything is done: `plan`, and an `apply` that finds nothing to do.

What is measured is the work after import: loading the app file anew, opening its places and deciding, on the project that
`flyball new` makes. The limit reads, hashes and parses the same source files, and hashes the raw file, in plain Python.
"""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.pairs import Case, Measure, measure
from flyball import runtime
from flyball.cycle import apply, plan
from flyball.cycle.session import Session

NAME = "orders"


def _timed(work: Callable[[], None]) -> Measure:
    def turn() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return turn


def _opened(root: Path, key: Path, *, create: bool) -> Session:
    """The app as a new process would find it: nothing of its file is remembered."""
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]
    loaded = runtime.load(str(root))
    return runtime.open(loaded.app, runtime.Placement(root=loaded.root, key=key, create=create))


def cases() -> Iterator[Case]:
    """`plan` and `second-apply`."""
    with tempfile.TemporaryDirectory(prefix="flyball-plan-") as place:
        root, key = Path(place) / NAME, Path(place) / "keys" / "signing.pem"
        environment = {**os.environ, "FLYBALL_KEY": str(key)}
        for verb in ("new", "apply"):
            command = [sys.executable, "-m", "flyball", verb, NAME, "--json"]
            done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]

        def looks() -> None:
            found = plan.plan(_opened(root, key, create=False))
            assert not found.work, found.work

        def applies() -> None:
            done = apply.apply(_opened(root, key, create=True))
            assert not done.ran, done

        def reads() -> None:
            for file in sorted(root.glob("*.py")):
                text = file.read_bytes()
                assert hashlib.sha256(text).hexdigest()
                assert ast.dump(ast.parse(text))
            assert all(hashlib.sha256(file.read_bytes()).hexdigest() for file in (root / "data").iterdir())

        for name, ours in (("plan", looks), ("second-apply", applies)):
            yield measure(name, "s", {"ours": _timed(ours), "limit": _timed(reads)}, higher=False, turns=9)
