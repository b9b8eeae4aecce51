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
from pathlib import Path

import polars as pl
import pytest

from flyball._kernel.errors import StateError
from flyball.cycle import apply, causes, reproduce
from flyball.cycle.session import Session
from flyball.learn import train
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
    return {name: digest for name, digest in found.items() if name.split("/")[0] in projects.REPEATING}


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
    command = [sys.executable, "-m", "flyball", "reproduce", str(project), VERSION, "--home", str(home), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": "99"})
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["identical"] and said["step"] == "", said
    assert {"examples", "encoder.json", "model.txt", "scores.npy", "evaluation"} <= set(said["compared"])


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


def test_another_seed_is_found_in_the_bytes(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """No declaration says it and no version: only making it again shows it."""
    monkeypatch.setattr(train, "REPEATABLE", {**train.REPEATABLE, "random_state": 1789})
    found = reproduce.reproduce(session, VERSION)
    assert (found.identical, found.step) == (False, "train")
    assert "model.txt" in found.why and "encoder.json" not in found.why


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.with_columns(price=pl.col("price") + 0.01),
        lambda rows: rows.filter(pl.col("order_id") != "o00001"),
        lambda rows: rows.with_columns(returned=~pl.col("returned")),
    ],
)
def test_other_rows_are_found_in_the_bytes(
    session: Session, monkeypatch: pytest.MonkeyPatch, change: Callable[[pl.LazyFrame], pl.LazyFrame]
) -> None:
    """As after a disk that lies, or a table that was rewritten behind our back."""
    scan = session.tables.scan
    monkeypatch.setattr(session.tables, "scan", lambda *a: change(scan(*a)))
    found = reproduce.reproduce(session, VERSION)
    assert (found.identical, found.step, found.why) == (False, "examples", "other bytes: examples")


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
