"""The reference names all there is: public names, verbs with their options, layers, and a decision for each dependency."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from typer.main import get_command

import flyball
from flyball import cli
from flyball.serve import auth, http
from flyball.serve.dialects import native

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))


def sections(page: Path, level: int = 3) -> dict[str, str]:
    """Heading in backquotes -> its text."""
    parts = re.split(rf"^{'#' * level} `([^`]+)`.*$", page.read_text(), flags=re.MULTILINE)
    assert len(parts[1::2]) == len(set(parts[1::2])), "a heading stands twice"
    return {name: text.split("\n## ")[0] for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_public_name_has_a_heading_and_every_heading_a_name() -> None:
    assert set(sections(DOCS / "reference" / "declarations.md")) == set(flyball.__all__)


def test_every_public_name_is_told_in_a_sentence() -> None:
    short = [n for n, text in sections(DOCS / "reference" / "declarations.md").items() if len(text.strip()) < 40]
    assert not short


def commands() -> dict[str, Any]:
    """Every verb by its words, those of groups such as `data profile` included."""
    found: dict[str, Any] = {}
    for name, command in get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        parts = getattr(command, "commands", None)
        found |= {f"{name} {part}": verb for part, verb in parts.items()} if parts else {name: command}
    return found


def test_every_verb_has_a_heading_with_all_its_options() -> None:
    verbs = commands()
    told = sections(DOCS / "reference" / "verbs.md")
    assert set(told) == {f"flyball {name}" for name in verbs}
    missing = []
    for name, verb in verbs.items():
        text = told[f"flyball {name}"]
        for parameter in verb.params:
            argument = parameter.metavar or parameter.name.upper()
            names = parameter.opts if parameter.param_type_name == "option" else [argument]
            missing += [f"{name} {n}" for n in names if n != "--help" and f"- `{n}`" not in text]
    assert not missing


def test_no_verb_is_told_with_an_option_that_it_lacks() -> None:
    extra = []
    for name, verb in commands().items():
        known = {o for p in verb.params for o in p.opts}
        text = sections(DOCS / "reference" / "verbs.md")[f"flyball {name}"]
        extra += [f"{name} {o}" for o in re.findall(r"`(--[a-z-]+)", text) if o not in known]
    assert not extra


def test_the_http_reference_names_pages_scopes_and_metrics() -> None:
    page = (DOCS / "reference" / "http.md").read_text()
    source = Path(flyball.__file__).parent / "serve"
    metrics = re.findall(r'"(flyball_\w+)"', (source / "tally.py").read_text())
    told = [native.PREDICT, http.OUTCOMES, f"{http.RECORDED}ID", "/healthz", "/readyz", *metrics, *auth.SCOPES]
    assert len(metrics) > 5
    spans = re.findall(r"`([^`\n]+)`", page)
    assert [
        name for name in told if not any(span.removeprefix("POST ").removeprefix("GET ") == name for span in spans)
    ] == []


def test_the_layers_in_the_docs_are_those_that_the_linter_holds() -> None:
    contract = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    page = (DOCS / "explanation" / "layers.md").read_text()
    diagram = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert diagram is not None
    drawn = [line.split("  ")[0].strip() for line in diagram[1].strip().splitlines()]
    assert drawn == contract["layers"]
    assert contract["exhaustive"] is True


def test_every_room_of_the_tree_is_in_a_layer() -> None:
    contract = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    rooms = {room.strip() for layer in contract["layers"] for room in layer.split("|")}
    source = Path(flyball.__file__).parent
    found = {p.stem for p in source.iterdir() if p.suffix == ".py" or p.is_dir()} - {"__init__", "__pycache__"}
    assert found == rooms


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    assert [int(p.name[:4]) for p in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    index = (DOCS / "decisions" / "README.md").read_text()
    assert [p.name for p in DECISIONS if f"({p.name})" not in index] == []


def test_every_decision_says_why_and_what_would_change_it() -> None:
    wanted = ["## Context", "## Decision", "## Consequences", "## What would change our mind"]
    short = [p.name for p in DECISIONS if re.findall(r"^## .+$", p.read_text(), re.MULTILINE) != wanted]
    assert not short


def test_every_core_dependency_has_a_decision() -> None:
    texts = " ".join(p.read_text() for p in DECISIONS)
    names = [re.split(r"[><=;\s]", d)[0] for d in PROJECT["project"]["dependencies"]]
    assert [n for n in names if f"`{n}`" not in texts] == []


def test_the_changelog_has_a_place_for_what_is_not_released_yet() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[?Unreleased\]?", text, re.MULTILINE)
    assert set(re.findall(r"^### (\w+)$", text, re.MULTILINE)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }
