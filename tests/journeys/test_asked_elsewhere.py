"""The same version asked without a server: in this process, and from a bundle that knows no flyball."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from flyball import edge
from flyball._kernel.errors import DataError, StateError
from flyball.cycle import answering, bundle, predict, quickened
from flyball.cycle.session import Session, silent
from flyball.predictor import Predictor
from flyball.serve import plan as plans
from flyball.serve.router import Routed, Router
from tests import asked

PLACED = asked.START + timedelta(days=30, minutes=30)
ROW = {"order_id": "x", "placed": PLACED, "category": "shoes", "shop": "web", "price": 120.0, "items": 2}


@pytest.fixture(scope="module")
def till(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with pytest.MonkeyPatch.context() as patch:
        yield asked.trained(tmp_path_factory.mktemp("elsewhere"), patch)


@pytest.fixture(scope="module")
def zipped(till: Session, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "till-1.zip"
    said = bundle.bundle(till, None, "till-1", out)
    assert (said.handed, said.unchecked, said.within) == ({"lately": "number"}, ["shop|regex"], 0.0)
    return out


def test_in_this_process_it_says_what_a_file_is_told(till: Session, tmp_path: Path) -> None:
    rows = [{**ROW, **row, "placed": PLACED} for row in asked.orders(40, seed=5)]
    frame = pl.DataFrame(rows, schema_overrides={"items": pl.Int32})
    frame.write_parquet(tmp_path / "in.parquet")
    predict.predict(till, None, tmp_path / "in.parquet", tmp_path / "out.parquet", silent)
    told = pl.read_parquet(tmp_path / "out.parquet")["_output"].to_list()
    with Predictor(till) as asks:
        assert asks.version == "till-1"
        assert [each.output for each in asks.predict(rows, PLACED)] == told
        assert [each.output for each in asks.predict(frame, PLACED)] == told
        one = asks.predict(rows[0], PLACED)
        assert (one.output, one.role, one.within_tolerance) == (told[0], "champion", True)
        with pytest.raises(DataError, match="request-breaks-contract"):
            asks.predict({**ROW, "price": -1.0})
    assert list(till.journal.read()) == [], "nothing is recorded unasked"


def test_it_is_recorded_when_that_is_asked_for(till: Session) -> None:
    with Predictor(till, version="till-1", record=True) as asks:
        found = asks.predict([ROW, ROW])
    assert {e.id: e.output for e in till.journal.read()} == {each.id: each.output for each in found}
    with pytest.raises(StateError, match="no-such-version"):
        Predictor(till, version="till-7")


def test_it_opens_what_a_folder_declares(till: Session) -> None:
    with Predictor.open(till.home.parent) as asks, Predictor(till) as same:
        assert asks.predict(ROW, PLACED).output == same.predict(ROW, PLACED).output


def test_a_bundle_says_what_the_server_says(till: Session, zipped: Path) -> None:
    plan = answering.plan_of(till, till.app.model(None), "till-1")
    here = edge.load(str(zipped))
    for row in asked.orders(60, seed=9):
        sent = {**row, "placed": row["placed"].isoformat()}
        (read,), _ = plan.decode(json.dumps(sent).encode())
        question = plans.question(plan, read, row["placed"] + timedelta(days=3), 0.0)
        answer = plans.attempt(plan, question, 1, "champion", till.clock).answer
        said = here.predict(sent, {"lately": msgspec.to_builtins(answer.features)["lately"]})
        assert said == {"output": answer.output}
    assert here.selfcheck() == {"rows": bundle.GOLDEN, "exact": True, "farthest": 0.0}


LONE = """
import runpy, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names | {"numpy", "onnxruntime", "flyball_edge", "__main__"}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Nothing())
sys.argv = [sys.argv[1]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_it_answers_where_there_is_nothing_but_numpy_and_onnxruntime(till: Session, zipped: Path) -> None:
    sent: dict[str, Any] = {**ROW, "placed": PLACED.isoformat()}
    lines = [{**sent, "_features": {"lately": 0.25}}, {**sent, "colour": "red"}, {**sent, "_features": {"early": 1}}]
    done = subprocess.run(
        [sys.executable, "-I", "-c", LONE, str(zipped)],
        input="\n".join([*map(json.dumps, lines), "nonsense"]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and not done.stderr, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said[0] == edge.load(str(zipped)).predict(sent, {"lately": 0.25})
    assert "no column 'colour'" in said[1]["refused"] and "no feature" in said[2]["refused"] and "refused" in said[3]


@pytest.mark.parametrize(
    "change",
    [
        {"price": -1},
        {"price": 1000.5},
        {"price": "7"},
        {"price": float("nan")},
        {"items": 0},
        {"items": 1.5},
        {"items": True},
        {"category": "boats"},
        {"shop": "x" * 9},
        {"shop": None},
        {"placed": "2026-01-01T00:00:00"},
        {"placed": "2026-02-30T00:00:00Z"},
        {"returned": True},
        {"order_id": None},
    ],
)
def test_what_the_server_refuses_a_bundle_refuses(till: Session, zipped: Path, change: dict[str, Any]) -> None:
    sent = {**ROW, "placed": PLACED.isoformat(), **change}
    plan = answering.plan_of(till, till.app.model(None), "till-1")
    with pytest.raises(DataError):
        plan.decode(json.dumps(sent).encode())
    with pytest.raises(edge.Refused):
        edge.load(str(zipped)).predict(sent)


def test_the_same_version_is_the_same_bytes_and_a_change_shows(till: Session, zipped: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    bundle.bundle(till, None, "till-1", again)
    assert again.read_bytes() == zipped.read_bytes()
    assert bundle.verify(till, again).version == "till-1"
    with zipfile.ZipFile(zipped) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for changed, by in (
        ({"bundle.json": files["bundle.json"].replace(b'"how"', b'"hoW"', 1)}, "not what was made"),
        ({"flyball_edge/extra.py": b"print('here')"}, "not what was made"),
        ({"manifest.json": b"{}"}, "no bundle"),
    ):
        with zipfile.ZipFile(again, "w") as archive:
            for name, data in {**files, **changed}.items():
                archive.writestr(name, data)
        with pytest.raises(edge.Refused, match=by):
            edge.load(str(again))
    with zipfile.ZipFile(again, "w") as archive:
        for name, data in {**files, "signature": b"00" * 64}.items():
            archive.writestr(name, data)
    with pytest.raises(StateError, match="signature-broken"):
        bundle.verify(till, again)


def test_a_server_that_became_faster_says_the_same_bits(till: Session) -> None:
    """Alone and together, before and after another library answers lists: one answer to one question."""
    began = answering.routed(till)
    quick = quickened.quickened(till, began)
    slow, fast = began["till"].champion, quick["till"].champion
    assert fast.predictor is not slow.predictor
    assert quickened.quickened(till, quick) == quick, "once is enough"
    rows = asked.orders(200, seed=9)
    found = []
    for plan in (slow, fast, dataclasses.replace(fast, batches=2)):
        router = Router(till.clock)
        router.swap({"till": Routed(epoch=1, champion=plan)})
        way = router.ways["till"]
        together = router.ask(way, rows, PLACED, 0.0)
        alone = [router.ask(way, [row], PLACED, 0.0)[0] for row in rows]
        found += [[each.answer.output for each in given if each.answer is not None] for given in (together, alone)]
    assert len(found[0]) == 200 and all(each == found[0] for each in found)
