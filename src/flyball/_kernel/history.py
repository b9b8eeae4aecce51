"""How the history is written and checked: the part that every Facts adapter shares, so that no two can differ.

The **end** of a log is what the next transaction follows: its head, its time, its last sequence number. `extend` says
what comes next, `fold` which rows change, `walk` whether a stored history still is what was once signed.

An **anchor** is a point that was copied elsewhere (a version manifest, a journal segment). From inside, a log that lost
its newest transactions looks like a younger one; only an anchor shows it, and `holds` asks it.

Nothing here reads or writes: adapters carry the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import groupby

import msgspec

from flyball._kernel import facts, fingerprint
from flyball._kernel.clock import EPOCH
from flyball._kernel.errors import Bug, StateError
from flyball._kernel.facts import Anchor, Fact, Head, Projection, Stored
from flyball._kernel.ports import Facts, Signer

_RESTORE = "restore the newest backup whose `verify` holds; the versions and predictions after it are not proven"


class End(msgspec.Struct, frozen=True, kw_only=True):
    """What the next transaction follows."""

    head: Head
    at: datetime
    seq: int


EMPTY = End(head=facts.START, at=EPOCH, seq=0)


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """Facts that commit together, and the head after them."""

    head: Head
    at: datetime
    facts: tuple[Stored, ...]

    def end(self) -> End:
        """What the next transaction follows."""
        return End(head=self.head, at=self.at, seq=self.facts[-1].seq)


def extend(end: End, new: Sequence[Fact], now: datetime, signer: Signer) -> Transaction:
    """The transaction of `new` that follows `end`, signed.

    All its facts share one time: `now`, or the time of the transaction before where the clock went back.

    Raises:
        Bug: `empty-transaction`; `nul-in-fact`, because NUL parts the hashed bytes and SQL text cannot hold it.
    """
    if not new:
        raise Bug("empty-transaction", "A transaction without facts was appended")
    tx, at = end.head.tx + 1, max(end.at, now)
    stored = tuple(_stored(fact, end.seq + n, tx, at) for n, fact in enumerate(new, start=1))
    chain, trace = facts.link(end.head, tx, at, stored)
    signature = signer.sign(facts.signed_part(tx, chain, trace))
    return Transaction(head=Head(tx=tx, hash=chain, trace=trace, signature=signature), at=at, facts=stored)


def _stored(fact: Fact, seq: int, tx: int, at: datetime) -> Stored:
    if "\0" in fact.app + fact.model:
        raise Bug("nul-in-fact", f"A fact about {fact.app!r}, {fact.model!r} has a NUL character in a name")
    return Stored(
        seq=seq,
        tx=tx,
        at=at,
        kind=facts.kind(fact.said),
        app=fact.app,
        model=fact.model,
        said=facts.encode(fact.said),
        measured=facts.encode(fact.measured),
    )


def expected(head: Head, expect: int | None) -> None:
    """Refuse to write when the head is no longer the transaction that the caller decided upon.

    Raises:
        StateError: `moved-on`.
    """
    if expect is not None and head.tx != expect:
        raise StateError(
            "moved-on",
            f"The history is at transaction {head.tx}, not at {expect} that was decided upon",
            why="Another process recorded something in between, which may change the decision",
            next="read the state again and decide again",
        )


def trusted(head: Head, signer: Signer) -> None:
    """Refuse to build on a head that this key did not sign.

    Raises:
        StateError: `history-broken`.
    """
    if head != facts.START and not signer.verify(facts.signed_part(head.tx, head.hash, head.trace), head.signature):
        raise _broken(head.tx, "its signature is not this key's")


def definition(projection: Projection) -> str:
    """What a projection means: state folded by another definition is folded anew.

    The house's own folds count by its release, others by their source.

    Raises:
        DeclarationError: `cannot-follow`, as every fingerprint.
    """
    return fingerprint.of(projection.kinds, projection.key, projection.fold)


def fold(
    projections: Iterable[Projection], new: Iterable[Stored], row: Callable[[str, str], bytes | None]
) -> dict[tuple[str, str], bytes | None]:
    """The rows, by (projection, key), that `new` facts change; None is a deleted row.

    Args:
        projections: what to fold.
        new: facts in order.
        row: reads a row as it was before them.
    """
    changed: dict[tuple[str, str], bytes | None] = {}
    folds = tuple(projections)
    for fact in new:
        for each in folds:
            if fact.kind in each.kinds:
                at = (each.name, each.key(fact))
                changed[at] = each.fold(changed[at] if at in changed else row(*at), fact)
    return changed


def walk(heads: Iterable[tuple[Head, datetime]], stored: Iterable[Stored], signer: Signer) -> Head:
    """Walk a whole history as it is stored; return its head.

    Args:
        heads: every transaction, in order, with its time.
        stored: every fact, in order of `seq`.
        signer: the key that signed it.

    Raises:
        StateError: `history-broken`, naming the first transaction whose number, time, facts, hash or signature do not hold.
    """
    end, rest = EMPTY, iter(stored)
    fact = next(rest, None)
    for head, at in heads:
        own: list[Stored] = []
        while fact is not None and fact.tx == head.tx:
            own.append(fact)
            fact = next(rest, None)
        problem = _problem(end, head, at, own, signer)
        if problem:
            raise _broken(end.head.tx + 1, problem)
        end = Transaction(head=head, at=at, facts=tuple(own)).end()
    if fact is not None:
        raise _broken(end.head.tx + 1, f"fact {fact.seq} belongs to no transaction")
    return end.head


def _problem(end: End, head: Head, at: datetime, own: Sequence[Stored], signer: Signer) -> str:
    if head.tx != end.head.tx + 1:
        return f"the next one stored is {head.tx}"
    if not own or [fact.seq for fact in own] != list(range(end.seq + 1, end.seq + 1 + len(own))):
        return f"its facts do not follow fact {end.seq} without a gap"
    if facts.link(end.head, head.tx, at, own) != (head.hash, head.trace):
        return "its bytes do not give its hash"
    if not signer.verify(facts.signed_part(head.tx, head.hash, head.trace), head.signature):
        return "its signature is not this key's"
    return ""


def _broken(tx: int, problem: str) -> StateError:
    return StateError(
        "history-broken",
        f"The history does not hold from transaction {tx} on: {problem}",
        why="Every transaction is hashed over its stored bytes and the hash before it, and signed; something else wrote here",
        next=_RESTORE,
    )


def agrees(
    projections: Sequence[Projection],
    stored: Iterable[Stored],
    upto: Mapping[str, int],
    kept: Mapping[tuple[str, str], bytes],
) -> None:
    """Refuse state that is not what the facts say.

    Args:
        projections: what was folded.
        stored: every fact, in order.
        upto: for each projection, the last transaction that is folded into it.
        kept: all rows of these projections, by (projection, key).

    Raises:
        StateError: `state-differs`, naming a row.
    """
    rows: dict[tuple[str, str], bytes] = {}
    for fact in stored:
        for at, row in fold(
            (p for p in projections if fact.tx <= upto[p.name]), (fact,), lambda *a: rows.get(a)
        ).items():
            if row is None:
                rows.pop(at, None)
            else:
                rows[at] = row
    if rows != kept:
        name, key = min(at for at in {*rows, *kept} if rows.get(at) != kept.get(at))
        raise StateError(
            "state-differs",
            f"The row {key!r} of {name!r} is not what the facts say",
            why="State is folded from facts and written in no other way; something else wrote here",
            next="call `rebuild` on these facts, after `verify` has shown that only the state differs",
        )


def holds(log: Facts, *anchors: Anchor) -> None:
    """Refuse a history that no longer contains a point which was copied elsewhere.

    One pass over the facts, however many anchors. The anchors are believed: check the signature of what carried them.

    Raises:
        StateError: `history-truncated`, naming the oldest anchor that is missing.
    """
    missing = {(anchor.tx, anchor.trace) for anchor in anchors if anchor.tx > 0}
    last, head = max(missing, default=(0,))[0], facts.START
    for tx, group in groupby(log.read(), key=lambda fact: fact.tx):
        if tx > last:
            break
        own = tuple(group)
        chain, trace = facts.link(head, tx, own[0].at, own)
        head = Head(tx=tx, hash=chain, trace=trace, signature="")
        missing.discard((tx, trace))
    if missing:
        raise StateError(
            "history-truncated",
            f"Transaction {min(missing)[0]} was anchored elsewhere, but this history does not contain it",
            why="Its end was cut off, or was cut off and continued differently",
            next=_RESTORE,
        )
