"""The wire: HTTP/1.1 on sockets, to and from plain messages, on uvloop's transports.

    bytes -> head -> (100 Continue) -> body -> Request -> the application -> Reply -> bytes

One request of a connection at a time: what is pipelined behind it waits, and so does whoever does not read the replies. A head
that was seen before is not parsed again: callers send the same one with each question. Every phase has a **deadline** (a head
and its body as a whole, so that sending a byte now and then helps nobody; an idle connection; a reply that is not read), looked
at once a second for all. Connections are bounded: where there is no room, the one that was idle for longest gives way.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from socket import socket
from typing import Final, Protocol

from flyball._kernel.clock import Clock
from flyball._kernel.errors import Bug, DataError, RetryableError
from flyball.serve import guard, head
from flyball.serve.chunks import Chunks
from flyball.serve.guard import Limits, Refused
from flyball.serve.message import CLOSE, Reply, Request

Answer = Callable[[Reply], None]

REMEMBERED: Final = 512
"""Heads that were parsed and admitted; of up to `SHORT` bytes each."""
SHORT: Final = 2048
SWEEPS_EVERY: Final = 1.0
"""Seconds between two looks at all deadlines."""
LINGERS: Final = 2.0
"""Seconds for which a caller that was refused may go on sending what nobody reads."""
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\ncontent-type: ".encode() for each in HTTPStatus}


class Application(Protocol):
    """Who answers."""

    limits: Limits

    def admit(self, head: head.Head) -> Request:
        """The request that a head begins, without its body; raises `Refused` for one that is not let in."""

    def receive(self, request: Request, answer: Answer) -> None:
        """Answer a whole request, now or later, once, on the event loop's thread."""

    def refused(self, refusal: Refused) -> Reply:
        """What is said to a request that the wire does not hand over."""


class Wire:
    """The connections of one process.

    Args:
        application: who answers.
        clock: for the deadlines.
    """

    def __init__(self, application: Application, clock: Clock) -> None:
        self.application, self.clock, self.limits = application, clock, application.limits
        self.connections: dict[Connection, None] = {}
        self.draining, self.held = False, 0
        self._listening: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._admitted: dict[bytes, tuple[head.Head, Request]] = {}

    async def listen(self, listening: socket, tls: ssl.SSLContext | None = None) -> None:
        """Answer whoever connects."""
        loop = asyncio.get_running_loop()
        patience = self.limits.seconds if tls is not None else None
        self._listening = await loop.create_server(
            partial(Connection, self), sock=listening, ssl=tls, backlog=2048, ssl_handshake_timeout=patience
        )
        self._sweep()

    async def drain(self, seconds: float) -> None:
        """Take no connection any more, answer what was asked, and close; what is left after so long is cut off."""
        self.draining = True
        if self._listening is not None:
            self._listening.close()
        until = self.clock.monotonic() + seconds
        while self.connections and self.clock.monotonic() < until:
            for each in list(self.connections):
                each.leave()
            await asyncio.sleep(0.01)
        self.cut()
        if self._sweeping is not None:
            self._sweeping.cancel()

    def cut(self) -> None:
        """Drop every connection at once."""
        for each in list(self.connections):
            each.abort()

    def admitted(self, data: bytes) -> tuple[head.Head, Request]:
        """The head that these bytes are, and the request that it begins; raises `Refused`."""
        found = self._admitted.get(data)
        if found is None:
            parsed = head.parse(data)
            found = parsed, self.application.admit(parsed)
            if len(data) <= SHORT:
                if len(self._admitted) >= REMEMBERED:
                    self._admitted.clear()
                self._admitted[data] = found
        return found

    def came(self, connection: Connection) -> bool:
        """A connection was made; returns whether there is room for it."""
        if len(self.connections) >= self.limits.connections:
            idle = min((e for e in self.connections if e.idle), key=lambda e: e.deadline, default=None)
            if idle is None:
                return False
            idle.abort()
            self.connections.pop(idle, None)
        self.connections[connection] = None
        return not self.draining

    def _sweep(self) -> None:
        self._sweeping = asyncio.get_running_loop().call_later(SWEEPS_EVERY, self._sweep)
        now = self.clock.monotonic()
        for each in [each for each in self.connections if each.deadline <= now]:
            each.late()


