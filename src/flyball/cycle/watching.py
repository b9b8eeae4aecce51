"""Watching: what the loop has seen of an app, folded from journal and outcomes, and what guards and monitors say to it.

All of it is derived: after a crash it is read anew. Here meet what is declared (guards, monitors), what is recorded (who
answers, since when) and what was measured (`watch`); nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

import polars as pl

from flyball._kernel import conditions
from flyball._kernel.conditions import Condition, Metric, Verdict
from flyball._kernel.errors import StateError
from flyball.cycle import artifacts, expectations
from flyball.cycle.arriving import Arriving
from flyball.cycle.session import Session
from flyball.data import dataset
from flyball.data.source import Source
from flyball.data.tables import KNOWN
from flyball.learn import reference as references
from flyball.learn.model import Model
from flyball.release import rollout
from flyball.release.rollout import Rollout
from flyball.serve.journal import Entry
from flyball.watch import drift, fresh, observed, quality
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
"""Journal entries that are folded at a time."""


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
        windows = [m.over for m in _metrics(session) if m.over is not None]
        keeps = max([LEAST, *(over + SPAN for over in windows)])
        self._live = {name: Live(keeps, model=name) for name in session.models}
        self.followed: dict[str, int] = {}
        self.arriving = Arriving()
        self._read: dict[str, int] = {}
        self._posted = 0
        self._calibrated: dict[tuple[str, Metric], Calibration] = {}
        self._found: dict[tuple[str, str, str], tuple[datetime, Observed]] = {}
        self._newests: dict[str, _Newest] = {}

    def refresh(self) -> None:
        """Fold what was answered, and what became known, since the last time."""
        page: list[Entry] = []
        for entry in self._session.journal.read(self._read):
            page.append(entry)
            self._read[entry.process] = entry.seq
            if len(page) == PAGE:
                self._fold(page)
                page = []
        self._fold(page)
        posted = list(self._session.outcomes.read(self._posted))
        if posted:
            self._posted = posted[-1].seq
            for live in self._live.values():
                live.settled(posted, self._session.clock.now())

    def _fold(self, page: Sequence[Entry]) -> None:
        now = self._session.clock.now()
        for live in self._live.values():
            live.answered(page, now)

    def live(self, model: str) -> Live:
        """What is known of one model's traffic."""
        return self._live[model]

    def guards(self, model: Model, state: Rollout) -> list[Verdict]:
        """The declared guards, judged on whoever is on the way; or, for a while after its promotion, on the champion."""
        policy, now, live = self._session.app.release, self._session.clock.now(), self._live[model.name]
        judged: list[Verdict] = []
        if state.candidate and state.entered is not None:
            whose, against, start = state.candidate, state.champion, state.started
            judged.append(quality.coverage(live, whose, state.entered, now))
        elif state.promoted is not None and state.previous and now < state.promoted + policy.patience:
            whose, against, start = state.champion, None, state.promoted
        else:
            return []
        for version in filter(None, (whose, against)):
            self._refer(model, version)
        for guard in policy.abort_unless:
            if guard.whom is None or against is not None:
                found, reason = quality.measure(live, guard, whose, champion=against, start=start, now=now)
                judged.append(conditions.judge(guard, found, reason=reason))
        return judged

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
