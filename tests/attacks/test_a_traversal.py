"""Class A, traversal: no name that a request carries (a model, a version, a prediction, a source, an Idempotency-Key)
reaches a file of its choosing, however it is spelt. More of artifacts is in tests/conformance/test_blobs.py, of backups in
tests/promises/test_11_backup_restores.py, of the files of sources in tests/conformance/test_sources.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest

from flyball._kernel.errors import FlyballError, StateError
from flyball.adapters.embedded.blobs import FileBlobs
from flyball.adapters.embedded.inbox import FileInbox
from tests.attacks.hostile import bearer, exposed, heard, table
from tests.live import live

NAMES = (
    *("../secret", "../../secret", "..", ".", "/secret", "//secret", "..\\secret", "....//secret", "x/../../secret"),
    *(
        "..;/secret",
        "secret#x",
        "secret?x",
        "file:///secret",
        "secret%00.json",
        "%2e%2e/secret",
        "..%c0%afsecret",
        "~/secret",
    ),
)
SECRET = b"what nobody shall read"


def spelt(name: str) -> set[str]:
    """As it is, encoded, encoded twice, and with what only some decode."""
    once = quote(name, safe="")
    return {name, once, quote(once, safe=""), name.replace(".", "%2e").replace("/", "%2F")}


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in folder.rglob("*") if "home" not in p.parts}


def test_no_path_reaches_a_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for place in (tmp_path, home, home / "journal"):
        place.mkdir(exist_ok=True)
        (place / "secret").write_bytes(SECRET)
    before = everything(tmp_path)
    real = exposed() | {"inbox": FileInbox(home / "inbox")}
    with live(home, **real) as shop:
        known = set(table(shop.server))
        for prefix in ("/", "/predict/", "/predictions/", "/ingest/", "/invocations/", "/v2/models/", "/docs/"):
            paths = sorted({f"{prefix}{each}" for name in NAMES for each in spelt(name)} - known)
            asked = [(method, path) for path in paths for method in ("GET", "DELETE")]
            key = bearer("ingest" if "ingest" in prefix else "read")["Authorization"]
            lines = [
                f"{verb} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n\r\n" for verb, path in asked
            ]
            lines[-1] = lines[-1].replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
            got = heard(shop.port, ["".join(lines).encode()])
            for (method, path), reply in zip(asked, got.replies, strict=True):
                # What is behind the question mark is no part of the path: then it is the page itself that is asked for.
                assert reply.status in (404, 405) or "?" in path, (method, path, reply.status)
            assert SECRET not in got.data
    assert everything(tmp_path) == before


def test_no_idempotency_key_names_a_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with live(home, **(exposed() | {"inbox": FileInbox(home / "inbox")})) as shop:
        for name in NAMES:
            headers = {"Content-Type": "application/json", "Idempotency-Key": name, **bearer("ingest")}
            assert shop.send("POST", "/ingest/clicks", b'{"id": 1}', headers).status == 202
    waiting = [path.name for path in (home / "inbox" / "clicks").iterdir() if not path.name.startswith(".")]
    assert len(waiting) == len(NAMES) and not any("secret" in each or ".." in each for each in waiting)
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


@pytest.mark.parametrize("name", [*NAMES, "a" * 64 + "\n", "A" * 64, "a" * 63, "a" * 65, "\u0661" * 64])
def test_no_artifact_has_a_name_of_another_form(tmp_path: Path, name: str) -> None:
    blobs = FileBlobs(tmp_path / "artifacts")
    digest = blobs.put(b"x")
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "artifacts" / "..secret").write_bytes(SECRET)
    assert not blobs.has(name)
    with pytest.raises(StateError, match="no-such-artifact"):
        blobs.get(name)
    assert blobs.drop([name]) == 0 and blobs.has(digest) and (tmp_path / "secret").exists()


def test_a_link_in_the_store_is_not_followed(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "artifacts")
    digest = blobs.put(SECRET)
    path = tmp_path / "artifacts" / digest[:2] / digest
    path.rename(tmp_path / "moved")
    for make in (lambda: os.symlink(tmp_path / "moved", path), lambda: os.mkfifo(path)):
        make()
        with pytest.raises(FlyballError, match=r"artifact-changed|artifacts-unusable"):
            blobs.get(digest)
        path.unlink()
