"""Rows that others push: a body is taken whole, lies in the inbox until its rows are in a table, and is judged there.

A body is JSON lines, one JSON object, or a list of them. Here it is only brought into lines: a line that is no row, or breaks
the contract, goes to quarantine as every other source's does, so nothing that was accepted is lost. Refused is what cannot
even be kept as text, what is too large, and everything while the inbox is full: then the sender has to wait.

A body that is sent again is taken once: it is told by its `Idempotency-Key`, and without one by its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from flyball._kernel.errors import DataError, StateError
from flyball.data.source import File
from flyball.serve.guard import Refused
from flyball.serve.tally import Tally

KINDS: Final = frozenset({b"application/x-ndjson", b"application/jsonl"})
KEY: Final = b"idempotency-key"
LONGEST: Final = 255
"""Characters of an Idempotency-Key."""

_MARK: Final = b"\xef\xbb\xbf"
_many = msgspec.json.Decoder(list[msgspec.Raw])
_one = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True)
class Body:
    """What one request brings.

    Attributes:
        rows: lines of UTF-8, the last one with its end.
        by: the name of the key that pushed it.
        told: what tells it from others of that key: its Idempotency-Key, or its content.
    """

    rows: bytes
    by: str
    told: str

    @property
    def file(self) -> File:
        """The file that it is to the source: named by who sent it and what tells it, so that one sent again is the same."""
        named = hashlib.sha256(self.told.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return File(f"{self.by}/{named}.jsonl", hashlib.sha256(self.rows).hexdigest(), len(self.rows))


class Inbox(Protocol):
    """Bodies that wait to be ingested, by the name under which they are pushed, in the order in which they came."""

    def accept(self, name: str, body: Body) -> bool:
        """Keep a body; on disk when it returns. False where it waits already.

        Raises:
            StateError: `idempotency-key-reused`: another body waits under this key.
            RetryableError: `inbox-full`, `disk-full`; AdapterError: `inbox-unusable`. Then nothing of it is kept.
        """

    def files(self, name: str) -> tuple[File, ...]:
        """What waits, in order."""

    def read(self, name: str, file: File) -> bytes | None:
        """The rows of one; None where it does not wait, or no longer with this content."""

    def drop(self, name: str, files: Collection[File]) -> None:
        """These are ingested; another that came under the same name since is kept."""


def receive(
    inbox: Inbox, name: str, tally: Tally, headers: Mapping[bytes, bytes], body: bytes, by: str
) -> tuple[int, bytes]:
    """Take one body; see `posts.Take`.

    Raises:
        DataError: `push-unreadable`.
        Refused: 409 `idempotency-key-reused`.
        RetryableError, AdapterError: as `Inbox.accept`.
    """
    rows = lines(body)
    key = headers.get(KEY, b"").decode("latin-1")
    if len(key) > LONGEST:
        raise _unreadable(f"Its Idempotency-Key has more than {LONGEST} characters.")
    told = f"key {key}" if key else f"content {hashlib.sha256(rows).hexdigest()}"
    try:
        new = inbox.accept(name, Body(rows, by, told))
    except StateError as error:
        raise Refused(409, error) from None
    how, count = "accepted" if new else "repeated", sum(1 for line in rows.split(b"\n") if line.strip())
    tally.pushed[name, how] += 1
    tally.pushed_rows[name, how] += count
    return 202, msgspec.json.encode({"taken": how, "rows": count})


def lines(body: bytes) -> bytes:
    """A body as lines, one a row; what is no JSON stays as it is.

    Raises:
        DataError: `push-unreadable`: no UTF-8, nothing, or nested too deeply to be looked at.
    """
    text = body.removeprefix(_MARK)
    try:
        text.decode()
    except UnicodeDecodeError as problem:
        raise _unreadable(f"Byte {problem.start} is not UTF-8.") from None
    try:
        rows = [_in_one_line(bytes(each)) for each in _parts(text)]
    except msgspec.DecodeError:
        rows = [text.strip(b"\r\n")]
    except RecursionError:
        raise _unreadable("It is nested too deeply.") from None
    found = b"\n".join(rows)
    if not found.strip():
        raise _unreadable("It has no row.")
    return found + b"\n"


def _parts(text: bytes) -> list[msgspec.Raw]:
    return _many.decode(text) if text.lstrip()[:1] == b"[" else [_one.decode(text)]


def _in_one_line(value: bytes) -> bytes:
    """A value of JSON in one line: within a text no end of a line may stand as it is."""
    return value.replace(b"\r", b" ").replace(b"\n", b" ")


def _unreadable(why: str) -> DataError:
    return DataError(
        "push-unreadable",
        "These rows cannot be kept.",
        why=why,
        next="Send JSON in UTF-8: one object a line, or one object, or a list of objects.",
    )
