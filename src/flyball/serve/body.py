"""The body of a recorded answer: what a segment keeps as one MessagePack value, beside the columns that are searched.

A list: inputs, features, then the numbers and the decision. The last two are left out where there is neither, so that what
one number says costs nothing more, and a body of format 1, which knows neither, is read as it is.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from flyball._kernel.errors import DataError
from flyball.serve import journal
from flyball.serve.journal import Answer


class Body(msgspec.Struct, frozen=True, array_like=True):
    """The parts, as `journal.Answer` has them."""

    inputs: dict[str, Any]
    features: dict[str, Any]
    outputs: tuple[float, ...] = ()
    decision: bool | str | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Body)
_whole = struct.Struct("qqq")


def pack(answer: Answer) -> bytes:
    """The body of `answer`; MessagePack keeps NaN, infinities and times as they are.

    The rest of `answer` is checked here too, on the caller's thread: what no adapter can store must never
    reach the writer, where it would take the answers of its group down with it.

    Raises:
        DataError: `unrecordable-answer`.
    """
    try:
        if journal.packed(answer.id) is None:
            raise ValueError("its id is not a UUID")
        if not type(answer.asked) is type(answer.epoch) is type(answer.latency_us) is int:
            raise TypeError("asked, epoch and latency are ints")
        _whole.pack(answer.asked, answer.epoch, answer.latency_us)
        float(answer.output)
        (answer.model + answer.version + answer.role + answer.key + answer.via + answer.failed).encode()
        if answer.decision is None and not answer.outputs:
            return _encoder.encode((answer.inputs, answer.features))
        if type(answer.decision) not in (bool, str, type(None)):
            raise TypeError("a decision is true, false or a name")
        numbers = [float(number) for number in answer.outputs]
        return _encoder.encode((answer.inputs, answer.features, numbers, answer.decision))
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise DataError(
            "unrecordable-answer",
            f"The answer {answer.id} cannot be recorded",
            why=str(error),
            next="hand over plain scalars: str, int, float, bool, None, or aware times",
        ) from error


def unpack(data: bytes) -> Body:
    """The parts of a body, of this release or an earlier one."""
    return _decoder.decode(data)
