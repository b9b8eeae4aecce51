"""Promise 8: same inputs, same bytes; or the differing step is named.

Attacked with other hash seeds and other numbers of threads in fresh processes; and with everything that may differ when a
version is made again: a stored artifact, a feature, what a feature calls, a library, a seed, the rows themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import polars as pl
import pytest

from flyball._kernel.errors import StateError
from flyball.adapters.embedded import fresh
from flyball.cycle import apply, causes, environment, reproduce
from flyball.cycle.session import Session
from flyball.learn.fit import train
from flyball.release import version
from tests.oracles import projects

VERSION = "sent_back-1"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return projects.make(tmp_path_factory.mktemp("again") / "stall")


@pytest.fixture(scope="module")
def home(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("made") / "home"
    assert apply.apply(projects.opened(project, home)).models[0].version == VERSION
    return home


@pytest.fixture
def session(project: Path, home: Path) -> Session:
    return projects.opened(project, home)


@pytest.fixture
def changing(project: Path) -> Iterator[Path]:
    """The app file, to be changed."""
    file = project / "app.py"
    text = file.read_text()
    yield file
    file.write_text(text)


def artifacts(session: Session) -> dict[str, str]:
    """Every artifact of the steps that repeat to the byte, by step and name."""
    found = {f"{d.step}/{n}": digest for d in projects.done(session) for n, digest in d.outputs.items()}
    return {name: digest for name, digest in found.items() if name.split("/")[0] in (*projects.REPEATING, "examine")}


def test_other_processes_with_other_threads_make_the_same_bytes(
    project: Path, session: Session, tmp_path: Path
) -> None:
    expected = artifacts(session)
    assert len(expected) > 12
    homes = [tmp_path / "one", tmp_path / "two"]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "flyball", "apply", str(project), "--home", str(home), "--json"],
            env=os.environ | {"PYTHONHASHSEED": str(7 * n), "OMP_NUM_THREADS": str(n), "POLARS_MAX_THREADS": str(n)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n, home in enumerate(homes, 1)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    for home in homes:
        assert artifacts(projects.opened(project, home)) == expected


def test_a_fresh_process_makes_it_again_to_the_byte(project: Path, home: Path) -> None:
    """Whatever Python was told to do before: here it would print, and import a module of the name of one of ours."""
    outside = home.parent / "outside"
    outside.mkdir()
    (outside / "numpy.py").write_text("raise SystemExit('not this one')")
    (outside / "sitecustomize.py").write_text("print('I was here')")
    arguments = ["reproduce", str(project), VERSION, "--home", str(home), "--json"]
    program = f"from flyball.adapters.embedded import fresh; raise SystemExit(fresh.call({arguments!r}))"
    told = os.environ | {"PYTHONHASHSEED": "99", "PYTHONPATH": str(outside), "PYTHONWARNINGS": "error"}
    ended = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, env=told, cwd=outside)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["identical"] and said["step"] == "" and said["apart"] == [], said
    assert {"examples", "encoder.json", "model.txt", "scores.npy", "evaluation"} <= set(said["compared"])
    assert {"suspects.json", "examined.json", "explanation.json"} <= set(said["compared"])


def stored(session: Session, name: str) -> Path:
    row = version.find(session.facts, session.app.name, VERSION)
    digest = version.read(session.app.name, row, session.blobs, session.signer).artifacts[name]
    return session.home / "artifacts" / digest[:2] / digest


@pytest.mark.parametrize(
    ("name", "step"),
    [("examples", "examples"), ("model.txt", "train"), ("encoder.json", "train"), ("evaluation", "evaluate")],
)
def test_a_tampered_artifact_is_named_with_its_step(session: Session, name: str, step: str) -> None:
    file = stored(session, name)
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        found = reproduce.reproduce(session, VERSION)
        assert (found.identical, found.step) == (False, step)
        assert name in found.why and "store" in found.why
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize(
    ("old", "new", "step", "cause"),
    [
        ("over=days(120)", "over=days(90)", "examples", "feature customer_returns"),
        ("hour=Order.placed.col.dt.hour()", "hour=Order.placed.col.dt.minute()", "examples", "feature hour"),
        ("min_child_samples=50", "min_child_samples=51", "train", "estimator"),
        ("fb.by_time(days(30))", "fb.by_time(days(29))", "train", "split"),
        ('description="euros"', 'description="dollars"', "", ""),
        ("void_after=days(60)", "void_after=days(59)", "examples", "question"),
        ("max=10_000", "max=20_000", "", ""),
    ],
)
def test_a_changed_declaration_is_named(
    project: Path, home: Path, changing: Path, old: str, new: str, step: str, cause: str
) -> None:
    """Before anything is made: code that is not the version's could only make something else."""
    projects.edit(changing, old, new)
    found = reproduce.reproduce(projects.opened(project, home), VERSION)
    assert (found.identical, found.step) == (not step, step), found
    if step:
        assert found.compared == []
        assert cause in found.why


@pytest.mark.parametrize(("library", "step"), [("polars", "examples"), ("lightgbm", "train"), ("onnx", "train")])
def test_another_library_is_named(session: Session, monkeypatch: pytest.MonkeyPatch, library: str, step: str) -> None:
    now = causes.version
    monkeypatch.setattr(causes, "version", lambda name: "0.0.1" if name == library else now(name))
    found = reproduce.reproduce(session, VERSION)
    assert (found.identical, found.step) == (False, step)
    assert f"environment: {library}" in found.why


