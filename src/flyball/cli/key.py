"""`flyball key`: who may ask, post and decide. One file per verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from flyball.cli import key_list, key_new, key_revoke, key_rotate

VERBS: dict[str, Callable[..., Any]] = {
    "new": key_new.run,
    "list": key_list.run,
    "revoke": key_revoke.run,
    "rotate": key_rotate.run,
}

app = typer.Typer(
    help="Keys: make one, see which there are, give one another token, take one away.", no_args_is_help=True
)
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)
