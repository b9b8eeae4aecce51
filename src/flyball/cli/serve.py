"""`flyball serve`: the prediction server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import exposing, opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.session import Session


WhenFull = Annotated[
    str,
    typer.Option(
        "--when-full", help="Where the disk takes no answer: refuse (503), or unlogged (it leaves, and is counted)."
    ),
]


def run(
    app: options.App,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; beyond loopback, keys and TLS are needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one and says which.")] = 8741,
    durability: options.Durability = "acknowledged",
    when_full: WhenFull = "refuse",
    shared: Annotated[bool, typer.Option("--shared", help="Other servers may listen on the same port.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not say when it listens.")] = False,
    keys_needed: exposing.NeedKeys = False,
    host_name: exposing.HostNames = None,
    tls_cert: exposing.TlsCert = None,
    tls_key: exposing.TlsKey = None,
    client_ca: exposing.ClientCa = None,
    plain: exposing.Plain = False,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Answer questions over HTTP, and record every answer."""
    certificate = exposing.certificate(tls_cert, tls_key, client_ca)
    from flyball import runtime

    session = opening.session(app, home, clock)
    _account(session)
    if certificate is not None and (ends := certificate.ends(session.clock.now())):
        say.err.print(f"[yellow]{escape(ends)}[/]")
    names = tuple(host_name or ())
    edge = runtime.Edge(
        host, port, durability, when_full, shared, names, keys_needed=keys_needed, plain=plain, tls=certificate
    )

    def ready(address: str, versions: dict[str, str]) -> None:
        if quiet:
            return
        if as_json:
            say.result({"address": address, "answering": versions})
        else:
            names = ", ".join(versions.values())
            say.line(f"{say.MARKS['done']} {address} answers with {names}  [dim]POST /predict, GET /openapi.json[/]")

    runtime.serve(session, edge, ready, lambda text: say.err.print(escape(text)))
    return 0


def _account(session: Session) -> None:
    """Tell of servers that died since the last time; where the history is away, whoever looks when it is back does."""
    from flyball.cycle import account, catalog

    if catalog.away(session):
        return
    for ended in account.account(session):
        if ended.unknown:
            say.err.print(
                f"[yellow]A server died:[/] up to {ended.unknown:,} answers of segment {ended.segment} may be lost beside "
                f"{ended.recorded:,} recorded"
                + ("; none of them was acknowledged." if ended.durability == "acknowledged" else ".")
            )
