"""`flyball journal`: what lies in the journal, moved, kept and taken out. One file per verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from flyball.cli import journal_compact, journal_export, journal_retain, journal_show

VERBS: dict[str, Callable[..., Any]] = {
    "show": journal_show.run,
    "compact": journal_compact.run,
    "export": journal_export.run,
    "retain": journal_retain.run,
}

app = typer.Typer(
    help="Every answer: where it lies, how long it is kept, and how to take it out.", no_args_is_help=True
)
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)
