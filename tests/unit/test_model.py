"""Models and knobs, declared; and the declarations that would see the future."""

from __future__ import annotations

from typing import Any

import dataframely as dy
import polars as pl
import pytest
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import days, hours, minutes
from flyball._kernel import fingerprint
from flyball._kernel.errors import DeclarationError
from flyball.cycle import causes
from flyball.data.contract import Ref
from flyball.learn import model as models
from flyball.learn.fit import train
from flyball.learn.model import Model


def utc(**more: Any) -> dy.Datetime:
    return dy.Datetime(time_zone="UTC", **more)


class Flight(fb.Contract):
    """One departure, known a month ahead."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(utc(), known=fb.before(days(30)))
    origin = dy.String()
    distance = dy.Int32()
    settled = fb.outcome_time(utc(nullable=True))
    late = fb.outcome(dy.Bool(nullable=True))
    delay = fb.outcome(dy.Float64(nullable=True))


class Visit(fb.Contract):
    """Known only when it happens."""

    visit_id = dy.String(primary_key=True)
    came = fb.event_time(utc())
    page = dy.String()
    left = fb.outcome_time(utc(nullable=True))
    bought = fb.outcome(dy.Bool(nullable=True))


class Knobs(fb.Params):
    leaves: int = fb.between(7, 255, start=31, log=True)
    rate: float = fb.between(0.01, 0.3, start=0.1)


ASKED = fb.before(Flight.scheduled, hours(2), tolerance=minutes(30))


def build(knobs: Knobs) -> object:
    return ("estimator", knobs.leaves, knobs.rate)


def declared(*given: Any, predicts: Any = None, asked: Any = None, **named: Any) -> Model:
    return fb.model(fb.features(*given, **named), predicts=predicts or Flight.late, asked=asked or ASKED)(build)


def refused(code: str, model: Model) -> fb.DeclarationError:
    with pytest.raises(fb.DeclarationError) as caught:
        models.check(model)
    assert caught.value.code == code
    assert caught.value.where is not None
    assert caught.value.where.file == __file__
    assert caught.value.why
    assert caught.value.next
    return caught.value


def test_a_model_is_a_value_with_the_function_s_name() -> None:
    model = declared(Flight.origin)
    assert model.name == "build"
    assert model.predicts == Ref(Flight, "late")
    assert model.question is Flight
    assert model.knobs is Knobs
    assert model.asked.lead == hours(2)
    assert model == declared(Flight.origin)


def test_a_decorated_function_is_a_model() -> None:
    @fb.model(fb.features(Flight.origin), predicts=Flight.delay, asked=ASKED)
    def delay(knobs: Knobs) -> object:
        return knobs

    assert isinstance(delay, Model)
    assert delay.name == "delay"


def test_what_reads_the_request_and_the_past_is_allowed() -> None:
    models.check(
        declared(
            Flight.origin,
            Flight.distance,
            hour=Flight.scheduled.col.dt.hour(),
            late=fb.window(Flight, Flight.late.col.mean(), by=Flight.origin, over=days(7)),
            last=fb.latest(Flight, by=Flight.origin),
        )
    )


@pytest.mark.parametrize(
    "named",
    [
        {"x": Flight.delay.col + 1},
        {"x": pl.when(Flight.late.col).then(1).otherwise(Flight.distance.col)},
        {"x": (Flight.settled.col - Flight.scheduled.col).dt.total_minutes()},
        {"x": fb.window(Flight, pl.len(), by=Flight.late, over=days(1))},
        {"x": fb.latest(Flight, by=Flight.delay)},
    ],
    ids=["outcome", "outcome within a condition", "outcome time", "window by outcome", "latest by outcome"],
)
def test_a_feature_that_reads_an_outcome_leaks(named: dict[str, Any]) -> None:
    error = refused("leaks-outcome", declared(Flight.origin, **named))
    assert "'x'" in error.what
    assert "window(" in error.next


@pytest.mark.parametrize("column", ["late", "delay", "settled"])
def test_an_outcome_itself_is_no_feature(column: str) -> None:
    refused("leaks-outcome", declared(getattr(Flight, column)))


def test_a_feature_that_reads_what_the_request_lacks_is_refused() -> None:
    error = refused("no-such-column", declared(Visit.page))
    assert "'page'" in error.what
    assert "origin" in error.why
    refused("no-such-column", declared(x=pl.col("speed") + 1))


def test_only_an_outcome_can_be_predicted() -> None:
    error = refused("predicts-no-outcome", declared(Flight.distance, predicts=Flight.origin))
    assert "outcome" in error.next
    refused("predicts-no-outcome", declared(Flight.distance, predicts=Flight.settled))


def test_a_prediction_of_no_column_is_refused() -> None:
    with pytest.raises(fb.DeclarationError, match="column-without-contract"):
        declared(Flight.origin, predicts="late")


def test_the_moment_must_follow_from_the_request() -> None:
    refused("leaks-outcome", declared(Flight.origin, asked=fb.before(Flight.settled, hours(2))))
    refused("no-such-column", declared(Flight.origin, asked=fb.before(Visit.came, hours(2))))


@pytest.mark.parametrize(("lead", "allowed"), [(29, True), (30, False), (31, False)])
def test_a_question_cannot_be_asked_before_its_row_is_known(lead: int, allowed: bool) -> None:
    model = declared(Flight.origin, asked=fb.before(Flight.scheduled, days(lead)))
    if allowed:
        models.check(model)
    else:
        error = refused("asked-too-early", model)
        assert "known=fb.before" in error.next


def test_a_row_that_is_known_when_it_happens_is_asked_about_then() -> None:
    now = fb.before(Visit.came, days(0))
    models.check(fb.model(fb.features(Visit.page), predicts=Visit.bought, asked=now)(build))
    early = fb.model(fb.features(Visit.page), predicts=Visit.bought, asked=fb.before(Visit.came, hours(1)))(build)
    refused("asked-too-early", early)


def test_a_feature_of_a_type_that_no_model_reads_is_refused() -> None:
    refused("feature-of-unusable-type", declared(Flight.scheduled))


def test_knobs_start_where_they_are_told() -> None:
    knobs = Knobs()
    assert (knobs.leaves, knobs.rate) == (31, 0.1)
    assert isinstance(knobs.leaves, int)
    assert isinstance(knobs.rate, float)


def test_knobs_take_what_the_search_chose_as_their_type() -> None:
    knobs = Knobs(leaves=63.0, rate=1)
    assert (knobs.leaves, knobs.rate) == (63, 1.0)
    assert type(knobs.leaves) is int
    assert type(knobs.rate) is float


def test_knobs_are_frozen_and_know_their_names() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        Knobs().leaves = 5  # type: ignore[misc]
    with pytest.raises(TypeError, match="no knob 'leafs'"):
        Knobs(leafs=3)  # type: ignore[call-arg]


def test_knobs_are_inherited_and_may_be_narrowed() -> None:
    class More(Knobs):
        leaves: int = fb.between(2, 4, start=3)
        depth: int = fb.between(1, 9, start=5)

    assert set(More.ranges) == {"leaves", "rate", "depth"}
    assert More().leaves == 3
    assert Knobs().leaves == 31


def test_the_ranges_say_type_and_limits() -> None:
    type_, range_ = Knobs.ranges["leaves"]
    assert type_ is int
    assert (range_.low, range_.high, range_.start, range_.log) == (7, 255, 31, True)


@pytest.mark.parametrize("start", [6, 256, float("nan")])
def test_a_start_outside_its_range_is_refused(start: float) -> None:
    with pytest.raises(fb.DeclarationError) as caught:
        fb.between(7, 255, start=start)
    assert caught.value.code == "knob-out-of-range"


@pytest.mark.parametrize("start", [7, 255])
def test_both_limits_are_included(start: float) -> None:
    assert fb.between(7, 255, start=start).start == start


def with_default(default: Any, predicts: Any = None) -> Model:
    features = fb.features(Flight.origin)
    return fb.model(features, predicts=predicts or Flight.late, asked=ASKED, default=default)(build)


@pytest.mark.parametrize("default", [0, 0.2, 1, None])
def test_a_default_is_an_answer_that_the_model_could_give(default: float | None) -> None:
    models.check(with_default(default))


@pytest.mark.parametrize("default", [-0.1, 1.01, float("nan"), float("inf"), True, "0.2"])
def test_a_default_that_is_no_probability_is_refused(default: Any) -> None:
    refused("default-out-of-range", with_default(default))


def test_a_default_of_an_estimate_is_any_finite_number() -> None:
    models.check(with_default(-1e9, Flight.delay))
    for default in (float("inf"), float("nan"), False):
        refused("default-out-of-range", with_default(default, Flight.delay))


def test_a_default_counts_as_declared_and_one_number_has_one_fingerprint() -> None:
    assert fingerprint.of(with_default(1)) == fingerprint.of(with_default(1.0))
    assert len({fingerprint.of(with_default(default)) for default in (None, 0.2, 0.3)}) == 3


def test_a_default_is_the_cause_of_no_step() -> None:
    """Every cause that a step takes from the model, with and without a default."""
    for cause in (causes.of_question, causes.of_features, lambda m: m.build, lambda m: m.knobs):
        assert fingerprint.of(cause(with_default(None))) == fingerprint.of(cause(with_default(0.2)))


@pytest.mark.parametrize(
    "said",
    [{"weights": "balance"}, {"weights": 3}, {"calibrate": "platt"}, {"decide": 0.5}, {"mitigate": "thresholds"}],
)
def test_a_treatment_that_is_misspelt_is_not_taken_for_another(said: dict[str, Any]) -> None:
    model = fb.model(fb.features(Flight.origin), predicts=Flight.late, asked=ASKED, **said)(build)
    with pytest.raises(DeclarationError, match=rf"'build' declares {next(iter(said))}=.* \[treatment-unknown\]"):
        models.check(model)


def test_a_keyword_that_is_misspelt_is_not_left_out() -> None:
    wrong: dict[str, Any] = {"calibrated": "sigmoid"}
    with pytest.raises(TypeError, match="a model has no 'calibrated'; it may have default, quantiles"):
        fb.model(fb.features(Flight.origin), predicts=Flight.late, asked=ASKED, **wrong)(build)


@pytest.mark.parametrize("quantiles", [("a",), (0.5, 0.5), (True,), (1.0,), (float("nan"),)])
def test_quantiles_lie_between_0_and_1_and_are_named_once(quantiles: Any) -> None:
    model = fb.model(fb.features(Flight.origin), predicts=Flight.delay, asked=ASKED, quantiles=quantiles)(build)
    with pytest.raises(DeclarationError, match="quantiles-out-of-range"):
        models.task(model)


def test_a_class_is_no_estimator() -> None:
    @fb.model(fb.features(Flight.origin), predicts=Flight.late, asked=ASKED)
    def forgot() -> Any:
        return LGBMClassifier

    with pytest.raises(DeclarationError, match="LGBMClassifier is a class: call it"):
        train.check(forgot)


def test_a_version_that_learned_another_outcome_is_found_out() -> None:
    trained = fingerprint.parts({"question": causes.of_question(declared(Flight.origin))})
    assert causes.other_outcome(declared(Flight.origin), trained) == ""
    assert causes.other_outcome(declared(Flight.origin, predicts=Flight.delay), trained) == "late"
    sooner = declared(Flight.origin, asked=fb.before(Flight.scheduled, hours(3)))
    assert causes.other_outcome(sooner, trained) == "", "what else was changed is no other outcome"
