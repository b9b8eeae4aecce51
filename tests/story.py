"""A month of a model, told by hand: what it decided, what it was asked, and what became known, in memory.

    day 0   lateness-1 is the first champion
    day 7   a training makes lateness-2: shadow, canary, and champion on day 9
    day 14  ada pushes lateness-3 past its gates; it ranks upside down, and is aborted on day 15
    day 18  ada promotes lateness-4 at once; on day 19 it is rolled back

Six questions an hour. Whoever is champion answers well; while there is a candidate, it computes every question too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import nan
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl

import flyball as fb
from flyball import days, hours, roc_auc
from flyball._kernel import ids
from flyball._kernel.clock import micros
from flyball._kernel.conditions import Measurement, Outcome, Verdict
from flyball._kernel.facts import Fact, Said
from flyball.adapters.memory.blobs import MemoryBlobs
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.journal import MemoryJournal
from flyball.adapters.memory.keys import MemorySigner
from flyball.adapters.memory.lease import MemoryLease
from flyball.adapters.memory.online import MemoryOnline
from flyball.adapters.memory.outcomes import MemoryOutcomes
from flyball.adapters.memory.routes import MemoryRoutes
from flyball.adapters.memory.sources import MemoryReader
from flyball.adapters.memory.tables import MemoryTables
from flyball.adapters.memory.vault import MemoryVault
from flyball.cycle.retrain import Retrained, Retraining
from flyball.cycle.session import Session
from flyball.release.rollout import Aborted, Advanced, Promoted, RolledBack, Started, Step
from flyball.release.version import Judged, Registered
from flyball.runtime.places import PROJECTIONS
from flyball.serve.auth import Keys
from flyball.serve.journal import Answer
from flyball.serve.outcomes import New
from flyball.watch.observed import Observed

START = datetime(2013, 7, 1, tzinfo=UTC)
LENGTH = 24
STAGES = (Step(name="shadow", share=0.0, seconds=86_400), Step(name="canary", share=0.5, seconds=86_400))


class Flight(fb.Contract):
    """What is asked about."""

    flight_id = dy.String(primary_key=True)
    scheduled = fb.event_time(dy.Datetime(time_zone="UTC"), known=fb.before(days(30)))
    origin = dy.String()
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    late = fb.outcome(dy.Bool(nullable=True))


def plain(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


FEATURES = fb.features(Flight.origin)


def lateness(knobs: fb.Params) -> object:
    return knobs


APP = fb.App(
    "flights",
    sources=[fb.files("flights.csv", prepare=plain, yields=Flight)],
    model=fb.model(FEATURES, predicts=Flight.late, asked=fb.before(Flight.scheduled, hours(2)))(lateness),
    search=fb.search(trials=1, optimize=fb.average_precision, split=fb.by_time(days(30))),
    monitors=[
        fb.Monitor("drift", fb.psi(FEATURES, over=days(7))),
        fb.Monitor("live quality", roc_auc.live(over=days(30)) >= 0.62),
    ],
    false_alarms=fb.at_most(1, per=days(30)),
)


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def opened(home: Path, clock: VirtualClock) -> Session:
    """A session whose every place is memory."""
    signer, journal = MemorySigner(), MemoryJournal(clock)
    return Session(
        app=APP,
        home=home,
        clock=clock,
        facts=MemoryFacts(clock, signer, PROJECTIONS),
        blobs=MemoryBlobs(),
        lease=MemoryLease(clock),
        signer=signer,
        tables=MemoryTables(),
        online=MemoryOnline(),
        reader=MemoryReader({}),
        routes=MemoryRoutes(),
        journals=lambda _: journal,
        outcomes=MemoryOutcomes(),
        vault=MemoryVault(),
        keys=Keys(lambda: (), clock),
        commit=lambda: "",
        holder="test",
    )


def failing(condition: str, estimate: float) -> Verdict:
    found = Measurement(estimate=estimate, low=estimate - 0.02, high=estimate + 0.02, n=144)
    return Verdict(condition=condition, outcome=Outcome.FAIL, measurement=found, threshold=0.62)


def decided() -> Iterator[tuple[float, list[Said]]]:
    """(day, what was recorded then)."""
    made = [
        Registered(version="lateness-1", manifest="a" * 64),
        Judged(version="lateness-1", decision="release", verdicts=[]),
    ]
    yield 0.0, [*made, Promoted(version="lateness-1", previous="", epoch=1, reason="passed its gates")]
    yield 7.0, [Retraining(reason="every 7 d", until=at(7))]
    yield 7.01, [Registered(version="lateness-2", manifest="b" * 64)]
    yield (
        7.02,
        [Judged(version="lateness-2", decision="release", verdicts=[]), Retrained(until=at(7), decision="release")],
    )
    yield 7.03, [Started(version="lateness-2", stages=STAGES, epoch=2, reason="passed its gates")]
    yield 8.03, [Advanced(version="lateness-2", stage=1, into=Step(name="canary", share=0.25, seconds=3600), epoch=3)]
    yield 9.03, [Promoted(version="lateness-2", previous="lateness-1", epoch=4, reason="passed every stage")]
    yield 13.9, [Registered(version="lateness-3", manifest="c" * 64)]
    yield 13.95, [Judged(version="lateness-3", decision="rejected", verdicts=[])]
    yield 14.0, [Started(version="lateness-3", stages=STAGES, epoch=5, reason="looks good", by="ada", overridden=True)]
    verdict = failing("roc_auc.live(over=2 d) >= 0.62", 0.31)
    yield 15.0, [Aborted(version="lateness-3", epoch=6, reason="failed in shadow: roc_auc", verdicts=(verdict,))]
    yield 17.0, [Retraining(reason="breach: drift", until=at(17))]
    yield 17.1, [Retrained(until=at(17), failed="disk-full")]
    yield 18.0, [Promoted(version="lateness-4", previous="lateness-2", epoch=7, reason="a hunch", by="ada")]
    yield 19.0, [RolledBack(version="lateness-4", to="lateness-2", epoch=8, reason="failed as champion: roc_auc")]


def seen(day: int) -> list[Observed]:
    """What the monitors found on a day."""
    if day < 2:
        return [Observed(monitor="live quality", state="blind", version="lateness-1", reason="12 rows, fewer than 50")]
    drift = 0.05 + 0.01 * day
    measured: dict[str, Any] = {
        "version": "lateness-1",
        "n": 500,
        "estimate": drift,
        "low": drift - 0.02,
        "high": drift + 0.02,
    }
    state: Any = "breach" if drift > 0.2 else "ok"
    good: dict[str, Any] = {"version": "lateness-1", "n": 500, "estimate": 0.71, "low": 0.69, "high": 0.73}
    return [
        Observed(monitor="drift", state=state, threshold=0.2, reason="origin" if state == "breach" else "", **measured),
        Observed(monitor="live quality", state="ok", threshold=0.62, **good),
    ]


def who(day: float) -> list[tuple[str, str]]:
    """(version, role) of everybody who is asked; the second stage gives half of the questions to the candidate."""
    if 7.03 <= day < 9.03:
        return [("lateness-1", "champion"), ("lateness-2", "shadow")]
    if 14 <= day < 15:
        return [("lateness-2", "champion"), ("lateness-3", "shadow")]
    if 18 <= day < 19:
        return [("lateness-4", "champion")]
    return [("lateness-1" if day < 9.03 else "lateness-2", "champion")]


@dataclass
class Told:
    """What was put in, to be found again."""

    questions: int = 0
    attempts: int = 0
    shadows: int = 0
    failed: int = 0
    failures: int = 0
    settled: int = 0
    void: int = 0
    by_role: dict[tuple[str, str], int] = field(default_factory=dict)


class Story:
    """The month, lived through.

    Args:
        an_hour: questions.
        until: days.
    """

    def __init__(self, home: Path, *, an_hour: int = 6, until: float = LENGTH) -> None:
        self.clock = VirtualClock(START)
        self.session = opened(home, self.clock)
        self.told = Told()
        self._random = random.Random(1788)
        self._recorder = self.session.journal.open("flights")
        events = list(decided())
        for hour in range(int(until * 24)):
            day = hour / 24
            while events and events[0][0] <= day:
                moment, said = events.pop(0)
                self._to(moment)
                self.session.facts.append([Fact("flights", "lateness", each) for each in said])
            self._to(day)
            if hour % 24 == 0:
                self.session.facts.append([Fact("flights", "lateness", each) for each in seen(hour // 24)])
            for _ in range(an_hour):
                self.clock.advance(timedelta(minutes=55) / an_hour)
                self._ask(who(day), day)
        self._to(until)
        self._recorder.close()

    def _to(self, day: float) -> None:
        self.clock.advance(max(at(day) - self.clock.now(), timedelta()))

    def _ask(self, whom: list[tuple[str, str]], day: float) -> None:
        told, number = self.told, self.told.questions
        told.questions += 1
        truth = self._random.random() < 0.3
        key, asked = f'{{"flight_id":"{number}"}}', self.clock.now()
        handed = 8.03 <= day < 9.03 and number % 2 == 0
        if number == 1_200:
            whom = whom[1:]  # the candidate's, and the champion's shadow was dropped
        if number == 1_203:
            whom = whom[:1]
        failed = number == 100  # nobody answers it
        mended = number == 2_000  # the previous version answers it
        for version, role in [*whom, *([("lateness-1", "previous")] if mended else [])]:
            if handed:
                role = {"champion": "shadow", "shadow": "canary"}[role]
            broken = failed or (mended and role == "champion")
            self._attempt(key, asked, version, role, "model-broke" if broken else "", truth)
        told.failed += failed
        if day < LENGTH - 2 and not failed:
            void = number % 50 == 7
            self.session.outcomes.post([outcome(key, self.clock.now(), None if void else float(truth))])
            told.void += void
            told.settled += not void

    def _attempt(self, key: str, asked: datetime, version: str, role: str, failed: str, truth: bool) -> None:
        told = self.told
        told.attempts += 1
        told.failures += bool(failed)
        told.shadows += role == "shadow" and not failed
        told.by_role[version, role] = told.by_role.get((version, role), 0) + 1
        sure = (0.4 if truth else 0.2) if version != "lateness-3" else (0.2 if truth else 0.4)
        self._recorder.record(
            [
                Answer(
                    id=ids.uuid7(asked),
                    asked=micros(asked),
                    model="lateness",
                    version=version,
                    epoch=1,
                    role=role,
                    within_tolerance=True,
                    key=key,
                    inputs={"origin": "a secret place"},
                    features={"origin": "a secret place"},
                    output=nan if failed else min(1.0, max(0.0, self._random.gauss(sure, 0.15))),
                    latency_us=900,
                    via="test",
                    failed=failed,
                )
            ]
        )


def outcome(key: str, received: datetime, value: float | None) -> New:
    """What came of a question, four hours later."""
    return New(
        received=received,
        by="local",
        model="lateness",
        prediction="",
        key=key,
        value=value,
        settled=received + timedelta(hours=4),
    )
