"""Who may do what: named keys, each with the scopes that it was given.

A caller sends `Authorization: Bearer TOKEN`. Only the SHA-256 of a token is kept, which suffices because tokens are 32 random
bytes, not passwords. A **scope** is one right; no scope includes another. What is **free** needs no key: on loopback, asking
and reading. A key that is sent must hold all the same, so that a mistake shows. Errors name keys and never show tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, Literal, get_args

import msgspec

from flyball._kernel.clock import Clock
from flyball._kernel.errors import StateError
from flyball.serve.guard import Refused

Scope = Literal["predict", "label", "ingest", "read", "operate", "admin"]

SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))
ON_LOOPBACK: Final[frozenset[Scope]] = frozenset({"predict", "read"})
"""Needs no key where only this machine can ask."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key.

    Attributes:
        name: is recorded with what the key does.
        sha256: of its token, in hexadecimal.
        scopes: what it may do.
        expires: the first moment at which it no longer may, aware; None is never.

    Raises:
        ValueError: a name that is none, no SHA-256, a time without a zone.
    """

    name: str
    sha256: str
    scopes: frozenset[Scope]
    expires: datetime | None = None

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError("a name has up to 64 letters, digits, dots, dashes, underscores or @")
        if _HASH.fullmatch(self.sha256) is None:
            raise ValueError("sha256 is 64 hexadecimal digits in lower case")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ValueError("expires has a zone, such as 2027-01-01T00:00:00Z")


def new_token() -> str:
    """A token that nobody guesses: 32 random bytes, behind a prefix by which leaked ones are found."""
    return f"flyball_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """The check.

    Args:
        known: the keys of this moment; asked anew at every check, so that a key which is taken away ends at once.
        clock: decides when a key has expired.
        free: scopes that need no key.
    """

    def __init__(self, known: Callable[[], Iterable[Key]], clock: Clock, free: frozenset[Scope] = ON_LOOPBACK) -> None:
        self._known, self._clock, self._free = known, clock, free

    def who(self, headers: Mapping[bytes, bytes], scope: Scope) -> str:
        """The name of the key that a request came with; "" where none is needed and none was sent.

        Args:
            headers: by lower-case name.

        Raises:
            Refused: 401 `key-needed`, `key-unknown`, `key-expired`; 403 `scope-missing`; with WWW-Authenticate (RFC 6750).
            StateError, AdapterError: the keys cannot be read; see `known`.
        """
        sent = headers.get(b"authorization")
        if sent is None and scope in self._free:
            return ""
        kind, _, token = (sent or b"").partition(b" ")
        offered = token.strip().decode("utf-8", "surrogateescape") if kind.lower() == b"bearer" else ""
        try:
            return self._named(offered, scope)
        except _Denied as denied:
            challenge = f'Bearer realm="flyball"{denied.challenge}'.encode()
            raise Refused(denied.status, denied.error, ((b"www-authenticate", challenge),)) from None

    def name_of(self, token: str, scope: Scope) -> str:
        """The name of the key that `token` is, if it has `scope`: for verbs of the command line, where nothing is free.

        Raises:
            StateError: `key-needed`, `key-unknown`, `key-expired`, `scope-missing`; or the keys cannot be read.
        """
        try:
            return self._named(token, scope)
        except _Denied as denied:
            raise denied.error from None

    def _named(self, token: str, scope: Scope) -> str:
        if not token:
            raise _Denied(401, "", _needed(scope))
        offered, found = digest(token), None
        for key in self._known():  # all of them: how long it takes says nothing about which one was near
            if hmac.compare_digest(key.sha256, offered):
                found = key
        if found is None:
            raise _Denied(401, ', error="invalid_token"', _unknown())
        if found.expires is not None and self._clock.now() >= found.expires:
            raise _Denied(401, ', error="invalid_token"', _expired(found))
        if scope not in found.scopes:
            raise _Denied(403, f', error="insufficient_scope", scope="{scope}"', _missing(found, scope))
        return found.name


class _Denied(Exception):
    def __init__(self, status: int, challenge: str, error: StateError) -> None:
        self.status, self.challenge, self.error = status, challenge, error
        super().__init__(error.code)


def _needed(scope: Scope) -> StateError:
    return StateError(
        "key-needed",
        f"This needs a key with the scope {scope!r}.",
        why="What changes state is recorded under the name of who did it.",
        next="Send Authorization: Bearer TOKEN; the token of this machine's owner lies in `token` in the home.",
    )


def _unknown() -> StateError:
    return StateError(
        "key-unknown",
        "No key has this token.",
        why="It was mistyped, taken away, or is another home's.",
        next="Compare its SHA-256 with those in `keys.json` in the home.",
    )


def _expired(key: Key) -> StateError:
    return StateError(
        "key-expired",
        f"The key {key.name!r} has expired.",
        why=f"It held until {key.expires}.",
        next="Ask for a new one, or change `expires` in `keys.json`.",
    )


def _missing(key: Key, scope: Scope) -> StateError:
    return StateError(
        "scope-missing",
        f"The key {key.name!r} lacks the scope {scope!r}.",
        why=f"It has: {', '.join(sorted(key.scopes)) or 'none'}.",
        next="Use a key that has it, or add it in `keys.json`.",
    )
