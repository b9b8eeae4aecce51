"""Aside: what waits for a disk, on a few threads of its own, so that it holds up neither the loop nor anybody else's threads.

So few may wait that a flood of them is turned away at once instead of lengthening a queue that nobody sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final, TypeVar

from flyball._kernel.errors import RetryableError

THREADS: Final = 4
MOST: Final = 64
"""Calls that run or wait."""

T = TypeVar("T")


class Aside:
    """The threads of one process; they begin with the first call."""

    def __init__(self, threads: int = THREADS, most: int = MOST) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="flyball-aside")
        self._places = BoundedSemaphore(most)

    async def run(self, do: Callable[[], T]) -> T:
        """What `do` returns or raises.

        Raises:
            RetryableError: `server-busy`.
        """
        if not self._places.acquire(blocking=False):
            raise RetryableError(
                "server-busy",
                "Too many requests wait for the disk.",
                why="Reading answers and storing outcomes must not hold up those who ask.",
                next="Try again in a moment.",
            )
        try:
            running = self._pool.submit(do)
        except BaseException:
            self._places.release()
            raise
        # Given back when it has run, not when its caller has gone: until then it holds a thread.
        running.add_done_callback(lambda _: self._places.release())
        waiting = asyncio.wrap_future(running)
        try:
            return await waiting
        finally:
            # An error holds this frame: were it held by it as well, the body would stay until garbage is looked for.
            del running, waiting, do

    def close(self) -> None:
        """Begin nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
