"""The keys of a home: `keys.json` holds names, hashes and scopes; `token` holds the owner's own token, for the command line.

When a home is first opened, its owner gets a key named "local" with every scope. Both files are 0600, appear whole or not at
all, and agree whichever of several processes was first. A file that others can read or change protects nothing and is refused.
A change to `keys.json` counts from the next request on. `flyball key` writes it; what a person writes there counts as well.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError, StateError
from flyball.adapters.embedded import disk
from flyball.serve import auth
from flyball.serve.auth import Key, Keys

LOCAL: Final = "local"
"""The name of the key that a home is made with."""
_KEYS, _TOKEN = "keys.json", "token"
_LARGEST: Final = 1024 * 1024


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    keys: tuple[Key, ...]


class _Watched:
    """The keys in a file, read again whenever the file was changed."""

    def __init__(self, path: Path) -> None:
        self._path, self._name = path, str(path)
        self._seen: tuple[int, ...] = ()
        self._keys: tuple[Key, ...] = ()

    def __call__(self) -> tuple[Key, ...]:
        """The keys of this moment.

        Raises:
            StateError: `keys-readable-by-others`, `keys-unusable`.
            AdapterError: `keys-unreadable`.
        """
        try:
            stat = os.stat(self._name)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        seen = (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_size)
        if seen != self._seen:
            self._keys = _parsed(self._path)
            self._seen = seen
        return self._keys


def open_keys(home: Path, clock: Clock) -> Keys:
    """The keys of a home; a home that has none gets the key "local" and its token.

    Args:
        home: an existing folder.

    Raises:
        StateError: `keys-readable-by-others`, `keys-unusable`.
        AdapterError: `keys-unreadable`.
    """
    path = home / _KEYS
    try:
        if not path.exists():
            # The token first, and the keys from the token that lies there: whoever was first, both files agree.
            _place(home / _TOKEN, f"{auth.new_token()}\n".encode())
            sha256 = auth.digest(local_token(home))
            _place(path, _said((Key(name=LOCAL, sha256=sha256, scopes=auth.SCOPES, changed=clock.now()),)))
    except OSError as error:
        raise _unreadable(path, error) from error
    watched = _Watched(path)
    watched()
    return Keys(watched, clock)


def local_token(home: Path) -> str:
    """The token of the home's owner.

    Raises:
        StateError: `keys-readable-by-others`, `token-missing`.
        AdapterError: `keys-unreadable`.
    """
    path = home / _TOKEN
    if not path.exists():
        raise StateError(
            "token-missing",
            f"There is no token in {path}.",
            why="The command line acts with the token of the home's owner.",
            next="Set FLYBALL_TOKEN to a token that you have; or remove keys.json as well, and both are made anew.",
        )
    return _read(path).decode("ascii", "replace").strip()


def store(home: Path, keys: tuple[Key, ...]) -> None:
    """Replace the keys of a home as a whole; they count from the next request on.

    The caller sees to it that nobody else does so meanwhile.

    Raises:
        AdapterError: `keys-unreadable`.
    """
    _place(home / _KEYS, _said(keys), over=True)


def place_token(home: Path, token: str) -> None:
    """Replace the token of the home's owner.

    Raises:
        AdapterError: `keys-unreadable`.
    """
    _place(home / _TOKEN, f"{token}\n".encode(), over=True)


def known(home: Path) -> tuple[Key, ...]:
    """The keys of a home; none where it was never opened.

    Raises:
        StateError: `keys-readable-by-others`, `keys-unusable`.
        AdapterError: `keys-unreadable`.
    """
    path = home / _KEYS
    return _parsed(path) if path.exists() else ()


def _said(keys: tuple[Key, ...]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(_File(keys=keys), order="deterministic")) + b"\n"


def _place(path: Path, content: bytes, *, over: bool = False) -> None:
    """Put `content` into `path` as a whole; what is there already stays, unless it is to be replaced (`over`)."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(handle)
            if over:
                os.replace(temporary, path)
            else:
                # A link, unlike a rename, fails where another process was first.
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        disk.sync(path.parent)
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # Of the file that is open, not of the name, which may be another's by now.
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise _exposed(path, f"chmod 600 {path}")
            if path.resolve().parent.stat().st_mode & 0o022:
                raise _exposed(path, f"chmod go-w {path.resolve().parent}")
            return file.read(_LARGEST)
    except OSError as error:
        raise _unreadable(path, error) from error


def _parsed(path: Path) -> tuple[Key, ...]:
    try:
        found = msgspec.json.decode(_read(path), type=_File).keys
    except (msgspec.DecodeError, UnicodeDecodeError) as problem:
        raise _unusable(path, str(problem)) from None
    names = Counter(key.name for key in found)
    tokens = Counter(sha256 for key in found for sha256 in (key.sha256, *(former.sha256 for former in key.former)))
    for what, counts in (("name", names), ("sha256", tokens)):
        if twice := {value for value, n in counts.items() if n > 1}:
            named = sorted(
                {k.name for k in found if twice & {k.name, k.sha256, *(former.sha256 for former in k.former)}}
            )
            raise _unusable(path, f"Two keys have the same {what}: {', '.join(named)}")
    return found


def _exposed(path: Path, command: str) -> StateError:
    return StateError(
        "keys-readable-by-others",
        f"Others can read or change {path}.",
        why="Whoever has a token acts in its owner's name, and whoever changes the keys lets in whom they like.",
        next=f"Run `{command}`. If others did have access, remove keys.json and token: new ones are made.",
    )


def _unusable(path: Path, why: str) -> StateError:
    return StateError(
        "keys-unusable",
        f"{path} does not say which keys there are.",
        why=why,
        next='It holds {"keys": [{"name": ..., "sha256": ..., "scopes": [...], "expires": null}]}; see flyball key.',
    )


def _unreadable(path: Path, error: OSError) -> AdapterError:
    return AdapterError(
        "keys-unreadable",
        f"{path} can be neither read nor created.",
        why=str(error),
        next="Check that you own the home, and that its disk has room.",
    )
