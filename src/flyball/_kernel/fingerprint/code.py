"""What a definition reaches: the live objects behind the names in its source, as they are bound now.

A function reaches its defaults, its closure cells, what it wraps, the globals that it and its inner functions read (through
attributes of first-party modules to what is meant), imports in its body, and what its decorators mention. A class reaches
its bases, its metaclass, all that its body binds, and first-party functions attached later. A module that is passed around
whole reaches all that it binds. Each reached thing keeps its label; how it is encoded is for whoever asked to know.

What cannot be followed is refused with its name and line: code without source, `eval` and its kin, computed attributes of
first-party modules, unbound names.
"""

from __future__ import annotations

import builtins
import dis
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from types import CodeType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

from flyball._kernel.errors import DeclarationError
from flyball._kernel.fingerprint import mentions, origin, source
from flyball._kernel.fingerprint.mentions import Import, Mention
from flyball._kernel.place import Place

Definition = FunctionType | type | ModuleType

_OPEN: Mapping[int, str] = {
    id(f): f.__qualname__
    for f in (eval, exec, globals, locals, __import__, importlib.import_module, importlib.__import__)
}
"""What reaches names that only running the code would tell. Each lives as long as the process, so its id names it."""

_SLOTS = (MemberDescriptorType, GetSetDescriptorType)


@dataclass(frozen=True, slots=True)
class Token:
    """Something reached that words say in full, such as an import that is absent."""

    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Reach:
    """A definition: its own syntax, and label -> object of all that it reaches at first hand.

    Attributes:
        name: what a person calls it; not fingerprinted.
        site: where it stands; not fingerprinted.
        syntax: normalised.
        reached: sorted by label.
        lines: label -> line, for errors.
    """

    name: str
    site: Place
    syntax: str
    reached: Mapping[str, object]
    lines: Mapping[str, int] = field(default_factory=dict)

    def place(self, label: str) -> Place:
        """The line where something is reached."""
        return Place(self.site.file, self.lines.get(label, self.site.line))


def reach(definition: Definition) -> Reach:
    """What a first-party function, class or module says and reaches.

    Raises:
        DeclarationError: `cannot-follow`.
    """
    if isinstance(definition, FunctionType):
        return _function(definition)
    return _class(definition) if isinstance(definition, type) else _module(definition)


DECLARED = "__flyball_declared__"
"""Set on a function whose outermost decorator is a declaration of ours, which returns a value with a fingerprint of its own:
what that decorator is told is no part of what the function does."""


