"""A rollout through stages that need more than time: answers, outcomes, the word of a person, and the decision of an A/B test.

One world lives through all of it, in the order of the tests; each begins where the one before ended.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
import pytest

import flyball as fb
from flyball import average_precision, days, hours
from flyball._kernel.conditions import Outcome
from flyball._kernel.errors import DeclarationError
from flyball._kernel.facts import Said
from flyball.app import App
from flyball.cycle import apply, operate, staged
from flyball.release import rollout
from flyball.release.policy import Release, ab
from flyball.release.rollout import Aborted, Advanced, Rollout, Step
from flyball.watch.live import Live
from tests import loops
from tests.loops import START, Process, World
from tests.unit.test_watch_quality import entry

POLICY = Release(
    fb.shadow(hours(3), at_least=40, outcomes=10),
    fb.canary(0.5, hours(3), approval="ada"),
    ab(0.5, fb.accuracy, ends=days(4)),
    patience=days(2),
)


def declared(trials: int) -> App:
    app = loops.declared(release=POLICY, gates=[])
    object.__setattr__(app, "search", fb.search(trials=trials, optimize=average_precision, split=fb.by_time(days(12))))
    return app


class Story:
    """The world, and the process that looks at it every three hours."""

    def __init__(self) -> None:
        self.world = World()
        apply.apply(self.world.session(declared(1)), until=START)
        self.process = Process(self.world, declared(2))
        self.process.look()
        rows = loops.QUESTIONS.to_dicts()
        self.asked = [*rows]
        self.settled = sorted(rows, key=lambda row: row["settled"])
        self.began: dict[int, datetime] = {}

    def until(self, moment: datetime) -> Rollout:
        while self.world.clock.now() < moment:
            at = min(moment, self.world.clock.now() + hours(3))
            while self.asked[0]["placed"] < at:
                row = self.asked.pop(0)
                self.world.to(row["placed"])
                self.process.ask(row)
            while self.settled[0]["settled"] < at:
                self.process.post(self.settled.pop(0))
            self.world.to(at)
            self.process.look()
        return self.state

    @property
    def state(self) -> Rollout:
        return loops.state(self.world)

    def waits(self) -> str:
        return self.process.look().models[0].release

    def last(self, kind: type[Said]) -> Said:
        said = [s for _, s in rollout.history(self.process.session.facts, "till", "till") if isinstance(s, kind)]
        return said[-1]


@pytest.fixture(scope="module")
def story() -> Story:
    return Story()


def test_a_shadow_is_over_when_it_was_asked_often_enough_and_its_outcomes_came(story: Story) -> None:
    state = story.until(START + hours(12))
    assert (state.candidate, state.stage) == ("till-2", 0)
    assert "at least 40 answers in shadow: 35 so far" in story.waits() or "36 so far" in story.waits()
    state = story.until(START + hours(24))
    assert state.stage == 1
    said = story.last(Advanced)
    assert isinstance(said, Advanced)
    assert {v.condition for v in said.verdicts} >= {
        "at least 40 answers in shadow",
        "at least 10 outcomes of them in shadow",
    }


def test_a_stage_waits_for_the_person_whom_it_names(story: Story) -> None:
    assert story.until(START + hours(36)).stage == 1
    assert "waits for 'ada': flyball approve APP till-2" in story.waits()
    session = story.process.session
    with pytest.raises(DeclarationError, match="nobody-waits-for-approval"):
        operate.approve(session, "till-2", by="bob", reason="fine by me")
    with pytest.raises(DeclarationError, match="nobody-waits-for-approval"):
        operate.approve(session, "till-1", by="ada", reason="another version's word")
    other = Process(story.world.copy(), declared(2))
    operate.approve(other.session, "till-2", by="ada", reason="it is rude to the small ones", yes=False)
    other.look()
    no = loops.state(other.world)
    assert no.candidate == "" and "rude to the small ones" in no.held["till-2"], "a no ends it at once"
    assert operate.approve(session, "till-2", by="ada", reason="looked at fifty answers").epoch == story.state.epoch
    story.process.look()
    assert story.state.stage == 2


def test_a_word_of_an_earlier_stage_counts_for_no_later_one(story: Story) -> None:
    session, state = story.process.session, story.state
    again = msgspec.structs.replace(state.stages[2], approval="ada")
    later = msgspec.structs.replace(state, stages=(*state.stages[:2], again))
    verdicts = {v.condition.split(" ")[0]: v for v in story.process.watch.guards(session.app.models[0], later)}
    assert verdicts["approval(by=ada)"].outcome == "inconclusive"


def test_a_test_that_is_not_decided_keeps_the_champion(story: Story) -> None:
    entered = story.state.entered
    assert entered is not None and story.until(entered + days(2)).stage == 2
    waits = story.waits()
    assert "undecided in ab: A/B: accuracy >= that of the champion" in waits and "each arm needs 100" in waits
    assert Process(story.world.copy(), declared(2)).look().models[0].release == waits, "read anew it is the same test"
    story.until(entered + days(4) + hours(3))
    assert (story.state.champion, story.state.candidate) == ("till-1", "")
    said = story.last(Aborted)
    assert isinstance(said, Aborted) and said.holds and said.reason.startswith("undecided in ab")
    (test,) = [v for v in said.verdicts if v.condition.startswith("A/B")]
    assert test.measurement is not None and test.measurement.n > 200, "it was measured, over entities"


def test_a_version_whose_shadows_are_too_slow_falls_where_callers_wait_for_it() -> None:
    guard = fb.p99_latency <= fb.ms(20)
    stages = (Step(name="shadow", share=0.0, seconds=9.0), Step(name="canary", share=0.5, seconds=9.0))
    app = loops.declared(release=Release(fb.shadow(hours(3)), abort_unless=[guard]), gates=[])
    session, live, began = World().session(app), Live(days(60)), START - hours(9)

    def outcome(stage: int) -> Outcome:
        state = Rollout(champion="a-1", candidate="a-2", stages=stages, stage=stage, entered=began, started=began)
        found = {v.condition: v for v in staged.verdicts(session, app.models[0], live, state, START)}
        return found[str(guard)].outcome

    slow = entry("k", began, "a-2", role="shadow", latency_us=90_000)
    live.answered([slow] * 400)
    assert [outcome(0), outcome(1)] == [Outcome.PASS, Outcome.INCONCLUSIVE]
    live.answered([msgspec.structs.replace(slow, role="canary")] * 10)
    assert outcome(1) is Outcome.FAIL


def test_what_was_recorded_before_stages_could_need_anything_is_read_as_before() -> None:
    old = b'{"version":"m-2","stages":[{"name":"canary","share":0.5,"seconds":60.0}],"epoch":2,"reason":"passed"}'
    said = msgspec.json.decode(old, type=rollout.Started)
    after = rollout.after(Rollout(champion="m-1"), said, START)
    assert (after.stages[0].at_least, after.stages[0].trial, after.began) == (0, None, START)
    row = {"epoch": 2, "champion": "m-1", "candidate": "m-2", "entered": "2013-07-01T00:00:00Z", "stages": after.stages}
    assert msgspec.json.decode(msgspec.json.encode(row), type=Rollout).began is None
    assert str(after.stages[0]) == "canary 50% for 1m"
    assert timedelta(seconds=after.stages[0].seconds) == fb.minutes(1)
