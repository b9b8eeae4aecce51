"""The disk: what the operating system was told is not there until it was made to write it.

A file that was renamed or linked is found after a power cut only if its folder was synced too.
"""

from __future__ import annotations

import os
from pathlib import Path


def sync(*paths: Path) -> None:
    """Have files, and the names in folders, written through, in this order."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
