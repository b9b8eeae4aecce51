"""However examples are cut, nothing that is measured on was learned from, and nothing that is learned was known too late."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from flyball._kernel.errors import DataError
from flyball.learn import split
from flyball.learn.split import Bounds
from tests.unit.test_split import END, Row, Visit, examples

rows = st.lists(st.tuples(st.integers(-150, 30), st.one_of(st.none(), st.integers(0, 60))), max_size=60)
REGULAR = [(a, 1) for a in range(-180, 0, 3)]
"""Something in every span."""
by_times = st.builds(
    split.rolling,
    st.integers(16, 40).map(lambda n: timedelta(hours=n)),
    origins=st.integers(1, 3),
    embargo=st.integers(0, 12).map(lambda n: timedelta(hours=n)),
)


def made(pairs: list[tuple[int, int | None]]) -> list[Row]:
    def at(hour: int) -> timedelta:
        return timedelta(hours=hour)

    return sorted(
        ((END + at(a), None if wait is None else END + at(a + wait)) for a, wait in [*pairs, *REGULAR]),
        key=lambda row: row[0],
    )


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(rows, by_times)
def test_spans_are_what_a_person_would_tell_row_by_row(pairs: list[tuple[int, int | None]], how: split.Rolling) -> None:
    given_rows, bounds = made(pairs), Bounds.before(END, how)
    try:
        found = split.cut(examples(*given_rows), bounds)
    except DataError:
        reject()
    starts = [END - (k + 1) * how.span for k in range(how.origins, 0, -1)]
    ends = [*starts[1:], END - how.span]
    for n, (asked, settled) in enumerate(given_rows):

        def trains(bound: object, asked: object = asked, settled: object = settled) -> bool:
            return (settled or asked) < bound and asked < bound - how.embargo  # type: ignore[operator]

        assert found.fit[n] == trains(bounds.test)
        assert found.test[n] == (settled is not None and bounds.test <= asked < END)
        for fold, start, end in zip(found.folds, starts, ends, strict=True):
            assert fold.explore[n] == trains(start)
            within = start <= asked < min(end, bounds.test - how.embargo)
            assert fold.validation[n] == (settled is not None and within and settled < bounds.test)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=30, max_size=90), st.floats(0.05, 0.45))
def test_no_group_is_on_two_sides_whatever_it_is_called(names: list[str | None], share: float) -> None:
    given_rows = examples(
        *[(END, END + timedelta(hours=1))] * len(names), visit=list(map(str, range(len(names)))), customer=names
    )
    how = split.by_group(Visit.customer, share=share)
    try:
        bounds = split.bounds_of(given_rows, END + timedelta(days=1), how)
        spans = split.cut(given_rows, bounds)
    except DataError:
        reject()
    masks = np.stack([spans.folds[0].explore, spans.folds[0].validation, spans.test])
    assert (masks.sum(axis=0) == 1).all() and np.array_equal(spans.fit, ~spans.test)
    for name in set(names) - {None}:
        assert masks[:, np.array([each == name for each in names])].any(axis=1).sum() == 1
