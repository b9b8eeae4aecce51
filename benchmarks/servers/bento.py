"""BentoML: a service over the pipeline, as its documentation writes one: `bentoml serve benchmarks.servers.bento:Scoring`."""

import os
from pathlib import Path

import bentoml
import pandas as pd

from benchmarks.servers import pipeline


@bentoml.service(workers=1)
class Scoring:
    """One worker."""

    def __init__(self) -> None:
        self.trained = pipeline.sklearn(Path(os.environ["BENCHMARK_MODEL"]))

    @bentoml.api
    def predict(self, row: dict) -> dict:  # type: ignore[type-arg]
        """One row."""
        return {"output": float(self.trained.predict_proba(pd.DataFrame([row]))[0, 1])}
