"""Shadows that a person asked for: versions that compute beside the champion, and are not on the way to be champion.

They change nothing about who answers, so they have no epoch and no stage: a shadow is there from the fact that set it to the
fact that took it away, and what it computed is in the journal under its version. One that is champion or candidate at present
is not computed twice; it is a shadow again when it no longer is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from flyball._kernel import facts
from flyball._kernel.errors import DeclarationError, StateError
from flyball._kernel.facts import Projection, Said, Stored
from flyball._kernel.ports import Facts

MOST: Final = 4
"""Shadows of one model: each computes its share of the questions on the thread that answers."""


class Shadowed(Said, frozen=True, kw_only=True, tag="release.shadowed"):
    """From now on `version` computes the questions of this share of the entities beside whoever answers."""

    version: str
    share: float
    reason: str
    by: str


class Unshadowed(Said, frozen=True, kw_only=True, tag="release.unshadowed"):
    """`version` computes beside nobody any more."""

    version: str
    reason: str
    by: str


class Watching(msgspec.Struct, frozen=True, kw_only=True):
    """One shadow: its share of the entities, since when, who wanted it, and why."""

    version: str
    share: float
    since: datetime
    by: str
    reason: str


_TYPES: dict[str, type[Said]] = {facts.kind(each): each for each in (Shadowed, Unshadowed)}
_rows = msgspec.json.Decoder(tuple[Watching, ...])


def fold(row: bytes | None, fact: Stored) -> bytes:
    """The shadows after one more fact, in the order in which they were set."""
    said = facts.decode(fact, _TYPES[fact.kind])
    before = _rows.decode(row) if row is not None else ()
    if isinstance(said, Shadowed):
        new = Watching(version=said.version, share=said.share, since=fact.at, by=said.by, reason=said.reason)
        return msgspec.json.encode((*(each for each in before if each.version != said.version), new))
    return msgspec.json.encode([each for each in before if each.version != getattr(said, "version", "")])


SHADOWS = Projection("release.shadows", frozenset(_TYPES), facts.about, fold)


def now(log: Facts, app: str, model: str) -> tuple[Watching, ...]:
    """Who is set to compute beside, as it is recorded."""
    row = log.get(SHADOWS.name, f"{app}/{model}")
    return _rows.decode(row) if row is not None else ()


def begin(state: Sequence[Watching], version: str, share: float, *, by: str, reason: str) -> list[Said]:
    """Set a shadow, or give it another share; nothing where it has that share already.

    Raises:
        DeclarationError: `shadow-share`.
        StateError: `too-many-shadows`.
    """
    if not 0.0 < share <= 1.0:
        raise DeclarationError(
            "shadow-share",
            f"A shadow of {share:g} is no share of the entities.",
            why="A share lies above 0 and up to 1.",
            next="flyball shadow APP VERSION --share 0.1",
        )
    others = [each for each in state if each.version != version]
    if len(others) >= MOST:
        raise StateError(
            "too-many-shadows",
            f"{', '.join(each.version for each in others)} compute beside the champion already.",
            why=f"Each takes its share of the thread that answers; {MOST} are the most.",
            next=f"flyball shadow APP {others[0].version} --stop",
        )
    if any(each.version == version and each.share == share for each in state):
        return []
    return [Shadowed(version=version, share=share, reason=reason, by=by)]


def end(state: Sequence[Watching], version: str, *, by: str, reason: str) -> list[Said]:
    """Take a shadow away; nothing where there is none."""
    return [Unshadowed(version=version, reason=reason, by=by)] if any(e.version == version for e in state) else []


def told(said: Said) -> str:
    """A fact of a shadow, in words."""
    match said:
        case Shadowed():
            share = f" for {said.share:.0%} of the entities" if said.share < 1 else ""
            return f"{said.version} computes beside the champion{share}: {said.reason} ({said.by})"
        case Unshadowed():
            return f"{said.version} computes beside nobody any more: {said.reason} ({said.by})"
    return facts.kind(said)
