"""Skew: what was answered by, beside what the tables say of that moment; every value, bit for bit.

The journal keeps the features that each answer was made of. They are built again as of the moment of the question, by the
code that training uses, from what the tables hold now; so online and offline, what was looked up and what will be learned
from, are compared on the very questions that were asked. Each value that differs is named with its cause (see `skewed`).

An answer is left out, and counted, where nothing can be compared or nothing was promised:

    failed              it gave no answer, so no features were kept
    no features         the baseline or the declared default answered, which looks nothing up
    outside tolerance   it was asked too far from its declared moment
    other features      its version was trained on features that are declared otherwise now
    unreadable          its request does not fit the contract as it is now
    erased              it was taken out of the journal
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, get_args

import msgspec
import polars as pl

from flyball._kernel.clock import from_micros, micros
from flyball._kernel.errors import bounded
from flyball._kernel.facts import Fact, Said
from flyball.cycle import artifacts, causes, recalled, skewed, snapshot
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.cycle.skewed import ABSENT, Cause, Past, Why
from flyball.data import contract
from flyball.data.contract import Contract
from flyball.learn.features import offline
from flyball.learn.features.declare import Feature, FeatureSet, Latest, Window
from flyball.learn.model import Model
from flyball.serve import router
from flyball.serve.journal import Answer, Entry

CHUNK: Final = 50_000
"""Answers that are compared at a time: bounds the memory, beside that of the tables' columns that features read."""

Left = Literal["failed", "no features", "outside tolerance", "other features", "unreadable", "erased"]
_WORST: Final[tuple[Cause, ...]] = ("unexplained", "gone", "mended", "behind")
_SHOWN: Final = 80
"""Characters of a value that are shown."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the features.

    Attributes:
        compared, differing: values.
        behind, mended, gone, unexplained: those that differ, by cause; see `skewed`.
    """

    compared: int
    differing: int
    behind: int = 0
    mended: int = 0
    gone: int = 0
    unexplained: int = 0


class SkewAudited(Said, frozen=True, kw_only=True, tag="cycle.skew_audited"):
    """The features of recorded answers were built again and compared.

    Attributes:
        since, until: of the moments of the questions: from the first on, and before the second.
        answers: recorded in between; those that were compared, and those left out by reason, but for `erased`.
        compared: answers of which every feature was built again.
        left_out: reason -> answers.
        features: column -> what was found.
    """

    since: datetime | None
    until: datetime
    answers: int
    compared: int
    left_out: dict[str, int]
    features: dict[str, Counts]


class Differs(msgspec.Struct, frozen=True, kw_only=True):
    """One value that differs.

    Attributes:
        column: of the features; `feature` is the declaration that yields it.
        logged, recomputed: as Python writes them, so that no bit is lost.
    """

    prediction: str
    asked: datetime
    version: str
    role: str
    feature: str
    column: str
    logged: str
    recomputed: str
    cause: Cause
    detail: str


