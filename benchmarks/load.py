"""The load generator, a process of its own: C connections, each asks again as soon as it is answered, for so many seconds.

Written over epoll without an event loop, because it must be faster than what it measures. Responses are read as far as
counting needs: status 200, and a body as long as it says.

    python -m benchmarks.load PORT PATH BODIES CONNECTIONS SECONDS CORE
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

DRAINS_WITHIN = 5.0


@dataclass(slots=True)
class Connection:
    """One caller that waits for one answer at a time."""

    socket: socket.socket
    next: int
    asked: float
    got: bytes = b""


def whole(got: bytes) -> bool:
    """Whether a response is complete.

    Raises:
        RuntimeError: it is not a 200.
    """
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return False
    if not got.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(got[:500].decode(errors="replace"))
    at = got.lower().find(b"content-length:", 0, end)
    if at < 0:
        raise RuntimeError("a response without content-length")
    stop = got.find(b"\r\n", at)
    return len(got) >= end + 4 + int(got[at + 15 : stop])


def load(port: int, requests: list[bytes], connections: int, seconds: float) -> dict[str, float]:
    """Ask for so many seconds; returns answers a second, and the latency's quantiles in microseconds."""
    waiting = select.epoll()
    callers: dict[int, Connection] = {}
    for n in range(connections):
        opened = socket.create_connection(("127.0.0.1", port))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        callers[opened.fileno()] = Connection(opened, n, 0.0)
        waiting.register(opened.fileno(), select.EPOLLIN)
    taken: list[float] = []
    count, clock, begun = len(requests), time.perf_counter, time.perf_counter()
    for caller in callers.values():
        caller.asked = begun
        caller.socket.sendall(requests[caller.next % count])
    end, open_ = begun + seconds, connections
    while open_ and clock() < end + DRAINS_WITHIN:
        # Every question is waited for, so that no server is still busy with them when the next one is asked.
        for number, _ in waiting.poll(0.5):
            caller = callers[number]
            caller.got += caller.socket.recv(65536)
            if not whole(caller.got):
                continue
            now = clock()
            if now >= end:
                waiting.unregister(number)
                open_ -= 1
                continue
            taken.append(now - caller.asked)
            caller.got = b""
            caller.next += 1
            caller.asked = now
            caller.socket.send(requests[caller.next % count])
    for caller in callers.values():
        caller.socket.close()
    if not taken:
        raise RuntimeError(f"nothing was answered within {seconds} s")
    taken.sort()
    at = {name: round(taken[int(len(taken) * q)] * 1e6) for name, q in (("p50", 0.5), ("p99", 0.99))}
    return {"per_second": len(taken) / seconds, "answers": len(taken), **at}


def request(path: str, port: int, body: bytes) -> bytes:
    """The bytes of one request."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def main() -> None:
    """Ask as the command line says, and print the result as JSON."""
    port, path, bodies, connections, seconds, core = sys.argv[1:]
    if hasattr(os, "sched_setaffinity") and int(core) >= 0:
        os.sched_setaffinity(0, {int(core)})
    asked = [request(path, int(port), line) for line in Path(bodies).read_bytes().splitlines()]
    print(json.dumps(load(int(port), asked, int(connections), float(seconds))))


if __name__ == "__main__":
    main()
