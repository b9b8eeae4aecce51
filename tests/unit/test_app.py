"""An app is one value; `check` finds the declarations that contradict each other, and their lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball import app as apps
from flyball import days, hours, roc_auc
from flyball.learn.model import Model


class Weather(fb.Contract):
    """A table that is looked up."""

    origin = dy.String(primary_key=True)
    observed = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    wind = dy.Float64(nullable=True)


class Flight(fb.Contract):
    """A table that is asked about."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(dy.Datetime(time_zone="UTC"), known=fb.before(days(30)))
    origin = dy.String()
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    late = fb.outcome(dy.Bool(nullable=True))


def plain(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


FLIGHTS = fb.files("flights.csv", prepare=plain, yields=Flight)
WEATHER = fb.files("weather.csv", prepare=plain, yields=Weather)
FEATURES = fb.features(Flight.origin, weather=fb.latest(Weather, by=Flight.origin))
ASKED = fb.before(Flight.scheduled, hours(2))


def build(knobs: fb.Params) -> object:
    return knobs


LATENESS = fb.model(FEATURES, predicts=Flight.late, asked=ASKED)(build)
OTHER = dataclasses.replace(LATENESS, name="other")
DRIFT = fb.Monitor("drift", fb.psi(FEATURES, over=days(7)))
QUALITY = fb.Monitor("quality", roc_auc.live(over=days(30)) >= 0.6)


def declared(**changed: Any) -> fb.App:
    said: dict[str, Any] = {
        "name": "flights",
        "sources": [FLIGHTS, WEATHER],
        "model": LATENESS,
        "search": fb.search(trials=1, optimize=roc_auc, split=fb.by_time(days(30))),
        "gates": [roc_auc >= 0.65],
        "monitors": [DRIFT, QUALITY],
        "false_alarms": fb.at_most(1, per=days(30)),
        "retrain": fb.breach(DRIFT) | fb.every(days(7)),
    } | changed
    return fb.App(said.pop("name"), **said)


def refused(code: str, app: fb.App) -> fb.DeclarationError:
    with pytest.raises(fb.DeclarationError) as caught:
        apps.check(app)
    assert caught.value.code == code
    assert caught.value.where is not None
    assert caught.value.where.file == __file__
    assert caught.value.why
    assert caught.value.next
    return caught.value


def test_an_app_that_fits_together_is_returned_unchanged() -> None:
    app = declared()
    assert apps.check(app) is app


def test_declaring_an_app_checks_and_runs_nothing() -> None:
    declared(name="Not A Name", sources=[], model=None)


def test_apps_that_say_the_same_are_equal_wherever_they_stand() -> None:
    one = declared()
    other = declared()
    assert one == other
    moved = dataclasses.replace(DRIFT, place=QUALITY.place)
    assert declared(monitors=[moved, QUALITY]) == one


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "trains"},
        {"sources": [WEATHER, FLIGHTS]},
        {"gates": [roc_auc >= 0.66]},
        {"gates": []},
        {"monitors": [DRIFT]},
        {"false_alarms": fb.at_most(2, per=days(30))},
        {"retrain": fb.every(days(8))},
        {"release": fb.Release(fb.shadow(hours(1)))},
        {"search": fb.search(trials=2, optimize=roc_auc, split=fb.by_time(days(30)))},
        {"model": OTHER},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_an_app_that_says_something_else_is_not_equal(changed: dict[str, Any]) -> None:
    assert declared(**changed) != declared()


def test_an_app_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        declared().name = "other"  # type: ignore[misc]


def test_what_was_left_out_has_a_quiet_default() -> None:
    app = fb.App("flights", sources=[FLIGHTS, WEATHER], model=LATENESS, search=declared().search)
    assert apps.check(app) is app
    assert (app.gates, app.monitors, app.false_alarms, app.retrain.triggers) == ((), (), None, ())
    assert app.release == fb.Release()


def test_one_model_is_short_for_a_list_of_one() -> None:
    assert declared() == declared(model=None, models=[LATENESS])
    assert declared(models=[OTHER]).models == (LATENESS, OTHER)


def test_a_model_is_found_by_name_or_because_it_is_the_only_one() -> None:
    assert declared().model() is LATENESS
    assert declared().model("build") is LATENESS
    assert declared(models=[OTHER]).model("other") is OTHER


