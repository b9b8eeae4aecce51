"""Processes of our own, on this machine: `python -m flyball VERB ...`, so whatever one does could be done by hand.

A child is told its parent and how much memory it may take in its environment, and ends when its parent is gone (`obey`):
nothing runs on that nobody watches.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Final

PARENT: Final = "FLYBALL_PARENT"
"""The environment of a child: the process that it belongs to,"""
MEMORY: Final = "FLYBALL_MEMORY_MB"
"""and the megabytes that it may take."""


def start(
    arguments: Sequence[str], memory_mb: int | None = None, output: int | IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start a verb as a child that ends with us."""
    environment = {**os.environ, PARENT: str(os.getpid())}
    environment.pop(MEMORY, None)
    if memory_mb is not None:
        environment[MEMORY] = str(memory_mb)
    command = [sys.executable, "-m", "flyball", *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output)  # noqa: S603 - ourselves


def obey(environment: Mapping[str, str]) -> None:
    """Take what a parent said into account; the first thing that every verb does.

    The limit is on private memory (RLIMIT_DATA), since libraries reserve far more address space than they ever use. Where a
    system does not keep it, nothing is limited.
    """
    limit = environment.get(MEMORY, "")
    if limit.isdigit():
        size = int(limit) << 20
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    parent = environment.get(PARENT, "")
    if parent.isdigit():
        threading.Thread(target=_follow, args=(int(parent),), name="parent", daemon=True).start()


def _follow(parent: int) -> None:
    pause = threading.Event()
    while os.getppid() == parent:
        pause.wait(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
