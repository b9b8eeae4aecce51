"""What an image runs: it lays out a home from what the image holds and what is mounted, then becomes the server.

    /srv/flyball   the image, read-only: this file, flyball-package.json, app/, home/ (signed route, artifacts, features)
    /data          a volume: the home, with its journal; what must outlive the container
    /run/flyball   in memory: the signing key, as nobody but its owner may read it
    /run/secrets/flyball   mounted: keys/signing.pem, keys/keys.json, and tls/tls.crt with tls/tls.key

Only the standard library, since nothing of a home exists yet. What is mounted belongs to root and to a group, and flyball
takes no key that a group can read: so keys are copied, at each start anew.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

IMAGE = Path(__file__).resolve().parent
PORT = 8741
_LOADS = "import sys; from flyball import runtime; runtime.load(sys.argv[1])"


class Unready(Exception):
    """What is missing, for whoever runs the container."""


def main(arguments: Sequence[str]) -> int:
    """`check`: whether the app can be loaded; `health`: whether the server is alive; anything else: options of the server."""
    said: dict[str, Any] = json.loads((IMAGE / "flyball-package.json").read_bytes())
    if list(arguments) == ["health"]:
        return health(plain=said["plain"])
    os.chdir(IMAGE / "app")
    if list(arguments) == ["check"]:
        _become(["-c", _LOADS, said["entry"]], os.environ)
    try:
        home, environment = prepare(os.environ)
        _become(["-m", "flyball", "serve", *serving(said, home, os.environ), *arguments], environment)
    except (Unready, OSError) as problem:
        sys.stderr.write(f"This container cannot start. {problem}\n")
    return 2


def _become(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    # The same process, so that the server gets the signals; -P: the folder that it begins in is not searched for libraries.
    os.execve(sys.executable, [sys.executable, "-P", *arguments], environment)  # noqa: S606 - no shell, and ourselves


def prepare(environment: Mapping[str, str]) -> tuple[Path, dict[str, str]]:
    """Lay out the home; returns it, and the environment of the server.

    Raises:
        Unready: a key is not mounted, or the volume holds a home with a history of its own.
        OSError: the volume cannot be written.
    """
    os.umask(0o077)
    secrets = _place(environment, "FLYBALL_SECRETS", "/run/secrets/flyball") / "keys"
    home = _place(environment, "FLYBALL_DATA", "/data") / "home"
    kept = _place(environment, "FLYBALL_RUN", "/run/flyball") / "key"
    if (home / "facts.sqlite").exists():
        raise Unready(f"{home} is a home with a history. Give this container a volume of its own.")
    for folder in (home, kept):
        folder.mkdir(mode=0o700, exist_ok=True)
        # A volume's group is given what lies on it whenever it is mounted.
        folder.chmod(0o700)
    _copy(secrets / "signing.pem", kept / "signing.pem")
    _copy(secrets / "keys.json", home / "keys.json")
    _copy(IMAGE / "home" / "route.json", home / "route.json")
    _link(IMAGE / "home" / "artifacts", home / "artifacts")
    for old in ("online.sqlite", "online.sqlite-wal", "online.sqlite-shm"):
        (home / old).unlink(missing_ok=True)
    if (IMAGE / "home" / "online.sqlite").is_file():
        _copy(IMAGE / "home" / "online.sqlite", home / "online.sqlite")
    return home, {**environment, "FLYBALL_KEY": str(kept / "signing.pem")}


def serving(said: Mapping[str, Any], home: Path, environment: Mapping[str, str]) -> list[str]:
    """The arguments of `flyball serve`."""
    names = [part for name in said["names"] for part in ("--host-name", name)]
    options = [said["entry"], "--home", str(home), "--host", environment.get("FLYBALL_HOST", "0.0.0.0")]  # noqa: S104
    options += ["--port", environment.get("FLYBALL_PORT", str(PORT)), *names]
    if said["plain"]:
        return [*options, "--plain"]
    tls = _place(environment, "FLYBALL_SECRETS", "/run/secrets/flyball") / "tls"
    return [*options, "--tls-cert", str(tls / "tls.crt"), "--tls-key", str(tls / "tls.key")]


def health(*, plain: bool) -> int:
    """0 where the server of this container says that it lives."""
    port = int(os.environ.get("FLYBALL_PORT", PORT))
    asks: http.client.HTTPConnection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    if not plain:
        # Whether it lives, on its own loopback: whose certificate it shows is no question here.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        asks = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    try:
        asks.request("GET", "/healthz", headers={"Host": "localhost"})
        return 0 if asks.getresponse().status == 200 else 1
    except (OSError, http.client.HTTPException):
        return 1
    finally:
        asks.close()


def _place(environment: Mapping[str, str], name: str, usual: str) -> Path:
    return Path(environment.get(name, usual))


def _copy(source: Path, target: Path) -> None:
    """As a whole or not at all, and for its owner alone."""
    try:
        with source.open("rb") as read:
            handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
            try:
                with os.fdopen(handle, "wb") as written:
                    shutil.copyfileobj(read, written)
                os.replace(aside, target)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside)
    except FileNotFoundError:
        raise Unready(f"{source} is not there: mount the Secret that README.md makes.") from None


def _link(target: Path, link: Path) -> None:
    if link.is_symlink():
        link.unlink()
    if link.exists():
        raise Unready(f"{link} is no link: the volume holds another home. Give this container a volume of its own.")
    link.symlink_to(target, target_is_directory=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
