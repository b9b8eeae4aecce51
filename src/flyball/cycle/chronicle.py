"""Chronicle: gather what became of a model, from facts, journal and outcomes; changes nothing.

What was decided is read from the facts. What was answered is read from the whole journal, as `watch.live` folds it, so that an
answer finds its outcome here by the very rule by which guards and monitors see it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from flyball._kernel import conditions, facts
from flyball._kernel.clock import EPOCH, from_micros, micros
from flyball._kernel.conditions import Condition
from flyball._kernel.facts import Said, Stored
from flyball.cycle import retrain
from flyball.cycle.retrain import Retrained, Retraining
from flyball.cycle.session import Session
from flyball.learn import model as models
from flyball.learn import reference as references
from flyball.learn.model import Model
from flyball.learn.quality import metrics
from flyball.learn.reference import Says
from flyball.learn.reports import report as reports
from flyball.release import rollout, version
from flyball.release.rollout import Aborted, Advanced, Promoted, RolledBack, Started
from flyball.serve.journal import Entry
from flyball.watch import report, settled
from flyball.watch.chronicle import (
    Chronicle,
    Count,
    Curve,
    Event,
    Point,
    Quality,
    Series,
    Span,
    Stage,
    Totals,
    Training,
    Way,
)
from flyball.watch.live import HOUR, OWN, Live
from flyball.watch.observed import OBSERVED, Observed

KEEPS = timedelta(days=36_500)
MOST = 3_000_000
"""Attempts, and outcomes, that are looked at: about a gigabyte."""

PAGE = 20_000
DAY = timedelta(days=1)

PERIODS = (1, 7, 28)
"""Days of one point of a quality curve: the shortest period that has enough settled answers."""
ENOUGH = 300
REPLICATES = 400
"""Draws behind the interval of one point: a curve shows many, and nothing is decided by them."""


def chronicle(session: Session, model: Model) -> Chronicle:
    """Everything that became of a model, up to now.

    Raises:
        StateError, AdapterError: what is stored cannot be read.
    """
    now = session.clock.now()
    state = rollout.now(session.facts, session.app.name, model.name)
    events = rollout.history(session.facts, session.app.name, model.name)
    live, unmatched = _folded(session, model)
    seen = _Seen(live, now)
    return Chronicle(
        app=session.app.name,
        model=model.name,
        at=now,
        champion=state.champion,
        since=state.since,
        epoch=state.epoch,
        paused=state.paused,
        held=state.held,
        spans=spans(events),
        ways=[seen.covered(way) for way in ways(events)],
        events=list(_told(events)),
        trainings=trainings(session, model),
        monitors=_monitors(session, model),
        quality=_quality(session, model, seen.frame),
        days=seen.days(),
        totals=seen.totals(unmatched, live.dropped),
    )


def write(session: Session, found: Chronicle) -> Path:
    """Write the report of a chronicle beside the state, for a person to open; returns the HTML file.

    Each file is replaced as a whole, and the page last: it needs none of the others.
    """
    folder = session.home / "reports" / "loop" / found.model
    folder.mkdir(parents=True, exist_ok=True)
    files = reports.files(report.render(found))
    for old in folder.glob("*.svg"):
        if old.name not in files:
            old.unlink()
    page = folder / "report.html"
    for name in sorted(files, key=page.name.__eq__):
        aside = folder / f"{name}.{os.getpid()}"
        aside.write_bytes(files[name])
        aside.replace(folder / name)
    return page


# What was decided


def spans(events: Sequence[tuple[datetime, Said]]) -> list[Span]:
    """Who was champion from when to when."""
    found: list[Span] = []

    def follows(span: Span, fell: str = "") -> None:
        if found:
            found[-1] = msgspec.structs.replace(found[-1], end=span.start, fell=fell)
        found.append(span)

    for at, said in events:
        if isinstance(said, Promoted):
            follows(Span(version=said.version, start=at, end=None, by=said.by, why=said.reason))
        elif isinstance(said, RolledBack):
            why = f"{said.version} was rolled back"
            follows(Span(version=said.to, start=at, end=None, by=said.by, why=why), said.reason)
    return found


def ways(events: Sequence[tuple[datetime, Said]]) -> list[Way]:
    """Which versions went through which stages, and how that ended."""
    found: list[Way] = []
    declared: tuple[rollout.Step, ...] = ()

    def over(at: datetime, ended: str, why: str, *more: Stage) -> None:
        *before, last = found[-1].stages
        stages = [*before, msgspec.structs.replace(last, end=at), *more]
        found[-1] = msgspec.structs.replace(found[-1], stages=stages, ended=ended, why=why)

    def stage(number: int, at: datetime) -> Stage:
        return Stage(name=declared[number].name, share=declared[number].share, start=at, end=None)

    for at, said in events:
        running = bool(found) and not found[-1].ended
        match said:
            case Started():
                declared = said.stages
                if running:
                    over(at, "aborted", f"given up for {said.version}")
                entered = [stage(0, at)]
                found.append(
                    Way(version=said.version, by=said.by, overridden=said.overridden, stages=entered, ended="", why="")
                )
            case Advanced() if running:
                over(at, "", "", stage(said.stage, at))
            case Promoted() if running:
                same = said.version == found[-1].version
                over(at, *(("promoted", said.reason) if same else ("aborted", f"given up for {said.version}")))
            case Aborted() | RolledBack() if running:
                over(at, "aborted", said.reason)
    return found


def _told(events: Iterable[tuple[datetime, Said]]) -> Iterator[Event]:
    declared: tuple[rollout.Step, ...] = ()
    for at, said in events:
        words = rollout.told(said)
        if isinstance(said, Started):
            declared = said.stages
        if isinstance(said, Advanced) and said.stage < len(declared):
            words = f"{said.version} enters {declared[said.stage]}"
        verdicts = said.verdicts if isinstance(said, Advanced | Promoted | Aborted | RolledBack) else ()
        yield Event(at=at, kind=facts.kind(said).removeprefix("release."), words=words, verdicts=list(verdicts))


def trainings(session: Session, model: Model) -> list[Training]:
    """Those that a trigger asked for, and the versions that were made because somebody applied."""
    made = version.versions(session.facts, session.app.name, model.name)
    found: list[Training] = []
    for fact in _about(session, model, retrain.TRAININGS.kinds):
        if fact.kind == facts.kind(Retraining):
            begun = facts.decode(fact, Retraining)
            found.append(Training(began=fact.at, ended=None, why=begun.reason, version="", decision=""))
        elif found:
            end = facts.decode(fact, Retrained)
            found[-1] = msgspec.structs.replace(found[-1], ended=fact.at, decision=end.decision, failed=end.failed)
    asked: set[str] = set()
    for k, each in enumerate(found):
        mine = [r for r in made if each.began <= r.registered and (each.ended is None or r.registered <= each.ended)]
        if mine:
            asked.add(mine[-1].version)
            found[k] = msgspec.structs.replace(each, version=mine[-1].version)
    found += [
        Training(began=r.registered, ended=r.registered, why="applied", version=r.version, decision=r.decision)
        for r in made
        if r.version not in asked
    ]
    return sorted(found, key=lambda each: each.began)


def _monitors(session: Session, model: Model) -> list[Series]:
    """What was written of each monitor, and of the sources, which concern every model."""
    watched = {m.name: str(m.watches) for m in session.app.monitors}
    found: dict[str, list[Point]] = {}
    for fact in session.facts.read(kinds=OBSERVED.kinds, app=session.app.name):
        if fact.model not in ("", model.name):
            continue
        said = facts.decode(fact, Observed)
        rest = {k: v for k, v in msgspec.structs.asdict(said).items() if k not in ("monitor", "before")}
        found.setdefault(said.monitor, []).append(Point(at=fact.at, **rest))
    return [Series(monitor=name, watches=watched.get(name, ""), points=points) for name, points in found.items()]


def _about(session: Session, model: Model, kinds: frozenset[str]) -> Iterator[Stored]:
    return (f for f in session.facts.read(kinds=kinds, app=session.app.name) if f.model == model.name)


# What was answered


def _folded(session: Session, model: Model) -> tuple[Live, int]:
    """The whole journal and all outcomes of a model, and how many targets of outcomes reach no question."""
    live = Live(KEEPS, model=model.name, most=MOST)
    posted = [p for p in session.outcomes.read() if p.model in ("", model.name)]
    live.settled(posted)
    # An outcome that names no model may be another model's: only where there is no other can it be missed here.
    mine = [p for p in posted if p.model or len(session.models) == 1]
    named = {p.prediction for p in mine if p.prediction}
    keys: dict[str, int] = {}
    for p in mine:
        if p.key:
            keys[p.key] = max(keys.get(p.key, 0), micros(p.settled))
    page: list[Entry] = []
    for entry in session.journal.read():
        if entry.model != model.name:
            continue
        named.discard(entry.id)
        if entry.key in keys and entry.asked < keys[entry.key]:
            del keys[entry.key]
        page.append(msgspec.structs.replace(entry, features={}, inputs={}))
        if len(page) == PAGE:
            live.answered(page)
            page = []
    live.answered(page)
    return live, len(named) + len(keys)


class _Seen:
    """All attempts with what is known of them now, to be counted."""

    def __init__(self, live: Live, now: datetime) -> None:
        # The end lies a moment on: what is asked and known at this very microsecond counts.
        self.frame = live.frame(None, EPOCH, now + timedelta(microseconds=1), now + timedelta(microseconds=1))
        self.left = self.frame.filter(pl.col("role") != "shadow", failed="")

    def days(self) -> list[Count]:
        """Attempts by day, version and role."""
        day = pl.from_epoch("asked", time_unit="us").dt.date().cast(pl.String)
        counted = (
            self.frame.group_by(day.alias("day"), "version", "role")
            .agg(attempts=pl.len(), failed=(pl.col("failed") != "").sum())
            .sort("day", "version", "role")
        )
        return [Count(**row) for row in counted.iter_rows(named=True)]

    def covered(self, way: Way) -> Way:
        """How many questions were asked during a rollout, and how many of them both versions computed."""
        end = pl.col("asked") < micros(way.end) if way.end is not None else pl.lit(value=True)
        asked = self.frame.filter(pl.col("asked") >= micros(way.start), end)
        questions = asked.filter(pl.col("role") != "shadow").select("asked", "key").unique()
        own = pl.col("role").is_in(OWN)
        theirs = asked.filter(own, pl.col("version") == way.version).select("asked", "key").unique()
        others = asked.filter(own, pl.col("version") != way.version).select("asked", "key").unique()
        both = theirs.join(others, on=("asked", "key")).join(questions, on=("asked", "key"))
        return msgspec.structs.replace(way, questions=questions.height, both=both.height)

    def totals(self, unmatched: int, dropped: int) -> Totals:
        """Everything, counted."""
        failures = self.frame.filter(pl.col("failed") != "")
        tried = self.frame.filter(pl.col("role") != "shadow").select("asked", "key").unique()
        failed = tried.join(self.left, on=("asked", "key"), how="anti").height
        codes = failures.group_by("failed").len().sort("failed")
        came = self.left.filter(pl.any_horizontal(pl.col("outcome", "label").is_not_null())).height
        void = self.left.filter(pl.col("void")).height
        return Totals(
            questions=self.left.height + failed,
            answered=self.left.height,
            failed=failed,
            attempts=self.frame.height,
            shadows=self.frame.height - self.left.height - failures.height,
            failures=failures.height,
            codes=dict(codes.iter_rows()),
            settled=came,
            void=void,
            pending=self.left.height - came - void,
            unmatched=unmatched,
            dropped=dropped,
        )


def _quality(session: Session, model: Model, frame: pl.DataFrame) -> list[Curve]:
    """The metric that the search optimises, and how well the model ranks, over time and by version."""
    task = models.task(model)
    wanted = {session.app.search.optimize.name: session.app.search.optimize}
    if task.truth:
        wanted[conditions.roc_auc.name] = conditions.roc_auc
    sound = pl.col("output").is_between(0, 1) if task.truth or task.classes else pl.col("output").is_finite()
    known = settled.known(frame.filter(pl.col("role").is_in(OWN), sound), task)
    if not known.height:
        return []
    asked = known["asked"].to_numpy()
    span = timedelta(microseconds=int(asked.max() - asked.min()))
    a_day = known.height / max(1.0, span / DAY)
    days = next((d for d in PERIODS if a_day * d >= ENOUGH), PERIODS[-1])
    points: dict[str, list[Quality]] = {name: [] for name in wanted}
    missed = 0
    period = (pl.col("asked") // (HOUR * 24 * days)).alias("period")
    for (number, name), rows in known.sort("asked", "key", "version").group_by(period, "version", maintain_order=True):
        found = _measured(tuple(wanted), rows, references.says(model))
        missed += 0 if any(found.values()) else rows.height
        start = from_micros(int(number) * HOUR * 24 * days)
        answered = rows.filter(pl.col("role") != "shadow").height
        for metric, value in found.items():
            if value is not None:
                end = start + days * DAY
                points[metric].append(
                    Quality(start=start, end=end, version=str(name), measured=value, answered=answered)
                )
    return [
        Curve(
            metric=name,
            better=metric.better,
            days=days,
            threshold=_threshold(session, name),
            points=points[name],
            unmeasured=missed,
        )
        for name, metric in wanted.items()
    ]


def _measured(names: tuple[str, ...], rows: pl.DataFrame, says: Says) -> dict[str, conditions.Measurement | None]:
    """The metrics of one version in one period; hours are redrawn, since what is asked together shares a cause."""
    draws = metrics.Draws(rows.height, replicates=REPLICATES, blocks=np.asarray(rows["asked"].to_numpy() // HOUR))
    outcome, answers = settled.outcome(rows, says.task), settled.scores(rows, says.task)
    return metrics.measure(names, outcome, answers, draws, settled.terms(rows, says))


def _threshold(session: Session, metric: str) -> float | None:
    """What a monitor asks of a metric."""
    asked = [m.watches for m in session.app.monitors if isinstance(m.watches, Condition)]
    return next((c.threshold for c in asked if c.metric.name == f"{metric}.live" and c.whom is None), None)
