"""What happens to the answers when their inputs go wrong: noise, missing columns, unseen categories, other units, an adversary.

Each **probe** changes the held-out rows as a fault would, asks again, and compares the loss of the same rows before and after.
Faults are made in the encoded matrix, where a fault of a request ends: a missing value is NaN, an unseen category its own code.
A column at a time is the question "what if this one breaks?"; of many columns the worst are named, and their intervals hold
together (Bonferroni over all of them), since the worst of many is large by chance alone.

All probes are asked in one call per `CALL` cells, because a call has a price of its own. `attack` is the adversary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from flyball._kernel.conditions import Measurement
from flyball.learn.encoding.encode import LARGEST, UNSEEN, Encoder
from flyball.learn.examine import attack, losses, means
from flyball.learn.examine.attack import CALL, Attack
from flyball.learn.examine.subject import Matrix, Omitted, Rows, Subject, silent
from flyball.learn.quality.metrics import LEVEL
from flyball.learn.task import Answers

ROWS = 2_000
"""Rows that are probed, at most."""
MOST = 40
"""Columns that are probed one at a time; the first of them."""
NOISE = (0.05, 0.1, 0.2)
"""Of a column's spread, normally distributed, in all numbers at once."""
UNITS = ("x10", "x1000", "x1.8+32")
"""A column in another unit: a shifted decimal point, kilo, Fahrenheit for Celsius."""
NAMED = 5
"""Columns that are named of a fault, the worst first."""

