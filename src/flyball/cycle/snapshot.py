"""The snapshot: which data a training reads, decided once and written down.

A pin names the last batch of each table and a cutoff in known time. Only a decision moves it (the first apply, `--until`, a
retraining), so new data alone does not make `plan` restless, and a code change re-runs on the very same rows.

Two things move the batches and leave the cutoff: a changed preparation or contract, since the same files now say something
else, and a table that the model did not read before. What is not learned from yet, for want of history, is pinned anew.

No pin goes beyond what is believed of a table (see `expectations`); rows that a changed preparation made are waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
import polars as pl

from flyball._kernel.clock import MICROSECOND
from flyball._kernel.errors import DataError
from flyball._kernel.facts import Fact
from flyball.cycle import causes, erasures, expectations
from flyball.cycle.session import Session
from flyball.cycle.steps import Pinned
from flyball.data import contract, dataset
from flyball.learn.model import Model
from flyball.release import version


def pin(session: Session, model: Model, now: Pinned | None, until: datetime | None) -> Pinned:
    """The data that the model learns from: as it is pinned now, or pinned anew and recorded.

    Args:
        now: the pin so far; None before the first.
        until: pin the present batches up to this cutoff, but no later than one moment after the last thing that they know.

    Raises:
        DataError: `nothing-ingested`.
        GateError: `table-not-believed`.
    """
    recipes = {name: str(value) for name, value in causes.of_sources(session.app.sources, tables_of(model)).items()}
    reason = _reason(session, model, now, until, recipes)
    if now is not None and not reason:
        return now
    batches = believed(session, model)
    if now is not None and reason == MENDED and batches != present(session, model):
        return now  # the rows that it made are not all believed, and what was learned from still is
    for table in tables_of(model):
        if present(session, model)[name := contract.spec(table).name] and not batches[name]:
            raise expectations.refuse(session, table)
    if now is not None and reason in (MENDED, WIDENED):
        wanted = Pinned(batches=batches, cutoff=now.cutoff, reason=reason, recipes=recipes)
    else:
        end = greatest(session, model, batches)
        wanted = Pinned(batches=batches, cutoff=min(until or end, end), reason=reason, recipes=recipes)
    wanted = msgspec.structs.replace(wanted, erased=_erased(session, model, now))
    if now is not None and wanted == msgspec.structs.replace(now, reason=wanted.reason):
        return now
    record(session, model, wanted)
    return wanted


def _erased(session: Session, model: Model, now: Pinned | None) -> int:
    """How often rows were erased that the model had learned from, where its last version is one that had; else as it was."""
    made = version.versions(session.facts, session.app.name, model.name)
    if made and made[-1].version in erasures.marked(session):
        return erasures.times(session, model.name)
    return now.erased if now is not None else 0


MENDED, WIDENED = "a preparation or contract changed", "the model reads another table"


def _reason(
    session: Session, model: Model, now: Pinned | None, until: datetime | None, recipes: Mapping[str, str]
) -> str:
    """Why the pin moves; "" if it stays."""
    if now is None or not version.versions(session.facts, session.app.name, model.name):
        return "first apply"
    if until is not None:
        return "asked for"
    if {contract.spec(t).name for t in tables_of(model)} - now.batches.keys():
        return WIDENED
    return MENDED if now.recipes != recipes else ""


def record(session: Session, model: Model, pinned: Pinned) -> None:
    """Have the model learn from this from now on."""
    session.facts.append([Fact(session.app.name, model.name, pinned)])


def tables_of(model: Model) -> tuple[type[contract.Contract], ...]:
    """The tables that a model reads: the question's, and those its features look up."""
    return tuple(dict.fromkeys((model.question, *model.features.tables())))


def read(session: Session, model: Model, batches: Mapping[str, int]) -> dict[str, pl.LazyFrame]:
    """The observations of each table as of its pinned batch."""
    found: dict[str, pl.LazyFrame] = {}
    for table in tables_of(model):
        name = contract.spec(table).name
        found[name] = dataset.read(session.tables, table, dataset.Version(table=name, batch=batches[name]))
    return found


def present(session: Session, model: Model) -> dict[str, int]:
    """The last batch of each table that a model reads, as of now."""
    return {contract.spec(t).name: session.tables.head(contract.spec(t).name).batch for t in tables_of(model)}


def believed(session: Session, model: Model) -> dict[str, int]:
    """The last batch of each table that a model reads and that may be learned from, as of now; 0 where there is none."""
    return {belief.table: belief.until for belief in (expectations.belief(session, t) for t in tables_of(model))}


def greatest(session: Session, model: Model, batches: Mapping[str, int]) -> datetime:
    """One moment after the last thing that these batches know: a cutoff that leaves nothing out.

    Raises:
        DataError: `nothing-ingested`.
    """
    name = contract.spec(model.question).name
    cutoff = dataset.cutoff(read(session, model, batches)[name]) if batches[name] else None
    if cutoff is None:
        raise DataError(
            "nothing-ingested",
            f"The table {name} holds no row.",
            where=model.place,
            why="There is nothing to learn from.",
            next="Look at what became of its rows: flyball status counts accepted and quarantined ones, and by which rule.",
        )
    return cutoff + MICROSECOND
