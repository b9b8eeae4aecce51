"""MLflow: its scoring server over a Python model, one worker. `python mlflow_pyfunc.py MODEL PORT`."""

import sys
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import uvicorn
from mlflow.pyfunc import scoring_server

from benchmarks.servers import pipeline


class Pipeline(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """The pipeline as MLflow calls it."""

    def load_context(self, context: Any) -> None:
        """Build it."""
        self.trained = pipeline.sklearn(Path(sys.argv[1]))

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        """The positive class's probability."""
        return self.trained.predict_proba(model_input)[:, 1]


if __name__ == "__main__":
    place = Path(sys.argv[1]).with_name("mlflow")
    if not place.exists():
        mlflow.pyfunc.save_model(path=str(place), python_model=Pipeline())
    app = scoring_server.init(mlflow.pyfunc.load_model(str(place)))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_config=None, access_log=False)
