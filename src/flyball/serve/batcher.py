"""The batcher: what was asked while the event loop turned once is answered together.

    requests of a turn -> rows -> router, all at once -> one record -> replies, when the journal lets them leave

Nobody waits for others to come: a lone question is answered in the turn after it was read. While one turn computes the next
gathers, so turns grow with the load by themselves, and what a turn costs once (a call of the predictor, the journal's lock, a
cold cache) is shared. A turn takes `PIECE` rows at most, and goes on with a long list later: others get their turn.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, Final

from flyball._kernel.clock import Clock
from flyball._kernel.errors import Bug, DataError, FlyballError, RetryableError, StateError
from flyball.serve import guard
from flyball.serve.dialect import Dialect
from flyball.serve.guard import Limits, Refused
from flyball.serve.journal import Answer, Recorder
from flyball.serve.message import Reply, Request
from flyball.serve.router import Given, Router, Shadow, Way
from flyball.serve.shadows import Shadows
from flyball.serve.tally import Tally

PIECE: Final = 128
"""Rows of one turn: a list of a thousand must not hold up who asks one."""
HOLDS: Final = 1.0
"""Seconds that answers are held for which the journal has no room: disks stall for less, and no caller need hear of it."""
TRIES_EVERY: Final = 0.002
"""Seconds between two looks for room;"""
RESTS: Final = 8
"""and so many times as long as the last one took: it packs all that is held, while the journal's thread needs the processor."""
LOOKS_EVERY: Final = 0.25
"""Seconds between two looks at what waits for the journal."""

_WHO: Final = attrgetter("model", "version", "role")

Say = Callable[[Dialect, Exception], Reply]
"""What is said of an error in a dialect."""


class Pending:
    """A request of questions, on its way to its reply.

    Args:
        way: who answers it; kept, whatever is swapped meanwhile.
        dialect: how it speaks.
        request: what was asked.
        answer: takes the reply.
        began: when it was there, monotonic seconds.
        wanted: the version that shall answer it, by an operator's override; "" for whoever does.
    """

    __slots__ = (
        "answer",
        "answers",
        "asked",
        "at",
        "began",
        "dialect",
        "late",
        "left",
        "request",
        "rows",
        "shadows",
        "shape",
        "wanted",
        "way",
    )

    def __init__(
        self,
        way: Way,
        dialect: Dialect,
        request: Request,
        answer: Callable[[Reply], None],
        began: float,
        wanted: str = "",
    ) -> None:
        self.way, self.dialect, self.request, self.answer = way, dialect, request, answer
        self.began, self.wanted = began, wanted
        self.rows: list[dict[str, Any]] | None = None
        self.shape: Any = None
        self.asked: datetime | None = None
        self.at = 0
        self.answers: list[Answer] = []
        self.shadows: list[Shadow] = []
        self.left = self.late = False


