"""What the tests of the journal on a disk share."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyball.checks.clock import Wound
from tests.disks import Disk


@pytest.fixture
def clock() -> Wound:
    return Wound()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "journal"
