"""From the three published files to the rows that the contracts describe: a function for each, text cells in, instants out.
The contracts of the two files that are only looked up stand here too; that of the question is the app's.

`raw` is what the CSV reader gives: every cell is text, missing ones are null, and `_line` counts the file's data lines.
Cells that need no work stay text: the contract casts them, and keeps a row that does not fit in quarantine.

Words. A *wall clock* is a local time without a zone. HHMM integers are wall clocks: 2400 is midnight, a departure is local
to New York and an arrival to its destination. An *instant* is a UTC time.

Refused: repair. A row whose cells contradict one another, or cannot be read, gets no `scheduled` (no `observed`, no `built`).
The contract needs one, so the row goes to quarantine whole, with its line, and nothing has guessed what it meant.
"""

from __future__ import annotations

from collections.abc import Callable

import dataframely as dy
import polars as pl

import flyball as fb

NEW_YORK = "America/New_York"

LATE = 15
"""Minutes behind the timetable, at the gate, from which a flight is late."""

AIRPORTS = {
    "America/Anchorage": "ANC",
    "America/Chicago": "AUS BHM BNA DFW DSM HOU IAH MCI MDW MEM MKE MSN MSP MSY OKC OMA ORD SAT STL TUL XNA",
    "America/Denver": "ABQ BZN DEN EGE HDN JAC MTJ SLC",
    "America/Los_Angeles": "BUR LAS LAX LGB OAK PDX PSP SAN SEA SFO SJC SMF SNA",
    "America/New_York": "ACK ALB ATL AVL BDL BGR BOS BTV BUF BWI CAE CAK CHO CHS CLE CLT CMH CRW CVG DAY DCA DTW EYW FLL"
    " GRR GSO GSP IAD ILM IND JAX LEX LGA MCO MHT MIA MVY MYR ORF PBI PHL PIT PVD PWM RDU RIC ROC RSW SAV SBN SDF SRQ SYR"
    " TPA TVC TYS",
    "America/Phoenix": "PHX",
    "America/Puerto_Rico": "BQN PSE SJU STT",
    "Pacific/Honolulu": "HNL",
}
"""Time zone -> destinations. airports.csv of the same package agrees, and lacks the four of Puerto Rico and the Virgin
Islands. It is a table here, not a second file, so that a preparation stays a function of its one source."""


class Weather(fb.Contract):
    """One hourly observation at one airport."""

    origin = dy.String(primary_key=True)
    observed = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    dewp = dy.Float64(nullable=True, min=-60, max=100, description="dew point, degrees Fahrenheit")
    wind_speed = dy.Float64(nullable=True, min=0, max=120, description="miles per hour")
    precip = dy.Float64(nullable=True, min=0, max=10, description="inches in the hour")
    pressure = dy.Float64(nullable=True, min=850, max=1100, description="millibars at sea level")
    visibility = dy.Float64(nullable=True, min=0, max=10, description="miles")


class Plane(fb.Contract):
    """One plane of the register; the 70 without a year of manufacture are refused."""

    tailnum = fb.personal(dy.String(primary_key=True))
    built = fb.event_time(dy.Datetime(time_zone="UTC"))
    year = dy.Int32(min=1903, max=2013, description="of manufacture")


def departures(raw: pl.LazyFrame) -> pl.LazyFrame:
    """One row per departure: what the timetable said, and what came of it.

    `settled` is when the plane stood at the gate: the timetable's arrival on the destination's wall clock, plus
    `arr_delay`. Departure plus `air_time` would leave out the taxiing, and so claim to know the outcome half an hour (5 to
    235 minutes) before anyone did. Cancelled and diverted flights have no `arr_delay`: both outcomes are null, void.

    A flight that landed contradicts itself if `arr_time` is another time than `arr_delay` gives, if it stood at the gate
    before it had flown, or if its zone is unknown or its clock skipped that time (B6 35 on 2013-03-10, at 2:03).

    Args:
        raw: the cells of flights.csv as text, and `_line`.

    Returns:
        `_line`; the timetable: `flight_id` (date/carrier and number/origin/HHMM), `scheduled` (UTC), and as text `origin`,
        `dest`, `carrier`, `flight`, `tailnum`, `distance` (miles); the outcomes: `settled` (UTC) and `late`.
    """
    zones = {airport: zone for zone, airports in AIRPORTS.items() for airport in airports.split()}
    landed = (_minute_of_day("arriving") == _clock("arr_time") % 1440) & (
        pl.col("settled") >= pl.col("timetable") + _minutes("dep_delay") + _minutes("air_time")
    )
    consistent = _shows("timetable", _clock("sched_dep_time")) & (pl.col("arr_delay").is_null() | landed)
    return (
        raw.with_columns(
            timetable=_instant("time_hour") + _minutes("minute"),
            zone=pl.col("dest").replace_strict(zones, default=None, return_dtype=pl.String),
        )
        .with_columns(leaving=_in_each_zone(lambda name: _wall_clock("timetable", name)))
        .with_columns(arriving=_next("leaving", _clock("sched_arr_time")) + _minutes("arr_delay"))
        .with_columns(settled=_in_each_zone(lambda name: _not_before("arriving", name)))
        .select(
            "_line",
            _flight_id().alias("flight_id"),
            pl.when(consistent).then("timetable").alias("scheduled"),
            *("origin", "dest", "carrier", "flight", "tailnum", "distance"),
            "settled",
            (_number("arr_delay") >= LATE).alias("late"),
        )
    )