class Batcher:
    """The questions of one process, between the edge and the journal.

    Args:
        router: answers them.
        recorder: must deliver on the event loop's thread.
        shadows: computes what nobody waits for.
        say: what is said of an error.
    """

    def __init__(
        self, router: Router, recorder: Recorder, shadows: Shadows, limits: Limits, clock: Clock, say: Say
    ) -> None:
        self._router, self._recorder, self._shadows, self._say = router, recorder, shadows, say
        self._limits, self._clock = limits, clock
        self._tally: Tally = shadows.tally
        self._queue: deque[Pending] = deque()
        self._turning = False
        self._leaving: deque[_Leaving] = deque()
        self._held: list[Pending] = []
        self._until = 0.0

    def add(self, pending: Pending) -> None:
        """Answer it in the next turn.

        Raises:
            RetryableError: `server-busy`.
        """
        if len(self._queue) >= self._limits.waiting:
            raise _busy("as many requests wait as it takes")
        self._queue.append(pending)
        self._shadows.asking += 1
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        loop, began, again = asyncio.get_running_loop(), self._clock.monotonic(), TRIES_EVERY
        try:
            if self._held:
                held, self._held = self._held, []
                self._record(held)
                now = self._clock.monotonic()
                again = max(again, min(RESTS * (now - began), self._until - now))
            # While the journal has no room nothing is computed: who asks waits in the queue, which is bounded.
            if not self._held:
                self._answer(began)
        finally:
            self._turning = bool(self._queue or self._held)
            if self._held:
                loop.call_later(again, self._turn)
            elif self._turning:
                loop.call_soon(self._turn)

    def _answer(self, began: float) -> None:
        taken = list(self._take(began))
        rows = sum(len(piece) for _, piece in taken)
        spent = (self._clock.monotonic() - began) / (rows or 1)
        now = self._clock.now()
        finished: list[Pending] = []
        for (_, _, wanted), group in groupby(taken, lambda each: (id(each[0].way), each[0].asked, each[0].wanted)):
            pieces = list(group)
            finished += self._answered(pieces, wanted, pieces[0][0].asked or now, spent)
        if finished:
            self._until = self._clock.monotonic() + HOLDS
            self._record(finished)

    def _take(self, now: float) -> Iterator[tuple[Pending, list[dict[str, Any]]]]:
        """Requests with the rows of theirs that are answered in this turn."""
        room = PIECE
        while self._queue and room > 0:
            pending = self._queue[0]
            rows = pending.rows if pending.rows is not None else self._read(pending, now)
            piece = rows[pending.at : pending.at + room]
            pending.at += len(piece)
            # The answers of a list go to the journal at once: as many as it takes, however many lists end in a turn.
            room -= max(1, len(piece) if pending.at < len(rows) else pending.at)
            self._queue.popleft()
            if not pending.left and pending.at < len(rows):
                self._queue.append(pending)  # behind those who asked meanwhile
            if not pending.left:
                yield pending, piece

    def _read(self, pending: Pending, now: float) -> list[dict[str, Any]]:
        try:
            if now - pending.began > self._limits.seconds:
                raise _busy("it could not be answered in time")
            found = pending.dialect.read(pending.way.routed.champion, pending.request)
            if len(found.rows) > self._limits.rows:
                many = f"{len(found.rows):,} questions"
                raise Refused(413, guard.too_large(many, f"{self._limits.rows:,} in one request"))
        except Exception as problem:  # noqa: BLE001 - the edge, as in `_answered`
            self._refuse(pending, problem)
            return []
        pending.rows, pending.shape = found.rows, found.shape
        return found.rows

    def _answered(
        self, pieces: Sequence[tuple[Pending, list[dict[str, Any]]]], wanted: str, asked: datetime, spent: float
    ) -> list[Pending]:
        """Ask for all of them; returns the requests of which every row has its answer now."""
        way = pieces[0][0].way
        rows = [row for _, piece in pieces for row in piece]
        try:
            if wanted:
                given = iter(self._router.override(way, wanted, rows, asked, spent))
            else:
                given = iter(self._router.ask(way, rows, asked, spent))
        except Exception as problem:  # noqa: BLE001 - the edge: whatever goes wrong is told, and the turns go on
            if len(pieces) > 1:  # one of them: the others can be answered
                return [done for each in pieces for done in self._answered([each], wanted, asked, spent)]
            self._refuse(pieces[0][0], problem)
            return []
        return [each for each, piece in pieces if self._take_in(each, list(islice(given, len(piece))), asked)]

    def _take_in(self, pending: Pending, given: Sequence[Given], asked: datetime) -> bool:
        pending.asked = asked
        for each in given:
            if each.failed:
                self._shadows.failed(each.failed)
            if each.answer is None:
                self._refuse(pending, each.error or Bug("server-failed", "A question got neither answer nor reason."))
                return False
            pending.answers.append(each.answer)
            if each.shadow is not None:
                pending.shadows.append(each.shadow)
            pending.shadows.extend(each.besides)
        return pending.rows is not None and pending.at >= len(pending.rows)

    def _record(self, finished: list[Pending]) -> None:
        """Hand the answers of whole requests to the journal, and they leave when it says so; hold those it has no room for."""
        answers = [answer for each in finished for answer in each.answers]
        leaving = _Leaving(self, finished, len(answers), self._clock.monotonic() + self._limits.seconds)
        self._tally.waiting += len(answers)
        try:
            self._recorder.record(answers, leaving.done)
        except Exception as problem:  # noqa: BLE001 - the edge, as in `_answered`
            self._tally.waiting -= len(answers)
            self._unrecorded(finished, problem)
            return
        if not leaving.over:
            self._leaving.append(leaving)
            if len(self._leaving) == 1:
                asyncio.get_running_loop().call_later(LOOKS_EVERY, self._look)

    def _unrecorded(self, finished: list[Pending], problem: Exception) -> None:
        if isinstance(problem, RetryableError) and self._clock.monotonic() < self._until:
            self._held += finished
        elif isinstance(problem, (DataError, RetryableError)) and len(finished) > 1:
            for each in finished:  # the others may be recordable, or have room
                self._record([each])
        else:
            for each in finished:
                self._refuse(each, problem)

    def _look(self) -> None:
        """Who waits for the journal for too long, waits no more."""
        now = self._clock.monotonic()
        while self._leaving and (self._leaving[0].over or self._leaving[0].until <= now):
            self._leaving.popleft().late()
        if self._leaving:
            asyncio.get_running_loop().call_later(LOOKS_EVERY, self._look)

    def leave(self, pending: Pending) -> bool:
        """Its answers may leave; returns whether they did."""
        if pending.left:
            return False
        try:
            reply = pending.dialect.write(
                pending.way.routed.champion, pending.shape, pending.answers, pending.asked or self._clock.now()
            )
        except Exception as problem:  # noqa: BLE001 - the edge, as in `_answered`
            self._refuse(pending, problem)
            return False
        self._left(pending)
        self._count(pending)
        if pending.shadows:
            self._shadows.add(pending.shadows)
        pending.answer(reply)
        return True

    def _refuse(self, pending: Pending, problem: Exception) -> None:
        if not pending.left:
            self._left(pending)
            pending.answer(self._say(pending.dialect, problem))

    def _left(self, pending: Pending) -> None:
        pending.left = True
        self._shadows.asking -= 1

    def _count(self, pending: Pending) -> None:
        seconds, answers = self._clock.monotonic() - pending.began, pending.answers
        if len(answers) == 1:  # which a Counter would take longer to count than to answer
            self._tally.of((answers[0].model, answers[0].version, answers[0].role)).add(1, seconds)
            return
        for who, count in Counter(map(_WHO, answers)).items():
            self._tally.of(who).add(count, seconds)


