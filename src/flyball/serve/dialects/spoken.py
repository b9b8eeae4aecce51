"""The dialects that a server speaks, in the order in which they are asked about a path that nobody knows."""

from __future__ import annotations

from typing import Final

from flyball.serve.dialect import Dialect
from flyball.serve.dialects import inference, invocations, native

ALL: Final[tuple[Dialect, Dialect, Dialect]] = (native, inference, invocations)


def of(path: str) -> Dialect:
    """In which dialect a refusal at a path is said; in our own where the path is nobody's."""
    return next((each for each in ALL if each.absent(path, {}) is not None), native)
