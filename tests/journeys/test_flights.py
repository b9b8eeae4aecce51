"""The flights example on all of its data: what is read and kept, how good it is, and that nothing of the future leaks in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import flyball as fb
from examples.flights import app as flights
from flyball import runtime
from flyball._kernel.errors import DeclarationError
from flyball.app import App, check
from flyball.cycle import evaluate, plan, snapshot, status
from flyball.cycle.session import Session, silent
from flyball.learn import examples
from flyball.learn.examples import Examples
from flyball.learn.model import Model

TRAIN_UNTIL, TEST_UNTIL = datetime(2013, 9, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)
LEAD = timedelta(hours=2)


def app(model: Model = flights.lateness, gates: Sequence[fb.Condition] = flights.app.gates) -> App:
    """The example with one trial, and what a test changes in it."""
    declared = flights.app
    return App(
        declared.name,
        sources=declared.sources,
        model=model,
        search=replace(declared.search, trials=1),
        gates=gates,
        release=declared.release,
        monitors=declared.monitors,
        false_alarms=declared.false_alarms,
        retrain=declared.retrain,
    )


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    root = Path(flights.__file__).parent
    return runtime.open(app(), runtime.Placement(root=root, home=tmp_path_factory.mktemp("flights")))


@pytest.fixture(scope="module")
def evaluated(session: Session) -> evaluate.Evaluated:
    """Which also ingests."""
    return evaluate.evaluate(session, None, TRAIN_UNTIL, TEST_UNTIL, silent)


@pytest.fixture(scope="module")
def built(session: Session, evaluated: evaluate.Evaluated) -> Examples:
    return learned(session)


def learned(session: Session, change: pl.Expr | None = None) -> Examples:
    """The examples of all that is ingested; `change` rewrites the flights first."""
    batches = snapshot.present(session, flights.lateness)
    tables = snapshot.read(session, flights.lateness, batches)
    if change is not None:
        tables["Flight"] = tables["Flight"].with_columns(change)
    return examples.build(flights.lateness, tables, snapshot.greatest(session, flights.lateness, batches))


def test_every_row_is_counted_once(session: Session, evaluated: evaluate.Evaluated) -> None:
    found = {table.table: table for table in status.status(session).tables}
    flight, weather, plane = found["Flight"], found["Weather"], found["Plane"]
    assert (flight.read, flight.accepted, flight.quarantined, flight.duplicates) == (336_776, 336_775, 1, 0)
    assert (weather.read, weather.accepted, weather.quarantined, weather.duplicates) == (26_115, 26_114, 1, 0)
    assert (plane.read, plane.accepted, plane.quarantined, plane.duplicates) == (3_322, 3_252, 70, 0)
    assert any("scheduled" in rule for rule in flight.by_rule)
    assert any("wind_speed" in rule for rule in weather.by_rule)
    assert any("built" in rule for rule in plane.by_rule)


def test_void_flights_are_counted_and_never_learned(built: Examples) -> None:
    """Cancelled and diverted: the 9,430 of the year without an arrival; those of its last two days may still settle."""
    counts = built.counts
    assert counts.learned == 327_345
    assert counts.void + counts.unsettled == 9_430
    assert counts.unsettled < 60
    assert built.frame.height == counts.learned
    assert built.label.null_count() == 0


def test_it_is_as_good_as_honest_models_are(evaluated: evaluate.Evaluated) -> None:
    """Published work with weather and recent delays reaches 0.68 to 0.75; what reaches more has looked ahead."""
    measured = evaluated.evaluation.measurements["roc_auc"]
    print(f"ROC AUC {measured.estimate:.4f}, 95 % {measured.low:.4f} to {measured.high:.4f}")
    assert 0.68 <= measured.estimate <= 0.78
    assert evaluated.evaluation.n > 100_000


def test_nothing_known_later_changes_what_was_learned(session: Session, built: Examples) -> None:
    """The trap that catches the other traps: give every flight that had not landed by July another outcome and another
    landing, and not one feature of a question asked until then is another.
    """
    july = datetime(2013, 7, 1, tzinfo=UTC)
    later = pl.col("_outcome_known") >= july
    changed = learned(session, pl.when(later).then(~pl.col("late")).otherwise(pl.col("late")).alias("late"))
    until = pl.col("_asked") <= july
    inputs = ["_asked", "_request.flight_id", *built.features]
    assert changed.frame.filter(until).select(inputs).equals(built.frame.filter(until).select(inputs))
    assert not changed.frame.filter(~until).select(inputs).equals(built.frame.filter(~until).select(inputs))


def test_a_flight_never_sees_itself_nor_what_landed_after_it_was_asked(session: Session, built: Examples) -> None:
    """By hand, from the file's rows: the share of late ones among the airport's flights that landed in the 3 hours before."""
    batches = snapshot.present(session, flights.lateness)
    rows = snapshot.read(session, flights.lateness, batches)["Flight"].select("flight_id", "origin", "settled", "late")
    landed = rows.filter(pl.col("settled").is_not_null() & pl.col("late").is_not_null()).collect()
    for row in built.frame.gather_every(9_001).iter_rows(named=True):
        asked = row["_asked"]
        seen = landed.filter(
            (pl.col("origin") == row["_request.origin"])
            & (pl.col("settled") >= asked - timedelta(hours=3))
            & (pl.col("settled") < asked)
            & (pl.col("flight_id") != row["_request.flight_id"])
        )
        assert row["airport_late_3h"] == (pytest.approx(seen["late"].mean()) if seen.height else None)
        assert row["_settled"] > asked
        assert asked == row["_request.scheduled"] - LEAD


def test_what_a_flight_sees_of_its_plane(session: Session, built: Examples) -> None:
    """By hand: its year, the last landing that was known, and the last departure before it in the timetable."""
    tables = snapshot.read(session, flights.lateness, snapshot.present(session, flights.lateness))
    known = dict(tables["Plane"].select("tailnum", "year").collect().iter_rows())
    rows = tables["Flight"].select("flight_id", "tailnum", "scheduled", "settled", "late").collect()
    whose = dict(rows.select("flight_id", "tailnum").iter_rows())
    dated, turned = 0, 0
    for row in built.frame.gather_every(4_001).iter_rows(named=True):
        asked, leaves, tail = row["_asked"], row["_request.scheduled"], whose[row["_request.flight_id"]]
        others = rows.filter((pl.col("tailnum") == tail) & (pl.col("flight_id") != row["_request.flight_id"]))
        made = known.get(tail)
        assert row["plane_year"] == made
        settled = others.filter(pl.col("late").is_not_null() & (pl.col("settled") < asked))["settled"].max()
        recent = isinstance(settled, datetime) and asked - settled <= timedelta(days=7)
        assert row["landed"] == ((asked - settled).total_seconds() if recent else None)
        before = others.filter(pl.col("scheduled") < leaves)["scheduled"].max()
        today = isinstance(before, datetime) and leaves - before <= timedelta(days=1)
        gap = timedelta(days=30) - LEAD  # counted from when the timetable was known
        assert row["turnaround"] == ((leaves - before + gap).total_seconds() if today else None)
        dated, turned = dated + (made is not None), turned + today
    assert min(dated, turned) > 20


@pytest.mark.parametrize(
    ("leak", "code"),
    [
        (lambda: fb.features(flights.Flight.origin, flights.Flight.late), "leaks-outcome"),
        (lambda: fb.features(flights.Flight.origin, landing=flights.Flight.settled.col.dt.hour()), "leaks-outcome"),
    ],
)
def test_features_of_the_outcome_are_refused(leak: object, code: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        check(app(replace(flights.lateness, features=leak())))  # type: ignore[operator]
    assert refused.value.code == code
    assert refused.value.where is not None and refused.value.where.file == __file__


def test_a_plan_of_a_year_takes_less_than_a_second(session: Session, evaluated: evaluate.Evaluated) -> None:
    """Its work, that is, whoever else has this machine; it hashes the files and fingerprints the code, and reads no row."""
    before = time.process_time()
    found = plan.plan(session)
    seconds = time.process_time() - before
    print(f"plan: {seconds:.3f} s")
    assert found.files == []
    assert seconds < 1
