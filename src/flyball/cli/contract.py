"""`flyball contract`: write a first contract from data, and compare one with what is recorded. One file per verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from flyball.cli import (
    contract_diff,
    contract_infer,
    contract_migrate,
)

VERBS: dict[str, Callable[..., Any]] = {
    "infer": contract_infer.run,
    "diff": contract_diff.run,
    "migrate": contract_migrate.run,
}

app = typer.Typer(
    help="Infer a contract from data; compare contracts; migrate a table to a new one.", no_args_is_help=True
)
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)
