"""Who did what: every fact that names a person is told, every verb that asks who it is leaves one, and lies in it show."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import flyball
from flyball import cli
from flyball._kernel import facts
from flyball._kernel.errors import StateError
from flyball._kernel.facts import Fact, Said
from flyball.cli import opening
from flyball.cycle import audit
from flyball.cycle.touched import Touched
from flyball.release.rollout import Paused, Promoted, Resumed
from flyball.serve.auth import Key, digest
from tests.loops import World

NOW = datetime(2026, 11, 20, tzinfo=UTC)
CLI = Path(flyball.__file__).parent / "cli"


def kinds(of: type[Said] = Said) -> Iterator[type[Said]]:
    for each in of.__subclasses__():
        yield each
        yield from kinds(each)


def persons() -> list[type[Said]]:
    """Every kind of fact that says who."""
    for found in pkgutil.walk_packages(flyball.__path__, "flyball."):
        if found.name.split(".")[1] in ("data", "learn", "release", "serve", "watch", "cycle"):
            importlib.import_module(found.name)
    ours = [k for k in kinds() if k.__module__.startswith("flyball.") and not k.__module__.startswith("flyball.checks")]
    # By whom held-out rows were seen is a version there, or a verb: no person.
    return [k for k in ours if "by" in {f.name for f in msgspec.structs.fields(k)} and k is not Touched]


def test_every_fact_that_names_a_person_is_told() -> None:
    assert {facts.kind(k) for k in persons()} == set(audit.WORDS)


def some(kind: type[Said]) -> Said:
    """A fact of a kind, with something in every field."""
    values = {str: "x", int: 1, bool: True, datetime: NOW, float: 1.0}
    made: dict[str, Any] = {}
    for each in msgspec.structs.fields(kind):
        if each.required:
            made[each.name] = next((v for t, v in values.items() if str(t.__name__) in str(each.type)), None)
            if "tuple" in str(each.type) or "dict" in str(each.type):
                made[each.name] = {} if "dict" in str(each.type) else ()
    return kind(**{**made, "by": "ada"})


def test_every_one_of_them_has_words_and_no_blanks() -> None:
    world = World()
    for kind in persons():
        world.session().facts.append([Fact("till", "till", some(kind))])
    told = audit.deeds(world.session())
    assert len(told) == len(audit.WORDS)
    for deed in told:
        assert deed.by == "ada" and deed.what and "{" not in deed.what and "None" not in deed.what, deed


def log() -> World:
    """Three persons and the loop."""
    world = World()
    session = world.session()

    def said(said: Said, app: str = "till") -> None:
        session.facts.append([Fact(app, "till", said)])
        world.clock.advance(timedelta(hours=1))

    world.to(NOW)
    said(Promoted(version="till-1", previous="", epoch=1, reason="passed its gates"))
    said(Paused(reason="lunch", by="ada"))
    said(Resumed(by="bob"))
    said(Paused(reason="theirs", by="ada"), app="other")
    said(Promoted(version="till-2", previous="till-1", epoch=2, reason="a feast day", by="ada", overridden=True))
    audit.record(session, "data compact", None, by="eve")
    return world


def test_what_persons_did_newest_first() -> None:
    session = log().session()
    told = [(d.by, d.what, d.reason) for d in audit.deeds(session)]
    assert told == [
        ("eve", "data compact", ""),
        ("ada", "made till-2 champion although its gates did not", "a feast day"),
        ("bob", "resumed till", ""),
        ("ada", "paused till", "lunch"),
    ], "not what the loop did, nor what was done to another app"
    assert [d.by for d in audit.deeds(session, since=NOW + timedelta(hours=4))] == ["eve", "ada"]
    assert [d.what[:6] for d in audit.deeds(session, by="ada")] == ["made t", "paused"]


def test_a_history_that_was_changed_is_not_told() -> None:
    world = log()
    first = world.log.transactions[0]
    altered = msgspec.structs.replace(first.facts[0], said=first.facts[0].said.replace(b"till-1", b"till-9"))
    world.log.transactions[0] = msgspec.structs.replace(first, facts=(altered, *first.facts[1:]))
    with pytest.raises(StateError, match="history-broken"):
        audit.deeds(world.session())


def test_no_verb_asks_who_it_is_and_forgets_it() -> None:
    """Every verb that needs a key hands its name on, to a fact."""
    asked = 0
    for file in CLI.glob("*.py"):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            asked += isinstance(node, ast.Call) and ast.unparse(node.func) == "operating.who"
            forgets = isinstance(node, ast.Expr) and ast.unparse(node).startswith("operating.who(")
            assert not forgets, f"{file.name}:{node.lineno}"  # type: ignore[attr-defined]
    assert asked >= 12


def test_on_the_command_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    session = log().session()
    monkeypatch.setattr(opening, "session", lambda *_, **__: session)

    def said(*arguments: str) -> Any:
        assert cli.call(["audit", "till", "--json", *arguments]) == 0
        return json.loads(capfd.readouterr().out)

    assert [d["by"] for d in said()["deeds"]] == ["eve", "ada", "bob", "ada"]
    newest = said("--last", "1")
    assert (len(newest["deeds"]), newest["found"]) == (1, 4)
    assert [d["by"] for d in said("--since", "150m")["deeds"]] == ["eve", "ada"]
    assert [d["by"] for d in said("--since", "2026-11-20T03:30:00", "--by", "ada")["deeds"]] == ["ada"]
    assert cli.call(["audit", "till", "--since", "yesterday"]) == 2
    capfd.readouterr()
    assert cli.call(["audit", "till"]) == 0
    assert "a feast day" in capfd.readouterr().out


def test_a_restored_home_says_that_it_was(tmp_path: Path) -> None:
    world = log()
    session = world.session()
    audit.restored(session.facts, "20261120T000000-7.backup.json")
    newest = audit.deeds(session)[0]
    assert (newest.by, newest.what) == (audit.HOLDER, "restore 20261120T000000-7.backup.json")
    with pytest.raises(ValueError, match="name"):
        Key(name=audit.HOLDER, sha256=digest("x"), scopes=frozenset())
    empty = World().session().facts
    audit.restored(empty, "of nothing")
    assert empty.head().tx == 0
