"""Answers as rows of the archive, and back: the very same, to the last bit.

Whatever has a type of its own has a column of it. Inputs and features differ by model and version, so they are JSON text,
which Polars and everybody else can read. What JSON cannot say is marked: `marks` names the cells whose text stands for a time,
or for a number that is none. What cannot be marked either (a list, raw bytes) lies in `exact` as MessagePack, and the text is
for people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite
from typing import Any, Final

import msgspec
import polars as pl

from flyball.serve.journal import Entry

MOMENT: Final = pl.Datetime("us", "UTC")
DAY: Final = "day"
"""The column that the archive is partitioned by: the day on which it was asked, UTC."""
SCHEMA: Final[Mapping[str, pl.DataType]] = {
    "id": pl.String(),
    "asked": MOMENT,
    "app": pl.String(),
    "model": pl.String(),
    "version": pl.String(),
    "epoch": pl.Int64(),
    "role": pl.String(),
    "within_tolerance": pl.Boolean(),
    "key": pl.String(),
    "output": pl.Float64(),
    "outputs": pl.List(pl.Float64()),
    "decided": pl.Boolean(),
    "decision": pl.String(),
    "latency_us": pl.Int64(),
    "via": pl.String(),
    "failed": pl.String(),
    "process": pl.String(),
    "segment": pl.String(),
    "seq": pl.Int64(),
    "inputs": pl.String(),
    "features": pl.String(),
    "marks": pl.String(),
    "exact": pl.Binary(),
}
"""The columns of a row, but for `DAY`. `decided` is a decision that is true or false, `decision` one that is a name."""

_AS_THEY_ARE: Final = (
    *("id", "asked", "app", "model", "version", "epoch", "role", "within_tolerance", "key", "output"),
    *("latency_us", "via", "failed", "process", "segment", "seq"),
)
_PLAIN: Final = frozenset({str, int, bool, type(None)})
_MEANT: Final[Mapping[str, Callable[[Any], Any]]] = {
    "time": lambda cell: msgspec.convert(cell, datetime),
    "nan": lambda _: math.nan,
    "inf": lambda _: math.inf,
    "-inf": lambda _: -math.inf,
}
Marks = tuple[tuple[str, str], ...]
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
_json, _msgpack = msgspec.json.Encoder(enc_hook=repr), msgspec.msgpack.Encoder()
_cells = msgspec.json.Decoder(dict[str, Any])
_exact = msgspec.msgpack.Decoder(tuple[dict[str, Any], dict[str, Any]])


def frame(answers: Iterable[Entry]) -> pl.DataFrame:
    """Rows of answers, in their order."""
    said = list(answers)
    columns: dict[str, list[Any]] = {name: [getattr(each, name) for each in said] for name in _AS_THEY_ARE}
    columns["outputs"] = [each.outputs for each in said]
    columns["decided"] = [each.decision if isinstance(each.decision, bool) else None for each in said]
    columns["decision"] = [each.decision if isinstance(each.decision, str) else None for each in said]
    columns["inputs"] = [_json.encode(each.inputs).decode() for each in said]
    columns["features"] = [_json.encode(each.features).decode() for each in said]
    marked = [(_marked(each.inputs), _marked(each.features)) for each in said]
    columns["marks"] = [_text(marks) if any(marks) else None for marks in marked]
    columns["exact"] = [
        _msgpack.encode((each.inputs, each.features)) if None in marks else None
        for each, marks in zip(said, marked, strict=True)
    ]
    made = [pl.Series(name, columns[name], dtype=_built(name, dtype), strict=True) for name, dtype in SCHEMA.items()]
    return pl.DataFrame(made).with_columns(pl.col("asked").cast(MOMENT))


def entries(rows: pl.DataFrame) -> Iterator[Entry]:
    """The answers of rows that have the columns of `SCHEMA`, in their order."""
    whole = rows.with_columns(pl.col("asked").to_physical())
    plain = zip(*(whole[name].to_list() for name in _AS_THEY_ARE), strict=True)
    others = (whole[name].to_list() for name in ("inputs", "features", "marks", "exact"))
    decisions = zip(*(whole[name].to_list() for name in ("outputs", "decided", "decision")), strict=True)
    for told, (*cells, marks, exact), (outputs, decided, decision) in zip(
        plain, zip(*others, strict=True), decisions, strict=True
    ):
        inputs, features = map(_cells.decode, cells) if exact is None else _exact.decode(exact)
        if marks is not None and exact is None:
            for values, mark in zip((inputs, features), _marks(marks), strict=True):
                values.update([(name, meant(values[name])) for name, meant in mark])
        yield Entry(
            **dict(zip(_AS_THEY_ARE, told, strict=True)),
            inputs=inputs,
            features=features,
            outputs=tuple(outputs),
            decision=decision if decided is None else decided,
        )


def days(rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Rows by the day on which they were asked; those of impossible times belong to the nearest day that can be written."""
    day = pl.col("asked").clip(_FIRST, _LAST).dt.strftime("%Y-%m-%d")
    for (name,), part in rows.group_by(day.alias(DAY), maintain_order=True):
        yield str(name), part


def _built(name: str, dtype: pl.DataType) -> pl.DataType:
    return pl.Int64() if name == "asked" else dtype


def _marked(cells: Mapping[str, Any]) -> Marks | None:
    """What must be known of these cells to read their JSON; None where it cannot be read back."""
    found: list[tuple[str, str]] = []
    for name, cell in cells.items():
        kind = type(cell)
        if kind is float:
            if not isfinite(cell):
                found.append((name, "nan" if cell != cell else "inf" if cell > 0 else "-inf"))
        elif kind not in _PLAIN:
            if kind is not datetime or cell.tzinfo is not UTC:
                return None
            found.append((name, "time"))
    return tuple(found)


@lru_cache(maxsize=1024)
def _text(marks: tuple[Marks | None, Marks | None]) -> str:
    return _json.encode([dict(each or ()) for each in marks]).decode()


@lru_cache(maxsize=1024)
def _marks(text: str) -> list[list[tuple[str, Callable[[Any], Any]]]]:
    """Of inputs and features the cells that are marked, and what their JSON means."""
    decoded = msgspec.json.decode(text, type=tuple[dict[str, str], dict[str, str]])
    return [[(name, _MEANT[mark]) for name, mark in each.items()] for each in decoded]