class _Following:
    """One definition, being followed."""

    def __init__(self, name: str, site: source.Site, namespace: Mapping[str, Any]) -> None:
        self.name, self.site, self.namespace = name, site, namespace
        self.imports: dict[str, list[Import]] = {}
        self.reached: dict[str, object] = {}
        self.lines: dict[str, int] = {}

    def done(self) -> Reach:
        """All that was found."""
        place = Place(self.site.path, self.site.line)
        return Reach(self.name, place, self.site.syntax, dict(sorted(self.reached.items())), self.lines)

    def add(self, label: str, value: object, line: int) -> None:
        """Something reached."""
        self.reached[label] = value
        self.lines.setdefault(label, line)

    def refuse(self, what: str, why: str, line: int) -> DeclarationError:
        """The error for something that cannot be followed."""
        return DeclarationError(
            "cannot-follow",
            f"{self.name} {what}, which cannot be followed.",
            where=Place(self.site.path, line),
            why=f"{why} A step runs again only if what it reaches has changed, so all of it must be known.",
            next="Name functions and values directly, pass them as arguments, or install the code as a distribution.",
        )

    def follow(self, mention: Mention, *, past: bool = False) -> None:
        """Add what a mention stands for, now and under every import of that name.

        A name that was read in the past, when the definition was made, may be gone by now, or never have been a global:
        what came of it is seen in the attributes and cells that hold it.
        """
        for i, statement in enumerate(self.imports.get(mention.root, ())):
            self.descend(f"{mention.root} (import {i})", self.imported(statement), mention)
        if mention.root in self.namespace:
            self.descend(mention.root, self.namespace[mention.root], mention)
        elif hasattr(builtins, mention.root):
            self.descend(mention.root, getattr(builtins, mention.root), mention)
        elif mention.root not in self.imports and not past:
            raise self.refuse(f"reads {mention.root!r}", "The name is bound nowhere.", mention.line)

    def descend(self, label: str, value: object, mention: Mention) -> None:
        """Go from a first-party module to what is taken from it, and add that."""
        owner = self.namespace
        for attribute in mention.attributes:
            if not isinstance(value, ModuleType):
                break
            if not origin.first_party(value):
                # Not `getattr`: libraries load their parts lazily, and a version says all there is to say of them.
                found = vars(value).get(attribute)
                label, value = (f"{label}.{attribute}", found) if id(found) in _OPEN else (label, value)
                break
            label, owner = f"{label}.{attribute}", vars(value)
            if attribute == "__dict__" or not hasattr(value, attribute):
                raise self.refuse(f"reads {label}", "No single name of the module is meant by it.", mention.line)
            value = getattr(value, attribute)
        if id(value) in _OPEN:
            raise self.refuse(f"uses {label}", "It can reach any name that it is told at run time.", mention.line)
        if not mention.computed:
            self.add(label, _portable(value, owner), mention.line)
        elif value is vars or (isinstance(value, ModuleType) and origin.first_party(value)):
            raise self.refuse(f"takes a computed name from {label!r}", "Only running it tells which.", mention.line)

    def imported(self, statement: Import) -> object:
        """What an import inside a function binds. First-party modules are imported, as running the function would do."""
        full = f"{'.' * statement.level}{statement.module}.{statement.name}".rstrip(".")
        try:
            package = str(self.namespace.get("__package__") or "")
            name = importlib.util.resolve_name("." * statement.level + statement.module, package)
            full = f"{name}.{statement.name}".rstrip(".")
            if not origin.exists(name):
                return Token("absent", full)
            owner = origin.label(name)
            if owner not in (None, origin.PYTHON):
                return Token("import", f"{owner} {full}")
            module = importlib.import_module(name)
            if not statement.name:
                return module if statement.alias else sys.modules[name.partition(".")[0]]
            return getattr(module, statement.name) if hasattr(module, statement.name) else importlib.import_module(full)
        except ImportError as problem:
            raise self.refuse(f"imports {full!r}", f"{problem}.", statement.line) from problem

    def statement(self) -> None:
        """Follow what was evaluated when the definition was made."""
        for each in mentions.of_statement(self.site.node):
            if isinstance(each, Mention):
                self.follow(each, past=True)

    def body(self, reads: frozenset[str]) -> None:
        """Follow what a function reads when it runs: imports of its own, and names that its code looks up globally."""
        found = mentions.of_body(self.site.node)
        for each in found:
            if isinstance(each, Import):
                self.imports.setdefault(each.alias or each.module.partition(".")[0], []).append(each)
        seen = set(_IMPLICIT)
        for each in found:
            if isinstance(each, Mention) and (each.root in self.imports or each.root in reads):
                self.follow(each)
                seen.add(each.root)
        # What the compiler reads without such a name in the text, as a private name with its class's prefix.
        for hidden in sorted(reads - seen):
            self.follow(Mention(hidden, (), self.site.line))


def _function(function: FunctionType) -> Reach:
    code = function.__code__
    name = f"{function.__module__}.{function.__qualname__}"
    try:
        site = source.of_function(function)
    except source.Missing as missing:
        raise _sourceless(name, code.co_filename, code.co_firstlineno, missing) from missing
    if DECLARED in vars(function):
        site = site.undecorated()
    following = _Following(name, site, function.__globals__)
    following.statement()
    following.body(_global_reads(code))
    for label, value in held(function).items():
        following.add(label, value, code.co_firstlineno)
    return following.done()


def held(function: FunctionType) -> dict[str, object]:
    """What a function holds besides its code; all that is known of a closure whose code is somebody else's."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    held: dict[str, object] = {f"closure cell {name!r}": _content(cell) for name, cell in cells}
    if function.__defaults__:
        held["default arguments"] = function.__defaults__
    if function.__kwdefaults__:
        held["keyword defaults"] = function.__kwdefaults__
    if "__wrapped__" in vars(function):
        held["wrapped function"] = vars(function)["__wrapped__"]
    return held


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return Token("cell", "empty")


@functools.lru_cache(maxsize=4096)
def _global_reads(code: CodeType) -> frozenset[str]:
    """Names that the code and what is nested in it look up outside of every function; `@` marks pytest's own."""
    found: set[str] = set()
    for part in source.nested(code):
        if part.co_name == "__annotate__":
            continue
        names = [
            (i.opname, str(i.argval)) for i in dis.get_instructions(part) if "_NAME" in i.opname or "GLOBAL" in i.opname
        ]
        own = {name for operation, name in names if operation == "STORE_NAME"}
        found.update(name for operation, name in names if operation in _LOADS and name not in own)
    return frozenset(name for name in found if not name.startswith("@"))


