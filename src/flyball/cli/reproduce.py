"""`flyball reproduce`: make a version again in a clean process, and compare every byte."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.reproduce import Reproduction


def run(
    app: options.App,
    version: Annotated[str, typer.Argument(help="The version, such as lateness-1.", metavar="VERSION")],
    home: options.Home = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also by other code or libraries: by how much does it differ?")
    ] = False,
    fresh_environment: Annotated[
        bool,
        typer.Option("--fresh-environment", help="In a new virtual environment with the recorded versions; needs pip."),
    ] = False,
    here: Annotated[bool, typer.Option("--here", help="In this process, and not in a clean child.")] = False,
    as_json: options.Json = False,
) -> int:
    """Train a version again from its recorded data, code and knobs: identical bytes, or what differs, by how much."""
    if not here:
        given = [app, version, "--here"]
        given += ["--home", str(home)] if home is not None else []
        given += ["--anyway"] if anyway else []
        given += ["--json"] if as_json else []
        return _in_a_child(given, app, home, fresh_environment=fresh_environment)
    from flyball.cycle import reproduce

    with opening.progress() as tell:
        found = reproduce.reproduce(opening.session(app, home, create=False), version, tell, anyway=anyway)
    if as_json:
        say.result(found)
    else:
        _show(found)
    return 0 if found.identical else 1


def _in_a_child(given: list[str], app: str, home: Path | None, *, fresh_environment: bool) -> int:
    from flyball.adapters.embedded import fresh

    if not fresh_environment:
        return fresh.call(["reproduce", *given])
    from flyball.cycle import artifacts, environment

    manifest = artifacts.load_manifest(opening.session(app, home, create=False), given[1])
    with tempfile.TemporaryDirectory(prefix="flyball-fresh-") as folder:
        with say.err.status("installing what was recorded …"):
            python = fresh.environment(Path(folder), environment.plain(manifest.environment))
        return fresh.call(["reproduce", *given], python)


def _show(found: Reproduction) -> None:
    if found.identical:
        say.line(f"{say.MARKS['done']} {found.version}: identical bytes ({len(found.compared)} artifacts)")
    else:
        say.line(f"{say.MARKS['fail']} {found.version}: {found.step} differs: {escape(found.why)}")
    for each in found.apart:
        say.line(f"  [bold]{each.step}[/] [dim]{escape(', '.join(each.artifacts))}[/]")
        for said in each.by:
            say.line(f"    {escape(said)}")
