"""The adversary: how far an answer can be moved by changes of a row that nobody would notice.

It may move at most `COLUMNS` numbers of a row by `REACH` of their spread, and is a search within that budget: each number by
itself in either direction, the strongest together, and draws at random. What it finds is possible; what it does not find may be
possible too, so its figures are lower bounds. Beside them stands what chance does with the same budget.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from flyball.learn import sampling
from flyball.learn.examine.subject import REFUSALS, Answer, Matrix, Subject
from flyball.learn.task import Answers

ROWS = 200
"""Rows that are attacked, at most."""
CALL = 1 << 22
"""Cells that are asked about in one call, at most."""
MOST = 40
"""Numbers that may be moved, the first of them."""
COLUMNS, REACH, RANDOM = 3, 0.1, 4
"""The adversary's budget: numbers of a row that it moves, by how much of their spread, and draws at random besides."""


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """What the smallest changes do to an answer (of several numbers in it, to that which moves most).

    Attributes:
        n: rows; `columns`: numbers that may be moved, of which at most `moved` are, by `reach` of their spread.
        mean: the greatest change that was found, averaged over rows; `most`: of all rows.
        chance: the same mean for changes drawn at random within the same budget.
        flipped: share of the decisions that some change turns; None where nothing is decided.
    """

    n: int
    columns: int
    moved: int
    reach: float
    mean: float
    most: float
    chance: float
    flipped: float | None


def attack(subject: Subject, index: npt.NDArray[np.intp], plain: Answers) -> tuple[Attack | None, str]:
    """Greedy: what each number does by itself in either direction, then the strongest together; and draws at random."""
    kept = sampling.drawn(len(index), ROWS, subject.seed)
    matrix, plain, index = subject.test.at(index[kept]).dense, plain[kept], index[kept]
    wide = spread(matrix)
    free = np.array([c for c in subject.encoder.numbers[:MOST] if wide[c] > 0], dtype=np.intp)
    if not len(free):
        return None, "no number that differs between rows can be moved"
    rng = np.random.default_rng(subject.seed)
    n, k = len(matrix), min(COLUMNS, len(free))
    signs = [(c, sign) for c in range(len(free)) for sign in (-1.0, 1.0)]
    shifts = np.zeros((len(signs) + RANDOM, n, len(free)))
    for at, (c, sign) in enumerate(signs):
        shifts[at, :, c] = sign
    for at in range(len(signs), len(shifts)):
        order = np.argsort(rng.random((n, len(free))), axis=1)[:, :k]
        np.put_along_axis(shifts[at], order, rng.choice([-1.0, 1.0], (n, k)), axis=1)
    tried = _moved(subject, matrix, free, shifts * (REACH * wide[free]))
    if isinstance(tried, str):
        return None, f"the model cannot answer moved rows: {tried}"
    signed = tried - plain if plain.ndim == 1 else _headline(subject, tried) - subject.task.headline(plain)
    combined = _combined(signed[: len(signs)], k)
    last = _moved(subject, matrix, free, combined * (REACH * wide[free]))
    tried = tried if isinstance(last, str) else np.concatenate([tried, last])
    far = np.abs(tried - plain)
    far = far if far.ndim == 2 else far.max(axis=2)
    decided = subject.decided(plain, index)
    turned = None
    if decided is not None:
        turned = np.any([subject.decided(answers, index) != decided for answers in tried], axis=0)
    return Attack(
        n=n,
        columns=len(free),
        moved=k,
        reach=REACH,
        mean=float(far.max(axis=0).mean()),
        most=float(far.max()),
        chance=float(far[len(signs) : len(signs) + RANDOM].mean()),
        flipped=None if turned is None else float(turned.mean()),
    ), ""


def _combined(signed: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.float64]:
    """(2 (k - 1), n, columns) the two, ..., k strongest moves of each row together: once all upwards, once all downwards.

    Args:
        signed: (2 columns, n) how each single move changes the answer: column by column, first down, then up.
    """
    pairs = signed.reshape(-1, 2, signed.shape[1])
    shifts = []
    for direction in (1.0, -1.0):
        gain = direction * pairs
        sign = np.where(gain[:, 1] >= gain[:, 0], 1.0, -1.0)
        order = np.argsort(-gain.max(axis=1), axis=0, kind="stable")
        for together in range(2, k + 1):
            shift = np.zeros((signed.shape[1], len(pairs)))
            top = order[:together].T
            np.put_along_axis(shift, top, np.take_along_axis(sign.T, top, axis=1), axis=1)
            shifts.append(shift)
    return np.array(shifts).reshape(-1, signed.shape[1], len(pairs))


def _moved(
    subject: Subject, matrix: Matrix, free: npt.NDArray[np.intp], shifts: npt.NDArray[np.float64]
) -> Answers | str:
    """(moves, n) or (moves, n, width): the answers to the rows after each move."""
    if not len(shifts):
        return "no moves"
    found = []
    each = max(1, CALL // matrix.size)
    for start in range(0, len(shifts), each):
        part = shifts[start : start + each]
        moved = np.repeat(matrix[None], len(part), axis=0)
        moved[:, :, free] = (moved[:, :, free] + part).astype(np.float32)
        answers = tried(subject.answer, moved.reshape(-1, matrix.shape[1]))
        if isinstance(answers, str):
            return answers
        found.append(answers.reshape(len(part), len(matrix), *answers.shape[1:]))
    return np.concatenate(found)


def _headline(subject: Subject, answers: Answers) -> Answers:
    """(moves, n) of (moves, n, width)."""
    flat = subject.task.headline(answers.reshape(-1, answers.shape[-1]))
    return flat.reshape(answers.shape[:2])


def spread(matrix: Matrix) -> npt.NDArray[np.float64]:
    """(columns,) robust standard deviations: of the middle 80 % of the rows, else of all; zero where nothing differs."""
    with np.errstate(invalid="ignore", over="ignore"):
        known = np.ma.masked_invalid(matrix.astype(np.float64))
        filled = np.sort(known.filled(np.inf), axis=0)
        n = np.asarray(known.count(axis=0), dtype=np.float64)
        low, high = (
            np.take_along_axis(filled, (share * np.maximum(n - 1, 0)).astype(np.intp)[None], axis=0)[0]
            for share in (0.1, 0.9)
        )
        middle = np.where(n > 1, high - low, 0.0) / 2.563
        whole = np.asarray(known.std(axis=0).filled(0.0))
    found = np.where(middle > 0, middle, whole)
    return np.where(np.isfinite(found), found, 0.0)


def tried(answer: Answer, matrix: Matrix) -> Answers | str:
    """The answers, or the class of what was raised: its text could hold anything."""
    try:
        answers = answer(matrix)
    except REFUSALS as error:
        return type(error).__name__
    return answers if np.isfinite(answers).all() else "answers that are no numbers"
