"""A vault in memory, for rehearsals and tests."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from threading import Lock

BYTES = 16


class MemoryVault:
    """See `data.seal.Vault`."""

    def __init__(self) -> None:
        self._tokens: dict[str, str] = {}
        self._lock = Lock()

    def tokens(self, digests: Collection[str]) -> Mapping[str, str]:
        """The token of each."""
        with self._lock:
            return {digest: self._tokens.setdefault(digest, secrets.token_hex(BYTES)) for digest in digests}

    def find(self, digest: str) -> str | None:
        """Its token, if it has one."""
        return self._tokens.get(digest)

    def forget(self, digests: Collection[str]) -> int:
        """Drop these."""
        with self._lock:
            return sum(self._tokens.pop(digest, None) is not None for digest in set(digests))
