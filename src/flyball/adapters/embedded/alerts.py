"""The channels of alerts: a log beside the facts, one JSON object a line; and a webhook, which is told by POST.

A webhook makes this machine send a request to a place that a setting names, which must not become a way to reach what only this
machine can reach. So the name is resolved once, every address that it has must be a public one (or lie in a network that the
operator named), and the connection goes to the address that was judged, not to the name: what a name server says a moment later
changes nothing. No redirect is followed, no proxy is used, nothing of the answer but its status is read, and all of it has
five seconds. The URL is a secret beyond its host: it is in no error, no log and no fact.
"""

from __future__ import annotations

import fcntl
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter
from typing import BinaryIO, Final
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from flyball._kernel.errors import AdapterError, DeclarationError, RetryableError
from flyball.watch.alert import Alert

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Sequence[str]]
"""(host, port) -> its addresses; raises OSError."""

TIMEOUT: Final = 5.0
"""Seconds for one alert, from the name to the status."""

_LONGEST: Final = 256 * 1024
"""Bytes from the end of the log in which its last whole line is found; a line has a few thousand."""


_ANSWER: Final = 16 * 1024
"""Bytes of an answer that are read at most, interim answers included."""


class _Position(msgspec.Struct, frozen=True):
    seq: int


class LogAlerts:
    """A file to which each alert is appended as one line; see `watch.alert.Alerts`.

    Its last whole line is its position. A line that a crash cut short is removed before the next one is written.

    Raises:
        AdapterError: `alerts-unreadable`.
        RetryableError: `alerts-unwritable`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def position(self) -> int:
        """The number of the last whole line."""
        try:
            with self._path.open("rb") as file:
                return self._last(file)[0]
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise _unreadable(self._path, str(error)) from error

    def send(self, alert: Alert) -> None:
        """Append it; it is on disk when this returns."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
                seq, end = self._last(file)
                if alert.seq > seq:
                    file.truncate(end)
                    file.seek(end)
                    file.write(msgspec.json.encode(alert) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(self._path, error) from error

    def _last(self, file: BinaryIO) -> tuple[int, int]:
        """The number of the last whole line, and where it ends."""
        start = max(0, file.seek(0, os.SEEK_END) - _LONGEST)
        file.seek(start)
        there = file.read()
        end = there.rfind(b"\n") + 1
        if end == 0:
            if start:
                raise _unreadable(self._path, "Its last line is none that was written here.")
            return 0, 0
        try:
            return msgspec.json.decode(there[: end - 1].rpartition(b"\n")[2], type=_Position).seq, start + end
        except (msgspec.DecodeError, UnicodeDecodeError) as problem:
            raise _unreadable(self._path, str(problem)) from problem


def resolved(host: str, port: int) -> list[str]:
    """The addresses of a host, by the system's resolver."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class WebhookAlerts:
    """A place that each alert is POSTed to, as JSON; see `watch.alert.Alerts`.

    The header `Idempotency-Key: APP/SEQ` tells a receiver what it had already: an alert is sent again when its answer was lost.

    Args:
        url: http or https, without user and password.
        position: the file that remembers the position, replaced atomically.
        allow: networks that may be reached although they are not public.
        since: where there is no such file yet, it begins here: a new channel is not told of old times.
        resolve: finds addresses.
        trust: decides which certificates hold; the system's by default.

    Raises:
        DeclarationError: `webhook-url`.
        RetryableError: `alerts-unwritable`.
    """

    def __init__(
        self,
        url: str,
        position: Path,
        *,
        allow: Sequence[str] = (),
        since: int = 0,
        resolve: Resolve = resolved,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._url, self._host, self._port = _parts(url)
        self._what = f"The alert did not reach {self._url.scheme}://{self._url.netloc}."
        self._path, self._resolve = position, resolve
        self._trust = trust
        try:
            self._allow = tuple(ip_network(each) for each in allow)
        except ValueError as error:
            raise DeclarationError(
                "webhook-url",
                "The networks that a webhook may reach are not networks.",
                why=str(error),
                next="Write them as 10.1.0.0/16 or fd00:1::/64.",
            ) from None
        if not self._path.exists():
            # At once: whoever opens it again may give another number, and what lies between has not been sent.
            self._remember(since)

    def position(self) -> int:
        """What the file remembers."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Position).seq
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _unreadable(self._path, str(error)) from error

    def send(self, alert: Alert) -> None:
        """POST it.

        Raises:
            RetryableError: `webhook-unreachable`, `webhook-busy`, `alerts-unwritable`.
            AdapterError: `webhook-forbidden`, `webhook-untrusted`, `webhook-redirects`, `webhook-refused`.
        """
        if alert.seq <= self.position():
            return
        end = perf_counter() + TIMEOUT
        try:
            status = self._post(alert, end)
        except ssl.SSLCertVerificationError as error:
            raise AdapterError(
                "webhook-untrusted",
                self._what,
                why=f"Its certificate does not hold: {error.verify_message}.",
                next="Have the certificate mended, or give the name that it is for.",
            ) from None
        except (OSError, ValueError) as error:
            # The kind alone: the text of an error may quote what was sent.
            raise RetryableError(
                "webhook-unreachable",
                self._what,
                why="It took too long." if isinstance(error, TimeoutError) else f"{type(error).__name__}.",
                next="It is tried again; if it lasts, look whether the receiver runs.",
            ) from None
        self._judge(status)
        self._remember(alert.seq)

    def _post(self, alert: Alert, end: float) -> int:
        body = msgspec.json.encode(alert)
        target = f"{self._url.path or '/'}{f'?{self._url.query}' if self._url.query else ''}"
        head = (
            f"POST {target} HTTP/1.1\r\nHost: {self._url.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nIdempotency-Key: {quote(alert.app)}/{alert.seq}\r\n"
            "User-Agent: flyball\r\nConnection: close\r\n\r\n"
        )
        with closing(self._connected(end)) as connection:
            connection.settimeout(_left(end))
            connection.sendall(head.encode() + body)
            answer, status = b"", None
            while status is None:
                connection.settimeout(_left(end))  # anew each time: whoever sends a byte a second gains nothing
                more = connection.recv(64)
                answer += more or b"\r\n\r\n"
                status = _status(answer)
                if status is None and (not more or len(answer) > _ANSWER):
                    raise ValueError("no HTTP")
        return status

    def _connected(self, end: float) -> socket.socket:
        """A connection to one of the addresses that were judged; by TLS, to who can prove the host's name."""
        problem: OSError = OSError("no address")
        for address in self._judged(end):
            try:
                connection = socket.create_connection((address, self._port), timeout=_left(end))
            except OSError as error:
                problem = error
                continue
            if self._url.scheme == "http":
                return connection
            try:
                trust = self._trust or ssl.create_default_context()
                return trust.wrap_socket(connection, server_hostname=self._host)
            except BaseException:
                connection.close()
                raise
        raise problem

    def _judged(self, end: float) -> list[str]:
        """The addresses of the host, if every one may be reached: a name with one that may not is up to something."""
        found: SimpleQueue[list[str] | OSError | ValueError] = SimpleQueue()

        def ask() -> None:
            try:
                found.put(list(self._resolve(self._host, self._port)))
            except (OSError, ValueError) as error:
                found.put(error)

        # The system's resolver knows no deadline, so it is asked on a thread that may be left behind.
        Thread(target=ask, daemon=True, name="flyball-webhook-name").start()
        try:
            addresses = found.get(timeout=_left(end))
        except Empty:
            raise TimeoutError from None
        if isinstance(addresses, Exception):
            raise addresses
        for each in addresses:
            why = forbidden(ip_address(each.partition("%")[0]), self._allow)
            if why:
                raise AdapterError(
                    "webhook-forbidden",
                    self._what,
                    why=f"Its name resolves to an address that is {why}.",
                    next="Give the URL of a public receiver; or allow its network, if it is meant to be inside.",
                )
        return addresses

    def _judge(self, status: int) -> None:
        if 200 <= status < 300:
            return
        why = f"It answered {status}."
        if status in (408, 425, 429) or status >= 500:
            raise RetryableError("webhook-busy", self._what, why=why, next="It is tried again.")
        if 300 <= status < 400:
            why = f"{why} Redirects are not followed, since they may lead anywhere."
            raise AdapterError("webhook-redirects", self._what, why=why, next="Give the URL that it leads to.")
        raise AdapterError("webhook-refused", self._what, why=why, next="Look whether the URL is still the right one.")

    def _remember(self, seq: int) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".alerts-")
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(_Position(seq)))
                file.flush()
                os.fsync(handle)
            os.replace(temporary, self._path)
        except OSError as error:
            raise _unwritable(self._path, error) from error


