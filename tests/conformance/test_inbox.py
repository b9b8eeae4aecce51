"""Inboxes: the shipped suite on both adapters; what a crash leaves, what a disk does, and several processes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flyball._kernel.errors import AdapterError, DataError, RetryableError
from flyball.adapters.embedded import inbox as embedded
from flyball.adapters.embedded.inbox import FileInbox
from flyball.adapters.embedded.pushed import PushReader
from flyball.adapters.memory.inbox import MemoryInbox
from flyball.checks.inbox import MOST, InboxSuite, body
from flyball.checks.sources import Reported
from flyball.data import kinds
from flyball.data.source import LINE, TEXT
from flyball.serve import ingest
from flyball.serve.ingest import Inbox


class TestFileInbox(InboxSuite):
    @pytest.fixture
    def inbox(self, tmp_path: Path) -> Inbox:
        return FileInbox(tmp_path / "inbox", MOST)


class TestMemoryInbox(InboxSuite):
    @pytest.fixture
    def inbox(self) -> Inbox:
        return MemoryInbox(MOST)


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_body_that_was_not_whole_is_none(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies in the midst of one; the next sender finds the inbox as it was."""
    inbox = FileInbox(tmp_path)
    inbox.accept("clicks", body(b"1\n"))

    class Died(BaseException):
        pass

    def die(*_: object) -> None:
        raise Died

    with monkeypatch.context() as dying:
        if step == "rename":
            dying.setattr(Path, "rename", die)
        elif step == "fsync":
            dying.setattr(os, "fsync", die)
        else:
            dying.setattr(os, "fdopen", lambda opened, _: os.close(opened) or die())
        with pytest.raises(Died):
            inbox.accept("clicks", body(b"2\n"))
    assert FileInbox(tmp_path).files("clicks") == (body(b"1\n").file,)
    assert inbox.accept("clicks", body(b"2\n"))
    assert [inbox.read("clicks", file) for file in inbox.files("clicks")] == [b"1\n", b"2\n"]


def test_it_is_on_the_disk_before_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    true_fsync = os.fsync

    def fsync(opened: int) -> None:
        kept.append(os.readlink(f"/proc/self/fd/{opened}"))
        true_fsync(opened)

    inbox = FileInbox(tmp_path / "home" / "inbox")
    (tmp_path / "home").mkdir()
    monkeypatch.setattr(embedded.os, "fsync", fsync)
    inbox.accept("clicks", body())
    folder = tmp_path / "home" / "inbox" / "clicks"
    assert kept[-2:] == [str(folder / ".new"), str(folder)]  # the rows, then their name
    assert str(folder.parent) in kept and str(folder.parent.parent) in kept
    (name,) = (path for path in os.listdir(folder) if not path.startswith("."))
    assert (folder / name).stat().st_mode & 0o777 == 0o600


FAULTS = [(errno.ENOSPC, RetryableError, "disk-full"), (errno.EIO, AdapterError, "inbox-unusable")]


@pytest.mark.parametrize(("number", "kind", "code"), FAULTS)
def test_a_disk_that_fails_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[AdapterError], code: str
) -> None:
    inbox = FileInbox(tmp_path)

    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as failing:
        failing.setattr(embedded.os, "fsync", fails)
        with pytest.raises(kind) as refused:
            inbox.accept("clicks", body())
    assert refused.value.code == code
    assert inbox.files("clicks") == ()
    assert inbox.accept("clicks", body())


def test_so_many_bodies_wait_and_no_more(tmp_path: Path) -> None:
    inbox = FileInbox(tmp_path, files=2)
    inbox.accept("clicks", body(b"1\n"))
    inbox.accept("clicks", body(b"2\n"))
    with pytest.raises(RetryableError, match="inbox-full"):
        inbox.accept("clicks", body(b"3\n"))


def test_several_processes_push(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from flyball.adapters.embedded.inbox import FileInbox\n"
        "from flyball.checks.inbox import body; inbox = FileInbox(Path(sys.argv[1]))\n"
        "print(sum(inbox.accept('clicks', body(b'%d\\n' % n)) for n in range(50)))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    taken = [int(each.communicate(timeout=60)[0]) for each in running]
    files = FileInbox(tmp_path).files("clicks")
    assert sum(taken) == len(files) == 50
    assert all(FileInbox(tmp_path).read("clicks", file) for file in files)


def test_a_row_that_is_nested_without_end_stops_nothing() -> None:
    inbox = MemoryInbox()
    source, reader = kinds.push("clicks", prepare=lambda raw: raw, yields=Reported), PushReader(inbox)
    deep = b'{"id":' + b"[" * 100_000
    inbox.accept("clicks", body(ingest.lines(b'{"id": "a"}\n' + deep + b'\n{"id": "b"}\n')))
    (file,) = reader.files(source)
    with reader.open(source, file) as reading:
        assert reading.rows.collect()["id"].to_list() == ["a", "b"]
        assert reading.ragged.collect()[LINE].to_list() == [2]


def test_bodies_are_files_of_a_source() -> None:
    inbox = MemoryInbox()
    source = kinds.push("clicks", prepare=lambda raw: raw, yields=Reported)
    reader = PushReader(inbox)
    assert reader.files(source) == ()
    inbox.accept("clicks", body(b'{"id": "b"}\nno json\n{"id": null, "n": 1.50}\n'))
    inbox.accept("clicks", body(b'{"id": "a"}\n'))
    first, second = reader.files(source)
    with reader.open(source, first) as reading:
        assert reading.rows.select("id", "n", LINE).collect().rows() == [("b", None, 1), (None, "1.50", 3)]
        assert reading.ragged.select(LINE, TEXT).collect().rows() == [(2, "no json")]
    inbox.drop("clicks", [second])
    with pytest.raises(DataError, match="file-changed") as refused, reader.open(source, second):
        pass
    assert refused.value.where == source.place
