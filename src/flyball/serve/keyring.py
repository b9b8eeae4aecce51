"""How the keys of a home change: a key is made, gets a new token, or is taken away.

    none --make--> holds --rotate--> holds, and its former token until its grace is over
                     |  expires: no more, until it is rotated
                     +--revoke--> none

Each is a pure step from the keys before to the keys after. Who did it, to which key, is a fact; no token and no hash is in it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from flyball._kernel.errors import StateError
from flyball._kernel.facts import Said
from flyball.release import rollout
from flyball.serve.auth import Former, Key
from flyball.serve.rates import Rate

NOBODYS = frozenset({rollout.LOOP, "rehearsal"})
"""Names under which flyball itself acts: a key of that name would have its deeds taken for those of the loop."""


class KeyMade(Said, frozen=True, kw_only=True, tag="serve.key_made"):
    """A key was made. `rate`: as it prints; "" for none."""

    key: str
    scopes: tuple[str, ...]
    expires: datetime | None
    rate: str
    by: str


class KeyRotated(Said, frozen=True, kw_only=True, tag="serve.key_rotated"):
    """A key has a new token; every former one holds until `former_until` at most. `rate`: None where it stayed as it was."""

    key: str
    expires: datetime | None
    former_until: datetime
    rate: str | None = None
    by: str
    reason: str


class KeyRevoked(Said, frozen=True, kw_only=True, tag="serve.key_revoked"):
    """A key was taken away, with every token of it."""

    key: str
    by: str
    reason: str


def make(keys: tuple[Key, ...], new: Key) -> tuple[Key, ...]:
    """The keys with a new one.

    Raises:
        StateError: `key-name-taken`.
    """
    if new.name in NOBODYS or any(key.name == new.name for key in keys):
        raise StateError(
            "key-name-taken",
            f"The name {new.name!r} is taken.",
            why="What is done is recorded under the name of the key, so a name is one key's.",
            next=f"Choose another; or flyball key revoke APP {new.name}, or rotate it."
            if new.name not in NOBODYS
            else "Choose another: flyball itself acts under this one.",
        )
    return (*keys, new)


def rotate(
    keys: tuple[Key, ...], name: str, sha256: str, now: datetime, grace: timedelta, expires: datetime | None = None
) -> tuple[Key, ...]:
    """The keys with another token for one of them.

    Args:
        sha256: of the new token.
        grace: for how long the former ones still hold, at most; an earlier rotation may have given them less.
        expires: the new end of the key; None leaves it.

    Raises:
        StateError: `no-such-key`; `key-expired`, where the new token would hold for no moment.
    """
    key, end = find(keys, name), now + grace
    until = key.expires if expires is None else expires
    if until is not None and until <= now:
        raise StateError(
            "key-expired",
            f"The key {name!r} has expired.",
            why=f"It held until {until}, and a new token would end with it.",
            next=f"Say until when the new one holds: flyball key rotate APP {name} --expires 90d",
        )
    # What would have ended with the key as it was still does, whatever end the key has from now on.
    last = end if key.expires is None else min(end, key.expires)
    former = (
        *(Former(sha256=f.sha256, until=min(f.until, last)) for f in key.former),
        Former(sha256=key.sha256, until=last),
    )
    made = msgspec.structs.replace(
        key, sha256=sha256, expires=until, changed=now, former=tuple(f for f in former if f.until > now)
    )
    return tuple(made if each is key else each for each in keys)


def rated(keys: tuple[Key, ...], name: str, rate: Rate) -> tuple[Key, ...]:
    """The keys with another rate for one of them.

    Raises:
        StateError: `no-such-key`.
    """
    key = find(keys, name)
    return tuple(msgspec.structs.replace(each, rate=rate) if each is key else each for each in keys)


def revoke(keys: tuple[Key, ...], name: str, now: datetime) -> tuple[Key, ...]:
    """The keys without one.

    Raises:
        StateError: `no-such-key`; `last-admin-key`.
    """
    gone = find(keys, name)
    left = tuple(key for key in keys if key is not gone)
    administer = [key for key in left if "admin" in key.scopes and (key.expires is None or key.expires > now)]
    if "admin" in gone.scopes and not administer:
        raise StateError(
            "last-admin-key",
            f"No key would be left that may make keys, were {name!r} taken away.",
            why="It is the last one with the scope 'admin' that holds.",
            next="Make another first: flyball key new APP NAME --scope admin. If it leaked, rotate it: --grace 0s.",
        )
    return left


def find(keys: tuple[Key, ...], name: str) -> Key:
    """The key of that name.

    Raises:
        StateError: `no-such-key`.
    """
    found = next((key for key in keys if key.name == name), None)
    if found is None:
        raise StateError(
            "no-such-key",
            f"There is no key {name[:64]!r}.",
            why=f"There are: {', '.join(sorted(key.name for key in keys)) or 'none'}.",
            next="flyball key list APP",
        )
    return found
