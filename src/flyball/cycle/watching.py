"""Watching: what the loop has seen of an app, folded from journal and outcomes, and what guards and monitors say to it.

All of it is derived: after a crash it is read anew. Here meet what is declared (guards, monitors), what is recorded (who
answers, since when) and what was measured (`watch`); nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import NamedTuple

import polars as pl

from flyball._kernel import conditions, facts
from flyball._kernel.conditions import Condition, Metric, Verdict
from flyball._kernel.errors import StateError
from flyball.cycle import artifacts, expectations, staged
from flyball.cycle.account import Accounted
from flyball.cycle.arriving import Arriving
from flyball.cycle.catching import Catching
from flyball.cycle.session import Session
from flyball.data import contract, dataset
from flyball.data.source import Source
from flyball.data.tables import KNOWN
from flyball.learn import model as models
from flyball.learn import reference as references
from flyball.learn.model import Model
from flyball.release import rollout
from flyball.release.rollout import Rollout
from flyball.serve.journal import Entry, Segment
from flyball.watch import drift, fresh, observed, quality, trials
from flyball.watch.drift import Calibration
from flyball.watch.fresh import Look
from flyball.watch.live import Live
from flyball.watch.monitor import Monitor
from flyball.watch.observed import Observed

VOLUME = "volume"
"""The monitor that every model has: whether as many questions come as usual."""

SPAN = timedelta(hours=24)
"""What `VOLUME` compares with the same span before."""

LEAST = timedelta(days=36)
"""What is kept at least: five weeks and a span, which `VOLUME` looks back at."""

PART = 168
"""A window is measured again after this part of it: every hour, where it is a week."""

PAGE = 20_000
"""Journal entries, and outcomes, that are folded at a time."""


class _Newest(NamedTuple):
    """What a look at a source's table found: of which batch, when, and its newest row."""

    batch: int
    at: datetime
    newest: datetime | None


