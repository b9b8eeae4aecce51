"""What a user sees of the package: its names, its import time, what it loads."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import flyball

ROOT = Path(flyball.__file__)


def test_public_names_are_sorted_few_and_real() -> None:
    assert flyball.__all__ == sorted(flyball.__all__)
    assert len(flyball.__all__) <= 90
    for name in flyball.__all__:
        assert getattr(flyball, name) is not None


def test_what_the_type_checker_sees_is_what_is_loaded() -> None:
    tree = ast.parse(ROOT.read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname or alias.name: node.module for node in imports for alias in node.names}
    loaded = {name: f"flyball.{home}" for name, home in flyball._HOME_OF.items()}
    modules = {name: f"flyball.{home.rpartition('.')[0]}" for name, home in flyball._MODULES.items()}
    assert seen == loaded | modules
    assert set(seen) == set(flyball.__all__)


def test_importing_flyball_loads_nothing_heavy() -> None:
    code = (
        "import sys, flyball; "
        "print([m for m in ('polars','sklearn','pyarrow','onnxruntime','pandas','lightgbm','numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_importing_flyball_is_cheap() -> None:
    """At most 0.15 s over bare Python: counted inside the process, so a busy machine's start-up does not weigh in."""
    code = "import time; t = time.process_time(); import flyball; print(time.process_time() - t)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert statistics.median(runs) <= 0.15
