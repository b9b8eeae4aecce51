"""Examples: what a model learns from. Each question of the past, its features as known when asked, and what came of it.

A **question** is a key of the model's contract, asked once: `lead` before the moment that a version of its row names, with
that version's columns as the request. It is the first version that was current when it says that it was asked. A row that
came to us only later was carried by the request itself, if it was declared as known by then (event time less `known`): so
the very first version counts also then. Nothing that came later has a part in the choice.

The **cutoff** is the present of the training: only rows known before it exist. Of each question asked before it, one of
    learned     the outcome of its last version had settled: an example
    void        it will not: still none `void_after` past the event time, or settled without a value
    unsettled   it may yet
    unaskable   nobody would have asked: each version's moment is null, had passed, or lies before the row could be known
Only the first are learned; all are counted. A model that is **unsupervised** learns from void and unsettled ones too: their
label is null, they train, and nothing is measured on them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np
import polars as pl

from flyball._kernel import clock
from flyball._kernel.errors import DataError, StateError
from flyball.data import contract
from flyball.data.contract import Personal, Spec
from flyball.learn import model as models
from flyball.learn.features import meaning, offline
from flyball.learn.features.meaning import NEVER
from flyball.learn.model import Model

FORMAT = 1
_HEADER = "flyball.examples"
REQUEST = "_request."
"""What the names of the request's columns begin with, beside the features."""
_MOMENT = pl.Datetime("us", "UTC")


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many questions came to which end, as known at the cutoff."""

    learned: int
    void: int
    unsettled: int
    unaskable: int


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    counts: Counts
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples by (asked, key), and what was counted on the way.

    Attributes:
        frame: `_asked`; `_settled` and `_label`, null where there is none; `_request.<column>` for the request's columns, which
            slices are made from (personal columns are left out, save those of the key); and the features under their names.
        features: the names of the features, in the order of their declaration.
        counts: also of what was not learned.
    """

    frame: pl.DataFrame
    features: tuple[str, ...]
    counts: Counts

    @property
    def inputs(self) -> pl.DataFrame:
        """The features alone."""
        return self.frame.select(self.features)

    @property
    def label(self) -> pl.Series:
        """What is predicted; null only for an unsupervised model, of a question that nothing came of."""
        return self.frame["_label"]

    @property
    def labelled(self) -> np.ndarray:
        """(n,) whether there is a label: rows without one train an unsupervised model, and are never measured."""
        return self.label.is_not_null().to_numpy()

    @property
    def labels(self) -> np.ndarray:
        """(n,) the same as estimators see it: Boolean; the places of an Enum's texts, int64; other numbers as float64.

        Where there is none (`labelled`) a Boolean is False.
        """
        label = self.label
        if label.dtype == pl.Boolean:
            return label.fill_null(value=False).to_numpy()
        return label.to_physical().cast(pl.Int64 if isinstance(label.dtype, pl.Enum) else pl.Float64).to_numpy()

    @property
    def asked(self) -> pl.Series:
        """When each question was asked, ascending."""
        return self.frame["_asked"]

    @property
    def settled(self) -> pl.Series:
        """When each outcome was known; null where there is none."""
        return self.frame["_settled"]

    def request(self, column: str) -> pl.Series:
        """A column of the request, to slice by."""
        return self.frame[REQUEST + column].alias(column)


def build(model: Model, tables: Mapping[str, pl.LazyFrame], cutoff: datetime) -> Examples:
    """The examples of a model, of all questions asked before `cutoff`.

    Args:
        model: checked by `model.check`.
        tables: contract name -> observation frame; the snapshot that is learned from.
        cutoff: nothing that became known at or after this moment takes part.

    Raises:
        DataError: as `offline.build`.
    """
    spec = contract.spec(model.question)
    found, unaskable = _questions(model, spec, tables, clock.micros(cutoff))
    end = found["_end"].value_counts()
    counted = dict(zip(end["_end"], end["count"], strict=True))
    settled = pl.col("_end") == "learned"
    trains = pl.col("_end") != "unaskable" if models.task(model).kind == "anomaly" else settled
    # What was not known at the cutoff is no label, although the row may say it already.
    learned = (
        found.filter(trains)
        .with_columns(pl.when(settled).then(pl.col(name)).alias(name) for name in ("_label", "_last_settled"))
        .sort("_at", *(meaning.comparable(k, found.schema[k]) for k in spec.key))
    )
    questions = learned.select(*(c.name for c in spec.request), _asked=pl.col("_at").cast(_MOMENT))
    features = offline.build(model.features, model.question, questions, tables)
    kept = [c.name for c in spec.request if c.key or c.name not in spec.with_role(Personal)]
    frame = pl.concat(
        [
            questions.select("_asked", *(pl.col(n).alias(REQUEST + n) for n in kept)),
            learned.select("_label", _settled=pl.col("_last_settled").cast(_MOMENT)),
            features,
        ],
        how="horizontal",
    )
    counts = Counts(
        learned=counted.get("learned", 0),
        void=counted.get("void", 0),
        unsettled=counted.get("unsettled", 0),
        unaskable=unaskable + counted.get("unaskable", 0),
    )
    return Examples(frame, tuple(features.columns), counts)


