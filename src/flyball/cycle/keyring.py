"""Keys that a person makes, rotates and takes away: each is a fact first, and then a change of the keys.

So no key exists of which nobody knows who made it. Whoever dies between the two leaves a fact of what did not happen, which
`flyball key list` shows, and does it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from flyball._kernel.facts import Fact, Said
from flyball.cycle.session import Session, held
from flyball.serve import auth, keyring
from flyball.serve.auth import Key, Scope
from flyball.serve.keyring import KeyMade, KeyRevoked, KeyRotated
from flyball.serve.rates import Rate

LEASE = "keys"

MENDS = timedelta(hours=1)
"""For how long the former token of the home's owner holds until the new one has replaced it in its file: whoever dies in
between can still do it again."""

Store = Callable[[tuple[Key, ...]], None]
"""Keeps all keys, from the next request on; `tokens.store` of a home."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A key with its token, which is told once and kept nowhere."""

    key: Key
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key that is to be made; see `Key`."""

    name: str
    scopes: frozenset[Scope]
    expires: datetime | None = None
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """Which key gets another token; see `keyring.rotate`.

    Attributes:
        place: where the token is put, instead of being told: the owner's own lies in a file.
        rate: how often it may ask from now on; None leaves it.
    """

    name: str
    grace: timedelta
    expires: datetime | None = None
    reason: str = ""
    place: Callable[[str], None] | None = None
    rate: Rate | None = None


def make(session: Session, store: Store, wanted: Wanted, *, by: str) -> Issued:
    """Make a key.

    Raises:
        StateError: `key-name-taken`, or the keys cannot be read.
        RetryableError: `somebody-else-is-at-it`.
        ValueError: a name that is none.
    """
    token, now = auth.new_token(), session.clock.now()
    key = Key(
        name=wanted.name,
        sha256=auth.digest(token),
        scopes=wanted.scopes,
        expires=wanted.expires,
        rate=wanted.rate,
        changed=now,
    )
    with held(session, LEASE):
        after = keyring.make(session.keys.all(), key)
        rate = str(key.rate) if key.rate is not None else ""
        said = KeyMade(key=key.name, scopes=tuple(sorted(key.scopes)), expires=key.expires, rate=rate, by=by)
        _record(session, said)
        store(after)
    return Issued(key, token)


def rotate(session: Session, store: Store, wanted: Rotation, *, by: str) -> Issued:
    """Give a key another token; former ones hold until the grace is over.

    Raises:
        StateError: `no-such-key`, `key-expired`, or the keys cannot be read.
        RetryableError: `somebody-else-is-at-it`.
    """
    token, now = auth.new_token(), session.clock.now()
    sha256, name = auth.digest(token), wanted.name
    with held(session, LEASE):
        before = session.keys.all()
        if wanted.rate is not None:
            before = keyring.rated(before, name, wanted.rate)
        after = keyring.rotate(before, name, sha256, now, wanted.grace, wanted.expires)
        key = keyring.find(after, name)
        said = KeyRotated(
            key=name,
            expires=key.expires,
            former_until=now + wanted.grace,
            rate=str(wanted.rate) if wanted.rate is not None else None,
            by=by,
            reason=wanted.reason,
        )
        _record(session, said)
        if wanted.place is not None:
            store(keyring.rotate(before, name, sha256, now, max(wanted.grace, MENDS), wanted.expires))
            wanted.place(token)
        store(after)
    return Issued(key, token)


def revoke(session: Session, store: Store, name: str, *, by: str, reason: str) -> Key:
    """Take a key away, with every token of it.

    Raises:
        StateError: `no-such-key`, `last-admin-key`, or the keys cannot be read.
        RetryableError: `somebody-else-is-at-it`.
    """
    with held(session, LEASE):
        before = session.keys.all()
        after = keyring.revoke(before, name, session.clock.now())
        _record(session, KeyRevoked(key=name, by=by, reason=reason))
        store(after)
    return keyring.find(before, name)


def _record(session: Session, said: Said) -> None:
    session.facts.append([Fact(session.app.name, "", said)])
