"""What a version weighs: bytes of each artifact, trees and their leaves, numbers in a graph. It is the same in every run.

There is no figure for memory here: what a process holds depends on what else it has loaded, and an honest one needs a process
of its own; the bytes of the artifacts are its lower bound.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
import numpy as np
import onnx

from flyball.learn.export import several
from flyball.learn.export.predictor import ARTIFACTS

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


def _numbers(graph: bytes) -> int:
    """Numbers that the graph holds: initializers and the lists of its nodes' attributes."""
    held = 0
    for part in several.parts(graph)[0]:
        body = onnx.load_from_string(part).graph
        held += sum(int(np.prod(tensor.dims)) if tensor.dims else 1 for tensor in body.initializer)
        held += sum(len(a.floats) + len(a.ints) for node in body.node for a in node.attribute)
    return held
