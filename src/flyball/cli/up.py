"""`flyball up`: the servers and the loop, under one parent."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import exposing, opening, options, say, serve


def run(
    app: options.App,
    servers: Annotated[int, typer.Option("--servers", min=1, help="Processes that answer, on one port.")] = 1,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one and says which.")] = 8741,
    durability: options.Durability = "acknowledged",
    when_full: serve.WhenFull = "refuse",
    every: options.Every = 1.0,
    memory_mb: options.Memory = None,
    keys_needed: exposing.NeedKeys = False,
    host_name: exposing.HostNames = None,
    tls_cert: exposing.TlsCert = None,
    tls_key: exposing.TlsKey = None,
    client_ca: exposing.ClientCa = None,
    plain: exposing.Plain = False,
    webhook: options.Webhook = None,
    allow: options.Allow = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Keep servers and loop up: answer, watch, train, release; all of it by itself."""
    from flyball.runtime import upkeep

    folder = opening.folder(app)
    encrypts = exposing.certificate(tls_cert, tls_key, client_ca) is not None
    asked = exposing.asked(host, host_name, keys_needed=keys_needed, tls=encrypts, plain=plain)
    exposing.refuse(asked, home or folder / ".flyball")
    files = {"--tls-cert": tls_cert, "--tls-key": tls_key, "--client-ca": client_ca}
    where = [app, *(["--home", str(home)] if home else []), *(["--clock", str(clock)] if clock else [])]
    alerts = [part for net in allow or [] for part in ("--allow", net)]
    if webhook:
        os.environ["FLYBALL_WEBHOOK"] = webhook  # its path may be a secret, and everybody can read a command line
    answers = ["--durability", durability, "--when-full", when_full]
    limit = ["--memory-mb", str(memory_mb)] if memory_mb else []
    wanted = upkeep.Upkeep(
        loop=["loop", *where, "--every", str(every), *limit, *alerts],
        server=["serve", *where, *answers, "--quiet", *exposing.handed_on(asked, files)],
        servers=servers,
        host=host,
        port=port,
        route=(home or folder / ".flyball") / "route.json",
        code=folder,
    )
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    ready = partial(_ready, encrypts=encrypts, as_json=as_json)
    upkeep.up(wanted, stop, ready, lambda text: say.err.print(escape(text)))
    return 0


def _ready(address: str, *, encrypts: bool, as_json: bool) -> None:
    address = address.replace("http://", "https://", 1) if encrypts else address
    if as_json:
        say.result({"address": address})
    else:
        # The address is ours from here on; a server listens once it is loaded, on an empty home after the first release.
        say.line(f"{say.MARKS['done']} {address}  [dim]POST /predict, POST /outcomes; GET /readyz says when[/]")
