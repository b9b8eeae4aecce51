"""The release machine under every order of events, against a naive model of what a person would say has happened.

Events: a version passes its gates, time goes by, guards say pass, fail or nothing sure, a person promotes, rolls back, pauses,
resumes. After each, what must never be untrue is checked: and at the end, whoever folds the facts anew finds the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import flyball as fb
from flyball import canary, days, hours, metrics, shadow
from flyball._kernel.conditions import Outcome, Verdict
from flyball._kernel.facts import Fact, Said
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.release import moves, rollout
from flyball.release.policy import Release, ab
from flyball.release.rollout import Aborted, Advanced, Paused, Promoted, Resumed, RolledBack, Rollout, Started

START = datetime(2013, 7, 1, tzinfo=UTC)
POLICIES = (
    Release(),
    Release(shadow(hours(24))),
    Release(shadow(hours(24)), canary(0.05, hours(6)), canary(0.5, hours(6)), patience=days(1)),
    Release(canary(1.0, hours(1)), patience=timedelta(0)),
    Release(
        canary(0.05, hours(6), at_least=1000, outcomes=200, approval=True),
        ab(0.5, metrics.cost, hours(6), ends=days(2)),
        patience=days(1),
    ),
    Release(
        ab(0.5, metrics.cost, ends=hours(12), undecided="release", approval="risk"),
        canary(0.9, hours(1)),
        patience=days(2),
    ),
)


def verdict(outcome: Outcome) -> Verdict:
    return Verdict(condition="error_rate <= 0.01", outcome=outcome, measurement=None, threshold=0.01)


class Machine(RuleBasedStateMachine):
    """Facts in memory on a clock that the rules move."""

    @initialize(policy=st.sampled_from(POLICIES))
    def begin(self, policy: Release) -> None:
        self.clock = VirtualClock(START)
        self.log = MemoryFacts(self.clock, MemorySigner(), (rollout.ROLLOUTS,))
        self.policy, self.made = policy, 0
        self.champions: list[str] = []
        """Who a person would say answers, the present one last."""
        self.fallen: set[str] = set()
        self.epochs = [0]

    @property
    def state(self) -> Rollout:
        return rollout.now(self.log, "app", "m")

    def record(self, said: list[Said]) -> None:
        for each in said:
            before = self.state
            self.log.append([Fact("app", "m", each)])
            self.follow(before, each)

    def refused(self, code: str, do: Callable[..., object], *arguments: object, **named: object) -> None:
        with pytest.raises(fb.StateError, match=code):
            do(*arguments, **named)

    def follow(self, before: Rollout, said: Said) -> None:
        match said:
            case Promoted():
                by = before.by if said.by == rollout.LOOP and said.version == before.candidate else said.by
                if by != rollout.LOOP and before.champion:
                    self.fallen.add(before.champion)
                self.champions.append(said.version)
                self.fallen.discard(said.version)
            case RolledBack():
                assert before.champion == said.version
                self.champions.append(said.to)
                self.fallen.discard(said.to)
                self.fallen.add(said.version)
            case Aborted():
                assert before.candidate == said.version
                if said.holds:
                    self.fallen.add(said.version)
            case Started():
                self.fallen.discard(said.version)
            case Advanced():
                assert said.stage == before.stage + 1
            case _:
                return
        self.epochs.append(self.state.epoch)

    @rule()
    def a_version_passes_its_gates(self) -> None:
        self.made += 1
        state, version = self.state, f"m-{self.made}"
        if state.paused:
            self.refused("release-paused", moves.start, state, version, self.policy, reason="passed its gates")
        elif state.candidate and state.by != rollout.LOOP:
            self.refused("rollout-in-progress", moves.start, state, version, self.policy, reason="passed its gates")
        else:
            self.record(moves.start(state, version, self.policy, reason="passed its gates"))
            assert version in (self.state.champion, self.state.candidate)

    @rule(data=st.data())
    def an_old_version_is_released_by_itself(self, data: st.DataObject) -> None:
        if self.made:
            version = f"m-{data.draw(st.integers(1, self.made))}"
            try:
                self.record(moves.start(self.state, version, self.policy, reason="again"))
            except fb.StateError:
                return
            assert version not in self.fallen or version == self.state.candidate

    @rule(span=st.sampled_from([hours(1), hours(6), hours(24), days(3)]))
    def time_goes_by(self, span: timedelta) -> None:
        self.clock.advance(span)

    @rule(found=st.lists(st.sampled_from(list(Outcome)), max_size=2), tested=st.sampled_from([None, *Outcome]))
    def the_loop_looks(self, found: list[Outcome], tested: Outcome | None) -> None:
        before, moment = self.state, self.clock.now()
        trial = before.stages[before.stage].trial if before.candidate else None
        verdicts = [verdict(o) for o in found]
        if trial is not None and tested is not None:
            verdicts.append(Verdict(condition=str(trial), outcome=tested, measurement=None, threshold=0.0))
        move = moves.decide(before, moment, verdicts, self.policy.patience)
        assert move.why
        if not before.candidate:
            probation = before.promoted is not None and moment < before.promoted + self.policy.patience
            falls = Outcome.FAIL in found and bool(before.previous) and probation
            assert isinstance(move.said, RolledBack) if falls else move.said is None
            self.record([move.said] if move.said is not None else [])
            return
        assert before.entered is not None
        over = before.entered + timedelta(seconds=before.stages[before.stage].seconds)
        ends = before.entered + timedelta(seconds=trial.seconds) if trial is not None else over
        undecided = trial is not None and tested is not Outcome.PASS
        if Outcome.FAIL in found or (trial is not None and tested is Outcome.FAIL):
            assert isinstance(move.said, Aborted), (
                "a failing guard aborts in any stage, paused or not; so does a lost test"
            )
        elif before.paused or moment < over:
            assert move.said is None
        elif undecided and moment < ends:
            assert move.said is None and move.due == ends, "a test that is not decided goes on until its end"
        elif undecided and trial is not None and trial.undecided == "keep":
            assert isinstance(move.said, Aborted) and move.said.holds
        elif Outcome.INCONCLUSIVE in found:
            assert isinstance(move.said, Aborted) == (moment >= ends + self.policy.patience)
            assert move.said is None or isinstance(move.said, Aborted)
        else:
            last = before.stage + 1 == len(before.stages)
            assert isinstance(move.said, Promoted if last else Advanced)
        if move.said is not None:
            self.record([move.said])

    @precondition(lambda self: self.made > 0)
    @rule(data=st.data())
    def a_person_promotes(self, data: st.DataObject) -> None:
        version = f"m-{data.draw(st.integers(1, self.made))}"
        if version == self.state.champion:
            self.refused("already-answers", moves.promote, self.state, version, reason="I say so", by="ann")
        else:
            self.record(moves.promote(self.state, version, reason="I say so", by="ann"))
            assert self.state.champion == version and not self.state.candidate

    @precondition(lambda self: self.made > 0)
    @rule(data=st.data())
    def a_person_sends_a_version_on_its_way(self, data: st.DataObject) -> None:
        version = f"m-{data.draw(st.integers(1, self.made))}"
        state, said = self.state, {"reason": "it must", "by": "ann", "overridden": True}
        if version == state.champion:
            self.refused("already-answers", moves.start, state, version, self.policy, **said)
        elif version == state.candidate:
            self.refused("rollout-in-progress", moves.start, state, version, self.policy, **said)
        else:
            self.record(moves.start(state, version, self.policy, **said))
            assert version in (self.state.champion, self.state.candidate)

    @rule()
    def a_person_rolls_back(self) -> None:
        before = self.state
        if not before.previous and not before.candidate:
            self.refused("nothing-to-roll-back", moves.roll_back, before, reason="it is bad", by="ann")
            return
        self.record(moves.roll_back(before, reason="it is bad", by="ann"))
        assert (
            (self.state.champion == before.champion) if before.candidate else (self.state.champion == before.previous)
        )

    @rule()
    def a_person_pauses_or_resumes(self) -> None:
        self.log.append(
            [Fact("app", "m", Resumed(by="ann") if self.state.paused else Paused(reason="freeze", by="ann"))]
        )

    @invariant()
    def what_is_said_is_true(self) -> None:
        if not hasattr(self, "log"):
            return
        state = self.state
        assert state.champion == (self.champions[-1] if self.champions else "")
        assert state.term == len(self.champions)
        assert set(state.held) <= self.fallen and len(state.held) == min(len(self.fallen), rollout.REMEMBERED)
        assert state.candidate != state.champion or not state.candidate
        assert state.champion not in state.past and state.champion not in state.held
        assert (state.paused_at is not None) == bool(state.paused)
        assert 0 <= state.share <= 1
        assert state.epoch == self.epochs[-1]
        assert self.epochs == sorted(set(self.epochs)), "an epoch never comes twice"
        assert bool(state.candidate) == bool(state.stages) == (state.entered is not None) == (state.began is not None)
        assert state.began is None or state.entered is None or state.began <= state.entered

    def teardown(self) -> None:
        if hasattr(self, "log"):
            before = self.state
            self.log.rebuild()
            assert self.state == before
            assert rollout.at(self.log, "app", "m", self.clock.now()) == before
            self.log.verify()


Machine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestRolloutMachine = Machine.TestCase


def test_two_controllers_never_take_the_same_step() -> None:
    clock = VirtualClock(START)
    log = MemoryFacts(clock, MemorySigner(), (rollout.ROLLOUTS,))
    policy = Release(canary(0.5, hours(1)))
    log.append([Fact("app", "m", s) for s in moves.start(Rollout(), "m-1", policy, reason="first")])
    rollout.record(log, "app", "m", lambda now: moves.start(now, "m-2", policy, reason="passed"))
    clock.advance(hours(2))
    seen: list[Rollout] = []

    def step(now: Rollout) -> list[Said]:
        move = moves.decide(now, clock.now(), [], policy.patience)
        if not seen:
            # Another controller looks and acts between our look and our writing.
            seen.append(now)
            rollout.record(log, "app", "m", step)
        seen.append(now)
        return [move.said] if move.said is not None else []

    assert rollout.record(log, "app", "m", step) == []
    assert [type(s).__name__ for _, s in rollout.history(log, "app", "m")] == ["Promoted", "Started", "Promoted"]


def test_who_answered_at_a_time_is_told() -> None:
    clock = VirtualClock(START)
    log = MemoryFacts(clock, MemorySigner(), (rollout.ROLLOUTS,))
    moments = []
    for n in range(1, 4):
        moments.append(clock.now())
        rollout.record(log, "app", "m", lambda now, n=n: moves.promote(now, f"m-{n}", reason="x", by="ann"))  # type: ignore[misc]
        clock.advance(days(1))
    moments.append(clock.now())
    rollout.record(log, "app", "m", lambda now: moves.roll_back(now, reason="bad", by="ann"))
    assert [rollout.at(log, "app", "m", t).champion for t in moments] == ["m-1", "m-2", "m-3", "m-2"]
    assert rollout.at(log, "app", "m", START - days(1)).champion == ""
    with pytest.raises(fb.StateError, match="version-held"):
        moves.start(rollout.now(log, "app", "m"), "m-3", Release(), reason="passed its gates")
