"""Packaging: a fitted estimator becomes named bytes, each loaded back and measured against the estimator itself.

Every way to serve it is an *offer*: the native one of its family, which must give the same bits, and
ONNX, which must hold the parity gate on every row of the matrix and on probes of it with values left out. What does
not is left out, with the reason. `Packed` is deterministic; `Choice` is measured, and so kept apart from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
import numpy as np

from flyball._kernel.errors import Bug, DeclarationError, FlyballError, StateError
from flyball.learn import task
from flyball.learn.export import families, onnx_write, parity, predictor
from flyball.learn.export.several import Several, assembled, join

MEASURED_S = 0.2
"""Seconds spent on measuring one predictor, at most, beyond its first pass."""

MOST_CELLS = 1 << 24
"""Cells of a sparse matrix that are made dense at a time: 64 MiB."""

PASSES = 25
"""Passes over the rows while measuring one predictor, at most: in a rehearsal the timer tells what a seed drew, whatever a
forest of scikit-learn takes."""

ALONE = 20
"""Rows that a predictor is measured with where there is no other: nothing is decided by it."""

Timer = Callable[[], float]
"""Seconds since some fixed moment: `Clock.monotonic`, so that a rehearsal measures what its seed says."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One way to serve the model: shipped, or the reason why not."""

    kind: predictor.Kind
    parity: parity.Parity | None = None
    """Against the estimator, over the matrix and its probes; None when there was nothing to compare."""
    refused: str = ""

    @property
    def shipped(self) -> bool:
        """Whether the artifact is there."""
        return not self.refused


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """What a version stores of its model: same estimator and matrix, same value."""

    artifacts: dict[str, bytes]
    offers: tuple[Offer, ...]

    @property
    def kinds(self) -> tuple[predictor.Kind, ...]:
        """The kinds that can be loaded, the native one first."""
        return tuple(offer.kind for offer in self.offers if offer.shipped)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """The predictor to serve with, and what was measured (so another run may choose otherwise among equals)."""

    kind: predictor.Kind
    exact: bool
    """It gives the estimator's own bits."""
    row_us: dict[str, float]
    """Microseconds a row of each kind that was a candidate."""


