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
from flyball.serve.guard import Limits, Receive

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

    async def receive(
        self, headers: dict[bytes, bytes], receive: Receive, limits: Limits, aside: Aside
    ) -> tuple[int, bytes]:
        """Take one body; raises what `Keys.who`, `guard.body`, `Aside.run` and `take` raise."""
        by = self.keys.who(headers, self.scope)
        body = await guard.body(headers, receive, limits, self.kinds)
        return await aside.run(partial(self.take, headers, body, by))
