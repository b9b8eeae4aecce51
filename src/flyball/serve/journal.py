"""The journal: every answer, on disk, in order; what a crash took is counted and named, never silence.

A **journal** is a place that many processes share: it finds, reads, and gives account. A process that answers opens a
**recorder** on it: one writer, whose numbers run on over its **segments**, so (process, number) names an answer for good.
A number is handed out when the answer is recorded; the numbers that may be handed out are reserved on disk first, a
**block** at a time, so a crash leaves at most one block of numbers that nobody can speak for: `Recovery.unknown`.

*Acknowledged*: the answer may leave when `done` is called, after its commit. *Interval*: it may leave at once, and a
crash loses what was not yet committed. What a full disk did not take is **refused** (never acknowledged) or **unlogged** (it
left all the same), as `Settings.when_full` says; both are counted, and their numbers are spoken for.
The journal cannot tell a personal value from another: such columns must be keyed hashes before they come here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple, Protocol, get_args

import msgspec

from flyball._kernel import facts
from flyball._kernel.errors import DeclarationError
from flyball.serve.archive import Archive

FORMAT: Final = 3
"""The layout of a segment. Since 2 an answer may hold numbers and a decision, since 3 they lie in pages; all are read."""

Durability = Literal["acknowledged", "interval"]

WhenFull = Literal["refuse", "unlogged"]
"""What becomes of an answer that the disk does not take: its caller is refused, or it leaves and is counted."""

Done = Callable[[BaseException | None], None]
"""Called once: with None when the answer may leave, or with the error why it must not. It must not raise."""

Deliver = Callable[[Callable[[], None]], object]
"""Runs the acknowledgements of one group commit: `loop.call_soon_threadsafe` fits as it is."""

Span = tuple[int, int]
"""Numbers from the first to the last, both included."""


def at_once(acknowledge: Callable[[], None]) -> None:
    """Deliver on the writer's own thread: for callers that wait on thread-safe futures."""
    acknowledge()


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """One attempt to answer a question, as the serving edge hands it over; most give an answer that leaves.

    Attributes:
        id: the prediction id, `ids.uuid7(asked)`.
        asked: when the question was asked, microseconds since 1970 UTC.
        model: the model of the application.
        version: the version that was asked; "default" where no version could answer.
        epoch: the routing epoch under which it was asked.
        role: "champion", "canary" (the candidate's, to answer by), "shadow" (computed beside, not to leave), "override"
            (an operator chose it), or the fallback that was tried: "previous", "baseline", "default".
        within_tolerance: whether it was asked near enough to the declared moment to enter the skew audit.
        key: the key of the question, deterministic JSON.
        inputs: the request by column: JSON scalars and aware times; personal columns as keyed hashes.
        features: the value of each feature by name, as it was looked up; a recorder also takes a struct of such fields.
        output: what was answered: of several numbers the one that stands for them (`learn.task.Task.headline`); NaN where
            the attempt failed.
        outputs: of an answer of several numbers all of them: one a class in the order of the outcome's Enum, or one a
            quantile; () where there is one.
        decision: what follows from it: true or false where the version has a threshold, the likeliest of its classes; None
            where nothing is decided.
        latency_us: microseconds that the attempt took: the question's share of decoding its request, and its own
            computation. What it waited for (others of its list, the queue of shadows, the disk) is not in it, so that
            versions that were asked the same can be compared.
        via: the predictor, such as "lightgbm" or "onnx".
        failed: the code of the error of an attempt that gave no answer; "" if it gave one. None of these left.
    """

    id: str
    asked: int
    model: str
    version: str
    epoch: int
    role: str
    within_tolerance: bool
    key: str
    inputs: Mapping[str, Any]
    features: Mapping[str, float | int | str | None]
    output: float
    latency_us: int
    via: str
    failed: str = ""
    outputs: tuple[float, ...] = ()
    decision: bool | str | None = None


