"""Status of a month that was told by hand: who answers, who is on the way, what fell, what is watched, and who looks."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from flyball._kernel.facts import Fact
from flyball.cli import opening
from flyball.cli import status as verb
from flyball.cycle import status
from flyball.cycle.reconcile import Looked, ModelSeen
from flyball.release.rollout import Paused
from flyball.runtime import looping
from tests.story import Story, at


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("home"), an_hour=1)


@pytest.fixture
def halfway(tmp_path: Path) -> Story:
    return Story(tmp_path, an_hour=1, until=8.5)


def looked(told: Story) -> Looked:
    seen = ModelSeen(
        model="lateness",
        champion="lateness-1",
        candidate="lateness-2",
        release="lateness-2: canary 50% for 1d, until 2013-07-10 00:43 UTC",
        training="every 7d: what it learned from ends 2013-07-08 00:00 UTC",
        next=at(9),
        monitors={"drift": "ok 0.1"},
    )
    return Looked(
        at=told.clock.now(), working="a training", models=[seen], sources={}, did=["lateness-2 enters stage 2"]
    )


def test_it_says_who_answers_since_when_and_who_fell(whole: Story) -> None:
    (model,) = status.status(whole.session).models
    assert (model.champion, model.epoch, model.candidate, model.paused) == ("lateness-2", 8, None, "")
    assert model.since == at(19)
    assert model.held == {"lateness-3": "failed in shadow: roc_auc", "lateness-4": "failed as champion: roc_auc"}


def test_it_says_who_is_on_the_way_and_until_when(halfway: Story) -> None:
    (model,) = status.status(halfway.session).models
    way = model.candidate
    assert way is not None
    assert (way.version, way.stage, way.share, way.by) == ("lateness-2", "canary", 0.5, "loop")
    assert way.until == way.since + timedelta(days=1)
    assert way.since <= halfway.clock.now() < way.until


def test_monitors_show_their_last_state_since_when_and_why(whole: Story) -> None:
    (model,) = status.status(whole.session).models
    drift, quality = model.monitors
    assert (drift.monitor, drift.state, drift.why, drift.threshold) == ("drift", "breach", "origin", 0.2)
    assert drift.since < drift.at
    assert (quality.monitor, quality.state) == ("live quality", "ok")
    assert quality.since == at(2), "before, it was blind"


def test_the_last_training_and_the_outcomes_are_counted(whole: Story) -> None:
    (model,) = status.status(whole.session).models
    assert model.training is not None
    assert (model.training.reason, model.training.failed) == ("breach: drift", "disk-full")
    told = whole.told
    assert (model.outcomes.targets, model.outcomes.void) == (told.settled + told.void, told.void)
    assert status.status(whole.session).journal.recorded == told.attempts


def test_silence_is_told(whole: Story) -> None:
    assert "No loop has ever looked here" in status.status(whole.session).silence
    now = looked(whole)
    assert status.status(whole.session, now).silence == ""
    old = msgspec.structs.replace(now, at=now.at - status.STALE)
    assert status.status(whole.session, old).silence == ""
    older = msgspec.structs.replace(now, at=now.at - status.STALE - timedelta(hours=3))
    assert f"No loop has looked since {older.at:%Y-%m-%d %H:%M} UTC" in status.status(whole.session, older).silence


def test_it_is_json_and_whole(halfway: Story) -> None:
    said = status.status(halfway.session, looked(halfway))
    assert msgspec.json.decode(msgspec.json.encode(said), type=status.Status) == said
    assert said.loop is not None
    assert said.loop.models[0].next == at(9)


def test_a_person_reads_it_on_a_hundred_columns(
    halfway: Story, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    halfway.session.facts.append([Fact("flights", "lateness", Paused(reason="a look [at] it", by="ada"))])
    looping.write(halfway.session.home, looked(halfway))
    monkeypatch.setattr(opening, "session", lambda *_, **__: halfway.session)
    assert verb.run("anything") == 0
    out = capsys.readouterr().out
    assert "answering: lateness-1 since 2013-07-01 00:00 epoch 3" in out
    assert "on its way: lateness-2, in canary with 50% of the traffic until 2013-07-10" in out
    assert "paused  a look [at] it (ada)" in out
    assert "ok     live quality 0.71 against 0.62, since 2013-07-03 00:00" in out
    assert "last training 2013-07-08" in out
    assert "looked at 2013-07-09 12:00, works on a training" in out
    assert "until 2013-07-10 00:43 UTC; training: every 7d" in out
    assert "No loop" not in out
    assert max(len(line.rstrip()) for line in out.splitlines() if "training: every" not in line) <= 100


def test_a_loop_that_never_ran_is_missed_by_a_person_too(
    whole: Story, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "session", lambda *_, **__: whole.session)
    verb.run("anything")
    out = capsys.readouterr().out
    assert "No loop has ever looked here" in out
    assert "held lateness-4: failed as champion: roc_auc" in out
    assert "breach drift 0.28 against 0.2" in out
