"""Knobs: what a search may turn. A class of typed ranges, so that the search, the defaults and the record of what was chosen
all come from one place.

    class Knobs(fb.Params):
        leaves: int = fb.between(7, 255, start=31, log=True)
        algorithm: str = fb.one_of("boosted", "forest")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, dataclass_transform, get_type_hints

from flyball._kernel import place
from flyball._kernel.errors import DeclarationError

Knob = float | str
"""What a knob is set to."""


@dataclass(frozen=True, slots=True)
class Range:
    """The values that a knob may take, and the one that is tried first."""

    low: float
    high: float
    start: float
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The texts that a knob may be, without an order, and the one that is tried first."""

    options: tuple[str, ...]
    start: str


Span = Range | Choice


def between(low: float, high: float, *, start: float, log: bool = False) -> Any:
    """A knob between two numbers, both included; `start` is tried first and used when nothing is searched."""
    if not low <= start <= high or (log and low <= 0):
        raise DeclarationError(
            "knob-out-of-range",
            f"start={start} is not between {low} and {high}" + (" on a logarithmic scale." if log else "."),
            where=place.here(),
            why="The first trial uses `start`, and a logarithm begins above zero.",
            next="Choose a range that holds the start, above zero where log=True.",
        )
    return Range(low, high, start, log)


def one_of(*options: str, start: str | None = None) -> Any:
    """A knob that is one of some texts, such as the algorithm; the first is tried first, unless `start` says another."""
    first = options[0] if options and start is None else start
    if len(set(options)) != len(options) or len(options) < 2 or first not in options:
        raise DeclarationError(
            "knob-out-of-range",
            f"one_of({', '.join(map(repr, options))}) with start={first!r} is no choice.",
            where=place.here(),
            why="There must be two different texts or more, and the first trial uses `start`.",
            next='Write one_of("boosted", "linear").',
        )
    return Choice(options, first)


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Params:
    """Knobs: annotate each with its type and give it a range, `leaves: int = between(7, 255, start=31, log=True)`."""

    ranges: ClassVar[Mapping[str, tuple[type, Span]]] = {}

    def __init_subclass__(cls) -> None:
        own = {n: v for n, v in vars(cls).items() if isinstance(v, Range | Choice)}
        hints = get_type_hints(cls)
        cls.ranges = {**cls.ranges, **{n: (hints[n], v) for n, v in own.items()}}
        for name, span in own.items():
            _check_type(cls.__name__, name, hints[name], span)

    def __init__(self, **chosen: Knob) -> None:
        for name, (type_, span) in self.ranges.items():
            object.__setattr__(self, name, type_(chosen.pop(name, span.start)))
        if chosen:
            raise TypeError(f"{type(self).__name__} has no knob {sorted(chosen)[0]!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    @classmethod
    def __fingerprint__(cls) -> object:
        return {n: (t.__name__, r) for n, (t, r) in cls.ranges.items()}

    @classmethod
    def starts(cls) -> dict[str, Knob]:
        """What is tried first, and used when nothing is searched."""
        return {name: span.start for name, (_, span) in cls.ranges.items()}


def _check_type(owner: str, name: str, type_: type, span: Span) -> None:
    if isinstance(span, Choice):
        if type_ is not str:
            raise DeclarationError(
                "knob-out-of-range",
                f"{owner}.{name} is one of {len(span.options)} texts, and declared as {getattr(type_, '__name__', type_)}.",
                where=place.here(),
                why="What is chosen is handed to the model function as it is.",
                next=f"Declare {name}: str.",
            )
        return
    if type_ is int and not (float(span.low).is_integer() and float(span.high).is_integer()):
        raise DeclarationError(
            "knob-out-of-range",
            f"The whole number {owner}.{name} lies between {span.low} and {span.high}.",
            where=place.here(),
            why="The limits of a whole number are whole: both are tried.",
            next=f"Write whole limits, or declare {name}: float.",
        )


def said(knobs: Mapping[str, Knob]) -> str:
    """Knobs as a person reads them: `leaves = 31, algorithm = boosted`; "no knobs"."""
    each = (f"{name} = {value if isinstance(value, str) else format(value, 'g')}" for name, value in knobs.items())
    return ", ".join(each) or "no knobs"
