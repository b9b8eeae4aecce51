"""Random histories of three contracts, and questions about them: late, corrected and repeated rows, ties, nulls.

`Reading` has no outcomes, and is keyed by entity and event time. `Trip` has outcomes and a key of its own; corrections
leave its time and entities alone. Corrections of a `Job` move it to other times and other teams.

Moments are a few microseconds apart, the least there is, so that ties are common and borders exact.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dataframely as dy
import polars as pl
from hypothesis import strategies as st

from flyball.data import contract
from flyball.data.contract import Contract, before, event_time, outcome, outcome_time
from flyball.learn.features import meaning, notation
from flyball.learn.features.declare import FeatureSet, Latest, Window
from flyball.learn.model import Model
from tests.oracles import point_in_time
from tests.oracles.point_in_time import Row


def ticks(n: int) -> timedelta:
    return timedelta(microseconds=n)


START = datetime(2013, 1, 1, tzinfo=UTC)
PLACES, TEAMS = ["a", "b"], ["red", "blue", None]
NUMBERS = [None, 0.1, -2.5, 2.0**-41, 0.3, 3.0, 1e10, float("nan"), float("inf")]


class Reading(Contract):
    place = dy.String(primary_key=True)
    seen = event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    level = dy.Float64(nullable=True)
    kind = dy.Enum(["x", "y"], nullable=True)


class Trip(Contract):
    trip = dy.Int64(primary_key=True)
    leg = dy.String(primary_key=True)
    leaves = event_time(dy.Datetime(time_zone="UTC"), known=before(ticks(4)))
    place = dy.Enum(PLACES)
    team = dy.String(nullable=True)
    miles = dy.Int32(nullable=True)
    arrived = outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=ticks(9))
    late = outcome(dy.Bool(nullable=True))
    delay = outcome(dy.Float64(nullable=True))


class Job(Contract):
    job = dy.String(primary_key=True)
    due = event_time(dy.Datetime(time_zone="UTC"), known=before(ticks(3)))
    team = dy.String(nullable=True)
    size = dy.Float64(nullable=True)
    done = outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    cost = outcome(dy.Int64(nullable=True))


features = notation.features
latest = notation.latest
window = notation.window


def far_from(frame: pl.DataFrame) -> pl.Series:
    """A plain function over a frame."""
    return pl.Series([None if m is None else float(m) * 1.5 for m in frame["miles"]], dtype=pl.Float64)


ABOUT_TRIPS = features(
    Trip.miles,
    Trip.place,
    far=Trip.miles.col > 2,
    tick=Trip.leaves.col.dt.microsecond() + Trip.miles.col,
    reading=latest(Reading, by=Trip.place, max_age=ticks(5)),
    newest=latest(Reading, by=Trip.place, columns=[Reading.level]),
    trip=latest(Trip, by=Trip.team, columns=[Trip.miles, Trip.late, Trip.delay]),
    job=latest(Job, by=Trip.team, columns=[Job.size, Job.cost]),
    late_rate=window(Trip, Trip.late.col.mean(), by=Trip.team, over=[ticks(3), ticks(8)]),
    delayed=window(Trip, Trip.delay.col.sum(), by=Trip.place, over=ticks(6), where=Trip.late.col),
    trips=window(Trip, pl.len(), by=Trip.team, over=ticks(6)),
    levels=window(Reading, Reading.level.col.mean(), by=Trip.place, over=[ticks(4), ticks(60)]),
    costs=window(Job, Job.cost.col.sum(), by=Trip.team, over=ticks(7)),
    sizes=window(Job, Job.size.col.count(), by=Trip.team, over=ticks(7)),
    called=notation.function(far_from, Trip.miles, returns=pl.Float64),
    both=window(Trip, Trip.delay.col.mean(), by=[Trip.team, Trip.place], over=ticks(9)),
    other=latest(Trip, by=[(Trip.place, Trip.place), Trip.team], columns=[Trip.miles]),
    week_old=window(Trip, Trip.late.col.mean(), by=Trip.team, over=[ticks(4), ticks(9)], gap=ticks(3)),
    spread=window(Trip, Trip.delay.col.std(), by=Trip.place, over=[ticks(6), ticks(20)]),
    lowest=window(Trip, Trip.delay.col.min(), by=Trip.place, over=ticks(9)),
    highest=window(Reading, Reading.level.col.max(), by=Trip.place, over=ticks(9), gap=ticks(2)),
    middle=window(Reading, Reading.level.col.median(), by=Trip.place, over=[ticks(7), ticks(30)]),
    upper=window(Trip, Trip.delay.col.quantile(0.7), by=Trip.place, over=ticks(12)),
    kinds=window(Reading, Reading.kind.col.n_unique(), by=Trip.place, over=ticks(12)),
    teams=window(Job, Job.size.col.n_unique(), by=Trip.team, over=ticks(12)),
    ago=window(Trip, notation.since_last(), by=Trip.team, over=[ticks(3), ticks(30)]),
    late_ago=window(Trip, notation.since_last(), by=Trip.place, over=ticks(30), where=Trip.late.col, gap=ticks(2)),
    slope=window(Trip, notation.trend(Trip.delay.col), by=Trip.place, over=[ticks(9), ticks(30)]),
)
ABOUT_JOBS = features(
    Job.size,
    last=latest(Job, by=Job.team),
    settled=latest(Job, by=Job.team, columns=[Job.cost], max_age=ticks(4)),
    mean_cost=window(Job, Job.cost.col.mean(), by=Job.team, over=[ticks(2), ticks(9)]),
    sum_size=window(Job, Job.size.col.sum(), by=Job.team, over=ticks(5)),
    var_cost=window(Job, Job.cost.col.var(ddof=0), by=Job.team, over=ticks(12)),
    low=window(Job, Job.cost.col.quantile(0.3, interpolation="linear"), by=Job.team, over=ticks(12)),
    distinct=window(Job, Job.team.col.n_unique(), by=Job.team, over=ticks(12)),
    jobs_ago=window(Job, notation.since_last(), by=Job.team, over=[ticks(5), ticks(40)], gap=ticks(1)),
    growth=window(Job, notation.trend(Job.cost.col), by=Job.team, over=ticks(12), gap=ticks(1)),
    trip=latest(Trip, by=Job.team, columns=[Trip.miles, Trip.late]),
)
VALUES: dict[str, Callable[[Row], Any]] = {
    "late_rate": lambda r: r["late"],
    "delayed": lambda r: r["delay"] if r["late"] else None,
    "trips": lambda r: True,
    "levels": lambda r: r["level"],
    "costs": lambda r: r["cost"],
    "sizes": lambda r: r["size"],
    "mean_cost": lambda r: r["cost"],
    "sum_size": lambda r: r["size"],
    "both": lambda r: r["delay"],
    "week_old": lambda r: r["late"],
    "spread": lambda r: r["delay"],
    "lowest": lambda r: r["delay"],
    "highest": lambda r: r["level"],
    "middle": lambda r: r["level"],
    "upper": lambda r: r["delay"],
    "kinds": lambda r: r["kind"],
    "teams": lambda r: r["size"],
    "ago": lambda r: True,
    "late_ago": lambda r: r["late"] or None,
    "slope": lambda r: r["delay"],
    "var_cost": lambda r: r["cost"],
    "low": lambda r: r["cost"],
    "distinct": lambda r: r["team"],
    "jobs_ago": lambda r: True,
    "growth": lambda r: r["cost"],
}
"""What each window adds up, in Python."""


@dataclass(frozen=True)
class History:
    """Observation rows by contract name, and questions with their `_asked`."""

    rows: dict[str, list[dict[str, Any]]]
    trips: list[dict[str, Any]]
    jobs: list[dict[str, Any]]

    def shuffled(self, seed: int) -> History:
        """The same, with the rows of each table in another order."""
        dice = random.Random(seed)
        return replace(self, rows={name: dice.sample(rows, len(rows)) for name, rows in self.rows.items()})

    def tables(self, upto: int | None = None) -> dict[str, pl.LazyFrame]:
        """Observation frames, of batches up to `upto`."""
        kept = {n: [r for r in rows if upto is None or r["_batch"] <= upto] for n, rows in self.rows.items()}
        return {c.__name__: frame(c, kept[c.__name__]).lazy() for c in (Reading, Trip, Job)}


def at(tick: int) -> datetime:
    return START + ticks(tick)


def frame(table: type[Contract], rows: Sequence[Row]) -> pl.DataFrame:
    """An observation frame."""
    spec = contract.spec(table)
    moment = pl.Datetime("us", "UTC")
    schema = {**spec.dtypes, "_batch": pl.Int64, "_known": moment, "_outcome_known": moment}
    wanted = {n: t for n, t in schema.items() if n in meaning.columns(spec)}
    return pl.DataFrame([{n: r[n] for n in wanted} for r in rows], schema=wanted)


def asking(question: type[Contract], questions: Sequence[Row]) -> pl.DataFrame:
    """A frame of questions."""
    dtypes = {c.name: c.dtype for c in contract.spec(question).request}
    return pl.DataFrame(list(questions), schema={**dtypes, "_asked": pl.Datetime("us", "UTC")})


def _observed(
    spec: contract.Spec, drawn: Sequence[tuple[Any, ...]], make: Callable[..., dict[str, Any]], history: int
) -> list[dict[str, Any]]:
    """Rows with their batches and known times: the first `history` batches hold history, the others come late."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    batch = 1
    for next_batch, *rest in drawn:
        batch += next_batch
        row = make(*rest)
        declared, ends = row[spec.event_time] - spec.known_before, row.get(spec.outcome_time or "")
        ingested = at(2 * batch) if batch > history else at(-1000)
        row |= {"_batch": batch, "_known": max(declared, ingested)}
        row |= {"_outcome_known": None if ends is None else max(ends, ingested)}
        rows[(batch, *(row[k] for k in spec.key))] = row  # a batch holds each key once
    return list(rows.values())


