"""Keeping answers: segments that are over go into the archive, and answers go for good when they were kept long enough.

The loop tends the archive beside its passes, one piece at a time, so that nothing waits for it. How long answers are kept is
said once, by an operator, and is a fact: `Keeping`. Days go whole. Before they go a fact says so, and one after it; whoever
dies between the two is followed by the next look, which does the rest. What may still be looked at is never dropped.
"""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Never

from flyball._kernel import facts
from flyball._kernel.clock import micros
from flyball._kernel.errors import DataError, FlyballError, StateError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import account, erasures, watching
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.serve import journal
from flyball.serve.archive import Dropped, Moved

OLD: Final = timedelta(hours=1)
"""The loop moves segments that were opened before this: who looks at the last answers finds them where they were written."""

REST: Final = 60.0
"""Seconds by the session's clock between two looks of the loop that found nothing to do."""

_TRUST: Final = timedelta(days=1)
"""Beyond what is looked back at: days go whole, and clocks differ."""


class Keeping(Said, frozen=True, kw_only=True, tag="serve.keeping"):
    """Answers are kept for so many days from now on, and then dropped by the loop; None: for ever."""

    days: int | None
    reason: str
    by: str


class AnswersDropping(Said, frozen=True, kw_only=True, tag="serve.dropping"):
    """The answers that were asked before a day are about to be dropped; a crash may come before `AnswersDropped`."""

    before: date
    answers: int


class AnswersDropped(Said, frozen=True, kw_only=True, tag="serve.dropped"):
    """The answers that were asked before a day are gone.

    Attributes:
        answers: how many. Where an earlier try died, the greater number of the two.
        first, last: the days that they were of; None where an earlier try had dropped them all.
    """

    before: date
    answers: int
    first: date | None
    last: date | None
    reason: str
    by: str


def compact(session: Session, tell: Tell = silent) -> list[Moved]:
    """Move every segment that is over into the archive, and join what lies there in many pieces; returns what was done.

    Raises:
        AdapterError: `journal-unreadable`, `archive-not-written`.
        RetryableError: `store-busy`.
    """
    account.account(session)
    known, before, done = _known(session), micros(session.clock.now()), list[Moved]()
    while (moved := session.journal.compact(known, before)) is not None:
        done.append(moved)
        tell(Event(step="archive", state="run", detail=_told(moved)))
    return done


def keep(session: Session, days: int | None, *, reason: str, by: str) -> Keeping:
    """Say how long answers are kept; the loop follows it.

    Raises:
        DataError: `answers-are-needed`.
    """
    if days is not None:
        _refuse_needed(session, days)
    said = Keeping(days=days, reason=reason, by=by)
    session.facts.append([Fact(session.app.name, "", said)])
    return said


def kept(session: Session) -> Keeping | None:
    """How long answers are kept, as it was said last; None: nobody said, so for ever."""
    found: Keeping | None = None
    for fact in session.facts.read(kinds=frozenset({facts.kind(Keeping)}), app=session.app.name):
        found = facts.decode(fact, Keeping)
    return found if found is None or found.days is not None else None


def look(session: Session, days: int) -> tuple[date, Dropped]:
    """The day before which answers would be dropped, and what would go; moves nothing.

    Raises:
        DataError: `answers-are-needed`.
    """
    _refuse_needed(session, days)
    before = (session.clock.now() - timedelta(days=days)).date()
    return before, session.journal.drop(before, look=True)


def drop(session: Session, days: int, *, reason: str, by: str) -> AnswersDropped:
    """Drop the archived answers that are older, from the archive and from the disk.

    Raises:
        DataError: `answers-are-needed`.
        AdapterError, RetryableError: as `compact`: again, it goes on.
    """
    before, found = look(session, days)
    died = _died(session)
    if died is not None:
        before = max(before, died.before)
    begun = AnswersDropping(before=before, answers=max(found.answers, died.answers if died is not None else 0))
    session.facts.append([Fact(session.app.name, "", begun)])
    gone = session.journal.drop(before)
    said = AnswersDropped(
        before=before,
        answers=max(gone.answers, begun.answers if died is not None else 0),
        first=gone.first,
        last=gone.last,
        reason=reason,
        by=by,
    )
    session.facts.append([Fact(session.app.name, "", said)])
    return said


