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
        answer = pipeline.onnx(model)
    else:
        import pandas as pd

        trained = pipeline.sklearn(model)

        def answer(row: dict[str, Any]) -> float:
            return float(trained.predict_proba(pd.DataFrame([row]))[0, 1])

    async def predict(row: Any) -> dict[str, float]:
        return {"output": answer(row.model_dump())}

    # FastAPI reads the types of a signature: this one is made at run time.
    predict.__annotations__ = {"row": request, "return": dict[str, float]}
    app.post("/predict")(predict)
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
