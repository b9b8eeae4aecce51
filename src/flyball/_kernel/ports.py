"""The four ports that every room shares; each has an embedded and a memory adapter and a conformance suite in `checks`.

Other ports live in the room that uses them: tables in `data`, online features in `learn`, the journal in `serve`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from flyball._kernel.clock import Clock
from flyball._kernel.facts import Fact, Head, Stored

__all__ = ["Blobs", "Clock", "Facts", "Lease", "Signer"]


class Facts(Protocol):
    """The append-only log, with the projections that it was opened with."""

    def append(self, facts: Sequence[Fact], *, expect: int | None = None) -> Head:
        """Record `facts` as one transaction, fold the projections in it, and return the new head.

        Args:
            facts: at least one.
            expect: the transaction that the caller decided upon; if the head has moved since, nothing is written.

        Raises:
            StateError: `moved-on`, when the head is no longer `expect`.
        """

    def read(self, *, after: int = 0, kinds: frozenset[str] | None = None, app: str | None = None) -> Iterator[Stored]:
        """Facts with `seq` greater than `after`, in order."""

    def get(self, projection: str, key: str) -> bytes | None:
        """One row of a projection."""

    def scan(self, projection: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Rows of a projection whose key starts with `prefix`, by key."""

    def head(self) -> Head:
        """The end of the chain; `facts.START` when nothing is recorded."""

    def verify(self) -> Head:
        """Walk the whole chain; return its head.

        Raises:
            StateError: `history-broken`, naming the first transaction whose bytes, link or signature do not hold.
        """

    def rebuild(self) -> None:
        """Fold all projections anew from the facts."""


class Blobs(Protocol):
    """Content-addressed artifacts: written once, verified at every load."""

    def put(self, data: bytes) -> str:
        """Store `data`; returns its SHA-256 in hexadecimal."""

    def get(self, digest: str) -> bytes:
        """The bytes whose SHA-256 is `digest`.

        Raises:
            StateError: `no-such-artifact`, or `artifact-changed` when the stored bytes no longer match.
        """

    def has(self, digest: str) -> bool:
        """Whether `digest` is stored."""

    def names(self) -> Iterator[str]:
        """The digests of all that is stored, in order."""

    def drop(self, digests: Collection[str]) -> int:
        """Remove these for good, and whatever crashed writers left unfinished; returns how many of them were there.

        The caller sees to it that nobody else puts meanwhile.
        """


class Lease(Protocol):
    """The right of one holder to do one thing, for a while."""

    def acquire(self, name: str, holder: str, until: datetime) -> int | None:
        """Take or extend the lease; returns a fencing token that grows with every change of holder, or None if held."""

    def release(self, name: str, holder: str) -> None:
        """Give the lease back, if `holder` has it."""

    def holder(self, name: str) -> str | None:
        """Who has it now."""


class Signer(Protocol):
    """An Ed25519 key that lives outside the store."""

    def sign(self, data: bytes) -> str:
        """The signature of `data`, in hexadecimal."""

    def verify(self, data: bytes, signature: str) -> bool:
        """Whether `signature` is this key's over `data`."""

    def secret(self, purpose: str) -> bytes:
        """32 bytes derived for one purpose (HKDF), such as hashing subjects."""