def _reading(place: int, tick: int, number: int, kind: int) -> dict[str, Any]:
    return {"place": PLACES[place], "seen": at(tick), "level": NUMBERS[number], "kind": ["x", "y", None][kind]}


def _trip(trip: int, leg: int, arrived: int, miles: int, late: bool, number: int) -> dict[str, Any]:
    leaves = 2 + (trip * 5 + leg * 3) % 11
    settles = arrived < 14
    return {
        "trip": trip - 1,
        "leg": ["p", "q\0"][leg],
        "leaves": at(leaves),
        "place": PLACES[trip % 2],
        "team": TEAMS[(trip + leg) % 3],
        "miles": miles or None,
        "arrived": at(leaves - 6 + arrived) if settles else None,
        "late": late if settles else None,
        "delay": NUMBERS[number] if settles else None,
    }


def _job(job: int, due: int, team: int, number: int, done: int, cost: int) -> dict[str, Any]:
    return {
        "job": f"j{job}",
        "due": at(due),
        "team": TEAMS[team],
        "size": NUMBERS[number],
        "done": at(due + done) if done < 8 else None,
        "cost": cost * 10**17 if done < 8 and cost < 9 else None,
    }


def _up_to(*greatest: int) -> list[st.SearchStrategy[int]]:
    return [st.integers(0, n) for n in greatest]


