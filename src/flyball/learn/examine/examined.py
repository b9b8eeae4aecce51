"""All of an examination, as one value that can be stored; `told` in `telling` says what matters of it.

Everything here is deterministic: the same subject gives the same bytes.
Samples bound the cost, whatever the number of rows; what refits is done only when asked for.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from flyball.learn import sampling
from flyball.learn.examine import diagnosis, groups, losses, robust, seeds, size, subject, trust, worst
from flyball.learn.examine.diagnosis import Diagnosis
from flyball.learn.examine.losses import Loss
from flyball.learn.examine.robust import Robust
from flyball.learn.examine.seeds import Seeds
from flyball.learn.examine.size import Weight
from flyball.learn.examine.subject import Subject
from flyball.learn.examine.trust import Trust
from flyball.learn.examine.worst import Worst
from flyball.learn.task import Kind


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is like. Stored as deterministic JSON (`facts.encode`); holds no row, and only columns that were given.

    Attributes:
        n: held-out rows that there were; each part says how many it looked at.
        loss: in which everything is measured; less is better.
        value: its mean over a sample of the held-out rows.
    """

    task: Kind
    n: int
    loss: Loss
    value: float | None
    worst: Worst
    robust: Robust
    diagnosis: Diagnosis
    seeds: Seeds
    trust: Trust
    weight: Weight
    seed: int


def examine(whole: Subject, *, refits: bool = False) -> Examined:
    """Examine a version.

    Args:
        whole: the version, and what is at hand.
        refits: train anew for the learning curve and for other seeds: some seconds, whatever the number of rows.
    """
    task, n = whole.task, len(whole.test)
    index = sampling.drawn(n, worst.ROWS, whole.seed)
    part = whole if len(index) == n else _part(whole, index)
    answers = part.answers if part.answers is not None else part.answer(part.test.dense)
    part = replace(part, answers=answers)
    why = subject.silent(task, part.test)
    return Examined(
        task=task.kind,
        n=n,
        loss=losses.NAMES[task.kind],
        value=None if why else float(losses.of_rows(task, part.test.outcome, answers).mean()),
        worst=worst.worst(task, part.test, answers, groups.cut(part.frame), part.seed),
        robust=robust.robust(part),
        diagnosis=diagnosis.diagnose(part, refits=refits),
        seeds=seeds.seeds(part, refits=refits),
        trust=trust.trust(task, part.test, answers),
        weight=size.weigh(whole.artifacts),
        seed=whole.seed,
    )


def _part(whole: Subject, index: subject.Index) -> Subject:
    return replace(
        whole,
        test=whole.test.at(index),
        frame=whole.frame[index],
        answers=None if whole.answers is None else whole.answers[index],
        groups=None if whole.groups is None else whole.groups[index],
    )
