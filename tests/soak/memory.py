"""A server under everything for a while: `python -m tests.soak.memory [MINUTES]`, outside of the suite.

A real `flyball serve` of the benchmark's app, with a shadow beside it: single questions, lists, refusals, callers that leave in
the middle, reads of predictions and metrics, all at once. Its memory is looked at every second: after a third of the time, in
which caches and allocators settle, it must not grow by more than `ALLOWED` until the end.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks import scoring
from benchmarks.serving import shadowed

ALLOWED = 24 << 10
"""Kilobytes: the journal's pages and the allocator's slack, which come and go."""

Row = dict[str, Any]


def ask(port: int, rows: list[Row], ends: float, said: Counter[str]) -> None:
    """One caller, who does all that callers do."""
    chance = random.Random()
    while time.perf_counter() < ends:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as line:
                for _ in range(chance.randrange(1, 200)):
                    path, body = chosen(chance, rows)
                    line.request(
                        "POST" if body else "GET", path, body, {"Content-Type": "application/json"} if body else {}
                    )
                    reply = line.getresponse()
                    found = reply.read()
                    said[str(reply.status)] += 1
                    if reply.status == 200 and path == "/predict/scoring":
                        answered = json.loads(found)
                        said["answers"] += len(answered) if isinstance(answered, list) else 1
            leave(port, rows[0])
        except (OSError, http.client.HTTPException):
            said["broken"] += 1


def chosen(chance: random.Random, rows: list[Row]) -> tuple[str, bytes | None]:
    """What is asked next."""
    row = chance.choice(rows)
    match chance.randrange(12):
        case 0:
            return "/predict/scoring", json.dumps([chance.choice(rows) for _ in range(100)]).encode()
        case 1:
            return "/predict/scoring", json.dumps({**row, "n0": "x" * chance.randrange(2000)}).encode()
        case 2:
            return f"/{chance.randrange(10**9)}", None
        case 3:
            return "/metrics", None
        case 4:
            return "/predictions/0190a000-0000-7000-8000-000000000000", None
    return "/predict/scoring", json.dumps(row).encode()


def leave(port: int, row: Row) -> None:
    """A caller that goes in the middle of a request."""
    head = b"POST /predict/scoring HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with closing(socket.create_connection(("127.0.0.1", port))) as line:
        line.sendall(head + b"Content-Length: 999\r\n\r\n{")


def memory(process: int) -> int:
    """Kilobytes that it has in memory."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def main(minutes: float) -> None:
    """Serve, look, and say."""
    with tempfile.TemporaryDirectory(prefix="flyball-soak-") as place:
        built = scoring.build(Path(place))
        command = [sys.executable, "-m", "flyball", "serve", str(shadowed(built)), "--port", "0", "--json"]
        server = subprocess.Popen(command, env=built.environment, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            said = "".join(iter(server.stdout.readline, "}\n")) + "}"
            port = int(json.loads(said)["address"].rpartition(":")[2])
            watched(server.pid, port, built.rows, minutes * 60)
        finally:
            server.terminate()
            server.wait(30)


def watched(process: int, port: int, rows: list[Row], seconds: float) -> None:
    """Load it, and look at it every second."""
    said: Counter[str] = Counter()
    began = time.perf_counter()
    callers = [threading.Thread(target=ask, args=(port, rows, began + seconds, said)) for _ in range(4)]
    for each in callers:
        each.start()
    seen: list[int] = []
    for second in itertools.count():
        if time.perf_counter() >= began + seconds:
            break
        time.sleep(1)
        seen.append(memory(process))
        if second % 30 == 0:
            print(f"{second:5} s  {seen[-1] / 1024:8.1f} MB  {dict(said)}", flush=True)
    for each in callers:
        each.join()
    third = len(seen) // 3
    before, after = max(seen[third : third + third // 4 + 1]), max(seen[-(third // 4 + 1) :])
    print(f"{before / 1024:.1f} MB after a third, {after / 1024:.1f} MB at the end; {dict(said)}")
    if after - before > ALLOWED:
        raise SystemExit(f"memory grew by {(after - before) / 1024:.1f} MB")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