_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_IMPLICIT = frozenset({"__name__", "__qualname__", "__annotations__"})
"""What a class statement within a function reads on its own account."""


def _class(cls: type) -> Reach:
    name = f"{cls.__module__}.{cls.__qualname__}"
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        raise _sourceless(name, cls.__module__, 1, source.Missing("its module has no file"))
    try:
        site = source.of_class(cls, os.path.abspath(file))
    except source.Missing as missing:
        raise _sourceless(name, file, 1, missing) from missing
    if site is None:
        return _made_by_call(cls, name, file)
    following = _Following(name, site, vars(module))
    following.statement()
    for label, value in {**_ancestry(cls), **_attributes(cls, site)}.items():
        following.add(label, value, site.line)
    return following.done()


def _ancestry(cls: type) -> dict[str, object]:
    found: dict[str, object] = {f"base {i}": b for i, b in enumerate(cls.__bases__) if b is not object}
    if type(cls) is not type:
        found["metaclass"] = type(cls)
    if issubclass(cls, Enum):
        found["members"] = {n: member.value for n, member in cls.__members__.items()}
    return found


def _attributes(cls: type, site: source.Site) -> dict[str, object]:
    """What the body of a class binds, as it is now, and first-party functions attached to it later."""
    written = {_private(name, cls) for name in source.bound(site.node)}
    members = cls.__members__ if issubclass(cls, Enum) else {}
    found: dict[str, object] = {}
    for attribute, value in vars(cls).items():
        attached = isinstance(value, FunctionType) and not value.__code__.co_filename.startswith("<")
        if attribute not in written and not (
            attached and origin.label(value.__module__, value.__code__.co_filename) is None
        ):
            continue
        slot = isinstance(value, _SLOTS) or type(value).__qualname__ == "_tuplegetter"
        if attribute not in members and not slot:
            found[f"attribute {attribute!r}"] = value
    return found


def _private(name: str, cls: type) -> str:
    return f"_{cls.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name


def _made_by_call(cls: type, name: str, file: str) -> Reach:
    """Named tuples and enumerations may be made by a call: their fields and members say all."""
    place = Place(file, 1)
    if issubclass(cls, Enum):
        return Reach(name, place, f"enum {cls.__name__}", _ancestry(cls))
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        fields = {"fields": cls._fields, "defaults": getattr(cls, "_field_defaults", {})}
        return Reach(name, place, f"namedtuple {cls.__name__}", fields)
    raise _sourceless(name, file, 1, source.Missing("no class statement makes it"))


def _module(module: ModuleType) -> Reach:
    file = module.__file__
    if file is None:
        raise _sourceless(module.__name__, module.__name__, 1, source.Missing("it has no file"))
    try:
        site = source.of_file(os.path.abspath(file))
    except source.Missing as missing:
        raise _sourceless(module.__name__, file, 1, missing) from missing
    following = _Following(module.__name__, site, vars(module))
    written = set(source.bound(site.node))
    for name in vars(module):
        if name in written or ("*" in written and not name.startswith("__")):
            following.add(name, _portable(vars(module)[name], vars(module)), 1)
    return following.done()


def _portable(value: object, namespace: Mapping[str, Any]) -> object:
    """A path of the project that the module lies in, said relative to the module: another checkout is no other code."""
    file = namespace.get("__file__")
    if not isinstance(value, (str, PurePath)) or not isinstance(file, str) or not os.path.isabs(value):
        return value
    above = str(namespace.get("__name__")).count(".") + ("__path__" in namespace)
    folder = os.path.dirname(os.path.abspath(file))
    project = os.path.normpath(os.path.join(folder, *[os.pardir] * above))
    if project == os.path.dirname(project) or not f"{value}{os.sep}".startswith(project + os.sep):
        return value
    return Token(f"{type(value).__name__} beside", PurePath(os.path.relpath(value, folder)).as_posix())


def _sourceless(name: str, file: str, line: int, missing: source.Missing) -> DeclarationError:
    return DeclarationError(
        "cannot-follow",
        f"The source of {name} cannot be followed: {missing}.",
        where=Place(file, line),
        why="First-party code is fingerprinted by its source, so that a changed line is seen.",
        next="Keep it in a file of your project, import it from there, and start again if the file was edited meanwhile.",
    )
