"""Why a feature that was answered by is not what its table says now of that moment, as far as it can be told.

    behind       the online store had not taken in what was known since a moment before: without its last batches the table
                 says what was answered by
    mended       what is believed of that time has changed since: a file was read again or came in as history, a batch was
                 rolled back. The table as it stood then says what was answered by
    gone         rows of the table were erased, or went with their age, since: whether they made the difference nobody can tell
    unexplained  nothing of this, and that is a fault

All are told by trying: the feature is built from the table as of every version that the store may have been at, from the last
one down, until one gives the very bits. Only the rows of the entities in question are read for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import copysign
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import polars as pl

from flyball._kernel import facts
from flyball._kernel.clock import from_micros, micros
from flyball.cycle.erasures import Erased, Erasing
from flyball.cycle.retention import Retained, Retaining
from flyball.cycle.session import Session
from flyball.data import contract, dataset, standing, withdrawal
from flyball.data.contract import Spec
from flyball.data.ingest import Ingested
from flyball.data.withdrawal import Withdrawn
from flyball.learn.features import meaning, offline
from flyball.learn.features.declare import FeatureSet, Latest, Window
from flyball.learn.model import Model

Cause = Literal["behind", "mended", "gone", "unexplained"]

PATIENCE: Final = timedelta(minutes=15)
"""A batch that was known for longer when it was asked, and recorded as in, should have been online."""

TRIES: Final = 500
"""Versions of a table that are tried for the differing rows of one feature, of one chunk of answers."""

ABSENT: Final = object()
"""What was logged of a feature that the version does not have."""


class Why(NamedTuple):
    """What made a difference, and what can be said about it."""

    cause: Cause
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as far as it explains; moments in microseconds.

    Attributes:
        at: when it was recorded as in.
        since: what it says was known no earlier than this, unless it mends: then it is when it was recorded.
        mends: whether it changed what is believed of earlier times.
        what: in words.
    """

    number: int
    at: int
    since: int
    mends: bool
    what: str


@dataclass(frozen=True, slots=True)
class Past:
    """What became of a table.

    Attributes:
        head: its last batch.
        batches: the last first.
        gone: when rows of it were deleted.
    """

    head: int
    batches: tuple[Batch, ...]
    gone: tuple[int, ...]


def past(session: Session, heads: Mapping[str, int]) -> dict[str, Past]:
    """What became of these tables up to these batches."""
    batches: dict[str, list[Batch]] = {name: [] for name in heads}
    gone: dict[str, list[int]] = {name: [] for name in heads}
    read: set[tuple[str, str]] = set()
    kinds = frozenset(facts.kind(said) for said in (Ingested, Withdrawn, Erasing, Erased, Retaining, Retained))
    for fact in session.facts.read(kinds=kinds, app=session.app.name):
        at = micros(fact.at)
        match fact.kind:
            case "data.ingested":
                said = facts.decode(fact, Ingested)
                if said.batch <= heads.get(said.table, 0):
                    batches[said.table].append(_batch(said, at, again=(said.source, said.digest) in read))
                read.add((said.source, said.digest))
            case "data.withdrawn":
                back = facts.decode(fact, Withdrawn)
                if back.batch <= heads.get(back.table, 0):
                    what = f"a rollback to version {back.to} (batch {back.batch})"
                    batches[back.table].append(Batch(back.batch, at, at, mends=True, what=what))
            case _:
                for name in _deleted(fact) & heads.keys():
                    gone[name].append(at)
    return {
        name: Past(head, tuple(sorted(batches[name], key=lambda b: -b.number)), tuple(gone[name]))
        for name, head in heads.items()
    }


def _batch(said: Ingested, at: int, *, again: bool) -> Batch:
    mends = again or said.known_from is None
    if again:
        what = "was read again"
    elif said.known_from is None:
        what = "came in as history"
    else:
        what = "came in" if standing.origin(said) is None else "was replayed"
    since = at if mends or said.known_from is None else micros(said.known_from)
    return Batch(said.batch, at, since, mends, f"batch {said.batch} {what}")


