"""Who can reach a server, and what that asks of it. A table of its own, so that every row of it can be tested.

On loopback only this machine can ask: asking and reading need no key, and nothing is encrypted. **Exposed** is a server that
listens elsewhere, or on loopback under another machine's name (a proxy hands on to it): then nothing is free, keys must be
meant, and what leaves the machine is encrypted, here or by the proxy that `plain` vouches for. It answers to the names that it
was given and to no others, so that no page elsewhere speaks to it under a name of its own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flyball._kernel.errors import DeclarationError
from flyball.adapters.embedded import tokens
from flyball.serve import auth
from flyball.serve.auth import Key, Scope

LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""What a caller on this machine calls it."""

_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Asked:
    """How a server shall be reached.

    Attributes:
        host: the address that it listens on.
        names: of the Host header that it answers to, without port, beside those of loopback.
        keys_needed: nothing is free, and the keys that there are are enough.
        tls: whether it encrypts.
        plain: whether somebody vouches that a proxy does.
    """

    host: str = "127.0.0.1"
    names: tuple[str, ...] = ()
    keys_needed: bool = False
    tls: bool = False
    plain: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """What a server is then: which scopes need no key, and which names it answers to (`guard.Limits.hosts`)."""

    free: frozenset[Scope]
    hosts: frozenset[str]


def settle(asked: Asked, keys: Collection[Key], now: datetime) -> Settled:
    """What the server is, if it may be that.

    Args:
        keys: those of the home. The owner's, which every home has, does not show that somebody thought of keys.

    Raises:
        DeclarationError: `tls-and-plain`, `host-name-unusable`, `bind-without-keys`, `bind-without-tls`,
            `bind-without-host-name`.
    """
    names = frozenset(_name(each) for each in asked.names)
    away = not on_loopback(asked.host)
    if asked.tls and asked.plain:
        raise DeclarationError(
            "tls-and-plain",
            "The server shall encrypt, and a proxy shall do it.",
            next="Leave out --plain, or --tls-cert and --tls-key.",
        )
    if not away and names <= LOCAL_NAMES:
        return Settled(frozenset() if asked.keys_needed else auth.ON_LOOPBACK, LOCAL_NAMES)
    others = (key for key in keys if key.name != tokens.LOCAL)
    if not asked.keys_needed and not any(key.expires is None or now < key.expires for key in others):
        raise _without_keys(asked)
    if away and not (asked.tls or asked.plain):
        raise DeclarationError(
            "bind-without-tls",
            f"The server would listen on {asked.host}, and what is said there could be read on the way.",
            why="Questions, answers and tokens would cross the network as they are.",
            next="--tls-cert FILE --tls-key FILE; or --plain, where a proxy in front of it does the encryption.",
        )
    own = frozenset() if _anywhere(asked.host) or not away else frozenset({_name(asked.host)})
    if not names | own:
        raise DeclarationError(
            "bind-without-host-name",
            f"The server would listen on {asked.host}, and nobody says under which name it is asked.",
            why="A server that answers to any name answers to a page elsewhere that had its own name lead here.",
            next="--host-name predictions.example.org, once for every name.",
        )
    return Settled(frozenset(), names | own | LOCAL_NAMES)


def on_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; what is spelt in an unusual way is taken for one that others reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _anywhere(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _name(text: str) -> str:
    """A name as the Host header has it."""
    bare = text[1:-1] if text[:1] == "[" and text[-1:] == "]" else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        address = None
    if isinstance(address, ipaddress.IPv6Address):
        return f"[{address}]"
    found = text.lower()
    if address is None and _NAME.fullmatch(found) is None:
        raise DeclarationError(
            "host-name-unusable",
            f"{text[:80]!r} is no name of a machine.",
            why="It is compared with the Host header as a whole: no port, no scheme, no wildcard.",
            next="--host-name predictions.example.org, once for every name.",
        )
    return found


def _without_keys(asked: Asked) -> DeclarationError:
    where = f"on {asked.host}" if not on_loopback(asked.host) else f"under {', '.join(asked.names)}"[:300]
    return DeclarationError(
        "bind-without-keys",
        f"The server would answer {where}, where others can reach it, and nobody but its owner has a key.",
        why="Whoever reaches it needs a key: to ask, and to read what was asked.",
        next="flyball key new APP NAME --scope predict, for whoever shall ask; or --keys, where the keys that are there do.",
    )
