"""The features benchmark compares who finds the same: by hand and ours, of the past and of now."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import features_online, features_turns
from benchmarks.features_turns import tally


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("readings")
    assert features_turns.make(place, 20_000).keys() == {"plain", "corrected"}
    return place


@pytest.mark.parametrize("name", ["plain", "plain-month", "corrected"])
def test_the_latest_row_is_what_it_is_by_hand(readings: Path, name: str) -> None:
    ours = tally(features_turns.latest_ours(readings, name))
    assert ours == tally(features_turns.latest_limit(readings, name))
    assert 0 < ours["x"][0] < ours["y"][0] <= 2_000


def test_twelve_windows_are_what_they_are_by_hand(readings: Path) -> None:
    ours = tally(features_turns.windows_ours(readings, "plain"))
    assert ours == tally(features_turns.windows_limit(readings, "plain"))
    assert len(ours) == 12


def test_ten_stored_values_and_arriving_events_are_what_they_are_by_hand(tmp_path: Path) -> None:
    features_online.fill(tmp_path, 5_000)
    with (
        features_online.ours(tmp_path / "look-ours.sqlite", ten=True) as (_, ours),
        features_online.bare(tmp_path / "look-limit.sqlite") as connection,
    ):
        by_hand = features_online.by_hand(connection, ten=True)
        for entity in range(500):
            assert ours(entity, features_online.END) == by_hand(entity, features_online.END)
    said = [features_online.update(tmp_path, who, 100, 500) for who in ("ours", "limit")]
    assert said[0]["found"] == said[1]["found"]
    assert said[0]["rate"] > 0
