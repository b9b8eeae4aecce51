"""Every kind of feature in one application: planned, trained, answered, audited, changed; and what is refused on the way."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball import cli
from flyball.cycle import answering, apply, plan
from flyball.data import dataset
from flyball.learn.features import offline
from tests.oracles import projects

WIDE = '''def rounded(frame):
    """Whether the price is a round one: no expression is shorter."""
    import polars as pl

    return pl.Series([price == int(price) for price in frame["price"]], dtype=pl.Boolean)


@fb.feature(owner="returns team")
def customer_returns():
    """Who sends things back goes on doing so."""
    return fb.window(Order, returns, by=Order.customer, over=[days(30), days(120)])


features = fb.features(
    Order.category,
    Order.channel,
    Order.price,
    customer_returns,
    hour=Order.placed.col.dt.convert_time_zone("Europe/Berlin").dt.hour(),
    round_price=fb.function(rounded, Order.price, returns=pl.Boolean),
    category_returns=fb.window(Order, returns, by=Order.category, over=days(30), gap=days(7)),
    both_returns=fb.window(Order, returns, by=[Order.category, Order.channel], over=days(60)),
    prices=fb.window(Order, Order.price.col.std(), by=Order.category, over=days(30)),
    median_price=fb.window(Order, Order.price.col.median(), by=Order.category, over=[days(1), days(7)]),
    dearest=fb.window(Order, Order.price.col.max(), by=Order.customer, over=days(60)),
    kinds=fb.window(Order, Order.category.col.n_unique(), by=Order.customer, over=days(90)),
    last_order=fb.window(Order, fb.since_last(), by=Order.customer, over=days(365)),
    last_returned=fb.window(Order, fb.since_last(), by=Order.customer, over=days(365), where=Order.returned.col),
    price_trend=fb.window(Order, fb.trend(Order.price.col), by=Order.category, over=days(30)),
    before=fb.latest(Order, by=Order.customer, columns=[Order.price, Order.returned], max_age=days(200)),
)
'''


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = projects.make(tmp_path_factory.mktemp("wide") / "shop")
    app = project / "app.py"
    text = app.read_text()
    begin, end = text.index("features = fb.features("), text.index("class Knobs")
    app.write_text(text[:begin] + WIDE + "\n\n" + text[end:])
    projects.edit(app, "import dataframely as dy\n", "import dataframely as dy\nimport polars as pl\n")
    return project


def features_of(answer: dict[str, Any], session: Any) -> dict[str, Any]:
    entry = session.journal.find(answer["id"])
    assert entry is not None
    return dict(entry.features)


def test_every_kind_is_trained_and_answered_alike(shop: Path) -> None:
    session = projects.opened(shop)
    notes = plan.plan(session).notes
    assert [note for note in notes if "round_price is a Python function" in note]
    applied = apply.apply(session)
    assert applied.models[0].ran
    model = session.app.models[0]
    questions = 60
    now = dataset.latest(session.tables, model.question)
    tables = {"Order": dataset.read(session.tables, model.question, now)}
    rows = tables["Order"].collect().sample(questions, seed=1)
    asked = datetime(2025, 6, 20, tzinfo=UTC)
    moments = [asked + timedelta(hours=n) for n in range(questions)]
    request = rows.select("order_id", "placed", "category", "channel", "price", "customer")
    built = offline.build(model.features, model.question, request.with_columns(_asked=pl.Series(moments)), tables)
    look = answering.plan_of(session, model, answering.routed(session)["sent_back"].champion.version).lookup
    found = [look(row, moment) for row, moment in zip(request.rows(named=True), moments, strict=True)]
    assert [repr(list(row)) for row in found] == [repr(list(row)) for row in built.rows()]
    assert built.null_count().row(0) != tuple([questions] * built.width), "nothing was found at all"


def test_a_sentence_trains_nothing_and_a_body_does(shop: Path) -> None:
    """Owner and reason are for people; what a function of ours says is the feature."""
    app = shop / "app.py"
    projects.edit(app, "Who sends things back goes on doing so.", "They go on.")
    projects.edit(app, 'owner="returns team"', 'owner="ops"')
    assert plan.plan(projects.opened(shop)).work == ""
    projects.edit(app, "price == int(price)", "price == round(price)")
    (steps,) = plan.plan(projects.opened(shop)).models
    why = [cause for step in steps.steps for cause in step.why if "round_price" in cause]
    assert why and all("feature" in cause for cause in why)
    projects.edit(app, "price == round(price)", "price == int(price)")
    assert plan.plan(projects.opened(shop)).work == ""


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("fb.function(rounded, Order.price, ", "fb.function(rounded, Order.returned, ", "leaks-outcome"),
        ("by=[Order.category, Order.channel]", "by=[Order.category, Order.settled]", "leaks-outcome"),
        ("gap=days(7)", "gap=days(-7)", "span-not-positive"),
        ("fb.trend(Order.price.col)", "fb.trend(Order.category.col)", "feature-of-unusable-type"),
        ("Order.price.col.std()", "Order.price.col.rolling_mean(3).std()", "expression-not-row-wise"),
        ("Order.price.col.median()", "Order.price.col.mode()", "window-of-unknown-aggregate"),
        ("columns=[Order.price, Order.returned]", "columns=[Order.price, Order.customer]", "personal-as-feature"),
        ("fb.function(rounded, Order.price, ", "fb.function(rounded, Order.customer, ", "personal-as-feature"),
    ],
)
def test_what_would_leak_is_refused_by_plan(
    shop: Path, old: str, new: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = shop / "app.py"
    projects.edit(app, old, new)
    projects.forget(shop)
    try:
        assert cli.call(["plan", str(shop), "--json"]) == 2
    finally:
        projects.edit(app, new, old)
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert "app.py:" in error["where"]


@pytest.mark.parametrize(
    ("new", "code"),
    [
        ("len(frame) > 99 for price", "function-not-row-wise"),
        ("'yes' for price", "function-yields-otherwise"),
    ],
)
def test_a_function_that_is_none_of_a_row_is_refused_by_apply(
    shop: Path, new: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = shop / "app.py"
    projects.edit(app, "price == int(price) for price", new)
    if "yes" in new:
        projects.edit(app, 'frame["price"]], dtype=pl.Boolean)', 'frame["price"]])')
    projects.forget(shop)
    try:
        assert cli.call(["apply", str(shop), "--json"]) == 2
    finally:
        projects.edit(app, new, "price == int(price) for price")
        if "yes" in new:
            projects.edit(app, 'frame["price"]])', 'frame["price"]], dtype=pl.Boolean)')
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == code
    assert "round_price" in error["what"]