_NEVER: Final = float("inf")


class Connection(asyncio.Protocol):
    """One caller, one request at a time."""

    __slots__ = (
        *("_buffer", "_busy", "_chunks", "_head", "_held", "_keeps", "_leaves", "_paused", "_request", "_silent"),
        *("_transport", "_weight", "_wire", "deadline"),
    )

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._head: head.Head | None = None
        self._request: Request | None = None
        self._chunks: Chunks | None = None
        self._busy = self._paused = self._held = self._silent = self._leaves = False
        self._keeps, self._weight = True, 0
        self.deadline = _NEVER

    @property
    def idle(self) -> bool:
        """Whether nothing of a request is there."""
        return not (self._busy or self._buffer or self._head is not None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]
        if self._wire.came(self):
            self._rest()
        else:  # nobody looks at the deadline of one that there is no room for: it may not linger
            self._refuse(_no_room())
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport, self._buffer, self.deadline = None, b"", _NEVER
        self._wire.connections.pop(self, None)
        if not self._busy:  # else whoever answers has the request still
            self._weigh(0)

    def pause_writing(self) -> None:
        """The caller does not read what it is told: no other request of it is begun."""
        self._paused = True
        self.deadline = self._wire.clock.monotonic() + self._wire.limits.seconds

    def resume_writing(self) -> None:
        """It has read."""
        self._paused = False
        if not self._busy and self._transport is not None:
            self._rest()
            self._transport.resume_reading()
            self._next()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._leaves:
            return
        if not self._buffer and not self._busy and self._head is None:
            self.deadline = self._wire.clock.monotonic() + self._wire.limits.seconds
        self._buffer = self._buffer + data if self._buffer else data
        if not (self._busy or self._paused):
            self._next()
        elif len(self._buffer) > head.LONGEST and not self._held and self._transport is not None:
            self._held = True
            self._transport.pause_reading()

    def late(self) -> None:
        """A deadline has passed."""
        if self.idle or self._paused or self._leaves or self._transport is None:
            self.abort()
        elif self._busy:
            self.deadline = _NEVER
        else:
            self._refuse(_too_slow(self._wire.limits.seconds))

    def leave(self) -> None:
        """The process ends: go as soon as nothing waits for an answer."""
        self._keeps = False
        if self.idle and self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    def abort(self) -> None:
        """Go at once."""
        if self._transport is not None:
            self._transport.abort()

    def _rest(self) -> None:
        """Nothing of a request is there: it may take its time, or what came already is begun."""
        if self._held and self._transport is not None:
            self._held = False
            self._transport.resume_reading()
        limits = self._wire.limits
        if not self._paused:  # whoever does not read has a deadline already
            self.deadline = self._wire.clock.monotonic() + (limits.seconds if self._buffer else limits.idle)

    def _next(self) -> None:
        """Take as many requests out of the buffer as are whole and may be begun."""
        try:
            while not self._busy and not self._paused and self._transport is not None and self._whole():
                request, self._request, self._head, self._chunks = self._request, None, None, None
                self._busy, self.deadline = True, _NEVER
                self._wire.application.receive(request, self._answer)  # type: ignore[arg-type]
        except Refused as refusal:
            self._refuse(refusal)

    def _whole(self) -> bool:
        """Whether a request is whole, with its body; what is behind it stays in the buffer."""
        if self._head is None and not self._begin():
            return False
        buffer, length = self._buffer, self._head.length  # type: ignore[union-attr]
        if length is None:
            return self._chunked()
        if len(buffer) < length:
            self._weigh(len(buffer))
            return False
        if length:
            self._weigh(length)
            method, path, query, headers, _ = self._request  # type: ignore[misc]
            self._request = Request(method, path, query, headers, buffer[:length])
            self._buffer = buffer[length:]
        return True

    def _begin(self) -> bool:
        """Whether the head is whole."""
        buffer = self._buffer
        # Known before it may be refused, which is silent as well.
        self._silent = buffer.startswith((b"HEAD ", b"\r\nHEAD "))
        end = buffer.find(b"\r\n\r\n") + 4
        if end == 3 or end > head.LONGEST:
            if len(buffer) > head.LONGEST:
                raise head.too_long(f"a head of more than {head.LONGEST:,} bytes", f"{head.LONGEST:,} bytes")
            return False
        begins = buffer[:end]
        found, request = self._wire.admitted(begins)
        most = self._wire.limits.body
        if found.length is not None and found.length > most:
            raise Refused(413, guard.too_large(f"{found.length:,} bytes", f"{most:,} bytes"), (CLOSE,))
        self._head, self._request, self._buffer = found, request, buffer[end:]
        self._keeps = found.keeps and not self._wire.draining
        if found.length is None:
            self._chunks = Chunks(begins, most)
        if found.expects and not self._buffer and self._transport is not None:
            self._transport.write(_CONTINUE)
        return True

    def _chunked(self) -> bool:
        """Whether the last chunk is there. The connection ends with it: where it ends is left to nobody else to say."""
        data, self._buffer = self._buffer, b""
        chunks: Chunks = self._chunks  # type: ignore[assignment]
        whole = chunks.feed(data)
        self._weigh(len(chunks.body))
        if whole:
            self._request = self._request._replace(body=bytes(chunks.body))  # type: ignore[union-attr]
        return whole

    def _answer(self, reply: Reply) -> None:
        self._busy = False
        self._weigh(0)
        if self._transport is None or self._transport.is_closing():
            return
        try:
            said = _told(reply, keeps=self._keeps, silent=self._silent)
        except Bug as problem:  # nobody may wait for ever, and whoever answers others beside must not hear of it
            self._refuse(Refused(500, problem))
            return
        self._transport.write(said)
        if not self._keeps:  # what came behind its last request is nobody's
            self._leaves, self._buffer = True, b""
        self._rest()
        if not self._keeps:
            self._transport.close()
        if self._buffer:
            asyncio.get_running_loop().call_soon(self._next)

    def _refuse(self, refusal: Refused) -> None:
        """Say why, and end the connection: where its next request begins is unknown.

        What still comes is read and thrown away for a moment: else the caller's system may drop our words (RFC 9112, 9.6).
        """
        if self._transport is None or self._transport.is_closing():
            return
        self._keeps, self._buffer, self._head, self._busy, self._leaves = False, b"", None, True, True
        self._chunks = None
        self._weigh(0)
        self._transport.write(_told(self._wire.application.refused(refusal), keeps=False, silent=self._silent))
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self.deadline = self._wire.clock.monotonic() + LINGERS
        else:
            self._transport.close()

    def _weigh(self, size: int) -> None:
        """A request has so many bytes by now; few count for none. Raises `Refused` where all connections have too many."""
        size = size if size > head.LONGEST else 0
        if size != self._weight:
            self._wire.held += size - self._weight
            self._weight = size
            if self._wire.held > self._wire.limits.bodies and size:
                raise _no_memory()


