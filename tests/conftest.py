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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, file by file: what is begun last must not be waited for by one core alone."""
    first = ("journeys/test_rehearsal", "promises/test_07_the_loop", "journeys", "promises", "attacks", "migrations")

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((n for n, start in enumerate(first) if path.startswith(start)), len(first))

    items.sort(key=rank)
