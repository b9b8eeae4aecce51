"""What a person is shown of rows: personal columns masked, and cells of any size cut to one that can be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from flyball._kernel.errors import StateError
from flyball.data.contract import Personal, Spec
from flyball.data.source import TEXT

MASK = "•••"
CUT = 80
"""Characters of a cell that are shown."""


def cell(value: object) -> str:
    """A cell as text, cut in what is shown only."""
    if value is None:
        return ""
    text = str(value)
    return text if len(text) <= CUT else f"{text[:CUT]}… ({len(text):,} characters)"


def raised(problem: BaseException, spec: Spec) -> str:
    """What an error says that came of rows: its type alone where some of them are personal, for its text may quote them."""
    name = type(problem).__name__
    if spec.with_role(Personal):
        return f"{name} (its text is not repeated: {spec.name} has personal columns, and it may quote them)"
    return f"{name}: {problem}"


def cells(said: Mapping[str, Any], spec: Spec, *, reveal: bool = False) -> dict[str, str]:
    """The cells of a quarantined row to be shown.

    Where a contract has personal columns, cells that it does not declare are masked as well: a line that is no row, or a
    column that the preparation let through, may hold what the contract calls personal.
    """
    personal, line = spec.with_role(Personal), said.keys() == {TEXT}
    shown = {}
    for name, value in said.items():
        hidden = name in personal or (bool(personal) and (name not in spec.names or line))
        shown[name] = MASK if hidden and not reveal and value is not None else cell(value)
    return shown


def columns(rows: pl.LazyFrame, spec: Spec, *, reveal: bool = False) -> pl.LazyFrame:
    """The observations with personal columns masked, which are texts then."""
    if reveal:
        return rows
    hidden = [name for name in spec.with_role(Personal) if name in rows.collect_schema()]
    return rows.with_columns(pl.when(pl.col(name).is_not_null()).then(pl.lit(MASK)).alias(name) for name in hidden)


def may_leave(spec: Spec, *, reveal: bool) -> None:
    """Refuse to write personal values to a file that nobody said may hold them.

    Raises:
        StateError: `personal-columns-hidden`.
    """
    personal = spec.with_role(Personal)
    if personal and not reveal:
        raise StateError(
            "personal-columns-hidden",
            f"A file of rows of {spec.name} would hold {', '.join(personal)}.",
            where=spec.place,
            why="The contract declares them personal. A file that leaves flyball is out of reach of an erasure.",
            next="Add --reveal, if whoever gets the file may see them.",
        )