def _history(readings: Any, trips: Any, jobs: Any, history: int, asked: Any) -> History:
    rows = {
        spec.name: _observed(spec, drawn, make, history)
        for spec, drawn, make in (
            (contract.spec(Reading), readings, _reading),
            (contract.spec(Trip), trips, _trip),
            (contract.spec(Job), jobs, _job),
        )
    }
    about: dict[type[Contract], list[dict[str, Any]]] = {Trip: [], Job: []}
    for pick, after, tick, settled in asked:
        for question, made in (
            (Trip, _trip(pick % 4, pick % 2, 0, pick % 3, False, 0)),
            (Job, _job(pick % 4, tick, pick % 3, 0, 9, 0)),
        ):
            spec, theirs = contract.spec(question), rows[question.__name__]
            moments = [at(tick)]
            if theirs:  # at the very borders of what a row of the same entities has just become
                made = theirs[pick % len(theirs)]
                known = (made["_outcome_known"] if settled else None) or made["_known"]
                moments += [known, known + ticks(after)]
            # By the row itself, by a stranger with its entities, and by the row for another team.
            for changed in ({}, {spec.key[0]: 99 if question is Trip else "j99"}, {"team": TEAMS[pick % 3]}):
                for moment in moments:
                    about[question].append(
                        {n: v for n, v in (made | changed | {"_asked": moment}).items() if n in _REQUESTS[question]}
                    )
    return History(rows, about[Trip], about[Job])


_REQUESTS = {c: {"_asked", *(column.name for column in contract.spec(c).request)} for c in (Trip, Job)}
_LAST = len(NUMBERS) - 1