class Entry(Answer, frozen=True, kw_only=True, array_like=False):
    """An answer in its place in the journal: number `seq` of `process`, lying in `segment`."""

    app: str
    process: str
    segment: str
    seq: int


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment says of itself from its first moment on.

    Attributes:
        format: `FORMAT` of the release that wrote it.
        app: the application that answered.
        durability: what an answer waited for.
        head: the end of the chain of facts when the segment was opened; ties the two histories together.
        head_is_stale: whether the facts could not be asked then, so that `head` is the last one that was known.
    """

    format: int
    app: str
    durability: Durability
    head: facts.Head
    head_is_stale: bool = False


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one segment that is over: every number handed out is recorded, refused, unlogged, or in a gap.

    Attributes:
        segment, header: its name, and what it said of itself.
        closed: whether its recorder closed it; otherwise the process died.
        recorded: answers in it.
        refused: answers that could not be written, whose callers were told so.
        erased, dropped: those of the recorded answers that were erased since, or kept long enough: spoken for, and gone.
        gaps: spans of numbers that may have been handed out and are nowhere. Under "acknowledged" durability none of
            them was acknowledged, unless a slow disk was not waited for (`Settings.slow`).
        unlogged: answers that left though the disk did not take them.
    """

    segment: str
    header: Header
    closed: bool
    recorded: int
    refused: int
    gaps: tuple[Span, ...]
    erased: int = 0
    unlogged: int = 0
    dropped: int = 0

    @property
    def unknown(self) -> int:
        """How many answers may be lost, at most: never more than one block."""
        return sum(last - first + 1 for first, last in self.gaps)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a recorder keeps its promise.

    Attributes:
        durability: what an answer waits for.
        interval: under "interval", the longest time between two commits.
        block: numbers reserved at a time: bounds the answers in flight, and the unknown of a crash.
        patience: how long `record` waits for room before `journal-full`; zero on an event loop's thread.
        when_full: what becomes of answers that the disk does not take.
        slow: how long the serving edge waits for `done` before it refuses (`when_full` is "refuse"), or lets the answer leave,
            which is recorded later, or is part of a crash's unknown ("unlogged").
        rows: a segment is full with so many answers,
        size: or with so many bytes of them,
        age: or so long after it was opened.
    """

    durability: Durability = "acknowledged"
    interval: timedelta = timedelta(milliseconds=20)
    block: int = 4096
    patience: timedelta = timedelta(milliseconds=100)
    rows: int = 250_000
    size: int = 256 * 1024 * 1024
    age: timedelta = timedelta(hours=1)
    when_full: WhenFull = "refuse"
    slow: timedelta = timedelta(seconds=10)

    def __post_init__(self) -> None:
        small = [name for name in ("block", "rows", "size") if getattr(self, name) < 1]
        negative = [name for name in ("interval", "patience", "age", "slow") if getattr(self, name) < timedelta()]
        if small or negative or self.when_full not in get_args(WhenFull):
            raise DeclarationError(
                "journal-settings",
                f"Journal settings out of range: {', '.join(small + negative) or 'when_full'}",
                why="block, rows and size are at least 1; durations are not negative; a full disk refuses, or answers unlogged",
            )

    def full(self, rows: int, size: int, age: float) -> bool:
        """Whether a segment with so many rows and bytes in it, opened `age` seconds ago, takes no more."""
        return rows >= self.rows or size >= self.size or (rows > 0 and age >= self.age.total_seconds())

    @property
    def at_once(self) -> int:
        """Answers that one call may record: as many numbers are free whenever nothing is in flight."""
        return self.block // 2 + 1


class Standing(NamedTuple):
    """What a recorder refused and let go unlogged since it was opened; why its last commit failed, "" where it did not."""

    refused: int = 0
    unlogged: int = 0
    failure: str = ""


class Segment(NamedTuple):
    """The name of a segment: whose it is, its first number, and when it was opened (microseconds); sorts in order."""

    process: str
    first: int
    started: int

    def __str__(self) -> str:
        return f"{self.process}.{self.first:012d}.{self.started:016d}"

    @staticmethod
    def parse(name: str) -> Segment | None:
        """The segment of that name, or None where it is not one."""
        match name.split("."):
            case [process, first, started] if process and first.isdecimal() and started.isdecimal():
                return Segment(process, int(first), int(started))
        return None


class Recorder(Protocol):
    """One process's pen."""

    @property
    def process(self) -> str:
        """The identity of this recorder, a UUIDv7; new each time one is opened."""

    def record(self, answers: Sequence[Answer], done: Done | None = None) -> int:
        """Number `answers`, one after the other, and hand them to the writer; returns the first number.

        Args:
            answers: what was answered: all of them are recorded, or none. An event loop calls this on its own thread.
            done: called once for all, through the recorder's `deliver`, when they may leave or must not; under
                "interval" durability before `record` returns. None where nobody waits.

        Raises:
            DataError: `unrecordable-answer`: a value that cannot be stored, or more answers than `Settings.at_once`; no
                number was handed out.
            RetryableError: `journal-full`: as many answers are in flight as numbers are reserved.
            StateError: `journal-closed`.
        """

    def standing(self) -> Standing:
        """How it stands with its disk; from any thread."""

    def close(self) -> None:
        """Commit what is in flight, give back the numbers not used, and end the segment; again: nothing.

        Raises:
            AdapterError: `journal-write`: the last answers could not be written; the segment stays open, and
                `recover` counts them.
        """


