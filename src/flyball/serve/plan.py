"""The serving plan of one version: everything that answering needs, compiled before the first question comes.

    request -> features (given, computed, looked up as of asked) -> encoded row -> predictor -> answer

A plan knows no app and reads no registry. It is a value that a server swaps as a whole, so that an answer comes from
exactly one version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from flyball._kernel import ids
from flyball._kernel.clock import micros
from flyball.learn.export.predictor import Predictor
from flyball.serve.journal import Answer

Row = Mapping[str, Any]
Lookup = Callable[[Row, datetime], Sequence[Any]]
"""(request, asked) -> the feature values, in the order of `Plan.outputs`."""
EncodeRow = Callable[[Sequence[Any]], np.ndarray]
"""Feature values -> float32, one per feature; the buffer is reused by the next call."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One version, ready to answer.

    Attributes:
        decode: bytes -> (rows, whether it was a list); refuses what breaks the contract.
        schema: the JSON schema of a request, named.
        asked_of: the request's time column that says when a question should be asked,
        lead: so long before it,
        tolerance: give or take this; outside, an answer is given and flagged.
        personal: request columns that are recorded as keyed hashes.
        hash: value -> keyed hash.
    """

    model: str
    version: str
    epoch: int
    decode: Callable[[bytes], tuple[list[dict[str, Any]], bool]]
    schema: Mapping[str, Any]
    outputs: tuple[str, ...]
    lookup: Lookup
    encode: EncodeRow
    predictor: Predictor
    key: tuple[str, ...]
    asked_of: str
    lead: timedelta
    tolerance: timedelta
    personal: frozenset[str]
    hash: Callable[[str], str]


_key = msgspec.json.Encoder(order="deterministic")


def answer(plan: Plan, row: dict[str, Any], asked: datetime, started: float) -> Answer:
    """Answer one question.

    Args:
        plan: by this version.
        row: the request, by column.
        asked: the moment of the question.
        started: `time.perf_counter()` when its bytes were whole.

    Raises:
        DataError: a value that the features or the encoder cannot read.
    """
    values = plan.lookup(row, asked)
    output = plan.predictor.row(plan.encode(values))
    recorded = recordable(plan, row)
    return Answer(
        id=ids.uuid7(asked),
        asked=micros(asked),
        model=plan.model,
        version=plan.version,
        epoch=plan.epoch,
        role="champion",
        within_tolerance=within_tolerance(plan, row, asked),
        key=_key.encode({name: recorded[name] for name in plan.key}).decode(),
        inputs=recorded,
        features=dict(zip(plan.outputs, values, strict=True)),
        output=output,
        latency_us=int((perf_counter() - started) * 1e6),
        via=plan.predictor.name,
    )


def within_tolerance(plan: Plan, row: Row, asked: datetime) -> bool:
    """Whether the question came near enough to its declared moment to be compared with training."""
    moment = row.get(plan.asked_of)
    # Added to what is near, since the request's time may be the first moment that there is.
    return moment is not None and abs(asked + plan.lead - moment) <= plan.tolerance


def recordable(plan: Plan, row: dict[str, Any]) -> dict[str, Any]:
    """The request as it may be recorded: personal values as keyed hashes."""
    if not plan.personal:
        return row
    return {
        name: plan.hash(str(value)) if name in plan.personal and value is not None else value
        for name, value in row.items()
    }
