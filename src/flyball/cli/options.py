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
