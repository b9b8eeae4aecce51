"""The journal in SQLite: a folder with one database for each process and segment.

    PROCESS.FIRST.STARTED.sqlite    a segment: its first number, and when it was opened (microseconds)
    PROCESS.FIRST.STARTED.new       what is not yet one, or never became one
    PROCESS.lock                    locked while the process lives; the kernel lets go of it with the process. It holds the
                                    numbers that left unlogged while the disk was full

So a segment that is neither closed nor locked has an account to give. No answer here is ever changed, by readers least
of all; it may be erased, and its number stays. Segments that are over are moved into the archive, which every reader here
reads with them; see `journal_archive`. The folder must be on a local disk. While
a process records, nothing else in it may open these files but SQLite: closing any descriptor of a file drops the locks that
SQLite holds on it.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date
from pathlib import Path
from uuid import UUID

from flyball._kernel import facts, ids
from flyball._kernel.clock import Clock, micros
from flyball._kernel.errors import AdapterError, FlyballError
from flyball.adapters.embedded import disk, journal_claim, journal_moves, journal_pages, journal_segment
from flyball.adapters.embedded.journal_archive import DeltaArchive
from flyball.adapters.embedded.journal_claim import Claim
from flyball.adapters.embedded.journal_index import Archived
from flyball.adapters.embedded.journal_pages import Noted
from flyball.adapters.embedded.journal_recorder import SqliteRecorder
from flyball.serve import journal
from flyball.serve.archive import Dropped, Moved
from flyball.serve.journal import Deliver, Entry, Header, Recovery, Segment, Settings


class SqliteJournal:
    """See `serve.journal.Journal`.

    Args:
        place: the folder; made with mode 0700 where missing, by the first recorder.
        clock: dates segments and processes.
        settings: for the recorders opened here.
        connect: makes a writer's connection.
        archive: in the same folder; one that several journals share is read once.
    """

    def __init__(
        self,
        place: Path,
        clock: Clock,
        settings: Settings | None = None,
        connect: journal_segment.Connect = journal_segment.connect,
        archive: DeltaArchive | None = None,
    ) -> None:
        self._place, self._clock, self._connect = place, clock, connect
        self._archive = archive or DeltaArchive(place)
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
        known = facts.START

        def create(first: int) -> journal_segment.OpenSegment:
            nonlocal known
            stale = False
            try:
                known = head()
            except FlyballError:
                # Whoever answers goes on while the catalog is away.
                stale = True
            header = Header(
                format=journal.FORMAT,
                app=app,
                durability=self._settings.durability,
                head=known,
                head_is_stale=stale,
            )
            segment = Segment(process, first, micros(self._clock.now()))
            return journal_segment.create(self._place, self._connect, segment, header, first - 1 + self._settings.block)

        try:
            self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
            disk.sync(self._place.parent)
            with contextlib.ExitStack() as undo:
                claim = Claim(self._lock(process), process, create)
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
            with contextlib.suppress(journal_moves.GoneError), self._reading(segment) as found:
                if (entry := found.find(wanted)) is not None:
                    return entry
        return self._archive.find(str(UUID(bytes=wanted)))

    def read(self, after: Mapping[str, int] | None = None) -> Iterator[Entry]:
        """Committed answers, in order."""
        cursor = after or {}
        files = self._segments()
        archived = {each.segment: each for each in self._archive.segments()}
        moved: list[tuple[Archived, int]] = []
        for segment, end in journal.ends([*archived, *(each for each in files if each not in archived)]):
            last = cursor.get(segment.process, 0)
            if segment in archived:
                moved += [(archived[segment], last)]
            elif last < end:
                yield from self._archive.read(moved)
                moved = []
                try:
                    with self._reading(segment) as found:
                        yield from found.read(last)
                except journal_moves.GoneError:
                    moved = [(each, last) for each in self._archive.segments() if each.segment == segment]
        yield from self._archive.read(moved)

    def recover(self, accounted: Collection[str] = ()) -> list[Recovery]:
        """The account of every segment that is over."""
        processes = {segment.process for segment in self._segments() if str(segment) not in accounted}
        living = {process for process in processes if journal_claim.lives(self._lock(process))}
        # Listed anew: of a process that is gone, only what is found after that is final.
        known = [segment for segment in self._segments() if segment.process in processes]
        accounts = []
        for segment, end in journal.ends(known):
            if str(segment) in accounted:
                continue
            with contextlib.suppress(journal_moves.GoneError), self._reading(segment) as found:
                if found.closed or segment.process not in living:
                    last = end == math.inf and not found.closed
                    accounts.append(
                        found.account(end, journal_claim.noted(self._lock(segment.process)) if last else Noted())
                    )
        return sorted([*accounts, *self._archive.accounts(accounted)], key=lambda account: account.segment)

    def erase(self, chosen: Callable[[Entry], bool]) -> int:
        """Delete what `chosen` says, segment by segment; one that a crash left unscrubbed is scrubbed now."""
        erased = 0
        with self._alone():
            for segment in self._segments():
                with self._reading(segment) as found:
                    numbers = [entry.seq for entry in found.read(0) if chosen(entry)]
                    unfinished = found.unscrubbed
                if numbers or unfinished:
                    journal_pages.erase(self._path(segment), segment, numbers)
                erased += len(numbers)
            return erased + self._archive.erase(chosen)

    def compact(self, accounted: Collection[str], before: int) -> Moved | None:
        """Move one segment into the archive, or join what lies there."""
        with self._alone():
            left = self._segments()
            for segment in journal_moves.first(left, before):
                others = {str(each) for each in left if each != segment} | self._archive.names()
                if str(segment) in accounted and (accounts := self.recover(others)):
                    with self._reading(segment) as found:
                        last = journal_moves.last(accounts[0], segment)
                        moved = self._archive.move(accounts[0], last, found.read(0))
                    journal_moves.remove(self._path(segment))
                    return moved
            return self._archive.join(f"{self._clock.now():%Y-%m-%d}")

    def drop(self, before: date, *, look: bool = False) -> Dropped:
        """Delete the archived answers of the days before that one."""
        with self._alone():
            return self._archive.drop(before, look=look)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Change the archive; what a crash left of a change goes first."""
        with journal_moves.alone(self._place):
            for name in self._archive.names():
                if (path := self._place / f"{name}{journal_segment.SUFFIX}").exists():
                    journal_moves.remove(path)
            yield

    def _segments(self) -> list[Segment]:
        names = (
            path.name.removesuffix(journal_segment.SUFFIX) for path in self._place.glob(f"*{journal_segment.SUFFIX}")
        )
        found = [segment for name in names if (segment := Segment.parse(name)) is not None]
        # Asked after they were listed: what has gone by then lies in the archive, and nothing lies in neither.
        archived = self._archive.names() if found else set()
        return [segment for segment in found if str(segment) not in archived]

    def _path(self, segment: Segment) -> Path:
        return self._place / f"{segment}{journal_segment.SUFFIX}"

    def _lock(self, process: str) -> Path:
        return self._place / f"{process}.lock"

    def _reading(self, segment: Segment) -> contextlib.AbstractContextManager[journal_pages.ReadSegment]:
        return journal_moves.reading(self._path(segment), segment)
