"""A real PostgreSQL that a test starts: a cluster in a folder of its own, on a socket in that folder, and gone afterwards."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

MISSING = (
    "NO POSTGRESQL HERE: `initdb` and `postgres` were not found, so nothing of fb.sql was tried on a real PostgreSQL"
)


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`; they stand together, and often not on the PATH."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((each for each in found if (each / "initdb").exists() and (each / "postgres").exists()), None)


def server_binaries(found: Path | None) -> Path:
    """The same, or a skip that says loudly what was not tested."""
    if found is None:
        pytest.skip(MISSING)
    return found


@contextmanager
def started() -> Iterator[str]:
    """The URL of a server, whose user `shop` has a password; it refuses to run as root, so another user runs it there."""
    found = server_binaries(binaries())
    user = None
    if os.geteuid() == 0:
        user = next((name for name in ("postgres", "nobody") if _known(name)), None)
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        secret = folder / "secret"
        secret.write_text("open sesame")
        secret.chmod(0o644)
        data = folder / "data"
        command = [
            found / "initdb",
            "-D",
            data,
            "-U",
            "shop",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "-E",
            "UTF8",
        ]
        subprocess.run([*command, "--no-sync"], check=True, user=user, capture_output=True, cwd=folder)
        yield from _running(found, folder, user)
    finally:
        shutil.rmtree(folder)


def _running(found: Path, folder: Path, user: str | None) -> Iterator[str]:
    options = ["-c", "listen_addresses=", "-k", folder, "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [found / "postgres", "-D", folder / "data", *options], user=user, stdout=log, stderr=log, cwd=folder
        )
        try:
            url = f"postgresql://shop:open sesame@/postgres?host={folder}".replace(" ", "%20")
            _wait(url, server)
            yield url
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def _known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