def _questions(model: Model, spec: Spec, tables: Mapping[str, pl.LazyFrame], cutoff: int) -> tuple[pl.DataFrame, int]:
    """Questions asked before the cutoff: request columns, `_at`, `_label`, `_last_settled`, `_end`; and the unaskable."""
    label, moment = model.predicts.name, model.asked
    if spec.name not in tables:
        raise DataError(
            "table-not-given",
            f"There is no table {spec.name}.",
            where=spec.place,
            why=f"The model {model.name!r} learns from it.",
            next="Ingest it with `flyball apply`.",
        )
    rows = tables[spec.name].filter(meaning.micros("_known") < cutoff)
    at = meaning.micros(moment.column.name) - meaning.span(moment.lead)
    wanted = [pl.col(c.name) for c in spec.request]
    frame = rows.select(*wanted, *meaning.times(spec), _label=pl.col(label), _at=at).collect()
    # A version that was mended in the moment it became known was never current: only what it was mended to could be seen.
    versions = offline.versions(frame, spec.key).filter(pl.col("_until") > pl.col("_known"))
    declared = pl.col("_event") - meaning.span(spec.known_before)
    current = (pl.col("_known") < pl.col("_at")) & (pl.col("_at") <= pl.col("_until"))
    carried = (declared <= pl.col("_at")) & (pl.col("_at") <= pl.col("_known")) & pl.col("_first")
    first = (
        versions.sort("_known", "_batch")
        .with_columns(_first=pl.col("_chain").is_first_distinct())
        .filter(current | carried)
        .unique("_chain", keep="first", maintain_order=True)
        .drop("_label", "_first")
    )
    last = versions.filter(pl.col("_until") == NEVER).select(
        "_chain", "_label", _last_settled="_settled", _last_event="_event"
    )
    unaskable = last.height - first.height
    settled = pl.col("_last_settled") < cutoff
    given_up = pl.lit(value=False)
    if spec.void_after is not None:
        given_up = pl.col("_last_event") + meaning.span(spec.void_after) <= cutoff
    ends = (
        pl.when(pl.col("_last_settled") <= pl.col("_at"))
        .then(pl.lit("unaskable"))
        .when(settled & pl.col("_label").is_not_null())
        .then(pl.lit("learned"))
        .when(settled | given_up)
        .then(pl.lit("void"))
        .otherwise(pl.lit("unsettled"))
    )
    asked = first.filter(pl.col("_at") < cutoff).join(last, on="_chain", how="left", maintain_order="left")
    return asked.with_columns(_end=ends), unaskable


def to_bytes(examples: Examples) -> bytes:
    """Examples as a Parquet file: the same examples are the same bytes, whatever the number of threads."""
    header = _Header(format=FORMAT, counts=examples.counts, features=examples.features)
    file = io.BytesIO()
    # Parquet keeps nothing of what lies under a null, and Arrow would; so equal frames are equal bytes.
    examples.frame.rechunk().write_parquet(
        file,
        compression="zstd",
        statistics=False,
        row_group_size=1 << 18,
        metadata={_HEADER: msgspec.json.encode(header, order="deterministic").decode()},
    )
    return file.getvalue()


def from_bytes(data: bytes) -> Examples:
    """What `to_bytes` wrote.

    Raises:
        StateError: `examples-unreadable`.
    """
    try:
        said = pl.read_parquet_metadata(io.BytesIO(data)).get(_HEADER, "{}")
        header = msgspec.json.decode(said, type=_Header)
        frame = pl.read_parquet(io.BytesIO(data))
    except (msgspec.MsgspecError, pl.exceptions.PolarsError) as error:
        raise StateError(
            "examples-unreadable",
            "These bytes are no examples.",
            why=str(error),
            next="Build them again with `flyball apply`.",
        ) from error
    return Examples(frame, header.features, header.counts)
