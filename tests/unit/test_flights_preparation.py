"""The flights example's preparation, cell by cell: clocks, midnights, summer time, missing cells, contradictions."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from examples.flights import preparation

DEPARTURE = {
    "year": "2013",
    "month": "1",
    "day": "1",
    "dep_time": "517",
    "sched_dep_time": "515",
    "dep_delay": "2",
    "arr_time": "830",
    "sched_arr_time": "819",
    "arr_delay": "11",
    "carrier": "UA",
    "flight": "1545",
    "tailnum": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "air_time": "227",
    "distance": "1400",
    "hour": "5",
    "minute": "15",
    "time_hour": "2013-01-01T10:00:00Z",
}
"""The first line of the file."""

CANCELLED = dict.fromkeys(("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"))

OBSERVATION = {
    "origin": "EWR",
    "year": "2013",
    "month": "1",
    "day": "1",
    "hour": "1",
    "temp": "39.02",
    "dewp": "26.06",
    "humid": "59.37",
    "wind_dir": "270",
    "wind_speed": "10.357019999999999",
    "wind_gust": None,
    "precip": "0",
    "pressure": "1012",
    "visib": "10",
    "time_hour": "2013-01-01T06:00:00Z",
}


def raw(*rows: dict[str, str | None]) -> pl.LazyFrame:
    """What the CSV reader gives."""
    schema = dict.fromkeys(rows[0], pl.String)
    return pl.DataFrame(list(rows), schema=schema).with_row_index("_line", 1).cast({"_line": pl.Int64}).lazy()


def departure(**cells: str | None) -> dict[str, object]:
    frame = preparation.departures(raw({**DEPARTURE, **cells})).collect()
    return frame.row(0, named=True)


def observation(**cells: str | None) -> dict[str, object]:
    return preparation.observations(raw({**OBSERVATION, **cells})).collect().row(0, named=True)


def utc(month: int, day: int, hour: int, minute: int = 0, year: int = 2013) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def test_the_first_line_of_the_file() -> None:
    assert departure() == {
        "_line": 1,
        "flight_id": "2013-01-01/UA1545/EWR/0515",
        "scheduled": utc(1, 1, 10, 15),
        "origin": "EWR",
        "dest": "IAH",
        "carrier": "UA",
        "flight": "1545",
        "tailnum": "N14228",
        "distance": "1400",
        "settled": utc(1, 1, 14, 30),  # 8:30 in Houston
        "late": False,
    }


def test_types_hold_without_rows() -> None:
    instant = pl.Datetime("us", "UTC")
    flights = preparation.departures(raw(DEPARTURE).limit(0)).collect()
    assert flights.schema == {
        "_line": pl.Int64(),
        "flight_id": pl.String(),
        "scheduled": instant,
        **dict.fromkeys(("origin", "dest", "carrier", "flight", "tailnum", "distance"), pl.String()),
        "settled": instant,
        "late": pl.Boolean(),
    }
    weather = preparation.observations(raw(OBSERVATION).limit(0)).collect()
    assert weather.schema["observed"] == instant
    assert weather.schema["_line"] == pl.Int64()


@pytest.mark.parametrize(
    ("delay", "arrival", "late"),
    [("-9", "810", False), ("14", "833", False), ("15", "834", True), ("101", "1000", True)],
)
def test_late_begins_at_fifteen_minutes(delay: str, arrival: str, late: bool) -> None:
    row = departure(arr_delay=delay, arr_time=arrival)
    assert row["late"] is late
    assert row["scheduled"] is not None


ARRIVALS = [
    pytest.param(
        {"sched_dep_time": "2030", "time_hour": "2013-01-02T01:00:00Z", "minute": "30", "dest": "BOS"}
        | {"sched_arr_time": "2150", "arr_delay": "130", "arr_time": "2400", "dep_delay": "120", "air_time": "60"},
        utc(1, 2, 5),
        id="2400 is the midnight that ends the day",
    ),
    pytest.param(
        {"sched_dep_time": "2030", "time_hour": "2013-01-02T01:00:00Z", "minute": "30", "dest": "BOS"}
        | {"sched_arr_time": "2400", "arr_delay": "-10", "arr_time": "2350", "dep_delay": "0", "air_time": "60"},
        utc(1, 2, 4, 50),
        id="a timetable may say 2400 as well",
    ),
    pytest.param(
        {"sched_dep_time": "2359", "time_hour": "2013-01-02T04:00:00Z", "minute": "59", "dest": "PSE"}
        | {"sched_arr_time": "444", "arr_delay": "6", "arr_time": "450", "dep_delay": "0", "air_time": "190"},
        utc(1, 2, 8, 50),
        id="overnight, to an airport that airports.csv lacks",
    ),
    pytest.param(
        {"sched_dep_time": "2100", "time_hour": "2013-01-02T02:00:00Z", "minute": "0", "dest": "LAX"}
        | {"sched_arr_time": "15", "arr_delay": "0", "arr_time": "15", "dep_delay": "0", "air_time": "340"},
        utc(1, 2, 8, 15),
        id="overnight on the destination's clock",
    ),
    pytest.param(
        {"sched_dep_time": "2100", "time_hour": "2013-01-02T02:00:00Z", "minute": "0", "dest": "ORD"}
        | {"sched_arr_time": "2230", "arr_delay": "120", "arr_time": "30", "dep_delay": "120", "air_time": "110"},
        utc(1, 2, 6, 30),
        id="moved over midnight by its delay",
    ),
    pytest.param(
        {"sched_dep_time": "1000", "time_hour": "2013-01-01T15:00:00Z", "minute": "0", "dest": "HNL"}
        | {"sched_arr_time": "1530", "arr_delay": "1272", "arr_time": "1242", "dep_delay": "1301", "air_time": "580"},
        utc(1, 2, 22, 42),
        id="the longest delay, under a day",
    ),
    pytest.param(
        {"dest": "PHX", "sched_arr_time": "830", "arr_time": "841"} | {"air_time": "300"},
        utc(1, 1, 15, 41),
        id="Phoenix in winter",
    ),
    pytest.param(
        {"month": "7", "time_hour": "2013-07-01T09:00:00Z", "dest": "PHX", "sched_arr_time": "730", "arr_time": "741"}
        | {"air_time": "300"},
        utc(7, 1, 14, 41),
        id="Phoenix in summer keeps winter time",
    ),
    pytest.param(
        {"month": "3", "day": "9", "time_hour": "2013-03-10T04:00:00Z", "sched_dep_time": "2315", "dest": "MIA"}
        | {"sched_arr_time": "325", "arr_time": "336", "air_time": "150"},
        utc(3, 10, 7, 36),
        id="over the night that lacks an hour",
    ),
    pytest.param(
        {"month": "11", "day": "2", "time_hour": "2013-11-03T03:00:00Z", "sched_dep_time": "2315", "dest": "MIA"}
        | {"sched_arr_time": "119", "arr_time": "130", "air_time": "130"},
        utc(11, 3, 6, 30),
        id="an hour that comes twice is taken to be the later: never known too early",
    ),
]


@pytest.mark.parametrize(("cells", "settled"), ARRIVALS)
def test_settled_is_the_arrival_on_the_destinations_clock(cells: dict[str, str], settled: datetime) -> None:
    row = departure(**cells)
    assert row["settled"] == settled
    assert row["scheduled"] is not None


@pytest.mark.parametrize(
    ("cells", "scheduled"),
    [
        ({"month": "7", "time_hour": "2013-07-01T09:00:00Z"}, utc(7, 1, 9, 15)),
        ({"month": "3", "day": "10", "sched_dep_time": "115", "time_hour": "2013-03-10T06:00:00Z"}, utc(3, 10, 6, 15)),
        ({"month": "3", "day": "10", "sched_dep_time": "315", "time_hour": "2013-03-10T07:00:00Z"}, utc(3, 10, 7, 15)),
        ({"month": "3", "day": "10", "sched_dep_time": "215", "time_hour": "2013-03-10T07:00:00Z"}, None),
        ({"month": "11", "day": "3", "sched_dep_time": "115", "time_hour": "2013-11-03T05:00:00Z"}, utc(11, 3, 5, 15)),
        ({"month": "11", "day": "3", "sched_dep_time": "115", "time_hour": "2013-11-03T06:00:00Z"}, utc(11, 3, 6, 15)),
        ({"sched_dep_time": "2400", "minute": "0", "time_hour": "2013-01-02T05:00:00Z"}, utc(1, 2, 5)),
        ({"sched_dep_time": "0", "minute": "0", "time_hour": "2013-01-01T05:00:00Z"}, utc(1, 1, 5)),
    ],
)
def test_scheduled_is_new_york_time(cells: dict[str, str], scheduled: datetime | None) -> None:
    assert departure(**{**cells, **CANCELLED})["scheduled"] == scheduled


@pytest.mark.parametrize("left", [{}, {"dep_time": "517", "dep_delay": "2"}, {"dep_time": "517", "arr_time": "1830"}])
def test_cancelled_and_diverted_flights_are_void_and_kept(left: dict[str, str]) -> None:
    row = departure(**{**CANCELLED, **left})
    assert (row["settled"], row["late"]) == (None, None)
    assert row["scheduled"] == utc(1, 1, 10, 15)


@pytest.mark.parametrize(
    "cells",
    [
        {"time_hour": "2013-01-01T11:00:00Z"},
        {"time_hour": "yesterday"},
        {"time_hour": None},
        {"day": "2"},
        {"month": "2", "day": "30"},
        {"month": "13"},
        {"minute": "16"},
        {"minute": "9" * 20},
        {"sched_dep_time": "475"},
        {"sched_dep_time": "-515"},
        {"sched_arr_time": "2560"},
        {"sched_arr_time": "2401"},
        {"sched_arr_time": None},
        {"arr_delay": "soon"},
        {"arr_delay": "11.0"},
        {"arr_delay": "12"},
        {"arr_delay": "2147483647"},
        {"arr_time": "831"},
        {"arr_time": None},
        {"dep_delay": "60"},
        {"dep_delay": None},
        {"air_time": None},
        {"dest": "XXX"},
        {"dest": None},
        {"dest": "BOS"},
    ],
    ids=str,
)
def test_a_row_that_contradicts_itself_has_no_time_and_is_not_dropped(cells: dict[str, str | None]) -> None:
    row = departure(**cells)
    assert row["scheduled"] is None
    assert row["_line"] == 1


def test_an_arrival_at_a_time_that_was_skipped_contradicts_itself() -> None:
    cells = {"month": "3", "day": "9", "sched_dep_time": "2145", "minute": "45", "time_hour": "2013-03-10T02:00:00Z"}
    landed = {"dest": "PBI", "sched_arr_time": "34", "arr_delay": "89", "dep_delay": "81", "air_time": "141"}
    row = departure(**cells, **landed, arr_time="203")
    assert (row["scheduled"], row["settled"]) == (None, None)


def test_the_timetable_is_the_same_whatever_came_of_the_flight() -> None:
    before, after = departure(**CANCELLED), departure()
    assert {k: v for k, v in before.items() if k not in ("settled", "late")} == {
        k: v for k, v in after.items() if k not in ("settled", "late")
    }


def test_cells_that_need_no_work_pass_as_they_are() -> None:
    row = departure(distance="far", carrier="TOOLONG", tailnum=None, origin="??")
    assert (row["distance"], row["carrier"], row["tailnum"], row["origin"]) == ("far", "TOOLONG", None, "??")


def test_lines_stay_in_order() -> None:
    frame = preparation.departures(raw(DEPARTURE, {**DEPARTURE, "dest": "XXX"}, {**DEPARTURE, "dest": "LGA"})).collect()
    assert frame["_line"].to_list() == [1, 2, 3]


def test_an_observation_is_known_when_its_hour_is_over() -> None:
    row = observation()
    assert row["observed"] == utc(1, 1, 7)
    assert (row["wind_speed"], row["visibility"], row["wind_gust"]) == ("10.357019999999999", "10", None)
    assert list(row) == [
        *("_line", "origin", "observed", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"),
        *("precip", "pressure", "visibility"),
    ]


def test_both_hours_of_the_autumn_night_are_kept_apart() -> None:
    night = {"month": "11", "day": "3", "hour": "1"}
    assert observation(**night, time_hour="2013-11-03T05:00:00Z")["observed"] == utc(11, 3, 6)
    assert observation(**night, time_hour="2013-11-03T06:00:00Z")["observed"] == utc(11, 3, 7)


@pytest.mark.parametrize("cells", [{"hour": "2"}, {"hour": None}, {"day": "31"}, {"time_hour": "noon"}], ids=str)
def test_an_observation_that_contradicts_itself_has_no_time(cells: dict[str, str | None]) -> None:
    assert observation(**cells)["observed"] is None


def test_an_impossible_wind_passes_for_the_contract_to_refuse() -> None:
    assert observation(wind_speed="1048.36058")["wind_speed"] == "1048.36058"


@pytest.mark.parametrize(("year", "built"), [("1999", utc(1, 1, 0, year=1999)), (None, None), ("0", None)])
def test_a_plane_is_known_from_its_year_on(year: str | None, built: datetime | None) -> None:
    """One without a year, or of a year that never was, has no time: the contract refuses it."""
    found = preparation.planes(raw({"tailnum": "N14228", "year": year, "speed": None})).collect()
    assert found.rows(named=True) == [{"_line": 1, "tailnum": "N14228", "year": year, "built": built}]
