"""Objects in a store that speaks S3, as rows. The only file that knows obstore, which is the extra `s3`.

Objects are listed by prefix, and told by ETag and size: to know that nothing is new, nothing is downloaded. One that is read is
streamed into a temporary folder first, and is the one that was found if its ETag is. Endpoint and credentials come from the
environment (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, ...), or from where a machine of that cloud finds them.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flyball._kernel.errors import AdapterError, DataError, DeclarationError, RetryableError
from flyball.adapters.embedded import formats
from flyball.data import spool
from flyball.data.source import File, Reading, Source

if TYPE_CHECKING:
    from obstore.store import S3Store

_CHUNK = 8 << 20
"""Bytes that are held while an object is streamed."""

_CONNECT, _REQUEST, _PATIENCE = "5s", "300s", timedelta(seconds=30)
"""For a connection, for one request, and for all tries of one."""

_SILENT = re.compile(r"HTTP error|operation timed out|status code: (429|5\d\d)")
"""What obstore says of a store that may answer another time: it has no class of error for it."""


class ObjectReader:
    """`Reader` of objects in S3.

    Args:
        spool: where temporary folders go; the system's place by default.
    """

    def __init__(self, spool: Path | None = None) -> None:
        self._spool = spool

    def files(self, source: Source, since: str | None = None) -> tuple[File, ...]:
        """The objects that match now, by name, which is the key in the bucket; see `source.Reader`."""
        bucket, pattern = _address(source)
        with _asking(source) as obstore:
            found = _found(obstore, _store(bucket), pattern)
        if not found:
            raise DataError(
                "source-without-files",
                f"No object matches {formats.at(source).pattern!r}.",
                where=source.place,
                why=f"It was looked for in the bucket {bucket}.",
                next="Put the object there, or mend the URL; then run `flyball plan` again.",
            )
        for key in found:
            formats.kind(source, key)
        return tuple(File(key, _digest(found[key]), found[key]["size"]) for key in sorted(found))

    @contextmanager
    def open(self, source: Source, file: File) -> Iterator[Reading]:
        """One of them, as rows; see `source.Reader`."""
        bucket, _ = _address(source)
        with spool.folder(self._spool) as folder:
            path = folder / f"object{''.join(PurePosixPath(file.name).suffixes[-2:])}"
            with spool.room():
                self._download(source, bucket, file, path)
            unpacked = folder / "spool"
            unpacked.mkdir()
            yield formats.read(source, file, path, unpacked)

    def _download(self, source: Source, bucket: str, file: File, to: Path) -> None:
        """Stream the object to a file, unless it is another by now: S3 answers with one content and its own ETag."""
        with _asking(source, file) as obstore:
            answer = obstore.get(_store(bucket), file.name)
            if _digest(answer.meta) != file.digest:
                raise DataError(
                    "file-changed",
                    f"{file.name} changed since it was found.",
                    where=source.place,
                    why="Its content was to be ingested as one batch; nothing of it was.",
                    next="Run `flyball apply` again.",
                )
            written = 0
            with to.open("wb") as plain:
                for chunk in answer.stream(min_chunk_size=_CHUNK):
                    written += plain.write(chunk)
        if written != file.size:
            raise RetryableError(
                "store-unreachable",
                f"Of {file.name}, {written:,} of {file.size:,} bytes came.",
                where=source.place,
                why="The store or the network broke off; nothing of this file was ingested.",
                next="Run `flyball apply` again.",
            )


def _address(source: Source) -> tuple[str, str]:
    """The bucket and the pattern within it."""
    bucket, _, pattern = formats.at(source).pattern.partition("://")[2].partition("/")
    return bucket, pattern


def _store(bucket: str) -> S3Store:
    from obstore.store import S3Store

    plain = any(os.environ.get(name, "").startswith("http://") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    return S3Store(
        bucket,
        client_options={"allow_http": plain, "connect_timeout": _CONNECT, "timeout": _REQUEST},
        retry_config={"max_retries": 4, "retry_timeout": _PATIENCE},
    )


@contextmanager
def _asking(source: Source, file: File | None = None) -> Iterator[ModuleType]:
    """obstore, whose errors become ours. Its texts are not passed on: a store's answer may name who asked."""
    try:
        import obstore
        from obstore.exceptions import BaseError, InvalidPathError
    except ImportError as problem:
        raise DeclarationError(
            "package-not-installed",
            "The package obstore is not installed.",
            where=source.place,
            why=f"The source {source.name} reads objects of a store.",
            next="pip install 'flyball[s3]'",
        ) from problem
    try:
        yield obstore
    except FileNotFoundError as problem:
        raise _gone(source, file) from problem
    except (InvalidPathError, ValueError) as problem:
        raise _no_path(source, problem) from problem
    except BaseError as problem:
        raise _refused(source, problem) from problem


