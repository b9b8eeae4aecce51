"""Withdrawal: rolling a table back without changing what any version of it says.

A rollback is a batch itself, an empty one, and says which version it returns to: after batch m that goes back `to` t, the
table holds what it held at t. So what version n holds is a pure function of n and of the rollbacks up to n: go back from n
to the last of them, take the batches after it, and go on from where it returned to. A later rollback to a version before
the first one undoes it. Every older version, and so every model's lineage, still reads what it read.

Where a table was rolled back is kept as positions: the last rollback, and of each where it returned to and which came before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_

import polars as pl

from flyball._kernel import facts
from flyball.data.tables import BATCH, Tables

Spans = tuple[tuple[int, int], ...]
"""Batches that are held: (first, last), both included, ascending."""

_LAST = "flyball/rollback"


class Withdrawn(facts.Said, frozen=True, kw_only=True, tag="data.withdrawn"):
    """A table was rolled back.

    Attributes:
        table: the name of the contract.
        batch: the number of the rollback itself.
        to: the version whose content the table has again.
        batches: those that the table held before and does not hold now.
        restored: those that it did not hold before and holds now: another rollback was undone.
        reason: why, as it was given.
        by: the name of the key of whoever asked.
    """

    table: str
    batch: int
    to: int
    batches: tuple[int, ...]
    restored: tuple[int, ...]
    reason: str
    by: str


def held(tables: Tables, table: str, batch: int) -> Spans:
    """The batches that version `batch` of a table holds; pure: nothing that is committed later changes it."""
    return _held(_rollbacks(tables, table), batch)


def rows(observations: pl.LazyFrame, spans: Spans) -> pl.LazyFrame:
    """The rows of these batches alone."""
    within = [pl.col(BATCH).is_between(first, last) for first, last in spans]
    return observations.filter(reduce(or_, within, pl.lit(value=False)))


def holds(spans: Spans, batch: int) -> bool:
    """Whether a batch is one of them."""
    return any(first <= batch <= last for first, last in spans)


def numbers(spans: Spans) -> frozenset[int]:
    """The batches, one by one."""
    return frozenset(n for first, last in spans for n in range(first, last + 1))


def extends(spans: Spans, earlier: Spans, batch: int) -> bool:
    """Whether what was held as of `batch` is still held just so, and only later batches were added."""
    return tuple((first, min(last, batch)) for first, last in spans if first <= batch) == earlier


def within(tables: Tables, table: str, versions: Iterable[int], batch: int) -> list[int]:
    """Those of the versions that hold no batch which version `batch` does not."""
    rollbacks = _rollbacks(tables, table)
    now = numbers(_held(rollbacks, batch))
    return [n for n in versions if numbers(_held(rollbacks, n)) <= now]


def positions(tables: Tables, table: str, batch: int, to: int) -> dict[str, int]:
    """What is committed with rollback number `batch`, which returns to version `to`."""
    before = tables.position(table, _LAST) or 0
    return {_LAST: batch, f"{_LAST}/{batch}/to": to, f"{_LAST}/{batch}/before": before}


def _rollbacks(tables: Tables, table: str) -> dict[int, int]:
    """Number of a rollback -> the version that it returned to."""
    found: dict[int, int] = {}
    last = tables.position(table, _LAST) or 0
    while last:
        found[last] = tables.position(table, f"{_LAST}/{last}/to") or 0
        last = tables.position(table, f"{_LAST}/{last}/before") or 0
    return found


def _held(rollbacks: Mapping[int, int], batch: int) -> Spans:
    spans: list[tuple[int, int]] = []
    end = batch
    while end > 0:
        last = max((m for m in rollbacks if m <= end), default=0)
        if last < end:
            spans.append((last + 1, end))
        end = rollbacks[last] if last else 0
    return tuple(reversed(spans))
