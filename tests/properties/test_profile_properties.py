"""Profiles add up: in any order, in any grouping, to what the rows together say; and counts are those of a plain loop."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball._kernel import facts
from flyball.data import profile
from flyball.data.profile import Edges, Profile

NUMBER = st.one_of(
    st.none(), st.floats(width=64), st.integers(-3, 3).map(float), st.sampled_from([0.0, -0.0, 1e300, -1e300, 5e-324])
)
TEXT = st.one_of(st.none(), st.sampled_from(["a", "b", "ü", "", "(none)", "zz"]))
SETTINGS = settings(max_examples=150, deadline=None)


@st.composite
def columns(draw: st.DrawFn) -> tuple[Edges, list[pl.Series]]:
    """The edges of a reference, and parts of a column."""
    kind: profile.Kind = draw(st.sampled_from(["number", "category"]))
    values, dtype = (NUMBER, pl.Float64()) if kind == "number" else (TEXT, pl.String())
    lists = st.lists(values, max_size=40)
    reference = draw(lists) * (1 if kind == "number" else 5)
    by = profile.edges(pl.Series(reference, dtype=dtype), kind)
    return by, [pl.Series(part, dtype=dtype) for part in draw(st.lists(lists, min_size=1, max_size=5))]


@SETTINGS
@given(columns(), st.randoms(use_true_random=False))
def test_merging_is_associative_and_commutative(
    case: tuple[Edges, list[pl.Series]], random: np.random.Generator
) -> None:
    by, parts = case
    whole = profile.profile(pl.concat(parts), by)
    each = [profile.profile(part, by) for part in parts]
    assert profile.merge(profile.empty(by), *each) == whole
    random.shuffle(each)
    while len(each) > 1:
        k = int(random.random() * (len(each) - 1))
        each[k : k + 2] = [profile.merge(each[k], each[k + 1])]
    assert each == [whole]


@SETTINGS
@given(columns())
def test_counts_are_those_of_a_plain_loop(case: tuple[Edges, list[pl.Series]]) -> None:
    by, parts = case
    expected = [0] * by.width
    for value in pl.concat(parts).to_list():
        if by.kind == "category":
            known = list(by.categories)
            place = -1 if value is None else known.index(value) if value in known else -2
        else:
            missing = value is None or not abs(value) <= profile.LARGEST
            place = -1 if missing else sum(cut < value for cut in by.cuts)
        expected[place] += 1
    assert profile.profile(pl.concat(parts), by).counts == tuple(expected)


@SETTINGS
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_bins_are_those_of_numpy(values: list[float]) -> None:
    by = profile.edges(pl.Series(values), "number")
    inner = profile.profile(pl.Series(values), by).counts[1:-2]
    # NumPy's bins are closed on the left, ours on the right: so both are turned round.
    ours = np.array(by.cuts)
    expected = np.histogram(-np.array(values), -ours[::-1])[0][::-1]
    assert list(inner) == expected.tolist()
    # A bin without its ties is no fuller than a twentieth of the rows.
    for (low, high), count in zip(pairwise(ours), inner, strict=True):
        assert high > low
        assert count - values.count(high) <= len(values) / profile.BINS


@SETTINGS
@given(columns())
def test_a_profile_is_stored_as_it_is_and_stays_small(case: tuple[Edges, list[pl.Series]]) -> None:
    by, parts = case
    found = profile.profile(pl.concat(parts), by)
    data = facts.encode(found)
    assert msgspec.json.decode(data, type=Profile) == found
    assert msgspec.json.decode(facts.encode(by), type=Edges) == by
    assert by.width <= profile.BINS + 3
