"""Who may do what: named keys, each with the scopes that it was given, and how often it may ask.

A caller sends `Authorization: Bearer TOKEN`. Only the SHA-256 of a token is kept, which suffices because tokens are 32 random
bytes, not passwords. A **scope** is one right; no scope includes another. What is **free** needs no key: on loopback, asking
and reading. A key that is sent must hold all the same, so that a mistake shows. Errors name keys and never show tokens.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Literal, get_args

import msgspec

from flyball._kernel.clock import Clock
from flyball._kernel.errors import StateError
from flyball.serve import rates
from flyball.serve.guard import Refused
from flyball.serve.rates import Bucket, Rate

Scope = Literal["predict", "label", "ingest", "read", "operate", "admin"]

SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))
ON_LOOPBACK: Final[frozenset[Scope]] = frozenset({"predict", "read"})
"""Needs no key where only this machine can ask."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_LONGEST: Final = 256
"""Characters of a token that is looked at; ours have 51."""

UNKNOWN: Final = Rate(per_second=20 / 60, burst=20)
"""How many tokens that are no key's one process answers as such; more of them are put off, and a key that holds never is."""


class Former(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token that a newer one took the place of, and that holds until a moment, so that its holders can follow.

    Raises:
        ValueError: no SHA-256, a time without a zone.
    """

    sha256: str
    until: datetime

    def __post_init__(self) -> None:
        _checked(self.sha256, self.until)


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One key.

    Attributes:
        name: is recorded with what the key does.
        sha256: of its token, in hexadecimal.
        scopes: what it may do.
        expires: the first moment at which it no longer may, aware; None is never.
        rate: how often it may ask, in each server process; None is as often as it likes.
        changed: when its token was made, for whoever changes them every so often; None where nobody wrote it down.
        former: tokens before this one which still hold.

    Raises:
        ValueError: a name that is none, no SHA-256, a time without a zone.
    """

    name: str
    sha256: str
    scopes: frozenset[Scope]
    expires: datetime | None = None
    rate: Rate | None = None
    changed: datetime | None = None
    former: tuple[Former, ...] = ()

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError("a name has up to 64 letters, digits, dots, dashes, underscores or @")
        _checked(self.sha256, self.expires, self.changed)


def _checked(sha256: str, *times: datetime | None) -> None:
    if _HASH.fullmatch(sha256) is None:
        raise ValueError("sha256 is 64 hexadecimal digits in lower case")
    if any(time is not None and time.tzinfo is None for time in times):
        raise ValueError("a time has a zone, such as 2027-01-01T00:00:00Z")


def new_token() -> str:
    """A token that nobody guesses: 32 random bytes, behind a prefix by which leaked ones are found."""
    return f"flyball_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """The check.

    A token is looked up by its SHA-256 in a dictionary, which takes longer where more of it agrees with a known one; that tells
    nobody anything. What is compared is a hash of what was sent: whoever learned how far it agrees would have to find a token
    with a hash like that, and even the whole hash is no token. So nothing needs to be compared in constant time.

    Args:
        known: the keys of this moment, the same tuple as long as they are the same; asked anew at every check, so that a key
            which is taken away ends at once.
        clock: decides when a key has expired, and how often is too often.
        free: scopes that need no key.
    """

    def __init__(
        self, known: Callable[[], tuple[Key, ...]], clock: Clock, free: frozenset[Scope] = ON_LOOPBACK
    ) -> None:
        self._known, self._clock, self._free = known, clock, free
        self._of: tuple[Key, ...] = ()
        self._found: dict[bytes, tuple[Key, datetime | None]] = {}
        self._buckets: dict[str, Bucket] = {}
        self._unknown = Bucket(UNKNOWN, clock.monotonic())

    def freeing(self, free: frozenset[Scope]) -> Keys:
        """The same keys, where these scopes need none."""
        return Keys(self._known, self._clock, free)

    def all(self) -> tuple[Key, ...]:
        """The keys of this moment.

        Raises:
            StateError, AdapterError: as `known`.
        """
        return self._known()

    def who(self, headers: Mapping[bytes, bytes], scope: Scope) -> str:
        """The name of the key that a request came with; "" where none is needed and none was sent. Counts it as one request.

        Args:
            headers: by lower-case name.

        Raises:
            Refused: 401 `key-needed`, `key-unknown`, `key-expired`; 403 `scope-missing`; with WWW-Authenticate (RFC 6750).
                429 `too-many-requests`, `too-many-unknown-keys`; with Retry-After.
            StateError, AdapterError: the keys cannot be read; see `known`.
        """
        sent = headers.get(b"authorization")
        if sent is None and scope in self._free:
            return ""
        kind, _, token = (sent or b"").partition(b" ")
        offered = token.strip() if kind.lower() == b"bearer" else b""
        try:
            found = self._named(offered, scope)
            self._slow_down(found)
            return self._allowed(found, scope)
        except _Denied as denied:
            if denied.error.code == "key-unknown" and (wait := self._unknown.take(self._clock.monotonic())):
                raise _later(rates.too_many_unknown(), wait) from None
            challenge = f'Bearer realm="flyball"{denied.challenge}'.encode()
            raise Refused(denied.status, denied.error, ((b"www-authenticate", challenge),)) from None

    def name_of(self, token: str, scope: Scope) -> str:
        """The name of the key that `token` is, if it has `scope`: for verbs of the command line, where nothing is free.

        Raises:
            StateError: `key-needed`, `key-unknown`, `key-expired`, `scope-missing`; or the keys cannot be read.
        """
        try:
            return self._allowed(self._named(token.encode("utf-8", "surrogateescape"), scope), scope)
        except _Denied as denied:
            raise denied.error from None

    def _named(self, token: bytes, scope: Scope) -> Key:
        if not token:
            raise _Denied(401, "", _needed(scope))
        if (known := self._known()) is not self._of:
            self._learn(known)
        found = self._found.get(hashlib.sha256(token).digest()) if len(token) <= _LONGEST else None
        if found is None:
            raise _Denied(401, ', error="invalid_token"', _unknown())
        key, until = found
        if until is not None and self._clock.now() >= until:
            raise _Denied(401, ', error="invalid_token"', _expired(key, until))
        return key

    def _allowed(self, key: Key, scope: Scope) -> str:
        if scope not in key.scopes:
            raise _Denied(403, f', error="insufficient_scope", scope="{scope}"', _missing(key, scope))
        return key.name

    def _slow_down(self, key: Key) -> None:
        bucket = self._buckets.get(key.name) if key.rate is not None else None
        if bucket is not None and (wait := bucket.take(self._clock.monotonic())):
            raise _later(rates.too_many(key.name, bucket.rate), wait)

    def _learn(self, known: tuple[Key, ...]) -> None:
        now, before = self._clock.monotonic(), self._buckets
        found: dict[bytes, tuple[Key, datetime | None]] = {}
        for key in known:
            for former in key.former:  # which never outlives its key
                until = min(former.until, key.expires) if key.expires is not None else former.until
                found[bytes.fromhex(former.sha256)] = key, until
            found[bytes.fromhex(key.sha256)] = key, key.expires
        # Under the name of the key, so that neither a new token nor a change of other keys gives anybody a full bucket.
        self._buckets = {
            key.name: kept if (kept := before.get(key.name)) and kept.rate == key.rate else Bucket(key.rate, now)
            for key in known
            if key.rate is not None
        }
        self._of, self._found = known, found


def _later(error: StateError, seconds: float) -> Refused:
    return Refused(429, error, ((b"retry-after", str(math.ceil(seconds)).encode()),))


class _Denied(Exception):
    def __init__(self, status: int, challenge: str, error: StateError) -> None:
        self.status, self.challenge, self.error = status, challenge, error
        super().__init__(error.code)


def _needed(scope: Scope) -> StateError:
    asks = scope in ON_LOOPBACK
    return StateError(
        "key-needed",
        f"This needs a key with the scope {scope!r}.",
        why="Others than this machine reach the server, so that nothing of it is free."
        if asks
        else "To say who answers, or to change anything, is done under somebody's name; only asking and reading may need none.",
        next="Send Authorization: Bearer TOKEN; flyball key new makes one. That of the home's owner lies in `token` in it.",
    )


def _unknown() -> StateError:
    return StateError(
        "key-unknown",
        "No key has this token.",
        why="It was mistyped, taken away, or is another home's.",
        next="flyball key list APP shows which keys there are; flyball key rotate APP NAME makes a new token.",
    )


def _expired(key: Key, until: datetime) -> StateError:
    return StateError(
        "key-expired",
        f"This token of the key {key.name!r} has expired.",
        why=f"It held until {until}.",
        next=f"Ask for a new one: flyball key rotate APP {key.name} --expires 90d",
    )


def _missing(key: Key, scope: Scope) -> StateError:
    return StateError(
        "scope-missing",
        f"The key {key.name!r} lacks the scope {scope!r}.",
        why=f"It has: {', '.join(sorted(key.scopes)) or 'none'}.",
        next="Use a key that has it, or have one made: flyball key new APP NAME --scope ...",
    )