def test_it_is_made_anyway_when_that_is_asked(project: Path, home: Path, changing: Path) -> None:
    """By other code: what the difference comes to, step by step, and which cause it has."""
    projects.edit(changing, "min_child_samples=50", "min_child_samples=60")
    found = reproduce.reproduce(projects.opened(project, home), VERSION, anyway=True)
    assert (found.identical, found.step, found.changed) == (
        False,
        "train",
        {"search": ["estimator"], "train": ["estimator"]} if "search" in found.changed else {"train": ["estimator"]},
    )
    assert "estimator changed" in found.why
    steps = {each.step: each for each in found.apart}
    assert list(steps) == ["train", "evaluate", "examine"]
    assert steps["train"].greatest is not None and steps["train"].greatest > 0
    assert any(said.startswith("roc_auc: 0.") for said in steps["evaluate"].by)
    assert any(said.startswith("explanation.json: ") for said in steps["examine"].by)


def test_another_library_is_no_difference_where_it_makes_none(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = causes.version
    monkeypatch.setattr(causes, "version", lambda name: "0.0.1" if name == "onnx" else now(name))
    found = reproduce.reproduce(session, VERSION, anyway=True)
    assert found.identical and found.changed == {"train": ["environment: onnx"]}


def test_the_manifest_names_the_whole_environment(session: Session) -> None:
    """Also what no cause names, since an environment is made of it."""
    row = version.find(session.facts, session.app.name, VERSION)
    recorded = environment.plain(version.read(session.app.name, row, session.blobs, session.signer).environment)
    for name in ("flyball", "polars", "scikit-learn", "lightgbm", "scipy", "threadpoolctl", "joblib", "rich"):
        assert recorded[name] == metadata.version(name)
    assert recorded["python"] == f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert "pytest" not in recorded and "ruff" not in recorded


@pytest.mark.parametrize(
    ("recorded", "why"),
    [
        ({"python": "2.7"}, "It was trained by Python 2.7"),
        ({"python": f"{sys.version_info[0]}.{sys.version_info[1]}", "flyball": "0.0.0"}, "trained by flyball 0.0.0"),
    ],
)
def test_an_environment_that_cannot_be_made_is_said(tmp_path: Path, recorded: dict[str, str], why: str) -> None:
    with pytest.raises(StateError) as refused:
        fresh.environment(tmp_path, recorded)
    assert refused.value.code == "environment-not-made" and why in refused.value.why


def test_what_pip_cannot_find_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real environment and the real pip, without an index."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    recorded = {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", "flyball": metadata.version("flyball")}
    with pytest.raises(StateError) as refused:
        fresh.environment(tmp_path / "venv", recorded | {"polars": "2.1.0"})
    assert "pip cannot install" in refused.value.why and "polars==2.1.0" in refused.value.why


def test_another_seed_is_found_in_the_bytes(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """No declaration says it and no version: only making it again shows it."""
    monkeypatch.setattr(train, "REPEATABLE", {**train.REPEATABLE, "random_state": 1789})
    found = reproduce.reproduce(session, VERSION)
    assert (found.identical, found.step) == (False, "train")
    assert "model.txt" in found.why and "encoder.json" not in found.why
    (apart,) = found.apart
    assert apart.greatest is not None and 0 < apart.greatest < 1
    assert f"by {apart.greatest:.3g} at most" in " ".join(apart.by)
    assert "answers of baseline to" in " ".join(apart.by) and "the same bits" in " ".join(apart.by)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.with_columns(price=pl.col("price") + 0.01), " price 6,000"),
        (lambda rows: rows.filter(pl.col("order_id") != "o00001"), "1 only recorded, 0 only now"),
        (lambda rows: rows.with_columns(returned=~pl.col("returned")), "_label 6,000"),
    ],
)
def test_other_rows_are_found_in_the_bytes(
    session: Session, monkeypatch: pytest.MonkeyPatch, change: Callable[[pl.LazyFrame], pl.LazyFrame], said: str
) -> None:
    """As after a disk that lies, or a table that was rewritten behind our back."""
    scan = session.tables.scan
    monkeypatch.setattr(session.tables, "scan", lambda *a: change(scan(*a)))
    found = reproduce.reproduce(session, VERSION)
    assert (found.identical, found.step, found.why) == (False, "examples", "other bytes: examples")
    assert said in " ".join(found.apart[0].by)
    assert "o00001" not in " ".join(found.apart[0].by), "counts, and no value"


def test_the_order_of_rows_does_not_count(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = session.tables.scan
    monkeypatch.setattr(
        session.tables, "scan", lambda *a: scan(*a).collect().sample(fraction=1, shuffle=True, seed=3).lazy()
    )
    assert reproduce.reproduce(session, VERSION).identical


def test_a_version_that_nobody_registered_is_refused(session: Session) -> None:
    with pytest.raises(StateError) as refused:
        reproduce.reproduce(session, "sent_back-2")
    assert refused.value.code == "no-such-version"
    assert VERSION in refused.value.why
