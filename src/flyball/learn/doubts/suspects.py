"""Checks of examples, before anybody believes what a model reaches on them.

    leaks         features that tell the outcome too well to have been known when asked, or that only name the row (`leaks`)
    shifts        features whose test values are not spread as those that train, beyond luck (`shifts`)
    adversarial   whether a small model can tell test rows from training rows, and by what
    duplicates    test rows that the model has seen in training

Suspicion, not proof: nothing is decided by it. Each says what it goes by, why that matters and what to do (`told`). Looked at
are at most `ROWS` rows that train and as many test rows, drawn with a fixed seed; of duplicates all rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import numpy.typing as npt

from flyball.learn import sampling, split
from flyball.learn.doubts import leaks as leaking
from flyball.learn.doubts import shifts as shifting
from flyball.learn.doubts.leaks import SEED, Leak
from flyball.learn.doubts.shifts import Adversarial, Duplicates, Shift
from flyball.learn.encoding.encode import Encoder
from flyball.learn.examples import Examples
from flyball.learn.split import Bounds, Mask
from flyball.learn.task import Task

ROWS = 20_000
"""Rows that train, and test rows, that are looked at, at most."""
MOST = 40
"""Shifts that are kept, the greatest first, and leaks."""
TOLD = 5
"""Shifts that are named in a sentence."""
APART = 0.6
"""A ROC AUC of telling test rows from training rows, from which on it is told."""
REPEATED, FEWEST = 0.01, 3
"""A share of test rows that were seen in training, and a number of them, from which on it is told."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. Stored as deterministic JSON (`facts.encode`); holds names of features, and no value of any.

    Attributes:
        fit, test: rows that were looked at.
        columns: features that were.
        shifts: the greatest first; also those that mean nothing.
        adversarial: None where there are too few rows or days.
    """

    fit: int
    test: int
    columns: int
    leaks: tuple[Leak, ...]
    shifts: tuple[Shift, ...]
    adversarial: Adversarial | None
    duplicates: Duplicates


def check(examples: Examples, bounds: Bounds, encoder: Encoder, task: Task) -> Checked:
    """Look at the examples of a training; deterministic.

    Args:
        bounds: by which they are cut, as for the training.
        encoder: fitted on the rows that train the shipped model.
        task: what is predicted; of what is unsupervised no feature is suspected of telling the outcome, which nobody learns.

    Raises:
        DataError: as `split.cut`.
    """
    spans = split.cut(examples, bounds)
    # The terms of a text are no features that a person declared, and there are thousands of them.
    encoder = Encoder(columns=tuple(column for column in encoder.columns if column.reads != "prose"))
    fit, test = _sample(spans.fit), _sample(spans.test)
    seen = Checked(
        fit=len(fit),
        test=len(test),
        columns=len(encoder.columns),
        leaks=(),
        shifts=(),
        adversarial=None,
        duplicates=shifting.duplicates(examples, spans),
    )
    if not encoder.columns:
        return seen
    rows = np.sort(np.concatenate([fit, test]))
    matrix = encoder.encode(examples.inputs[rows])
    held = np.isin(rows, test)
    mask = np.zeros(len(examples.labelled), dtype=np.bool_)
    mask[rows] = True
    blocks = split.blocks(examples, bounds, mask)
    leaks = leaking.identifying(matrix[~held], encoder, int(spans.fit.sum()))
    if task.kind != "anomaly":
        own = np.arange(len(rows)) if blocks is None else np.unique(blocks, return_inverse=True)[1]
        leaks = leaking.outcome(matrix[~held], encoder, examples.labels[fit], task, own[~held] % 2) + leaks
    return msgspec.structs.replace(
        seen,
        leaks=tuple(leaks[:MOST]),
        shifts=tuple(shifting.shifts(matrix, encoder, held, blocks)[:MOST]),
        adversarial=shifting.adversarial(matrix, encoder, held, blocks),
    )


def _sample(mask: Mask) -> npt.NDArray[np.intp]:
    rows = np.flatnonzero(mask)
    return rows[sampling.drawn(len(rows), ROWS, SEED)]


def told(checked: Checked) -> list[str]:
    """What a person should look at: one sentence or two each; nothing where nothing is suspected."""
    return [*_leaks(checked), *_shifts(checked), *_repeats(checked.duplicates)]


_MEASURES = {"roc_auc": "ROC AUC", "r2": "R2", "rows_per_value": "rows a value"}


def _leaks(checked: Checked) -> Iterator[str]:
    for leak in checked.leaks:
        rest = f", all weaker features together {leak.others:.3f}" if leak.others is not None else ""
        reached = f"({_MEASURES[leak.measure]} {leak.alone:.3f}{rest})"
        if leak.why == "identifies":
            yield (
                f"{leak.feature} names the row, and says nothing of it: {leak.alone:.1f} training rows share a value. "
                "What is learned of it holds for no new row. Leave it out, or use what is known of the entity: a window."
            )
        elif leak.why == "presence":
            yield (
                f"Whether {leak.feature} is there tells the outcome {reached}. It may be filled in when the outcome is "
                "known. Look at when its column is written; if that is after the question, leave it out."
            )
        else:
            alone = "is the outcome, said otherwise" if leak.why == "equal" else "alone tells the outcome too well"
            yield (
                f"{leak.feature} {alone} {reached}. It may be made from the outcome, or after it. Ask when it is known: "
                "declare it an outcome, or its table's known time, and it is refused or seen only in time; if it is known "
                "when asked, keep it."
            )


def _shifts(checked: Checked) -> Iterator[str]:
    moved = [each for each in checked.shifts if each.certain]
    if moved:
        named = ", ".join(f"{each.feature} (psi {each.psi:.2f})" for each in moved[:TOLD])
        more = f" and {len(moved) - TOLD} more" if len(moved) > TOLD else ""
        yield (
            f"Test rows are not spread as those that train: {named}{more}. How good the model is there may differ from what "
            "validation said; if that is the season, test a longer span, and if it stays, retrain more often."
        )
    found = checked.adversarial
    if found is not None and found.low >= APART:
        by = ", ".join(f"{name} ({share:.0%})" for name, share in found.telling)
        yield (
            f"A small model tells test rows from training rows (ROC AUC {found.roc_auc:.2f}, {found.low:.2f} to "
            f"{found.high:.2f}), by {by}. What grows with time (counters, ages, numbers of rows) teaches the period: use "
            "differences or rates instead."
        )


def _repeats(found: Duplicates) -> Iterator[str]:
    if found.same >= max(REPEATED * found.n, FEWEST):
        usual = f"; {found.usual:.0%} of the training rows repeat another of them in that way"
        yield (
            f"{found.same:,} of {found.n:,} test rows ({found.same / found.n:.1%}) have the features and the outcome of a "
            f"training row{usual}. If they are the same things, not only alike, the model has seen its test: split by group, "
            "fb.by_group(what they have in common), or keep one of each in the preparation."
        )
    if found.contrary >= max(REPEATED * found.n, FEWEST):
        yield (
            f"{found.contrary:,} of {found.n:,} test rows have the features of training rows that all came out otherwise: what "
            "the features say does not decide, or labels are wrong."
        )