Fault = Literal["noise", "missing", "unseen", "units"]


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    Attributes:
        column: that was broken; "" for all numbers at once.
        how: how large the noise was, or which unit; "" otherwise.
        before: the mean loss on the probed rows; `change`: after less before, of the same rows.
        flipped: share of the decisions that changed; None where nothing is decided.
    """

    fault: Fault
    column: str = ""
    how: str = ""
    before: float
    change: Measurement
    flipped: float | None


class Robust(msgspec.Struct, frozen=True, kw_only=True):
    """What was probed: of faults in single columns the worst `NAMED`, and how many there were.

    Attributes:
        why: not applicable, and why; "" otherwise.
        n: rows that were probed.
        probed: fault -> columns that were broken one at a time.
    """

    why: str = ""
    n: int = 0
    probes: tuple[Probe, ...] = ()
    probed: dict[str, int] = {}
    attack: Attack | None = None
    omitted: tuple[Omitted, ...] = ()


@dataclass(frozen=True, slots=True)
class _Planned:
    """`places` of the matrix are those of a declared column: many of a text."""

    fault: Fault
    places: tuple[int, ...]
    column: str = ""
    how: str = ""
    gone: float = float("nan")


def robust(subject: Subject) -> Robust:
    """Probe a sample of the held-out rows."""
    why = silent(subject.task, subject.test)
    if not why and subject.test.matrix.shape[1] != subject.encoder.width:
        why = "the columns of the matrix are not those of the encoder"
    if why:
        return Robust(why=why)
    planned, omitted = _planned(subject.encoder)
    index = subject.test.within(ROWS, subject.seed)
    rows = subject.test.at(index)
    plain = subject.answer(rows.dense) if subject.answers is None else subject.answers[index]
    answered, refused = _asked(subject, rows.dense, planned)
    probes = _compared(subject, (rows, index), plain, answered)
    found, reason = attack.attack(subject, index, plain)
    omitted += [*refused, *([Omitted(what="adversary", why=reason)] if reason else [])]
    singles = [p for p, _ in answered if p.fault != "noise"]
    probed = {fault: len({p.column for p in singles if p.fault == fault}) for fault in ("missing", "unseen", "units")}
    return Robust(n=len(rows), probes=probes, probed=probed, attack=found, omitted=tuple(omitted))


def _planned(encoder: Encoder) -> tuple[list[_Planned], list[Omitted]]:
    numbers, categories, texts = set(encoder.numbers), set(encoder.categories), set(encoder.texts)
    planned = [_Planned("noise", encoder.numbers, how=f"{amount:g}") for amount in NOISE if numbers]
    for name, span in encoder.groups[:MOST]:
        places = tuple(span)
        # A text without a term that is known is all zeros, and so is one that is missing.
        planned.append(_Planned("missing", places, name, gone=0.0 if texts.issuperset(places) else float("nan")))
        if categories.issuperset(places):
            planned.append(_Planned("unseen", places, name))
        if numbers.issuperset(places):
            planned += [_Planned("units", places, name, unit) for unit in UNITS]
    left = len(encoder.groups) - MOST
    omitted = (
        [Omitted(what="columns one at a time", why=f"{left:,} columns beyond the first {MOST}")] if left > 0 else []
    )
    for what, there in (("noise", numbers), ("units", numbers), ("unseen", categories)):
        if not there:
            omitted.append(Omitted(what=what, why="no column is a " + ("category" if what == "unseen" else "number")))
    return planned, omitted


def _broken(matrix: Matrix, planned: _Planned, spread: npt.NDArray[np.float64], rng: np.random.Generator) -> Matrix:
    changed = matrix.copy()
    own = list(planned.places)
    if planned.fault == "missing":
        changed[:, own] = planned.gone
    elif planned.fault == "unseen":
        changed[:, own] = UNSEEN
    else:
        values = matrix[:, own].astype(np.float64)
        if planned.fault == "noise":
            values = values + float(planned.how) * spread[own] * rng.standard_normal(values.shape)
        else:
            values = values * 1.8 + 32 if planned.how == UNITS[2] else values * float(planned.how[1:])
        # What is too large for float32 is missing, as the encoder has it.
        changed[:, own] = np.where(np.abs(values) <= LARGEST, values, np.nan).astype(np.float32)
    return changed


def _asked(
    subject: Subject, matrix: Matrix, planned: Sequence[_Planned]
) -> tuple[list[tuple[_Planned, Answers]], list[Omitted]]:
    """The answers to each probe, many of them in one call; and what could not be answered at all."""
    each, spread = max(1, CALL // matrix.size), attack.spread(matrix)
    rng = np.random.default_rng(subject.seed)
    found: list[tuple[_Planned, Answers]] = []
    refused: dict[tuple[str, str], int] = {}
    for start in range(0, len(planned), each):
        part = planned[start : start + each]
        broken = [_broken(matrix, probe, spread, rng) for probe in part]
        together = attack.tried(subject.answer, np.concatenate(broken))
        if not isinstance(together, str):
            found += zip(part, np.split(together, len(part)), strict=True)
            continue
        for probe, changed in zip(part, broken, strict=True):  # one of them breaks the call: which?
            alone = attack.tried(subject.answer, changed)
            if isinstance(alone, str):
                refused[probe.fault, alone] = refused.get((probe.fault, alone), 0) + 1
            else:
                found.append((probe, alone))
    return found, [
        Omitted(what=fault, why=f"the model cannot answer {count:,} of these probes: {why}")
        for (fault, why), count in refused.items()
    ]


def _compared(
    subject: Subject,
    sample: tuple[Rows, npt.NDArray[np.intp]],
    plain: Answers,
    answered: Sequence[tuple[_Planned, Answers]],
) -> tuple[Probe, ...]:
    rows, index = sample
    before = losses.of_rows(subject.task, rows.outcome, plain)
    decided = subject.decided(plain, index)
    probes: dict[Fault, list[Probe]] = {}
    for planned, answers in answered:
        together = sum(p.fault == planned.fault for p, _ in answered) if planned.fault != "noise" else 1
        change = losses.of_rows(subject.task, rows.outcome, answers) - before
        measured = means.mean(change, rows.blocks, 1 - (1 - LEVEL) / together)
        if measured is None:
            continue
        after = subject.decided(answers, index)
        probe = Probe(
            fault=planned.fault,
            column=planned.column,
            how=planned.how,
            before=float(before.mean()),
            change=measured,
            flipped=None if decided is None or after is None else float(np.mean(decided != after)),
        )
        probes.setdefault(planned.fault, []).append(probe)
    for fault, found in probes.items():
        if fault != "noise":
            found.sort(key=lambda p: -p.change.estimate)
            del found[NAMED:]
    return tuple(probe for found in probes.values() for probe in found)
