"""Outcomes that come over the wire: what became of a question, told by whoever found out.

An outcome names its **target**: a prediction by id, or a question by model and key. Its value is a number (a truth value is 1
or 0), the name of a class, or null: **void**, the question never got an answer from life. It is **settled** when it came to
be known, which is when it is received unless the sender says otherwise. The same value for the same target again is a
**repeat** and is not stored; another value, or another time at which it settled, is a **correction**, and the last one
received counts. Nothing is overwritten.

A prediction that nobody knows is taken too: the journal may be behind, and outcomes are joined to it later. Refused are a time
without a zone, a time to come, a key that the model does not have, a number where the truth is yes or no, a class that the
outcome does not have, and a sender without the scope `label` (`serve.auth`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

import msgspec

from flyball._kernel.clock import Clock
from flyball._kernel.errors import DataError, StateError, bounded
from flyball.learn.task import Task
from flyball.serve import guard, journal
from flyball.serve import plan as plans
from flyball.serve.guard import Refused
from flyball.serve.plan import Plan
from flyball.serve.router import Routed

ITEMS: Final = 1000
"""Outcomes in one request."""

SAYS: Final = 200
"""Characters of a refusal's reason."""

AHEAD: Final = timedelta(minutes=1)
"""How far the sender's clock may be ahead of ours."""

Taken = Literal["accepted", "repeated", "corrected"]


