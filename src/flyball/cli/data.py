"""`flyball data`: what is known of each table, what was refused, and what can be done about it. One file per verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from flyball.cli import (
    data_changes,
    data_compact,
    data_diff,
    data_expect,
    data_profile,
    data_quarantine,
    data_replay,
    data_retain,
    data_rollback,
    data_show,
    data_suspects,
    data_versions,
)

VERBS: dict[str, Callable[..., Any]] = {
    "versions": data_versions.run,
    "show": data_show.run,
    "diff": data_diff.run,
    "profile": data_profile.run,
    "expect": data_expect.run,
    "changes": data_changes.run,
    "suspects": data_suspects.run,
    "quarantine": data_quarantine.run,
    "replay": data_replay.run,
    "rollback": data_rollback.run,
    "retain": data_retain.run,
    "compact": data_compact.run,
}

app = typer.Typer(
    help="Tables, their versions, profiles and quarantine: look, mend, replay, roll back.", no_args_is_help=True
)
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)
