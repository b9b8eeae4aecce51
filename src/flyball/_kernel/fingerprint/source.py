"""From a live function or class back to its statement in the source, and to what that statement says.

A file is parsed once per content, and earlier parses are kept: when a file was edited while the process runs, the old code
is still found in the old text. A function is found by its code object (name, line, and columns for lambdas that share
a line); where the import system compiled the file as it stands, the code must equal what the text compiles to, so that
stale text is never taken for the code that runs. A class is found by its qualified name and the lines of its methods.

`normal` is the text without what does not act: layout, comments, docstrings, `pass`, annotations of functions. Annotations in
a class body stay, because dataclasses, structs and knobs are made from them.
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import os
import warnings
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from types import CodeType, FunctionType

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef
Function = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_KEPT = 4


class Missing(Exception):
    """There is no text for this code; the message says why."""


class Site:
    """One definition in one file."""

    def __init__(self, path: str, node: Definition | ast.Module) -> None:
        self.path = path
        self.node = node

    @property
    def line(self) -> int:
        """The first line of the definition, below its decorators."""
        return getattr(self.node, "lineno", 1)

    def spans(self, line: int) -> bool:
        """Whether a line of the file lies within it."""
        return self.line <= line <= (getattr(self.node, "end_lineno", None) or 0)

    def undecorated(self) -> Site:
        """The same definition without its outermost decorator."""
        node = copy.copy(self.node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.decorator_list = node.decorator_list[1:]
        return Site(self.path, node)

    @functools.cached_property
    def syntax(self) -> str:
        """The SHA-256 of the normalised syntax tree."""
        return hashlib.sha256(normal(self.node).encode("utf-8", "surrogatepass")).hexdigest()


class Text:
    """One file as it was at one time."""

    def __init__(self, path: str, data: bytes, stamp: tuple[int, int]) -> None:
        self.path, self.data, self.stamp = path, data, stamp
        with warnings.catch_warnings(action="ignore"):  # said when it was imported
            self.tree = ast.parse(data, path)
        self.functions: dict[tuple[str, int], list[Site]] = {}
        self.classes: dict[str, list[Site]] = {}
        self._index(self.tree, "")

    def _index(self, node: ast.AST, qualname: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = qualname
            if isinstance(child, Function):
                name = "<lambda>" if isinstance(child, ast.Lambda) else child.name
                self.functions.setdefault((name, _first_line(child)), []).append(Site(self.path, child))
                inner = f"{qualname}{name}.<locals>."
            elif isinstance(child, ast.ClassDef):
                self.classes.setdefault(f"{qualname}{child.name}", []).append(Site(self.path, child))
                inner = f"{qualname}{child.name}."
            self._index(child, inner)

    @functools.cached_property
    def module(self) -> Site:
        """The whole file."""
        return Site(self.path, self.tree)

    @functools.cached_property
    def codes(self) -> dict[tuple[str, int], list[CodeType]]:
        """What the text compiles to."""
        found: dict[tuple[str, int], list[CodeType]] = {}
        with warnings.catch_warnings(action="ignore"):
            module = compile(self.tree, self.path, "exec", dont_inherit=True)
        for code in nested(module):
            found.setdefault((code.co_name, code.co_firstlineno), []).append(code)
        return found

    def holds(self, code: CodeType) -> bool:
        """Whether the text compiles to this code."""
        return code in self.codes.get((code.co_name, code.co_firstlineno), ())

    def function(self, code: CodeType) -> Site | None:
        """The definition that a code object was compiled from, by position."""
        sites = self.functions.get((code.co_name, code.co_firstlineno), [])
        if code.co_name == "<lambda>" and len(sites) > 1:
            sites = _around(code, sites)
        return sites[0] if sites and len({site.syntax for site in sites}) == 1 else None


_STALE = "its file was changed after it was imported, so what runs is no longer what it says"
_texts: dict[str, list[Text]] = {}


def of_function(function: FunctionType) -> Site:
    """The definition of a function.

    Raises:
        Missing: if its source is not there, or is no longer what runs.
    """
    code = function.__code__
    path = os.path.abspath(code.co_filename)
    for text in _known(path):
        if not _strict(function) or text.holds(code):
            site = text.function(code)
            if site is None:
                raise Missing("several definitions share its line, and cannot be told apart")
            return site
    raise Missing(_STALE)


def of_class(cls: type, path: str) -> Site | None:
    """The statement of a class in its file; None for a class that was made by a call.

    Raises:
        Missing: if its source is not there, or several statements fit.
    """
    methods = [
        m
        for m in (_plain(v) for v in vars(cls).values())
        if isinstance(m, FunctionType)
        and m.__code__.co_qualname.startswith(f"{cls.__qualname__}.")
        and os.path.abspath(m.__code__.co_filename) == path
    ]
    named = False
    for text in _known(path):
        sites = text.classes.get(cls.__qualname__, [])
        named = named or bool(sites)
        if methods:
            current = all(text.holds(m.__code__) for m in methods if _strict(m))
            sites = [s for s in sites if current and any(s.spans(m.__code__.co_firstlineno) for m in methods)]
        if len({site.syntax for site in sites}) > 1:
            raise Missing("several classes of this name stand in its file")
        if sites:
            return sites[0]
    if named:
        raise Missing(_STALE)
    return None


def of_file(path: str) -> Site:
    """A whole module.

    Raises:
        Missing: if its source is not there.
    """
    return next(_known(path)).module


def _known(path: str) -> Iterator[Text]:
    """The texts of a file: as it is now, then as it was."""
    texts = _texts.setdefault(path, [])
    try:
        status = os.stat(path)
        stamp = status.st_mtime_ns, status.st_size
        if not texts or texts[0].stamp != stamp:
            _read(path, stamp)
    except (OSError, SyntaxError, ValueError) as problem:
        if not texts:
            raise Missing(f"its source cannot be read: {problem}") from problem
    yield from tuple(texts)
    # A file that is rewritten within one tick of the file system's clock keeps its stamp.
    if texts and os.path.exists(path) and _read(path, texts[0].stamp):
        yield texts[0]


def _read(path: str, stamp: tuple[int, int]) -> bool:
    texts = _texts[path]
    with open(path, "rb") as file:
        data = file.read()
    if texts and texts[0].data == data:
        texts[0].stamp = stamp
        return False
    texts.insert(0, Text(path, data, stamp))
    del texts[_KEPT:]
    return True


def nested(code: CodeType) -> Iterator[CodeType]:
    """A code object and all that it holds."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested(constant)


