"""A version that fails what is expected of it is kept and never learned from, and what is mended is believed by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dataframely as dy
import msgspec
import polars as pl
import pytest

import flyball as fb
from flyball import days
from flyball._kernel import facts
from flyball._kernel.errors import GateError
from flyball._kernel.facts import Fact
from flyball.app import App
from flyball.cli import data_expect, opening
from flyball.cycle import apply, expectations, gather, reconcile, retrain, snapshot, status, steps, versions
from flyball.cycle.expectations import Believed
from flyball.cycle.reconcile import Here
from flyball.cycle.session import Event, Session
from flyball.cycle.steps import Pinned
from flyball.cycle.watching import Watch
from flyball.data import dataset
from flyball.data.expectations.expect import column, table
from flyball.release.version import Registered
from flyball.watch import alert
from tests import loops
from tests.loops import HISTORY, Order, Process, World

PRICE = column(Order.price).mean <= 150
EXPECTS = (PRICE, table(Order).rows >= 200)
PAST = HISTORY.filter(pl.col("placed") < loops.START)
FIRST, SECOND = PAST.head(600), PAST.tail(PAST.height - 600)
IN_CENTS = SECOND.with_columns(pl.col("price") * 100)


class Category(fb.Contract):
    """What the orders' categories are."""

    category = dy.String(primary_key=True)
    since = fb.event_time(dy.Datetime(time_zone="UTC"))


def declared(expects: Sequence[Any] = EXPECTS, **more: Any) -> App:
    return loops.declared(expects=expects, **more)


def related() -> App:
    app = declared((column(Order.category).matches(Category.category) >= 0.9,))
    source = fb.files("categories.csv", prepare=loops.plain, yields=Category)
    object.__setattr__(app, "sources", (*app.sources, source))
    return app


def world(**frames: pl.DataFrame) -> World:
    return World(frames={f"{name.replace('_', '-')}.csv": frame for name, frame in frames.items()})


def gathered(world: World, app: App) -> Session:
    """What an apply does before it trains."""
    session = world.session(app)
    gather.gather(session)
    expectations.judge(session)
    return session


def pinned(session: Session, until: datetime | None = None) -> Pinned:
    model = session.app.model()
    return snapshot.pin(session, model, steps.pin(session.facts, "till", "till"), until)


def judged(session: Session) -> list[Believed]:
    return [facts.decode(f, Believed) for f in session.facts.read(kinds=expectations.BELIEVED.kinds)]


def test_where_nothing_is_believed_nothing_is_learned_and_the_error_says_what_was_found() -> None:
    here = world(orders_1=IN_CENTS)
    with pytest.raises(GateError) as refused:
        apply.apply(here.session(declared()))
    error = refused.value
    assert (error.code, error.exit_code) == ("table-not-believed", 3)
    assert error.where == PRICE.place
    assert "Order.price.mean <= 150 (found 9.7e+03, " in error.why and "n = " in error.why
    assert "flyball data expect" in error.next
    session = here.session(declared())
    assert steps.pin(session.facts, "till", "till") is None
    kept = dataset.read(here.tables, Order, dataset.latest(here.tables, Order)).collect()
    assert kept.height == IN_CENTS.height, "it is stored"


def test_an_apply_goes_on_with_what_is_believed_and_says_so() -> None:
    here = world(orders_1=FIRST)
    before = apply.apply(here.session(declared()))
    assert before.doubted == {}
    assert before.models[0].version == "till-1"
    here.frames["orders-2.csv"] = IN_CENTS
    told: list[Event] = []
    after = apply.apply(here.session(declared()), tell=told.append)
    assert list(after.doubted) == ["Order"]
    assert [(e.step, e.state) for e in told if "Order" in e.step] == [
        ("believe Order", "run"),
        ("believe Order", "fail"),
    ]
    assert "believed is what came up to batch 1" in told[-1].detail
    assert after.models[0].ran == []
    again: list[Event] = []
    assert apply.apply(here.session(declared()), tell=again.append).ran is False
    assert again == []


def test_a_failing_batch_never_reaches_a_pin_and_its_mended_file_does() -> None:
    here = world(orders_1=FIRST)
    session = gathered(here, declared())
    assert pinned(session).batches == {"Order": 1}
    here.frames["orders-2.csv"] = IN_CENTS
    session = gathered(here, declared())
    model = session.app.model()
    assert snapshot.present(session, model) == {"Order": 2}
    for until in (None, loops.START, loops.START + days(30)):
        found = pinned(session, until)
        assert found.batches == {"Order": 1}
        assert found.cutoff <= FIRST["settled"].max() + timedelta(microseconds=1)
        rows = snapshot.read(session, model, found.batches)["Order"].collect()
        assert rows.height == FIRST.height and rows["price"].max() <= 200
    here.frames["orders-2.csv"] = SECOND
    here.clock.advance(timedelta(minutes=1))
    session = gathered(here, declared())
    assert [(b.batch, b.until, bool(b.judged and b.judged.failed)) for b in expectations.beliefs(session)] == [
        (3, 3, False)
    ]
    assert pinned(session, here.clock.now()).batches == {"Order": 3}


