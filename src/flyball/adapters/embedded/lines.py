"""The lines of a text file, in bounded memory, whatever bytes it holds.

A file is UTF-8, unless its declaration or its byte order mark says otherwise: then it is written anew as UTF-8, and a byte
that does not fit its encoding becomes `\\xNN`. A line that is not UTF-8 is read as Latin-1, which loses no byte. A line that
is too long to be held is told by its beginning, its length and its SHA-256.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LONGEST = 8 << 20
"""Bytes of a line, and characters of a record: what is longer is not read."""

_BEGINNING = 4096
"""Characters that are kept of what is too long."""

_BLOCK = 1 << 20
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte order mark -> encoding; that of UTF-32 begins with that of UTF-16."""
_AS_IT_IS = ("utf-8", "utf-8-sig", "ascii")


class Overlong(str):
    """What stands for a line that is too long."""

    __slots__ = ()


def lines(path: Path) -> Iterator[str]:
    """The lines of a file of UTF-8, each with its end; those longer than `LONGEST` as `Overlong`."""
    with path.open("rb") as file:
        yield from read(file)


def read(file: BinaryIO) -> Iterator[str]:
    """The lines of what lies in an open file, or in memory; see `lines`."""
    if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        file.seek(0)
    while line := file.readline(LONGEST + 1):
        yield _text(line) if len(line) <= LONGEST else _overlong(line, file)


def told(text: str) -> Overlong:
    """What is kept of a record that is too long."""
    encoded = text.encode("utf-8", "backslashreplace")
    return _said(encoded, len(encoded), hashlib.sha256(encoded).hexdigest())


def _overlong(line: bytes, file: BinaryIO) -> Overlong:
    """Reads on to the end of the line, and keeps its beginning."""
    digest, size, part = hashlib.sha256(line), len(line), line
    while part and not part.endswith(b"\n"):
        part = file.readline(_BLOCK)
        digest.update(part)
        size += len(part)
    return _said(line, size, digest.hexdigest())


def _said(line: bytes, size: int, digest: str) -> Overlong:
    beginning = _text(line[: 4 * _BEGINNING])[:_BEGINNING]
    return Overlong(f"{beginning} … ({size:,} bytes in all, SHA-256 {digest})")


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def in_utf8(path: Path, encoding: str, to: Path) -> Path:
    """The file itself where it is UTF-8, else `to`, written anew.

    Args:
        encoding: Python's name of it; "" for UTF-8, or what the byte order mark says.

    Raises:
        ValueError: bytes that this encoding cannot even skip.
    """
    named = encoding or _marked(path)
    if not named or codecs.lookup(named).name in _AS_IT_IS:
        return path
    decoder = codecs.getincrementaldecoder(named)("backslashreplace")
    with path.open("rb") as encoded, to.open("wb") as plain:
        while block := encoded.read(_BLOCK):
            plain.write(decoder.decode(block).encode("utf-8", "backslashreplace"))
        plain.write(decoder.decode(b"", final=True).encode("utf-8", "backslashreplace"))
    return to


def _marked(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), "")
