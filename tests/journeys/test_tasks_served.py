"""A class of three and a band between quantiles, from raw rows to what a caller is told, a file is told, and `why` says."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball import cli, edge
from flyball._kernel.errors import StateError
from flyball.adapters.embedded.outcomes import SqliteOutcomes
from flyball.cycle import answering, artifacts, bundle, predict, why
from flyball.cycle.session import Session
from flyball.data import contract
from flyball.learn import model as models
from flyball.predictor import Predictor
from flyball.serve import outcomes
from tests.live import Live, live
from tests.oracles import projects

APP = '''"""Visits."""

import dataframely as dy
import flyball as fb
from lightgbm import LGBMClassifier, LGBMRegressor


class Visit(fb.Contract):
    """A visit."""

    visit = dy.String(primary_key=True)
    came = fb.event_time(dy.Datetime(time_zone="UTC"))
    depth = dy.Int32(min=0)
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=fb.days(30))
    level = fb.outcome(dy.Enum(["low", "mid", "high"], nullable=True))
    paid = fb.outcome(dy.Float64(nullable=True))


def rows(given):
    return given


@fb.model(fb.features(Visit.depth), asked=fb.before(Visit.came, fb.hours(0)), {declared})
def model() -> {estimator}:
    return {estimator}({settings}n_estimators=10, num_leaves=7, verbose=-1, n_jobs=1)


app = fb.App("visits", sources=[fb.files("visits.csv", prepare=rows, yields=Visit)], model=model,
             search=fb.search(trials=1, optimize=fb.metrics.{optimize}, split=fb.by_time(fb.days(10))))
'''
CLASSES = {"declared": "predicts=Visit.level", "estimator": "LGBMClassifier", "settings": "", "optimize": "log_loss"}
QUANTILES = {
    "declared": "predicts=Visit.paid, quantiles=(0.1, 0.5, 0.9)",
    "estimator": "LGBMRegressor",
    "settings": 'objective="quantile", ',
    "optimize": "pinball_loss",
}
ROWS = [{"visit": f"x{n}", "came": "2026-02-20T00:00:00Z", "depth": n} for n in (0, 5, 9)]


def visits() -> str:
    chance, start = random.Random(7), datetime(2026, 1, 1, tzinfo=UTC)
    lines = ["visit,came,depth,settled,level,paid"]
    for n in range(500):
        at, depth = start + timedelta(hours=2 * n), chance.randint(0, 9)
        lean = depth + chance.gauss(0, 1.5)
        level = "low" if lean < 3 else "mid" if lean < 6.5 else "high"
        lines.append(f"v{n},{at.isoformat()},{depth},{(at + timedelta(days=1)).isoformat()},{level},{2 * lean:.3f}")
    return "\n".join(lines)


@pytest.fixture(scope="module", params=["classes", "quantiles"])
def shop(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Session, Live]]:
    folder = tmp_path_factory.mktemp("tasks") / f"visits_{request.param}"
    folder.mkdir()
    (folder / "visits.csv").write_text(visits())
    (folder / "__init__.py").touch()
    (folder / "app.py").write_text(APP.format(**(CLASSES if request.param == "classes" else QUANTILES)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLYBALL_KEY", str(tmp_path_factory.mktemp("key") / "k.pem"))
        assert cli.call(["apply", str(folder), "--json"]) == 0
        session = projects.opened(folder)
        with live(session.home, answering.routed(session)) as edge:
            yield request.param, session, edge


def test_what_is_told(shop: tuple[str, Session, Live]) -> None:
    kind, _, edge = shop
    answers = edge.ask(ROWS, "/predict/model").json
    for answer in answers:
        if kind == "classes":
            shares = answer["probabilities"]
            assert list(shares) == ["low", "mid", "high"] and sum(shares.values()) == pytest.approx(1)
            assert answer["output"] == max(shares.values()) == shares[answer["decision"]]
        else:
            numbers = list(answer["quantiles"].values())
            assert list(answer["quantiles"]) == ["0.1", "0.5", "0.9"] and numbers == sorted(numbers)
            assert answer["output"] == answer["quantiles"]["0.5"] and "decision" not in answer
    if kind == "classes":
        assert [answer["decision"] for answer in answers] == ["low", "mid", "high"]
    else:
        assert answers[0]["output"] < answers[1]["output"] < answers[2]["output"]


def test_a_file_is_told_the_same_and_so_says_why(shop: tuple[str, Session, Live], tmp_path: Path) -> None:
    kind, session, edge = shop
    answers = edge.ask(ROWS, "/predict/model").json
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    predict.predict(session, None, tmp_path / "in.jsonl", tmp_path / "out.parquet", lambda event: None)
    told = pl.read_parquet(tmp_path / "out.parquet").sort("visit").to_dicts()
    several, prefix = ("probabilities", "_p_") if kind == "classes" else ("quantiles", "_q_")
    for answer, row in zip(answers, told, strict=True):
        assert row["_output"] == answer["output"] and row.get("_decision") == answer.get("decision")
        assert {name[3:]: v for name, v in row.items() if name.startswith(prefix)} == answer[several]
        found = why.why(session, answer["id"])
        assert (found.outputs, found.decision) == (answer[several], answer.get("decision"))


def test_a_bundle_says_the_same_bits(shop: tuple[str, Session, Live], tmp_path: Path) -> None:
    kind, session, edge_ = shop
    said = bundle.bundle(session, None, "model-1", tmp_path / "a.zip")
    here = edge.load(str(tmp_path / "a.zip"))
    assert (said.within, here.selfcheck()["exact"]) == (0.0, True)
    rows = [{**ROWS[0], "visit": f"y{n}", "depth": n} for n in range(12)]
    with Predictor(session) as asks:
        for row, answer in zip(rows, edge_.ask(rows, "/predict/model").json, strict=True):
            found, alike = here.predict(row), asks.predict(row)
            assert list(found) == (
                ["output", "decision", "probabilities"] if kind == "classes" else ["output", "quantiles"]
            )
            assert found == {name: answer[name] for name in found}
            assert found == {name: getattr(alike, name) for name in found}


def test_the_baseline_answers_alike(shop: tuple[str, Session, Live]) -> None:
    kind, session, _ = shop
    (routed,) = answering.routed(session).values()
    ((role, plan),) = routed.fallbacks
    said: Any = plan.predictor.row(plan.encode(()))
    assert role == "baseline" and len(said) == 3
    assert sum(said) == pytest.approx(1) if kind == "classes" else said == tuple(sorted(said))


def test_no_version_answers_for_another_outcome_or_task(shop: tuple[str, Session, Live]) -> None:
    kind, session, _ = shop
    (model,), manifest = session.app.models, artifacts.load_manifest(session, "model-1")
    assert answering.task_of(session, replace(model, default=0.5), manifest) == models.task(model)
    # Both answer with one number, which would pass for the other's.
    paid = replace(model, predicts=contract.Ref(model.question, "paid"), quantiles=())
    said = "to predict Visit.level, which" if kind == "classes" else "as quantile, which"
    with pytest.raises(StateError, match=f"model-1 was trained {said} is not what 'model' declares now"):
        answering.task_of(session, paid, manifest)


def test_a_class_is_an_outcome(shop: tuple[str, Session, Live], tmp_path: Path) -> None:
    kind, session, _ = shop
    store, routed = SqliteOutcomes(tmp_path / "outcomes.sqlite"), answering.routed(session)
    body = json.dumps([{"key": {"visit": "x0"}, "outcome": each} for each in ("high", "top", 3.5)]).encode()
    said = json.loads(outcomes.receive(body, routed, store, session.clock, "test")[1])
    good = [0] if kind == "classes" else [2]
    assert [each["at"] for each in said["refused"]] == [n for n in range(3) if n not in good]
    assert [row.value for row in store.read()] == ([outcomes.of_class("high")] if kind == "classes" else [3.5])
    store.close()
