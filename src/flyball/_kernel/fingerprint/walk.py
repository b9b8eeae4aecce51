"""The walk over all that a value holds: plain values become bytes at once, definitions become nodes of a graph.

A definition is not entered where it is met, only noted; so recursion, and classes and functions that reach one another,
end. Data that contains itself has no canonical structure, and is refused with the path to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import FunctionType, MappingProxyType, ModuleType
from typing import Any

from flyball._kernel.errors import DeclarationError
from flyball._kernel.fingerprint import canon, code, origin, recipes
from flyball._kernel.fingerprint.canon import Form
from flyball._kernel.fingerprint.code import Definition, Reach, Token
from flyball._kernel.place import Place


def digest(named: Mapping[str, object]) -> str:
    """The fingerprint of values in their order; the names are for errors only.

    Raises:
        DeclarationError: `cannot-fingerprint`, `cannot-follow`.
    """
    walk = _Walk()
    root = canon.group("values", [walk.at(name, value) for name, value in named.items()])
    return canon.digest(root, walk.nodes())


class _Walk:
    def __init__(self) -> None:
        self.definitions: list[Definition] = []  # also keeps them alive, so that an id names one object only
        self.paths: list[str] = []
        self.numbers: dict[int, int] = {}
        self.schemas: dict[int, tuple[type, Form]] = {}
        self.path: list[str | int] = []
        self.open: set[int] = set()
        self.inside: Reach | None = None
        self.place: Place | None = None  # of the innermost declaration that remembers its own

    def nodes(self) -> list[Form]:
        """The form of every definition that was met, until no more are met."""
        forms: list[Form] = []
        while len(forms) < len(self.definitions):
            number = len(forms)
            self.inside = code.reach(self.definitions[number])
            items: list[Form] = [canon.text("syntax", self.inside.syntax)]
            for label, value in self.inside.reached.items():
                self.path = [self.paths[number], " > "]
                items.append(self.pair(label, value))
            forms.append(canon.group("definition", items))
        return forms

    def pair(self, label: str, value: object) -> Form:
        """A name and a value."""
        return canon.group("pair", [canon.text("label", label), self.at(label, value)])

    def at(self, segment: str | int, value: object) -> Form:
        """A value one step down the path."""
        self.path.append(segment)
        form = self.form(value)
        self.path.pop()
        return form

    def form(self, value: object) -> Form:
        """A value as canonical bytes, or as a group if it reaches definitions."""
        kind = type(value)
        if (plain := recipes.LEAVES.get(kind)) is not None:
            try:
                said = plain(value)
            except recipes.Refused as refused:
                raise self.refuse(value, str(refused)) from refused
            return canon.leaf(kind.__name__, said) if isinstance(said, bytes) else canon.text(kind.__name__, said)
        if id(value) in self.open:
            raise self.refuse(value, "It contains itself.")
        self.open.add(id(value))
        try:
            return self.compound(value, kind)
        finally:
            self.open.discard(id(value))

    def compound(self, value: Any, kind: type) -> Form:
        """A value that holds others."""
        if (hook := recipes.hook(value)) is not None:
            speaker = recipes.name(value if isinstance(value, type) else kind)
            return canon.group("hook", [canon.text("class", speaker), self.form(hook())])
        if kind is tuple or kind is list:
            return canon.group(kind.__name__, [self.at(i, v) for i, v in enumerate(value)])
        if kind is dict or kind is MappingProxyType:
            pairs = [canon.group("pair", [self.at("(key)", k), self.at(f"[{k!r}]", v)]) for k, v in value.items()]
            return canon.group("dict", pairs, ordered=False)
        if kind is set or kind is frozenset:
            return canon.group(kind.__name__, [self.at("(element)", v) for v in value], ordered=False)
        if isinstance(value, Token):
            return canon.text(value.kind, value.words)
        if isinstance(value, FunctionType):
            return self.function(value)
        if isinstance(value, ModuleType):
            owner = origin.label(value.__name__)
            return self.node(value) if owner is None else self.named("module", owner, value.__name__)
        return self.of_class(value) if isinstance(value, type) else self.parts(value)

    def parts(self, value: object) -> Form:
        """A value of a known type."""
        try:
            said = recipes.said(value)
        except recipes.Refused as refused:
            raise self.refuse(value, str(refused)) from refused
        if said is None:
            held = origin.holder(value)
            if held is None:
                raise self.refuse(value, "Nothing says what such a value means.")
            return self.named("object", *held)
        outer, own = self.place, getattr(value, "place", None) if said.tag == "record" else None
        self.place = own if isinstance(own, Place) else outer
        items = [self.pair(label, part) for label, part in said.items.items()]
        self.place = outer
        if isinstance(said.cls, recipes.Versioned):
            items.insert(0, self.form(said.cls.cls))
        elif said.cls is not None:
            items.insert(0, self.record(said.cls))
        return canon.group(said.tag, items)

    def record(self, cls: type) -> Form:
        """The class of a record: by what it says if it is first-party, else by its name."""
        return self.node(cls) if origin.label(cls.__module__) is None else canon.text("record class", recipes.name(cls))

    def of_class(self, cls: type) -> Form:
        """A class as a value."""
        owner = origin.label(cls.__module__)
        if owner is not None:
            return self.named("class", owner, recipes.name(cls))
        if not recipes.is_schema(cls):
            return self.node(cls)
        if id(cls) not in self.schemas:  # every feature names the table that it looks into
            self.schemas[id(cls)] = cls, self.parts(cls)
        return self.schemas[id(cls)][1]

    def function(self, function: FunctionType) -> Form:
        """A function: a node if its code is first-party; else its name and version, and all that a closure holds."""
        owner = origin.label(str(function.__globals__.get("__name__")), function.__code__.co_filename)
        if owner is None:
            return self.node(function)
        if (spelt := origin.spelling(function)) is not None:
            return self.named("function", *spelt)
        held = code.held(function)
        if "registry" in vars(function) and hasattr(function, "dispatch"):
            held = {"registry": vars(function)["registry"]}  # singledispatch; its cells hold a cache
        items = [self.pair(label, part) for label, part in sorted(held.items())]
        return canon.group("closure", [self.named("code", owner, function.__code__.co_qualname), *items])

    def node(self, definition: Definition) -> Form:
        """A first-party definition, to be followed later."""
        number = self.numbers.setdefault(id(definition), len(self.definitions))
        if number == len(self.definitions):
            self.definitions.append(definition)
            self.paths.append(_spelt(self.path))
        return canon.Ref(number)

    def named(self, tag: str, *words: str) -> Form:
        """Something that its names say in full."""
        return canon.group(tag, [canon.text("name", word) for word in words])

    def refuse(self, value: object, why: str) -> DeclarationError:
        """The error for a value without a fingerprint, where the walk stands."""
        kind = recipes.name(type(value)).removeprefix("builtins.")
        if self.inside is None:
            return DeclarationError(
                "cannot-fingerprint",
                f"{_spelt(self.path)} has no fingerprint: it is a {kind}.",
                where=self.place,
                why=why,
                next=_NEXT,
            )
        label, *below = self.path[2:]
        return DeclarationError(
            "cannot-follow",
            f"{self.inside.name} reaches {_spelt([label, *below])}, a {kind}, which has no fingerprint.",
            where=self.inside.place(str(label)),
            why=f"{why} The way to it is {_spelt(self.path)}.",
            next=_NEXT,
        )


_NEXT = (
    "Use plain values or a frozen dataclass, make it inside the function that needs it, or give its class a "
    "`__fingerprint__` method that returns plain values."
)


def _spelt(path: Iterable[str | int]) -> str:
    return "".join(f"[{segment}]" if isinstance(segment, int) else segment for segment in path)
