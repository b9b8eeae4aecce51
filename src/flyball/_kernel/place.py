"""Where a declaration stands in the user's file, so that every error can point at it.

A place is remembered but never compared: moving a declaration down a line changes nothing that it means.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

_HOUSE = __name__.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Place:
    """One line of one file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def here() -> Place:
    """The line of the nearest caller that is not flyball itself: the user's declaration."""
    frame = sys._getframe(1)
    # By module, not by file: the __init__ that a dataclass generates has no file of its own.
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == _HOUSE:
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)
