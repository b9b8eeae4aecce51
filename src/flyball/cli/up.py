"""`flyball up`: the servers and the loop, under one parent."""

from __future__ import annotations

import os
import signal
import threading
from typing import Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say


def run(
    app: options.App,
    servers: Annotated[int, typer.Option("--servers", min=1, help="Processes that answer, on one port.")] = 1,
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one and says which.")] = 8741,
    durability: options.Durability = "acknowledged",
    every: options.Every = 1.0,
    memory_mb: options.Memory = None,
    webhook: options.Webhook = None,
    allow: options.Allow = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Keep servers and loop up: answer, watch, train, release; all of it by itself."""
    from flyball.runtime import upkeep

    folder = opening.folder(app)
    where = [app, *(["--home", str(home)] if home else []), *(["--clock", str(clock)] if clock else [])]
    alerts = [part for net in allow or [] for part in ("--allow", net)]
    if webhook:
        os.environ["FLYBALL_WEBHOOK"] = webhook  # its path may be a secret, and everybody can read a command line
    limit = ["--memory-mb", str(memory_mb)] if memory_mb else []
    wanted = upkeep.Upkeep(
        loop=["loop", *where, "--every", str(every), *limit, *alerts],
        server=["serve", *where, "--host", host, "--durability", durability, "--quiet"],
        servers=servers,
        host=host,
        port=port,
        route=(home or folder / ".flyball") / "route.json",
        code=folder,
    )
    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())

    def ready(address: str) -> None:
        if as_json:
            say.result({"address": address})
        else:
            say.line(f"{say.MARKS['done']} {address}  [dim]POST /predict, POST /outcomes, GET /openapi.json[/]")

    upkeep.up(wanted, stop, ready, lambda text: say.err.print(escape(text)))
    return 0
