"""Benchmarks run, and say what a reader of them counts on. Never how fast: machines differ."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

from benchmarks import data_turns
from benchmarks.pairs import Case, measure

ROOT = Path(__file__).parents[2]
KEYS = {"case", "unit", "ours", "limit", "ratio_to_limit", "peers"}


def test_a_benchmark_says_one_object_a_line_for_each_case() -> None:
    command = [sys.executable, "-m", "benchmarks", "startup", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["case"] for row in rows] == ["import", "help"]
    for row in rows:
        assert set(row) == KEYS
        assert row["ours"] > 0 and row["limit"] > 0
        assert math.isclose(row["ratio_to_limit"], row["ours"] / row["limit"], rel_tol=1e-2)


def test_the_data_benchmark_compares_who_finds_the_same(tmp_path: Path) -> None:
    assert data_turns.make(tmp_path, 20_000) == {}
    assert data_turns.validate_ours(tmp_path) == data_turns.validate_limit(tmp_path)
    assert data_turns.validate_dataframely(tmp_path) == data_turns.validate_limit(tmp_path)
    assert data_turns.ingest_ours(tmp_path) == data_turns.ingest_limit(tmp_path)
    assert data_turns.read(tmp_path)["found"].split(",")[0] == data_turns.scan_delta(tmp_path)["found"].split(",")[0]
    assert data_turns.erase(tmp_path)["rewritten"] > 0


def test_they_are_listed() -> None:
    command = [sys.executable, "-m", "benchmarks", "--list"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert {"plan", "serving", "startup"} <= set(done.stdout.split())


def test_ratios_are_of_medians_and_peers_tell_how_many_times_better_we_are() -> None:
    figures = {"ours": [2.0, 2.0, 9.0], "limit": [1.0, 1.0, 1.0], "peer": [8.0, 8.0, 1.0]}
    faster = json.loads(Case("c", "s", higher=False, figures=figures).row())
    more = json.loads(Case("c", "req/s", higher=True, figures=figures).row())
    assert (faster["ratio_to_limit"], faster["peers"]) == (2.0, {"peer": 4.0})
    assert (more["ratio_to_limit"], more["peers"]) == (2.0, {"peer": 0.25})


def test_turns_are_taken_in_pairs_after_one_that_does_not_count() -> None:
    order: list[str] = []

    def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    case = measure("c", "s", {"ours": lambda: turn("a"), "limit": lambda: turn("b")}, higher=False, turns=2)
    assert order == ["a", "b"] * 3
    assert case.figures == {"ours": [3.0, 5.0], "limit": [4.0, 6.0]}
