"""Apart: by how much what was made again differs from what was recorded. Counts and distances, and no value of any row.

examples   rows that only one of both has, and cells that differ, by column
train      the greatest difference of an answer to a held-out row, by model
the rest   numbers that differ, and the one that differs most, by its place in the record
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl

from flyball._kernel.errors import StateError
from flyball.data import contract
from flyball.learn import examples as building
from flyball.learn.fit import fitting
from flyball.learn.model import Model
from flyball.learn.quality.evaluate import Evaluation

SHOWN = 8
"""Columns, metrics and artifacts that are named of a step."""


class Apart(msgspec.Struct, frozen=True, kw_only=True):
    """A step that differs.

    Attributes:
        artifacts: which of its artifacts have other bytes, or are not there.
        greatest: the greatest difference of an answer to a held-out row (train), else None.
        by: sentences.
    """

    step: str
    artifacts: list[str]
    greatest: float | None = None
    by: list[str] = []


def apart(step: str, recorded: Mapping[str, bytes], made: Mapping[str, bytes], model: Model) -> Apart:
    """Compare what a step left behind with what it makes now.

    Args:
        recorded: name -> bytes; without those that are lost.
        made: all of them.
        model: by whose key rows are told apart.
    """
    other = [name for name, data in made.items() if recorded.get(name) != data]
    both = [name for name in other if name in recorded]
    said = [f"{name} cannot be read as it was recorded" for name in other if name not in recorded]
    greatest = None
    if "examples" in both:
        said += _examples(recorded["examples"], made["examples"], contract.spec(model.question).key)
    if step == "train" and fitting.SCORES in recorded:
        greatest, told = _answers(recorded[fitting.SCORES], made, model.name)
        said += told
    if "evaluation" in both:
        said += _metrics(recorded["evaluation"], made["evaluation"])
    records = [name for name in both if made[name][:1] in b"{[" and name != "evaluation"]
    said += [_numbers(name, recorded[name], made[name]) for name in records[:SHOWN]]
    return Apart(step=step, artifacts=other, greatest=greatest, by=said)


def _examples(recorded: bytes, made: bytes, key: Sequence[str]) -> Iterator[str]:
    try:
        then, now = building.from_bytes(recorded).frame, building.from_bytes(made).frame
    except StateError as problem:
        yield problem.what
        return
    gone, new = (sorted(a.schema.keys() - b.schema.keys()) for a, b in ((then, now), (now, then)))
    if gone or new:
        yield f"columns: {len(gone)} only recorded ({_few(gone)}), {len(new)} only now ({_few(new)})"
    same = [n for n in ("_asked", *(f"{building.REQUEST}{k}" for k in key)) if then.schema.get(n) == now.schema.get(n)]
    only_then = then.join(now, on=same, how="anti", nulls_equal=True).height
    only_now = now.join(then, on=same, how="anti", nulls_equal=True).height
    yield f"rows: {then.height:,} recorded, {now.height:,} now; {only_then:,} only recorded, {only_now:,} only now"
    values = [n for n in then.columns if n in now.columns and n not in same]
    paired = then.unique(same, keep="first").join(
        now.unique(same, keep="first"), on=same, nulls_equal=True, suffix="\0"
    )
    differ = {
        n: paired.height
        if then.schema[n] != now.schema[n]
        else paired.select(pl.col(n).ne_missing(pl.col(f"{n}\0")).sum()).item()
        for n in values
    }
    cells = {n: count for n, count in sorted(differ.items(), key=lambda each: -each[1]) if count}
    shown = ", ".join(f"{n} {count:,}" for n, count in list(cells.items())[:SHOWN])
    more = f" and {len(cells) - SHOWN} more columns" if len(cells) > SHOWN else ""
    yield f"cells of the rows that both have: {sum(cells.values()):,} differ" + (f" ({shown}{more})" if cells else "")


def _answers(recorded: bytes, made: Mapping[str, bytes], model: str) -> tuple[float | None, list[str]]:
    then, now = fitting.read_scores(recorded), fitting.read_scores(made[fitting.SCORES])
    if then.shape != now.shape:
        return None, [
            f"answers: {then.shape[1]:,} held-out rows of {len(then)} models then, {now.shape[1]:,} of {len(now)} now"
        ]
    names = (model, *fitting.rivals(made))
    far = np.abs(then - now).reshape(len(then), -1)
    told = []
    for name, distances in zip(names, far, strict=False):
        most = float(distances.max(initial=0.0))
        moved = int(np.count_nonzero(distances))
        told.append(
            f"answers of {name} to {then.shape[1]:,} held-out rows: "
            + (
                f"{moved:,} differ, by {most:.3g} at most, {float(distances.mean()):.2g} on average"
                if most
                else "the same bits"
            )
        )
    return float(far.max(initial=0.0)), told


def _metrics(recorded: bytes, made: bytes) -> Iterator[str]:
    then, now = (msgspec.json.decode(data, type=Evaluation).measurements for data in (recorded, made))
    moved = {n: (then[n].estimate, now[n].estimate) for n in then if n in now and then[n].estimate != now[n].estimate}
    for name, (a, b) in list(moved.items())[:SHOWN]:
        yield f"{name}: {a:.6g} recorded, {b:.6g} now ({b - a:+.2g})"
    if not moved:
        yield "the metrics of all held-out rows are the same; other numbers of the evaluation differ"


def _numbers(name: str, recorded: bytes, made: bytes) -> str:
    """How many values of two records differ, and which number most."""
    then, now = (dict(_leaves(msgspec.json.decode(data), "")) for data in (recorded, made))
    differ = [place for place in {**then, **now} if then.get(place) != now.get(place)]
    far = {
        place: abs(a - b) / max(abs(a), abs(b))
        for place in differ
        if isinstance(a := then.get(place), int | float) and isinstance(b := now.get(place), int | float) and a != b
    }
    text = f"{name}: {len(differ):,} of {len({**then, **now}):,} values differ"
    if far:
        most = max(far, key=lambda place: far[place])
        text += f", {most[:80]} relatively most: by {abs(then[most] - now[most]):.3g}"
    return text


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The values of a record by their places. A place of a mapping is counted, since its name may be of a group."""
    if isinstance(value, dict):
        for k, (key, inner) in enumerate(sorted(value.items())):
            named = key if key.isidentifier() else f"[{k}]"
            yield from _leaves(inner, f"{place}.{named}" if place else named)
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from _leaves(inner, f"{place}[{k}]")
    else:
        yield place, value


def _few(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) or "none"
