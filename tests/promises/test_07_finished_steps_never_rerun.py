"""Promise 7: a finished step never runs again; a killed apply resumes.

Attacked at every single write: one process applies a project and keeps a copy of its whole home after each write to facts,
artifacts, tables, online features, route and lease; then it is killed. Each copy is what a kill at that moment leaves behind,
with the lease of a process that is no more. From each, an apply has to reach the state of one that was never disturbed, and
nothing that was finished may run again. Beside it, real kills at arbitrary moments, which also tear a write apart.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyball._kernel.clock import MICROSECOND
from flyball._kernel.errors import DataError, RetryableError
from flyball.adapters.embedded.clock import SystemClock
from flyball.cycle import apply, plan
from flyball.cycle.session import Session, held
from tests.oracles import projects

ALL = ["examples", "search", "train", "evaluate", "examine", "register", "gates", "release"]

ATTACKED = """
import functools, json, os, shutil, signal, sys
from pathlib import Path
from flyball.adapters.embedded import blobs, facts, lease, online, routes, tables
from flyball.cycle import apply
from tests.oracles import projects

project, home, states = map(Path, sys.argv[1:])
WRITES = {
    blobs.FileBlobs: ["put"],
    facts.SqlFacts: ["append"],
    lease.SqlLease: ["acquire", "release"],
    online.SqlOnline: ["commit"],
    routes.FileRoutes: ["publish"],
    tables.DeltaTables: ["append", "delete"],
}
written = []

def kept(name, method):
    @functools.wraps(method)
    def write(*args, **named):
        result = method(*args, **named)
        # Without the shared memory of SQLite, which a killed process leaves behind as well, but nobody believes.
        shutil.copytree(home, states / f"{len(written):03}", ignore=shutil.ignore_patterns("*-shm"))
        written.append(name)
        return result
    return write

for owner, names in WRITES.items():
    for name in names:
        setattr(owner, name, kept(f"{owner.__name__}.{name}", getattr(owner, name)))
apply.apply(projects.opened(project, home))
(states / "written.json").write_text(json.dumps(written))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = projects.make(tmp_path_factory.mktemp("killed") / "till")
    orders = made / "data" / "orders.csv"
    # It is applied some forty times, and as many orders as these are enough to learn from.
    orders.write_text("".join(orders.read_text().splitlines(keepends=True)[:3001]))
    return made


@pytest.fixture(scope="module")
def undisturbed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    session = projects.opened(project, tmp_path_factory.mktemp("undisturbed") / "home")
    assert apply.apply(session).models[0].ran == ALL
    return projects.content(session)


