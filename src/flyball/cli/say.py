"""How the command line speaks: results on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flyball._kernel.conditions import Verdict
from flyball._kernel.errors import FlyballError

# Where nobody's terminal says how wide it is (a pipe, a log), tables get room instead of being folded at 80 columns.
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
out = Console(highlight=False, soft_wrap=True, width=_WIDTH)
err = Console(stderr=True, highlight=False, soft_wrap=True)

MARKS = {
    "done": "[green]✓[/]",
    "run": "[yellow]→[/]",
    "keep": "[dim]·[/]",
    "skip": "[dim]·[/]",
    "pass": "[green]pass[/]",
    "fail": "[red]fail[/]",
    "inconclusive": "[yellow]inconclusive[/]",
}


def result(value: Any) -> None:
    """One JSON document on standard output: what `--json` asks for, wherever other output has been turned to."""
    stdout = sys.__stdout__ if sys.stdout is sys.stderr else sys.stdout
    assert stdout is not None  # noqa: S101 - a command line has a standard output
    stdout.write(json.dumps(msgspec.to_builtins(value), indent=2) + "\n")
    stdout.flush()


def line(text: str = "") -> None:
    """One line for a person; `text` may hold rich markup, and what comes from outside must be escaped."""
    out.print(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], whole: Collection[str] = ()) -> None:
    """A plain table; every cell is escaped unless it is one of our marks. Columns that are `whole` are never folded."""
    made = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        made.add_row(*(MARKS.get(str(cell)) or escape(str(cell)) for cell in row))
    out.print(made)


def verdicts(what: str, judged: Iterable[Verdict]) -> None:
    """One line a verdict: the condition (`what` heads that column), the outcome, and what was measured."""
    rows = []
    for verdict in judged:
        found = verdict.measurement
        cells = (
            (f"{found.estimate:.4g}", f"{found.low:.4g} to {found.high:.4g}", f"{found.n:,}") if found else ("",) * 3
        )
        rows.append((verdict.condition, verdict.outcome.value, *cells, verdict.reason))
    if rows:
        table((what, "verdict", "estimate", "95 %", "n", ""), rows)


def parquet(file: Path, argument: str) -> None:
    """Refuse a name that would say that something else is in it.

    Raises:
        BadParameter: it does not end in `.parquet`.
    """
    if file.suffix != ".parquet":
        raise typer.BadParameter(f"{file} would be a Parquet file: name it so", param_hint=argument)


def error(problem: FlyballError, *, as_json: bool) -> None:
    """What happened, where, why, and the next command."""
    if as_json:
        said = {
            "code": problem.code,
            "what": problem.what,
            "where": str(problem.where) if problem.where else None,
            "why": problem.why,
            "next": problem.next,
        }
        result({"error": said})
    err.print(f"[bold red]{type(problem).__name__}[/] {escape(problem.what)} [dim]\\[{escape(problem.code)}][/]")
    parts: Mapping[str, str] = {"where": str(problem.where or ""), "why": problem.why, "next": problem.next}
    for name, text in parts.items():
        if text:
            err.print(f"  [dim]{name + ':':<7}[/]{escape(text)}")


def bug(problem: BaseException, trace: str, *, as_json: bool) -> None:
    """We failed: the whole trace, and a plea."""
    if as_json:
        result({"error": {"code": "bug", "what": f"{type(problem).__name__}: {problem}"[:1500]}})
    err.print(escape(trace), style="dim")
    err.print(f"[bold red]Bug[/] flyball failed: {escape(str(problem))[:500]}")
    err.print("  [dim]next:  [/]Please report it with the trace above.")


def usage(text: str, verb: str, *, as_json: bool) -> None:
    """The command line itself was wrong; an empty text: nothing was asked for, and the help was shown."""
    following = f"flyball {verb + ' ' if verb else ''}--help"
    if as_json:
        result({"error": {"code": "usage", "what": text, "next": following}})
    if not text:
        return
    err.print(f"[bold red]Usage[/] {escape(text)}")
    err.print(f"  [dim]next:  [/]{escape(following)}")
