"""When the disk is full: answers leave unlogged where that was declared, and each of their numbers is spoken for."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flyball._kernel.errors import AdapterError
from flyball.adapters.embedded import journal_claim, journal_recorder
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.embedded.journal_pages import Noted
from flyball.checks.clock import Wound
from flyball.checks.journal import SETTINGS, answer, recorded
from flyball.serve import journal
from flyball.serve.journal import Recovery, Standing
from tests.disks import Disk

UNLOGGED = replace(SETTINGS, when_full="unlogged", patience=timedelta(0))


def bulk(clock: Wound) -> journal.Answer:
    return answer(clock, inputs={"x": "x" * 20_000})


def counts(accounts: list[Recovery]) -> list[tuple[bool, int, int, int, int]]:
    return [(each.closed, each.recorded, each.refused, each.unlogged, each.unknown) for each in accounts]


def test_on_a_full_disk_answers_leave_and_are_counted(place: Path, clock: Wound, disk: Disk) -> None:
    """Far more than a block of them; what comes when there is room again is recorded, and the account says it all."""
    at = SqliteJournal(place, clock, UNLOGGED, disk.connect)
    recorder = at.open("flights")
    recorded(recorder, [answer(clock)])
    assert recorder.standing() == Standing()
    disk.full = True
    many = 5 * UNLOGGED.block
    assert recorded(recorder, [bulk(clock) for _ in range(many)]) == list(range(2, many + 2))
    refused, unlogged, failure = recorder.standing()
    assert (refused, unlogged) == (0, many) and "full" in failure
    disk.full = False
    assert recorded(recorder, [answer(clock)]) == [many + 2]
    assert recorder.standing() == Standing(0, many, "")
    recorder.close()
    assert [entry.seq for entry in at.read()] == [1, many + 2]
    assert counts(at.recover()) == [(True, 2, 0, many, 0)]
    assert [path.suffix for path in place.iterdir()] == [".sqlite"]


def test_an_account_is_given_soon_after_the_disk_is_back(place: Path, clock: Wound, disk: Disk) -> None:
    """The segment that speaks for unlogged answers is over, so that the alarm need not wait for an hour."""
    at = SqliteJournal(place, clock, UNLOGGED, disk.connect)
    recorder = at.open("flights")
    disk.full = True
    recorded(recorder, [bulk(clock), bulk(clock)])
    disk.full = False
    recorded(recorder, [answer(clock)])
    assert at.recover() == []
    clock.sleep(journal_recorder.TOLD)
    recorded(recorder, [answer(clock)])
    for _ in range(500):  # the full segment is finished after the answers of the next one are told
        if at.recover():
            break
        threading.Event().wait(0.01)
    assert counts(at.recover()) == [(True, 1, 0, 2, 0)]
    recorder.close()


@pytest.mark.parametrize("many", [1, 40])
def test_a_crash_while_the_disk_is_full_is_accounted_for(place: Path, clock: Wound, disk: Disk, many: int) -> None:
    """The segment cannot hold what left; the claim does. At most one block is unknown, as always."""
    at = SqliteJournal(place, clock, UNLOGGED, disk.connect)
    recorder = at.open("flights")
    recorded(recorder, [answer(clock)])
    disk.full = True
    recorded(recorder, [bulk(clock) for _ in range(many)])
    copy = place.parent / "copy"
    shutil.copytree(place, copy)
    ((closed, *said, unknown),) = counts(SqliteJournal(copy, clock).recover())
    assert (closed, said) == (False, [1, 0, many])
    assert 0 < unknown <= UNLOGGED.block
    disk.full = False
    recorder.close()
    assert counts(at.recover()) == [(True, 1, 0, many, 0)]


def test_a_process_that_ends_on_a_full_disk_is_accounted_for(place: Path, clock: Wound, disk: Disk) -> None:
    at = SqliteJournal(place, clock, UNLOGGED, disk.connect)
    recorder = at.open("flights")
    disk.broken = True
    recorded(recorder, [answer(clock) for _ in range(40)])
    with pytest.raises(AdapterError, match="journal-write"):
        recorder.close()
    ((closed, *said, unknown),) = counts(at.recover())
    assert (closed, said) == (False, [0, 0, 40])
    assert 0 < unknown <= UNLOGGED.block


def test_what_cannot_even_be_noted_is_refused(
    place: Path, clock: Wound, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer leaves unlogged only while somebody can say later how many did."""
    at = SqliteJournal(place, clock, UNLOGGED, disk.connect)
    recorder = at.open("flights")
    disk.full = True
    recorded(recorder, [bulk(clock)])

    def broken(*_: Any) -> int:
        raise OSError(errno.EIO, "the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(journal_claim.os, "pwrite", broken)
        with pytest.raises(AdapterError, match="journal-write"):
            recorded(recorder, [bulk(clock)])
    recorded(recorder, [bulk(clock), bulk(clock)])
    assert recorder.standing()[:2] == (1, 3)
    disk.full = False
    recorder.close()
    assert counts(at.recover()) == [(True, 0, 1, 3, 0)]


def test_under_interval_what_has_left_is_kept_while_there_is_room_and_counted_after(
    place: Path, clock: Wound, disk: Disk
) -> None:
    settings = replace(UNLOGGED, durability="interval", interval=timedelta(0), patience=timedelta(seconds=30))
    at = SqliteJournal(place, clock, settings, disk.connect)
    recorder = at.open("flights")
    disk.full = True
    numbers = [recorder.record([bulk(clock)]) for _ in range(60)]
    assert numbers == list(range(1, 61))
    disk.full = False
    recorder.close()
    ((closed, kept, refused, unlogged, unknown),) = counts(at.recover())
    assert (closed, refused, kept + unlogged, unknown) == (True, 0, 60, 0)
    assert kept > 0 and unlogged > 0
    assert [entry.seq for entry in at.read()] == list(range(unlogged + 1, 61))


def test_a_note_of_an_earlier_release_says_nothing(tmp_path: Path) -> None:
    """Its claims are empty files."""
    (tmp_path / "p.lock").touch()
    assert journal_claim.noted(tmp_path / "p.lock") == journal_claim.noted(tmp_path / "q.lock") == Noted()


FULL = """
import json, os, signal, subprocess, sys
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from flyball._kernel.errors import FlyballError
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.checks.journal import answer
from flyball.serve import journal
from flyball.serve.journal import Settings

place, when_full, killed = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "killed"
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
clock, settings = SystemClock(), Settings(when_full=when_full, block=64, patience=timedelta(0))
reading, writing = os.pipe()
if (child := os.fork()) == 0:
    recorder = SqliteJournal(place / "journal", clock, settings).open("flights")
    answered, refused, spare = [], 0, place / "spare"
    spare.write_bytes(bytes(400_000))
    for n in range(300):
        given, future = answer(clock, inputs={"x": "x" * 3_000}), Future()
        try:
            recorder.record([given], journal.resolve(future))
            future.result(30)
            answered.append(given.id)
        except FlyballError:
            refused += 1
        if n == 285 and not killed:
            spare.unlink()
    standing = recorder.standing()
    os.write(writing, json.dumps([answered, refused, standing.unlogged]).encode())
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    recorder.close()
    os._exit(0)
os.close(writing)
with os.fdopen(reading) as told:
    answered, refused, unlogged = json.load(told)
os.waitpid(child, 0)
(place / "spare").unlink(missing_ok=True)
at = SqliteJournal(place / "journal", clock)
(account,) = at.recover()
logged = {entry.id for entry in at.read()}
print(json.dumps({"answered": len(answered), "logged": len(logged), "lost": len(set(answered) - logged), "refused": refused,
                  "counted": unlogged, "closed": account.closed, "recorded": account.recorded,
                  "account": [account.refused, account.unlogged, account.unknown]}))
"""


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("when_full", ["refuse", "unlogged"])
def test_a_disk_that_is_really_full(tmp_path: Path, when_full: str, killed: bool) -> None:
    """A file system of 1 MB. Served = logged + unlogged + a bounded unknown, to the last answer; so it is after a kill."""
    alone = shutil.which("unshare")
    if alone is None or subprocess.run([alone, "--user", "--map-root-user", "--mount", "true"]).returncode:
        pytest.skip("this machine gives nobody a file system of their own")
    command = [alone, "--user", "--map-root-user", "--mount", sys.executable, "-c", FULL]
    command += [str(tmp_path), when_full, "killed" if killed else "ended"]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    refused, unlogged, unknown = said["account"]
    assert said["recorded"] == said["logged"] > 10
    assert said["answered"] + said["refused"] == 300
    assert said["lost"] == unlogged == said["counted"]
    assert unknown <= 64
    if when_full == "unlogged":
        assert (said["answered"], refused) == (300, 0) and unlogged > 100
    else:
        assert said["lost"] == 0 and said["refused"] > 100
    assert said["closed"] is not killed
    assert killed or unknown == 0
