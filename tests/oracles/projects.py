"""A small project as `flyball new` makes it, quick to train, and what is compared of two homes that should say the same."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from flyball import cli, runtime
from flyball._kernel import facts
from flyball.cycle.steps import Done
from flyball.data import contract, dataset
from flyball.runtime import Placement, Session

REPEATING = ("examples", "search", "train", "evaluate")
"""The steps whose artifacts follow from their causes to the byte."""


def make(folder: Path) -> Path:
    """A project that trains within a second; its gates depend on no stopwatch."""
    # Another test of this process may have imported a project of that name, and a name that is taken is refused.
    sys.path[:] = [path for path in sys.path if not (Path(path) / folder.name / "app.py").is_file()]
    forget(folder)
    assert cli.call(["new", str(folder), "--json"]) == 0
    for old, new in (
        ("trials=5", "trials=1"),
        ("n_estimators=50", "n_estimators=10, subsample=0.7, subsample_freq=1"),
        ("        fb.model_latency <= ms(5),\n", ""),
        ("hours, ms, roc_auc", "hours, roc_auc"),
    ):
        edit(folder / "app.py", old, new)
    return folder


def edit(file: Path, old: str, new: str) -> None:
    """Replace what is there once."""
    text = file.read_text()
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new))


def forget(project: Path) -> None:
    """Import nothing of a project as it was before."""
    for name in [n for n in sys.modules if n == project.name or n.startswith(f"{project.name}.")]:
        del sys.modules[name]
    sys.path[:] = [path for path in sys.path if path != str(project.parent)]


def opened(project: Path, home: Path | None = None) -> Session:
    """The project as it stands on disk now, also when another one of its name was imported before."""
    forget(project)
    loaded = runtime.load(str(project))
    return runtime.open(loaded.app, Placement(root=loaded.root, home=home))


def done(session: Session) -> list[Done]:
    """All finished steps, in order."""
    kinds = frozenset({facts.kind(Done)})
    return [facts.decode(fact, Done) for fact in session.facts.read(kinds=kinds)]


def content(session: Session) -> dict[str, Any]:
    """All that a home says and should say however often its making was interrupted; times and measured numbers left out."""
    steps = {d.key: d for d in done(session)}
    return {
        "facts": dict(Counter(fact.kind for fact in session.facts.read())),
        "keys": {key: (d.step, d.causes) for key, d in steps.items()},
        "artifacts": {d.step: d.outputs for d in steps.values() if d.step in REPEATING},
        "decisions": {d.step: d.outputs.get("decision") for d in steps.values()},
        "versions": [d.outputs["version"] for d in steps.values() if d.step == "register"],
        "rows": [_rows(session, table) for table in session.app.tables()],
        "online": _online(session.home / "online.sqlite"),
        "route": (route := session.routes.read()) and {n: (a.epoch, a.champion) for n, a in route.models.items()},
    }


def _rows(session: Session, table: type[contract.Contract]) -> list[tuple[Any, ...]]:
    rows = dataset.read(session.tables, table, dataset.latest(session.tables, table))
    return rows.sort(pl.all()).collect().rows()


def _online(file: Path) -> list[list[tuple[Any, ...]]]:
    """Series by name: their numbers may differ."""
    with sqlite3.connect(file) as state:
        found = [
            state.execute(f"SELECT s.name, t.* FROM {table} t JOIN series s ON s.id = t.series").fetchall()
            for table in ("versions", "steps")
        ]
        positions = state.execute("SELECT name, position FROM series").fetchall()
    state.close()
    return [sorted(positions), *(sorted(((n, *rest) for n, _, *rest in rows), key=repr) for rows in found)]
