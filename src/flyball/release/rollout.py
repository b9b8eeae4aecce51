"""The rollout of a model: who answers, who is on the way there, and the one rule that takes the next step.

    registered --gates--> started: shadow -> canary ... -> promoted: champion --next promotion--> retired
                             |                                |
                          aborted                        rolled back          both held: not released again by itself

The machine is pure. State is a fold over facts, `decide` looks at (state, time, verdicts) and names the next fact or says why
it waits, and `record` writes what was decided only if nothing was recorded in between: so two controllers never act twice.

An **epoch** counts every change of who answers; a **term** counts champions, so that the same champion in a later term is
another cause. A version that fell is **held** with the reason, until a person promotes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec

from flyball._kernel import facts
from flyball._kernel.conditions import Outcome, Verdict
from flyball._kernel.durations import short
from flyball._kernel.errors import StateError
from flyball._kernel.facts import Fact, Projection, Said, Stored
from flyball._kernel.ports import Facts
from flyball.release.policy import Release

LOOP = "loop"
"""Who acts when nobody asked."""

REMEMBERED = 20
"""Former champions, and fallen versions, that the state names; the facts name all of them."""

ATTEMPTS = 10
"""Times that a decision is taken anew because something else was recorded in between."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One stage as it was declared when the rollout started: a share of the traffic, for so many seconds."""

    name: str
    share: float
    seconds: float

    def __str__(self) -> str:
        share = f" {self.share:.0%}" if self.share else ""
        return f"{self.name}{share} for {short(timedelta(seconds=self.seconds))}"


class Started(Said, frozen=True, kw_only=True, tag="release.started"):
    """A version enters its first stage. `overridden`: its gates had not released it."""

    version: str
    stages: tuple[Step, ...]
    epoch: int
    reason: str
    by: str = LOOP
    overridden: bool = False


class Advanced(Said, frozen=True, kw_only=True, tag="release.advanced"):
    """The candidate enters stage number `stage`, counted from 0."""

    version: str
    stage: int
    epoch: int
    verdicts: tuple[Verdict, ...] = ()


class Promoted(Said, frozen=True, kw_only=True, tag="release.promoted"):
    """From this epoch on, `version` answers; `previous` did before ("" if nobody)."""

    version: str
    previous: str
    epoch: int
    reason: str
    by: str = LOOP
    verdicts: tuple[Verdict, ...] = ()


class Aborted(Said, frozen=True, kw_only=True, tag="release.aborted"):
    """The candidate has fallen: the champion answers all questions. `holds`: it is not released again by itself."""

    version: str
    epoch: int
    reason: str
    by: str = LOOP
    holds: bool = True
    verdicts: tuple[Verdict, ...] = ()


class RolledBack(Said, frozen=True, kw_only=True, tag="release.rolled_back"):
    """The champion has fallen: `to` answers again."""

    version: str
    to: str
    epoch: int
    reason: str
    by: str = LOOP
    verdicts: tuple[Verdict, ...] = ()


class Paused(Said, frozen=True, kw_only=True, tag="release.paused"):
    """Nothing is released, aborted or trained by itself until it is resumed."""

    reason: str
    by: str


