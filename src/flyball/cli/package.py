"""`flyball package`: a version as the context of an image, with manifests for Kubernetes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import exposing, opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.packaging.kubernetes import Journal as Kept

Out = Annotated[Path, typer.Option("--out", help="The folder to write; it must not exist, or be empty.", metavar="DIR")]
Base = Annotated[str, typer.Option("--base", help="The image that it runs on, best with its digest.", metavar="IMAGE")]
BuildBase = Annotated[str, typer.Option("--build-base", help="The image that it is built on.", metavar="IMAGE")]
Journal = Annotated[
    str, typer.Option("--journal", help="claim: on a volume that outlives its pod; pod: answers on record go with it.")
]
Wheels = Annotated[
    Path | None,
    typer.Option("--wheels", help="Downloaded wheels: checked by hash, and nothing is fetched.", metavar="DIR"),
]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", help="A file of the app's folder beside its Python files.", metavar="GLOB"),
]


def run(
    app: options.App,
    version: Annotated[str | None, typer.Argument(help="Such as lateness-1; by default all that answer now.")] = None,
    out: Out = Path("package"),
    image: Annotated[str, typer.Option("--image", help="What the image is called.")] = "",
    base: Base = "",
    build_base: BuildBase = "",
    namespace: Annotated[
        str, typer.Option("--namespace", help="In Kubernetes; part of the service's name.")
    ] = "default",
    host_name: exposing.HostNames = None,
    plain: exposing.Plain = False,
    journal: Journal = "claim",
    wheels: Wheels = None,
    include: Include = None,
    features: Annotated[bool, typer.Option("--features", help="Copy online features as of now.")] = False,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Also where the encoder holds values of personal columns.")
    ] = False,
    home: options.Home = None,
    as_json: options.Json = False,
) -> int:
    """Write a Dockerfile with its context, and Kubernetes manifests, that answer with a version."""
    if journal not in ("claim", "pod"):
        raise typer.BadParameter("--journal is claim or pod.")
    found = opening.loaded(app)
    from flyball import runtime
    from flyball.adapters.embedded import packed
    from flyball.cycle.packaging import package

    session = runtime.open(found.app, runtime.Placement(root=found.root, home=home, create=False))
    kept: Kept = "pod" if journal == "pod" else "claim"
    names, more, images = tuple(host_name or ()), tuple(include or ()), package.Images(image, base, build_base)
    wanted = package.Wanted(version, images, namespace, names, plain, kept, wheels, more, features, reveal)
    with say.err.status("…"):
        said = package.package(session, found.root, wanted, out, partial(packed.lay, session.signer))
    if as_json:
        say.result(said)
        return 0
    answers = ", ".join(said.versions.values())
    say.line(f"{answers} in {escape(str(out))}; its README.md says what follows  [dim]docker build -t {said.image}[/]")
    warnings = {
        "The base image is a tag, which can be moved: --base IMAGE@sha256:... pins it.": "@sha256:" not in base,
        "Libraries are pinned by version, not by hash: --wheels DIR does that.": wheels is None,
        "Online features left as of now; they grow old in the image.": said.features,
    }
    for text, holds in warnings.items():
        if holds:
            say.err.print(f"[yellow]{text}[/]")
    return 0
