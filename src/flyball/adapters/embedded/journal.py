"""The journal in SQLite: a folder with one database for each process and segment.

    PROCESS.FIRST.STARTED.sqlite    a segment: its first number, and when it was opened (microseconds)
    PROCESS.FIRST.STARTED.new       what is not yet one, or never became one
    PROCESS.lock                    locked while the process lives; the kernel lets go of it with the process

So a segment that is neither closed nor locked has an account to give. No answer here is ever changed, by readers least
of all; it may be erased, and its number stays. Full segments wait to be compacted. The folder must be on a local disk. While
a process records, nothing else in it may open these files but SQLite: closing any descriptor of a file drops the locks that
SQLite holds on it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from flyball._kernel import facts, ids
from flyball._kernel.clock import Clock, micros
from flyball._kernel.errors import AdapterError
from flyball.adapters.embedded import disk, journal_segment
from flyball.adapters.embedded.journal_recorder import Claim, SqliteRecorder, lives
from flyball.serve import journal
from flyball.serve.journal import Deliver, Entry, Header, Recovery, Segment, Settings


class SqliteJournal:
    """See `serve.journal.Journal`.

    Args:
        place: the folder; made with mode 0700 where missing, by the first recorder.
        clock: dates segments and processes.
        settings: for the recorders opened here.
        connect: makes a writer's connection.
    """

    def __init__(
        self,
        place: Path,
        clock: Clock,
        settings: Settings | None = None,
        connect: journal_segment.Connect = journal_segment.connect,
    ) -> None:
        self._place, self._clock, self._connect = place, clock, connect
        self._settings = settings or Settings()

    def open(
        self,
        app: str,
        *,
        head: Callable[[], facts.Head] = lambda: facts.START,
        deliver: Deliver = journal.at_once,
    ) -> SqliteRecorder:
        """Begin to record."""
        process = ids.uuid7(self._clock.now())

        def create(first: int) -> journal_segment.OpenSegment:
            header = Header(format=journal.FORMAT, app=app, durability=self._settings.durability, head=head())
            segment = Segment(process, first, micros(self._clock.now()))
            return journal_segment.create(self._place, self._connect, segment, header, first - 1 + self._settings.block)

        try:
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            disk.sync(self._place.parent)
            with contextlib.ExitStack() as undo:
                claim = Claim(self._place / f"{process}.lock", process, create)
                undo.callback(claim.release)
                recorder = SqliteRecorder(claim, self._settings, self._clock, deliver)
                undo.pop_all()
        except (sqlite3.Error, OSError) as error:
            raise AdapterError(
                "journal-write",
                f"No journal can be opened in {self._place}",
                why=str(error),
                next="give a folder on a local disk that this user may write, with room on it",
            ) from error
        return recorder

    def find(self, prediction: str) -> Entry | None:
        """The answer with that id."""
        wanted = journal.packed(prediction)
        if wanted is None:
            return None
        for segment in journal.likely(self._segments(), wanted):
            with self._reading(segment) as found:
                entry = found.find(wanted)
            if entry is not None:
                return entry
        return None

    def read(self, after: Mapping[str, int] | None = None) -> Iterator[Entry]:
        """Committed answers, in order."""
        cursor = after or {}
        for segment, end in journal.ends(self._segments()):
            last = cursor.get(segment.process, 0)
            if last < end:
                with self._reading(segment) as found:
                    yield from found.read(last)

    def recover(self, accounted: Collection[str] = ()) -> list[Recovery]:
        """The account of every segment that is over."""
        processes = {segment.process for segment in self._segments() if str(segment) not in accounted}
        living = {process for process in processes if lives(self._place / f"{process}.lock")}
        # Listed anew: of a process that is gone, only what is found after that is final.
        known = [segment for segment in self._segments() if segment.process in processes]
        accounts = []
        for segment, end in journal.ends(known):
            if str(segment) in accounted:
                continue
            with self._reading(segment) as found:
                if found.closed or segment.process not in living:
                    accounts.append(found.account(end))
        return accounts

    def erase(self, chosen: Callable[[Entry], bool]) -> int:
        """Delete what `chosen` says, segment by segment; one that a crash left unscrubbed is scrubbed now."""
        erased = 0
        for segment in self._segments():
            with self._reading(segment) as found:
                numbers = [entry.seq for entry in found.read(0) if chosen(entry)]
                unfinished = found.unscrubbed
            if numbers or unfinished:
                journal_segment.erase(self._place / f"{segment}{journal_segment.SUFFIX}", numbers)
            erased += len(numbers)
        return erased

    def _segments(self) -> list[Segment]:
        names = (
            path.name.removesuffix(journal_segment.SUFFIX) for path in self._place.glob(f"*{journal_segment.SUFFIX}")
        )
        return [segment for name in names if (segment := Segment.parse(name)) is not None]

    def _reading(self, segment: Segment) -> contextlib.AbstractContextManager[journal_segment.ReadSegment]:
        return journal_segment.reading(self._place / f"{segment}{journal_segment.SUFFIX}", segment)