@pytest.fixture(scope="module")
def states(project: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    """(what was written last, the home right after it)"""
    folder = tmp_path_factory.mktemp("states")
    arguments = [str(project), str(folder / "home"), str(folder)]
    ended = subprocess.run([sys.executable, "-c", ATTACKED, *arguments], cwd=Path.cwd())
    assert ended.returncode == -signal.SIGKILL
    names = json.loads((folder / "written.json").read_text())
    return [(name, folder / f"{n:03}") for n, name in enumerate(names)]


def resumed(project: Path, home: Path) -> tuple[list[str], list[str], dict[str, Any]]:
    """(steps that were done, steps that the next apply ran, the state that it reached)"""
    session = projects.opened(project, home)
    before = [d.step for d in projects.done(session)]
    again = [step for step in plan.plan(session).models[0].steps if step.runs and step.step in before]
    assert not again
    ran = apply.apply(session).models[0].ran
    session.facts.verify()
    return before, ran, projects.content(session)


def test_a_kill_after_any_write_changes_nothing(
    project: Path, undisturbed: dict[str, Any], states: list[tuple[str, Path]], tmp_path: Path
) -> None:
    names = [name for name, _ in states]
    assert set(names) >= {"DeltaTables.append", "SqlOnline.commit", "FileRoutes.publish", "SqlLease.release"}
    assert names.count("SqlFacts.append") >= len(ALL) + 3
    # Of many artifacts in a row the last: before it only what nobody refers to differs.
    after = [*names[1:], ""]
    chosen = [state for state, next_ in zip(states, after, strict=True) if (state[0], next_) != ("FileBlobs.put",) * 2]
    assert len(chosen) > 20
    progress = []
    for n, (name, state) in enumerate(chosen):
        before, ran, reached = resumed(project, shutil.copytree(state, tmp_path / str(n)))
        assert before + ran == ALL, f"killed after {name}"
        for part, expected in undisturbed.items():
            assert reached[part] == expected, f"{part}, killed after {name}"
        progress.append(len(before))
    assert progress == sorted(progress) and set(progress) == set(range(len(ALL) + 1))


def test_a_kill_at_any_moment_changes_nothing(project: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """Real processes, killed once some artifacts are there; the last apply goes on at once, whatever lease is left."""
    home, draw = tmp_path / "home", random.Random(7)
    command = [sys.executable, "-m", "flyball", "apply", str(project), "--home", str(home)]
    clock = SystemClock()
    for artifacts in (1, 9):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until = clock.monotonic() + 90
        while len(list(home.glob("artifacts/*/*"))) < artifacts and process.poll() is None:
            assert clock.monotonic() < until
            clock.sleep(0.005)
        clock.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    before, ran, reached = resumed(project, home)
    assert before + ran == ALL
    assert reached == undisturbed


@pytest.fixture
def session(project: Path, states: list[tuple[str, Path]], undisturbed: dict[str, Any], tmp_path: Path) -> Session:
    """A finished home of its own."""
    home = shutil.copytree(states[-1][1], tmp_path / "home")
    found = projects.opened(project, home)
    assert projects.content(found) == undisturbed
    return found


def test_a_second_apply_does_nothing(session: Session) -> None:
    head = session.facts.head()
    assert not apply.apply(session).ran
    assert session.facts.head() == head


def tree(home: Path) -> dict[str, bytes]:
    """All that a home knows; what lies in `cache` may go at any time, and says nothing."""
    return {
        str(file.relative_to(home)): file.read_bytes()
        for file in home.rglob("*")
        if file.is_file() and not file.name.endswith(("-shm", "-wal")) and file.parent.name != "cache"
    }


@pytest.mark.parametrize("state", [0, 10, -1])
def test_a_plan_moves_nothing(project: Path, states: list[tuple[str, Path]], tmp_path: Path, state: int) -> None:
    home = shutil.copytree(states[state][1], tmp_path / "home")
    opened = projects.opened(project, home)
    head, before = opened.facts.head(), tree(home)
    found = plan.plan(opened)
    assert opened.facts.head() == head
    assert tree(home) == before
    assert bool(found.work) == (state != -1)


def test_two_applies_at_once_do_not_meet(project: Path, session: Session) -> None:
    other = projects.opened(project, session.home)
    assert other.holder != session.holder
    head = session.facts.head()
    with held(session, apply.LEASE):
        with pytest.raises(RetryableError) as refused:
            apply.apply(other)
        assert refused.value.code == "somebody-else-is-at-it"
        assert session.holder in refused.value.why
    assert session.facts.head() == head
    assert not apply.apply(other).ran


@pytest.mark.parametrize("damage", ["missing", "stale", "corrupt"])
def test_a_route_that_is_not_what_the_facts_say_is_mended(session: Session, damage: str) -> None:
    route = session.home / "route.json"
    whole = route.read_bytes()
    match damage:
        case "missing":
            route.unlink()
        case "stale":
            route.write_bytes(whole.replace(b'"epoch": 1', b'"epoch": 0'))
        case _:
            route.write_bytes(whole[:40])
    apply.apply(session)
    assert route.read_bytes() == whole


def test_a_step_that_fails_leaves_what_was_there(project: Path, session: Session, undisturbed: dict[str, Any]) -> None:
    """A moment at which there is too little to learn: who answered goes on, and so does the next apply."""
    pin = plan.plan(session).models[0].state
    early = min(row[1] for row in undisturbed["rows"][0])
    with pytest.raises(DataError) as refused:
        apply.apply(session, until=early + 100_000_000 * MICROSECOND)
    assert refused.value.code == "too-little-history"
    assert projects.content(session)["route"] == undisturbed["route"]
    assert plan.plan(session).models[0].state == pin
    assert not apply.apply(session).ran


def test_lost_artifacts_are_made_again_and_nothing_else_runs(session: Session, undisturbed: dict[str, Any]) -> None:
    digest = undisturbed["artifacts"]["train"]["model.txt"]
    file = session.home / "artifacts" / digest[:2] / digest
    os.unlink(file)
    (reason,) = [step.why for step in plan.plan(session).models[0].steps if step.runs]
    assert reason == ["model.txt is no longer stored"]
    assert apply.apply(session).models[0].ran == ["train"]
    assert file.is_file()
    assert not apply.apply(session).ran


@pytest.fixture
def changing(session: Session, project: Path, tmp_path: Path) -> Iterator[Path]:
    """The project, to be changed: its data under the same path, so that nothing else changes."""
    text = (project / "app.py").read_text()
    yield project
    (project / "app.py").write_text(text)


def test_who_goes_back_to_an_earlier_app_goes_back_to_its_version(session: Session, changing: Path) -> None:
    """Without training anything again; the gates judge it against whoever answers now, on the rows both were tested on."""
    projects.edit(changing / "app.py", "on(champion) - 0.01", "on(champion) - 0.9")
    projects.edit(changing / "app.py", "over=days(120)", "over=days(90)")
    changed = apply.apply(projects.opened(changing, session.home)).models[0]
    assert (changed.ran, changed.version, changed.champion) == (ALL, "sent_back-2", "sent_back-2")
    compared = next(v for v in changed.verdicts if "champion" in v.condition)
    assert compared.measurement is not None, compared.reason
    assert not apply.apply(projects.opened(changing, session.home)).ran

    projects.edit(changing / "app.py", "over=days(90)", "over=days(120)")
    back = projects.opened(changing, session.home)
    why = {step.step: step.why for step in plan.plan(back).models[0].steps if step.runs}
    assert "champion changed" in why["gates"] and why["release"] == ["champion changed", "follows from gates"]
    done = apply.apply(back).models[0]
    assert (done.ran, done.version, done.champion) == (["gates", "release"], "sent_back-1", "sent_back-1")
    assert not apply.apply(back).ran

    projects.edit(changing / "app.py", "over=days(120)", "over=days(90)")
    forth = apply.apply(projects.opened(changing, session.home)).models[0]
    assert (forth.ran, forth.version, forth.champion) == (["release"], "sent_back-2", "sent_back-2")


def test_gates_changed_and_changed_back_register_nothing(session: Session, changing: Path) -> None:
    """A version that answers goes on answering; what is declared now decides what is said of it."""
    projects.edit(changing / "app.py", "roc_auc >= 0.6,", "roc_auc >= 0.99,")
    strict = projects.opened(changing, session.home)
    judged = apply.apply(strict).models[0]
    assert judged.ran == ["gates", "release"]
    assert (judged.version, judged.decision, judged.champion) == ("sent_back-1", "rejected", "sent_back-1")
    (note,) = plan.plan(strict).notes
    assert note.startswith("sent_back-1 is rejected: roc_auc >= 0.99 fail") and note.endswith("keeps answering.")
    projects.edit(changing / "app.py", "roc_auc >= 0.99,", "roc_auc >= 0.6,")
    back = projects.opened(changing, session.home)
    again = apply.apply(back).models[0]
    assert (again.ran, again.decision) == ([], "release")
    assert all(v.outcome.value == "pass" for v in again.verdicts)
    assert plan.plan(back).notes == []
    assert projects.content(back)["versions"] == ["sent_back-1"]


def test_the_pin_moves_back_and_forth(session: Session, undisturbed: dict[str, Any]) -> None:
    """What was done on a pin is known when it comes back; beyond the last that is known there is nothing to pin."""
    settled = sorted(row[6] for row in undisturbed["rows"][0])
    early, beyond = settled[-500], settled[-1].replace(year=2100)
    assert apply.apply(session, until=early).models[0].ran == ALL
    assert apply.apply(session, until=early).models[0].ran == []
    back = apply.apply(session, until=beyond).models[0]
    assert (set(back.ran) <= {"gates", "release"}, back.version) == (True, "sent_back-1")
    head = session.facts.head()
    assert not apply.apply(session, until=beyond).ran
    assert session.facts.head() == head
    assert set(apply.apply(session, until=early).models[0].ran) <= {"gates", "release"}
