"""The options that several verbs share, spelt once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

App = Annotated[str, typer.Argument(help="The app: a folder with app.py, a file, or a module.", metavar="APP")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Home = Annotated[Path | None, typer.Option("--home", help="Where state lies; by default .flyball beside the app file.")]
ClockFile = Annotated[
    Path | None,
    typer.Option("--clock", help="Rehearsal only: read the time from this file, which its driver replaces."),
]
Model = Annotated[str | None, typer.Option("--model", help="Which model; needed where the app has several.")]
Durability = Annotated[
    str, typer.Option("--durability", help="acknowledged: recorded before it leaves; interval: within 20 ms.")
]
Every = Annotated[float, typer.Option("--every", min=0.05, help="Real seconds between two looks of the loop.")]
Memory = Annotated[
    int | None, typer.Option("--memory-mb", min=64, help="What a training may take; it fails instead of the machine.")
]
Webhook = Annotated[
    str | None,
    typer.Option("--webhook", envvar="FLYBALL_WEBHOOK", help="Alerts are posted there, beside alerts.jsonl."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", help="A private network that the webhook may lie in, such as 10.1.0.0/16.", metavar="NET"),
]
