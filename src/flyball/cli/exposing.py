"""The options that say who can reach the servers, which `serve` and `up` share, and `up` hands on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flyball.runtime.exposure import Asked
    from flyball.runtime.tls import Certificate

NeedKeys = Annotated[
    bool,
    typer.Option("--keys", help="Nothing is free: asking and reading need a key too. The keys of the home are meant."),
]
HostNames = Annotated[
    list[str] | None,
    typer.Option("--host-name", help="A name that callers use, besides localhost; once for each.", metavar="NAME"),
]
Plain = Annotated[
    bool, typer.Option("--plain", help="No TLS although others reach it: a proxy in front of it encrypts.")
]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", help="The certificate chain, PEM.", metavar="FILE")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", help="Its private key, PEM, unencrypted.", metavar="FILE")]
ClientCa = Annotated[
    Path | None,
    typer.Option("--client-ca", help="Callers must show a certificate that one of these signed.", metavar="FILE"),
]


def certificate(cert: Path | None, key: Path | None, client_ca: Path | None) -> Certificate | None:
    """What the server encrypts by; None where it does not.

    Raises:
        DeclarationError: `tls-unusable`, `tls-key-exposed`.
    """
    if (cert is None) != (key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together.")
    if cert is None or key is None:
        if client_ca is not None:
            raise typer.BadParameter("--client-ca needs --tls-cert and --tls-key.")
        return None
    from flyball.runtime.tls import Certificate

    return Certificate(cert, key, client_ca)


def asked(host: str, names: list[str] | None, *, keys_needed: bool, tls: bool, plain: bool) -> Asked:
    """How the servers shall be reached."""
    from flyball.runtime.exposure import Asked

    return Asked(host=host, names=tuple(names or ()), keys_needed=keys_needed, tls=tls, plain=plain)


def refuse(asked: Asked, home: Path) -> None:
    """See that the servers may be reached so, before anything is started; each of them looks again.

    Raises:
        DeclarationError: see `exposure.settle`.
    """
    from flyball.adapters.embedded import tokens
    from flyball.adapters.embedded.clock import SystemClock
    from flyball.runtime import exposure

    exposure.settle(asked, tokens.known(home), SystemClock().now())


def handed_on(asked: Asked, files: Mapping[str, Path | None]) -> list[str]:
    """The same options as arguments of a server; paths are whole, whatever folder that begins in."""
    paths = [part for option, file in files.items() if file is not None for part in (option, str(file.absolute()))]
    names = [part for name in asked.names for part in ("--host-name", name)]
    said = [*(["--keys"] if asked.keys_needed else []), *(["--plain"] if asked.plain else [])]
    return ["--host", asked.host, *said, *names, *paths]
