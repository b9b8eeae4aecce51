"""Every code of an error has a heading in docs/reference/errors.md that names its class, and every heading has a code.

Codes are collected from the syntax trees: the first argument of each call of an error class. Where that is not a literal,
it is followed as far as the module goes: the branches of a condition, the literals that callers pass for a parameter, or
the first items of the tuples that a generator of the module yields. What cannot be followed fails the test.
"""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import flyball

SRC = Path(flyball.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
CLASSES = {"DeclarationError", "DataError", "StateError", "AdapterError", "RetryableError", "GateError", "Bug"}
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+|[a-z]+")
HEADING = re.compile(r"^### `(?P<slug>[^`]+)`\n\n(?P<classes>(?:[A-Za-z]+(?: or |, )?)+)\.", re.MULTILINE)


def literals(node: ast.expr) -> list[str] | None:
    """The strings that an expression can be; None if that cannot be told."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        branches = [literals(node.body), literals(node.orelse)]
        return [s for b in branches for s in b or ()] if None not in branches else None
    return None


def passed(name: str, inside: ast.FunctionDef | None, tree: ast.Module) -> list[str]:
    """The literals that the module gives to a variable: for a parameter by its callers, else by tuples that it yields."""
    found: list[str] = []
    parameters = [a.arg for a in (*inside.args.args, *inside.args.kwonlyargs)] if inside is not None else []
    for node in ast.walk(tree):
        if name in parameters and inside is not None and isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == inside.name:
                given = {k.arg: k.value for k in node.keywords} | dict(zip(parameters, node.args, strict=False))
                found += literals(given[name]) or [] if name in given else []
        elif name not in parameters and isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            found += literals(node.value.elts[0]) or []
    return found


@functools.cache
def raised() -> tuple[dict[str, set[str]], list[str]]:
    """Code -> classes; and the calls whose code cannot be followed."""
    found: dict[str, set[str]] = defaultdict(set)
    lost: list[str] = []
    for file in sorted(SRC.rglob("*.py")):
        tree = ast.parse(file.read_text())
        for inside, call in calls(tree, None):
            name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
            if name not in CLASSES or not call.args:
                continue
            code = call.args[0]
            codes = literals(code)
            if codes is None and isinstance(code, ast.Name):
                codes = passed(code.id, inside, tree)
            if not codes:
                lost.append(f"{file.relative_to(SRC)}:{call.lineno}")
            for each in codes or ():
                found[each].add(name)
    return found, lost


def calls(node: ast.AST, inside: ast.FunctionDef | None) -> Iterator[tuple[ast.FunctionDef | None, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield inside, child
        yield from calls(child, child if isinstance(child, ast.FunctionDef) else inside)


def documented() -> dict[str, set[str]]:
    return {m["slug"]: set(re.split(r" or |, ", m["classes"])) for m in HEADING.finditer(PAGE.read_text())}


def test_every_code_can_be_followed_and_is_a_slug() -> None:
    found, lost = raised()
    assert not lost
    assert len(found) > 100
    assert [code for code in found if not SLUG.fullmatch(code)] == []


def test_every_code_has_a_heading_and_every_heading_a_code() -> None:
    codes, headings = set(raised()[0]), set(documented())
    assert codes - headings == set(), "not documented in docs/reference/errors.md"
    assert headings - codes == set(), "documented, but raised nowhere"


def test_every_heading_names_the_classes_that_raise_it() -> None:
    codes, headings = raised()[0], documented()
    assert {c: headings[c] for c in codes if c in headings and headings[c] != codes[c]} == {}


def test_headings_are_sorted_and_stand_once() -> None:
    slugs = re.findall(r"^### `([^`]+)`", PAGE.read_text(), re.MULTILINE)
    assert slugs == sorted(set(slugs))


def test_every_error_says_what_to_do() -> None:
    sections = re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert [s.splitlines()[0] for s in sections if "**Next:**" not in s] == []
