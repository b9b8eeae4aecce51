"""`flyball bundle`: one version as a zip that answers anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    version: Annotated[str, typer.Argument(help="Such as lateness-1.")],
    out: Annotated[Path, typer.Argument(help="The zip to write.")],
    home: options.Home = None,
    model: options.Model = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Also where the encoder holds values of personal columns.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Write nothing: say whether OUT was made here, and answers as it did.")
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Write a version as a zip that needs only Python, numpy and onnxruntime to answer as the server does."""
    from flyball.cycle import bundle

    session = opening.session(app, home, create=False)
    if verify:
        edge = bundle.verify(session, out)
        found = {"version": edge.version, **edge.selfcheck()}
        if as_json:
            say.result(found)
        else:
            say.line(f"{escape(str(out))} is {edge.version}, signed here; {found['rows']} answers were made again")
        return 0
    with say.err.status("…"):
        said = bundle.bundle(session, model, version, out, reveal=reveal)
    if as_json:
        say.result(said)
        return 0
    say.line(f"{said.version} in {escape(str(out))}; it answers {_how(said.within)}")
    for name, kind in said.handed.items():
        say.line(f"  {escape(name)} ({kind}) is handed over by whoever asks")
    for rule in said.unchecked:
        say.line(f"  {escape(rule)} is not checked there")
    return 0


def _how(within: float) -> str:
    return "with the server's bits" if within == 0 else f"within {within:g} of the server"