class Skew(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit found.

    Attributes:
        holds: whether nothing differs that cannot be explained.
        found: as it was recorded.
        rows: values that differ, the worst first; no more than were asked for.
    """

    model: str
    holds: bool
    found: SkewAudited
    rows: tuple[Differs, ...]


def skew(
    session: Session,
    name: str | None,
    span: tuple[datetime | None, datetime | None] = (None, None),
    limit: int = 20,
    tell: Tell = silent,
) -> Skew:
    """Compare the features of recorded answers with what the tables say, and record what was found.

    Args:
        name: the model; may be left out where there is one.
        span: from when on, and until before when, they were asked.
        limit: values that differ which are named one by one, at most.

    Raises:
        DeclarationError: as `App.model`.
        StateError: `signature-broken`, where it cannot be trusted which features a version was trained on.
        AdapterError: `journal-unreadable`, `table-unreadable`.
    """
    model, started = session.app.model(name), session.clock.monotonic()
    # What was asked by now is compared with what lies there from now on: later batches say nothing of earlier moments.
    now = session.clock.now()
    since, until = span[0], min(span[1] or now, now)
    audit = _Audit(session, model, limit)
    chunk: list[Entry] = []
    for entry in _asked(session, model, since, until):
        audit.answers += 1
        if (reason := audit.reason(entry)) is not None:
            audit.left_out[reason] += 1
            continue
        chunk.append(entry)
        if len(chunk) == CHUNK:
            audit.take(chunk)
            tell(Event(step="skew", state="run", detail=f"{audit.answers:,} answers"))
            chunk = []
    audit.take(chunk)
    audit.left_out["erased"] += sum(segment.erased for segment in session.journal.recover())
    said = audit.said(since, until)
    seconds = session.clock.monotonic() - started
    session.facts.append([Fact(session.app.name, model.name, said, {"seconds": seconds})])
    holds = not any(counts.unexplained for counts in said.features.values())
    return Skew(model=model.name, holds=holds, found=said, rows=audit.rows())


def _asked(session: Session, model: Model, since: datetime | None, until: datetime) -> Iterator[Entry]:
    first, last = micros(since) if since is not None else None, micros(until)
    for entry in session.journal.read():
        own = entry.app == session.app.name and entry.model == model.name
        if own and entry.asked < last and (first is None or entry.asked >= first):
            yield entry


def differing(
    features: FeatureSet,
    question: type[Contract],
    asked: tuple[pl.DataFrame, Sequence[Answer]],
    tables: Mapping[str, Any],
) -> Iterator[tuple[Feature, str, int, list[tuple[int, object, object]]]]:
    """Of each column its feature, how many values were compared, and those that differ: (place, logged, recomputed).

    Args:
        asked: the questions, with `_asked`, and their answers, in one order.
        tables: as `offline.build` takes them.
    """
    questions, answers = asked
    built = offline.build(features, question, questions, tables)
    for feature in features.features:
        for output in feature.outputs(question):
            column = output.name
            logged = [answer.features.get(column, ABSENT) for answer in answers]
            wrong = [
                (place, said, again)
                for place, (said, again) in enumerate(zip(logged, built[column].to_list(), strict=True))
                if said is not ABSENT and not skewed.same(said, again)
            ]
            yield feature, column, len(logged) - logged.count(ABSENT), wrong


class _Audit:
    """What was found so far."""

    def __init__(self, session: Session, model: Model, limit: int) -> None:
        self._session, self._model, self._limit = session, model, limit
        self._heads = snapshot.present(session, model)
        self._tables = snapshot.read(session, model, self._heads)
        self._columns = recalled.columns(model)
        self._register = recalled.Register(session, model)
        self._past: dict[str, Past] | None = None
        self._trained: dict[str, bool] = {}
        self._compared: Counter[str] = Counter()
        self._causes: dict[str, Counter[Cause]] = {}
        self._rows: dict[Cause, list[Differs]] = {cause: [] for cause in _WORST}
        self.answers = self.compared = 0
        self.left_out: Counter[Left] = Counter(dict.fromkeys(get_args(Left), 0))

    def reason(self, entry: Entry) -> Left | None:
        """Why an answer is left out; None if it is compared."""
        if entry.failed:
            return "failed"
        if entry.version == router.DEFAULT or entry.role == "baseline":
            return "no features"
        if not entry.within_tolerance:
            return "outside tolerance"
        if entry.version not in self._trained:
            manifest = artifacts.load_manifest(self._session, entry.version)
            self._trained[entry.version] = not causes.changed_features(self._model, manifest.causes["examples"])
        return None if self._trained[entry.version] else "other features"

    def take(self, chunk: Sequence[Entry]) -> None:
        """Compare some answers."""
        frame, places = recalled.questions(self._columns, chunk, self._register.people(chunk))
        answers = [chunk[place] for place in places]
        self.left_out["unreadable"] += len(chunk) - len(answers)
        self.compared += len(answers)
        if not answers:
            return
        wrong: dict[str, tuple[Feature, dict[str, list[tuple[int, object, object]]]]] = {}
        features, question = self._model.features, self._model.question
        for feature, column, n, found in differing(features, question, (frame, answers), self._tables):
            self._compared[column] += n
            wrong.setdefault(feature.name, (feature, {}))[1][column] = found
        for feature, columns in wrong.values():
            if any(columns.values()):
                self._explain(feature, columns, frame, answers)

    def _explain(
        self,
        feature: Feature,
        columns: Mapping[str, list[tuple[int, object, object]]],
        frame: pl.DataFrame,
        answers: Sequence[Entry],
    ) -> None:
        places = sorted({place for found in columns.values() for place, _, _ in found})
        logged = [{name: answers[place].features.get(name, ABSENT) for name in columns} for place in places]
        why = dict(zip(places, self._whys(feature, frame[places], logged), strict=True))
        for column, found in columns.items():
            for place, said, again in found:
                self._note(answers[place], (feature.name, column), (said, again), why[place])

    def _whys(self, feature: Feature, questions: pl.DataFrame, logged: list[dict[str, Any]]) -> list[Why]:
        if not isinstance(feature, Latest | Window):
            return [Why("unexplained")] * questions.height
        if self._past is None:
            self._past = skewed.past(self._session, self._heads)
        then = self._past[contract.spec(feature.table).name]
        return skewed.whys(self._session, self._model, feature, (questions, logged), then)

    def _note(self, entry: Entry, what: tuple[str, str], values: tuple[object, object], why: Why) -> None:
        feature, column = what
        self._causes.setdefault(column, Counter())[why.cause] += 1
        kept = self._rows[why.cause]
        if len(kept) < self._limit:
            logged, again = (bounded(repr(value), _SHOWN) for value in values)
            kept.append(
                Differs(
                    prediction=entry.id,
                    asked=from_micros(entry.asked),
                    version=entry.version,
                    role=entry.role,
                    feature=feature,
                    column=column,
                    logged=logged,
                    recomputed=again,
                    cause=why.cause,
                    detail=why.detail,
                )
            )

    def rows(self) -> tuple[Differs, ...]:
        """The worst first."""
        return tuple(row for cause in _WORST for row in self._rows[cause])[: self._limit]

    def said(self, since: datetime | None, until: datetime) -> SkewAudited:
        """What is recorded: counts, and no value."""
        features = {}
        for output in self._model.features.outputs(self._model.question):
            found = self._causes.get(output.name, Counter[Cause]())
            features[output.name] = Counts(
                compared=self._compared[output.name],
                differing=found.total(),
                behind=found["behind"],
                mended=found["mended"],
                gone=found["gone"],
                unexplained=found["unexplained"],
            )
        return SkewAudited(
            since=since,
            until=until,
            answers=self.answers,
            compared=self.compared,
            left_out={str(reason): n for reason, n in self.left_out.items()},
            features=features,
        )
