"""One turn of `predicting`: `python -m benchmarks.predicting_turns WHO FOLDER` prints {"rate", "cpu_us", "peak_mb", "sum"}."""

from __future__ import annotations

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

CALL = 8192
"""Rows a call: what one core's cache holds."""


Turn = tuple[float, float, int, float]


def since(began: tuple[float, float]) -> tuple[float, float]:
    """Seconds, and seconds of a core, since a moment of both clocks."""
    return time.perf_counter() - began[0], time.process_time() - began[1]


def ours(folder: Path) -> Turn:
    """From Parquet to Parquet: (seconds, seconds of a core, rows, sum of the answers)."""
    from flyball import runtime
    from flyball.cycle import predict
    from flyball.cycle.session import silent

    loaded = runtime.load(str(folder / "scoring"))
    session = runtime.open(loaded.app, runtime.Placement(root=loaded.root, create=False))
    out = folder / "out.parquet"
    began = time.perf_counter(), time.process_time()
    said = predict.predict(session, None, folder / "in.parquet", out, silent)
    took = since(began)
    return *took, said.answered, math.fsum(pl.read_parquet(out, columns=["_output"])["_output"])


def ready(folder: Path) -> np.ndarray:
    """The array as a model reads it."""
    from flyball.learn.encoding import encode

    encoder = encode.from_bytes((folder / "model" / "encoder.json").read_bytes())
    parts = pl.scan_parquet(folder / "in.parquet").select(encoder.names).collect_batches(chunk_size=1 << 18)
    return np.concatenate([encoder.encode(part) for part in parts])


def limit(folder: Path) -> Turn:
    """ONNX Runtime on the array, all cores."""
    import onnxruntime

    rows = ready(folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model" / "model.onnx"), options)
    began = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        starts = range(0, len(rows), CALL)
        found = np.concatenate(list(pool.map(lambda n: session.run(None, {"x": rows[n : n + CALL]})[0], starts)))
    return *since(began), len(rows), math.fsum(found.tolist())


def bare(folder: Path) -> Turn:
    """LightGBM on the array, all cores."""
    import lightgbm

    rows = ready(folder)
    booster = lightgbm.Booster(model_file=folder / "model" / "model.txt")
    began = time.perf_counter(), time.process_time()
    found = booster.predict(rows, num_threads=len(os.sched_getaffinity(0)))
    return *since(began), len(rows), math.fsum(np.asarray(found).tolist())


WHO: dict[str, Callable[[Path], Turn]] = {"ours": ours, "limit": limit, "lightgbm": bare}

if __name__ == "__main__":
    seconds, cpu, count, total = WHO[sys.argv[1]](Path(sys.argv[2]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"rate": count / seconds, "cpu_us": cpu / count * 1e6, "peak_mb": peak, "sum": total}))