def _status(answer: bytes) -> int | None:
    """The status of the final answer, None before it has come: interim ones (RFC 9110 15.2) have a head each, 101 ends HTTP."""
    while b"\r\n" in answer:
        version, _, rest = answer.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
            raise ValueError("no HTTP")
        status = int(rest[:3])
        if status // 100 != 1 or status == 101:
            return status
        _, _, answer = answer.partition(b"\r\n\r\n")
    return None


def forbidden(address: Address, allow: Sequence[Network] = ()) -> str:
    """Why an address must not be reached; "" if it may.

    An address that wraps one of the older kind is refused, as the way to what it wraps; where `allow` names it, what it wraps
    is judged in its place.
    """
    if any(address in network for network in allow):
        inside = _wrapped(address)
        return forbidden(inside, allow) if inside is not None else ""
    return next(why for network, why in _KINDS if address in network)


# The first that fits counts. Sources: the IANA registries of special-purpose addresses (RFC 6890), which change with the years:
# what they leave open in IPv6 is refused here. 168.63.129.16 is public, but answers Azure's machines with their secrets.
_KINDS: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ip_network(network), why)
    for why, networks in (
        (
            "a cloud's own service",
            "168.63.129.16/32 100.100.100.200/32 169.254.169.254/32 192.0.0.192/32 fd00:ec2::254/128",
        ),
        ("unspecified", "0.0.0.0/8 ::/128"),
        ("this machine's own (loopback)", "127.0.0.0/8 ::1/128"),
        ("private", "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7 fec0::/10"),
        ("a carrier's (RFC 6598)", "100.64.0.0/10"),
        ("of the local link", "169.254.0.0/16 fe80::/10"),
        ("multicast", "224.0.0.0/4 ff00::/8"),
        ("one that wraps another", "::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 2001::/32 2002::/16 ::/96"),
        (
            "reserved",
            "192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4",
        ),
        ("reserved", "2001::/23 2001:db8::/32 3fff::/20"),
        ("", "0.0.0.0/0 2000::/3"),
        ("reserved", "::/0"),
    )
    for network in networks.split()
)


