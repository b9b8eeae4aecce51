"""`flyball data`: what is known of each table, what was refused, and what can be done about it. One file per verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

VERBS: dict[str, Callable[..., Any]] = {}

app = typer.Typer(
    help="Tables, their versions, profiles and quarantine: look, mend, replay, roll back.", no_args_is_help=True
)
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)
