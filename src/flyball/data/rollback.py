"""Rolling a table back: one more batch, without rows, that says which version the table returns to (see `withdrawal`).

It is written as any batch is: its account into quarantine, then the table with the positions that decide, then the fact.
What a crash left between the first two is dropped by the next writer; after the second the fact is repaired from the account.
"""

from __future__ import annotations

import polars as pl

from flyball._kernel import facts
from flyball.data import contract, dataset, ingest, quarantine, withdrawal
from flyball.data.contract import Contract
from flyball.data.dataset import Version
from flyball.data.tables import BATCH, Tables
from flyball.data.withdrawal import Withdrawn


def roll_back(tables: Tables, observed: type[Contract], *, to: int, reason: str, by: str) -> Withdrawn | None:
    """Have the table hold what it held as of version `to`; None if it does, and then nothing is written.

    Raises:
        StateError: `no-such-version`.
        RetryableError: `concurrent-ingest`; run again.
    """
    spec = contract.spec(observed)
    dataset.exists(tables, observed, Version(table=spec.name, batch=to))
    head, aside = ingest.settle(tables, spec)
    now, then = (withdrawal.held(tables, spec.name, batch) for batch in (head.batch, to))
    if now == then:
        return None
    had, has = withdrawal.numbers(now), withdrawal.numbers(then)
    said = Withdrawn(
        table=spec.name,
        batch=head.batch + 1,
        to=to,
        batches=tuple(sorted(had - has)),
        restored=tuple(sorted(has - had)),
        reason=reason,
        by=by,
    )
    account = {"_source": "", "_file": "", "row": facts.encode(said).decode()}
    kept = pl.DataFrame([account], schema={n: t for n, t in quarantine.SCHEMA.items() if n != BATCH})
    marks = withdrawal.positions(tables, spec.name, said.batch, to)
    nothing = pl.DataFrame(schema={n: t for n, t in dataset.schema(spec).items() if n != BATCH})
    tables.append(quarantine.table(spec.name), kept, said.batch, {}, expect=aside)
    tables.append(spec.name, nothing, said.batch, marks, expect=head)
    return said
