"""Facts: the append-only record of everything that was decided, and the one way that the stages talk to each other.

A **fact** is a typed record of something that happened to one model of one app. What it *said* is deterministic and is
hashed into the trace; what was *measured* (durations, memory) differs from run to run and is not. Facts hold no row values.

A **transaction** is the unit of writing: its facts and the projections folded from them commit together, or not at all.
Transactions are chained over their stored bytes and the head is signed, so rewriting and truncation show.

A **projection** is state: a pure fold over facts, one row per key. State is never written in any other way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, dataclass_transform

import msgspec

from flyball._kernel.clock import micros

GENESIS = "0" * 64
"""The hash before the first transaction."""

_encoder = msgspec.json.Encoder(order="deterministic")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a fact says: subclass it with `tag="room.verb"` in the room that the fact belongs to."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened, about to be recorded.

    Attributes:
        app: the application.
        model: the model of the application, or "" for what concerns all of them.
        said: the typed record, hashed into the trace.
        measured: what differs from run to run (seconds, bytes): recorded, never hashed into the trace.
    """

    app: str
    model: str
    said: Said
    measured: Mapping[str, float] = field(default_factory=dict)


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One fact as it lies in the log: the bytes are what the chain and the trace are made of."""

    seq: int
    tx: int
    at: datetime
    kind: str
    app: str
    model: str
    said: bytes
    measured: bytes


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """A point of the history, to be copied elsewhere: the last transaction, and the trace of all that was said up to it."""

    tx: int
    trace: str


class Head(Anchor, frozen=True, kw_only=True):
    """The end of the chain: an anchor with the hash over every stored byte, and the signature over all three."""

    hash: str
    signature: str

    def anchor(self) -> Anchor:
        """What another run of the same decisions would repeat of it: nothing that was measured."""
        return Anchor(tx=self.tx, trace=self.trace)


START = Head(tx=0, hash=GENESIS, trace=GENESIS, signature="")


def kind(said: Said | type[Said]) -> str:
    """The tag of a record type, such as `data.ingested`."""
    return str((said if isinstance(said, type) else type(said)).__struct_config__.tag)


def encode(said: msgspec.Struct | Mapping[str, Any]) -> bytes:
    """Deterministic JSON: same value, same bytes."""
    return _encoder.encode(said)


S = TypeVar("S", bound=Said)


def decode(stored: Stored, type_: type[S]) -> S:
    """The typed record of a stored fact."""
    return msgspec.json.decode(stored.said, type=type_)


def link(previous: Head, tx: int, at: datetime, facts: Iterable[Stored]) -> tuple[str, str]:
    """The chain hash and the trace hash that follow `previous`.

    The chain covers every stored byte. The trace covers what was said and when, so that two rehearsals of one seed agree.
    """
    chain, trace = hashlib.sha256(previous.hash.encode()), hashlib.sha256(previous.trace.encode())
    stamp = f"{tx}:{micros(at)}".encode()
    for each in (chain, trace):
        each.update(stamp)
    for fact in facts:
        said = b"\x00".join([fact.kind.encode(), fact.app.encode(), fact.model.encode(), fact.said])
        for each, part in ((chain, said + b"\x00" + fact.measured), (trace, said)):
            each.update(len(part).to_bytes(8, "big") + part)
    return chain.hexdigest(), trace.hexdigest()


def signed_part(tx: int, chain: str, trace: str) -> bytes:
    """The bytes that the signature of a head covers."""
    return f"flyball/head/1:{tx}:{chain}:{trace}".encode()


@dataclass(frozen=True, slots=True)
class Projection:
    """A pure fold over facts, kept as one row per key in the same transaction as the facts.

    Attributes:
        name: unique within the store.
        kinds: the fact kinds that it folds.
        key: the key of the row that a fact changes.
        fold: (the row so far or None, the fact) -> the new row, or None to delete it. Rows are JSON bytes.
    """

    name: str
    kinds: frozenset[str]
    key: Callable[[Stored], str]
    fold: Callable[[bytes | None, Stored], bytes | None]


def about(stored: Stored, *rest: str) -> str:
    """The usual key of a projection: (app, model, ...)."""
    return "/".join((stored.app, stored.model, *rest))