histories = st.builds(
    _history,
    st.lists(st.tuples(*_up_to(1, 1, 9, _LAST, 2)), max_size=10),
    st.lists(st.tuples(*_up_to(1, 3, 1, 16, 3), st.booleans(), st.integers(0, _LAST)), min_size=3, max_size=14),
    st.lists(st.tuples(*_up_to(1, 3, 6, 2, _LAST, 10, 9)), min_size=5, max_size=14),
    st.integers(0, 5),
    st.lists(st.tuples(*_up_to(13), st.integers(1, 9), st.integers(-2, 20), st.booleans()), min_size=4, max_size=8),
)
moved_back = _history(
    [],
    [],
    [(0, 0, 6, 0, 1, 9, 0), (1, 0, 2, 0, 2, 9, 0), (0, 1, 3, 0, 4, 9, 0)],
    0,
    [(1, after, 0, False) for after in (1, 2)],
)
"""A correction moves the latest row of a team to before another one, which is the latest from then on."""

tied = _history([], [], [(0, job, 5, 0, 1 + job, 9, 0) for job in range(4)], 5, [(0, 1, 0, False)])
"""Rows of one team and one batch are about the same time: only their keys tell them apart."""

settled_first = _history([], [(0, 3, 0, 0, 1, True, 1), (0, 2, 1, 10, 2, True, 1)], [], 5, [(0, 1, 2, False)])
"""The outcome of a trip has settled when another of its team is asked about, and its row is not known before that moment."""


def examined(
    model: Model, spec: contract.Spec, rows: dict[str, list[dict[str, Any]]], cutoff: datetime
) -> dict[str, list[dict[str, Any]]]:
    """Every question of the past by what came of it, by the oracle: its request, `_asked`, `_settled` and `_label`."""
    found: dict[str, list[dict[str, Any]]] = {end: [] for end in ("learned", "void", "unsettled", "unaskable")}
    keys: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows[spec.name]:
        if row["_known"] < cutoff:
            keys.setdefault(tuple(row[k] for k in spec.key), []).append(row)
    for versions in keys.values():
        asked = point_in_time.question(versions, spec.event_time, spec.known_before, model.asked.lead)
        last = max(versions, key=lambda r: (r["_known"], r["_batch"]))
        if asked is None:
            found["unaskable"].append({})
        elif asked[1] < cutoff:
            end = point_in_time.end(last, model.predicts.name, spec.event_time, spec.void_after, (asked[1], cutoff))
            outcome = {"_asked": asked[1], "_settled": last["_outcome_known"], "_label": last[model.predicts.name]}
            found[end].append({**asked[0], **outcome})
    return found


def expected(
    wanted: FeatureSet, question: type[Contract], asked: Row, rows: dict[str, list[dict[str, Any]]]
) -> list[Any]:
    """What `latest` and `window` features are for one question, by the oracle."""
    found: list[Any] = []
    moment, current = asked["_asked"], dict[type[Contract], list[Row]]()
    for table in wanted.tables():
        spec = contract.spec(table)
        current[table] = point_in_time.as_of(rows[spec.name], spec.key, sorted(spec.late), moment)
    for f in wanted.features:
        if not isinstance(f, Latest | Window):
            continue
        spec = contract.spec(f.table)
        entity = [asked[n] for n in f.by.question]
        own = [asked[k] for k in spec.key] if f.table is question else None
        theirs = [r for r in current[f.table] if None not in entity and entity == [r[n] for n in f.by.table]]
        seen = [r for r in theirs if [r[k] for k in spec.key] != own]
        if isinstance(f, Latest):
            best = point_in_time.latest(seen, spec.key, spec.event_time, moment, f.max_age)
            found += [best[c] if best else None for c in f.columns]
        else:
            found += [_window(f, over, seen, moment) for over in f.over]
    return found


def _window(f: Window, over: timedelta, seen: Sequence[Row], moment: datetime) -> Any:
    known, how = "_outcome_first" if f.on_outcome else "_known_first", f.aggregate
    span = (moment - f.gap - over, moment - f.gap)
    if how.how == "since":
        return point_in_time.since(seen, known, span, moment, VALUES[f.name])
    return point_in_time.window(seen, known, span, VALUES[f.name], (how.how, how.level, how.pick))