def _wrapped(address: Address) -> IPv4Address | None:
    """The IPv4 address to which an IPv6 address leads."""
    if isinstance(address, IPv4Address):
        return None
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    wraps = ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "::/96")
    return IPv4Address(int(address) & 0xFFFFFFFF) if any(address in ip_network(each) for each in wraps) else None


def _parts(url: str) -> tuple[SplitResult, str, int]:
    """The URL, its host and its port.

    Raises:
        DeclarationError: `webhook-url`.
    """
    try:
        # The parser would drop line ends and the like in silence.
        plain = all("!" <= ch <= "~" and ch != "\\" for ch in url)
        parts = urlsplit(url) if plain else None
        if parts is not None and parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc:
            port = parts.port if parts.port is not None else {"http": 80, "https": 443}[parts.scheme]
            if port > 0:
                return parts, parts.hostname, port
    except ValueError:
        pass  # its text quotes the URL
    raise DeclarationError(
        "webhook-url",
        "The URL of the webhook cannot be used.",
        why="It is http or https, with a host, in ASCII, without user and password. It may be secret, so it is not shown.",
        next="Give one such as https://alerts.example.com/flyball.",
    )


def _left(end: float) -> float:
    left = end - perf_counter()
    if left <= 0:
        raise TimeoutError
    return left


def _unreadable(path: Path, why: str) -> AdapterError:
    return AdapterError(
        "alerts-unreadable",
        f"{path} does not say which alerts were sent.",
        why=why,
        next="Mend its last line, or move it away: then the alerts are sent from the beginning.",
    )


def _unwritable(path: Path, error: OSError) -> RetryableError:
    return RetryableError(
        "alerts-unwritable",
        f"{path} cannot be written.",
        why=str(error),
        next="Check that the folder is yours and that its disk has room; it is tried again.",
    )
