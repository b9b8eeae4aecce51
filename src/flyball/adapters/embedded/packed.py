"""The part of a home that an image holds: a signed route, the artifacts that it answers by, and online features as of now.

Laid out as a home is, so that `places.open` takes it for one whose history is away.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

from flyball._kernel.errors import AdapterError
from flyball._kernel.ports import Signer
from flyball.adapters.embedded.blobs import FileBlobs
from flyball.adapters.embedded.routes import FileRoutes
from flyball.release.route import Route

ONLINE = "online.sqlite"


def lay(signer: Signer, into: Path, route: Route, artifacts: Collection[bytes], online: Path | None) -> None:
    """Lay out a home in the folder `into`.

    Args:
        online: the home whose online features are copied; None where none is needed.

    Raises:
        AdapterError: `features-uncopied`, `route-unwritable`, `artifacts-unusable`.
    """
    blobs = FileBlobs(into / "artifacts")
    for data in artifacts:
        blobs.put(data)
    FileRoutes(into / "route.json", signer).publish(route)
    if online is None:
        return
    source = online / ONLINE
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as original:
            # Anew, page by page, so that what was deleted does not leave with it.
            original.execute("VACUUM INTO ?", (str(into / ONLINE),))
    except sqlite3.Error as error:
        raise AdapterError(
            "features-uncopied",
            f"The online features in {source} cannot be copied.",
            why=str(error),
            next="flyball apply brings them up to date; if somebody writes them just now, try again.",
        ) from error