def answers(fitted: Any, matrix: Any, kind: task.Task) -> task.Answers:
    """What a fitted estimator itself answers: float64 of shape (rows,), or (rows, width) as the task has it.

    Args:
        fitted: what `train.fit` returned.
        matrix: float32, (rows, features), or scipy's CSR of it, which is answered in dense pieces.
        kind: the task.

    Raises:
        DeclarationError: `not-one-number`, when it answers otherwise.
    """
    if not isinstance(matrix, np.ndarray):
        size = max(1, MOST_CELLS // matrix.shape[1])
        pieces = [matrix[i : i + size].toarray() for i in range(0, max(1, matrix.shape[0]), size)]
        return np.concatenate([answers(fitted, piece, kind) for piece in pieces])
    wanted = (len(matrix),) if kind.width == 1 else (len(matrix), kind.width)
    if not len(matrix):
        return np.zeros(wanted, dtype=np.float64)
    found = _own(fitted, matrix)
    if found.shape != wanted:
        raise DeclarationError(
            "not-one-number",
            f"{_name(fitted)} answers {found.shape[1:] or 1} numbers a row, and {kind.kind} needs {kind.width}.",
            why="an answer is one number, or one a class or a quantile",
            next="return an estimator of that task",
        )
    return found


def pack(estimator: Any, matrix: Any, kind: task.Task) -> Packed:
    """Everything that can serve `estimator`, proven on `matrix`.

    Args:
        estimator: what `train.fit` returned.
        matrix: float32, the whole test set; of scipy's CSR as many rows, evenly spaced, as are dense in `MOST_CELLS`.
        kind: the task.

    Raises:
        DeclarationError: `not-one-number`; `no-safe-format` when neither a native format nor ONNX can carry it.
        Bug: `floor-changed-answers`, when flooring the thresholds of a booster changed an answer.
    """
    dense = matrix if isinstance(matrix, np.ndarray) else _thinned(matrix)
    rows = np.concatenate([dense, _answerable(estimator, parity.probes(dense), kind)])
    expected = answers(estimator, rows, kind)
    artifacts: dict[str, bytes] = {}
    offers = tuple(
        _offer(name, make, rows, expected, artifacts) for name, make in _makers(estimator, matrix.shape[1]).items()
    )
    if not artifacts:
        raise DeclarationError(
            "no-safe-format",
            f"No safe format can carry this {_name(estimator)}.",
            why="; ".join(f"{offer.kind}: {offer.refused}" for offer in offers),
            next="use an estimator of LightGBM or XGBoost, or one of scikit-learn that docs/reference/estimators.md lists",
        )
    return Packed(artifacts=artifacts, offers=offers)


def fastest(packed: Packed, matrix: predictor.Matrix, timer: Timer, *, within: float = 0.0) -> Choice:
    """The fastest predictor among those that answer as the estimator does.

    Args:
        packed: what `pack` made.
        matrix: rows to measure with, one at a time; some dozens are enough.
        within: how far answers may lie from the estimator's (scaled, as in `parity`). At 0 only the same bits count,
            so that a measurement never decides an answer; `parity.TOLERANCE` lets a server do without scikit-learn.

    When only ONNX was shipped, it is chosen whatever `within` says: it passed the gate. A rule is the only candidate
    where it is one, and is not measured: its bytes alone answer nothing.
    """
    shipped = [(offer.kind, offer.parity) for offer in packed.offers if offer.shipped and offer.parity is not None]
    near = [kind for kind, found in shipped if found.exact or found.max_scaled <= within > 0]
    candidates = near or [kind for kind, _ in shipped]
    if candidates == ["rule"]:
        return Choice(kind="rule", exact=True, row_us={})
    if len(candidates) == 1:
        matrix = matrix[:ALONE]
    row_us = {kind: _row_us(predictor.load(kind, packed.artifacts), matrix, timer) for kind in candidates}
    chosen = min(candidates, key=lambda kind: row_us[kind])
    return Choice(kind=chosen, exact=dict(shipped)[chosen].exact, row_us={str(k): us for k, us in row_us.items()})


def _own(fitted: Any, matrix: predictor.Matrix) -> task.Answers:
    if isinstance(fitted, Several):
        return assembled([_own(part, matrix) for part in fitted.parts], fitted.places, fitted.width)
    return families.of(fitted).answers(fitted, matrix)


def _makers(fitted: Any, features: int) -> families.Makers:
    """What writes each artifact; of several estimators those kinds that can write each of them."""
    if not isinstance(fitted, Several):
        return families.of(fitted).makers(fitted, features)
    parts = [_makers(part, features) for part in fitted.parts]
    kinds: list[predictor.Kind] = [kind for kind in parts[0] if all(kind in part for part in parts)]

    def joined(kind: predictor.Kind) -> bytes:
        return join([part[kind]() for part in parts], fitted.places, fitted.width)

    return {kind: partial(joined, kind) for kind in kinds}


def _name(fitted: Any) -> str:
    return type(fitted.parts[0] if isinstance(fitted, Several) else fitted).__name__


def _offer(
    kind: predictor.Kind,
    make: Callable[[], bytes],
    rows: predictor.Matrix,
    expected: task.Answers,
    artifacts: dict[str, bytes],
) -> Offer:
    """Make one artifact, load it as serving would, compare, and keep it only if it may be shipped."""
    made: Mapping[str, bytes]
    try:
        made = {predictor.ARTIFACTS[kind]: make()}
        if kind == "rule":
            artifacts |= made
            # The app's own function answers here and there: there is no other form of it to compare with.
            return Offer(kind=kind, parity=parity.between(expected, expected))
        found = parity.between(expected, predictor.load(kind, made).batch(rows))
    except StateError as error:
        return Offer(kind=kind, refused=error.why or error.what)
    except onnx_write.FAILURES as error:
        return Offer(kind=kind, refused=f"{type(error).__name__}: {str(error)[:300]}")
    if kind == "lightgbm" and not found.exact:
        raise Bug(
            "floor-changed-answers",
            "Flooring a booster to float32 changed an answer.",
            why=f"row {found.worst_row} differs by {found.max_abs}",
        )
    if not (found.holds if kind == "onnx" else found.exact):
        limit = f"{parity.TOLERANCE} is allowed" if kind == "onnx" else "the same bits are needed"
        why = f"an answer differs by {found.max_abs:.3g} (row {found.worst_row} of {found.rows:,}); {limit}"
        return Offer(kind=kind, parity=found, refused=why)
    artifacts |= made
    return Offer(kind=kind, parity=found)


def _thinned(matrix: Any) -> predictor.Matrix:
    """Evenly spaced rows of a sparse matrix, dense."""
    rows, columns = matrix.shape
    count = min(rows, max(1, MOST_CELLS // columns))
    dense: predictor.Matrix = matrix[np.arange(count) * rows // max(1, count)].toarray()
    return dense


def _answerable(estimator: Any, probes: predictor.Matrix, kind: task.Task) -> predictor.Matrix:
    """The probes, or none of them if the estimator itself raises on missing values: then none can be compared."""
    try:
        answers(estimator, probes, kind)
    except FlyballError:
        raise
    except onnx_write.FAILURES:
        return probes[:0]
    return probes


def _row_us(loaded: predictor.Predictor, matrix: predictor.Matrix, timer: Timer) -> float:
    """Microseconds a row: the best of several passes, because noise only ever adds."""
    best, begun = float("inf"), timer()
    for _ in range(PASSES):
        start = timer()
        for row in matrix:
            loaded.row(row)
        now = timer()
        best = min(best, (now - start) / len(matrix))
        if now - begun > MEASURED_S:
            break
    return best * 1e6
