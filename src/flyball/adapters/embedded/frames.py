"""Frames that a function of the user yields, one at a time.

Whenever the source is looked at, the function runs, and each frame goes to the disk before the next is asked for: so one frame
must fit into memory, and all of them need not. A frame is told by the bytes that it has as Arrow; one without a name is named
by them. What was looked at is what is read: the function does not run again in between.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import re
import shutil
import tempfile
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from flyball._kernel.errors import DataError
from flyball.data.kinds import Yields
from flyball.data.source import LINE, RAGGED, File, Reading, Source

_LONGEST = 200
"""Characters of a frame's name."""


class FrameReader:
    """`Reader` of frames.

    Args:
        spool: where temporary folders go; the system's place by default.
    """

    def __init__(self, spool: Path | None = None) -> None:
        self._spool = spool
        self._kept: dict[str, dict[File, Path]] = {}
        self._folder: Path | None = None

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The frames that the function yields now, in its order; see `source.Reader`."""
        for path in self._kept.pop(source.name, {}).values():
            path.unlink(missing_ok=True)
        kept = self._kept.setdefault(source.name, {})
        for file, data in _yielded(source, since):
            if file.name in {each.name for each in kept if each != file}:
                raise DataError(
                    "frame-named-twice",
                    f"{source.at} yields two frames that are named {file.name!r}.",
                    where=source.place,
                    why="A name tells one frame, as a path tells one file.",
                    next="Give each a name of its own, or none.",
                )
            kept[file] = self._place() / f"{file.digest}.arrow"
            kept[file].write_bytes(data)
        return tuple(kept)

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """One of them, as rows; see `source.Reader`."""
        if file not in self._kept.get(source.name, {}):
            self.files(source)
        path = self._kept[source.name].get(file)
        if path is None:
            raise DataError(
                "file-changed",
                f"{source.at} no longer yields the frame {file.name!r} as it was.",
                where=source.place,
                why="Its content was to be ingested as one batch; nothing of it was.",
                next="Run `flyball apply` again.",
            )
        rows = pl.scan_ipc(path, glob=False).drop(LINE, strict=False).with_row_index(LINE, offset=1)
        yield Reading(rows.cast({LINE: pl.Int64}), pl.LazyFrame(schema=RAGGED))

    def _place(self) -> Path:
        """A folder that lives as long as this reader."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="flyball-frames-", dir=self._spool))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder


class NotAFrameError(Exception):
    """What was yielded is none; its text is ours, and may be shown."""


def _yielded(source: Source, since: str | None) -> Iterator[tuple[File, bytes]]:
    """What the function yields, each whole; whatever it raises is told where."""
    assert isinstance(source.at, Yields)  # noqa: S101 - `Readers` hands each kind to its reader
    function = source.at.function
    try:
        takes = "since" in inspect.signature(function).parameters
        for each in function(since=since) if takes else function():
            name, frame = each if isinstance(each, tuple) else ("", each)
            if not _believable(name, frame):
                raise NotAFrameError(
                    f"A frame, or a name of at most {_LONGEST} characters and a frame, is wanted: {type(frame).__name__}."
                )
            yield _told(name, frame.lazy().collect())
    except GeneratorExit:
        raise
    except Exception as problem:  # the user's code: whatever it raises, it is told where
        raise _failed(source, problem) from problem


def _failed(source: Source, problem: Exception) -> DataError:
    """Its line, and its kind; its text may quote a row."""
    place = source.place.file
    with suppress(TypeError, OSError):
        place = inspect.getsourcefile(source.at.function) or place  # type: ignore[attr-defined]
    lines = [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == place]
    at = f" in line {lines[-1].lineno} of {Path(place).name}" if lines else ""
    return DataError(
        "frames-failed",
        f"{source.at} failed{at}: {type(problem).__name__}.",
        where=source.place,
        why=str(problem)[:300]
        if isinstance(problem, NotAFrameError)
        else "Its text is not shown, since it may quote a row.",
        next="Run the function alone, mend it, and run `flyball apply` again. Frames before it were not ingested either.",
    )


def _believable(name: object, frame: object) -> bool:
    named = isinstance(name, str) and len(name) <= _LONGEST and not re.search("[\ud800-\udfff]", name)
    return named and isinstance(frame, pl.DataFrame | pl.LazyFrame)


def _told(name: str, frame: pl.DataFrame) -> tuple[File, bytes]:
    """A frame's file, and its bytes."""
    written = io.BytesIO()
    frame.rechunk().write_ipc(written, compat_level=pl.CompatLevel.oldest())
    data = written.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    return File(name or digest[:16], digest, len(data)), data