class Journal(Archive, Protocol):
    """The answers of all processes."""

    def open(
        self, app: str, *, head: Callable[[], facts.Head] = lambda: facts.START, deliver: Deliver = at_once
    ) -> Recorder:
        """Begin to record, in a segment of its own.

        Args:
            app: the application that answers.
            head: the end of the chain of facts; asked on the writer's thread whenever a segment is opened. Where that
                fails, the last one stands in, and the header says that it is stale.
            deliver: runs the acknowledgements of a group, once for each commit.

        Raises:
            AdapterError: `journal-write`, when no segment can be created.
        """

    def find(self, prediction: str) -> Entry | None:
        """The answer with that id, in any segment, also of a process that runs now.

        Raises:
            AdapterError: `journal-unreadable`.
            StateError: `journal-is-newer`.
        """

    def read(self, after: Mapping[str, int] | None = None) -> Iterator[Entry]:
        """Committed answers in the order of (segment, number); raises as `find`.

        Args:
            after: per process, the last number already read: a cursor that misses nothing while several
                processes write. None reads everything.
        """

    def recover(self, accounted: Collection[str] = ()) -> list[Recovery]:
        """The account of every segment that is over (closed, or its process is gone), in order; changes nothing.
        Those that are named in `accounted` are left out, and not opened: an account is final. Raises as `find`.
        """

    def erase(self, chosen: Callable[[Entry], bool]) -> int:
        """Delete the committed answers that `chosen` says, also of processes that run; returns how many. No byte of them is
        left; their numbers stay spoken for. Raises as `find`, and RetryableError `store-busy`: again, it goes on.
        """


class Future(Protocol):
    """What an asyncio and a concurrent future have in common."""

    def done(self) -> bool:
        """Whether it has a result, or was cancelled."""

    def set_result(self, result: None, /) -> None:
        """Wake whoever waits."""

    def set_exception(self, exception: BaseException, /) -> None:
        """Wake whoever waits with an error."""


def resolve(future: Future) -> Done:
    """Acknowledge into `future`; a caller that has gone (cancelled) is passed over."""

    def done(error: BaseException | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    return done


def tell(waiting: Sequence[Done], error: BaseException | None) -> None:
    """Call each; one that raises does not keep the rest from being told, and its error surfaces after them."""
    told = 0
    try:
        for done in waiting:
            told += 1
            done(error)
    finally:
        if told < len(waiting):
            tell(waiting[told:], error)


def packed(prediction: str) -> bytes | None:
    """The 16 bytes of a prediction id, or None where it is not one."""
    try:
        value = bytes.fromhex(prediction.replace("-", ""))
    except ValueError:
        return None
    return value if len(value) == 16 else None


def reserve(last: int, bound: int, block: int) -> int:
    """The upper bound of the numbers that may be handed out once `last` is accounted for.

    It moves only when half of the block is used, so that most commits need not write it.
    """
    return bound if bound - last > block // 2 else last + block


def gaps(first: int, end: int, spans: Iterable[Span]) -> tuple[Span, ...]:
    """The numbers of first..end that are in none of `spans`."""
    missing, following = [], first
    for start, stop in sorted(spans):
        if following > end:
            break
        if start > following:
            missing.append((following, min(start - 1, end)))
        following = max(following, stop + 1)
    if following <= end:
        missing.append((following, end))
    return tuple(missing)


def ends(segments: Sequence[Segment]) -> Iterator[tuple[Segment, float]]:
    """Each segment in order, with the last number that can be its own: one before its successor's first.

    A process opens the next segment before it closes the one that is full; dying between the two, it leaves
    numbers reserved in both, which belong to the second.
    """
    ordered = sorted(segments)
    for n, each in enumerate(ordered):
        following = [other.first for other in ordered[n + 1 : n + 2] if other.process == each.process]
        yield each, following[0] - 1 if following else math.inf


def likely(segments: Sequence[Segment], prediction: bytes) -> list[Segment]:
    """All segments, beginning where the time in the id says: the latest one opened before it.

    An id may be older than the segment that its answer lies in (made before a rotation, written after), so the
    rest follows rather than being left out.
    """
    moment = int.from_bytes(prediction[:6], "big") * 1000 + 999
    before = sorted((each for each in segments if each.started <= moment), key=_started, reverse=True)
    return before + sorted((each for each in segments if each.started > moment), key=_started)


def _started(segment: Segment) -> int:
    return segment.started
