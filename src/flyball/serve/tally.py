"""What one server process has counted, as Prometheus reads it.

Plain numbers, touched on the event loop's thread alone: a lock and a label look-up for every count would take longer than
the prediction. Answers that were recorded but did not leave (their caller was turned away, because another answer of the
same request could not be recorded) are *withheld*. Beside answers there are attempts that nobody waits for: shadows, and
those that failed. What of them could not be kept is *dropped*: recorded = answered + withheld + shadows + failed, and
computed = recorded + dropped.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from flyball.serve.journal import Standing

BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
"""Seconds; an answer of one row takes a fraction of the first millisecond."""

_SAID = ["model", "version", "role"]
Said = tuple[str, str, str]
"""Model, version, role."""


class Answered:
    """What one version has answered in one role: questions, requests by how long they took, and seconds in all."""

    __slots__ = ("questions", "requests", "seconds")

    def __init__(self) -> None:
        self.questions, self.seconds = 0, 0.0
        self.requests = [0] * (len(BUCKETS) + 1)

    def add(self, questions: int, seconds: float) -> None:
        """One request, answered."""
        self.questions += questions
        self.seconds += seconds
        self.requests[bisect_left(BUCKETS, seconds)] += 1


class Tally(Collector):
    """All counts of a server.

    Attributes:
        answered: by (model, version, role).
        failed: attempts recorded that gave no answer, of whatever role but shadow; by (model, version, role).
        shadows: recorded, by (model, version, how): "answered" or "failed".
        opened: breakers that opened, by (model, version).
        refused: requests by error code.
        pushed, pushed_rows: bodies, and their rows, by (source, how): "accepted" or "repeated".
        behind: rows of a table that the online features lack, as of a moment ago; by table.
        inbox: bodies that were pushed and wait, as of a moment ago; by source.
        withheld: answers recorded that did not leave.
        late: answers that left before they were recorded, since the disk was slow.
        waiting: answers that wait for their commit.
        dropped: shadows that were not kept, by (model, version), and failed_dropped: failed attempts that were not: there was
            no room, no time, or no disk for them.
        journal: what could not be written of late; see `Recorder.standing`.
        away: whether the catalog cannot be read.
    """

    def __init__(self) -> None:
        self.answered: dict[Said, Answered] = {}
        self.failed: Counter[Said] = Counter()
        self.shadows: Counter[Said] = Counter()
        self.opened: Counter[tuple[str, str]] = Counter()
        self.refused: Counter[str] = Counter()
        self.pushed: Counter[tuple[str, str]] = Counter()
        self.pushed_rows: Counter[tuple[str, str]] = Counter()
        self.behind: Mapping[str, int] = {}
        self.inbox: Mapping[str, int] = {}
        self.withheld = self.late = self.waiting = self.failed_dropped = 0
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.journal: Callable[[], Standing] = Standing
        self.away = False

    def of(self, who: Said) -> Answered:
        """What a version has answered so far in a role."""
        found = self.answered.get(who)
        return found if found is not None else self.answered.setdefault(who, Answered())

    def text(self) -> bytes:
        """The Prometheus text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        answers = CounterMetricFamily("flyball_answers", "Questions answered.", labels=_SAID)
        seconds = HistogramMetricFamily(
            "flyball_answer_seconds", "From the bytes of a request to its response.", labels=_SAID
        )
        for key, found in self.answered.items():
            answers.add_metric(key, found.questions)
            running, buckets = 0, []
            for limit, count in zip((*map(str, BUCKETS), "+Inf"), found.requests, strict=True):
                running += count
                buckets.append((limit, running))
            seconds.add_metric(key, buckets, found.seconds)
        return answers, seconds, *self._labelled(), *self._plain()

    def _labelled(self) -> Iterable[Metric]:
        counts: tuple[tuple[str, str, list[str], Mapping[Any, int]], ...] = (
            ("flyball_failed", "Attempts recorded that gave no answer.", _SAID, self.failed),
            ("flyball_shadow", "Shadows recorded.", ["model", "version", "how"], self.shadows),
            ("flyball_shadow_dropped", "Shadows not kept.", ["model", "version"], self.dropped),
            ("flyball_breaker_opened", "Candidates taken out of this process.", ["model", "version"], self.opened),
            ("flyball_pushed", "Bodies of rows that were taken.", ["source", "how"], self.pushed),
            ("flyball_pushed_rows", "Rows in them.", ["source", "how"], self.pushed_rows),
            ("flyball_refusals", "Requests refused, by error code.", ["code"], self.refused),
        )
        for name, what, labels, found in counts:
            family = CounterMetricFamily(name, what, labels=labels)
            for key, count in found.items():
                family.add_metric([key] if isinstance(key, str) else key, count)
            yield family

    def _plain(self) -> Iterable[Metric]:
        yield CounterMetricFamily("flyball_withheld", "Answers recorded that did not leave.", value=self.withheld)
        yield CounterMetricFamily(
            "flyball_answers_late", "Answers that left before they were recorded.", value=self.late
        )
        yield CounterMetricFamily("flyball_failed_dropped", "Failed attempts not kept.", value=self.failed_dropped)
        online = GaugeMetricFamily("flyball_online_behind", "Rows that the online features lack.", labels=["table"])
        inbox = GaugeMetricFamily("flyball_inbox_waiting", "Pushed bodies that wait.", labels=["source"])
        for family, found in ((online, self.behind), (inbox, self.inbox)):
            for key, count in found.items():
                family.add_metric([key], count)
            yield family
        journal = self.journal()
        yield CounterMetricFamily("flyball_answers_unlogged", "Answers that left unrecorded.", value=journal.unlogged)
        yield GaugeMetricFamily("flyball_journal_failing", "Whether it cannot be written.", value=bool(journal.failure))
        yield GaugeMetricFamily("flyball_catalog_away", "Whether the catalog cannot be read.", value=self.away)
        yield GaugeMetricFamily("flyball_waiting", "Answers that wait for their commit.", value=self.waiting)
