"""What a feature comes from, by kind, and which declarations nobody uses."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball import hours
from flyball._kernel.place import Place
from flyball.cycle import features
from flyball.cycle.features import Read
from flyball.learn.features.declare import Feature, FeatureSet


class Seen(fb.Contract):
    """What was seen of a plane at an airport."""

    tail = dy.String(primary_key=True)
    airport = dy.String(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    wind = dy.Float64(nullable=True)
    landed = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=timedelta(days=2))
    delay = fb.outcome(dy.Float64(nullable=True))


class Trip(fb.Contract):
    """What is asked about."""

    trip = dy.String(primary_key=True)
    leaves = fb.event_time(dy.Datetime(time_zone="UTC"))
    plane = dy.String()
    origin = dy.String(description="where it begins")
    miles = dy.Float64()


BY = [(Trip.plane, Seen.tail), (Trip.origin, Seen.airport)]


def only(found: FeatureSet) -> Feature:
    (one,) = found.features
    return one


def said(feature: Feature) -> dict[str, list[str]]:
    reads: dict[str, list[str]] = {}
    for read in features.lineage(feature, Trip):
        reads.setdefault(read.role, []).append(read.column)
    return reads


def test_a_column_and_an_expression_come_from_the_request() -> None:
    assert features.lineage(only(fb.features(Trip.origin)), Trip) == [Read(column="Trip.origin", role="value")]
    pace = only(fb.features(pace=Trip.miles.col / Trip.leaves.col.dt.hour()))
    assert said(pace) == {"value": ["Trip.leaves", "Trip.miles"]}


def test_a_function_comes_from_the_columns_that_it_is_given() -> None:
    feature = only(fb.features(far=fb.function(lambda f: f["miles"] > 1000, Trip.miles, returns=pl.Boolean)))
    assert said(feature) == {"value": ["Trip.miles"]}
    assert features.KINDS[type(feature)] == "function"


def test_a_latest_names_its_values_both_sides_of_its_entity_and_its_times() -> None:
    latest = only(fb.features(seen=fb.latest(Seen, by=BY, max_age=hours(3))))
    assert said(latest) == {
        "value": ["Seen.wind"],
        "entity": ["Trip.plane", "Trip.origin", "Seen.tail", "Seen.airport"],
        "time": ["Seen.at"],
    }


def test_an_outcome_brings_the_time_at_which_it_settled() -> None:
    late = only(fb.features(late=fb.window(Seen, Seen.delay.col.mean(), by=(Trip.plane, Seen.tail), over=hours(3))))
    assert said(late) == {
        "value": ["Seen.delay"],
        "entity": ["Trip.plane", "Seen.tail"],
        "time": ["Seen.at", "Seen.landed"],
    }


def test_counting_rows_reads_no_value() -> None:
    seen = only(fb.features(seen=fb.window(Seen, pl.len(), by=(Trip.plane, Seen.tail), over=hours(3))))
    assert said(seen) == {"entity": ["Trip.plane", "Seen.tail"], "time": ["Seen.at"]}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A loaded module of the app's folder."""
    made = ModuleType("shared_features")
    made.__file__ = str(tmp_path / "pieces" / "shared_features.py")
    monkeypatch.setitem(sys.modules, "shared_features", made)
    return made


def test_a_definition_is_used_whatever_its_name_and_told_once(module: ModuleType, tmp_path: Path) -> None:
    window = fb.window(Seen, Seen.delay.col.mean(), by=(Trip.plane, Seen.tail), over=hours(3))
    other = fb.window(Seen, Seen.delay.col.mean(), by=(Trip.plane, Seen.tail), over=hours(4))

    @fb.feature(owner="ops")
    def shared():
        """Why it is there."""
        return fb.window(Seen, Seen.delay.col.mean(), by=(Trip.plane, Seen.tail), over=hours(3))

    module.window, module.shared, module.other, module.again = window, shared, other, other
    module.of_a_set = fb.features(Trip.miles, more=other)
    used = fb.features(lately=window)
    found = features.unread(tmp_path, [used])
    assert sorted(u.name for u in found) == ["miles", "other"]
    nothing = features.unread(tmp_path, [])
    assert sorted((u.name, u.owner, u.reason) for u in nothing if u.kind == "window") == [
        ("other", "", ""),
        ("shared", "ops", "Why it is there."),  # it says more than the same window without a name
    ]
    assert not features.unread(tmp_path / "elsewhere", [])


def test_a_feature_says_who_answers_for_it(module: ModuleType, tmp_path: Path) -> None:
    @fb.feature(owner="ops")
    def windy():
        """Wind delays.

        More of it.
        """
        return fb.latest(Seen, by=(Trip.plane, Seen.tail))

    module.windy = windy
    (one,) = features.unread(tmp_path, [])
    assert (one.name, one.kind, one.owner) == ("windy", "latest", "ops")
    assert one.reason.splitlines()[0] == "Wind delays."
    assert Place(__file__, 0).file in one.where
