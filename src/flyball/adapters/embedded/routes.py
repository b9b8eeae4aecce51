"""The route in one file, replaced atomically: a reader sees the one before, or this one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from flyball._kernel.errors import AdapterError
from flyball.release.route import Route


class FileRoutes:
    """See `release.route.Routes`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Route | None:
        """The present route; None when there is none, or when the file is not one (it is derived, so it is made anew)."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Route)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def publish(self, route: Route) -> None:
        """Replace it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".route-")
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(route)))
                file.flush()
                os.fsync(handle)
            os.replace(temporary, self._path)
        except OSError as error:
            raise AdapterError(
                "route-unwritable",
                f"The route cannot be written to {self._path}.",
                why=str(error),
                next="Check that the folder is on a local disk with room, and that you own it.",
            ) from error
