"""A source that cannot be looked at: it is told, and holds up neither the other sources nor a training that is due."""

from __future__ import annotations

import polars as pl
import pytest

from flyball import days, every
from flyball import files as files_of
from flyball._kernel.errors import DataError
from flyball.cycle import apply, plan, reconcile, retrain
from flyball.cycle.reconcile import Here
from flyball.cycle.watching import Watch
from tests import loops
from tests.loops import HISTORY, START, Order, World


def test_the_loop_goes_on_and_says_so() -> None:
    world = World()
    apply.apply(world.session(loops.declared()))
    app = loops.declared(retrain=every(days(4)))
    lost = files_of("nowhere-*.csv", prepare=loops.plain, yields=Order, name="lost")
    object.__setattr__(app, "sources", (*app.sources, lost))
    world.to(START + days(18))
    world.frames["orders-9.csv"] = HISTORY.head(3).with_columns(order_id=pl.lit("new") + pl.col("order_id"))
    session = world.session(app)
    assert any(note.startswith("lost cannot be looked at: No file matches") for note in plan.plan(session).notes)

    watch, worker = Watch(session), Here(session)
    did = [what for _ in range(4) for what in reconcile.reconcile(session, watch, worker).did]
    assert did[0] == "1 new or changed file: orders-9.csv"
    assert did[1].startswith("the work failed: source-without-files")
    assert did[2].startswith("till is trained anew")
    world.to(START + days(18) + reconcile.RETRY)
    assert reconcile.reconcile(session, watch, worker).did[-1].startswith("lost cannot be looked at")
    (model,) = app.models
    row = retrain.last(session, model)
    assert row is not None and row.ended is not None and not row.failed
    (failed,) = session.facts.read(kinds=frozenset({"cycle.failed"}))
    assert b"source-without-files" in failed.said

    object.__setattr__(app, "sources", (lost,))
    with pytest.raises(DataError, match="source-without-files"):
        plan.plan(session)
