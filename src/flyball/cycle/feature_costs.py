"""What a feature costs, measured now, here, and alone: to build for the past, to keep, and to look up for a question.

    seconds   `offline.build` of this feature for the last `BUILT` questions, with the reading of what it needs of its table
    bytes     its outputs in a version's examples, as Parquet; the content of its series in the online store
    latency   its look-up for the last `ASKED` questions, some times over

What features share (a table that two of them read, the frame of one row on which all expressions are computed) is counted
for each of them, so the costs of a model's features add up to more than the model costs.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from datetime import datetime
from time import perf_counter

import msgspec
import polars as pl

from flyball.cycle import snapshot
from flyball.cycle.session import Session
from flyball.data import contract, dataset
from flyball.learn.features import lookup, offline, online
from flyball.learn.features.declare import Feature, FeatureSet, Latest, Window
from flyball.learn.model import Model

BUILT = 100_000
"""Questions that a feature is built for, at most."""
ASKED = 200
"""Questions whose features are looked up."""
PASSES = 4
"""Times that each is looked up; the first warms up and is not counted."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one feature costs; None where it was not measured, since it is not there yet.

    Attributes:
        seconds: to build it for `questions` questions.
        stored: bytes in the examples of the version that is looked at.
        online: bytes in the online store; what another feature or model shares is counted again.
        p50, p99: microseconds of a look-up.
    """

    seconds: float | None = None
    questions: int = 0
    stored: int | None = None
    online: int | None = None
    p50: float | None = None
    p99: float | None = None


class Fresh(msgspec.Struct, frozen=True, kw_only=True):
    """How far the online store has come with a feature.

    Attributes:
        batch: the last batch that its series hold; `of` is the last one of its table.
        known: when the newest thing that they hold, a row or an outcome, was known; None where there is none.
    """

    batch: int
    of: int
    known: datetime | None


def questions(session: Session, model: Model) -> pl.DataFrame:
    """The last questions that were due, at most `BUILT`: request columns and `_asked`, by `_asked`."""
    spec = contract.spec(model.question)
    moment = pl.col(model.asked.column.name) - model.asked.lead
    rows = dataset.read(session.tables, model.question, dataset.latest(session.tables, model.question))
    due = rows.select(*(c.name for c in spec.request), _asked=moment).filter(pl.col("_asked") <= session.clock.now())
    return due.top_k(BUILT, by="_asked").collect().sort("_asked")


def alone(feature: Feature) -> FeatureSet:
    """A set of this feature and nothing else."""
    return FeatureSet((feature,), feature.place)


def costs(session: Session, model: Model, examples: pl.DataFrame | None, sizes: Mapping[str, int]) -> dict[str, Cost]:
    """The cost of each feature of a model, by name.

    Args:
        examples: of the version that is looked at, without the features that have changed since; None: there is none.
        sizes: series -> bytes, of the online store.
    """
    if not all(snapshot.present(session, model).values()):
        return {f.name: Cost() for f in model.features.features}
    tables = snapshot.read(session, model, snapshot.present(session, model))
    asked = questions(session, model)
    if asked.height:
        offline.build(model.features, model.question, asked.tail(ASKED), tables)  # what is loaded once is not counted
    found = {}
    for feature in model.features.features:
        own, seconds = alone(feature), None
        if asked.height:
            begun = perf_counter()
            offline.build(own, model.question, asked, tables)
            seconds = perf_counter() - begun
        series = online.names(own)
        p50, p99 = _looked_up(session, model, feature, asked.tail(ASKED))
        found[feature.name] = Cost(
            seconds=seconds,
            questions=asked.height,
            stored=_stored(examples, [o.name for o in own.outputs(model.question)]),
            online=sum(sizes.get(s, 0) for s in series) if series else None,
            p50=p50,
            p99=p99,
        )
    return found


def fresh(session: Session, feature: Feature) -> Fresh | None:
    """How far the online store has come with a feature; None where it needs none, or was never filled."""
    if not isinstance(feature, Latest | Window):
        return None
    positions = [p for s in online.names(alone(feature)) if (p := session.online.position(s)) is not None]
    if not positions:
        return None
    spec, batch = contract.spec(feature.table), min(positions)
    of = session.tables.head(spec.name).batch
    known = None
    if 0 < batch <= of:
        known = dataset.cutoff(dataset.scan(session.tables, spec, batch))
    return Fresh(batch=batch, of=of, known=known)


def _looked_up(
    session: Session, model: Model, feature: Feature, asked: pl.DataFrame
) -> tuple[float, float] | tuple[None, None]:
    """The median and the 99th percentile of a look-up, in microseconds; None where there is nothing to look up yet."""
    own = alone(feature)
    if asked.is_empty() or any(session.online.position(s) is None for s in online.names(own)):
        return None, None
    look = lookup.Lookup(own, model.question, session.online)
    requests = [(row.pop("_asked"), row) for row in asked.iter_rows(named=True)]
    taken = []
    for number in range(PASSES):
        for moment, request in requests:
            begun = perf_counter()
            look(request, moment)
            if number:
                taken.append(perf_counter() - begun)
    taken.sort()
    return _quantile(taken, 0.5), _quantile(taken, 0.99)


def _quantile(taken: list[float], level: float) -> float:
    return taken[max(0, math.ceil(level * len(taken)) - 1)] * 1e6


def _stored(examples: pl.DataFrame | None, outputs: list[str]) -> int | None:
    """Bytes of these columns as `examples.to_bytes` writes them."""
    if examples is None or not set(outputs) <= set(examples.columns):
        return None
    file = io.BytesIO()
    examples.select(outputs).write_parquet(file, compression="zstd", statistics=False, row_group_size=1 << 18)
    return file.tell()
