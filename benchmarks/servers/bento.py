"""BentoML: a service over the pipeline, as its documentation writes one: `bentoml serve benchmarks.servers.bento:Scoring`."""

import os
from pathlib import Path

import bentoml
import pandas as pd

from benchmarks.servers import pipeline


class _Trained:
    def __init__(self) -> None:
        self.trained = pipeline.sklearn(Path(os.environ["BENCHMARK_MODEL"]))

    def answers(self, rows: list[dict]) -> list[float]:  # type: ignore[type-arg]
        found: list[float] = self.trained.predict_proba(pd.DataFrame(rows))[:, 1].tolist()
        return found


@bentoml.service(workers=1)
class Scoring(_Trained):
    """One worker."""

    @bentoml.api
    def predict(self, rows: list[dict]) -> list[float]:  # type: ignore[type-arg]
        """As many rows as one request has."""
        return self.answers(rows)


@bentoml.service(workers=1)
class Adaptive(_Trained):
    """One worker, which puts the rows of many requests together."""

    @bentoml.api(batchable=True, max_batch_size=256, max_latency_ms=10_000)
    def predict(self, rows: list[dict]) -> list[float]:  # type: ignore[type-arg]
        """As many rows as wait."""
        return self.answers(rows)
