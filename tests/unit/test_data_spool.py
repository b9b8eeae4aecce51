"""Folders for what does not fit into memory: gone with their use, and after a kill with the next use."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from flyball._kernel.errors import RetryableError
from flyball.data import spool

KILLED = """
import os, signal, sys
from pathlib import Path
from flyball.data import spool
with spool.folder(Path(sys.argv[1])) as folder:
    (folder / "rows").write_text("Ada")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_is_gone_with_its_use(tmp_path: Path) -> None:
    with spool.folder(tmp_path) as folder:
        (folder / "rows").write_text("Ada")
    with pytest.raises(IsADirectoryError), spool.folder(tmp_path) as folder:
        folder.read_text()
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_behind_goes_with_the_next_use_and_what_is_in_use_stays(tmp_path: Path) -> None:
    with spool.folder(tmp_path) as used:
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
        (left,) = set(tmp_path.iterdir()) - {used}
        assert (left / "rows").read_text() == "Ada"
        with spool.folder(tmp_path) as mine:
            assert set(tmp_path.iterdir()) == {used, mine}


@pytest.mark.parametrize(
    "problem",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_nobodys_fault(problem: Exception) -> None:
    with pytest.raises(RetryableError, match=r"disk-full"), spool.room():
        raise problem


@pytest.mark.parametrize("problem", [OSError(errno.EIO, "x"), pl.exceptions.ComputeError("x (os error 5)")])
def test_other_faults_pass(problem: Exception) -> None:
    with pytest.raises(type(problem)) as raised, spool.room():
        raise problem
    assert raised.value is problem
