"""The journal in memory: every answer is committed when it is recorded, and numbers are reserved as on a disk.

Many recorders may share one journal. `image()` is what a crash at this moment would leave, for those who rehearse one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime

from flyball._kernel import facts, ids
from flyball._kernel.clock import Clock, from_micros, micros
from flyball._kernel.errors import DataError, FlyballError, StateError
from flyball.serve import body as bodies
from flyball.serve import journal
from flyball.serve.archive import Dropped, Moved
from flyball.serve.journal import Answer, Deliver, Done, Entry, Header, Recovery, Segment, Settings, Standing


class _Kept:
    """One segment: its answers carry the numbers from `segment.first` on, without a gap."""

    def __init__(self, segment: Segment, header: Header, bound: int) -> None:
        self.segment, self.header, self.bound = segment, header, bound
        self.answers: list[bytes] = []  # items of a page
        self.places: dict[bytes, int] = {}
        self.size = 0
        self.closed = False
        self.dropped = 0

    @property
    def last(self) -> int:
        return self.segment.first + len(self.answers) - 1

    def close(self) -> None:
        self.closed, self.bound = True, self.last

    def entry(self, seq: int) -> Entry | None:
        (answer,) = bodies.answers(bodies.page([self.answers[seq - self.segment.first]]))
        return None if answer is None else bodies.entry(answer, self.header, self.segment, str(self.segment), seq)

    def account(self, end: float) -> Recovery:
        recorded = [(self.segment.first, self.last)] if self.answers else []
        return Recovery(
            segment=str(self.segment),
            header=self.header,
            closed=self.closed,
            recorded=len(self.answers),
            refused=0,
            gaps=journal.gaps(self.segment.first, int(min(self.bound, end)), recorded),
            erased=self.answers.count(bodies.ERASED) - self.dropped,
            dropped=self.dropped,
        )


class MemoryJournal:
    """See `serve.journal.Journal`."""

    def __init__(self, clock: Clock, settings: Settings | None = None) -> None:
        self._clock = clock
        self._settings = settings or Settings()
        self._kept: dict[Segment, _Kept] = {}
        self._living: set[str] = set()
        self._opened = 0
        self._archived: set[str] = set()

    def open(
        self,
        app: str,
        *,
        head: Callable[[], facts.Head] = lambda: facts.START,
        deliver: Deliver = journal.at_once,
    ) -> MemoryRecorder:
        """Begin to record."""
        # Counted, not random: the account of a segment names it, and is part of what a rehearsal says.
        self._opened += 1
        process = ids.uuid7(self._clock.now(), self._opened.to_bytes(10, "big"))
        known = facts.START

        def create(first: int) -> _Kept:
            nonlocal known
            stale = False
            try:
                known = head()
            except FlyballError:
                stale = True
            durability = self._settings.durability
            header = Header(format=journal.FORMAT, app=app, durability=durability, head=known, head_is_stale=stale)
            segment = Segment(process, first, micros(self._clock.now()))
            return self._kept.setdefault(segment, _Kept(segment, header, first - 1 + self._settings.block))

        self._living.add(process)
        return MemoryRecorder(create, self._settings, self._clock, deliver, lambda: self._living.discard(process))

    def find(self, prediction: str) -> Entry | None:
        """The answer with that id."""
        wanted = journal.packed(prediction)
        for segment in journal.likely(list(self._kept), wanted) if wanted is not None else ():
            kept = self._kept[segment]
            if wanted in kept.places:
                return kept.entry(kept.places[wanted])
        return None

    def read(self, after: Mapping[str, int] | None = None) -> Iterator[Entry]:
        """Committed answers, in order."""
        cursor = after or {}
        for segment, _ in journal.ends(list(self._kept)):
            kept = self._kept[segment]
            for seq in range(max(segment.first, cursor.get(segment.process, 0) + 1), kept.last + 1):
                if (entry := kept.entry(seq)) is not None:
                    yield entry

    def recover(self, accounted: Collection[str] = ()) -> list[Recovery]:
        """The account of every segment that is over."""
        ends = journal.ends(list(self._kept))
        over = ((self._kept[segment], end) for segment, end in ends if str(segment) not in accounted)
        return [kept.account(end) for kept, end in over if kept.closed or kept.segment.process not in self._living]

    def erase(self, chosen: Callable[[Entry], bool]) -> int:
        """Forget what `chosen` says; the numbers stay spoken for."""
        gone = [entry for entry in self.read() if chosen(entry)]
        for kept, entry in self._places(gone):
            kept.answers[entry.seq - kept.segment.first] = bodies.ERASED
        return len(gone)

    def compact(self, accounted: Collection[str], before: int) -> Moved | None:
        """Call a segment archived: a memory has no cheaper place."""
        over = {account.segment for account in self.recover()} & set(accounted) - self._archived
        name = next((str(each) for each in sorted(self._kept) if str(each) in over and each.started < before), None)
        if name is None:
            return None
        self._archived.add(name)
        return Moved(segment=name, answers=sum(entry.segment == name for entry in self.read()), files=1, into=1)

    def drop(self, before: date, *, look: bool = False) -> Dropped:
        """Forget the archived answers of earlier days."""
        end = micros(datetime(before.year, before.month, before.day, tzinfo=UTC))
        old = [entry for entry in self.read() if entry.segment in self._archived and entry.asked < end]
        if not look:
            for kept, entry in self._places(old):
                kept.answers[entry.seq - kept.segment.first] = bodies.ERASED
                kept.dropped += 1
        days = sorted({from_micros(entry.asked).date() for entry in old})
        first, last = (days[0], days[-1]) if days else (None, None)
        return Dropped(answers=len(old), days=len(days), first=first, last=last)

    def _places(self, entries: Iterable[Entry]) -> Iterator[tuple[_Kept, Entry]]:
        for entry in entries:
            segment = Segment.parse(entry.segment)
            assert segment is not None  # noqa: S101 - it was made of one
            yield self._kept[segment], entry

    def image(self) -> MemoryJournal:
        """What a crash at this moment would leave."""
        left = MemoryJournal(self._clock, self._settings)
        for segment, kept in self._kept.items():
            copy = left._kept[segment] = _Kept(segment, kept.header, kept.bound)
            copy.answers, copy.places = list(kept.answers), dict(kept.places)
            copy.size, copy.closed, copy.dropped = kept.size, kept.closed, kept.dropped
        left._archived = set(self._archived)
        return left


class MemoryRecorder:
    """See `serve.journal.Recorder`."""

    def __init__(
        self,
        create: Callable[[int], _Kept],
        settings: Settings,
        clock: Clock,
        deliver: Deliver,
        release: Callable[[], None],
    ) -> None:
        self._create, self._settings, self._clock = create, settings, clock
        self._deliver, self._release = deliver, release
        self._at, self._opened = create(1), clock.monotonic()
        self._closed = False

    @property
    def process(self) -> str:
        """The identity of this recorder."""
        return self._at.segment.process

    def record(self, answers: Sequence[Answer], done: Done | None = None) -> int:
        """Number `answers` and keep them."""
        rows = [bodies.pack(answer) for answer in answers]
        if len(rows) > self._settings.at_once:
            raise DataError(
                "unrecordable-answer", f"{len(rows):,} answers cannot be recorded at once", next="raise Settings.block"
            )
        if self._closed:
            raise StateError("journal-closed", "This recorder takes no more answers", next="open another one")
        at, now = self._at, self._clock.monotonic()
        if rows and self._settings.full(len(at.answers), at.size, now - self._opened):
            self._at, self._opened = self._create(at.last + 1), now
            at.close()
            at = self._at
        first = at.last + 1
        for seq, (identity, _, item) in enumerate(rows, first):
            at.answers.append(item)
            at.places[identity] = seq
            at.size += len(item)
        at.bound = journal.reserve(at.last, at.bound, self._settings.block)
        if done is not None:
            tell = functools.partial(journal.tell, [done], None)
            tell() if self._settings.durability == "interval" else self._deliver(tell)
        return first

    def standing(self) -> Standing:
        """A memory is never full."""
        return Standing()

    def close(self) -> None:
        """End the segment."""
        if not self._closed:
            self._closed = True
            self._at.close()
            self._release()