def bound(scope: ast.AST) -> Iterator[str]:
    """Names that a scope binds: assignments, arguments, definitions, imports; not what inner functions and classes bind."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        elif isinstance(child, ast.arg):
            yield child.arg
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield child.name
        elif isinstance(child, ast.alias):
            yield child.asname or child.name.partition(".")[0]
        elif isinstance(child, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and child.name:
            yield child.name
        elif isinstance(child, ast.MatchMapping) and child.rest:
            yield child.rest
        if not isinstance(child, (*Function, ast.ClassDef)):
            yield from bound(child)


def normal(node: ast.AST, *, function: bool = True) -> str:
    """What a statement says, without what does not act; `function` is False directly in a class body."""
    if isinstance(node, ast.AnnAssign) and function:
        if node.value is None:
            return ""
        return normal(ast.Assign(targets=[node.target], value=node.value))
    inside = False if isinstance(node, ast.ClassDef) else function or isinstance(node, Function)
    parts = [type(node).__name__]
    for field, value in ast.iter_fields(node):
        if field in _SILENT or (field == "annotation" and isinstance(node, ast.arg)):
            continue
        if isinstance(value, list):
            said = [normal(v, function=inside) if isinstance(v, ast.AST) else repr(v) for v in value if not _idle(v)]
            parts.append(f"{field}=[{','.join(filter(None, said))}]")
        else:
            parts.append(f"{field}={normal(value, function=inside) if isinstance(value, ast.AST) else repr(value)}")
    return f"({' '.join(parts)})"


_SILENT = frozenset({"ctx", "kind", "type_comment", "type_ignores", "returns", "type_params"})


def _idle(node: object) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _first_line(node: Definition) -> int:
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return min([node.lineno, *(d.lineno for d in decorators)])


def _strict(function: FunctionType) -> bool:
    """Whether its file was compiled as it stands; pytest, for one, rewrites the assertions of test files."""
    return type(function.__globals__.get("__loader__")) is SourceFileLoader


def _plain(value: object) -> object:
    """The function behind a method."""
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    return value.fget if isinstance(value, property) else value


def _around(code: CodeType, sites: list[Site]) -> list[Site]:
    """The lambdas whose body spans the instructions most closely; what has no columns was added by the compiler."""
    spots = [p for p in code.co_positions() if None not in p and (p[2], p[3]) != (0, 0)]
    if not spots:
        return sites
    first = min((line, column) for line, _, column, _ in spots if line is not None and column is not None)
    last = max((line, column) for _, line, _, column in spots if line is not None and column is not None)
    spans = [
        (body.lineno, body.col_offset, body.end_lineno or 0, body.end_col_offset or 0, site)
        for site, body in ((s, s.node.body) for s in sites if isinstance(s.node, ast.Lambda))
    ]
    fits = [s for s in spans if s[:2] <= first and last <= s[2:4]]
    return [max(fits, key=lambda s: s[:2])[4]] if fits else []
