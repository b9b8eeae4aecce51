"""How good a model is found in equal time: the search of `fb.auto` and FLAML on the same rows, with the same held-out ones.

FLYBALL_BENCH_DATA is a folder of Parquet files, one a table: features under their own names, `_label` (Boolean or a number),
`_split` (explore | validation | test; anything else is left out) and, where time was split, `_asked`. FLYBALL_BENCH_PEERS is an
interpreter that has FLAML. Both use two threads for FLYBALL_BENCH_SECONDS (60); FLAML splits what is not test as it likes.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

SECONDS = float(os.environ.get("FLYBALL_BENCH_SECONDS", "60"))
SEEDS = int(os.environ.get("FLYBALL_BENCH_SEEDS", "2"))


def cases() -> Iterator[Any]:
    """One case a table; the limit is the perfect score. Nothing without a folder of tables and a FLAML."""
    case = importlib.import_module("benchmarks.pairs").Case
    folder, peers = os.environ.get("FLYBALL_BENCH_DATA"), os.environ.get("FLYBALL_BENCH_PEERS")
    for file in sorted(Path(folder).glob("*.parquet")) if folder and peers else ():
        numbers = pl.read_parquet_schema(file)["_label"] != pl.Boolean
        theirs = [_peer(str(peers), file, seed) for seed in range(SEEDS)]
        figures = {"ours": [ours(file)], "limit": [1.0], "flaml": theirs}
        yield case(f"quality-{file.stem}", "R2" if numbers else "ROC AUC", higher=True, figures=figures)


def ours(file: Path) -> float:
    """The held-out quality of what our search chooses; it has one seed, and so one figure."""
    explore, automatic, algorithms, encode, metrics, search, split, task, train = (
        importlib.import_module(f"flyball.learn.{name}")
        for name in ["explore", "automatic", "algorithms", "encode", "metrics", "search", "split", "task", "train"]
    )
    named = importlib.import_module("flyball._kernel.metrics")
    pack = importlib.import_module("flyball.learn.export.pack")
    rows = {name: frame for (name,), frame in pl.read_parquet(file).partition_by("_split", as_dict=True).items()}
    plain = [c for c in rows["test"].columns if not c.startswith("_")]
    texts = (pl.String, pl.Enum, pl.Categorical)
    kinds = [(c, "category" if isinstance(rows["test"].schema[c], texts) else "number") for c in plain]
    kind = task.BINARY if rows["test"].schema["_label"] == pl.Boolean else task.REGRESSION
    metric = named.roc_auc if kind == task.BINARY else named.r2

    def quality(knobs: Mapping[str, Any], early: pl.DataFrame, late: pl.DataFrame) -> float:
        encoder = encode.fit(early, kinds)
        # What `train.declared` ties down, tied down here: this table belongs to no app.
        tied = train.tied(automatic.build(algorithms.knobs(kind)(**knobs), kind, encoder))
        last = train.LINEAR_ROWS if knobs["algorithm"] == "linear" else None
        fitted = train.fit(tied, encoder.encode(early), _labels(early), kind, rows=last)
        return float(metrics.value(metric.name, _labels(late), pack.answers(fitted, encoder.encode(late), kind)))

    budget = timedelta(seconds=SECONDS)
    settings = search.search(trials=10_000, optimize=metric, split=split.by_time(timedelta(days=1)), within=budget)
    chosen = explore.run(
        settings, algorithms.knobs(kind), lambda knobs: [quality(knobs, rows["explore"], rows["validation"])]
    )
    return quality(chosen.knobs, pl.concat([rows["explore"], rows["validation"]]), rows["test"])


def _labels(frame: pl.DataFrame) -> np.ndarray:
    label = frame["_label"]
    return label.to_numpy() if label.dtype == pl.Boolean else label.cast(pl.Float64).to_numpy()


def _peer(python: str, file: Path, seed: int) -> float:
    command = [python, __file__, str(file), str(SECONDS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return float(json.loads(done.stdout.splitlines()[-1])["quality"])


def flaml(file: str, seconds: float, seed: int) -> float:
    """The same of FLAML, with the estimators that it takes by default where they are installed."""
    automl = importlib.import_module("flaml").AutoML()
    score = importlib.import_module("sklearn.metrics")
    rows = pl.read_parquet(file).filter(pl.col("_split").is_in(["explore", "validation", "test"]))
    timed = "_asked" in rows.columns
    rows = rows.sort("_asked") if timed else rows
    plain = [c for c in rows.columns if not c.startswith("_")]
    texts = pl.col(pl.String, pl.Enum).cast(pl.Categorical)
    table = rows.select(plain).with_columns(texts).to_pandas()
    test, labels = (rows["_split"] == "test").to_numpy(), _labels(rows)
    number = rows["_label"].dtype != pl.Boolean
    automl.fit(
        table[~test],
        labels[~test],
        task="regression" if number else "classification",
        metric="r2" if number else "roc_auc",
        time_budget=seconds,
        n_jobs=2,
        seed=seed,
        verbose=0,
        **({"split_type": "time"} if timed else {}),
    )
    if number:
        return float(score.r2_score(labels[test], automl.predict(table[test])))
    return float(score.roc_auc_score(labels[test], automl.predict_proba(table[test])[:, 1]))


if __name__ == "__main__":
    print(json.dumps({"quality": flaml(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))}))