class Resumed(Said, frozen=True, kw_only=True, tag="release.resumed"):
    """The loop goes on."""

    by: str


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers for one model, and who is on the way there.

    Attributes:
        epoch: how often who answers has changed.
        term: how often the champion has.
        champion: who answers; "" for nobody yet.
        since: since when.
        past: former champions that did not fall, the latest last.
        candidate: who is on the way; "" for nobody.
        by: who sent it there.
        stages, stage, started, entered: its stages, the present one, when it entered the first, and the present one.
        paused: why the loop takes no step; "" if it does.
        held: fallen versions, and why.
    """

    epoch: int = 0
    term: int = 0
    champion: str = ""
    since: datetime | None = None
    past: tuple[str, ...] = ()
    candidate: str = ""
    by: str = ""
    stages: tuple[Step, ...] = ()
    stage: int = 0
    started: datetime | None = None
    entered: datetime | None = None
    paused: str = ""
    held: dict[str, str] = {}

    @property
    def previous(self) -> str:
        """Who answered before the champion and could again."""
        return self.past[-1] if self.past else ""

    @property
    def share(self) -> float:
        """The share of the traffic that the candidate answers."""
        return self.stages[self.stage].share if self.candidate else 0.0


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """What follows: a fact to record, or (None) waiting; and why. `due`: when time alone may change the answer."""

    said: Said | None
    why: str
    due: datetime | None = None


_TYPES: dict[str, type[Said]] = {
    facts.kind(each): each for each in (Started, Advanced, Promoted, Aborted, RolledBack, Paused, Resumed)
}


def fold(row: bytes | None, fact: Stored) -> bytes:
    """The state after one more fact."""
    before = msgspec.json.decode(row, type=Rollout) if row is not None else Rollout()
    return facts.encode(after(before, facts.decode(fact, _TYPES[fact.kind]), fact.at))


def after(now: Rollout, said: Said, at: datetime) -> Rollout:
    """The state after `said`, recorded at `at`."""
    alone = {"candidate": "", "by": "", "stages": (), "stage": 0, "started": None, "entered": None}
    match said:
        case Started():
            change = {"candidate": said.version, "by": said.by, "stages": said.stages, "stage": 0, "epoch": said.epoch}
            change |= {"started": at, "entered": at, "held": _without(now.held, said.version)}
        case Advanced():
            change = {"stage": said.stage, "entered": at, "epoch": said.epoch}
        case Promoted():
            past = tuple(v for v in (*now.past, now.champion) if v and v != said.version)[-REMEMBERED:]
            change = {"champion": said.version, "since": at, "past": past, "epoch": said.epoch, "term": now.term + 1}
            change |= alone | {"held": _without(now.held, said.version)}
        case Aborted():
            change = alone | {"epoch": said.epoch}
            if said.holds:
                past = tuple(v for v in now.past if v != said.version)
                change |= {"held": _with(now.held, said.version, said.reason), "past": past}
        case RolledBack():
            change = {"champion": said.to, "since": at, "past": tuple(v for v in now.past if v != said.to)}
            change |= alone | {"epoch": said.epoch, "term": now.term + 1}
            change |= {"held": _with(_without(now.held, said.to), said.version, said.reason)}
        case Paused():
            change = {"paused": f"{said.reason} ({said.by})"}
        case _:
            change = {"paused": ""}
    return msgspec.structs.replace(now, **change)


def _with(held: dict[str, str], version: str, reason: str) -> dict[str, str]:
    return dict([*_without(held, version).items(), (version, reason)][-REMEMBERED:])


def _without(held: dict[str, str], version: str) -> dict[str, str]:
    return {name: reason for name, reason in held.items() if name != version}


ROLLOUTS = Projection("release.rollouts", frozenset(_TYPES), facts.about, fold)


def now(log: Facts, app: str, model: str) -> Rollout:
    """Who answers now."""
    row = log.get(ROLLOUTS.name, f"{app}/{model}")
    return msgspec.json.decode(row, type=Rollout) if row is not None else Rollout()


def at(log: Facts, app: str, model: str, moment: datetime) -> Rollout:
    """Who answered at `moment`, by what had been recorded until then.

    A server follows a new route within a fraction of a second; which version gave one answer, the journal names exactly.
    """
    state = Rollout()
    for fact in log.read(kinds=ROLLOUTS.kinds, app=app):
        if fact.at > moment:
            break
        if fact.model == model:
            state = after(state, facts.decode(fact, _TYPES[fact.kind]), fact.at)
    return state


def history(log: Facts, app: str, model: str) -> list[tuple[datetime, Said]]:
    """Everything that was ever decided about who answers, in order."""
    stored = (fact for fact in log.read(kinds=ROLLOUTS.kinds, app=app) if fact.model == model)
    return [(fact.at, facts.decode(fact, _TYPES[fact.kind])) for fact in stored]


def decide(state: Rollout, moment: datetime, verdicts: Sequence[Verdict], patience: timedelta) -> Move:
    """The next step of the candidate.

    A guard that fails aborts at once, in any stage. Otherwise a stage lasts as long as it was declared, and then all guards
    must pass: what is inconclusive holds the candidate where it is, and aborts it after `patience`. A pause stops everything
    but an abort, since a failing version is never kept answering for being paused.

    Args:
        state: who answers and who is on the way.
        moment: now.
        verdicts: of the guards, on what both have answered since the rollout started.
        patience: how long a finished stage may stay inconclusive.
    """
    if not state.candidate or state.entered is None:
        return Move(said=None, why=f"{state.champion} answers" if state.champion else "nobody answers yet")
    name, epoch, stage = state.candidate, state.epoch + 1, state.stages[state.stage]
    told = tuple(verdicts)
    failed = [v for v in told if v.outcome is Outcome.FAIL]
    if failed:
        reason = f"failed in {stage.name}: {'; '.join(_told(v) for v in failed)}"
        return Move(said=Aborted(version=name, epoch=epoch, reason=reason, verdicts=told), why=reason)
    if state.paused:
        return Move(said=None, why=f"paused: {state.paused}")
    over = state.entered + timedelta(seconds=stage.seconds)
    if moment < over:
        return Move(said=None, why=f"{name}: {stage}, until {over:%Y-%m-%d %H:%M} UTC", due=over)
    unsure = [v for v in told if v.outcome is Outcome.INCONCLUSIVE]
    if unsure:
        reason = f"no certainty in {stage.name}: {'; '.join(_told(v) for v in unsure)}"
        if moment >= over + patience:
            return Move(said=Aborted(version=name, epoch=epoch, reason=reason, verdicts=told), why=reason)
        return Move(said=None, why=f"{name} is held in {stage.name}: {reason}", due=over + patience)
    if state.stage + 1 < len(state.stages):
        why = f"{name} goes on to {state.stages[state.stage + 1]}"
        return Move(said=Advanced(version=name, stage=state.stage + 1, epoch=epoch, verdicts=told), why=why)
    why = "passed every stage"
    said = Promoted(version=name, previous=state.champion, epoch=epoch, reason=why, verdicts=told)
    return Move(said=said, why=f"{name} {why}")


def _told(verdict: Verdict) -> str:
    found = verdict.measurement
    said = f" (found {found.estimate:.3g}, {found.low:.3g} to {found.high:.3g}, n = {found.n:,})" if found else ""
    return f"{verdict.condition}{said}{': ' + verdict.reason if verdict.reason else ''}"


def start(
    state: Rollout, version: str, policy: Release, *, reason: str, by: str = LOOP, overridden: bool = False
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
    stages = tuple(Step(name=s.name, share=s.share, seconds=s.lasts.total_seconds()) for s in policy.stages)
    if state.champion and stages:
        first = Started(version=version, stages=stages, epoch=epoch, reason=reason, by=by, overridden=overridden)
        return [*said, first]
    return [*said, Promoted(version=version, previous=state.champion, epoch=epoch, reason=reason, by=by)]


def _refusal(state: Rollout, version: str, by: str) -> StateError | None:
    if version == state.champion:
        return StateError("already-answers", f"{version} answers already.", next="flyball status shows since when.")
    if by == LOOP and state.paused:
        return StateError(
            "release-paused", f"{version} is not released.", why=state.paused, next="flyball pause --resume"
        )
    if by == LOOP and version in state.held:
        return StateError(
            "version-held",
            f"{version} is not released again by itself.",
            why=state.held[version],
            next=f"flyball promote APP {version} sends it on its way again.",
        )
    if state.candidate == version or (state.candidate and state.by != LOOP and by == LOOP):
        return StateError(
            "rollout-in-progress",
            f"{state.candidate} is on its way already.",
            why=f"It is in {state.stages[state.stage]}; {state.by} sent it there.",
            next="flyball status shows what it waits for; flyball rollback takes it back.",
        )
    return None


def promote(state: Rollout, version: str, *, reason: str, by: str) -> list[Said]:
    """Make a version champion at once, past all stages; whoever else is on the way is given up.

    Raises:
        StateError: `already-answers`.
    """
    if version == state.champion:
        raise StateError("already-answers", f"{version} answers already.", next="flyball status shows since when.")
    said = _given_up(state, version, by)
    epoch = state.epoch + 1 + len(said)
    return [*said, Promoted(version=version, previous=state.champion, epoch=epoch, reason=reason, by=by)]


def _given_up(state: Rollout, version: str, by: str) -> list[Said]:
    """The end of another candidate's way; it may be sent again."""
    if state.candidate in ("", version):
        return []
    why = f"given up for {version}"
    return [Aborted(version=state.candidate, epoch=state.epoch + 1, reason=why, by=by, holds=False)]


def roll_back(state: Rollout, *, reason: str, by: str = LOOP, verdicts: Sequence[Verdict] = ()) -> list[Said]:
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


def record(log: Facts, app: str, model: str, choose: Callable[[Rollout], Sequence[Said]]) -> list[Said]:
    """Write down what `choose` makes of the present state, as one transaction; nothing if it chooses nothing.

    Where something else was recorded in between, the state is read and the choice is made again.

    Raises:
        StateError: what `choose` raises; `moved-on` when others never stop recording.
    """
    for attempt in range(ATTEMPTS):
        head = log.head()
        chosen = list(choose(now(log, app, model)))
        if not chosen:
            return []
        try:
            log.append([Fact(app, model, said) for said in chosen], expect=head.tx)
        except StateError as problem:
            if problem.code != "moved-on" or attempt + 1 == ATTEMPTS:
                raise
        else:
            return chosen
    return []
