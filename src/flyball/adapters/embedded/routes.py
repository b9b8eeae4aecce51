"""The route in one file, signed and replaced atomically: a reader sees the one before, or this one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec

from flyball._kernel.errors import AdapterError
from flyball._kernel.ports import Signer
from flyball.release.route import Answering, Route


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """A route as it lies there; before it was signed it had the same two names, so that it is still read."""

    app: str
    models: dict[str, Answering]
    signature: str = ""


class FileRoutes:
    """See `release.route.Routes`.

    Args:
        signer: signs what is published and proves what is read; None for whoever only looks: proves nothing.
    """

    def __init__(self, path: Path, signer: Signer | None = None) -> None:
        self._path, self._signer = path, signer

    def read(self) -> Route | None:
        """The present route; None when there is none, or when the file is not one (it is derived, so it is made anew)."""
        found = self._file()
        return None if found is None else Route(app=found.app, models=found.models)

    def proven(self) -> Route | None:
        """The present route, if the key in use signed it."""
        found = self._file()
        if found is None or self._signer is None:
            return None
        route = Route(app=found.app, models=found.models)
        return route if self._signer.verify(_covered(route), found.signature) else None

    def publish(self, route: Route) -> None:
        """Replace it."""
        signature = self._signer.sign(_covered(route)) if self._signer is not None else ""
        told = _File(app=route.app, models=route.models, signature=signature)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".route-")
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(told)))
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

    def _file(self) -> _File | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_File)
        except (FileNotFoundError, msgspec.DecodeError):
            return None


def _covered(route: Route) -> bytes:
    """What the signature covers: not the bytes of the file, which may be laid out anew, but what they say."""
    return b"flyball/route/1:" + msgspec.json.encode(route, order="deterministic")
