"""Profiles: ties are never cut, keys never get in, and what is added can be taken away."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from flyball._kernel import facts
from flyball._kernel.errors import Bug
from flyball.data import profile
from flyball.data.profile import BINS, KNOWN_WELL, Edges, Profile


def numbers(*values: float | None) -> pl.Series:
    return pl.Series("x", values, dtype=pl.Float64)


def test_the_reference_fills_its_bins_evenly_and_nothing_lies_beyond() -> None:
    values = pl.Series(np.random.default_rng(0).normal(size=10_000))
    by = profile.edges(values, "number")
    found = profile.profile(values, by)
    assert len(by.cuts) == BINS + 1
    assert found.counts[0] == found.counts[-2] == found.missing == 0
    assert all(490 <= c <= 510 for c in found.counts[1:-2])
    assert found.n == 10_000


def test_ties_are_never_cut_apart() -> None:
    values = numbers(*([0.0] * 700), *range(1, 301))
    by = profile.edges(values, "number")
    assert profile.profile(values, by).counts[1] == 700
    assert len(by.cuts) < BINS + 1


def test_beyond_below_and_missing_are_places() -> None:
    by = profile.edges(numbers(0, 1, 2, 3), "number")
    found = profile.profile(numbers(-1e-9, 0, 3, 3.0000001, None, float("nan"), float("inf")), by)
    assert (found.counts[0], found.counts[-2], found.missing) == (1, 1, 3)
    assert (found.low, found.high) == (-1e-9, 3.0000001)


def test_zero_is_not_below_itself_where_tiny_numbers_are_zero() -> None:
    by = profile.edges(numbers(0, 1), "number")
    assert abs(by.cuts[0]) >= np.finfo(np.float64).tiny
    assert profile.profile(numbers(0.0, -0.0), by).counts[0] == 0


@pytest.mark.parametrize("values", [numbers(), numbers(None, None), numbers(7, 7, 7)])
def test_a_reference_that_says_little_still_counts(values: pl.Series) -> None:
    by = profile.edges(values, "number")
    found = profile.profile(numbers(6, 7, 8, None), by)
    assert found.n == 4
    assert found.missing == 1
    if values.drop_nulls().len():
        assert found.counts == (1, 1, 1, 1)


def test_categories_are_those_that_many_share_and_the_rest_is_other() -> None:
    values = pl.Series(["UA"] * 50 + ["AA"] * KNOWN_WELL + ["N14228"] * (KNOWN_WELL - 1) + [None])
    by = profile.edges(values, "category")
    assert by.categories == ("AA", "UA")
    assert profile.profile(values, by).counts == (10, 50, 9, 1)
    assert b"N14228" not in facts.encode(by)


def test_a_key_leaves_no_value_behind() -> None:
    by = profile.edges(pl.Series([f"flight {k}" for k in range(1000)]), "category")
    assert by.categories == ()
    assert profile.profile(pl.Series(["flight 3", None]), by).counts == (1, 1)


def test_as_many_categories_as_bins_at_most_the_most_frequent() -> None:
    values = pl.Series([f"c{k:02d}" for k in range(40) for _ in range(20 + k)])
    assert profile.edges(values, "category").categories == tuple(f"c{k:02d}" for k in range(20, 40))


def test_enums_and_truth_values_can_be_profiled() -> None:
    enum = pl.Series(["a", "b"] * 20, dtype=pl.Enum(["b", "a"]))
    assert profile.profile(enum, profile.edges(enum, "category")).counts == (20, 20, 0, 0)
    truth = pl.Series([True, False, None])
    assert profile.profile(truth, profile.edges(truth, "number")).counts == (0, 1, 1, 0, 1)


def test_groups_are_profiled_as_if_alone() -> None:
    values, groups = numbers(1, 2, None, 4, 5, 6), np.array([0, 2, 2, 0, 2, 0])
    by = profile.edges(values, "number")
    found = profile.profiles(values, groups, 4, by)
    assert found[0] == profile.profile(numbers(1, 4, 6), by)
    assert found[2] == profile.profile(numbers(2, None, 5), by)
    assert found[1] == found[3] == profile.empty(by)


def test_profiles_of_other_edges_do_not_mix() -> None:
    with pytest.raises(Bug) as caught:
        profile.merge(Profile((1, 2)), Profile((1, 2, 3)))
    assert caught.value.code == "profiles-do-not-fit"


def test_every_count_has_a_label() -> None:
    for by in (
        profile.edges(numbers(1, 2, 3), "number"),
        profile.edges(numbers(None), "number"),
        Edges(kind="category", categories=("a", "b")),
    ):
        assert len(by.labels) == by.width