class New(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome as it was received.

    Attributes:
        received: when.
        by: the name of the API key that posted it.
        model: the model; "" where a prediction is named, whose id says whose it is.
        prediction: the id of the prediction, or "".
        key: the key of the question in the journal's form (deterministic JSON, personal columns hashed), or "".
        value: what came of it; of classes see `of_class`; None is void.
        settled: when it came to be known; None: when it was received.
    """

    received: datetime
    by: str
    model: str
    prediction: str
    key: str
    value: float | str | None
    settled: datetime | None

    @property
    def target(self) -> tuple[str, str]:
        """What it is about: ("", prediction), or (model, key)."""
        return ("", self.prediction) if self.prediction else (self.model, self.key)


class Posted(New, frozen=True, kw_only=True):
    """An outcome in its place: number `seq`, in the order in which all processes stored; settled at a moment."""

    seq: int
    settled: datetime


@dataclass(frozen=True, slots=True)
class Counts:
    """What is stored of one model.

    Attributes:
        targets: predictions and questions that have an outcome.
        void: those whose last outcome is void.
        corrections: outcomes that replaced an earlier one.
    """

    targets: int
    void: int
    corrections: int


class Outcomes(Protocol):
    """Where outcomes lie; several processes post, and any reads."""

    def post(self, new: Sequence[New]) -> list[Taken]:
        """Store `new` in their order, all or none; they are on disk when it returns. Says how each was taken.

        Raises:
            RetryableError: `store-busy`, `disk-full`.
            AdapterError: `store-unusable`.
        """

    def read(self, after: int = 0) -> Iterator[Posted]:
        """What is stored with `seq` greater than `after`, in order: a cursor that misses nothing while others post.

        Raises:
            RetryableError, AdapterError: as `post`.
        """

    def counts(self) -> dict[str, Counts]:
        """What is stored, by the model that the last outcome of each target names.

        Raises:
            RetryableError, AdapterError: as `post`.
        """

    def erase(self, chosen: Callable[[Posted], bool]) -> int:
        """Delete what `chosen` says of all that is stored; returns how many. No byte of it is left, and no other moves.

        Raises:
            RetryableError, AdapterError: as `post`; again, it goes on.
        """


def of_class(name: str) -> str:
    """The value of an outcome that is a class: its name as JSON, whose quotes keep a class "1" from being taken for a number
    by a store whose column holds numbers as well.
    """
    return msgspec.json.encode(name).decode()


def class_of(value: float | str | None) -> str | None:
    """The class that a value names; None where it is a number, or void."""
    return msgspec.json.decode(value, type=str) if isinstance(value, str) else None


def taken(last: tuple[float | str | None, datetime] | None, new: New) -> Taken:
    """How `new` is taken where the target's last outcome is `last` (value, settled); None where it has none yet."""
    if last is None:
        return "accepted"
    return "repeated" if last[0] == new.value and new.settled in (None, last[1]) else "corrected"


class _Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    outcome: bool | float | str | None
    prediction: str = ""
    model: str = ""
    key: msgspec.Raw = msgspec.Raw(b"null")
    settled: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class _Refusal(msgspec.Struct, frozen=True):
    at: int
    code: str
    what: str
    why: str
    next: str


_items = msgspec.json.Decoder(list[msgspec.Raw])
_item = msgspec.json.Decoder(_Item)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_FORM = 'Send {"prediction": ID, "outcome": true} or {"key": {...}, "outcome": 12.5}.'


def receive(body: bytes, routed: Mapping[str, Routed], store: Outcomes, clock: Clock, by: str) -> tuple[int, bytes]:
    """Judge each outcome of a request on its own, store what is sound, and say how each was taken.

    It waits for the disk, so an event loop calls it on another thread.

    Args:
        body: one outcome, or a list of them.
        routed: model -> who answers.
        by: the name of the key that posts; see `serve.auth`.

    Returns:
        The status and the JSON of the reply: 200, or 422 where every one was refused.

    Raises:
        DataError: `outcome-unreadable`, when the body is no JSON.
        Refused: 413 `request-too-large`.
        RetryableError, AdapterError: as `Outcomes.post`; then nothing was stored.
    """
    try:
        given = _items.decode(body) if body.lstrip()[:1] == b"[" else [msgspec.Raw(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise _unreadable(problem) from None
    if len(given) > ITEMS:
        raise Refused(413, guard.too_large(f"{len(given):,} outcomes", f"{ITEMS:,} in one request"))
    now = clock.now()
    sound: list[New] = []
    refused: list[_Refusal] = []
    for at, each in enumerate(given):
        try:
            sound.append(_judged(bytes(each), routed, now, by))
        except (DataError, StateError) as error:
            refused.append(_Refusal(at, error.code, error.what, error.why, error.next))
    how = store.post(sound) if sound else []
    said = {name: how.count(name) for name in ("accepted", "repeated", "corrected")}
    return 422 if refused and not sound else 200, msgspec.json.encode({**said, "refused": refused})


def _judged(item: bytes, routed: Mapping[str, Routed], now: datetime, by: str) -> New:
    """One outcome, if it is sound.

    Raises:
        DataError: `outcome-unreadable`, `outcome-target`, `outcome-key`, `outcome-value`, `outcome-ahead`, or what
            `decode_key` raises.
        StateError: `no-such-model`.
    """
    try:
        given = _item.decode(item)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise _unreadable(problem) from None
    by_key = bytes(given.key) != b"null"
    if by_key == bool(given.prediction):
        raise DataError(
            "outcome-target",
            "An outcome is about one prediction, or about one key.",
            why="Both are given." if by_key else "Neither is given.",
            next=_FORM,
        )
    if given.model and given.model not in routed:
        raise StateError(
            "no-such-model",
            "No such model answers here.",
            why=f"Answering: {', '.join(routed) or 'none'}.",
            next="Name one of them, or leave the model out where a prediction is named.",
        )
    model = given.model or (next(iter(routed)) if len(routed) == 1 else "")
    if by_key and not model:
        raise DataError(
            "outcome-target",
            "A key is a key of one model, and there are several.",
            why=f"Answering: {', '.join(routed) or 'none'}.",
            next='Name the model: {"model": NAME, "key": {...}, "outcome": ...}',
        )
    return New(
        received=now,
        by=by,
        model="" if given.prediction else model,
        prediction=_prediction(given.prediction) if given.prediction else "",
        key=key(routed[model].champion, bytes(given.key), now) if by_key else "",
        value=_value(given.outcome, [routed[model]] if model else list(routed.values())),
        settled=_settled(given.settled, now),
    )


def key(plan: Plan, given: bytes, asked: datetime) -> str:
    """A key as JSON, in the form in which the journal has it.

    Each cell becomes the value that a question would carry (an instant goes into its column's zone, 8 becomes 8.0 in a
    column of floats), so that a key finds its questions however its sender spells it.

    Args:
        asked: any moment; a question has one, its key does not depend on it.

    Raises:
        DataError: `outcome-unreadable`, `outcome-key`, `request-breaks-contract`.
    """
    try:
        names = _object.decode(given)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise _unreadable(problem) from None
    if names.keys() != set(plan.key):
        raise DataError(
            "outcome-key",
            "The columns of the key are not the model's.",
            why=f"A question is told by {', '.join(plan.key)}.",
            next="Give each of them, and no other.",
        )
    (row,), _ = plan.decode_key(given)
    return plans.question(plan, row, asked, 0.0).key


def _prediction(given: str) -> str:
    packed = journal.packed(given)
    if packed is None:
        raise DataError(
            "outcome-target",
            "That is no prediction id.",
            why="A prediction id is a UUID: the `id` of its answer.",
            next=_FORM,
        )
    return str(UUID(bytes=packed))


def _value(given: bool | float | str | None, about: Sequence[Routed]) -> float | str | None:
    """The value, if it can be what came of a question of one of these models."""
    tasks = [each.champion.task for each in about]
    if given is None or not tasks or any(_fits(given, task) for task in tasks):
        # Minus zero is zero: two spellings of one value are a repeat.
        return of_class(given) if isinstance(given, str) else None if given is None else float(given) + 0.0
    classes = {name for task in tasks for name in task.classes}
    said = bounded(given, SAYS // 2) if isinstance(given, str) else f"{given:g}"
    if all(task.classes for task in tasks):
        what, send = f"one of {bounded(', '.join(sorted(classes)), SAYS // 2)}", "one of them"
    elif all(task.truth for task in tasks):
        what, send = "true or false", "true or false (or 1 or 0)"
    else:
        what, send = "no such thing", "a number, a truth value or a class, as the model has it"
    raise DataError(
        "outcome-value",
        f"The outcome is {said}, and what is predicted is {what}.",
        why="A metric would count it as a value that there is not.",
        next=f"Send {send}, or null if there will be none.",
    )


def _fits(given: bool | float | str, task: Task) -> bool:
    if task.classes or isinstance(given, str):
        return given in task.classes
    return not task.truth or given in (0, 1)


def _settled(given: datetime | None, now: datetime) -> datetime | None:
    if given is None:
        return None
    try:
        settled = given.astimezone(UTC)
    except OverflowError:  # a time of the year 1 or 9999 whose zone puts it beyond
        raise _unreadable("Expected a time between the years 1 and 9999 - at `$.settled`") from None
    if settled > now + AHEAD:
        raise DataError(
            "outcome-ahead",
            "The outcome is said to have settled in the future.",
            why=f"It is {now.isoformat(timespec='seconds')} here, and outcomes are taken up to a minute ahead of it.",
            next="Send it when it is known, and check both clocks.",
        )
    return settled


def _unreadable(problem: object) -> DataError:
    # A message may quote what it found, which can be as long as the body, and there may be a thousand of them.
    said = str(problem)
    return DataError(
        "outcome-unreadable", "That is no outcome.", why=said if len(said) <= SAYS else f"{said[:SAYS]}...", next=_FORM
    )
