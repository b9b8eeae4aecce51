"""`flyball adopt`: a model that somebody else trained is answered, recorded, watched and released as every other."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import polars as pl
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from flyball import cli
from flyball._kernel.errors import StateError
from flyball.adapters.memory.blobs import MemoryBlobs
from flyball.cycle import adopting, answering, artifacts, card, explain, plan, why
from flyball.cycle.watching import Watch
from flyball.release import rollout, version
from tests.live import live
from tests.oracles import frames, projects

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType


def rows(seed: int = 3, n: int = 240) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"plan": rng.choice(["free", "pro"], n), "age": rng.normal(40, 9, n)})
    return frame.assign(left=(frame["plan"] == "pro") ^ (rng.random(n) < 0.2))


def trained(seed: int) -> bytes:
    """An ONNX file of somebody else's, with a text among its inputs."""
    frame = rows(seed)
    columns = ColumnTransformer([("c", OneHotEncoder(handle_unknown="ignore"), ["plan"])], remainder="passthrough")
    fitted = Pipeline([("columns", columns), ("model", LogisticRegression())]).fit(
        frame[["plan", "age"]], frame["left"].astype(int)
    )
    typed = [("plan", StringTensorType([None, 1])), ("age", FloatTensorType([None, 1]))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bytes(skl2onnx.to_onnx(fitted, initial_types=typed).SerializeToString())


def own(data: bytes, plan_: str, age: float) -> float:
    """What the file itself answers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    asked = {"plan": np.array([[plan_]], dtype=object), "age": np.array([[age]], dtype=np.float32)}
    return float(session.run(None, asked)[1][0][1])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """An adopted and applied app in a folder that was empty; and the file that it was adopted from."""
    folder = tmp_path_factory.mktemp("adopt")
    data = trained(3)
    (folder / "churn.onnx").write_bytes(data)
    frames.of_pandas(rows()).write_csv(folder / "rows.csv")
    given = [str(folder / "churn.onnx"), "--sample", str(folder / "rows.csv"), "--outcome", "left"]
    assert cli.call(["adopt", *given, "--name", str(folder / "leaving"), "--json"]) == 0
    assert cli.call(["apply", str(folder / "leaving"), "--json"]) == 0
    return folder / "leaving", data


def test_what_its_sample_holds_decides_whether_questions_are_answered_together(shop: tuple[Path, bytes]) -> None:
    session = projects.opened(shop[0])
    (name,) = version.versions(session.facts, "leaving", "leaving")
    manifest = artifacts.load_manifest(session, name.version)
    form = artifacts.load_form(session, manifest)
    assert form is not None
    found = artifacts.load_probes(session, manifest, form, 64)
    assert found is not None and set(found[:, 0]) == {"free", "pro"} and 20 < np.median(found[:, 1].astype(float)) < 60
    (gone,) = (digest for name, digest in manifest.artifacts.items() if name == "reference.json")
    without = replace(session, blobs=MemoryBlobs())
    for digest in set(manifest.artifacts.values()) - {gone}:
        without.blobs.put(session.blobs.get(digest))
    assert artifacts.load_probes(without, manifest, form, 64) is None, "texts that nobody knows prove nothing"


def test_it_answers_as_by_itself_records_and_tells_why(shop: tuple[Path, bytes]) -> None:
    folder, data = shop
    session = projects.opened(folder)
    with live(session.home, answering.routed(session)) as edge:
        asked = [{"id": "a", "plan": "pro", "age": 44.1}, {"id": "b", "plan": "never seen", "age": 30}]
        answers = edge.ask(asked, "/predict/leaving").json
        alone = edge.ask(asked[0], "/predict/leaving").json
        refused = [
            edge.ask(asked[0] | broken, "/predict/leaving").code
            for broken in ({"age": "44"}, {"plan": None}, {"age": 4400}, {"left": True})
        ]
    for question, answer in zip(asked, answers, strict=True):
        assert answer["output"] == own(data, question["plan"], question["age"])  # type: ignore[arg-type]
        assert answer["version"] == "leaving-1" and answer["within_tolerance"]
    assert alone["output"] == answers[0]["output"]
    assert refused == ["request-breaks-contract"] * 4
    found = why.why(session, answers[1]["id"])
    assert found.via == "onnx" and found.features == {"plan": "never seen", "age": 30.0}
    assert abs(datetime.now(UTC) - found.inputs["asked"]) < timedelta(minutes=5)
    assert {"adopt", "register", "examples"} >= set(found.causes) >= {"adopt"}


def test_a_second_apply_does_nothing_and_what_learning_tells_is_refused(shop: tuple[Path, bytes]) -> None:
    session = projects.opened(shop[0])
    found = plan.plan(session)
    assert not found.work and any("unjudged" in note for note in found.notes)
    assert "nothing is trained" in found.models[0].served
    for tells in (
        lambda: card.card(session, "leaving-1"),
        lambda: card.report_of(session, "leaving-1"),
        lambda: explain.of_version(session, "leaving-1"),
    ):
        with pytest.raises(StateError) as caught:
            tells()
        assert caught.value.code == "adopted-not-trained"


def test_drift_compares_with_the_sample_and_is_blind_until_there_is_traffic(shop: tuple[Path, bytes]) -> None:
    session = projects.opened(shop[0])
    (drift,) = [m for m in Watch(session).monitors(session.app.models[0]) if m.monitor == "drift"]
    assert drift.state == "blind" and "questions in 7d" in drift.reason


def test_another_content_is_another_version_on_its_way_and_rolls_back(shop: tuple[Path, bytes], tmp_path: Path) -> None:
    folder = _copy(shop[0], tmp_path)
    (folder / "churn.onnx").write_bytes(trained(4))
    session = projects.opened(folder)
    assert plan.plan(session).models[0].steps[0].why == ["file changed"]
    assert cli.call(["apply", str(folder), "--json"]) == 0
    now = rollout.now(session.facts, "leaving", "leaving")
    assert (now.champion, now.candidate, now.stage) == ("leaving-1", "leaving-2", 0)
    assert cli.call(["rollback", str(folder), "--reason", "no", "--json"]) == 0
    assert not rollout.now(session.facts, "leaving", "leaving").candidate


def test_gates_judge_it_on_labelled_rows_and_hold_it_without(shop: tuple[Path, bytes], tmp_path: Path) -> None:
    folder = _copy(shop[0], tmp_path)
    projects.edit(folder / "app.py", "# gates=[fb.roc_auc >= 0.5]", "gates=[fb.roc_auc >= 0.99]")
    assert cli.call(["apply", str(folder), "--json"]) == 3
    session = projects.opened(folder)
    assert _decision(session) == "held"
    assert any("held until" in note for note in plan.plan(session).notes)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    labelled = rows(9)
    labelled["id"] = [f"x{n}" for n in range(len(labelled))]
    labelled["asked"] = [at + timedelta(hours=n) for n in range(len(labelled))]
    labelled["settled"] = labelled["asked"] + timedelta(days=1)
    labelled["age"] = labelled["age"].clip(20, 60)
    frames.of_pandas(labelled).write_parquet(folder / "labelled.parquet")
    projects.edit(folder / "app.py", 'fb.push("labelled"', 'fb.files("labelled.parquet"')
    for gate, code, decision in ((0.99, 3, "rejected"), (0.6, 0, "release")):
        projects.edit(folder / "app.py", "roc_auc >= 0.99", f"roc_auc >= {gate}")
        projects.forget(folder)
        assert cli.call(["apply", str(folder), "--json"]) == code
        session = projects.opened(folder)
        assert _decision(session) == decision
        (verdict,) = version.verdicts(session.facts, "leaving", "leaving-1")
        assert verdict.measurement is not None and verdict.measurement.n == len(labelled)
        assert 0.7 < verdict.measurement.estimate < 0.9


def test_a_file_is_answered_as_a_caller_is(shop: tuple[Path, bytes], tmp_path: Path) -> None:
    folder, data = shop
    (tmp_path / "in.jsonl").write_text('{"id": "x", "asked": "2026-02-01T00:00:00Z", "plan": "free", "age": 33.3}')
    assert cli.call(["predict", str(folder), str(tmp_path / "in.jsonl"), str(tmp_path / "out.parquet"), "--json"]) == 0
    assert pl.read_parquet(tmp_path / "out.parquet")["_output"].to_list() == [own(data, "free", 33.3)]


def test_what_cannot_be_adopted_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(trained(3))
    wrong = rows()[["plan", "age"]].assign(plan=1.5)
    frames.of_pandas(wrong).write_parquet(tmp_path / "wrong.parquet")
    missing = rows()[["plan", "age"]]
    missing.loc[0, "plan"] = None
    frames.of_pandas(missing).write_parquet(tmp_path / "missing.parquet")
    for sample in ("wrong", "missing"):
        given = [str(tmp_path / "m.onnx"), "--sample", str(tmp_path / f"{sample}.parquet")]
        assert cli.call(["adopt", *given, "--name", str(tmp_path / sample), "--json"]) == 2
        assert not (tmp_path / sample).exists()
        assert json.loads(capsys.readouterr().out)["error"]["code"].startswith("adopted-")
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04.")
    assert cli.call(["adopt", str(tmp_path / "m.pkl"), "--name", str(tmp_path / "p"), "--json"]) == 2
    assert not (tmp_path / "p").exists()


def test_scikit_learn_is_adopted_from_skops(tmp_path: Path) -> None:
    frame = rows()
    fitted = LogisticRegression().fit(frame[["age"]], frame["left"])
    skops.io.dump(fitted, tmp_path / "age.skops")
    assert cli.call(["adopt", str(tmp_path / "age.skops"), "--name", str(tmp_path / "aged"), "--json"]) == 0
    session = projects.opened(tmp_path / "aged")
    assert adopting.tried(session.app.models[0]) == 0
    assert any("no sample" in note for note in plan.plan(session).notes)


def _copy(folder: Path, where: Path) -> Path:
    copied = where / folder.name
    shutil.copytree(folder, copied)
    projects.forget(folder)
    return copied


def _decision(session: Any) -> str:
    return version.find(session.facts, "leaving", "leaving-1").decision
