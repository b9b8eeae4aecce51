"""Our own wire without anything behind it: `python -m benchmarks.servers.wire_echo MODEL PORT`."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

import uvloop

from flyball.adapters.embedded.clock import SystemClock
from flyball.serve.guard import Limits, Refused
from flyball.serve.head import Head
from flyball.serve.message import Reply, Request
from flyball.serve.wire import Wire


class Echo:
    """Sends the body back."""

    limits = Limits()

    def admit(self, head: Head) -> Request:
        """Everybody."""
        return Request(head.method, head.path, head.query, dict(head.headers))

    def receive(self, request: Request, answer: Callable[[Reply], None]) -> None:
        """At once."""
        answer(Reply(200, request.body))

    def refused(self, refusal: Refused) -> Reply:
        """Never."""
        return Reply(refusal.status, b"{}")


async def serve(port: int) -> None:
    """Until it is killed."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        await Wire(Echo(), SystemClock()).listen(listening)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[2])))
