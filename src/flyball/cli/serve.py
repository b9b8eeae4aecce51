"""`flyball serve`: the prediction server."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    host: Annotated[str, typer.Option("--host", help="Loopback only, until keys exist.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one and says which.")] = 8741,
    durability: options.Durability = "acknowledged",
    shared: Annotated[bool, typer.Option("--shared", help="Other servers may listen on the same port.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not say when it listens.")] = False,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Answer questions over HTTP, and record every answer."""
    from flyball import runtime
    from flyball.cycle import account

    session = opening.session(app, home, clock)
    for ended in account.account(session):
        if ended.unknown:
            say.err.print(
                f"[yellow]A server died:[/] up to {ended.unknown:,} answers of segment {ended.segment} may be lost beside "
                f"{ended.recorded:,} recorded"
                + ("; none of them was acknowledged." if ended.durability == "acknowledged" else ".")
            )

    def ready(address: str, versions: dict[str, str]) -> None:
        if quiet:
            return
        if as_json:
            say.result({"address": address, "answering": versions})
        else:
            names = ", ".join(versions.values())
            say.line(f"{say.MARKS['done']} {address} answers with {names}  [dim]POST /predict, GET /openapi.json[/]")

    runtime.serve(
        session,
        runtime.Edge(host=host, port=port, durability=durability, shared=shared),
        ready,
        lambda text: say.err.print(escape(text)),
    )
    return 0
