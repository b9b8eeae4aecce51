"""FastAPI by hand: `python by_hand.py MODEL PORT sklearn|onnx`, a typed request, and the pipeline or an ONNX session."""

import sys
from pathlib import Path
from typing import Any

import fastapi
import pydantic
import uvicorn

from benchmarks.servers import pipeline


def build(model: Path, how: str) -> fastapi.FastAPI:
    """The application."""
    fields: dict[str, Any] = {"row_id": (str, ...), "at": (str, ...)}
    known = pipeline.columns(model)
    request = pydantic.create_model(
        "Row", **fields, **{c["name"]: (str if c["reads"] == "text" else float, ...) for c in known}
    )
    app = fastapi.FastAPI()
    if how == "onnx":
        answers = pipeline.onnx(model)
    else:
        import pandas as pd

        trained = pipeline.sklearn(model)

        def answers(rows: list[dict[str, Any]]) -> list[float]:
            found: list[float] = trained.predict_proba(pd.DataFrame(rows))[:, 1].tolist()
            return found

    async def predict(row: Any) -> dict[str, float]:
        return {"output": answers([row.model_dump()])[0]}

    async def batch(rows: Any) -> dict[str, list[float]]:
        return {"outputs": answers([row.model_dump() for row in rows])}

    # FastAPI reads the types of a signature: these are made at run time.
    predict.__annotations__ = {"row": request, "return": dict[str, float]}
    batch.__annotations__ = {"rows": list[request], "return": dict[str, list[float]]}  # type: ignore[valid-type]
    app.post("/predict")(predict)
    app.post("/batch")(batch)
    return app


if __name__ == "__main__":
    uvicorn.run(
        build(Path(sys.argv[1]), sys.argv[3]),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
    )
