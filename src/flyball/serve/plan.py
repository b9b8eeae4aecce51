"""The serving plan of one version: everything that answering needs, compiled before the first question comes.

    request -> features (given, computed, looked up as of asked) -> encoded row -> predictor -> answer -> decision

A plan knows no app and reads no registry. It is a value that a server swaps as a whole, so that an answer comes from
exactly one version. A **question** is what the plans of one model are asked alike; an **attempt** is what one of them made of
it: an answer, or a fault that is recorded in its place. Questions that are asked together are predicted together where that is
faster and says the same bits (`batches`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from traceback import format_tb
from typing import Any, Final

import msgspec
import numpy as np

from flyball._kernel import ids
from flyball._kernel.clock import Clock, micros
from flyball._kernel.errors import Bug, DataError, FlyballError, StateError
from flyball.learn import task as tasks
from flyball.learn.export.predictor import Predictor
from flyball.learn.finish import NOTHING, Finish
from flyball.learn.task import REGRESSION, Task
from flyball.serve.journal import Answer

Row = Mapping[str, Any]
Lookup = Callable[[Row, datetime], Sequence[Any]]
"""(request, asked) -> the feature values, in the order of `Plan.outputs`."""
EncodeRow = Callable[[Sequence[Any]], np.ndarray]
"""Feature values -> float32, one per feature; the buffer is reused by the next call."""
EncodeRows = Callable[[Sequence[Sequence[Any]]], np.ndarray]
"""The same of many rows, with the same bits."""

NEVER: Final = 1 << 62
"""More questions than are ever asked together."""

_log = logging.getLogger("flyball.serve")


@dataclass(frozen=True, slots=True)
class Plan:
    """One version, ready to answer.

    Attributes:
        decode: bytes -> (rows, whether it was a list); refuses what breaks the contract.
        decode_key: as `decode`, of the key alone.
        schema: the JSON schema of a request, named.
        asked_of: the request's time column that says when a question should be asked,
        lead: so long before it,
        tolerance: give or take this; outside, an answer is given and flagged.
        personal: request columns that are recorded as keyed hashes.
        hash: value -> keyed hash.
        task: what an answer is made of.
        finish: the threshold that decides by it; what comes before that is the predictor's own.
        seal: the request as a row of its table is stored, where that is otherwise; None where it is not.
        batches: so many questions, or more, are predicted in one call; see `pace.batches`.
        encode_rows: what encodes those; None: one by one.
    """

    model: str
    version: str
    decode: Callable[[bytes], tuple[list[dict[str, Any]], bool]]
    decode_key: Callable[[bytes], tuple[list[dict[str, Any]], bool]]
    schema: Mapping[str, Any]
    outputs: tuple[str, ...]
    lookup: Lookup
    encode: EncodeRow
    predictor: Predictor
    key: tuple[str, ...]
    entity: tuple[str, ...]
    asked_of: str
    lead: timedelta
    tolerance: timedelta
    personal: frozenset[str]
    hash: Callable[[str], str]
    task: Task = REGRESSION
    finish: Finish = NOTHING
    seal: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    batches: int = NEVER
    encode_rows: EncodeRows | None = None


class Question(msgspec.Struct, frozen=True, gc=False):
    """A question, as every plan of its model is asked it.

    Attributes:
        row: the request, by column; personal values as tables hold them.
        asked: the moment of the question.
        spent: seconds that its share of decoding the request took.
        recorded: the request as it may be recorded, personal values as keyed hashes.
        key: its key, deterministic JSON, of `recorded`.
        entity: whom it is about, likewise; its key, unless the contract declares an entity.
        within: whether it was asked near its declared moment.
    """

    row: dict[str, Any]
    asked: datetime
    spent: float
    recorded: dict[str, Any]
    key: str
    entity: str
    within: bool


Told = tuple[float, tuple[float, ...], bool | str | None]
"""`output`, `outputs` and `decision` of an answer; see `journal.Answer`."""


class Attempt(msgspec.Struct, frozen=True):
    """What one plan made of a question: what is recorded of it, the seconds it took, and why it gave no answer if so."""

    answer: Answer
    seconds: float
    error: FlyballError | None


_key = msgspec.json.Encoder(order="deterministic")


def question(plan: Plan, row: dict[str, Any], asked: datetime, spent: float) -> Question:
    """What every plan of the model is asked alike; any of them may say it, since they share a contract."""
    if plan.seal is not None:
        row = plan.seal(row)
    recorded = recordable(plan, row)
    key = _key.encode({name: recorded[name] for name in plan.key}).decode()
    entity = (
        key if plan.entity == plan.key else _key.encode({name: recorded.get(name) for name in plan.entity}).decode()
    )
    return Question(row, asked, spent, recorded, key, entity, within_tolerance(plan, row, asked))


def attempts(plan: Plan, asking: Sequence[Question], epoch: int, role: str, clock: Clock) -> list[Attempt]:
    """Ask one plan; what goes wrong is told, never raised."""
    made = together(plan, asking, epoch, role, clock)
    return made if made is not None else [attempt(plan, each, epoch, role, clock) for each in asking]


def together(plan: Plan, asking: Sequence[Question], epoch: int, role: str, clock: Clock) -> list[Attempt] | None:
    """Ask one plan all of them in one call of its predictor, whose time they share; None where that is not to be had."""
    if len(asking) < plan.batches:
        return None
    began = clock.monotonic()
    found = _together(plan, asking)
    if found is None:
        return None
    seconds = (clock.monotonic() - began) / len(asking)
    return [_made(plan, each, epoch, role, seconds, computed) for each, computed in zip(asking, found, strict=True)]


def attempt(plan: Plan, asking: Question, epoch: int, role: str, clock: Clock) -> Attempt:
    """Ask one plan one question."""
    began = clock.monotonic()
    found: _Computed | FlyballError
    try:
        found = _computed(plan, asking)
    except FlyballError as problem:
        # Without its traceback, whose frames hold this very error: a ring that keeps the question until garbage is looked for.
        found = problem.with_traceback(None)
        if not isinstance(problem, DataError):
            _told(plan.version, str(problem))
    return _made(plan, asking, epoch, role, clock.monotonic() - began, found)


_Computed = tuple[Any, Told]
"""Features by name, and what is told of the answer."""

_FAILED: _Computed = ({}, (math.nan, (), None))


def _made(
    plan: Plan, asking: Question, epoch: int, role: str, seconds: float, found: _Computed | FlyballError
) -> Attempt:
    error, computed = (found, _FAILED) if isinstance(found, FlyballError) else (None, found)
    features, (output, outputs, decision) = computed
    # By position, in the order of its fields: by name it takes five times as long, as much as a boosted tree in ten.
    answer = Answer(
        ids.uuid7(asking.asked),
        _micros(asking.asked, asking.asked.fold),
        plan.model,
        plan.version,
        epoch,
        role,
        asking.within,
        asking.key,
        asking.recorded,
        features,
        output,
        int((asking.spent + seconds) * 1e6),
        plan.predictor.name,
        "" if error is None else error.code,
        outputs,
        decision,
    )
    return Attempt(answer, seconds, error)


@lru_cache(maxsize=64)
def _micros(moment: datetime, _fold: int) -> int:
    """Those who ask together ask at one moment; two that differ in their fold alone are equal, and an hour apart."""
    return micros(moment)


@lru_cache(maxsize=256)
def _named(outputs: tuple[str, ...]) -> Callable[..., Any]:
    """Values of features -> a struct that is written like a dict of them, and made in a tenth of the time.

    No struct has a name with quotes, backslashes or line breaks, which a column of another table may have: of those a dict.
    """
    fields = [f"_{n}" for n in range(len(outputs))]
    try:
        return msgspec.defstruct("Features", fields, rename=dict(zip(fields, outputs, strict=True)), frozen=True)
    except ValueError:
        return lambda *values: dict(zip(outputs, values, strict=True))


@lru_cache(maxsize=256)
def _told(version: str, problem: str) -> None:
    """Say a fault of ours once: who is answered by another version never hears of it, and every attempt is recorded."""
    _log.error("%s failed on a question: %s", version, problem)


def _together(plan: Plan, asking: Sequence[Question]) -> list[_Computed] | None:
    """All in one call of the predictor; None where anything is wrong with one of them: alone, each says for itself."""
    try:
        values = [plan.lookup(each.row, each.asked) for each in asking]
        answers: list[tasks.Answer] = [
            tuple(each) if type(each) is list else each
            for each in plan.predictor.batch(_encoded(plan, values)).tolist()
        ]
        if not all(map(_finite, answers)):
            return None
        named = _named(plan.outputs)
        return [
            (named(*each), told(plan, answer, asked.row))
            for each, answer, asked in zip(values, answers, asking, strict=True)
        ]
    except Exception:  # noqa: BLE001 - asked again one by one, where it is told
        return None


def _encoded(plan: Plan, values: Sequence[Sequence[Any]]) -> np.ndarray:
    if plan.encode_rows is not None:
        return plan.encode_rows(values)
    return np.stack([plan.encode(each).copy() for each in values])


def _finite(answer: tasks.Answer) -> bool:
    return all(map(math.isfinite, answer)) if isinstance(answer, tuple) else math.isfinite(answer)


def _computed(plan: Plan, asking: Question) -> _Computed:
    try:
        values = plan.lookup(asking.row, asking.asked)
        answer = plan.predictor.row(plan.encode(values))
        if _finite(answer):
            return _named(plan.outputs)(*values), told(plan, answer, asking.row)
    except FlyballError:
        raise
    except Exception as error:
        # The text of an error may quote the question; where somebody is named in it, the lines that failed must do.
        text = type(error).__name__ if plan.personal else f"{type(error).__name__}: {error}"
        _log.error("%s failed on a question: %s\n%s", plan.version, text, "".join(format_tb(error.__traceback__)))
        said = f"The server failed on this request: {type(error).__name__}."
        raise Bug("server-failed", said, next="Report it.") from error
    raise StateError(
        "answer-not-finite",
        f"{plan.version} answered {answer} to a question.",
        why="No caller can decide by what is no number, and no metric can count it.",
        next="Look at the question with `flyball why`; a version that does this should be rolled back.",
    )


def told(plan: Plan, answer: tasks.Answer, row: Row) -> Told:
    """What is told of an answer: the one number that stands for it, all of them where they are several, the decision.

    Of classes the likeliest is decided; of quantiles nothing.

    Args:
        row: the question, whose group may have a threshold of its own.

    Raises:
        StateError: `answer-of-another-task`.
    """
    if not isinstance(answer, tuple):
        if plan.task.classes or plan.task.quantiles:
            raise _other_task(plan, 1)
        finish = plan.finish
        return answer, (), None if finish.threshold is None else finish.decides(answer, row)
    if len(answer) != plan.task.width:
        raise _other_task(plan, len(answer))
    if not plan.task.classes:
        return answer[plan.task.middle], answer, None
    likeliest = max(answer)
    return likeliest, answer, plan.task.classes[answer.index(likeliest)]


def _other_task(plan: Plan, numbers: int) -> StateError:
    return StateError(
        "answer-of-another-task",
        f"{plan.version} answers {numbers} numbers, and {plan.model!r} is declared to have {plan.task.width}.",
        why="The classes or the quantiles were declared otherwise when it was trained.",
        next="flyball apply trains a version on what is declared now; until then use the app file of that time.",
    )


def within_tolerance(plan: Plan, row: Row, asked: datetime) -> bool:
    """Whether the question came near enough to its declared moment to be compared with training."""
    moment = row.get(plan.asked_of)
    # Added to what is near, since the request's time may be the first moment that there is.
    return moment is not None and abs(asked + plan.lead - moment) <= plan.tolerance


def recordable(plan: Plan, row: dict[str, Any]) -> dict[str, Any]:
    """The request as it may be recorded: personal values as keyed hashes."""
    if not plan.personal:
        return row
    return {
        name: plan.hash(str(value)) if name in plan.personal and value is not None else value
        for name, value in row.items()
    }
