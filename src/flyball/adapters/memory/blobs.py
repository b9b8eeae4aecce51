"""Artifacts in a dictionary, for rehearsals and tests; what is read from it is verified all the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from flyball._kernel import ids
from flyball._kernel.errors import StateError


class MemoryBlobs:
    """Artifacts of one process."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        """Store `data`; returns its SHA-256 in hexadecimal."""
        digest = ids.digest(data)
        self.kept[digest] = data
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes whose SHA-256 is `digest`; see `ports.Blobs`."""
        if digest not in self.kept:
            raise StateError("no-such-artifact", f"There is no artifact {digest!r} in memory")
        data = self.kept[digest]
        if ids.digest(data) != digest:
            raise StateError("artifact-changed", f"The artifact {digest} in memory is not what was stored")
        return data

    def has(self, digest: str) -> bool:
        """Whether `digest` is stored."""
        return digest in self.kept

    def names(self) -> Iterator[str]:
        """The digests of all that is stored, in order."""
        yield from sorted(self.kept)

    def drop(self, digests: Collection[str]) -> int:
        """Remove these; returns how many of them were there."""
        return sum(self.kept.pop(digest, None) is not None for digest in digests)
