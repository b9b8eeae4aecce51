"""Features as values: what they are, what they yield, what they need, and what is refused."""

from __future__ import annotations

from typing import Any

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball import days, hours
from flyball._kernel import fingerprint
from flyball.data.contract import Ref
from flyball.learn.features.aggregate import Aggregate
from flyball.learn.features.declare import Computed, Entity, Expression, FeatureSet, Given, Latest, Output, Window


def utc(**more: Any) -> dy.Datetime:
    return dy.Datetime(time_zone="UTC", **more)


class Weather(fb.Contract):
    """Hourly, at a station."""

    station = dy.String(primary_key=True)
    observed = fb.event_time(utc(primary_key=True))
    wind = dy.Float64(nullable=True)
    sky = dy.Enum(["clear", "rain"], nullable=True)


class Flight(fb.Contract):
    """One departure."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(utc(), known=fb.before(days(30)))
    origin = dy.String()
    distance = dy.Int32()
    settled = fb.outcome_time(utc(nullable=True))
    late = fb.outcome(dy.Bool(nullable=True))


LATE = Flight.late.col.mean()
ALL = fb.features(
    Flight.origin,
    Flight.distance,
    hour=Flight.scheduled.col.dt.hour(),
    weather=fb.latest(Weather, by=(Flight.origin, Weather.station), max_age=hours(3)),
    carrier=fb.window(Flight, LATE, by=Flight.origin, over=[hours(6), days(7)]),
    airport=fb.window(Flight, pl.len(), by=Flight.origin, over=hours(3)),
)


def only(features: FeatureSet) -> Any:
    (feature,) = features.features
    return feature


def refused(code: str, declare: Any) -> fb.DeclarationError:
    with pytest.raises(fb.DeclarationError) as caught:
        declare()
    assert caught.value.code == code
    assert caught.value.where is not None
    assert caught.value.where.file == __file__
    return caught.value


def test_the_four_kinds_are_told_by_what_is_written() -> None:
    assert [type(f) for f in ALL.features] == [Given, Given, Computed, Latest, Window, Window]
    assert [f.name for f in ALL.features] == ["origin", "distance", "hour", "weather", "carrier", "airport"]


def test_features_know_their_outputs_in_order() -> None:
    assert ALL.outputs(Flight) == (
        Output("origin", "category"),
        Output("distance", "number"),
        Output("hour", "number"),
        Output("weather_wind", "number"),
        Output("weather_sky", "category"),
        Output("carrier_6h", "number"),
        Output("carrier_7d", "number"),
        Output("airport", "number"),
    )


def test_features_know_what_a_request_must_carry() -> None:
    assert ALL.reads(Flight) == {"origin", "distance", "scheduled"}
    assert fb.features(n=Flight.distance.col + 1).reads(Flight) == {"distance"}
    assert fb.features(n=fb.window(Flight, pl.len(), by=Flight.origin, over=days(1))).reads(Flight) == {"origin"}
    assert fb.features(w=fb.latest(Weather, by=(Flight.origin, Weather.station))).reads(Flight) == {"origin"}


def test_features_know_the_tables_that_they_look_up() -> None:
    assert ALL.tables() == (Weather, Flight)
    assert fb.features(Flight.origin).tables() == ()


def test_declarations_that_say_the_same_are_equal_wherever_they_stand() -> None:
    one = fb.features(Flight.origin, late=fb.window(Flight, LATE, by=Flight.origin, over=days(7)))
    other = fb.features(Flight.origin, late=fb.window(Flight, LATE, by=Flight.origin, over=days(7)))
    assert one.place != other.place
    assert one == other


@pytest.mark.parametrize(
    "changed",
    [
        lambda: fb.features(Flight.distance, late=fb.window(Flight, LATE, by=Flight.origin, over=days(7))),
        lambda: fb.features(Flight.origin, other=fb.window(Flight, LATE, by=Flight.origin, over=days(7))),
        lambda: fb.features(Flight.origin, late=fb.window(Flight, LATE, by=Flight.origin, over=days(8))),
        lambda: fb.features(Flight.origin, late=fb.window(Flight, LATE, by=Flight.distance, over=days(7))),
        lambda: fb.features(
            Flight.origin, late=fb.window(Flight, Flight.late.col.sum(), by=Flight.origin, over=days(7))
        ),
        lambda: fb.features(
            Flight.origin,
            late=fb.window(Flight, LATE, by=Flight.origin, over=days(7), where=Flight.distance.col > 10),
        ),
    ],
)
def test_what_means_something_else_is_not_equal(changed: Any) -> None:
    one = fb.features(Flight.origin, late=fb.window(Flight, LATE, by=Flight.origin, over=days(7)))
    assert one != changed()


def test_an_expression_is_equal_if_it_says_the_same() -> None:
    assert Expression(pl.col("a") + 1) == Expression(pl.col("a") + 1)
    assert hash(Expression(pl.col("a") + 1)) == hash(Expression(pl.col("a") + 1))
    assert Expression(pl.col("a") + 1) != Expression(pl.col("a") + 2)
    assert Expression(pl.col("a")) != "a"
    assert Expression(pl.col("a") + pl.col("b")).columns == {"a", "b"}


def test_an_expression_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="no truth value"):
        bool(Expression(pl.col("a") > 1))


def test_given_columns_become_refs_at_once() -> None:
    assert only(fb.features(Flight.origin)).column == Ref(Flight, "origin")


def test_latest_takes_all_but_key_times_and_outcomes() -> None:
    assert only(fb.features(w=fb.latest(Weather, by=(Flight.origin, Weather.station)))).columns == ("wind", "sky")
    assert only(fb.features(f=fb.latest(Flight, by=Flight.origin))).columns == ("origin", "distance")


def test_latest_takes_the_named_columns_in_their_order() -> None:
    chosen = fb.latest(Weather, by=(Flight.origin, Weather.station), columns=[Weather.sky, Weather.wind])
    assert [o.name for o in fb.features(w=chosen).outputs(Flight)] == ["w_sky", "w_wind"]


def test_an_entity_is_one_name_or_a_pair() -> None:
    assert fb.latest(Flight, by=Flight.origin).by == Entity(("origin",), ("origin",))
    assert fb.latest(Weather, by=(Flight.origin, Weather.station)).by == Entity(("origin",), ("station",))
    both = fb.latest(Flight, by=[Flight.origin, (Flight.flight_id, Flight.flight_id)])
    assert both.by == Entity(("origin", "flight_id"), ("origin", "flight_id"))


def test_an_entity_that_the_table_lacks_is_refused() -> None:
    error = refused("no-such-column", lambda: fb.latest(Weather, by=Flight.origin))
    assert "Weather has no column 'origin'" in error.what
    refused("no-such-column", lambda: fb.window(Weather, pl.len(), by=Flight.origin, over=hours(1)))


@pytest.mark.parametrize(
    ("value", "how", "inner"),
    [
        (Flight.distance.col.mean(), Aggregate("mean"), pl.col("distance")),
        (Flight.distance.col.sum(), Aggregate("sum"), pl.col("distance")),
        (Flight.distance.col.count(), Aggregate("count"), pl.col("distance")),
        ((Flight.distance.col > 100).mean(), Aggregate("mean"), pl.col("distance") > 100),
        ((Flight.distance.col * Flight.late.col).sum(), Aggregate("sum"), pl.col("distance") * pl.col("late")),
        (pl.len(), Aggregate("count"), pl.lit(value=True)),
        (Flight.distance.col.max(), Aggregate("max"), pl.col("distance")),
        (Flight.distance.col.min(), Aggregate("min"), pl.col("distance")),
        (Flight.distance.col.std(), Aggregate("std", 1.0), pl.col("distance")),
        (Flight.distance.col.var(ddof=0), Aggregate("var", 0.0), pl.col("distance")),
        (Flight.distance.col.n_unique(), Aggregate("n_unique"), pl.col("distance")),
        (Flight.distance.col.median(), Aggregate("quantile", 0.5, "linear"), pl.col("distance")),
        (Flight.distance.col.quantile(0.9), Aggregate("quantile", 0.9, "nearest"), pl.col("distance")),
        (fb.trend(Flight.distance.col), Aggregate("trend"), pl.col("distance")),
        (fb.since_last(), Aggregate("since"), pl.lit(value=True)),
    ],
)
def test_a_window_splits_off_its_aggregate(value: Any, how: Aggregate, inner: pl.Expr) -> None:
    found = fb.window(Flight, value, by=Flight.origin, over=hours(1))
    assert found.aggregate == how
    assert found.value == Expression(inner)


@pytest.mark.parametrize(
    "value",
    [
        Flight.distance.col,
        Flight.distance.col.first(),
        Flight.distance.col.len(),
        Flight.distance.col.nan_max(),
        Flight.distance.col.quantile(1.5),
        Flight.distance.col.quantile(0.5, interpolation="equiprobable"),
        Flight.distance.col.mean() + 1,
        pl.lit(1),
    ],
)
def test_a_window_keeps_what_it_knows_only(value: pl.Expr) -> None:
    error = refused("window-of-unknown-aggregate", lambda: fb.window(Flight, value, by=Flight.origin, over=hours(1)))
    assert "n_unique of a row-wise expression" in error.why


def test_a_shared_feature_has_a_name_a_reason_and_an_owner() -> None:
    @fb.feature(owner="ops")
    def late_lately() -> Window:
        """Who was late this week is late again."""
        return fb.window(Flight, LATE, by=Flight.origin, over=hours(6))

    assert (late_lately.name, late_lately.owner) == ("late_lately", "ops")
    assert late_lately.reason == "Who was late this week is late again."
    inline = fb.features(late_lately=fb.window(Flight, LATE, by=Flight.origin, over=hours(6)))
    shared = fb.features(late_lately)
    assert shared.features == inline.features, "owner and reason are no part of what a feature is"
    assert fingerprint.of(shared) == fingerprint.of(inline)
    refused("feature-of-unknown-kind", lambda: fb.feature()(lambda carrier: LATE))  # type: ignore[arg-type,misc]
    refused("feature-of-unknown-kind", lambda: fb.feature()(lambda: 1))  # type: ignore[arg-type,return-value]
    refused("feature-name-taken", lambda: fb.features(late_lately, late_lately=LATE))


def test_where_leaves_the_other_rows_out() -> None:
    found = fb.window(
        Flight, Flight.distance.col.sum(), by=Flight.origin, over=hours(1), where=Flight.distance.col > 100
    )
    rows = pl.DataFrame({"distance": [50, 150, 250]})
    assert rows.select(found.value.polars.sum()).item() == 400
    assert rows.select(found.value.polars.count()).item() == 2


def test_a_window_that_reads_an_outcome_counts_by_when_it_settled() -> None:
    def on_outcome(value: pl.Expr, where: pl.Expr | None = None) -> bool:
        return fb.window(Flight, value, by=Flight.origin, over=hours(1), where=where).on_outcome

    assert on_outcome(LATE)
    assert on_outcome(pl.len(), where=Flight.late.col)
    assert on_outcome((Flight.settled.col - Flight.scheduled.col).dt.total_minutes().mean())
    assert not on_outcome(pl.len())
    assert not on_outcome(Flight.distance.col.mean())


def test_one_span_keeps_the_feature_s_name_and_several_say_which() -> None:
    one = only(fb.features(n=fb.window(Flight, pl.len(), by=Flight.origin, over=days(7))))
    two = only(fb.features(n=fb.window(Flight, pl.len(), by=Flight.origin, over=(hours(6), days(7)))))
    assert [o.name for o in one.outputs(Flight)] == ["n"]
    assert [o.name for o in two.outputs(Flight)] == ["n_6h", "n_7d"]


def test_two_features_of_one_name_are_refused() -> None:
    refused("feature-name-taken", lambda: fb.features(Flight.origin, origin=Flight.origin.col.str.to_lowercase()))
    refused("feature-name-taken", lambda: fb.features(Flight.origin, Flight.origin))


@pytest.mark.parametrize("definition", [Flight.origin, "origin", 3, None, LATE.meta])
def test_a_named_feature_of_another_kind_is_refused(definition: Any) -> None:
    error = refused("feature-of-unknown-kind", lambda: fb.features(hour=definition))
    assert "'hour'" in error.what


@pytest.mark.parametrize("stray", [dy.String(), "origin", pl.col("origin")])
def test_a_column_that_belongs_nowhere_is_refused(stray: Any) -> None:
    refused("column-without-contract", lambda: fb.features(stray))


def test_a_time_is_no_feature() -> None:
    error = refused("feature-of-unusable-type", lambda: fb.features(Flight.scheduled).outputs(Flight))
    assert "dt.hour()" in error.next
    refused("feature-of-unusable-type", lambda: fb.features(t=Flight.scheduled.col).outputs(Flight))


def test_an_expression_that_does_not_fit_the_request_is_refused() -> None:
    error = refused("expression-does-not-fit", lambda: fb.features(x=pl.col("speed") * 2).outputs(Flight))
    assert "'x'" in error.what
    refused("expression-does-not-fit", lambda: fb.features(x=Flight.origin.col.dt.hour()).outputs(Flight))


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        (Flight.distance.col > 100, "number"),
        (Flight.distance.col / 7, "number"),
        (Flight.origin.col.str.slice(0, 1), "category"),
        (Flight.origin.col.cast(pl.Categorical), "category"),
        (Flight.scheduled.col.dt.weekday(), "number"),
    ],
)
def test_the_kind_of_a_computed_feature_follows_from_its_type(expression: pl.Expr, kind: str) -> None:
    (output,) = fb.features(x=expression).outputs(Flight)
    assert output.kind == kind


def wide(**said: Any) -> Any:
    return fb.window(Weather, said.pop("value", pl.len()), by=said.pop("by", (Flight.origin, Weather.station)), **said)


@pytest.mark.parametrize(
    ("code", "declare"),
    [
        ("span-not-positive", lambda: wide(over=7)),
        ("span-not-positive", lambda: wide(over="7d")),
        ("span-not-positive", lambda: wide(over=days(7), gap=3)),
        ("span-not-positive", lambda: fb.latest(Flight, by=Flight.origin, max_age=30)),  # type: ignore[arg-type]
        ("window-of-unknown-aggregate", lambda: wide(value=Weather.wind, over=days(7))),
        ("window-of-unknown-aggregate", lambda: wide(value=fb.since_last, over=days(7))),
        ("window-of-unknown-aggregate", lambda: fb.trend(Weather.wind)),  # type: ignore[arg-type]
        ("column-without-contract", lambda: wide(by=(Flight.origin, "station"), over=days(7))),
        ("feature-of-unknown-kind", lambda: fb.features(wide(over=days(7)))),
    ],
)
def test_what_is_easily_miswritten_is_refused_at_its_own_line(code: str, declare: Any) -> None:
    refused(code, declare)


def test_a_definition_keeps_the_line_that_it_stands_on() -> None:
    late = wide(over=days(7))
    assert only(fb.features(late=late)).place == late.place