def observations(raw: pl.LazyFrame) -> pl.LazyFrame:
    """One row per airport and hour: the weather as it was known at the end of that hour.

    The file labels a row with the hour in which it starts, but takes the maximum of all reports up to minute 51. So a row
    was known only as its hour ended, and `observed` is that moment: the label plus one hour. (The label itself would let a
    question see up to 51 minutes of its own future.)

    Args:
        raw: the cells of weather.csv as text, and `_line`.

    Returns:
        `_line`, `origin`, `observed` (UTC), and as text `temp`, `dewp` (Fahrenheit), `humid` (percent), `wind_dir` (degrees),
        `wind_speed`, `wind_gust` (miles per hour), `precip` (inches), `pressure` (millibars), `visibility` (miles).
    """
    return raw.with_columns(label=_instant("time_hour")).select(
        "_line",
        "origin",
        pl.when(_shows("label", 60 * _number("hour"))).then(pl.col("label") + pl.duration(hours=1)).alias("observed"),
        *("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure"),
        pl.col("visib").alias("visibility"),
    )


def planes(raw: pl.LazyFrame) -> pl.LazyFrame:
    """One row per plane of the register, which says the year of manufacture and no more: `built` is the start of that year.

    A plane without a year, or of one that cannot be, has no `built`.

    Args:
        raw: the cells of planes.csv as text, and `_line`.

    Returns:
        `_line`, `tailnum` and `year` (text), and `built` (UTC).
    """
    year = _number("year")
    made = pl.when(year.is_between(1903, 2013)).then(year)  # from the first flight to the register
    return raw.select(
        "_line", "tailnum", "year", pl.datetime(made, 1, 1, time_unit="us", time_zone="UTC").alias("built")
    )


def _number(column: str) -> pl.Expr:
    """The whole number in a cell; null where there is none."""
    return pl.col(column).cast(pl.Int32, strict=False)


def _minutes(column: str) -> pl.Expr:
    return pl.duration(minutes=_number(column))


def _clock(column: str) -> pl.Expr:
    """Minutes since midnight of an HHMM integer, 0 to 1440; null where no clock shows it."""
    hours, minutes = _number(column) // 100, _number(column) % 100
    total = 60 * hours + minutes
    return pl.when((minutes < 60) & total.is_between(0, 1440)).then(total)


def _minute_of_day(column: str) -> pl.Expr:
    return 60 * pl.col(column).dt.hour().cast(pl.Int32) + pl.col(column).dt.minute()


def _instant(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC", strict=False)


def _shows(instant: str, minutes: pl.Expr) -> pl.Expr:
    """Whether a clock in New York shows, at that instant, the date in year, month and day and that many minutes."""
    midnight = _date().str.to_datetime("%Y-%m-%d", time_unit="us", strict=False)
    return _wall_clock(instant, NEW_YORK) == midnight + pl.duration(minutes=minutes)


def _wall_clock(instant: str, zone: str) -> pl.Expr:
    return pl.col(instant).dt.convert_time_zone(zone).dt.replace_time_zone(None)


def _not_before(wall_clock: str, zone: str) -> pl.Expr:
    """The instant at which the clock shows this; the later one where summer time ends and it does so twice."""
    local = pl.col(wall_clock).dt.replace_time_zone(zone, ambiguous="latest", non_existent="null")
    return local.dt.convert_time_zone("UTC")


def _next(wall_clock: str, minutes: pl.Expr) -> pl.Expr:
    """The first time after `wall_clock` at which the clock shows `minutes`: flights overnight arrive on the next date."""
    same_day = pl.col(wall_clock).dt.truncate("1d") + pl.duration(minutes=minutes)
    return pl.when(same_day > pl.col(wall_clock)).then(same_day).otherwise(same_day + pl.duration(days=1))


def _in_each_zone(convert: Callable[[str], pl.Expr]) -> pl.Expr:
    """`convert(zone)` for the rows of each zone: Polars converts a whole column by one zone alone."""
    return pl.coalesce(pl.when(pl.col("zone") == zone).then(convert(zone)) for zone in AIRPORTS)


def _date() -> pl.Expr:
    return pl.concat_str("year", pl.col("month").str.zfill(2), pl.col("day").str.zfill(2), separator="-")


def _flight_id() -> pl.Expr:
    return pl.concat_str(
        _date(), pl.concat_str("carrier", "flight"), "origin", pl.col("sched_dep_time").str.zfill(4), separator="/"
    )
