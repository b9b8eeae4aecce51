"""Keeping answers: what the loop does of itself, how long it keeps them, and what is said of those that are gone."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import flyball as fb
from flyball import cli
from flyball._kernel import facts
from flyball._kernel.clock import micros
from flyball._kernel.errors import AdapterError, DataError, StateError
from flyball._kernel.ids import uuid7
from flyball.adapters.embedded import backup as copying
from flyball.adapters.embedded import journal_archive, restore
from flyball.adapters.embedded.clock import SteppedClock, SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.embedded.keys import FileSigner
from flyball.cycle import account, archiving, why
from flyball.cycle.session import Event, Session
from flyball.runtime import Placement, places
from flyball.serve.journal import Answer, Settings
from tests.oracles import projects

NOW = datetime.now(UTC)


def answer(asked: datetime, **fields: Any) -> Answer:
    usual: dict[str, Any] = {"model": "sent_back", "version": "default", "epoch": 1, "role": "champion", "key": "{}"}
    usual |= {
        "within_tolerance": True,
        "inputs": {"price": 8.5},
        "features": {},
        "latency_us": 1,
        "via": "",
        "output": 0.5,
    }
    return Answer(id=uuid7(asked), asked=micros(asked), **{**usual, **fields})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return projects.make(tmp_path_factory.mktemp("archiving") / "kiosk")


@pytest.fixture(scope="module")
def lived(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Answer]]:
    """A home with answers of 100 days, by a process that is over; nothing else was done in it."""
    home = tmp_path_factory.mktemp("lived") / "home"
    session = projects.opened(project, home)
    given = [answer(NOW - timedelta(days=days), key=f"k{days}") for days in (100, 99, 60, 1)]
    recorder = session.journals(Settings()).open(session.app.name, head=session.facts.head)
    recorder.record(given)
    recorder.close()
    account.account(session)
    return home, given


@pytest.fixture
def session(project: Path, lived: tuple[Path, list[Answer]], tmp_path: Path) -> Session:
    shutil.copytree(lived[0], tmp_path / "home")
    return projects.opened(project, tmp_path / "home")


@pytest.fixture
def given(lived: tuple[Path, list[Answer]]) -> list[Answer]:
    return lived[1]


def later(session: Session, hours: float) -> Session:
    """The session, some hours on."""
    file = session.home / "clock"
    file.write_text((NOW + timedelta(hours=hours)).isoformat())
    clock, place = SteppedClock(file), session.home / "journal"
    return dataclasses.replace(session, clock=clock, journals=lambda settings: SqliteJournal(place, clock, settings))


def archived(session: Session) -> int:
    return journal_archive.DeltaArchive(session.home / "journal").size()[1]


def test_the_loop_archives_what_is_older_than_an_hour(session: Session) -> None:
    """On a thread beside it, one piece at a time, and says so."""
    told: list[Event] = []
    tender = archiving.Tender(session, told.append)
    tender.look()
    tender.end()
    assert (told, archived(session)) == ([], 0)
    tender = archiving.Tender(later(session, 2), told.append)
    for _ in range(2):
        tender.look()
        tender.end()
    assert [event.state for event in told] == ["done"]
    assert "4 answers" in told[0].detail
    assert archived(session) == 4
    tender.look()  # it rests
    assert not any(thread.name == "flyball-archive" for thread in threading.enumerate())


def test_what_cannot_be_archived_is_told_and_tried_again(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Event] = []
    on = later(session, 2)
    tender = archiving.Tender(on, told.append)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(pl.LazyFrame, "sink_parquet", full)
        tender.look()
        tender.end()
    assert [event.state for event in told] == ["failed"]
    assert "archive-not-written" in told[0].detail
    assert "4 answers" in archiving.tend(on)


def test_answers_are_dropped_as_was_said(session: Session, given: list[Answer]) -> None:
    """By the loop, by whole days; and `why` says that they were."""
    archiving.compact(session)
    assert archiving.kept(session) is None
    assert archiving.tend(session) == ""
    archiving.keep(session, 90, reason="policy 7", by="ops")
    assert "2 answers" in archiving.tend(session)
    assert archiving.tend(session) == ""
    assert [entry.key for entry in session.journal.read()] == ["k60", "k1"]
    (said,) = [
        facts.decode(fact, archiving.AnswersDropped)
        for fact in session.facts.read(kinds=frozenset({"serve.dropped"}), app=session.app.name)
    ]
    day = (NOW - timedelta(days=100)).date()
    assert (said.answers, said.first, said.last) == (2, day, day + timedelta(days=1))
    assert (said.by, said.reason) == ("ops", "policy 7")
    with pytest.raises(StateError, match="answer-not-kept") as raised:
        why.why(session, given[0].id)
    assert "policy 7" in raised.value.why
    with pytest.raises(StateError, match="no-such-prediction"):
        why.why(session, uuid7(NOW))
    with pytest.raises(StateError, match="no-such-prediction"):
        why.why(session, "no id at all")
    assert why.why(session, given[3].id).asked == given_at(given[3])
    archiving.keep(session, None, reason="a lawsuit", by="ops")
    assert archiving.kept(session) is None


def given_at(asked: Answer) -> str:
    return datetime.fromtimestamp(asked.asked / 1e6, UTC).isoformat()


def test_a_drop_that_died_is_brought_to_its_end(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    archiving.compact(session)
    archiving.keep(session, 90, reason="policy 7", by="ops")
    journal = type(session.journal)
    drop = journal.drop

    def died(self: Any, *args: Any, look: bool = False) -> Any:
        done = drop(self, *args, look=look)
        if not look:
            raise AdapterError("archive-not-written", "The machine lost its power")
        return done

    with monkeypatch.context() as broken:
        broken.setattr(journal, "drop", died)
        with pytest.raises(AdapterError):
            archiving.tend(session)
    assert "2 answers" in archiving.tend(session)
    assert archiving.tend(session) == ""


def test_what_monitors_look_back_at_is_kept(session: Session) -> None:
    for refused in (archiving.keep, archiving.drop):
        with pytest.raises(DataError, match="answers-are-needed"):
            refused(session, 30, reason="too soon", by="ops")


def test_what_an_ab_test_looks_back_at_is_kept(session: Session) -> None:
    test = fb.ab(0.5, fb.metrics.outcome_mean, ends=timedelta(days=60))
    app = copy.copy(session.app)
    object.__setattr__(app, "release", fb.Release(test))
    longer = dataclasses.replace(session, app=app)
    with pytest.raises(DataError, match="answers-are-needed"):
        archiving.keep(longer, 60, reason="policy 7", by="ops")
    archiving.keep(longer, 65, reason="policy 7", by="ops")


@pytest.fixture
def say(capfd: pytest.CaptureFixture[str]) -> Any:
    def called(*arguments: str, code: int = 0) -> Any:
        assert cli.call([*arguments, "--json"]) == code
        return json.loads(capfd.readouterr().out)

    return called


@pytest.fixture
def home(session: Session) -> list[str]:
    return ["--home", str(session.home)]


def test_the_verbs(say: Any, session: Session, project: Path, home: list[str], tmp_path: Path) -> None:
    app, file = str(project), tmp_path / "answers.parquet"
    assert say("journal", "show", app, *home)["journal"]["segments"] == 1
    assert say("journal", "export", app, str(file), *home)["answers"] == 4
    whole = pl.read_parquet(file)
    assert [each["answers"] for each in say("journal", "compact", app, *home)["done"]] == [4]
    shown = say("journal", "show", app, *home)["journal"]
    assert [shown[k] for k in ("segments", "archived", "answers", "days", "recorded", "unknown")] == [0, 1, 4, 4, 4, 0]
    recorder = session.journals(Settings()).open(session.app.name)
    recorder.record([answer(NOW)])
    recorder.close()
    assert say("journal", "export", app, str(file), *home)["answers"] == 5
    assert pl.read_parquet(file).sort("asked").head(4).equals(whole.sort("asked"))
    since = ["--since", f"{NOW - timedelta(days=80):%Y-%m-%d}", "--until", f"{NOW - timedelta(days=1):%Y-%m-%d}"]
    assert say("journal", "export", app, str(file), "--model", "sent_back", *since, *home)["answers"] == 1
    assert (
        say("journal", "export", app, str(file), "--model", "other", *home, code=2)["error"]["code"] == "no-such-model"
    )
    named = say("journal", "export", app, str(tmp_path / "answers.csv"), *home, code=2)["error"]
    assert "Parquet" in named["what"] and named["next"] == "flyball journal export --help"
    assert not (tmp_path / "answers.csv").exists()
    older = ["--older-than", "90d"]
    assert say("journal", "retain", app, *older, *home)["would_drop"]["answers"] == 2
    assert archived(session) == 4
    assert say("journal", "retain", app, *older, "--yes", "--reason", "tidy", *home)["dropped"]["answers"] == 2
    assert archived(session) == 2
    standing = ["--standing", "--yes", "--reason", "policy 7"]
    assert say("journal", "retain", app, "--older-than", "400d", *standing, *home)["kept"]["days"] == 400
    assert say("journal", "show", app, *home)["kept"]["reason"] == "policy 7"
    assert say("journal", "retain", app, "--older-than", "never", *standing, *home)["kept"]["days"] is None
    assert say("journal", "retain", app, "--older-than", "soon", *home, code=2)["error"]["code"] == "usage"


def test_a_backup_holds_the_archive(session: Session, tmp_path: Path) -> None:
    """And is proved with it: every segment that the facts account for is found."""
    archiving.compact(session)
    recorder = session.journals(Settings()).open(session.app.name, head=session.facts.head)
    recorder.record([answer(NOW)])
    recorder.close()
    before = list(session.journal.read())
    copying.take(session, tmp_path / "backups")
    signer = session.signer
    assert isinstance(signer, FileSigner)
    found = restore.choose(tmp_path / "backups", signer)
    proof = restore.restore(found, tmp_path / "again", signer, SystemClock(), places.PROJECTIONS)
    assert (proof.segments, proof.answers) == (2, 5)
    again = places.open(session.app, Placement(root=tmp_path, home=tmp_path / "again"))
    assert list(again.journal.read()) == before
    assert archived(again) == 4
