"""Packaging: a fitted estimator becomes named bytes, each loaded back and measured against the estimator itself.

Every way to serve it is an *offer*: the native one (LightGBM's text, or skops), which must give the same bits, and
ONNX, which must hold the parity gate on every row of the matrix and on probes of it with values left out. What does
not is left out, with the reason. `Packed` is deterministic; `Choice` is measured, and so kept apart from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import lightgbm
import msgspec
import numpy as np
from sklearn.base import is_classifier

from flyball._kernel.errors import Bug, DeclarationError, FlyballError, StateError
from flyball.learn import task
from flyball.learn.export import boosted, native, onnx_write, parity, predictor

answers = native.answers

MEASURED_S = 0.2
"""Seconds spent on measuring one predictor, at most, beyond its first pass."""

PASSES = 1000
"""Passes over the rows while measuring one predictor, at most: the timer of a rehearsal may stand still."""

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


def pack(estimator: Any, matrix: predictor.Matrix) -> Packed:
    """Everything that can serve `estimator`, proven on `matrix` (float32, the whole test set).

    Raises:
        DeclarationError: `not-one-number`; `no-safe-format` when neither a native format nor ONNX can carry it.
        Bug: `floor-changed-answers`, when flooring the thresholds of a booster changed an answer.
    """
    features = matrix.shape[1]
    rows = np.concatenate([matrix, _answerable(estimator, parity.probes(matrix))])
    expected = answers(estimator, rows)
    artifacts: dict[str, bytes] = {}
    if isinstance(estimator, lightgbm.LGBMModel):
        floored = partial(boosted.floor, estimator.booster_.model_to_string())
        probability = bool(is_classifier(estimator))
        makers: dict[predictor.Kind, Callable[[], bytes]] = {
            "lightgbm": lambda: floored().encode(),
            "onnx": lambda: onnx_write.boosted(floored(), features, probability=probability),
        }
    else:
        makers = {"sklearn": lambda: native.dump(estimator), "onnx": lambda: onnx_write.estimator(estimator, features)}
    offers = tuple(_offer(kind, make, rows, expected, artifacts) for kind, make in makers.items())
    if not artifacts:
        raise DeclarationError(
            "no-safe-format",
            f"No safe format can carry this {type(estimator).__name__}.",
            why="; ".join(f"{offer.kind}: {offer.refused}" for offer in offers),
            next="use a LightGBM estimator, or estimators and transformers of scikit-learn that ONNX knows",
        )
    return Packed(artifacts=artifacts, offers=offers)


def fastest(packed: Packed, matrix: predictor.Matrix, timer: Timer, *, within: float = 0.0) -> Choice:
    """The fastest predictor among those that answer as the estimator does.

    Args:
        packed: what `pack` made.
        matrix: rows to measure with, one at a time; some dozens are enough.
        within: how far answers may lie from the estimator's (scaled, as in `parity`). At 0 only the same bits count,
            so that a measurement never decides an answer; `parity.TOLERANCE` lets a server do without scikit-learn.

    When only ONNX was shipped, it is chosen whatever `within` says: it passed the gate.
    """
    shipped = [(offer.kind, offer.parity) for offer in packed.offers if offer.shipped and offer.parity is not None]
    near = [kind for kind, found in shipped if found.exact or found.max_scaled <= within > 0]
    candidates = near or [kind for kind, _ in shipped]
    row_us = {kind: _row_us(predictor.load(kind, packed.artifacts), matrix, timer) for kind in candidates}
    chosen = min(candidates, key=lambda kind: row_us[kind])
    return Choice(kind=chosen, exact=dict(shipped)[chosen].exact, row_us={str(k): us for k, us in row_us.items()})


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


def _answerable(estimator: Any, probes: predictor.Matrix) -> predictor.Matrix:
    """The probes, or none of them if the estimator itself raises on missing values: then none can be compared."""
    try:
        answers(estimator, probes)
    except FlyballError:
        raise
    except native.FAILURES:
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
