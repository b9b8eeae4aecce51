"""The rollout of a model: who answers, and who is on the way there, as a fold over facts.

    registered --gates--> started: shadow -> canary ... -> promoted: champion --next promotion--> retired
                             |                                |
                          aborted                        rolled back          both held: not released again by itself

The machine is pure: `moves` says which fact comes next, `after` what a fact changes, and `record` writes what was decided only
if nothing was recorded in between, so that two controllers never act twice.

An **epoch** counts every change of who answers; a **term** counts champions, so that the same champion in a later term is
another cause. A version that fell is **held** with the reason, until a person promotes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from flyball._kernel import facts
from flyball._kernel.conditions import Verdict
from flyball._kernel.durations import short
from flyball._kernel.errors import StateError
from flyball._kernel.facts import Fact, Projection, Said, Stored
from flyball._kernel.ports import Facts

LOOP = "loop"
"""Who acts when nobody asked."""

REMEMBERED = 20
"""Former champions, and fallen versions, that the state names; the facts name all of them."""

ATTEMPTS = 10
"""Times that a decision is taken anew because something else was recorded in between."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The A/B test of a stage as it was declared: the metric's difference to the champion's, against a margin.

    Attributes:
        seconds: when it is over, counted from the stage's beginning.
        undecided: what follows then: "keep" the champion, or "release".
    """

    metric: str
    op: Literal[">=", "<="]
    margin: float
    error_rate: float
    seconds: float
    undecided: Literal["keep", "release"] = "keep"

    def __str__(self) -> str:
        margin = f" {'-' if self.margin < 0 else '+'} {abs(self.margin):g}" if self.margin else ""
        return f"A/B: {self.metric} {self.op} that of the champion{margin}"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One stage as it was declared when the rollout started: a share of the traffic, for so many seconds at least.

    Attributes:
        at_least, outcomes: answers of the candidate that the stage needs, and settled ones among them.
        approval: whose word it needs, said while it lasts: a key's name, "*" for anybody's, "" for nobody's.
        trial: the A/B test that it is, if it is one.
    """

    name: str
    share: float
    seconds: float
    at_least: int = 0
    outcomes: int = 0
    approval: str = ""
    trial: Trial | None = None

    def __str__(self) -> str:
        share = f" {self.share:.0%}" if self.share else ""
        if self.trial is not None:
            until = f" until {self.trial} is decided, {short(timedelta(seconds=self.trial.seconds))} at most"
        else:
            until = f" for {short(timedelta(seconds=self.seconds))}"
        needs = [f"{self.at_least:,} answers"] if self.at_least else []
        needs += [f"{self.outcomes:,} outcomes"] if self.outcomes else []
        needs += [f"the word of {'a person' if self.approval == '*' else self.approval}"] if self.approval else []
        return f"{self.name}{share}{until}" + (f", and {', '.join(needs)}" if needs else "")


class Started(Said, frozen=True, kw_only=True, tag="release.started"):
    """A version enters its first stage. `overridden`: its gates had not released it."""

    version: str
    stages: tuple[Step, ...]
    epoch: int
    reason: str
    by: str = LOOP
    overridden: bool = False


class Advanced(Said, frozen=True, kw_only=True, tag="release.advanced"):
    """The candidate enters stage number `stage`, counted from 0, which is `into`."""

    version: str
    stage: int
    into: Step
    epoch: int
    verdicts: tuple[Verdict, ...] = ()


class Promoted(Said, frozen=True, kw_only=True, tag="release.promoted"):
    """From this epoch on, `version` answers; `previous` did before ("" if nobody). `overridden`: as in `Started`."""

    version: str
    previous: str
    epoch: int
    reason: str
    by: str = LOOP
    overridden: bool = False
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
    """Nothing is released or trained by itself until it is resumed; what fails its guards is aborted all the same."""

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
        began: when it entered the present one; where `entered` is later by what was paused, what was seen counts from here.
        promoted: when the champion was, if it came by a promotion: its probation begins then.
        paused, paused_at: why the loop takes no step ("" if it does), and since when.
        held: fallen versions, and why.
        given_up: candidates that gave way to another and may be sent again: the epoch of their end.
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
    began: datetime | None = None
    promoted: datetime | None = None
    paused: str = ""
    paused_at: datetime | None = None
    held: dict[str, str] = {}
    given_up: dict[str, int] = {}

    @property
    def previous(self) -> str:
        """Who answered before the champion and could again."""
        return self.past[-1] if self.past else ""

    @property
    def share(self) -> float:
        """The share of the traffic that the candidate answers."""
        return self.stages[self.stage].share if self.candidate else 0.0

    @property
    def trial(self) -> Trial | None:
        """The A/B test that it is in."""
        return self.stages[self.stage].trial if self.candidate else None


_TYPES: dict[str, type[Said]] = {
    facts.kind(each): each for each in (Started, Advanced, Promoted, Aborted, RolledBack, Paused, Resumed)
}


def fold(row: bytes | None, fact: Stored) -> bytes:
    """The state after one more fact."""
    before = msgspec.json.decode(row, type=Rollout) if row is not None else Rollout()
    return facts.encode(after(before, facts.decode(fact, _TYPES[fact.kind]), fact.at))