def tend(session: Session) -> str:
    """One piece of what is due; returns what was done, "" for nothing. Raises as `drop`."""
    rule = kept(session)
    if (
        rule is not None
        and rule.days is not None
        and (_died(session) is not None or look(session, rule.days)[1].answers)
    ):
        said = drop(session, rule.days, reason=rule.reason, by=rule.by)
        return f"{said.answers:,} answers from before {said.before} are dropped, as {rule.by} said"
    moved = session.journal.compact(_known(session), micros(session.clock.now() - OLD))
    return _told(moved) if moved is not None else ""


class Tender:
    """Tends the archive beside a loop: one piece at a time on a thread of its own, so that no pass waits for it."""

    def __init__(self, session: Session, tell: Tell) -> None:
        self._session, self._tell = session, tell
        self._at: threading.Thread | None = None
        self._rests = session.clock.monotonic()

    def look(self) -> None:
        """Begin the next piece, unless one is worked on, or there was none a while ago."""
        if (self._at is None or not self._at.is_alive()) and self._session.clock.monotonic() >= self._rests:
            self._at = threading.Thread(target=self._tend, name="flyball-archive", daemon=True)
            self._at.start()

    def end(self) -> None:
        """Wait for the piece that is worked on."""
        if self._at is not None:
            self._at.join()

    def _tend(self) -> None:
        try:
            did, state = tend(self._session), "done"
        except FlyballError as problem:
            did, state = f"{problem} It is tried again.", "failed"
        if did:
            self._tell(Event(step="archive", state=state, detail=did))
        if not did or state == "failed":
            self._rests = self._session.clock.monotonic() + REST


def refuse(session: Session, prediction: str) -> Never:
    """Say why no answer of that id is found.

    Raises:
        StateError: `answer-not-kept`, where all of its time were dropped; `no-such-prediction`.
    """
    dropped = _dropped(session)
    asked = _asked(prediction)
    if dropped is not None and asked is not None and asked < datetime.combine(dropped.before, time(), UTC):
        raise StateError(
            "answer-not-kept",
            f"No answer {prediction!r} is kept: by its id it was asked on {asked:%Y-%m-%d}.",
            why=f"Answers from before {dropped.before} were dropped ({dropped.reason or 'no reason was given'}, {dropped.by}).",
            next="Restore a backup from before that into another home, and ask there.",
        )
    erased = sum(row.times for row in erasures.rows(session))
    took = f"; {erased} erasures of this app took answers with the persons that they were about." if erased else "."
    raise StateError(
        "no-such-prediction",
        f"No answer {prediction!r} is recorded.",
        why=f"Every answer is recorded under the id that the caller got{took}",
        next="Check the id; flyball status says how many answers there are.",
    )


def _asked(prediction: str) -> datetime | None:
    """When an id was made, by the id itself."""
    packed = journal.packed(prediction)
    return datetime.fromtimestamp(int.from_bytes(packed[:6], "big") / 1000, UTC) if packed is not None else None


def _dropped(session: Session) -> AnswersDropped | None:
    """The dropping that reached furthest."""
    read = session.facts.read(kinds=frozenset({facts.kind(AnswersDropped)}), app=session.app.name)
    return max((facts.decode(fact, AnswersDropped) for fact in read), key=lambda said: said.before, default=None)


def _died(session: Session) -> AnswersDropping | None:
    """The last dropping, if it never came to its end."""
    last: AnswersDropping | None = None
    kinds = frozenset({facts.kind(AnswersDropping), facts.kind(AnswersDropped)})
    for fact in session.facts.read(kinds=kinds, app=session.app.name):
        last = facts.decode(fact, AnswersDropping) if fact.kind == facts.kind(AnswersDropping) else None
    return last


def _known(session: Session) -> frozenset[str]:
    """The segments whose account is recorded."""
    name = session.app.name
    found = session.facts.scan(account.ACCOUNTS.name, f"{name}//")
    return frozenset(key.removeprefix(f"{name}//") for key, _ in found)


def _refuse_needed(session: Session, days: int) -> None:
    """What monitors, guards and A/B tests look back at must stay."""
    needed = watching.looks_back(session) + _TRUST
    if timedelta(days=days) < needed:
        raise DataError(
            "answers-are-needed",
            f"Answers cannot be dropped after {days} days.",
            why=f"Monitors, guards and A/B tests of {session.app.name} look back {needed.days} days.",
            next=f"Keep them for {needed.days} days at least.",
        )


def _told(moved: Moved) -> str:
    if moved.segment:
        return f"{moved.answers:,} answers of {moved.segment} are archived"
    return f"{moved.files} files of {moved.answers:,} archived answers are joined"