@pytest.mark.parametrize(("models", "name"), [([], "lateness"), ([OTHER], None)])
def test_a_model_that_is_not_told_apart_is_refused(models: list[Model], name: str | None) -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        declared(models=models).model(name)
    assert caught.value.code == "no-such-model"
    assert "build" in caught.value.why


def test_tables_are_those_that_sources_fill_each_once() -> None:
    more = fb.files("more.csv", prepare=plain, yields=Flight)
    assert declared(sources=[FLIGHTS, WEATHER, more]).tables() == (Flight, Weather)
    apps.check(declared(sources=[FLIGHTS, WEATHER, more]))


@pytest.mark.parametrize("name", ["flights", "a", "f-2_x", "a" * 63])
def test_a_plain_name_is_allowed(name: str) -> None:
    apps.check(declared(name=name))


@pytest.mark.parametrize("name", ["", "Flights", "2flights", "fli ghts", "a/b", "../x", "é", "a\n", "a" * 64, "-a"])
def test_a_name_that_could_not_be_part_of_a_path_is_refused(name: str) -> None:
    refused("name-not-plain", declared(name=name))


class Twin:
    """Another table of the same name, in another scope."""

    class Flight(fb.Contract):
        """Not the same table."""

        flight_id = dy.String(primary_key=True)
        scheduled = fb.event_time(dy.Datetime(time_zone="UTC"))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"models": [LATENESS]}, "two models named 'build'"),
        ({"sources": [FLIGHTS, WEATHER, FLIGHTS]}, "two sources named 'flights.Flight'"),
        ({"monitors": [DRIFT, dataclasses.replace(QUALITY, name="drift")]}, "two monitors named 'drift'"),
        (
            {"sources": [FLIGHTS, WEATHER, fb.files("twin.csv", prepare=plain, yields=Twin.Flight)]},
            "two tables named 'Flight'",
        ),
    ],
)
def test_two_of_a_name_are_refused(changed: dict[str, Any], what: str) -> None:
    assert what in refused("name-taken", declared(**changed)).what


def test_an_app_without_a_model_is_refused() -> None:
    refused("no-model", declared(model=None))


@pytest.mark.parametrize(("sources", "table"), [([WEATHER], "Flight"), ([FLIGHTS], "Weather"), ([], "Flight")])
def test_a_table_that_nothing_fills_is_refused(sources: list[Any], table: str) -> None:
    error = refused("table-without-source", declared(sources=sources))
    assert table in error.what
    assert f"yields={table}" in error.next


def test_a_breach_of_a_monitor_that_is_not_declared_is_refused() -> None:
    stranger = fb.Monitor("stranger", roc_auc.live(over=days(1)) >= 0.5)
    assert "'stranger'" in refused("no-such-monitor", declared(retrain=fb.breach(DRIFT, stranger))).what


def leaking() -> Model:
    return fb.model(fb.features(x=Flight.late.col), predicts=Flight.late, asked=ASKED)(build)


def too_early() -> Model:
    return fb.model(FEATURES, predicts=Flight.late, asked=fb.before(Flight.scheduled, days(31)))(build)


@pytest.mark.parametrize(("model", "code"), [(leaking, "leaks-outcome"), (too_early, "asked-too-early")])
def test_what_would_see_the_future_is_refused_with_the_app(model: Callable[[], Model], code: str) -> None:
    refused(code, declared(model=model()))


@pytest.mark.parametrize("gate", [fb.error_rate <= 0.01, roc_auc.live(over=days(7)) >= 0.6, fb.r2 >= 0.5])
def test_a_gate_that_held_out_rows_cannot_show_is_refused(gate: fb.Condition) -> None:
    refused("gate-not-measurable", declared(gates=[gate]))


def test_a_contract_that_contradicts_itself_is_refused_with_the_app() -> None:
    class Keyless(fb.Contract):
        at = fb.event_time(dy.Datetime(time_zone="UTC"))

    def source() -> Any:
        return dataclasses.replace(WEATHER, name="keyless", contract=Keyless)

    refused("contract-contradicts-itself", declared(sources=[FLIGHTS, WEATHER, source()]))