class Watch:
    """The recent past of every model of an app.

    Args:
        session: whose journal and outcomes are folded, each from where the last `refresh` ended.

    Attributes:
        followed: table -> the batch up to which the online features were seen to follow it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._live = {model.name: _lately(model, looks_back(session)) for model in session.app.models}
        self.followed: dict[str, int] = {}
        self.arriving = Arriving()
        self._read: dict[str, int] | None = None
        self._posted = 0
        self._whole = True
        self._calibrated: dict[tuple[str, Metric], Calibration] = {}
        self._found: dict[tuple[str, str, str], tuple[datetime, Observed]] = {}
        self._newests: dict[str, _Newest] = {}

    def refresh(self) -> None:
        """Fold what was answered, and what became known, since the last time."""
        page: list[Entry] = []
        self._whole = False
        self._compare()
        anew = Catching(self._session.outcomes, self._live.values()) if self._read is None and self._tested else None
        if self._read is None:
            self._read = _long_over(self._session)
        for entry in self._session.journal.read(self._read):
            page.append(entry)
            self._read[entry.process] = entry.seq
            if len(page) == PAGE:
                self._fold(page, anew)
                page = []
        self._fold(page, anew)
        told = self._session.outcomes.read(self._posted)
        while posted := list(islice(told, PAGE)):
            self._posted = posted[-1].seq
            for live in self._live.values():
                live.settled(posted, self._session.clock.now())
        self._whole = True

    @property
    def _tested(self) -> bool:
        """Whether any model is in an A/B test."""
        return any(live.arms is not None for live in self._live.values())

    def _compare(self) -> None:
        """Before anything is folded: whoever is in an A/B test has to see all of it."""
        for model in self._session.app.models:
            state = rollout.now(self._session.facts, self._session.app.name, model.name)
            if state.trial is not None:
                for version in filter(None, (state.candidate, state.champion, state.previous)):
                    self._refer(model, version)
            trials.follow(self._live[model.name], state, self._session.clock.now())

    def anew(self) -> Watch:
        """Who looks after a pass that failed: with what was folded, which takes long to fold again, unless half of it was."""
        other = Watch(self._session)
        if self._whole:
            other._live, other._read, other._posted = self._live, self._read, self._posted
        return other

    def _fold(self, page: Sequence[Entry], anew: Catching | None) -> None:
        now = self._session.clock.now()
        for live in self._live.values():
            live.answered(page, now)
        if anew is not None:
            anew.beside(page)

    def live(self, model: str) -> Live:
        """What is known of one model's traffic."""
        return self._live[model]

    def guards(self, model: Model, state: Rollout) -> list[Verdict]:
        """What is said of whoever is on the way; or, for a while after its promotion, of the champion: see `staged`."""
        for version in filter(None, (state.candidate, state.champion)):
            self._refer(model, version)
        now = self._session.clock.now()
        return list(staged.verdicts(self._session, model, self._live[model.name], state, now))

    def monitors(self, model: Model) -> list[Observed]:
        """Every declared monitor, and the volume, as of now."""
        state = rollout.now(self._session.facts, self._session.app.name, model.name)
        if not state.champion:
            return []
        for name in self._live[model.name].versions():
            self._refer(model, name)
        self._refer(model, state.champion)
        found = [
            self._again(
                (model.name, m.name, state.champion), _over(m), partial(self._monitor, model, m, state.champion)
            )
            for m in self._session.app.monitors
        ]
        volume = partial(self._volume, model, state.champion)
        return [*found, self._again((model.name, VOLUME, state.champion), SPAN, volume)]

    def _again(self, which: tuple[str, str, str], over: timedelta, measure: Callable[[], Observed]) -> Observed:
        """Measure it, unless that was done less than a `PART` of its window ago: what little is new could not change it."""
        now = self._session.clock.now()
        known = self._found.get(which)
        if known is None or now - known[0] >= over / PART:
            known = (now, measure())
            self._found[which] = known
        return known[1]

    def sources(self) -> list[Observed]:
        """Every source that was declared to be fresh within some time, and every table that something is expected of."""
        now = self._session.clock.now()
        found: list[Observed] = []
        for source in self._session.app.sources:
            if (within := source.fresh_within) is None:
                continue
            batch = dataset.latest(self._session.tables, source.contract).batch
            known = self._newests.get(source.name)
            # Without a new batch a row can be news only because its known time came.
            if known is None or known.batch != batch or now - known.at >= within / PART:
                known = self._newests[source.name] = _Newest(batch, now, self._newest(source, now))
            look = fresh.freshness(known.newest, within, now)
            found.append(_looked(f"fresh {source.name}", "", look, within))
        return found + expectations.watched(self._session)

    def _monitor(self, model: Model, monitor: Monitor, champion: str) -> Observed:
        watched, now, live = monitor.watches, self._session.clock.now(), self._live[model.name]
        if isinstance(watched, Condition) and watched.metric.name not in ("psi", "js"):
            found, reason = quality.measure(live, watched, champion, now=now)
            return observed.observed(monitor.name, champion, conditions.judge(watched, found, reason=reason))
        if isinstance(watched, Condition):
            found, reason = drift.measure(live, champion, watched.metric, now)
            return observed.observed(monitor.name, champion, conditions.judge(watched, found, reason=reason))
        limits = self._limits(model, watched, champion)
        if limits.threshold is None:
            return Observed(monitor=monitor.name, state="blind", version=champion, reason=limits.reason)
        found, reason = drift.measure(live, champion, watched, now, limits.limits)
        return observed.observed(
            monitor.name, champion, conditions.judge(watched <= limits.threshold, found, reason=reason)
        )

    def _limits(self, model: Model, metric: Metric, version: str) -> Calibration:
        """The limits of a monitor without a threshold, from the history of the version that answers; found once."""
        key = (version, metric)
        if key not in self._calibrated:
            budget, known = self._session.app.false_alarms, self._live[model.name].references.get(version)
            shared = [m for m in self._session.app.monitors if isinstance(m.watches, Metric)]
            if budget is None or known is None:
                return Calibration(reason=f"{version} has no reference")
            self._calibrated[key] = drift.calibrate(known, metric, budget, len(shared))
        return self._calibrated[key]

    def _volume(self, model: Model, champion: str) -> Observed:
        live, now = self._live[model.name], self._session.clock.now()
        last = observed.rows(self._session.facts, self._session.app.name, model.name).get(VOLUME)
        before = last.last.state if last is not None else "blind"
        look = fresh.volume(live.asked(now - LEAST, now), SPAN, live.since(), now, before)
        return _looked(VOLUME, champion, look, None)

    def _refer(self, model: Model, version: str) -> None:
        """Make the reference of a version known, if it has one that can be read."""
        live = self._live[model.name]
        if version in live.references:
            return
        try:
            manifest = artifacts.load_manifest(self._session, version)
            if references.ARTIFACT in manifest.artifacts:
                data = self._session.blobs.get(manifest.artifacts[references.ARTIFACT])
                live.refer(version, references.from_bytes(data))
        except StateError:
            return  # a version that cannot be trusted is told as one by `status`; its monitors are blind

    def _newest(self, source: Source, now: datetime) -> datetime | None:
        """The greatest known time before now of the rows that a source's table holds."""
        rows = dataset.read(
            self._session.tables, source.contract, dataset.latest(self._session.tables, source.contract)
        )
        newest: datetime | None = rows.filter(pl.col(KNOWN) < now).select(pl.col(KNOWN).max()).collect().item()
        return newest


