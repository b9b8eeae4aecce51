"""What every test shares: a key of its own, suites that explain their failures, and a process left as it was.

A file of tests may lean on nothing that another left behind, so that files run in any order and on any worker.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("flyball.checks")

# No test may touch the key of whoever runs it. Set here, and not in a fixture, because subprocesses inherit it.
os.environ["FLYBALL_KEY"] = str(Path(tempfile.mkdtemp(prefix="flyball-test-key-")) / "signing.pem")
# The workers of a test run share their cores; see `flyball.cli.main`.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# As scikit-learn does, whichever test is the first to import it.
os.environ.setdefault("KMP_DUPLICATE_LIB_OK", "True")
os.environ.setdefault("KMP_INIT_AT_FORK", "FALSE")
# How long an example takes says something of the machine, and nothing of us.
settings.register_profile("flyball", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("flyball")

LONG = (
    "journeys/test_rehearsal",
    "journeys/test_up",
    "promises/test_07_finished",
    "journeys/test_flights",
    "promises/test_07_the",
)
"""Files that take half a minute and more."""
FOLDERS = ("journeys", "promises", "properties", "attacks", "migrations")


def pytest_configure(config: pytest.Config) -> None:
    """Files are handed out in the order below, and not those of most tests first."""
    if config.pluginmanager.hasplugin("xdist"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of several workers none begins a long file while the others have nothing left to do."""

    def rank(item: pytest.Item) -> int:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((n for n, start in enumerate(LONG + FOLDERS) if path.startswith(start)), len(LONG + FOLDERS))

    if hasattr(config, "workerinput"):
        items.sort(key=rank)


def _standing() -> dict[str, object]:
    """Where this process stands; pytest itself writes the name of each test into the environment."""
    found: dict[str, object] = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    found["the working directory"] = os.getcwd()
    return found


def _moved(before: dict[str, object], after: dict[str, object]) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [f"{name}: {before.get(name)} -> {after.get(name)}" for name in names if before.get(name) != after.get(name)]


@pytest.fixture(autouse=True)
def _a_test_leaves_the_process_where_it_was() -> Iterator[None]:
    before = _standing()
    yield
    if (after := _standing()) != before:
        pytest.fail("This test leaves behind: " + "; ".join(_moved(before, after)), pytrace=False)


@pytest.fixture(autouse=True, scope="module")
def _a_file_leaves_nothing() -> Iterator[None]:
    """Fails naming what a file leaves running or moved; takes back what loading an app adds, as a process's end would."""
    before, threads = _standing(), set(threading.enumerate())
    path, modules = list(sys.path), set(sys.modules)
    yield
    added = tuple(f"{each}{os.sep}" for each in sys.path if each and each not in path)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        said = getattr(sys.modules[name], "__dict__", {})
        places = (said.get("__file__"), *said.get("__path__", ()))
        if any(isinstance(place, str) and place.startswith(added) for place in places):
            del sys.modules[name]
    left = _moved(before, _standing())
    # Threads that Python did not start, such as those of polars, are for ever.
    started = [each for each in threading.enumerate() if not isinstance(each, threading._DummyThread)]
    for each in started:
        if each not in threads:
            each.join(5)  # it may be about to end
            left += [f"the thread {each.name}"] if each.is_alive() else []
    if left:
        pytest.fail("This file leaves behind: " + "; ".join(left), pytrace=False)
