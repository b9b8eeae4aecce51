"""What every test shares: a key of its own, and suites of `flyball.checks` that explain their failures."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

pytest.register_assert_rewrite("flyball.checks")

# No test may touch the key of whoever runs it. Set here, and not in a fixture, because subprocesses inherit it.
# The workers of a test run share their cores; see `flyball.cli.main`.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["FLYBALL_KEY"] = str(Path(tempfile.mkdtemp(prefix="flyball-test-key-")) / "signing.pem")
