"""What a version weighs, and how long it takes.

`weigh` counts what is stored: bytes of each artifact, trees and their leaves, numbers in a graph. It is the same in every run.
`timed` measures on this machine, and so is another record. There is no figure for memory here: what a process holds depends on
what else it has loaded, and an honest one needs a process of its own; the bytes of the artifacts are its lower bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
import onnx

from flyball.learn.examine.subject import Matrix
from flyball.learn.export import several
from flyball.learn.export.predictor import ARTIFACTS, Predictor

BATCH = 100
"""Rows of a batch that is timed."""
CALLS, BATCHES, WITHIN_S = 500, 50, 0.02
"""Calls that are timed, at most, and seconds for each of both: what is slow is timed less often."""
LEAST = 20
"""Calls that are timed at least: beneath that there is no 99th percentile."""

_LEAVES = re.compile(rb"^num_leaves=(\d+)", re.MULTILINE)


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """Deterministic.

    Attributes:
        artifacts: name -> bytes.
        total: their sum.
        trees: of a boosted model, `leaves` of all of them; None for other models, or where there is no text of it.
        numbers: in the ONNX graph: weights, thresholds, places; None where there is no graph.
    """

    artifacts: dict[str, int]
    total: int
    trees: int | None = None
    leaves: int | None = None
    numbers: int | None = None


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """Measured on one machine: seconds, the median and the 99th percentile, and how many calls they are of."""

    row_p50: float
    row_p99: float
    rows: int
    batch_p50: float
    batch_p99: float
    batches: int
    batch: int = BATCH


def weigh(artifacts: Mapping[str, bytes]) -> Weight:
    """What is stored of the declared model (a name with a slash is a rival's, and not counted)."""
    own = {name: data for name, data in sorted(artifacts.items()) if "/" not in name}
    booster, graph = own.get(ARTIFACTS["lightgbm"]), own.get(ARTIFACTS["onnx"])
    leaves = None if booster is None else [int(found) for found in _LEAVES.findall(booster)]
    return Weight(
        artifacts={name: len(data) for name, data in own.items()},
        total=sum(len(data) for data in own.values()),
        trees=None if leaves is None else len(leaves),
        leaves=None if leaves is None else sum(leaves),
        numbers=None if graph is None else _numbers(graph),
    )


def timed(predictor: Predictor, matrix: Matrix, timer: Callable[[], float]) -> Timed:
    """Time single rows and batches of `BATCH` rows (repeated where there are fewer).

    Args:
        predictor: as it will serve.
        matrix: (n, columns) rows to answer; at least one.
        timer: seconds since some moment; where it stands still, the bounds on the calls hold.
    """
    batch = matrix[np.arange(BATCH) % len(matrix)]
    alone = _times(lambda i: predictor.row(matrix[i % len(matrix)]), CALLS, timer)
    many = _times(lambda _: predictor.batch(batch), BATCHES, timer)
    row50, row99 = (float(q) for q in np.quantile(alone, [0.5, 0.99]))
    batch50, batch99 = (float(q) for q in np.quantile(many, [0.5, 0.99]))
    return Timed(row_p50=row50, row_p99=row99, rows=len(alone), batch_p50=batch50, batch_p99=batch99, batches=len(many))


def _times(call: Callable[[int], object], most: int, timer: Callable[[], float]) -> Sequence[float]:
    call(0)  # the first one pays for what is set up once
    begun, taken = timer(), []
    for i in range(most):
        started = timer()
        call(i)
        ended = timer()
        taken.append(ended - started)
        if ended - begun > WITHIN_S and i + 1 >= LEAST:
            break
    return taken


def _numbers(graph: bytes) -> int:
    """Numbers that the graph holds: initializers and the lists of its nodes' attributes."""
    held = 0
    for part in several.parts(graph)[0]:
        body = onnx.load_from_string(part).graph
        held += sum(int(np.prod(tensor.dims)) if tensor.dims else 1 for tensor in body.initializer)
        held += sum(len(a.floats) + len(a.ints) for node in body.node for a in node.attribute)
    return held
