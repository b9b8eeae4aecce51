"""The rules of a rollout: which fact comes next, given who answers, the time, and what the guards say. Nothing is written here.

A candidate enters stage after stage while its guards pass; one that fails falls at once, one that nobody can be sure of falls
after the declared patience. A person may promote and roll back at any time, under the same machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from flyball._kernel.conditions import Outcome, Verdict
from flyball._kernel.errors import StateError
from flyball._kernel.facts import Said
from flyball.release import rollout
from flyball.release.policy import Release, Stage
from flyball.release.rollout import Aborted, Advanced, Promoted, RolledBack, Rollout, Started, Step, Trial


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """What follows: a fact to record, or (None) waiting; and why. `due`: when time alone may change the answer."""

    said: Said | None
    why: str
    due: datetime | None = None


def decide(state: Rollout, moment: datetime, verdicts: Sequence[Verdict], patience: timedelta) -> Move:
    """The next step of the candidate; or, for some time after it was promoted, of a champion that fails.

    A guard that fails aborts at once, in any stage, and so does an A/B test that the candidate lost. Otherwise a stage lasts as
    long as it was declared, and then all verdicts must pass: what is inconclusive holds the candidate where it is, and aborts
    it after `patience`. A test that is not decided holds it until its own end. A pause stops everything but an abort, since a
    failing version is never kept answering for being paused.

    Args:
        state: who answers and who is on the way.
        moment: now.
        verdicts: of the guards, and of what the stage needs, on what both have answered.
        patience: how long a finished stage may stay inconclusive.
    """
    failed = [v for v in verdicts if v.outcome is Outcome.FAIL]
    if not state.candidate or state.entered is None:
        return _on_probation(state, moment, failed, patience)
    name, epoch, stage, told = state.candidate, state.epoch + 1, state.stages[state.stage], tuple(verdicts)
    if failed:
        return _abort(state, f"failed in {stage.name}: {'; '.join(words(v) for v in failed)}", told)
    if state.paused:
        return Move(said=None, why=f"paused: {state.paused}")
    over = state.entered + timedelta(seconds=stage.seconds)
    if moment < over:
        return Move(said=None, why=f"{name}: {stage}, until {over:%Y-%m-%d %H:%M} UTC", due=over)
    held = _held(state, moment, over, told, patience)
    if held is not None:
        return held
    if state.stage + 1 < len(state.stages):
        into = state.stages[state.stage + 1]
        said = Advanced(version=name, stage=state.stage + 1, into=into, epoch=epoch, verdicts=told)
        return Move(said=said, why=f"{name} goes on into {into}")
    why = "passed every stage"
    promoted = Promoted(version=name, previous=state.champion, epoch=epoch, reason=why, verdicts=told)
    return Move(said=promoted, why=f"{name} {why}")


def _held(
    state: Rollout, moment: datetime, over: datetime, told: tuple[Verdict, ...], patience: timedelta
) -> Move | None:
    """What keeps a candidate in a stage whose time is over, or ends it there; None where nothing does."""
    name, stage = state.candidate, state.stages[state.stage]
    unsure = [v for v in told if v.outcome is Outcome.INCONCLUSIVE]
    if stage.trial is not None:
        asked = [v for v in told if v.condition == str(stage.trial)]
        unsure = [v for v in unsure if v not in asked]
        ends = over + timedelta(seconds=stage.trial.seconds - stage.seconds)
        if not any(v.outcome is Outcome.PASS for v in asked):
            reason = f"undecided in {stage.name}: {'; '.join(words(v) for v in asked) or 'nobody has judged it'}"
            if moment < ends:
                return Move(said=None, why=f"{name} is {reason}, until {ends:%Y-%m-%d %H:%M} UTC", due=ends)
            if stage.trial.undecided == "keep":
                return _abort(state, reason, told)
        over = ends
    if not unsure:
        return None
    reason = f"no certainty in {stage.name}: {'; '.join(words(v) for v in unsure)}"
    if moment >= over + patience:
        return _abort(state, reason, told)
    return Move(said=None, why=f"{name} is held in {stage.name}: {reason}", due=over + patience)


def _abort(state: Rollout, reason: str, told: tuple[Verdict, ...]) -> Move:
    said = Aborted(version=state.candidate, epoch=state.epoch + 1, reason=reason, verdicts=told)
    return Move(said=said, why=reason)


def _on_probation(state: Rollout, moment: datetime, failed: Sequence[Verdict], patience: timedelta) -> Move:
    """A champion that fails a guard within `patience` of its promotion gives way to the one before."""
    if not state.champion:
        return Move(said=None, why="nobody answers yet")
    # Whoever came back by a rollback is on no probation: a world in which all fail would walk back to the first of them.
    over = state.promoted + patience if state.promoted is not None else moment
    if moment >= over or not state.previous:
        return Move(said=None, why=f"{state.champion} answers")
    if failed:
        reason = f"failed as champion: {'; '.join(words(v) for v in failed)}"
        (said,) = roll_back(state, reason=reason, verdicts=failed)
        return Move(said=said, why=reason)
    return Move(said=None, why=f"{state.champion} answers, on probation until {over:%Y-%m-%d %H:%M} UTC", due=over)


def words(verdict: Verdict) -> str:
    """A verdict in words, with what was found."""
    found = verdict.measurement
    said = f" (found {found.estimate:.3g}, {found.low:.3g} to {found.high:.3g}, n = {found.n:,})" if found else ""
    return f"{verdict.condition}{said}{': ' + verdict.reason if verdict.reason else ''}"


def start(
    state: Rollout, version: str, policy: Release, *, reason: str, by: str = rollout.LOOP, overridden: bool = False
) -> list[Said]:
    """Send a version on its way: to the first stage, or straight to champion where nobody answers or no stage is declared.

    A candidate that the loop had sent is given up for the newer one; one that a person sent is not.

    Raises:
        StateError: `already-answers`, `version-held`, `release-paused`, `rollout-in-progress`.
    """
    refusal = _refusal(state, version, by)
    if refusal is not None:
        raise refusal
    said = _given_up(state, version, by)
    epoch = state.epoch + 1 + len(said)
    stages = tuple(_step(s) for s in policy.stages)
    if state.champion and stages:
        first = Started(version=version, stages=stages, epoch=epoch, reason=reason, by=by, overridden=overridden)
        return [*said, first]
    promoted = Promoted(
        version=version, previous=state.champion, epoch=epoch, reason=reason, by=by, overridden=overridden
    )
    return [*said, promoted]


def _step(stage: Stage) -> Step:
    """A stage as facts record it."""
    test, trial = stage.test, None
    if test is not None:
        trial = Trial(
            metric=test.decides.metric.name.removesuffix(".live"),
            op=test.decides.op,
            margin=test.decides.threshold,
            error_rate=test.error_rate,
            seconds=test.ends.total_seconds(),
            undecided=test.undecided,
        )
    return Step(
        name=stage.name,
        share=stage.share,
        seconds=stage.lasts.total_seconds(),
        at_least=stage.at_least,
        outcomes=stage.outcomes,
        approval=stage.approval,
        trial=trial,
    )


def _refusal(state: Rollout, version: str, by: str) -> StateError | None:
    if version == state.champion:
        return StateError("already-answers", f"{version} answers already.", next="flyball status shows since when.")
    if by == rollout.LOOP and state.paused:
        return StateError(
            "release-paused", f"{version} is not released.", why=state.paused, next="flyball pause --resume"
        )
    if by == rollout.LOOP and version in state.held:
        return StateError(
            "version-held",
            f"{version} is not released again by itself.",
            why=state.held[version],
            next=f"flyball promote APP {version} sends it on its way again.",
        )
    if state.candidate == version or (state.candidate and state.by != rollout.LOOP and by == rollout.LOOP):
        return StateError(
            "rollout-in-progress",
            f"{state.candidate} is on its way already.",
            why=f"It is in {state.stages[state.stage]}; {state.by} sent it there.",
            next="flyball status shows what it waits for; flyball rollback takes it back.",
        )
    return None


def promote(state: Rollout, version: str, *, reason: str, by: str, overridden: bool = False) -> list[Said]:
    """Make a version champion at once, past all stages; whoever else is on the way is given up.

    Raises:
        StateError: `already-answers`.
    """
    if version == state.champion:
        raise StateError("already-answers", f"{version} answers already.", next="flyball status shows since when.")
    said = _given_up(state, version, by)
    epoch = state.epoch + 1 + len(said)
    promoted = Promoted(
        version=version, previous=state.champion, epoch=epoch, reason=reason, by=by, overridden=overridden
    )
    return [*said, promoted]


def withdraw(state: Rollout, reason: str) -> list[Said]:
    """Take the candidate back without blame: it may be sent again."""
    return [Aborted(version=state.candidate, epoch=state.epoch + 1, reason=reason, holds=False)]


def _given_up(state: Rollout, version: str, by: str) -> list[Said]:
    """The end of another candidate's way; it may be sent again."""
    if state.candidate in ("", version):
        return []
    why = f"given up for {version}"
    return [Aborted(version=state.candidate, epoch=state.epoch + 1, reason=why, by=by, holds=False)]


def roll_back(state: Rollout, *, reason: str, by: str = rollout.LOOP, verdicts: Sequence[Verdict] = ()) -> list[Said]:
    """Take the last release back: abort the candidate, or else return to who answered before the champion.

    Raises:
        StateError: `nothing-to-roll-back`.
    """
    epoch, told = state.epoch + 1, tuple(verdicts)
    if state.candidate:
        return [Aborted(version=state.candidate, epoch=epoch, reason=reason, by=by, verdicts=told)]
    if not state.previous:
        raise StateError(
            "nothing-to-roll-back",
            f"Nobody answered before {state.champion}." if state.champion else "Nobody answers.",
            why="A rollback returns to a version that answered before.",
            next="flyball promote APP VERSION makes another one answer.",
        )
    said = RolledBack(version=state.champion, to=state.previous, epoch=epoch, reason=reason, by=by, verdicts=told)
    return [said]