def test_new_rows_ask_for_no_training_before_they_are_believed() -> None:
    here = world(orders_1=FIRST)
    app = declared(retrain=fb.new_rows(100) | fb.every(days(1)))
    session = gathered(here, app)
    model = app.model()
    pinned(session)
    session.facts.append([Fact("till", "till", Registered(version="till-1", manifest="a" * 64))])
    here.frames["orders-2.csv"] = IN_CENTS
    session = gathered(here, app)
    assert "nothing came after it" in retrain.due(session, model).why
    assert retrain.due(session, model).until is None
    here.frames["orders-2.csv"] = SECOND
    here.clock.advance(timedelta(minutes=1))
    assert "new rows" in retrain.due(gathered(here, app), model).why


def test_a_judgement_is_made_once_for_a_version_and_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    here = world(orders_1=FIRST)
    for _ in range(3):
        session = gathered(here, declared())
    assert len(judged(session)) == 1
    session = gathered(here, declared((PRICE,)))
    session = gathered(here, declared((PRICE,)))
    assert [len(said.verdicts) for said in judged(session)] == [2, 1]
    monkeypatch.setattr(expectations, "measure", lambda *_: pytest.fail("it runs again"))
    gathered(here, declared((PRICE,)))


def test_an_expectation_that_is_lowered_or_dropped_believes_at_once() -> None:
    here = world(orders_1=IN_CENTS)
    assert [b.until for b in expectations.beliefs(gathered(here, declared()))] == [0]
    lower = declared((column(Order.price).mean <= 15_000,))
    assert [b.until for b in expectations.beliefs(gathered(here, lower))] == [1]
    session = gathered(here, declared(()))
    assert expectations.beliefs(session) == []
    assert pinned(session).batches == {"Order": 1}


def test_a_relation_is_judged_anew_when_the_other_table_moves() -> None:
    def kinds(*names: str) -> pl.DataFrame:
        return pl.DataFrame({"category": names, "since": [datetime(2013, 1, 1, tzinfo=UTC)] * len(names)})

    here = world(orders_1=FIRST, categories=kinds("shoes"))
    app = related()
    assert [b.until for b in expectations.beliefs(gathered(here, app))] == [0]
    here.frames["categories.csv"] = kinds("shoes", "books")
    session = gathered(here, app)
    assert [b.until for b in expectations.beliefs(session)] == [1]
    assert [said.beside for said in judged(session)] == [{"Category": 1}, {"Category": 2}]


def test_drift_is_of_what_came_since_the_last_believed_version() -> None:
    here, app = world(orders_1=FIRST), declared((column(Order.price).drift <= 0.2,))
    first = expectations.beliefs(gathered(here, app))[0]
    assert first.until == 1
    assert "no earlier version" in first.why
    here.frames["orders-2.csv"] = IN_CENTS
    found = expectations.beliefs(gathered(here, app))[0]
    assert found.until == 1 and found.judged is not None and found.judged.failed
    here.frames["orders-2.csv"] = SECOND
    here.clock.advance(timedelta(minutes=1))
    assert expectations.beliefs(gathered(here, app))[0].until == 3


def test_a_changed_preparation_whose_rows_are_not_believed_leaves_what_is_learned_from() -> None:
    here = world(orders_1=FIRST)
    before = pinned(gathered(here, declared()))
    session = here.session(declared())
    session.facts.append([Fact("till", "till", Registered(version="till-1", manifest="a" * 64))])

    def in_cents(rows: pl.LazyFrame) -> pl.LazyFrame:
        return rows.with_columns(pl.col("price") * 100)

    app = declared()
    object.__setattr__(
        app, "sources", (fb.files("orders-*.csv", prepare=in_cents, yields=Order, name="orders-*.Order"),)
    )
    here.clock.advance(timedelta(minutes=1))
    assert pinned(gathered(here, app)) == before


def alerts(session: Session) -> list[tuple[str, str]]:
    told = [alert.of(fact) for fact in session.facts.read(kinds=alert.KINDS)]
    return [(a.title, a.severity) for a in told if a is not None and "expect" in a.title]


def test_the_loop_tells_of_each_change_once(monkeypatch: pytest.MonkeyPatch) -> None:
    here = world(orders_1=FIRST)
    app = declared()
    apply.apply(here.session(app))

    def look(times: int = 3) -> Session:
        for _ in range(times):
            here.clock.advance(timedelta(hours=1))
            process.look()
        return process.session

    process = Process(here, app)
    assert alerts(look()) == []
    here.frames["orders-2.csv"] = IN_CENTS
    assert alerts(look()) == [("till: expect Order is in breach", "warning")]
    process = Process(here, app)  # another, that remembers nothing
    assert len(alerts(look())) == 1
    (row,) = [r for r in status.status(process.session).sources if r.monitor == "expect Order"]
    assert row.state == "breach"
    assert "Order.price.mean <= 150" in row.why
    here.frames["orders-2.csv"] = SECOND
    assert len(alerts(look())) == 1
    here.frames["orders-2.csv"] = IN_CENTS.with_columns(pl.col("price") * 2)
    assert len(alerts(look())) == 2


