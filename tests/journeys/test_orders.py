"""A project as `flyball new` makes it, from its first plan to the reason of one answer; changed line by line on the way."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball import cli
from flyball.adapters.embedded.keys import FileSigner
from flyball.cycle.artifacts import load_manifest
from tests.oracles import projects

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One project for the whole story, in a home of its own."""
    folder = tmp_path_factory.mktemp("shop")
    before = Path.cwd()
    os.chdir(folder)
    assert cli.call(["new", "shop"]) == 0
    edit(folder / "shop" / "app.py", "trials=5", "trials=2")
    yield folder / "shop"
    os.chdir(before)


@pytest.fixture
def run(shop: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a verb on the project as it stands on disk; returns what `--json` says, or (exit code, text of the error)."""

    def verb(*arguments: str, fails: int = 0) -> Any:
        for name in [n for n in sys.modules if n == "shop" or n.startswith("shop.")]:
            del sys.modules[name]
        capfd.readouterr()
        code = cli.call([arguments[0], str(shop), *arguments[1:], "--json"])
        said = capfd.readouterr()
        assert code == fails, said.err + said.out
        return said.err if fails else json.loads(said.out)

    return verb


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns + 2_000_000_000))


def runs(plan: Any) -> list[str]:
    return [step["step"] for step in plan["models"][0]["steps"] if step["runs"]]


ALL = ["examples", "search", "train", "evaluate", "examine", "register", "gates", "release"]


def test_a_plan_moves_nothing(shop: Path, run: Run) -> None:
    plan = run("plan")
    assert [f["file"] for f in plan["files"]] == ["data/orders.csv"]
    assert runs(plan) == ALL
    assert not (shop / ".flyball").exists()


def test_apply_brings_it_to_a_released_version(shop: Path, run: Run) -> None:
    done = run("apply")
    assert done["ingested"] == ["data/orders.csv"]
    (model,) = done["models"]
    assert model["ran"] == ALL
    assert (model["version"], model["decision"], model["champion"]) == ("sent_back-1", "release", "sent_back-1")
    report = shop / ".flyball" / "reports" / "sent_back-1" / "report.html"
    assert "<svg" in report.read_text() and "<script" not in report.read_text()


def test_a_second_apply_does_nothing(run: Run) -> None:
    done = run("apply")
    assert done["ingested"] == []
    assert done["models"][0]["ran"] == []
    plan = run("plan")
    assert runs(plan) == [] and plan["files"] == [] and plan["work"] == ""


def test_the_version_is_reproduced_to_the_byte(run: Run) -> None:
    found = run("reproduce", "sent_back-1")
    assert found["identical"], found
    assert {"examples", "encoder.json", "model.txt", "scores.npy"} <= set(found["compared"])


def test_a_monitor_and_a_release_policy_re_run_no_training(shop: Path, run: Run) -> None:
    edit(
        shop / "app.py",
        "    gates=[",
        "    false_alarms=fb.at_most(1, per=days(30)),\n"
        '    monitors=[fb.Monitor("drift", fb.psi(features, over=days(7)))],\n    gates=[',
    )
    assert runs(run("plan")) == []


def test_a_gate_re_runs_the_judgement_alone(shop: Path, run: Run) -> None:
    edit(shop / "app.py", "roc_auc >= 0.6,", "roc_auc >= 0.61,")
    plan = run("plan")
    assert runs(plan) == ["gates", "release"]
    (why,) = [s["why"] for s in plan["models"][0]["steps"] if s["step"] == "gates"]
    assert any("roc_auc >= 0.61" in reason for reason in why)
    assert run("apply")["models"][0]["version"] == "sent_back-1"


def test_one_feature_re_runs_what_follows_from_it_and_is_named(shop: Path, run: Run) -> None:
    edit(shop / "app.py", "over=days(120)", "over=days(90)")
    plan = run("plan")
    assert runs(plan) == ALL
    (why,) = [s["why"] for s in plan["models"][0]["steps"] if s["step"] == "examples"]
    assert why == ["feature customer_returns changed"]
    assert plan["files"] == []
    edit(shop / "app.py", "over=days(90)", "over=days(120)")
    assert runs(run("plan")) == [], "what was done once is known again"


def test_moving_lines_and_comments_change_nothing(shop: Path, run: Run) -> None:
    edit(shop / "app.py", "returns = Order", "# a remark\n\n\nreturns = Order")
    assert runs(run("plan")) == []


def test_a_change_inside_what_a_preparation_calls_is_seen(shop: Path, run: Run) -> None:
    file = shop / "preparation.py"
    file.write_text(
        file.read_text().replace('pl.col("category").str.to_lowercase().str.strip_chars()', 'clean(pl.col("category"))')
        + "\n\ndef clean(cell: pl.Expr) -> pl.Expr:\n    return cell.str.to_lowercase().str.strip_chars()\n"
    )
    assert [f["why"] for f in run("plan")["files"]] == ["its preparation or contract changed"]
    done = run("apply")
    assert done["ingested"] == ["data/orders.csv"]
    assert done["models"][0]["ran"] == ALL, "what it learns from is made otherwise now"
    assert done["models"][0]["version"] == "sent_back-2"
    assert done["models"][0]["champion"] == "sent_back-2"
    edit(file, ".str.strip_chars()\n", ".str.strip_chars().str.replace('x', 'x')\n")
    assert [f["why"] for f in run("plan")["files"]] == ["its preparation or contract changed"]
    edit(file, ".str.strip_chars().str.replace('x', 'x')\n", ".str.strip_chars()\n")
    assert run("plan")["files"] == []
    tables = run("status")["tables"]
    assert (tables[0]["accepted"], tables[0]["duplicates"], tables[0]["corrections"]) == (6000, 6000, 0)


def test_a_file_is_answered_by_the_same_version(shop: Path, run: Run, tmp_path: Path) -> None:
    asked = pl.read_csv(shop / "data" / "orders.csv").tail(100).drop("settled", "returned")
    asked.write_parquet(tmp_path / "in.parquet")
    said = run("predict", str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"))
    assert (said["answered"], said["refused"], said["version"]) == (100, 0, "sent_back-2")
    answers = pl.read_parquet(tmp_path / "out.parquet")
    assert answers["_output"].is_between(0, 1).all() and answers["_output"].n_unique() > 10


@contextmanager
def serving(shop: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real server in a process of its own: (process, host:port)."""
    command = [sys.executable, "-m", "flyball", "serve", str(shop), "--port", "0", "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = ""
        while not said.endswith("}\n}\n"):
            line = process.stdout.readline()
            assert line, f"the server ended: {said}"
            said += line
        yield process, json.loads(said)["address"].removeprefix("http://")
    finally:
        process.kill()
        process.communicate()


def ask(address: str, body: object, path: str = "/predict") -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(address, timeout=30)) as connection:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())