def _told(reply: Reply, *, keeps: bool, silent: bool) -> bytes:
    """In one piece: each piece is a packet, and a call of the system."""
    more = b"" if keeps else b"\r\nconnection: close"
    for name, value in reply.headers:
        if b"\n" in value or b"\r" in value:
            raise Bug("header-of-two-lines", f"The header {name!r} of a reply has two lines.", next="Report it.")
        if name != b"connection":
            more += b"\r\n%b: %b" % (name, value)
    body = reply.body
    head = b"%b%b\r\ncontent-length: %d%b\r\n\r\n" % (_STATUS[reply.status], reply.kind, len(body), more)
    return head if silent else head + body


def _too_slow(seconds: float) -> Refused:
    error = DataError("request-too-slow", f"The request was not whole within {seconds:g} s.", next="Send it in one go.")
    return Refused(408, error, (CLOSE,))


def _no_room() -> Refused:
    error = RetryableError(
        "server-busy",
        "This server has as many connections as it takes.",
        why="Each needs memory, and the system's limit of open files is not far.",
        next="Try again in a moment; keep connections alive and share them.",
    )
    return Refused(503, error, (CLOSE,))


def _no_memory() -> Refused:
    error = RetryableError(
        "server-busy",
        "This server holds as many bytes of requests as it takes.",
        why="They lie in memory until they are answered.",
        next="Try again in a moment, or send shorter lists.",
    )
    return Refused(503, error, (CLOSE,))