def looks_back(session: Session) -> timedelta:
    """How far back monitors, guards and A/B tests look at most; a test also while something else holds its stage."""
    policy, windows = session.app.release, [m.over for m in _metrics(session) if m.over is not None]
    windows += [stage.test.ends + policy.patience for stage in policy.stages if stage.test is not None]
    return max([LEAST, *(over + SPAN for over in windows)])


def _long_over(session: Session) -> dict[str, int]:
    """Of each process the last answer that is too old to be looked at: with years of them, a loop must not begin blind."""
    found = dict[str, int]()
    horizon = session.clock.now() - looks_back(session)
    for fact in session.facts.read(kinds=frozenset({facts.kind(Accounted)}), app=session.app.name):
        if fact.at >= horizon:
            break
        said = facts.decode(fact, Accounted)
        segment = Segment.parse(said.segment)
        if segment is not None:  # it was over when its account was written, and so was asked earlier
            last = segment.first + said.recorded + said.refused + said.unlogged + said.unknown - 1
            found[segment.process] = max(last, found.get(segment.process, 0))
    return found


def _lately(model: Model, keeps: timedelta) -> Live:
    """The recent past of one model, of which nothing is known yet."""
    spec = contract.spec(model.question)
    live = Live(keeps, model=model.name, entity=() if spec.entity == spec.key else spec.entity)
    live.bounds, live.task = staged.bounds(model), models.task(model)
    return live


def _metrics(session: Session) -> list[Metric]:
    """Everything that is measured on live traffic."""
    watched = [m.watches for m in session.app.monitors]
    declared = [*watched, *session.app.release.abort_unless]
    return [each.metric if isinstance(each, Condition) else each for each in declared]


def _over(monitor: Monitor) -> timedelta:
    metric = monitor.watches.metric if isinstance(monitor.watches, Condition) else monitor.watches
    return metric.over or timedelta()


def _looked(monitor: str, version: str, look: Look, within: timedelta | None) -> Observed:
    return Observed(
        monitor=monitor,
        state=look.state,
        version=version,
        estimate=look.estimate,
        threshold=within.total_seconds() if within is not None else None,
        reason=look.reason,
    )
