"""The stores of artifacts of the house, and the directory's own duties: nothing outside it, nothing half, nobody else's."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flyball._kernel.errors import AdapterError, StateError
from flyball._kernel.ports import Blobs
from flyball.adapters.embedded.blobs import FileBlobs
from flyball.adapters.memory.blobs import MemoryBlobs
from flyball.checks.blobs import BlobsSuite


def place(root: Path, digest: str) -> Path:
    return root / digest[:2] / digest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store" / "artifacts"


class TestFileBlobs(BlobsSuite):
    @pytest.fixture
    def blobs(self, root: Path) -> Blobs:
        return FileBlobs(root)

    @pytest.fixture
    def damage(self, root: Path) -> Callable[[str, bytes], None]:
        return lambda digest, data: (place(root, digest).write_bytes(data), None)[1]


class TestMemoryBlobs(BlobsSuite):
    @pytest.fixture
    def blobs(self) -> Blobs:
        return MemoryBlobs()

    @pytest.fixture
    def damage(self, blobs: MemoryBlobs) -> Callable[[str, bytes], None]:
        return lambda digest, data: blobs.kept.update({digest: data})


def test_artifacts_are_their_owners(root: Path) -> None:
    digest = FileBlobs(root).put(b"model")
    path = place(root, digest)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(each.stat().st_mode) for each in (root, path.parent)} == {0o700}
    assert os.listdir(path.parent) == [digest]


def test_a_link_in_the_store_is_not_followed(root: Path, tmp_path: Path) -> None:
    """Not even to the very bytes: what lies outside the store is not the store's to give."""
    blobs, outside = FileBlobs(root), tmp_path / "outside"
    digest = blobs.put(b"model")
    outside.write_bytes(b"model")
    place(root, digest).unlink()
    place(root, digest).symlink_to(outside)
    with pytest.raises(AdapterError, match="artifacts-unusable"):
        blobs.get(digest)


def test_a_pipe_in_the_store_does_not_block(root: Path) -> None:
    blobs = FileBlobs(root)
    digest = blobs.put(b"model")
    place(root, digest).unlink()
    os.mkfifo(place(root, digest))
    with pytest.raises(StateError, match="artifact-changed"):
        blobs.get(digest)


def test_a_store_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blobs = FileBlobs(tmp_path / "file" / "artifacts")
    for use in (lambda: blobs.put(b"model"), lambda: blobs.get("0" * 64)):
        with pytest.raises(AdapterError, match="artifacts-unusable") as raised:
            use()
        assert str(tmp_path) in str(raised.value)


def test_reading_makes_nothing(root: Path) -> None:
    assert not FileBlobs(root).has("0" * 64)
    with pytest.raises(StateError, match="no-such-artifact"):
        FileBlobs(root).get("0" * 64)
    assert not root.parent.exists()


def test_what_does_not_fit_leaves_nothing(root: Path) -> None:
    """A write that fails half way: the artifact is absent, and nothing lies beside it."""
    blobs = FileBlobs(root)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(AdapterError) as raised:
            blobs.put(b"x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.EFBIG
    assert not blobs.has(hashlib.sha256(b"x" * 200_000).hexdigest())
    assert not [each for each in root.rglob("*") if each.is_file()]


KILLED = """
import sys
from flyball.adapters.embedded.blobs import FileBlobs
blobs, n = FileBlobs(sys.argv[1]), 0
while True:
    n += 1
    print(blobs.put(b"%d" % n * 200_000), flush=True)
"""


def test_a_killed_writer_leaves_whole_artifacts(root: Path) -> None:
    """What was acknowledged is there; what was not is whole or absent."""
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(10)]
    writer.kill()
    acknowledged += writer.communicate()[0].split()
    blobs = FileBlobs(root)
    assert all(hashlib.sha256(blobs.get(digest)).hexdigest() == digest for digest in acknowledged)
    for path in root.rglob("*"):
        if path.is_file() and not path.name.startswith(".aside-"):
            blobs.get(path.name)
