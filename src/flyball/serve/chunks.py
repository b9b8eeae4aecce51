"""A body that comes in chunks, put together by llhttp, which sees the whole request from its head on."""

from __future__ import annotations

import httptools

from flyball._kernel.errors import DataError
from flyball.serve import guard
from flyball.serve.guard import Refused
from flyball.serve.message import CLOSE


class Chunks:
    """A body on its way.

    Args:
        begins: the head of its request.
        most: bytes of a body.
    """

    def __init__(self, begins: bytes, most: int) -> None:
        self.body = bytearray()  # not a list of pieces, of which a caller can make half a million
        self._most, self._whole = most, False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(begins)

    def on_body(self, data: bytes) -> None:
        """A piece of it; what comes behind the last chunk is none."""
        if not self._whole:
            self.body += data

    def on_message_complete(self) -> None:
        """It is whole."""
        self._whole = True

    def feed(self, data: bytes) -> bool:
        """Whether it is whole with this; raises `Refused`."""
        if not data:
            return self._whole
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as problem:
            if not self._whole:
                raise Refused(400, _broken(str(problem)[:100]), (CLOSE,)) from None
        if len(self.body) > self._most:
            raise Refused(413, guard.too_large(f"more than {self._most:,} bytes", f"{self._most:,} bytes"), (CLOSE,))
        return self._whole


def _broken(why: str) -> DataError:
    return DataError("not-http", "The chunks of a body are broken.", why=why, next="Send them as HTTP/1.1 has them.")