def after(now: Rollout, said: Said, at: datetime) -> Rollout:
    """The state after `said`, recorded at `at`."""
    match said:
        case Started():
            change = {"candidate": said.version, "by": said.by, "stages": said.stages, "stage": 0, "epoch": said.epoch}
            change |= {"started": at, "entered": at, "began": at, "held": _without(now.held, said.version)}
        case Advanced():
            change = {"stage": said.stage, "entered": at, "began": at, "epoch": said.epoch}
        case Promoted():
            change = _promoted(now, said, at)
        case Aborted():
            change = _ALONE | {"epoch": said.epoch}
            if said.holds:
                past = tuple(v for v in now.past if v != said.version)
                change |= {"held": _with(now.held, said.version, said.reason), "past": past}
            else:
                given_up = sorted({**now.given_up, said.version: said.epoch}.items(), key=lambda each: each[1])
                change |= {"given_up": dict(given_up[-REMEMBERED:])}
        case RolledBack():
            change = {"champion": said.to, "since": at, "past": tuple(v for v in now.past if v != said.to)}
            change |= _ALONE | {"epoch": said.epoch, "term": now.term + 1, "promoted": None}
            change |= {"held": _with(_without(now.held, said.to), said.version, said.reason)}
        case Paused():
            change = {"paused": f"{said.reason} ({said.by})", "paused_at": at}
        case _:
            # What was paused lasts as much longer: a stage, a patience and a probation are times in which the loop looks.
            rest = at - now.paused_at if now.paused_at is not None else timedelta()
            change = {"paused": "", "paused_at": None}
            change |= {
                name: moment + rest for name in ("entered", "promoted") if (moment := getattr(now, name)) is not None
            }
    return msgspec.structs.replace(now, **change)


_ALONE = {"candidate": "", "by": "", "stages": (), "stage": 0, "started": None, "entered": None, "began": None}
"""Nobody is on the way."""


def _promoted(now: Rollout, said: Promoted, at: datetime) -> dict[str, Any]:
    """A person who makes another version answer does not want the one before to come back by itself; the loop may.

    Whoever sent a candidate wants it, also where the loop took its last step.
    """
    by = now.by if said.by == LOOP and said.version == now.candidate else said.by
    past = tuple(v for v in (*now.past, now.champion) if v and v != said.version)[-REMEMBERED:]
    held = _without(now.held, said.version)
    if by != LOOP and now.champion:
        held = _with(held, now.champion, f"gave way to {said.version}: {said.reason} ({by})")
    change = {"champion": said.version, "since": at, "promoted": at, "past": past, "held": held}
    return change | _ALONE | {"epoch": said.epoch, "term": now.term + 1}


def _with(held: dict[str, str], version: str, reason: str) -> dict[str, str]:
    # By the number in their names: a dictionary that was stored is read back in the order of its keys.
    latest = sorted({**held, version: reason}.items(), key=lambda each: (len(each[0]), each[0]))[-REMEMBERED:]
    return dict(latest)


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


def record(log: Facts, app: str, model: str, choose: Callable[[Rollout], Sequence[Said]]) -> list[Said]:
    """Write down what `choose` makes of the present state, as one transaction; nothing if it chooses nothing.

    Raises:
        StateError: what `choose` raises; `moved-on`, as `decided`.
    """
    return [f.said for f in decided(log, lambda: [Fact(app, model, said) for said in choose(now(log, app, model))])]


def decided(log: Facts, choose: Callable[[], Sequence[Fact]]) -> list[Fact]:
    """Write down what `choose` makes of what is recorded, as one transaction; nothing if it chooses nothing.

    Where something else was recorded in between, it chooses again: so two that look at the same never both write it down.

    Raises:
        StateError: what `choose` raises; `moved-on` when others never stop recording.
    """
    for attempt in range(ATTEMPTS):
        head = log.head()
        chosen = list(choose())
        if not chosen:
            return []
        try:
            log.append(chosen, expect=head.tx)
        except StateError as problem:
            if problem.code != "moved-on" or attempt + 1 == ATTEMPTS:
                raise
        else:
            return chosen
    return []


def told(said: Said) -> str:
    """A fact of a rollout, in words."""
    match said:
        case Started():
            gates = ", gates overridden" if said.overridden else ""
            return f"{said.version} goes into {said.stages[0]}{gates}: {said.reason} ({said.by})"
        case Advanced():
            return f"{said.version} goes on into {said.into}"
        case Promoted():
            gates = ", gates overridden" if said.overridden else ""
            return f"{said.version} answers from now on{gates}: {said.reason} ({said.by})"
        case Aborted():
            return f"{said.version} is aborted: {said.reason} ({said.by})"
        case RolledBack():
            return f"{said.version} is rolled back, {said.to} answers again: {said.reason} ({said.by})"
        case Paused():
            return f"paused: {said.reason} ({said.by})"
        case Resumed():
            return f"resumed ({said.by})"
    return facts.kind(said)
