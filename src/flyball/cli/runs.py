"""`flyball runs`: what was tried and what came of it: trials and versions, as a table, a plot or a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball._kernel.errors import AdapterError
from flyball.cli import opening, options, say

if TYPE_CHECKING:
    import polars as pl

    from flyball.cycle.runs import Difference
    from flyball.runtime import Session

SHOWN = 100
"""Rows that are printed; a file and --json have all of them."""


def run(
    app: options.App,
    model: Annotated[str | None, typer.Option("--model", help="Of this model alone.")] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="The trials that this version was chosen from.")
    ] = None,
    last: Annotated[int, typer.Option("--last", min=0, help="Trials of the last N searches; 0: of all.")] = 1,
    versions: Annotated[bool, typer.Option("--versions", help="The versions instead of the trials.")] = False,
    where: Annotated[
        list[str] | None, typer.Option("--where", help="Column, operator, literal: 'score >= 0.7'; all must hold.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", help="By this column; --sort=-score: the highest first.")
    ] = None,
    compare: Annotated[
        tuple[str, str] | None, typer.Option("--compare", help="Two versions side by side.", metavar="V1 V2")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the trials: FILE.html or FILE.svg.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the table: FILE.parquet or FILE.csv.")] = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Trials with their knobs, scores, seconds and states, and which was chosen; versions with their knobs and metrics."""
    _ends(plot, ".html", ".svg")
    _ends(out, ".parquet", ".csv")
    if versions and (plot is not None or version is not None):
        raise typer.BadParameter("Trials are drawn and belong to a version: leave --versions out.")
    from flyball.cycle import runs

    session = opening.session(app, home, clock, create=False)
    if compare is not None:
        _compared(runs.compare(session, *compare), as_json=as_json)
        return 0
    only = session.app.model(model).name if model is not None else None
    rows = runs.versions_frame(session, only) if versions else _tried(session, only, version, last)
    for condition in where or ():
        rows = runs.chosen(rows, condition)
    rows = runs.ordered(rows, sort) if sort is not None else rows
    if plot is not None:
        _draw(rows, session.app.name, plot)
    if out is not None:
        _write(rows, out)
    if as_json:
        say.result({"versions" if versions else "trials": [_said(row) for row in rows.iter_rows(named=True)]})
    elif versions:
        _versions(rows)
    else:
        _trials(rows)
    return 0


def _said(row: dict[str, object]) -> dict[str, object]:
    return {name: cell for name, cell in row.items() if cell is not None}


def _ends(file: Path | None, *kinds: str) -> None:
    if file is not None and file.suffix not in kinds:
        raise typer.BadParameter(f"{file.name} ends in none of {', '.join(kinds)}.")


def _tried(session: Session, model: str | None, version: str | None, last: int) -> pl.DataFrame:
    from flyball.cycle import runs

    rows = runs.frame(session, model)
    if version is not None:
        return runs.of_version(session, rows, version)
    return runs.of_last(rows, last) if last else rows


def _trials(rows: pl.DataFrame) -> None:
    from flyball.cycle import runs

    knobs = [name for name in runs.knobs(rows) if rows[name].null_count() < rows.height]
    columns = ("", "version", "search", "trial", "state", *knobs, *rows["metric"].unique()[:1], "seconds", "")
    table = [
        (
            "done" if row["best"] else "",
            row["version"] or "",
            row["search"][:6],
            row["trial"] + 1,
            row["code"] or row["state"],
            *(_cell(row[name]) for name in knobs),
            _cell(row["score"]),
            f"{row['seconds']:.2f}",
            row["origin"] if row["origin"] != "sampled" else "",
        )
        for row in rows.head(SHOWN).iter_rows(named=True)
    ]
    _table(columns, table, rows.height, "trials")


def _versions(rows: pl.DataFrame) -> None:
    fixed = ("model", "version", "decision", "champion", "registered", "search")
    rest = [name for name in rows.columns if name not in fixed and rows[name].null_count() < rows.height]
    table = [
        (
            "done" if row["champion"] else "",
            row["version"],
            row["decision"] or "not judged",
            f"{row['registered']:%Y-%m-%d %H:%M}",
            *(_cell(row[name]) for name in rest),
        )
        for row in rows.tail(SHOWN).iter_rows(named=True)
    ]
    _table(("", "version", "decision", "registered", *rest), table, rows.height, "versions")


def _table(columns: tuple[str, ...], table: list[tuple[object, ...]], count: int, what: str) -> None:
    if not table:
        say.line(f"[dim]No {what} are recorded that this asks for.[/]")
        return
    say.table(columns, table, whole=("version",))
    if count > len(table):
        say.line(f"[dim]{len(table):,} of {count:,} {what}; --out FILE.parquet has all.[/]")


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _compared(found: Difference, *, as_json: bool) -> None:
    if as_json:
        say.result(found)
        return
    for what, pairs in (("", found.facts), ("knob", found.knobs), ("metric", found.metrics)):
        cells = [(name, _cell(a), _cell(b), "" if a == b else _apart(a, b)) for name, (a, b) in pairs.items()]
        if cells:
            say.table((what, found.then, found.now, ""), cells)
            say.line()


def _apart(a: object, b: object) -> str:
    return f"{b - a:+.4g}" if isinstance(a, float) and isinstance(b, float) else "differs"


def _draw(rows: pl.DataFrame, app: str, file: Path) -> None:
    from flyball.cycle import runs
    from flyball.learn.trying import trial_charts

    with say.err.status("drawing …"):
        dots = runs.dots(rows)
        metric = str(rows["metric"][-1]) if dots else ""
        page = file.suffix == ".html"
        text = trial_charts.document(f"{app}: trials", dots, metric) if page else trial_charts.sheet(dots, metric)
    if not any(dot.score is not None for dot in dots):
        say.err.print("[yellow]No trial has a score: nothing was drawn.[/]")
        return
    _save(file, lambda: file.write_text(text, encoding="utf-8"))


def _write(rows: pl.DataFrame, file: Path) -> None:
    write = rows.write_parquet if file.suffix == ".parquet" else rows.write_csv
    _save(file, lambda: write(file))


def _save(file: Path, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise AdapterError(
            "file-not-written",
            f"{file} could not be written.",
            why=str(error)[:300],
            next="Name a file in a folder that is there and may be written to.",
        ) from error
    say.err.print(f"[dim]wrote {escape(str(file))}[/]")