def _deleted(fact: facts.Stored) -> set[str]:
    """The tables that a fact says rows were deleted from."""
    match fact.kind:
        case "data.retaining":
            return {facts.decode(fact, Retaining).table}
        case "data.retained":
            return {facts.decode(fact, Retained).table}
        case "cycle.erasing":
            places = facts.decode(fact, Erasing).places
        case _:
            places = facts.decode(fact, Erased).places
    return {place.removeprefix("table ") for place in places if place.startswith("table ")}


def same(logged: object, again: object) -> bool:
    """Whether two values are one, bit for bit: of one type, -0.0 is not 0.0, and NaN is NaN."""
    if type(logged) is not type(again):
        return False
    if isinstance(logged, float) and isinstance(again, float):
        if logged != logged:
            return again != again
        return logged == again and copysign(1.0, logged) == copysign(1.0, again)
    return logged == again


def whys(
    session: Session,
    model: Model,
    feature: Latest | Window,
    wrong: tuple[pl.DataFrame, Sequence[Mapping[str, Any]]],
    then: Past,
) -> list[Why]:
    """Why the values of one feature differ.

    Args:
        wrong: the questions where they do, with `_asked`; and of each what was logged, by output: `ABSENT` if nothing was.
        then: what became of the feature's table.
    """
    questions, logged = wrong
    spec = contract.spec(feature.table)
    rows, alone = _touched(session, model, feature, questions, then.head), FeatureSet((feature,), feature.place)
    asked = questions["_asked"].cast(pl.Int64).to_numpy()
    found: list[Why | None] = [None] * questions.height
    open_, lacks = np.full(questions.height, fill_value=True), np.zeros(questions.height, dtype=np.int64)
    tries = 0
    for batch in then.batches:
        matters = np.full(len(asked), fill_value=True) if batch.mends else asked > batch.since
        later, patience = asked <= batch.at, meaning.span(PATIENCE)
        open_ &= ~matters | later | (asked - batch.since <= patience)
        lacks = np.where(matters & ~(later & batch.mends), batch.number, lacks)
        places = np.flatnonzero(open_ & matters)
        if len(places) == 0:
            if not open_.any():
                break
            continue
        if (tries := tries + 1) > TRIES:
            break
        spans = withdrawal.held(session.tables, spec.name, batch.number - 1)
        tables = {spec.name: withdrawal.rows(rows.lazy(), spans)}
        built = offline.build(alone, model.question, questions[places], tables).rows(named=True)
        for place, again in zip(places.tolist(), built, strict=True):
            if all(said is ABSENT or same(said, again[name]) for name, said in logged[place].items()):
                found[place] = _told(then, spec, batch, int(lacks[place]), int(asked[place]))
                open_[place] = False
    untried = f"{spec.name}: only {TRIES} versions were tried" if tries > TRIES else ""
    return [why or _rest(then, spec, moment, untried) for why, moment in zip(found, asked.tolist(), strict=True)]


def _told(then: Past, spec: Spec, batch: Batch, lacks: int, asked: int) -> Why:
    if not lacks:
        return Why("mended", f"{spec.name}: {batch.what} at {from_micros(batch.at)}, after the question")
    first = next(b for b in then.batches if b.number == lacks)
    late = (asked - first.since) / 1e6
    return Why("behind", f"{spec.name}: batch {lacks} was not online, {late:.6g} s after it was known")


def _rest(then: Past, spec: Spec, asked: int, untried: str) -> Why:
    deleted = [at for at in then.gone if at >= asked]
    if not deleted:
        return Why("unexplained", untried)
    return Why("gone", f"{spec.name}: rows were deleted at {from_micros(max(deleted))}, after the question")


def _touched(
    session: Session, model: Model, feature: Latest | Window, questions: pl.DataFrame, head: int
) -> pl.DataFrame:
    """Of every key that was ever of one of the entities, and of the questions' own, all rows: withdrawn ones too."""
    spec, by = contract.spec(feature.table), feature.by
    stored = session.tables.scan(spec.name, head, dataset.schema(spec))
    entities = questions.select(meaning.entity(by.question, questions.schema)).to_series().unique()
    theirs = meaning.entity(by.table, spec.dtypes).is_in(entities.implode())
    keys = stored.filter(theirs).select(spec.key)
    if feature.table is model.question:
        keys = pl.concat([keys, questions.lazy().select(spec.key)])
    return stored.join(keys.unique(), on=spec.key, how="semi").collect()
