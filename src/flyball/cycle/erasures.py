"""Erasures as they are recorded: what was begun, what is over, which versions learned from rows that are gone.

A fact never holds a row value: the subject is a keyed hash of the condition (`tailnum = 'N14228'`), under a secret that is
derived from the signing key. Beginning one names all that can be found only while the rows are still there; so whoever dies
in the middle is followed by the same command, which says the same at its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec

from flyball._kernel import facts, ids
from flyball._kernel.facts import Projection, Said, Stored
from flyball.cycle.session import Session
from flyball.data.where import Where

SUBJECTS = "erased subjects"
"""The purpose under which conditions are hashed: not that of the journal, so that the two cannot be compared."""


class Erasing(Said, frozen=True, kw_only=True, tag="cycle.erasing"):
    """An erasure was begun.

    Attributes:
        subject: keyed hash of the condition.
        column, op: the condition without its literal.
        tables: table -> keyed hash of the condition as a value of that table's column.
        by, reason: who asked for it, and why.
        places: place -> what of the subject was found there; places without any are left out.
        versions: those that learned from rows of the subject.
        frames: the artifacts that hold rows, by digest.
    """

    subject: str
    column: str
    op: str
    tables: dict[str, str]
    by: str
    reason: str
    places: dict[str, int]
    versions: tuple[str, ...]
    frames: tuple[str, ...]


class Erased(Said, frozen=True, kw_only=True, tag="cycle.erased"):
    """The certificate: nothing of the subject is in these places any more. Attributes as in `Erasing`."""

    subject: str
    column: str
    op: str
    by: str
    reason: str
    places: dict[str, int]
    versions: tuple[str, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """All erasures of one subject: the last one's begin and end (None: not yet), and what they came to.

    Attributes:
        places: of the last one.
        versions, frames: of all of them.
        times: how often it was erased.
    """

    subject: str
    column: str
    op: str
    tables: dict[str, str]
    reason: str
    began: datetime
    ended: datetime | None
    places: dict[str, int]
    versions: tuple[str, ...]
    frames: tuple[str, ...]
    times: int


def _fold(row: bytes | None, fact: Stored) -> bytes:
    before = msgspec.json.decode(row, type=Row) if row is not None else None
    if fact.kind == facts.kind(Erased):
        if before is None:
            raise ValueError("an erasure ended that was never begun")
        over = facts.decode(fact, Erased)
        return facts.encode(msgspec.structs.replace(before, ended=fact.at, places=over.places, times=before.times + 1))
    said = facts.decode(fact, Erasing)
    resumed = before is not None and before.ended is None
    return facts.encode(
        Row(
            subject=said.subject,
            column=said.column,
            op=said.op,
            tables={**(before.tables if before is not None else {}), **said.tables},
            reason=said.reason,
            began=before.began if before is not None and resumed else fact.at,
            ended=None,
            places=most(before.places if before is not None and resumed else {}, said.places),
            versions=_joined(before.versions if before is not None else (), said.versions),
            frames=_joined(before.frames if before is not None else (), said.frames),
            times=before.times if before is not None else 0,
        )
    )


def _subject(fact: Stored) -> str:
    begun = fact.kind == facts.kind(Erasing)
    return facts.about(fact, facts.decode(fact, Erasing).subject if begun else facts.decode(fact, Erased).subject)


ERASURES = Projection("cycle.erasures", frozenset({facts.kind(Erasing), facts.kind(Erased)}), _subject, _fold)


def most(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    """The greater count of each place: what an interrupted erasure found first, or more that came since."""
    return {place: max(one.get(place, 0), other.get(place, 0)) for place in sorted(one.keys() | other.keys())}


def _joined(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))


def hashed(session: Session, *wheres: Where) -> str:
    """The keyed hash of a condition; of several readings of one (a column may have other types in other tables), of all."""
    return ids.keyed_hash(session.signer.secret(SUBJECTS), "\n".join(sorted({str(where) for where in wheres})))


def rows(session: Session) -> list[Row]:
    """What was erased in this app, by subject."""
    found = session.facts.scan(ERASURES.name, f"{session.app.name}//")
    return [msgspec.json.decode(row, type=Row) for _, row in found]


def of(session: Session, subject: str) -> Row | None:
    """What was erased of one subject."""
    row = session.facts.get(ERASURES.name, f"{session.app.name}//{subject}")
    return msgspec.json.decode(row, type=Row) if row is not None else None


def marked(session: Session) -> dict[str, datetime]:
    """Version -> since when it is reproducible no more, but for erased rows; it answers on until another takes its place."""
    found: dict[str, datetime] = {}
    for row in sorted(rows(session), key=lambda row: row.began):
        found |= {version: row.ended or row.began for version in row.versions if version not in found}
    return found


def times(session: Session, model: str) -> int:
    """How often rows were erased that a version of a model had learned from; grows, and is a cause of its examples."""
    return sum(row.times for row in rows(session) if any(v.rpartition("-")[0] == model for v in row.versions))


def holds_frame(session: Session, digest: str) -> bool:
    """Whether an artifact is gone because it held rows of an erased subject."""
    return any(digest in row.frames for row in rows(session))
