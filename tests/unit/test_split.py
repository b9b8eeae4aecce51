"""How examples are cut: by time, on several spans, and by group; and whether one version's rows were held out for another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dataframely as dy
import numpy as np
import polars as pl
import pytest

import flyball as fb
from flyball import days, hours
from flyball._kernel import fingerprint
from flyball._kernel.errors import DataError, DeclarationError
from flyball.learn import groups, held, split
from flyball.learn.examples import Counts, Examples
from flyball.learn.split import NAMES, Bounds, Spans
from flyball.learn.task import ANOMALY, BINARY, Task

END = datetime(2013, 7, 1, tzinfo=UTC)
BOUNDS = Bounds.before(END, fb.by_time(days(30)))
MOMENT = pl.Datetime("us", "UTC")
TICK = timedelta(microseconds=1)
Row = tuple[datetime, datetime | None]


class Visit(fb.Contract):
    visit = dy.String(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    customer = dy.String(nullable=True)
    name = fb.personal(dy.String(nullable=True))
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    bought = fb.outcome(dy.Bool(nullable=True))


@fb.model(fb.features(Visit.customer), predicts=Visit.bought, asked=fb.before(Visit.at, hours(1)))
def buying() -> None: ...


def examples(*rows: Row, label: pl.Series | None = None, **request: list[Any]) -> Examples:
    asked, settled = ([row[k] for row in rows] for k in (0, 1))
    alternating = [None if s is None else k % 2 == 0 for k, s in enumerate(settled)]
    columns = {f"_request.{name}": values for name, values in request.items()}
    frame = pl.DataFrame(
        {"_asked": asked, "_settled": settled, **columns},
        schema_overrides=dict.fromkeys(("_asked", "_settled"), MOMENT),
    )
    frame = frame.with_columns(_label=pl.Series(alternating, dtype=pl.Boolean) if label is None else label)
    if not request:
        frame = frame.with_columns(pl.Series("_request.visit", [str(k) for k in range(len(rows))], dtype=pl.String))
    return Examples(frame, (), Counts(learned=len(rows), void=0, unsettled=0, unaskable=0))


def daily(n: int = 120, settles: timedelta = timedelta(hours=5)) -> list[Row]:
    return [(END - days(n) + days(k), END - days(n) + days(k) + settles) for k in range(n + 10)]


def counted(spans: Spans) -> tuple[list[tuple[int, int]], int, int]:
    folds = [(int(fold.explore.sum()), int(fold.validation.sum())) for fold in spans.folds]
    return folds, int(spans.fit.sum()), int(spans.test.sum())


# By time


def test_bounds_are_two_spans_back_from_the_cutoff() -> None:
    assert BOUNDS.validation == (datetime(2013, 5, 2, tzinfo=UTC),)
    assert (BOUNDS.test, BOUNDS.end) == (datetime(2013, 6, 1, tzinfo=UTC), END)


def test_every_day_falls_where_it_belongs() -> None:
    found = split.cut(examples(*daily()), BOUNDS)
    assert counted(found) == ([(60, 30)], 90, 30)
    (fold,) = found.folds
    assert not (fold.explore & fold.validation).any()
    assert not (found.fit & found.test).any()
    assert np.array_equal(found.fit, fold.explore | fold.validation)


def test_questions_after_the_cutoff_are_in_no_span() -> None:
    rows = examples(*daily())
    found = split.cut(rows, BOUNDS)
    after = (rows.asked >= END).to_numpy()
    assert after.sum() == 10
    assert not (after & (found.folds[0].explore | found.folds[0].validation | found.fit | found.test)).any()


def test_a_row_that_settles_after_the_next_span_began_trains_nothing() -> None:
    rows = examples(*daily(settles=days(3)))
    found = split.cut(rows, BOUNDS)
    masks = (
        (found.folds[0].explore, BOUNDS.validation[0]),
        (found.fit, BOUNDS.test),
        (found.folds[0].validation, BOUNDS.test),
    )
    for mask, limit in masks:
        assert (rows.settled.filter(pl.Series(mask)) < limit).all()
    assert int(found.fit.sum()) == 90 - 3


def edge(asked: datetime, settled: datetime | None, bounds: Bounds = BOUNDS) -> dict[str, bool]:
    """Where one row among enough others falls."""
    found = split.cut(examples((asked, settled), *daily()), bounds)
    (fold,) = found.folds
    masks = {"explore": fold.explore, "validation": fold.validation, "fit": found.fit, "test": found.test}
    return {name: bool(mask[0]) for name, mask in masks.items()}


def test_an_outcome_known_exactly_when_a_span_begins_does_not_train_for_it() -> None:
    starts = BOUNDS.validation[0]
    assert not edge(starts - days(1), starts)["explore"]
    assert edge(starts - days(1), starts - TICK)["explore"]
    assert not edge(BOUNDS.test - days(1), BOUNDS.test)["fit"]
    assert edge(BOUNDS.test - days(1), BOUNDS.test - TICK)["fit"]


def test_a_question_asked_exactly_at_a_bound_belongs_to_the_span_that_begins() -> None:
    starts = BOUNDS.validation[0]
    assert edge(starts, starts + TICK)["validation"]
    assert not edge(starts - TICK, starts + TICK)["validation"]
    assert edge(BOUNDS.test, BOUNDS.test + TICK)["test"]
    assert not edge(BOUNDS.test - TICK, BOUNDS.test + TICK)["test"]
    assert edge(END - TICK, END + days(1))["test"]
    assert not edge(END, END + days(1))["test"]


def test_a_row_without_an_outcome_trains_from_when_it_was_asked_and_is_never_measured() -> None:
    assert edge(BOUNDS.test - TICK, None) == {"explore": False, "validation": False, "fit": True, "test": False}
    assert edge(BOUNDS.test, None) == {"explore": False, "validation": False, "fit": False, "test": False}


@pytest.mark.parametrize(
    ("keep", "span"),
    [
        (lambda asked: asked >= BOUNDS.validation[0], "explore"),
        (lambda asked: asked < BOUNDS.validation[0] or asked >= BOUNDS.test, "validation"),
        (lambda asked: asked < BOUNDS.test, "test"),
    ],
)
def test_an_empty_span_is_told_by_name(keep: Any, span: str) -> None:
    with pytest.raises(fb.DataError, match=f"the {NAMES[span]} span") as caught:
        split.cut(examples(*(row for row in daily() if keep(row[0]))), BOUNDS)
    assert caught.value.code == "too-little-history"


def test_where_nothing_is_settled_the_cause_is_told() -> None:
    for rows in (lambda: split.cut(examples(), BOUNDS), lambda: split.bounds_of(examples(visit=[]), END, BY_VISIT)):
        with pytest.raises(DataError, match="No question is settled yet") as refused:
            rows()
        assert refused.value.code == "too-little-history" and "None" not in refused.value.why


# Embargo and rolling origins


def test_an_embargo_keeps_the_last_rows_from_training_and_from_validation() -> None:
    bounds = Bounds.before(END, fb.by_time(days(30), embargo=days(2)))
    assert (bounds.test, bounds.end) == (BOUNDS.test, BOUNDS.end)
    assert counted(split.cut(examples(*daily()), bounds)) == ([(58, 28)], 88, 30)
    assert edge(BOUNDS.test - days(2) - TICK, BOUNDS.test - days(2), bounds)["fit"]
    assert not edge(BOUNDS.test - days(2), BOUNDS.test - days(2) + TICK, bounds)["fit"]


def test_an_embargo_as_long_as_outcomes_take_leaves_the_quick_no_edge() -> None:
    """Half of the outcomes come at once, and half after ten days: without it, the last days that train are of one kind."""
    rows = examples(*((asked, asked + (hours(1) if k % 2 else days(10))) for k, (asked, _) in enumerate(daily())))
    quick = ((rows.settled - rows.asked) < days(1)).to_numpy()
    shares = {}
    for embargo in (days(0), days(10)):
        fit = split.cut(rows, Bounds.before(END, fb.by_time(days(30), embargo=embargo))).fit
        shares[embargo] = quick[np.flatnonzero(fit)[-5:]].mean()
    assert shares[days(0)] == 1.0
    assert shares[days(10)] in (0.4, 0.6)


def test_rolling_validates_each_span_by_what_was_known_before_it() -> None:
    bounds = Bounds.before(END, split.rolling(days(10), origins=3))
    assert [(END - each).days for each in bounds.validation] == [40, 30, 20]
    assert counted(split.cut(examples(*daily()), bounds)) == ([(80, 10), (90, 10), (100, 10)], 110, 10)
    once = Bounds.before(END, split.rolling(days(10), origins=1))
    assert counted(split.cut(examples(*daily()), once)) == counted(
        split.cut(examples(*daily()), Bounds.before(END, fb.by_time(days(10))))
    )


def test_what_settles_slowly_is_validated_on_if_it_was_known_before_the_test() -> None:
    found = split.cut(examples(*daily(settles=days(8))), Bounds.before(END, split.rolling(days(10), origins=2)))
    assert counted(found)[0] == [(82, 10), (92, 2)]


@pytest.mark.parametrize(
    ("declare", "code"),
    [
        (lambda: fb.by_time(days(0)), "span-not-positive"),
        (lambda: fb.by_time(days(1), embargo=days(-1)), "span-not-positive"),
        (lambda: split.rolling(days(-1)), "span-not-positive"),
        (lambda: split.rolling(days(1), origins=0), "no-origins"),
        (lambda: split.by_group(), "no-group"),
        (lambda: split.by_group(Visit.customer, share=0.5), "share-out-of-range"),
        (lambda: split.by_group(dy.String()), "column-without-contract"),
    ],
)
def test_what_cannot_be_split_is_refused(declare: Any, code: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        declare()
    assert (refused.value.code, refused.value.where is not None) == (code, True)


def test_the_last_span_ends_early_enough_for_outcomes_to_settle() -> None:
    rows = examples(*(row for row in daily(settles=days(3)) if row[0] < END))
    assert split.bounds_of(rows, END, fb.by_time(days(20))).end == END - days(3)
    assert split.bounds_of(rows, END, split.rolling(days(5), origins=4)).test == END - days(8)


# By group

BY_VISIT, BY_CUSTOMER = split.by_group(Visit.visit), split.by_group(Visit.customer)


def visits(n: int, each: int = 3) -> Examples:
    rows = [row for k in range(n) for row in [(END + hours(k), END + hours(k + 1))] * each]
    names = [f"{k}/{j}" for k in range(n) for j in range(each)]
    return examples(*rows, visit=names, customer=[f"c{k}" for k in range(n) for _ in range(each)])


def test_a_group_is_on_one_side_and_stays_there() -> None:
    few, many = visits(300), visits(900)
    found = [split.cut(rows, split.bounds_of(rows, END + days(90), BY_CUSTOMER)) for rows in (few, many)]
    sides = []
    for rows, spans in zip((few, many), found, strict=True):
        customers = rows.request("customer").to_numpy()
        masks = spans.folds[0].explore, spans.folds[0].validation, spans.test
        assert (np.stack(masks).sum(axis=0) == 1).all()
        assert np.array_equal(spans.fit, masks[0] | masks[1])
        sides.append([set(customers[mask]) for mask in masks])
        assert not sides[-1][0] & sides[-1][1] and not sides[-1][2] & (sides[-1][0] | sides[-1][1])
    assert all(small <= large for small, large in zip(*sides, strict=True))
    assert [len(side) for side in sides[1]] == pytest.approx([540, 180, 180], abs=45)


def test_groups_of_several_columns_are_not_confused() -> None:
    rows = examples(*[(END, END + TICK)] * 4, visit=["a", "a", "ab", "ab"], customer=["bc", "bc", "c", "c"])
    texts, places = groups.grouped(rows, ["visit", "customer"])
    assert (len(texts), places.tolist()) == (2, [0, 0, 1, 1])


def test_rows_of_nobody_are_groups_of_their_own() -> None:
    rows = examples(*[(END, END + TICK)] * 60, visit=[str(k) for k in range(60)], customer=[None] * 50 + ["one"] * 10)
    texts, places = groups.grouped(rows, ["customer"])
    assert len(set(places[:50].tolist()) | {places[50]}) == 51 and len(set(places[50:].tolist())) == 1
    assert len({texts[k] for k in places[:50]}) == 50
    assert len(set(groups.sides(rows, ["customer"], 0.3)[:50].tolist())) == 3


def test_the_side_of_a_group_is_the_same_on_every_machine() -> None:
    rows = examples(*[(END, END + TICK)] * 12, visit=[f"c{k}" for k in range(12)])
    assert groups.sides(rows, ["visit"], 0.3).tolist() == [2, 0, 0, 1, 2, 2, 0, 2, 0, 0, 0, 1]


def test_groups_are_drawn_together_and_rows_on_their_own() -> None:
    rows = visits(40)
    by_customer, by_visit = (split.bounds_of(rows, END + days(9), each) for each in (BY_CUSTOMER, BY_VISIT))
    test = split.cut(rows, by_customer).test
    blocks = split.blocks(rows, by_customer, test)
    assert blocks is not None and len(np.unique(blocks)) * 3 == len(blocks) == test.sum()
    assert split.blocks(rows, by_visit, split.cut(rows, by_visit).test) is None
    assert split.blocks(rows, BOUNDS, test) is not None


def test_a_window_of_time_leaves_of_each_side_what_lies_in_it() -> None:
    """`flyball evaluate`: groups that were not seen, in a time that was not seen."""
    rows, until = visits(300), END + hours(150)
    whole = split.cut(rows, split.bounds_of(rows, END + days(90), BY_CUSTOMER))
    found = split.cut(rows, Bounds.between(until, END + hours(250), BY_CUSTOMER))
    known, asked = (
        (rows.settled < until).to_numpy(),
        rows.asked.is_between(until, END + hours(250), closed="left").to_numpy(),
    )
    assert np.array_equal(found.fit, whole.fit & known)
    assert np.array_equal(found.test, whole.test & asked)
    assert "that nothing was learned from" in split.told(Bounds.between(until, END, BY_CUSTOMER))


def test_too_few_groups_are_told() -> None:
    with pytest.raises(DataError, match="No group with a settled question") as refused:
        split.bounds_of(examples(*daily(), customer=["one"] * 130), END, BY_CUSTOMER)
    assert "There are 1 groups by Visit.customer" in refused.value.why


@pytest.mark.parametrize(("column", "code"), [(Visit.name, "split-by-personal"), (Visit.bought, "no-such-column")])
def test_a_column_that_examples_do_not_hold_is_refused(column: dy.Column, code: str) -> None:
    split.check(BY_CUSTOMER, buying)
    split.check(fb.by_time(days(1)), buying)
    with pytest.raises(DeclarationError) as refused:
        split.check(split.by_group(column), buying)
    assert refused.value.code == code


def test_a_split_means_what_it_says() -> None:
    said = [fb.by_time(days(1)), fb.by_time(days(1), embargo=days(1)), split.rolling(days(1)), BY_CUSTOMER, BY_VISIT]
    assert len({fingerprint.of(each) for each in said}) == len(said)
    assert fingerprint.of(split.by_group(Visit.customer, share=0.2)) == fingerprint.of(BY_CUSTOMER)


# Classes


def test_one_class_is_refused_for_a_classifier_alone() -> None:
    classes = Task(kind="multiclass", classes=("a", "b", "c"))
    rows = daily()
    same = pl.Series(
        ["a" if BOUNDS.test <= asked < END else "abc"[k % 3] for k, (asked, _) in enumerate(rows)],
        dtype=pl.Enum(["a", "b", "c"]),
    )
    several = examples(*rows, label=same)
    spans = split.cut(several, BOUNDS)
    with pytest.raises(DataError, match=r"All 30 outcomes of the test span are a\.") as refused:
        split.check_classes(several, spans, classes)
    assert refused.value.code == "one-class-only"
    usual = examples(*rows, label=pl.Series([False] * len(rows)))
    with pytest.raises(DataError, match="All 60 outcomes of the training span are False"):
        split.check_classes(usual, spans, BINARY)
    split.check_classes(usual, spans, ANOMALY)
    split.check_classes(examples(*rows), spans, BINARY)


# Held out for another


def test_rows_are_kept_to_the_bit() -> None:
    spans = split.cut(examples(*daily(123)), BOUNDS)
    again = held.from_bytes(held.to_bytes(spans), 133)
    assert np.array_equal(again.fit, spans.fit) and np.array_equal(again.test, spans.test)
    with pytest.raises(fb.StateError, match="rows-unreadable"):
        held.from_bytes(held.to_bytes(spans), 120)


def test_rows_are_held_out_for_whoever_did_not_learn_from_them() -> None:
    rows = visits(300)
    later, early, grouped = (
        split.bounds_of(rows, END + days(90), BY_CUSTOMER),
        Bounds.between(END + hours(100), END + hours(200), fb.by_time(hours(20))),
        Bounds.between(END + hours(250), END + hours(300), fb.by_time(hours(20))),
    )
    cuts = {bounds: split.cut(rows, bounds) for bounds in (later, early, grouped)}

    def apart(ours: Bounds, theirs: Bounds) -> bool:
        return held.apart(rows, ours, cuts[ours].test, rows, cuts[theirs].fit)

    assert apart(later, later) and apart(grouped, early)
    assert not apart(early, grouped)  # what it is tested on, the later one learned from
    assert not apart(later, grouped) and not apart(grouped, later)


def test_a_group_is_not_held_out_where_another_row_of_it_was_learned_from() -> None:
    rows = visits(300)
    by_visit, by_customer = (split.bounds_of(rows, END + days(90), each) for each in (BY_VISIT, BY_CUSTOMER))
    learned = split.cut(rows, by_visit)
    tested = (
        split.cut(rows, by_customer).test & learned.test
    )  # rows that nobody learned from, of customers that somebody knows
    assert tested.any()
    assert held.apart(rows, by_visit, tested, rows, learned.fit)
    assert not held.apart(rows, by_customer, tested, rows, learned.fit)
