"""What others post beside questions: who may, which bodies are read, and who takes them.

All that is posted is on the disk before it is said that it was taken, on a thread aside from the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from flyball.serve import guard
from flyball.serve.aside import Aside
from flyball.serve.auth import Keys, Scope
from flyball.serve.message import NOSNIFF, Reply, Request

Take = Callable[[Mapping[bytes, bytes], bytes, str], tuple[int, bytes]]
"""Headers, body, and the name of the key; returns the status and the JSON of the reply."""


@dataclass(frozen=True, slots=True)
class Post:
    """One path that takes posts.

    Attributes:
        scope: what a key needs.
        take: waits for the disk.
        kinds: media types beside application/json.
    """

    keys: Keys
    scope: Scope
    take: Take
    kinds: frozenset[bytes] = frozenset()

    async def receive(self, request: Request, aside: Aside) -> Reply:
        """Take one body; raises what `Keys.who`, `guard.kind`, `Aside.run` and `take` raise."""
        by = self.keys.who(request.headers, self.scope)
        guard.kind(request.headers, self.kinds)
        status, body = await aside.run(partial(self.take, request.headers, request.body, by))
        return Reply(status, body, headers=NOSNIFF)