def _gone(source: Source, file: File | None) -> AdapterError:
    return AdapterError(
        "file-unopenable",
        f"{file.name if file else formats.at(source).pattern} was found, and cannot be opened: there is no such object.",
        where=source.place,
        why="It was deleted a moment ago.",
        next="Leave objects of a source where they are; then run `flyball apply` again.",
    )


def _no_path(source: Source, problem: Exception) -> AdapterError:
    key = re.search(r'Path "([^"]*)"', str(problem))
    return AdapterError(
        "object-key-not-usable",
        f"In the bucket {_address(source)[0]} there is a key that is no path{f': {key[1]!r}' if key else ''}.",
        where=source.place,
        why="A part of it between slashes is empty, or . or .., and a listing that holds it cannot be read.",
        next="Rename that object, or narrow the pattern to a folder without it; then run `flyball plan` again.",
    )


def _refused(source: Source, problem: Exception) -> AdapterError:
    bucket, text = _address(source)[0], str(problem)
    if _SILENT.search(text):
        return RetryableError(
            "store-unreachable",
            f"The store of the bucket {bucket} does not answer.",
            where=source.place,
            why="The connection failed or timed out, or the store said that it is busy; it was tried several times.",
            next="See that the endpoint is right (AWS_ENDPOINT_URL), and run it again.",
        )
    answered = re.search(r"<Code>(\w{1,64})</Code>", text)
    return AdapterError(
        "store-refused",
        f"The store refused to show the bucket {bucket}: {answered[1] if answered else type(problem).__name__}.",
        where=source.place,
        why="There is no such bucket, or whoever runs this may not read it.",
        next="See AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment.",
    )


def _digest(meta: Mapping[str, Any]) -> str:
    """What tells the content of an object, without reading it; where a store has no ETags, when it was written."""
    told = meta["e_tag"] or meta["last_modified"].isoformat()
    return hashlib.sha256(f"{told}\n{meta['size']}".encode()).hexdigest()


def _found(obstore: ModuleType, store: S3Store, pattern: str) -> dict[str, Mapping[str, Any]]:
    """What the store says of each object that matches, by key."""
    literal, *special = re.split(r"[*?\[]", pattern, maxsplit=1)
    if not special:
        try:
            return {pattern: obstore.head(store, pattern)}
        except FileNotFoundError:
            return {}
    folder = literal.rpartition("/")[0]
    wanted = pattern.split("/")
    listed = (each for batch in obstore.list(store, prefix=folder or None) for each in batch)
    return {each["path"]: each for each in listed if _matches(each["path"].split("/"), wanted)}


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """As a glob has it: `*` and `?` stand within a folder, `**` for any folders."""
    if not names or not patterns:
        return not names and not patterns
    first, *others = patterns
    if first == "**":
        return not others or any(_matches(names[skipped:], others) for skipped in range(len(names)))
    return fnmatch.fnmatchcase(names[0], first) and _matches(names[1:], others)
