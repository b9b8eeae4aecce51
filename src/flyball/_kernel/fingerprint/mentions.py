"""What a definition mentions: names with the attributes taken from them, imports within it, and what cannot be followed.

`prep.clean(x)` mentions `prep` with the attribute `clean`; so does `getattr(prep, "clean")`. Only the syntax is read here:
whether a name is a global, and what it stands for now, is for `code` to say.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from flyball._kernel.fingerprint import source


@dataclass(frozen=True, slots=True)
class Mention:
    """A name that is read, with attributes; `computed` if an attribute whose name is computed is taken from it."""

    root: str
    attributes: tuple[str, ...]
    line: int
    computed: bool = False


@dataclass(frozen=True, slots=True)
class Import:
    """An import within a function: `from module import name as alias`; `name` is empty for `import module`."""

    module: str
    level: int
    name: str
    alias: str
    line: int


@functools.lru_cache(maxsize=4096)
def of_body(function: ast.AST) -> tuple[Mention | Import, ...]:
    """All that the body of a function mentions, inner definitions included; its decorators and defaults are left out."""
    if isinstance(function, ast.Lambda):
        return tuple(_visit(function.body, frozenset(), bodies=True))
    if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return tuple(m for statement in function.body for m in _visit(statement, frozenset(), bodies=True))
    return ()


@functools.lru_cache(maxsize=4096)
def of_statement(definition: ast.AST) -> tuple[Mention | Import, ...]:
    """What is evaluated where a definition stands: decorators, bases, and a class body without its methods' bodies."""
    evaluated: list[ast.AST] = []
    if isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef)):
        evaluated = [*definition.decorator_list]
    elif isinstance(definition, ast.ClassDef):
        evaluated = [*ast.iter_child_nodes(definition)]
    return tuple(m for node in evaluated for m in _visit(node, frozenset(), bodies=False))


def _visit(node: ast.AST, hidden: frozenset[str], *, bodies: bool) -> Iterator[Mention | Import]:
    """Mentions below a node, except of names that a lambda or comprehension around it binds; in function bodies on demand."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from _imports(node)
        return
    chain = _chain(node)
    computed = _computed(node) if isinstance(node, ast.Call) else None
    yield from (m for m in (chain, computed) if m is not None and m.root not in hidden)
    if chain is not None:
        return
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not bodies:
        yield from of_statement(node)
        return
    if isinstance(node, (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        hidden = hidden | frozenset(source.bound(node))
    for child in ast.iter_child_nodes(node):
        yield from _visit(child, hidden, bodies=bodies)


def _chain(node: ast.AST) -> Mention | None:
    """`a.b.c` or `getattr(a.b, "c")` as a mention; None for anything else."""
    if isinstance(node, ast.Name):
        return Mention(node.id, (), node.lineno)
    if isinstance(node, ast.Attribute):
        inner, last = _chain(node.value), node.attr
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "getattr"
        and len(node.args) == 2
        and isinstance(node.args[1], ast.Constant)
    ):
        inner, last = _chain(node.args[0]), str(node.args[1].value)
    else:
        return None
    return Mention(inner.root, (*inner.attributes, last), node.lineno) if inner is not None else None


def _computed(call: ast.Call) -> Mention | None:
    """`getattr(a.b, name)`: an attribute that only running the code would tell. `vars()`: all the local names."""
    if not isinstance(call.func, ast.Name):
        return None
    if call.func.id == "vars" and not call.args:
        return Mention("vars", (), call.lineno, computed=True)
    if call.func.id != "getattr" or len(call.args) < 2 or isinstance(call.args[1], ast.Constant):
        return None
    inner = _chain(call.args[0])
    return Mention(inner.root, inner.attributes, call.lineno, computed=True) if inner is not None else None


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[Import]:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield Import(node.module or "", node.level, alias.name, alias.asname or alias.name, node.lineno)
        else:
            yield Import(alias.name, 0, "", alias.asname or "", node.lineno)
