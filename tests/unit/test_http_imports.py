"""What a server loads before it answers: nothing that only training, or a person who looks at plots, needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("altair", "lightgbm", "onnx", "onnxruntime", "optuna", "pandas", "scipy", "sklearn", "skl2onnx", "vl_convert")


@pytest.mark.parametrize("module", ["flyball.serve.http", "flyball.cycle.answering"])
def test_answering_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & {set(HEAVY)!r}))"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout.split() == []
