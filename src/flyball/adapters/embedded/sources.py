"""Files of the local file system, and of installed packages, as rows.

The format is told by the name: `.csv`, `.jsonl` and `.ndjson`, each also with `.gz`, `.zst` or `.zip` (of one member);
`.parquet`; `.arrow`, `.ipc` and `.feather`. Compressed text is unpacked into a temporary folder first: the bytes must be
looked at before Polars is trusted with them, and disk is cheaper than memory.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from flyball._kernel.errors import AdapterError, DataError, DeclarationError
from flyball.adapters.embedded import records
from flyball.adapters.embedded.clock import SystemClock
from flyball.data.source import LINE, TEXT, File, Files, Reading, Source

_PACKED = (".gz", ".zst", ".zip")
_CSV, _JSON_LINES = (".csv",), (".jsonl", ".ndjson")
_PARQUET, _ARROW = (".parquet",), (".arrow", ".ipc", ".feather")
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, pl.exceptions.PolarsError)

_COARSE = 2.0
"""Seconds: more than any file system's clock is coarse."""
_CLOCK = SystemClock()
"""Says how old a file is: in real time, also while a rehearsal steps the time of the app."""


class FileReader:
    """`Reader` of local files.

    Args:
        spool: where temporary folders go; the system's place by default.
    """

    def __init__(self, spool: Path | None = None) -> None:
        self._spool = spool
        self._digests: dict[Path, tuple[tuple[int, ...], str]] = {}

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The files that match now, by name; see `source.Reader`."""
        folder = _folder(source)
        exact = (folder / _at(source).pattern).is_file()
        found = (
            [_at(source).pattern] if exact else sorted(glob.glob(_at(source).pattern, root_dir=folder, recursive=True))
        )
        names = [name for name in found if (folder / name).is_file()]
        if not names:
            raise DataError(
                "source-without-files",
                f"No file matches {_at(source).pattern!r}.",
                where=source.place,
                why=f"It was looked for in {folder}.",
                next="Put the file there, or mend the path; then run `flyball plan` again.",
            )
        for name in names:
            _format(source, name)
        return tuple(File(name.replace(os.sep, "/"), *self._content(source, folder / name)) for name in names)

    def _content(self, source: Source, path: Path) -> tuple[str, int]:
        """The digest and the size of a file; one that was not touched since the last look is not read again."""
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            known = self._digests.get(path)
            if known is not None and known[0] == stamp:
                return known[1], found.st_size
            # Times are coarse: a file may be written twice at what looks like one moment, so a young one is not believed.
            settled = _CLOCK.now().timestamp() - max(found.st_mtime, found.st_ctime) > _COARSE
            digest = _digest(path)
        except OSError as problem:
            raise AdapterError(
                "file-unopenable",
                f"{path.name} matched {_at(source).pattern!r}, and cannot be opened: {problem.strerror}",
                where=source.place,
                why="It was moved or deleted a moment ago, or this user may not read it.",
                next="Leave files of a source where they are; then run `flyball plan` again.",
            ) from problem
        if settled:
            self._digests[path] = stamp, digest
        return digest, found.st_size

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """One of them, as rows; see `source.Reader`."""
        path = _folder(source) / file.name
        with tempfile.TemporaryDirectory(prefix="flyball-", dir=self._spool) as spool:
            try:
                reading = _read(source, path, Path(spool))
            except _UNREADABLE as problem:
                raise DataError(
                    "file-unreadable",
                    f"{file.name} cannot be read: {problem}",
                    where=source.place,
                    why="Nothing of this file was ingested.",
                    next="Replace the file, then run `flyball apply` again.",
                ) from problem
            yield reading
            digest = ""
            with suppress(OSError):  # it is gone
                digest = _digest(path)
            if digest != file.digest:
                raise DataError(
                    "file-changed",
                    f"{file.name} changed while it was read.",
                    where=source.place,
                    why="Its content was to be ingested as one batch; nothing of it was.",
                    next="Write the file elsewhere and move it into place whole; then run `flyball apply` again.",
                )


def _read(source: Source, path: Path, spool: Path) -> Reading:
    kind = _format(source, path.name)
    if kind in _PARQUET + _ARROW:
        rows = pl.scan_parquet(path, glob=False) if kind in _PARQUET else pl.scan_ipc(path, glob=False)
        rows = rows.drop(LINE, strict=False).with_row_index(LINE, offset=1).cast({LINE: pl.Int64})
        rows.collect_schema()  # opens the file: a wrong one is found here, not inside the preparation
        return Reading(rows, pl.LazyFrame(schema={LINE: pl.Int64, TEXT: pl.String}))
    plain = _unpacked(path, spool / "unpacked") if path.suffix.lower() in _PACKED else path
    if kind in _CSV:
        return records.read_csv(plain, _at(source).nulls, spool)
    return records.read_json_lines(plain, spool)


def _unpacked(path: Path, to: Path) -> Path:
    match path.suffix.lower():
        case ".gz":
            with gzip.open(path, "rb") as packed, to.open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        case ".zip":
            with zipfile.ZipFile(path) as archive:
                members = [m for m in archive.infolist() if not m.is_dir()]
                if len(members) != 1:
                    raise ValueError(f"the archive has {len(members)} members, and one is needed")
                with archive.open(members[0]) as packed, to.open("wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
        case _:
            # Python has no zstd before 3.14; Polars has, for whole lines of UTF-8.
            pl.scan_lines(path, glob=False).sink_csv(to, include_header=False, quote_style="never")
    return to


def _format(source: Source, name: str) -> str:
    """The suffix that tells the format."""
    suffixes = [s.lower() for s in Path(name).suffixes]
    packed = bool(suffixes) and suffixes[-1] in _PACKED
    kind = suffixes[-2 if packed else -1] if len(suffixes) > packed else ""
    if kind in (_CSV + _JSON_LINES if packed else _CSV + _JSON_LINES + _PARQUET + _ARROW):
        return kind
    raise DeclarationError(
        "source-of-unknown-format",
        f"The format of {name} is not known.",
        where=source.place,
        why="It is told by the name: .csv, .jsonl and .ndjson (also with .gz, .zst or .zip), .parquet, .arrow, .ipc, .feather.",
        next="Rename the file, or narrow the pattern to files of a known format.",
    )


def _at(source: Source) -> Files:
    assert isinstance(source.at, Files)  # noqa: S101 - `Readers` hands each kind to its reader
    return source.at


def _folder(source: Source) -> Path:
    """What the pattern is relative to: the app file's folder, or that of a package, which is not imported."""
    package = _at(source).package
    if package is None:
        return Path(source.place.file).resolve().parent
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not places:
        raise DeclarationError(
            "package-not-installed",
            f"The package {package} is not installed.",
            where=source.place,
            why=f"The source {source.name} reads its files.",
            next=f"pip install '{_installs(package)}'",
        )
    return Path(places[0])


def _installs(package: str) -> str:
    """What to install: the extra of ours that brings a package, or the package itself."""
    for requirement in importlib.metadata.requires("flyball") or ():
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", requirement)
        if extra is not None and re.match(rf"{re.escape(package)}\b", requirement):
            return f"flyball[{extra[1]}]"
    return package


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