class _Leaving:
    """The requests of one turn, which leave when the journal has said of all their answers that they may."""

    __slots__ = ("_answers", "_batcher", "_finished", "over", "until")

    def __init__(self, batcher: Batcher, finished: Sequence[Pending], answers: int, until: float) -> None:
        self._batcher, self._finished, self._answers, self.until = batcher, finished, answers, until
        self.over = False

    def done(self, error: BaseException | None) -> None:
        """The journal calls this once, on the event loop's thread."""
        self.over = True
        batcher = self._batcher
        batcher._tally.waiting -= self._answers
        finished, self._finished = self._finished, ()  # this waits to be looked at, and they need not
        for each in finished:
            if error is None:
                if not batcher.leave(each) and not each.late:
                    batcher._tally.withheld += len(each.answers)
            else:
                batcher._refuse(each, error if isinstance(error, FlyballError) else _not_written(error))

    def late(self) -> None:
        """It was not on disk in time: what may leave unlogged does, and the rest is turned away."""
        if self.over:
            return
        batcher = self._batcher
        for each in self._finished:
            if batcher._limits.unlogged:
                each.late = batcher.leave(each)
                batcher._tally.late += len(each.answers) if each.late else 0
            else:
                batcher._refuse(each, _slow(batcher._limits.seconds))


def _busy(why: str) -> RetryableError:
    return RetryableError(
        "server-busy", "This server has more to do than it can.", why=f"Of what was asked, {why}.", next="Try again."
    )


def _slow(seconds: float) -> RetryableError:
    return RetryableError(
        "journal-slow",
        f"The answer was not on disk within {seconds:g} s.",
        why="An answer leaves after it is recorded.",
        next="Try again; if it lasts, find out why the disk is slow.",
    )


def _not_written(error: BaseException) -> StateError:
    return StateError(
        "journal-closed", "The answer could not be recorded.", why=type(error).__name__, next="Try again."
    )
