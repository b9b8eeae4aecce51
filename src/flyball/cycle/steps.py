"""Steps: what runs, from which causes, and what it left behind.

A step's **key** is the fingerprint of its causes and of the keys of the steps that it needs. A step whose key was done is
never run again: its outputs are content-addressed artifacts, found again by their digests. So "what would run and why" is a
comparison of fingerprints, and a killed apply goes on after its last finished step. Only a step whose artifacts follow from
its causes to the byte runs once more, when the store has lost one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from flyball._kernel import facts, fingerprint
from flyball._kernel.facts import Fact, Projection, Said, Stored
from flyball._kernel.ports import Facts

W = TypeVar("W")


class Done(Said, frozen=True, kw_only=True, tag="cycle.done"):
    """A step finished: under which key, from which causes (name -> fingerprint), with which artifacts (name -> digest)."""

    step: str
    key: str
    causes: dict[str, str]
    outputs: dict[str, str]


class Failed(Said, frozen=True, kw_only=True, tag="cycle.failed"):
    """A step did not finish."""

    step: str
    key: str
    code: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The last failure of a step, and when."""

    key: str
    code: str
    at: datetime


class Pinned(Said, frozen=True, kw_only=True, tag="cycle.pinned"):
    """The data that training reads from now on.

    Attributes:
        batches: table -> its last batch.
        cutoff: nothing that became known at or after this moment takes part.
        reason: why it was pinned.
        recipes: source -> the fingerprint of what turned its files into these rows.
        erased: how often rows had been erased that the model had learned from.
    """

    batches: dict[str, int]
    cutoff: datetime
    reason: str
    recipes: dict[str, str] = msgspec.field(default_factory=dict)
    erased: int = 0


DONE = Projection(
    "cycle.done",
    frozenset({facts.kind(Done)}),
    lambda fact: facts.about(fact, *_step_and_key(fact)),
    lambda _, fact: fact.said,
)
LAST = Projection(
    "cycle.last",
    frozenset({facts.kind(Done)}),
    lambda fact: facts.about(fact, facts.decode(fact, Done).step),
    lambda _, fact: fact.said,
)
FAILURES = Projection(
    "cycle.failures",
    frozenset({facts.kind(Failed)}),
    lambda fact: facts.about(fact, facts.decode(fact, Failed).step),
    lambda _, fact: facts.encode(_failure(fact)),
)
PINS = Projection("cycle.pins", frozenset({facts.kind(Pinned)}), facts.about, lambda _, fact: fact.said)


def _failure(fact: Stored) -> Failure:
    failed = facts.decode(fact, Failed)
    return Failure(key=failed.key, code=failed.code, at=fact.at)


def _step_and_key(fact: Stored) -> tuple[str, str]:
    done = facts.decode(fact, Done)
    return done.step, done.key


@dataclass(frozen=True, slots=True)
class Ran:
    """What a step left behind.

    Attributes:
        outputs: artifacts, name -> digest.
        facts: commit together with the fact that the step is done.
        measured: what another run would not repeat.
        said: one line for a person.
        expect: the transaction that the step decided upon; where another was recorded since, it decides anew.
    """

    outputs: Mapping[str, str]
    facts: tuple[Fact, ...] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    said: str = ""
    expect: int | None = None


@dataclass(frozen=True, slots=True)
class Step(Generic[W]):
    """One step of the way from data to a released version.

    Attributes:
        name: what a person reads.
        needs: the steps whose outputs it reads; they come before it.
        causes: what decides on its result, by name; cheap, reads no data. It sees which of the earlier steps are done.
        run: does it, given what the needed steps left behind.
        repeats: whether running it again gives the same artifacts, so that lost ones can be made anew.
    """

    name: str
    needs: tuple[str, ...]
    causes: Callable[[W, Mapping[str, Done]], Mapping[str, object]]
    run: Callable[[W, Mapping[str, Done]], Ran]
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Planned:
    """A step as it stands: done, or to be run and why."""

    step: str
    key: str
    causes: Mapping[str, str]
    done: Done | None
    why: tuple[str, ...]


def walk(
    steps: tuple[Step[W], ...], subject: W, log: Facts, about: tuple[str, str], stored: Callable[[str], bool]
) -> list[Planned]:
    """Lay the declared steps beside what was done.

    Args:
        steps: in order; each needs only earlier ones.
        subject: what the causes are read from.
        log: where finished steps are recorded.
        about: (app, model).
        stored: whether there is an artifact of this digest.
    """
    found: dict[str, Planned] = {}
    done: dict[str, Done] = {}
    new: set[str] = set()
    for step in steps:
        causes = fingerprint.parts(step.causes(subject, done))
        key = fingerprint.of(step.name, causes, [found[n].key for n in step.needs])
        was = _row(log, DONE, "/".join((*about, step.name, key)))
        why: tuple[str, ...] = ()
        if was is None:
            last = _row(log, LAST, "/".join((*about, step.name)))
            why = _reasons(causes, last, [n for n in step.needs if n in new])
            new.add(step.name)
        elif step.repeats:
            lost = [n for n, output in was.outputs.items() if not stored(output)]
            why = tuple(f"{name} is no longer stored" for name in lost)
        if was is not None and not why:
            done[step.name] = was
        found[step.name] = Planned(step.name, key, causes, done.get(step.name), why)
    return list(found.values())


def _reasons(causes: Mapping[str, str], last: Done | None, upstream: list[str]) -> tuple[str, ...]:
    if last is None:
        return ("first time",)
    changed = [f"{name} changed" for name, value in causes.items() if last.causes.get(name, value) != value]
    new = [f"{name} is new" for name in causes if name not in last.causes]
    gone = [f"{name} is gone" for name in last.causes if name not in causes]
    return (*changed, *new, *gone, *(f"follows from {name}" for name in upstream)) or ("its inputs changed",)


def pin(log: Facts, app: str, model: str) -> Pinned | None:
    """The data that a model is trained on now."""
    row = log.get(PINS.name, f"{app}/{model}")
    return msgspec.json.decode(row, type=Pinned) if row is not None else None


def _row(log: Facts, projection: Projection, key: str) -> Done | None:
    row = log.get(projection.name, key)
    return msgspec.json.decode(row, type=Done) if row is not None else None
