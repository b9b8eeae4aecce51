"""Followed: how far the online features are behind their tables, and the tables behind those who push."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

import msgspec
import polars as pl

from flyball.cycle import pushed
from flyball.cycle.session import Session
from flyball.data import contract, dataset
from flyball.data.contract import Contract
from flyball.data.tables import BATCH, KNOWN
from flyball.learn.features import online


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    """A table that features read.

    Attributes:
        batch: the last one of the table.
        online: the last that all its series hold; None where one of them was not filled yet. A batch without rows is skipped.
        behind: rows of the table that some series does not hold.
        newest: when the newest row of the table was known; None where it has none.
        newest_online: and of those that are online.
    """

    table: str
    batch: int
    online: int | None
    behind: int
    newest: datetime | None
    newest_online: datetime | None


def followed(session: Session) -> list[Followed]:
    """Every table that features read, as of now."""
    found = []
    for table, batch, held in _read(session):
        name, later = contract.spec(table).name, pl.col(BATCH) > (held or 0)
        rows = dataset.scan(session.tables, contract.spec(table), batch)
        said = rows.select(
            behind=later.sum(), newest=pl.col(KNOWN).max(), newest_online=pl.col(KNOWN).filter(~later).max()
        )
        counts = said.collect(engine="streaming").row(0, named=True)
        found.append(Followed(table=name, batch=batch, online=held, **counts))
    return found


def behind(session: Session) -> dict[str, int]:
    """Table -> rows that are not online yet; nothing is read of a table that is no further than its features."""
    found = {}
    for table, batch, held in _read(session):
        spec, rows = contract.spec(table), 0
        if batch > (held or 0):
            later = dataset.scan(session.tables, spec, batch).filter(pl.col(BATCH) > (held or 0))
            rows = later.select(pl.len()).collect(engine="streaming").item()
        found[spec.name] = rows
    return found


def waiting(session: Session) -> Mapping[str, int]:
    """Name -> bodies that were pushed and wait."""
    inbox = session.inbox
    return {name: len(inbox.files(name)) for name in sorted(pushed.names(session))} if inbox is not None else {}


def _read(session: Session) -> Iterator[tuple[type[Contract], int, int | None]]:
    """The tables that features read: each with its last batch, and the last that all its series hold."""
    for table in session.app.tables():
        series = {each for model in session.app.models for each in online.names(model.features, table)}
        held = [session.online.position(each) for each in series]
        if held:
            known = [position for position in held if position is not None]
            batch = session.tables.head(contract.spec(table).name).batch
            yield table, batch, min(known) if len(known) == len(held) else None
