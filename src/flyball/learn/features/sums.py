"""Windows of the past that add up: of every question the difference of two running totals.

Two things do not fit running totals, and are added exactly:
- a correction ends a version: such versions are events of their own, which enter and leave;
- a question never sees its own row: what that adds is taken off.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.learn.features import aggregate, meaning
from flyball.learn.features.declare import Window
from flyball.learn.features.meaning import NEVER
from flyball.learn.features.timeline import Counting, Past, Timeline


def build(window: Window, past: Past) -> pl.DataFrame:
    """The outputs of a window, one row a question.

    Raises:
        DataError: `number-too-large`.
    """
    counting = past.counting(window)
    values = _values(window, past.rows, counting).to_frame().with_columns(_k=counting.moments)
    line = counting.line
    read = values if window.aggregate.squares else values.select("_value")
    running = _running(_taken(read, line.order).select(_added(window)))
    now = _taken(running, line.places(past.asking))
    ended, own = _ended(values, counting, past), _own(values, counting, past)
    outputs = []
    for over in window.over:
        size = meaning.span(over)
        net = now - _taken(running, line.places(past.asking, size))
        if ended is not None:
            net += _corrected(ended, size, window, past)
        if own is not None:
            net -= _mine(own, size, window, past)
        count, *totals = net.iter_columns()
        made = aggregate.finished(window.aggregate, meaning.unit(window), count, totals)
        outputs.append(made.alias(window.column(over)))
    return pl.DataFrame(outputs)


def _values(window: Window, rows: pl.DataFrame, counting: Counting) -> pl.Series:
    """What each row adds, in 64 bits where every total of an entity fits: sums over all wrap around, differences do not."""
    if meaning.dtype(window).is_float() and window.aggregate.how in ("mean", "sum"):
        most = rows.select(meaning.scaled(window).abs().max()).item() or 0.0
        if (most + 1) * (counting.longest + 1) < 2.0**62 and counting.ended is None:
            return meaning.of_each(rows, _value=meaning.value(window, pl.Int64)).to_series()
    values = meaning.of_each(rows, _value=meaning.value(window)).to_series()
    meaning.fitting(window, values)
    return values


def _taken(frame: pl.DataFrame, places: npt.NDArray[np.integer]) -> pl.DataFrame:
    return frame.select(pl.all().gather(pl.lit(pl.Series(places))))


def _added(window: Window, sign: int = 1) -> list[pl.Expr]:
    """What each row adds to the count, and to every total."""
    lanes = aggregate.lanes(window.aggregate) if window.aggregate.how != "count" else ()
    one = pl.col("_value").is_not_null().cast(pl.Int64)
    return [(each if sign > 0 else 0 - each).fill_null(0).alias(f"_{n}") for n, each in enumerate((one, *lanes))]


def _running(added: pl.DataFrame) -> pl.DataFrame:
    """Running sums before each place, and after the last."""
    nothing = pl.DataFrame([pl.Series(name, [0], dtype=dtype) for name, dtype in added.schema.items()])
    return pl.concat([nothing, added]).select(pl.all().cum_sum())


def _ended(values: pl.DataFrame, counting: Counting, past: Past) -> pl.DataFrame | None:
    """Versions that do not count for ever from the moment at which they begin to."""
    if counting.ended is None:
        return None
    found = past.rows.select("_until", _entity=pl.Series(past.entities)).with_columns(values, _seen=counting.seen)
    found = found.filter(counting.ended & (found["_entity"] >= 0) & found["_value"].is_not_null())
    return found.with_columns(_enter=pl.max_horizontal("_seen", "_k"))


def _corrected(ended: pl.DataFrame, size: int, window: Window, past: Past) -> pl.DataFrame:
    """What ended versions add to a window of this size: each counts in (enter, leave]."""
    leave = pl.min_horizontal(pl.col("_k") + size, "_until")
    spans = ended.with_columns(_leave=leave).filter(pl.col("_enter") < pl.col("_leave"))
    events = pl.concat(
        [
            spans.select("_entity", *_added(window), _at="_enter"),
            spans.select("_entity", *_added(window, -1), _at="_leave"),
        ]
    )
    line = Timeline(events["_entity"].to_numpy(), events["_at"].to_numpy())
    running = _running(_taken(events.drop("_entity", "_at"), line.order))
    return _taken(running, line.places(past.asking)) - _taken(running, line.first(past.asking))


def _own(values: pl.DataFrame, counting: Counting, past: Past) -> pl.DataFrame | None:
    """The version of the question's own row that would count, where one would: at most one for each question."""
    asked = past.points.select("_asked", "_own", _entity=pl.Series(past.mine)).with_row_index("_point")
    asked = asked.filter(pl.col("_own").is_not_null() & (pl.col("_entity") >= 0))
    if asked.is_empty():
        return None
    theirs = past.rows.select("_chain", "_until", _entity=pl.Series(past.entities))
    theirs = theirs.with_columns(values, _seen=counting.seen).filter(
        pl.col("_value").is_not_null() & (pl.col("_k") < NEVER)
    )
    found = asked.join(theirs, left_on=["_own", "_entity"], right_on=["_chain", "_entity"])
    enter = pl.max_horizontal("_seen", "_k")
    return found.filter(pl.col("_asked").is_between(enter, "_until", closed="right"))


def _mine(own: pl.DataFrame, size: int, window: Window, past: Past) -> pl.DataFrame:
    """What the questions' own rows add to a window of this size."""
    young = own.filter(pl.col("_asked") - pl.col("_k") <= size).select("_point", *_added(window))
    points = pl.DataFrame({"_point": pl.int_range(past.points.height, dtype=pl.UInt32, eager=True)})
    return points.join(young, on="_point", how="left", maintain_order="left").drop("_point").fill_null(0)
