"""A file answered whole: `flyball predict` from Parquet to Parquet against bare predictors on ready arrays.

    predict-file   10 million rows of 17 columns (3 categories, 12 numbers, a key and a time), 100 trees; all cores
                   limit: ONNX Runtime on a ready float32 array, 8,192 rows a call, one session and a thread for each core
                   lightgbm: `Booster.predict` on the same array

Ours reads, checks the contract, builds features, encodes, answers with the server's bits, and writes; its turn is the call of
`cycle.predict`, without the start of the process. Every turn is a process of its own, and says on standard error what it took
of a core, which others on the machine do not change much, and its peak memory.
FLYBALL_BENCH_ROWS changes the number of rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import scoring
from benchmarks.pairs import Case
from benchmarks.scoring import CATEGORIES, NUMBERS

ROWS = int(os.environ.get("FLYBALL_BENCH_ROWS", "10_000_000"))
TURNS = 3
GROUP = 250_000
"""Rows of a row group."""


def cases() -> Iterator[Case]:
    """The one case."""
    with tempfile.TemporaryDirectory(prefix="flyball-predicting-") as folder:
        place = Path(folder)
        built = scoring.build(place)
        make(place / "in.parquet", ROWS)
        figures: dict[str, list[float]] = {"ours": [], "limit": [], "lightgbm": []}
        for _ in range(TURNS):
            sums = {}
            for who, rates in figures.items():
                said = turn(who, place, built.environment)
                took = f"{said['cpu_us']:.2f} us of a core a row, peak {said['peak_mb']:,} MB"
                print(f"{who:<10}{said['rate']:>12,.0f} rows/s, {took}", file=sys.stderr, flush=True)
                rates.append(said["rate"])
                sums[who] = said["sum"]
            assert sums["ours"] == sums["lightgbm"], sums
            assert abs(sums["ours"] - sums["limit"]) < 1e-6 * ROWS, sums
        yield Case("predict-file", "rows/s", higher=True, figures=figures)


def make(path: Path, rows: int) -> None:
    """Questions, a row group at a time; as much of them as there is memory for is held."""
    chance = np.random.default_rng(1788)
    whole = []
    for start in range(0, rows, GROUP):
        count = min(GROUP, rows - start)
        at = np.arange(start, start + count)
        columns: dict[str, Any] = {
            "row_id": "r" + pl.Series(at).cast(pl.String),
            "at": pl.Series(np.datetime64("2025-01-01", "us") + at.astype("timedelta64[s]")).dt.replace_time_zone(
                "UTC"
            ),
        }
        columns |= {
            name: np.array(list(letters))[chance.integers(0, len(letters), count)] for name, letters in CATEGORIES
        }
        columns |= {name: np.round(chance.normal(0, 2, count), 4) for name in NUMBERS}
        whole.append(pl.DataFrame(columns))
    pl.concat(whole).write_parquet(path, row_group_size=GROUP)


def turn(who: str, place: Path, environment: dict[str, str]) -> dict[str, Any]:
    """One turn, in its own process."""
    command = [sys.executable, "-m", "benchmarks.predicting_turns", who, str(place)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
