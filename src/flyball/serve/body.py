"""The bytes of recorded answers: each is packed on its caller's thread, and the writer joins them to a page untouched.

A **page** is a MessagePack array. Its n-th item is the answer whose number is the page's first + n: an array of the fields
of `journal.Answer` in their order, which may only grow at its end; nil is an answer that was erased. Names of columns are
written with each answer: to find out that they are the last one's takes the caller longer than to write them (ADR 0054).

Until format 2 a row of the segment held the columns that are searched, and a **body** the rest: inputs, features, and from
format 2 on the numbers and the decision where there were any.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from flyball._kernel.errors import DataError
from flyball.serve.journal import Answer, Entry, Header, Segment

ERASED: Final = b"\xc0"
"""The item of an answer that was erased."""

Packed = tuple[bytes, int, bytes]
"""An answer on its way: its id (16 bytes), when it was asked, and its item in a page."""


class Kept(Answer, frozen=True):
    """An answer as a page holds it."""

    # Read more loosely than it is declared, so that no answer makes the others of its page unreadable.
    inputs: dict[Any, Any]
    features: dict[Any, Any]


class Body(msgspec.Struct, frozen=True, array_like=True):
    """The parts of a body until format 2, as `journal.Answer` has them."""

    inputs: dict[str, Any]
    features: dict[str, Any]
    outputs: tuple[float, ...] = ()
    decision: bool | str | None = None


_encoder = msgspec.msgpack.Encoder()
_body = msgspec.msgpack.Decoder(Body)
_page = msgspec.msgpack.Decoder(list[Kept | None])
_items = msgspec.msgpack.Decoder(list[msgspec.Raw])
_whole = struct.Struct("qqq")
_ID: Final = 36
"""Characters of an id."""
_LARGE: Final = 16
"""An array of so many items has a longer head."""


def pack(answer: Answer) -> Packed:
    """`answer` as an item of a page; MessagePack keeps NaN, infinities and times as they are.

    All of it is checked here, on the caller's thread: what no adapter can store must never reach the writer, where it would
    take the answers of its group down with it.

    Raises:
        DataError: `unrecordable-answer`.
    """
    asked = answer.asked
    output: Any = answer.output
    within: Any = answer.within_tolerance
    try:
        digits = answer.id.replace("-", "")
        identity = bytes.fromhex(digits)
        if len(answer.id) != _ID or identity.hex() != digits:
            raise ValueError("its id is not a UUID as it is written")
        if not type(asked) is type(answer.epoch) is type(answer.latency_us) is int:
            raise TypeError("asked, epoch and latency are ints")
        _whole.pack(asked, answer.epoch, answer.latency_us)
        # What is no text raises here; what cannot be written in UTF-8 does below.
        "".join((answer.model, answer.version, answer.role, answer.key, answer.via, answer.failed))
        if answer.decision is not None and type(answer.decision) not in (bool, str):
            raise TypeError("a decision is true, false or a name")
        # An item is a list of these fields alone, whatever an Entry or another kind of Answer adds to them.
        plain = type(answer) is Answer and type(output) is float and type(within) is bool and not answer.outputs
        if not (_named(type(answer.inputs)) and _named(type(answer.features))):
            raise TypeError("inputs and features are told by their names")
        item = _encoder.encode(answer if plain else _plain(answer))
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise DataError(
            "unrecordable-answer",
            f"The answer {answer.id} cannot be recorded",
            why=str(error),
            next="hand over plain scalars: str, int, float, bool, None, or aware times",
        ) from error
    return identity, asked, item


def _plain(answer: Answer) -> Answer:
    """The same as an Answer in Python's own numbers."""
    fields = {name: getattr(answer, name) for name in Answer.__struct_fields__}
    fields |= {"within_tolerance": bool(answer.within_tolerance), "output": float(answer.output)}
    return Answer(**fields | {"outputs": tuple(float(number) for number in answer.outputs)})


@lru_cache(maxsize=256)
def _named(kind: type) -> bool:
    """Whether its values are written as a map: a dict, or a struct that is no list of its fields."""
    return issubclass(kind, dict) or (issubclass(kind, msgspec.Struct) and not kind.__struct_config__.array_like)


def page(items: Sequence[bytes]) -> bytes:
    """The page of these items, in the order of their numbers."""
    many = len(items)
    head = bytes((0x90 + many,)) if many < _LARGE else b"\xdd" + many.to_bytes(4, "big")
    return head + b"".join(items)


def answers(data: bytes) -> list[Kept | None]:
    """What a page holds: None in the place of an answer that was erased."""
    return _page.decode(data)


def find(data: bytes, prediction: str) -> tuple[int, Kept] | None:
    """The answer with that id in a page, and its place there; the others are not decoded."""
    text = prediction.encode()
    for n, item in enumerate(items(data)) if text in data else ():
        if text in item:
            (answer,) = answers(page([item]))
            if answer is not None and answer.id == prediction:
                return n, answer
    return None


def items(data: bytes) -> list[bytes]:
    """The items of a page as they are."""
    return [bytes(each) for each in _items.decode(data)]


def entry(kept: Answer, header: Header, segment: Segment, name: str, seq: int) -> Entry:
    """The answer in its place."""
    return Entry(
        id=kept.id,
        asked=kept.asked,
        model=kept.model,
        version=kept.version,
        epoch=kept.epoch,
        role=kept.role,
        within_tolerance=kept.within_tolerance,
        key=kept.key,
        inputs=kept.inputs,
        features=kept.features,
        output=kept.output,
        latency_us=kept.latency_us,
        via=kept.via,
        failed=kept.failed,
        outputs=kept.outputs,
        decision=kept.decision,
        app=header.app,
        process=segment.process,
        segment=name,
        seq=seq,
    )


def unpack(data: bytes) -> Body:
    """The parts of a body of format 1 or 2."""
    return _body.decode(data)


def number(stored: float | None) -> float:
    """An output of format 1 or 2: SQLite has no NaN, and stored NULL."""
    return math.nan if stored is None else stored
