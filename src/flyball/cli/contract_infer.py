"""`flyball contract infer`: a first contract from data, as Python that runs; exit code 1 where the file cannot be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyball.cli import options, say

if TYPE_CHECKING:
    from flyball.data.drafts.infer import Draft


def run(
    file: Annotated[
        Path, typer.Argument(help="Rows: .csv, .jsonl (also packed), .parquet, .arrow, ...", metavar="FILE")
    ],
    name: Annotated[str, typer.Option("--name", help="What to call the contract; by default after the file.")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", help="Write it to this Python file, which must not exist yet.")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Write a first contract from the rows of a file."""
    from flyball.data.drafts import draft

    if name and not draft.may_name(name):
        raise typer.BadParameter(f"{name!r} is no name of a class, or one that the module needs", param_hint="--name")
    if out is not None and out.exists():
        raise typer.BadParameter(f"{out} exists already", param_hint="--out")
    if out is not None and not (out.suffix == ".py" and out.parent.is_dir()):
        raise typer.BadParameter(f"{out} is no Python file in a folder that exists", param_hint="--out")
    made, ragged = _measured(file)
    folder = out.resolve().parent if out is not None else Path.cwd()
    text = draft.code(made, path=Path(os.path.relpath(file.resolve(), folder)).as_posix(), name=name)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    if as_json:
        columns = {
            c.name: {
                "type": str(c.dtype),
                "missing": c.nulls,
                "suspect": {"kind": c.suspect.kind, "share": c.suspect.share} if c.suspect else None,
            }
            for c in made.columns
        }
        said = {
            "rows": made.rows,
            "ragged": ragged,
            "key": list(made.key),
            "event_time": made.event_time,
            "columns": columns,
        }
        say.result({**said, "code": text, "file": str(out) if out is not None else None})
        return 0
    if ragged:
        say.err.print(f"{ragged:,} lines are no rows, and were left out: apply will quarantine them")
    if out is None:
        say.out.print(text, markup=False, end="")
    else:
        say.line(f"{say.MARKS['done']} {out}: {made.rows:,} rows, {len(made.columns)} columns; look for TODO")
    return 0


def _measured(file: Path) -> tuple[Draft, int]:
    """What the rows of a file are, and how many of its lines are no rows."""
    from flyball._kernel.place import Place
    from flyball.adapters.embedded.sources import FileReader
    from flyball.data.contract import Contract
    from flyball.data.drafts import infer
    from flyball.data.source import Files, Source

    where = Place(str(file.resolve()), 1)
    source = Source("infer", Files(file.name), lambda rows: rows, Contract, place=where)
    reader = FileReader()
    with say.err.status(f"reading {file.name} …"):
        (found,) = reader.files(source)
        with reader.open(source, found) as reading:
            return infer.infer(reading.rows), reading.ragged.collect().height