def test_the_verb_shows_verdicts_and_ends_with_3_where_one_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = world(orders_1=FIRST)
    session = gathered(here, declared())
    monkeypatch.setattr(opening, "session", lambda *_, **__: here.session(now))
    now = declared()
    assert data_expect.run("app", as_json=True) == 0
    (look,) = msgspec.json.decode(capsys.readouterr().out)
    assert look["judged"]["batch"] == look["belief"]["until"] == 1
    now = declared((column(Order.price).mean <= 50,))
    assert data_expect.run("app") == 3, "what is declared now, judged without recording it"
    assert "Order.price.mean <= 50" in capsys.readouterr().out
    assert len(judged(session)) == 1
    assert data_expect.run("app", propose=True) == 0
    code = capsys.readouterr().out
    assert "fb.column(Order.category).share('books') >= " in code
    assert "fb.column(Order.returned).share(True) >= " in code


def test_corrected_rows_count_once_whatever_became_of_the_source_that_they_came_from() -> None:
    rows = table(Order).rows >= 1
    here = world(orders_1=FIRST)
    gathered(here, declared((rows,)))
    here.frames["orders-1.csv"] = FIRST.with_columns(pl.col("price") + 1)
    here.clock.advance(timedelta(minutes=1))
    app = declared((rows, column(Order.price).mean >= 0))
    now = fb.files("orders-*.csv", prepare=loops.plain, yields=Order, name="renamed")
    gathered(here, declared((rows,)))
    object.__setattr__(app, "sources", (now,))
    session = gathered(here, app)
    found = [v.measurement for v in judged(session)[-1].verdicts]
    assert [m and m.n for m in found] == [FIRST.height, FIRST.height]
    assert found[1] and found[1].estimate == pytest.approx(FIRST["price"].mean() + 1)


def test_status_says_what_is_believed() -> None:
    here = world(orders_1=FIRST)
    gathered(here, declared())
    here.frames["orders-2.csv"] = IN_CENTS
    (belief,) = status.status(gathered(here, declared())).beliefs
    assert (belief.table, belief.batch, belief.until) == ("Order", 2, 1)
    assert belief.why.startswith("Order.price.mean <= 150 (found ")
    assert status.status(here.session(loops.declared())).beliefs == []


def test_a_loop_that_may_believe_nothing_rests_until_it_may() -> None:
    here = world(orders_1=IN_CENTS)
    session = here.session(declared())
    watch, worker = Watch(session), Here(session)

    def rests() -> None:
        for _ in range(20):
            looked = reconcile.reconcile(session, watch, worker)
            if not looked.did and not looked.working:
                return
        raise AssertionError(looked.did)

    rests()
    assert loops.state(here).champion == ""
    assert alerts(session) == [("till: expect Order is in breach", "warning")]
    here.clock.advance(timedelta(hours=1))
    here.frames["orders-1.csv"] = SECOND
    session = here.session(declared())
    watch, worker = Watch(session), Here(session)
    rests()
    assert expectations.beliefs(session)[0].until == 2
    assert steps.pin(session.facts, "till", "till") == pinned(session)
    assert len(alerts(session)) == 1


def test_a_crash_before_the_judgement_is_made_good_by_the_loop() -> None:
    here = world(orders_1=FIRST)
    apply.apply(here.session(declared()))
    here.frames["orders-2.csv"] = SECOND
    gather.gather(here.session(declared()))
    assert expectations.waiting(here.session(declared())) == ["Order"]
    process = Process(here, declared())
    process.look()
    assert expectations.beliefs(process.session)[0].until == 2
    assert len(judged(process.session)) == 2


def test_what_a_rollback_withdrew_is_not_believed_because_it_once_was() -> None:
    here = world(orders_1=PAST.head(150))
    gathered(here, declared())
    here.frames["orders-2.csv"] = PAST.tail(PAST.height - 150)
    session = gathered(here, declared())
    assert pinned(session).batches == {"Order": 2}, "the first has too few rows to be believed by itself"
    versions.roll_back(session, "Order", to=1, reason="wrong files", by="ada")
    (found,) = expectations.judge(session)
    assert (found.batch, bool(found.judged and found.judged.failed), found.until) == (3, True, 0)
    with pytest.raises(GateError, match="table-not-believed"):
        pinned(session, here.clock.now())
    versions.roll_back(session, "Order", to=2, reason="they were right", by="ada")
    (found,) = expectations.beliefs(session)
    assert found.until == 2, "the table holds again what was believed"