QUESTION = {
    "order_id": "new-1",
    "placed": "2025-06-29T12:00:00Z",
    "category": "shoes",
    "channel": "web",
    "price": 80.0,
    "customer": "c007",
}


@pytest.mark.parametrize("durability", ["acknowledged", "interval"])
def test_an_answer_is_recorded_and_can_say_why(shop: Path, run: Run, durability: str) -> None:
    before = run("status")["journal"]["recorded"]
    with serving(shop, "--durability", durability) as (process, address):
        status, answer = ask(address, QUESTION)
        assert status == 200, answer
        assert answer["version"] == "sent_back-2"
        assert not answer["within_tolerance"], "it was placed long ago"
        status, many = ask(address, [QUESTION, QUESTION])
        assert [a["output"] for a in many] == [answer["output"]] * 2
        process.terminate()
        process.wait(timeout=60)
    why = run("why", answer["id"])
    assert why["output"] == answer["output"]
    assert why["inputs"]["price"] == 80.0
    assert why["inputs"]["customer"] != "c007", "personal values are recorded as keyed hashes"
    assert len(why["inputs"]["customer"]) == 64
    assert set(why["features"]) >= {"category", "price", "hour", "category_returns", "customer_returns"}
    assert why["features"]["category_returns"] is None, "nothing settled in the last thirty days"
    assert why["snapshot"]["batches"] and why["causes"]["examples"]
    assert run("status")["journal"] == {"recorded": before + 3, "refused": 0, "unknown": 0}


