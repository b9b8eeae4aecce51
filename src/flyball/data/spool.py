"""Spool: a folder on disk for what of one file does not fit into memory, while that file is taken in.

Rows that lie there may name persons, so none of it may outlive its use. Whoever uses a folder holds a lock on it; one that
nobody holds was left behind by a process that was killed, and goes when the next one is made.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from flyball._kernel.errors import RetryableError

_MADE, _LOCKED = "flyball-made-", "flyball-spool-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SAID = re.compile(r"\(os error (\d+)\)")


@contextmanager
def folder(within: Path | None = None) -> Iterator[Path]:
    """An empty folder, gone with the context.

    Args:
        within: where it is made; the system's place by default.
    """
    root = Path(within or tempfile.gettempdir())
    _sweep(root)
    made = Path(tempfile.mkdtemp(prefix=_MADE, dir=root))
    held = os.open(made, os.O_RDONLY)
    place = root / made.name.replace(_MADE, _LOCKED)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        made.rename(place)  # only now may others ask whether it is held
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(held)


@contextmanager
def room() -> Iterator[None]:
    """Tells a full disk from a fault of whoever's rows were being written.

    Raises:
        RetryableError: `disk-full`.
    """
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as problem:
        refuse_full(problem)
        raise


def refuse_full(problem: BaseException) -> None:
    """Raise `disk-full` where that is what a failed write says; Polars says it in its text alone."""
    found = _SAID.search(str(problem))
    number = problem.errno if isinstance(problem, OSError) and problem.errno else int(found[1]) if found else 0
    if number in _FULL:
        raise RetryableError(
            "disk-full",
            f"There is no room left on a disk that is written to: {os.strerror(number)}.",
            why=f"A file is taken in by way of {tempfile.gettempdir()} and its table's folder. Nothing of it was ingested.",
            next="Free space there, or name another place in TMPDIR; then run `flyball apply` again.",
        ) from problem


def _sweep(root: Path) -> None:
    for left in root.glob(f"{_LOCKED}*"):
        with suppress(OSError):  # another user's, or gone by now
            held = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(held)
