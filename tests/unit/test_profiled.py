"""Profiles of tables: made once a batch, true of the rows that are there now, and silent about persons."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
import typer
from lightgbm import LGBMClassifier
from typer.testing import CliRunner

import flyball as fb
from flyball import runtime
from flyball._kernel.errors import Bug, DataError
from flyball.cli import data_profile
from flyball.cycle import profiled
from flyball.cycle.session import Session
from flyball.data import contract, dataset
from flyball.data.drafts import glance
from flyball.data.sketches import bias, sketch
from flyball.data.sketches.bias import Share
from flyball.data.tables import KNOWN, OUTCOME_KNOWN
from flyball.learn.drawing import portrait

START = datetime(2026, 1, 5, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>"


class Loan(fb.Contract):
    loan = dy.String(primary_key=True)
    asked = fb.event_time(dy.Datetime(time_zone="UTC"))
    sex = fb.protected(dy.String())
    name = fb.personal(dy.String(nullable=True))
    purpose = dy.String(nullable=True)
    amount = dy.Float64(nullable=True)
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    paid = fb.outcome(dy.Bool(nullable=True))


class Knobs(fb.Params):
    leaves: int = fb.between(7, 31, start=7)


@fb.model(fb.features(Loan.amount, Loan.purpose), predicts=Loan.paid, asked=fb.before(Loan.asked, timedelta(0)))
def pays(knobs: Knobs) -> LGBMClassifier:
    return LGBMClassifier(num_leaves=knobs.leaves)


def same(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw


APP = fb.App(
    "loans",
    sources=[fb.files("loans.csv", prepare=same, yields=Loan)],
    model=pays,
    search=fb.search(trials=1, optimize=fb.average_precision, split=fb.by_time(fb.days(30))),
    gates=[fb.roc_auc >= 0.5],
    release=fb.Release(fb.shadow(fb.hours(1))),
)


def loans(first: int, n: int, *, gone: float = 0.0) -> pl.DataFrame:
    ids = range(first, first + n)
    times = [START + timedelta(hours=i) for i in ids]
    cells = {
        "loan": [f"L{i:05}" for i in ids],
        "asked": times,
        "sex": ["Female" if i % 3 == 0 else "Male" for i in ids],
        "name": [f"Ada Byron {i % 5}" for i in ids],
        "purpose": [HOSTILE if i % 4 == 0 else "yacht" if i % 40 == 1 else "car" for i in ids],
        "amount": [None if i % 10 < 10 * gone else float(i % 100) for i in ids],
        "settled": [t + timedelta(days=1) for t in times],
        "paid": [i % 3 != 0 and i % 2 == 0 for i in ids],
    }
    frame = pl.DataFrame(cells, schema=contract.spec(Loan).dtypes)
    return frame.with_columns(pl.col("asked").alias(KNOWN), pl.col("settled").alias(OUTCOME_KNOWN))


def add(session: Session, batch: int, rows: pl.DataFrame) -> None:
    staged = session.tables.stage("Loan", rows.lazy(), batch)
    session.tables.append("Loan", staged, batch, {}, expect=session.tables.head("Loan"))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    found, _ = runtime.rehearsal(APP, runtime.Placement(root=tmp_path), START, 1)
    add(found, 1, loans(0, 300))
    add(found, 2, loans(300, 200, gone=0.5))
    return found


def made(session: Session) -> int:
    return sum(fact.kind == "data.profiled" for fact in session.facts.read())


def test_a_batch_is_read_once_and_a_version_is_its_batches_together(session: Session) -> None:
    first = profiled.parts(session, Loan)
    assert [p.batch for p in first] == [1, 2]
    assert made(session) == 2
    assert profiled.parts(session, Loan) == first
    assert made(session) == 2
    add(session, 3, loans(500, 50))
    assert [p.sketch.rows for p in profiled.parts(session, Loan)] == [300, 200, 50]
    assert made(session) == 3
    assert [p.batch for p in profiled.parts(session, Loan, 1)] == [1]
    whole = profiled.merged(first, Loan)
    assert whole.rows == 500
    amount = whole.column("amount")
    assert amount is not None
    assert amount.nulls == 100


def test_a_sketch_does_not_outlive_its_rows(session: Session) -> None:
    profiled.parts(session, Loan)
    head = session.tables.head("Loan")
    schema = dataset.schema(contract.spec(Loan))
    session.tables.delete("Loan", pl.col("loan") <= "L00099", schema, head.batch, expect=head)
    # Nobody called `forget`: that the count differs is seen.
    assert [p.sketch.rows for p in profiled.parts(session, Loan)] == [200, 200]
    assert made(session) == 3


def test_forgetting_names_every_artifact_and_the_sketch_is_made_anew(session: Session) -> None:
    profiled.parts(session, Loan)
    blobs = profiled.forget(session, "Loan", [2])
    assert len(blobs) == 1
    profiled.parts(session, Loan)
    assert made(session) == 3
    assert len(profiled.forget(session, "Loan")) == 2
    assert profiled.forget(session, "Weather") == ()
    profiled.parts(session, Loan)
    assert made(session) == 5


def test_an_artifact_that_is_gone_is_made_anew(session: Session) -> None:
    profiled.parts(session, Loan)
    before = made(session)
    object.__setattr__(session, "blobs", type(session.blobs)())
    assert [p.sketch.rows for p in profiled.parts(session, Loan)] == [300, 200]
    assert made(session) == before + 2


def test_nothing_of_a_person_is_kept_or_shown(session: Session) -> None:
    found = profiled.parts(session, Loan)
    whole = profiled.merged(found, Loan)
    name = whole.column("name")
    assert name is not None
    assert (name.kind, sketch.many(name), name.frequent.values) == ("personal", (5, True), ())
    stored = session.blobs.get(next(iter(profiled.forget(session, "Loan"))))
    page = portrait.render(portrait.Subject(title="Loan", over="", whole=whole))
    for text in (repr(sketch.decode(stored)), page, "".join(str(f.said) for f in session.facts.read())):
        assert "Ada" not in text
    # Another key, other hashes: what is stored cannot be looked up in a list of names.
    hashes = [
        sketch.of(loans(0, 50).lazy().select("name"), personal=["name"], seed=s).columns[0].distinct for s in (1, 2)
    ]
    assert hashes[0] != hashes[1]


def test_a_page_shows_what_is_there_and_runs_nothing(session: Session) -> None:
    parts = profiled.parts(session, Loan)
    subject = portrait.Subject(
        title=f"What is in {HOSTILE}",
        over=HOSTILE,
        whole=profiled.merged(parts, Loan),
        roles={"loan": "key"},
        about="asked",
        parts={f"batch {p.batch}": p.sketch for p in parts},
        before=("batch 1", parts[0].sketch),
        since=("batch 2", parts[1].sketch),
        biases=profiled.biased(session, pays),
        biased="now",
    )
    page = portrait.render(subject)
    assert page == portrait.render(subject)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    for text in ("When", "Missing values, by batch", "What came since", "Groups", "0 % → 50.0 %", "yacht"):
        assert text in page
    assert not re.search(r"(?:src|href)=|url\(", page)


def test_a_rare_value_is_not_named() -> None:
    rows = pl.LazyFrame({"x": ["common"] * 10 + ["rare"] * 9})
    found = sketch.of(rows)
    assert sketch.top(found.columns[0]) == [("common", 10)]
    assert "rare" not in portrait.render(portrait.Subject(title="t", over="", whole=found)).split("<main>")[1]


def test_sketches_of_other_kinds_do_not_fit() -> None:
    one, other = sketch.of(pl.LazyFrame({"x": [1]})), sketch.of(pl.LazyFrame({"x": ["a"]}))
    for parts in ((one, other), (), (one, sketch.Sketch(rows=0, columns=(), format="0"))):
        with pytest.raises(Bug) as raised:
            sketch.merge(*parts)
        assert raised.value.code == "sketches-do-not-fit"


def test_a_column_that_a_part_lacks_is_null_there() -> None:
    both = sketch.merge(sketch.of(pl.LazyFrame({"x": [1, 2]})), sketch.of(pl.LazyFrame({"y": ["a"]})))
    assert sketch.nulls(both) == {"x": pytest.approx(1 / 3), "y": pytest.approx(2 / 3)}


# Bias


def test_intervals_are_those_of_the_papers() -> None:
    # Newcombe 1998: 81 of 263 in table I of the first paper; 56/70 against 48/80, method 10, in table II of the second.
    one = bias.wilson(81, 263)
    assert (round(one.low, 4), round(one.high, 4)) == (0.2553, 0.3662)
    apart = bias.newcombe(bias.wilson(56, 70), bias.wilson(48, 80))
    assert (round(apart.low, 4), round(apart.high, 4)) == (0.0524, 0.3339)
    assert bias.wilson(0, 10).low == 0.0
    assert bias.wilson(10, 10).high == 1.0


def test_groups_are_counted_named_and_compared(session: Session) -> None:
    (found,) = profiled.biased(session, pays)
    assert (found.column, found.label, found.rows) == ("sex", "paid", 500)
    groups = {g.name: g for g in found.groups}
    frame = pl.concat([loans(0, 300), loans(300, 200)])
    for sex, group in groups.items():
        own = frame.filter(sex=sex)
        assert (group.rows, group.labelled, group.positive) == (own.height, own.height, own["paid"].sum())
        assert group.share.low < group.rows / 500 < group.share.high
    female = groups["Female"].apart
    assert female is not None
    assert female.estimate == pytest.approx(-groups["Male"].positive / groups["Male"].rows)
    assert female.high < 0


def test_corrections_count_once(session: Session) -> None:
    add(session, 3, loans(0, 300).with_columns(pl.col(KNOWN) + timedelta(days=90), paid=True))
    (found,) = profiled.biased(session, pays)
    assert found.rows == 500
    assert {g.name: g.positive >= g.rows * 0.5 for g in found.groups} == {"Male": True, "Female": True}


def test_rare_groups_are_not_named_and_numbers_are_cut_in_order() -> None:
    rows = pl.LazyFrame(
        {"g": ["a"] * 50 + ["b"] * 40 + ["odd"] * 9 + [None], "age": list(range(100)), "y": [0, 1] * 50}
    )
    g, age = bias.bias(rows, ["g", "age"], "y", {"g": {}})
    assert [(x.name, x.rows, x.reference) for x in g.groups] == [
        ("a", 50, 0.5),
        ("b", 40, 0.5),
        (bias.REST, 9, None),
        (bias.NONE, 1, None),
    ]
    assert g.groups[2].weak
    assert not g.groups[0].weak
    assert [x.name for x in age.groups] == ["≤ 19", "over 19, ≤ 39", "over 39, ≤ 59", "over 59, ≤ 79", "over 79, ≤ 99"]
    assert [x.rows for x in age.groups] == [20] * 5
    (only,) = bias.bias(rows, ["g"])
    assert only.rate is None
    assert only.groups[0].rate is None
    with pytest.raises(DataError) as raised:
        bias.bias(rows, ["g"], "age")
    assert raised.value.code == "label-not-binary"
    (empty,) = bias.bias(rows.head(0), ["g"], "y")
    assert empty.groups == ()


def test_a_share_of_everything_has_nobody_to_differ_from() -> None:
    (only,) = bias.bias(pl.LazyFrame({"g": ["a"] * 20, "y": [True] * 20}), ["g"], "y")
    assert only.groups[0].apart is None
    assert only.rate == Share(1.0, pytest.approx(0.8389, abs=1e-3), 1.0)


# A glance at a file, and the verb


def test_a_glance_types_text_and_hides_what_seems_personal() -> None:
    rows = pl.LazyFrame(
        {
            "n": [str(i) for i in range(100)],
            "at": [f"2026-01-{1 + i % 28:02}" for i in range(100)],
            "mail": [f"person{i % 9}@example.org" for i in range(100)],
        }
    )
    seen = glance.glance(rows)
    assert {c.name: c.kind for c in seen.sketch.columns} == {"n": "number", "at": "time", "mail": "personal"}
    assert seen.hidden == {"mail": "email"}
    open_ = glance.glance(rows, shown=frozenset({"mail"})).sketch.column("mail")
    assert open_ is not None
    assert open_.kind == "text"


def verb(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(data_profile.run)
    return CliRunner().invoke(app, arguments, catch_exceptions=False, standalone_mode=False)


def test_the_verb_looks_at_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loans(0, 60).drop(KNOWN, OUTCOME_KNOWN).write_csv(tmp_path / "loans.csv")
    found = verb(str(tmp_path / "loans.csv"), "--html", str(tmp_path / "page.html"), "--json")
    said = json.loads(found.stdout or capsys.readouterr().out)
    assert said["rows"] == 60
    amount = next(c for c in said["columns"] if c["name"] == "amount")
    assert (amount["low"], amount["high"], amount["nulls"]) == ("0", "59", 0)
    assert "<script" not in (tmp_path / "page.html").read_text()
    with pytest.raises(typer.BadParameter):
        verb(str(tmp_path / "loans.csv"), "--batch", "1")


def test_groups_lose_no_row_to_null_nan_or_their_names() -> None:
    (age,) = bias.bias(pl.LazyFrame({"age": [None] * 7 + list(range(50)) * 20}), ["age"])
    assert len(age.groups) == 6  # fifths, and none; however early the null comes
    (named,) = bias.bias(pl.LazyFrame({"g": [bias.NONE] * 20 + [None] * 30 + [bias.REST] * 11 + ["x"] * 3}), ["g"])
    assert {g.name: g.rows for g in named.groups} == {bias.NONE: 50, bias.REST: 14}
    (floats,) = bias.bias(pl.LazyFrame({"x": [float("nan")] * 20 + [float(i) for i in range(200)]}), ["x"])
    assert [g.rows for g in floats.groups] == [40] * 5 + [20]


def test_groups_of_a_personal_column_are_not_named(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = contract.spec(Loan)
    monkeypatch.setattr(type(spec), "with_role", lambda self, role: ("sex",))
    assert profiled.biased(session, pays) == ()