def test_a_running_server_follows_a_release_without_a_failed_request(shop: Path, run: Run) -> None:
    whole = (shop / "app.py").read_text()
    now = run("status")["models"][0]["champion"]
    with serving(shop) as (_, address):
        assert ask(address, QUESTION)[1]["version"] == now
        live = run("status")["journal"]["recorded"]
        edit(shop / "app.py", "n_estimators=50", "n_estimators=60")
        new = run("apply")["models"][0]["champion"]
        assert new != now
        seen = []
        until = time.monotonic() + 60
        while time.monotonic() < until:
            status, answer = ask(address, QUESTION)
            assert status == 200, answer
            seen.append(answer["version"])
            if seen[-1] == new:
                break
            time.sleep(0.01)
        assert seen[-1] == new
        assert set(seen) <= {now, new}
        assert run("status")["journal"]["recorded"] == live + len(seen), "a running server's answers count too"
    (shop / "app.py").write_text(whole)
    assert run("apply")["models"][0]["champion"] == now, "what was declared before answers again"


def test_a_home_is_never_opened_with_another_key(shop: Path, run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("FLYBALL_KEY", str(tmp_path / "other.pem"))
    assert "[key-missing]" in run("status", fails=1)
    assert not (tmp_path / "other.pem").exists()
    FileSigner(tmp_path / "other.pem")
    assert "[signed-by-another-key]" in run("plan", fails=1)


def test_a_killed_server_is_accounted_for(shop: Path, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    before = run("status")["journal"]
    with serving(shop) as (process, address):
        ids = [ask(address, QUESTION)[1]["id"] for _ in range(5)]
        process.kill()
        process.wait()
    after = run("status")["journal"]
    assert after["recorded"] == before["recorded"] + 5
    assert 0 < after["unknown"] - before["unknown"] <= 4096, "a bounded unknown, said"
    assert all(run("why", each)["output"] > 0 for each in ids), "what was acknowledged is there"
    with serving(shop):
        pass
    assert "A server died" in capfd.readouterr().err


def test_answers_on_a_rehearsal_clock_see_what_was_known_then(shop: Path, run: Run, tmp_path: Path) -> None:
    from flyball.adapters.embedded.clock import step

    moment = datetime(2025, 6, 29, 12, 0, tzinfo=UTC)
    step(tmp_path / "clock", moment)
    with serving(shop, "--clock", str(tmp_path / "clock")) as (_, address):
        status, answer = ask(address, QUESTION)
        assert status == 200 and answer["within_tolerance"]
    why = run("why", answer["id"])
    assert 0 < why["features"]["category_returns"] < 1
    asked = pl.DataFrame([QUESTION])
    asked.write_parquet(tmp_path / "in.parquet")
    run("predict", str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"))
    assert pl.read_parquet(tmp_path / "out.parquet")["_output"][0] == answer["output"], "one definition, two times"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"category": "boats"}, "category"),
        ({"price": -1}, "price"),
        ({"price": "many"}, "price"),
        ({"placed": "2025-06-29T12:00:00"}, "placed"),
        ({"returned": True}, "returned"),
        ({"order_id": None}, "order_id"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_request_is_refused_by_name(server: str, change: dict[str, Any], named: str) -> None:
    status, said = ask(server, QUESTION | change)
    assert status == 422
    assert said["error"]["code"] == "request-breaks-contract"
    assert named in said["error"]["why"]


def test_the_server_describes_itself(server: str) -> None:
    with closing(http.client.HTTPConnection(server, timeout=30)) as connection:
        connection.request("GET", "/openapi.json")
        document = json.loads(connection.getresponse().read())
    schema = document["components"]["schemas"]["OrderRequest"]
    assert set(schema["required"]) == {"order_id", "placed", "category", "channel", "price", "customer"}
    assert "returned" not in schema["properties"]


@pytest.fixture(scope="module")
def server(shop: Path) -> Iterator[str]:
    with serving(shop) as (_, address):
        yield address


def test_a_version_that_was_tampered_with_does_not_answer(shop: Path, run: Run) -> None:
    champion = run("status")["models"][0]["champion"]
    digest = load_manifest(projects.opened(shop), champion).artifacts["model.txt"]
    file = shop / ".flyball" / "artifacts" / digest[:2] / digest
    whole = file.read_bytes()
    try:
        file.chmod(0o600)
        file.write_bytes(whole.replace(b"leaf_value=", b"leaf_value=9", 1))
        command = [sys.executable, "-m", "flyball", "serve", str(shop), "--port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert "[artifact-changed]" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        ("    Order.channel,\n", "    Order.returned,\n", "leaks-outcome", "features = "),
        ("Order.placed.col.dt.hour()", "Order.settled.col.dt.hour()", "leaks-outcome", "features = "),
        ("hours(0), tolerance", "hours(3), tolerance", "asked-too-early", "@fb.model("),
        ("predicts=Order.returned", "predicts=Order.price", "predicts-no-outcome", "@fb.model("),
        ("[fb.files(", "[fb.files('data/orders.csv', prepare=orders, yields=Order), fb.files(", "name-taken", "app = "),
        ("Order.placed.col.dt.hour()", "Order.placed.col", "feature-of-unusable-type", "features = "),
        ("roc_auc >= 0.61", "0.5 <= roc_auc <= 0.9", "condition-as-bool", "0.5 <="),
        ("from lightgbm", "from lightgbmm", "app-file-broken", "from lightgbmm"),
        ("    Order.price,\n", "    Order.prize,\n", "app-file-broken", "Order.prize"),
        (
            "LGBMClassifier(num_leaves=knobs.leaves",
            "LGBMClassifier(num_leaves=knobs.leafs",
            "model-function-failed",
            "leafs",
        ),
        ("import LGBMClassifier", "import LGBMRegressor as LGBMClassifier", "estimator-of-other-kind", "@fb.model("),
    ],
)
def test_an_app_that_contradicts_itself_is_refused_with_its_line(
    shop: Path, run: Run, old: str, new: str, code: str, line: str
) -> None:
    file = shop / "app.py"
    whole = file.read_text()
    try:
        edit(file, old, new)
        error = run("plan", fails=2)
        number = next(i for i, text in enumerate(file.read_text().splitlines(), 1) if line in text)
        assert f"[{code}]" in error
        place = re.search(r"app\.py:(\d+)", error)
        assert place is not None and abs(int(place[1]) - number) <= 1, error
        assert "next:" in error and "Traceback" not in error
    finally:
        file.write_text(whole)


@pytest.mark.parametrize(
    ("break_", "rule"),
    [
        (lambda row: row.replace("books", "boots", 1), "category"),
        (lambda row: re.sub(r",(\d+\.\d+),", ",-1.0,", row, count=1), "price"),
        (lambda row: re.sub(r",(\d+\.\d+),", ",many,", row, count=1), "price"),
        (lambda row: row + ",surplus", "ragged"),
    ],
)
def test_bad_rows_are_quarantined_and_nothing_is_lost(
    shop: Path, run: Run, break_: Callable[[str], str], rule: str
) -> None:
    file = shop / "data" / "orders.csv"
    whole = file.read_text()
    before = run("status")["tables"][0]
    lines = whole.splitlines()
    at = next(i for i, text in enumerate(lines) if i and ",books," in text)
    try:
        file.write_text("\n".join([*lines[:at], break_(lines[at]), *lines[at + 1 :]]) + "\n")
        run("apply")
        after = run("status")["tables"][0]
        grown = {k: after[k] - before[k] for k in ("read", "accepted", "quarantined", "duplicates")}
        assert grown == {"read": 6000, "accepted": 0, "quarantined": 1, "duplicates": 5999}
        assert any(rule in broken for broken in after["by_rule"])
    finally:
        file.write_text(whole)


def test_a_missing_column_stops_the_file_and_loses_nothing(shop: Path, run: Run) -> None:
    file = shop / "data" / "orders.csv"
    whole = file.read_text()
    before = run("status")["tables"][0]
    try:
        file.write_text(whole.replace("channel", "chanel", 1))
        error = run("apply", fails=1)
        assert "[column-missing]" in error and "channel" in error and "next:" in error
        assert run("status")["tables"][0] == before
    finally:
        file.write_text(whole)
