"""What one server process has counted, as Prometheus reads it.

Plain numbers, touched on the event loop's thread alone: a lock and a label look-up for every count would take longer than
the prediction. Answers that were recorded but did not leave (their caller was turned away, because another answer of the
same request could not be recorded) are *withheld*: recorded = answered + withheld.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
"""Seconds; an answer of one row takes a fraction of the first millisecond."""


class Answered:
    """What one version has answered: questions, requests by how long they took, and seconds in all."""

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
        answered: by (model, version).
        refused: requests by error code.
        withheld: answers recorded that did not leave.
        waiting: answers that wait for their commit.
    """

    def __init__(self) -> None:
        self.answered: dict[tuple[str, str], Answered] = {}
        self.refused: Counter[str] = Counter()
        self.withheld = self.waiting = 0

    def of(self, model: str, version: str) -> Answered:
        """What a version has answered so far."""
        found = self.answered.get((model, version))
        return found if found is not None else self.answered.setdefault((model, version), Answered())

    def text(self) -> bytes:
        """The Prometheus text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        answers = CounterMetricFamily("flyball_answers", "Questions answered.", labels=["model", "version"])
        seconds = HistogramMetricFamily(
            "flyball_answer_seconds", "From the bytes of a request to its response.", labels=["model", "version"]
        )
        for key, found in self.answered.items():
            answers.add_metric(key, found.questions)
            running, buckets = 0, []
            for limit, count in zip((*map(str, BUCKETS), "+Inf"), found.requests, strict=True):
                running += count
                buckets.append((limit, running))
            seconds.add_metric(key, buckets, found.seconds)
        refusals = CounterMetricFamily("flyball_refusals", "Requests refused, by error code.", labels=["code"])
        for code, count in self.refused.items():
            refusals.add_metric((code,), count)
        withheld = CounterMetricFamily("flyball_withheld", "Answers recorded that did not leave.", value=self.withheld)
        waiting = GaugeMetricFamily("flyball_waiting", "Answers that wait for their commit.", value=self.waiting)
        return answers, seconds, refusals, withheld, waiting
