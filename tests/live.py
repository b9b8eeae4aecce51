"""A server that listens: our edge on a loopback port, with a real journal, in a thread of this process.

Its plans are compiled from a contract as real ones are; only the model is made up, so that an answer can be told in advance:
it says `factor` times the price.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import dataframely as dy
import numpy as np
import polars as pl
import uvloop

import flyball as fb
from flyball import days, hours
from flyball._kernel import ids
from flyball.adapters.embedded import journal_segment
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.memory.online import MemoryOnline
from flyball.learn.encoding import encode
from flyball.learn.features.lookup import Lookup
from flyball.learn.task import BINARY
from flyball.serve import protocol
from flyball.serve.guard import Limits
from flyball.serve.http import Ground, Server
from flyball.serve.journal import Recorder, Settings
from flyball.serve.plan import Plan
from flyball.serve.router import Routed
from flyball.serve.wire import Wire


class Order(fb.Contract):
    """One order."""

    order_id = dy.String(primary_key=True)
    placed = fb.event_time(dy.Datetime(time_zone="UTC"))
    category = dy.Enum(["books", "shoes"])
    price = dy.Float64(min=0, max=1000)
    customer = fb.personal(dy.String(nullable=True))
    note = dy.String(nullable=True)
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=days(60))
    returned = fb.outcome(dy.Bool(nullable=True))


ROW: dict[str, Any] = {"order_id": "o1", "placed": "2026-11-20T12:00:00Z", "category": "books", "price": 8.0}
FEATURES = fb.features(Order.category, Order.price, hour=Order.placed.col.dt.hour())


class Factor:
    """A model that says `factor` times the price."""

    name: Literal["lightgbm"] = "lightgbm"
    features = 3

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def row(self, values: np.ndarray) -> float:
        """The answer to one row."""
        return float(values[1]) * self.factor

    def batch(self, matrix: np.ndarray) -> np.ndarray:
        """The answers to many."""
        return matrix[:, 1].astype(np.float64) * self.factor


def plan(version: str = "orders-1", factor: float = 0.5, model: str = "orders") -> Plan:
    """A plan that can be told in advance."""
    frame = pl.DataFrame({"category": ["books", "shoes"], "price": [1.0, 2.0], "hour": [1, 2]})
    reads = FEATURES.reads(Order) | {"placed"}
    fitted = encode.fit(frame, [("category", "category"), ("price", "number"), ("hour", "number")])
    return Plan(
        model=model,
        version=version,
        decode=protocol.decoder(Order, reads),
        decode_key=protocol.decoder(Order, frozenset()),
        schema=protocol.schema(Order, reads),
        outputs=("category", "price", "hour"),
        lookup=Lookup(FEATURES, Order, MemoryOnline()),
        encode=encode.compile_row(fitted),
        predictor=Factor(factor),
        key=("order_id",),
        entity=("order_id",),
        asked_of="placed",
        lead=hours(2),
        tolerance=hours(1),
        personal=frozenset({"customer"}),
        hash=lambda value: ids.keyed_hash(b"secret", value),
        task=BINARY,
    )


def alone(each: Plan | Routed) -> Routed:
    """A version that answers everything, in the first epoch."""
    return each if isinstance(each, Routed) else Routed(epoch=1, champion=each)


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a refusal, which must be whole."""
        error = self.json["error"]
        assert set(error) == {"code", "what", "why", "next"}
        assert self.headers["content-type"] == "application/json"
        assert len(self.body) < 20_000 and b"Traceback" not in self.body
        return str(error["code"])


@dataclass
class Live:
    """A server that listens."""

    port: int
    server: Server
    journal: SqliteJournal
    loop: asyncio.AbstractEventLoop
    wire: Wire

    def swap(self, routed: Mapping[str, Plan | Routed]) -> None:
        """Change who answers on the loop's thread, as whoever follows the route does; returns when it is done."""
        self.on_loop(lambda: self.server.swap({model: alone(each) for model, each in routed.items()}))

    def on_loop(self, do: Callable[[], object]) -> None:
        """Do it on the loop's thread, and wait for it."""
        done: Future[None] = Future()

        def now() -> None:
            do()
            done.set_result(None)

        self.loop.call_soon_threadsafe(now)
        done.result(20)

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One request, on a connection of its own."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            given = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, body, {**given, **(headers or {})})
            got = connection.getresponse()
            return Reply(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())

    def ask(self, value: Any, path: str = "/predict/orders") -> Reply:
        """One question, or a list of them."""
        return self.send("POST", path, json.dumps(value).encode())

    def raw(self, *parts: bytes) -> bytes:
        """Bytes as they are, until the server closes or says no more for a while."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=30)) as connection:
            for part in parts:
                connection.sendall(part)
            return receive_all(connection)

    def counted(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = self.send("GET", "/metrics").body.decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


def receive_all(connection: socket.socket) -> bytes:
    """A whole response, or what came until the connection ended."""
    got = b""
    while True:
        head, found, body = got.partition(b"\r\n\r\n")
        if found:
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            if len(body) >= int(fields.get(b"content-length", b"0")):
                return got
        more = connection.recv(65536)
        if not more:
            return got
        got += more


@contextmanager
def live(
    folder: Path,
    plans: Mapping[str, Plan | Routed] | None = None,
    *,
    settings: Settings | None = None,
    connect: journal_segment.Connect = journal_segment.connect,
    through: Callable[[Recorder], Recorder] = lambda recorder: recorder,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    **ground: Any,
) -> Iterator[Live]:
    """Listen until the block is left, then drain and close the journal."""
    clock = SystemClock()
    journal = SqliteJournal(folder / "journal", clock, settings or Settings(patience=timedelta(0)), connect)
    ready = threading.Event()
    told: list[Any] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        recorder = journal.open("shop", deliver=loop.call_soon_threadsafe)
        routed = {m: alone(each) for m, each in ({"orders": plan()} if plans is None else plans).items()}
        server = Server("shop", routed, Ground(through(recorder), journal.find, clock, **ground), limits)
        wire, ends = Wire(server, clock), asyncio.Event()
        await wire.listen(listening, tls)
        told.extend([ends, Live(listening.getsockname()[1], server, journal, loop, wire)])
        ready.set()
        try:
            await ends.wait()
            await wire.drain(10)
        finally:
            server.end()
            recorder.close()

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=lambda: asyncio.Runner(loop_factory=uvloop.new_event_loop).run(run()))
        thread.start()
        try:
            assert ready.wait(30)
            yield told[1]
        finally:
            if told:
                told[1].loop.call_soon_threadsafe(told[0].set)
            thread.join(20)
