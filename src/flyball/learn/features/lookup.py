"""The features of one question, now: compiled once, then a few look-ups and closures a question.

A lookup answers with what `offline.build` yields for the same question, bit for bit, provided that the store has seen the
batches. Values are plain Python: text, int, float, bool or None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import itemgetter

import msgspec
import polars as pl

from flyball._kernel import clock
from flyball._kernel.errors import StateError
from flyball.data import contract
from flyball.data.contract import Contract, Spec
from flyball.learn.features import aggregate, called, compiled, meaning, online
from flyball.learn.features.declare import Called, Computed, FeatureSet, Given, Latest, Window
from flyball.learn.features.online import Online, Version, View

Request = Mapping[str, object]
Found = Sequence[object]
Ask = Callable[[View, Request, int, bytes], Found]
"""(state, request, asked in microseconds, the question's packed key) -> the values of one feature."""


class Lookup:
    """Answers questions of one contract for one set of features.

    Args:
        features: what to look up.
        question: the contract of the questions.
        store: holds the series that the features read.

    Raises:
        DeclarationError: what `meaning.check` refuses.
        StateError: `features-not-online`, when the store lacks a series.
    """

    def __init__(self, features: FeatureSet, question: type[Contract], store: Online) -> None:
        meaning.check(features, question)
        self.names = tuple(o.name for o in features.outputs(question))
        self._store = store
        self._key = contract.spec(question).key
        computed = [f for f in features.features if isinstance(f, Computed)]
        self._computed = _Computation(computed, contract.spec(question)) if computed else None
        calls = [f for f in features.features if isinstance(f, Called)]
        self._calls = [_call(f, contract.spec(question)) for f in calls]
        self._asks: list[Ask | str | int] = []
        for feature in features.features:
            match feature:
                case Given():
                    self._asks.append(feature.name)
                case Computed():
                    self._asks.append(computed.index(feature))
                case Called():
                    self._asks.append(len(computed) + calls.index(feature))
                case Latest() | Window():
                    self._asks.append(_ask(feature, question, store))

        # A view is a transaction; a model that reads the request alone pays for none.
        self._looks = bool(features.tables())
        given = [ask for ask in self._asks if isinstance(ask, str)]
        self._given = _given(given) if len(given) == len(self._asks) else None

    def __call__(self, request: Request, asked: datetime) -> Sequence[object]:
        """The values of all features, in the order of `names`.

        Args:
            request: request columns by name; one that is missing is null, but the key must be there.
            asked: the moment of the question.

        Raises:
            DataError: `key-not-given`; `value-not-comparable`.
        """
        if self._given is not None:
            return self._given(request)
        computed = self._computed(request) if self._computed is not None else ()
        if self._calls:
            computed = [*computed, *(call(request) for call in self._calls)]
        if not self._looks:
            return [request.get(ask) if isinstance(ask, str) else computed[ask] for ask in self._asks]  # type: ignore[index]
        at = clock.micros(asked)
        own = online.packed(meaning.scalar(request.get(k)) for k in self._key)
        values: list[object] = []
        with self._store.view() as view:
            for ask in self._asks:
                if isinstance(ask, str):
                    values.append(request.get(ask))
                elif isinstance(ask, int):
                    values.append(computed[ask])
                else:
                    values += ask(view, request, at, own)
        return values


def _given(names: Sequence[str]) -> Callable[[Request], Found]:
    """The values of features that are columns of the request; one that is missing is null."""
    pick = itemgetter(*names) if len(names) > 1 else lambda request: tuple(request[name] for name in names)

    def given(request: Request) -> Found:
        try:
            return pick(request)
        except KeyError:
            return tuple(map(request.get, names))

    return given


class _Computation:
    """All computed features in one go: by proved closures, and what is left in one frame."""

    def __init__(self, features: Sequence[Computed], spec: Spec) -> None:
        reads = {*spec.key, *(c for f in features for c in f.expression.columns)}
        schema = {n: t for n, t in spec.dtypes.items() if n in reads}
        self._compiled = compiled.compile({f.name: f.expression.polars for f in features}, schema)

    def __call__(self, request: Request) -> Found:
        return self._compiled(request)


def _call(feature: Called, spec: Spec) -> Callable[[Request], object]:
    schema = {n: spec.dtypes[n] for n in feature.reads}

    def call(request: Request) -> object:
        row = tuple(request.get(n) for n in schema)
        # Twice, since Polars computes one row alone otherwise: see `meaning.laid`, which would have to copy it.
        return called.one(feature, pl.DataFrame([row, row], schema=schema, orient="row"))[0]

    return call


def _ask(feature: Latest | Window, question: type[Contract], store: Online) -> Ask:
    series = online.name(feature)
    if store.position(series) is None:
        raise StateError(
            "features-not-online",
            f"The online store has nothing for the feature {feature.name!r}.",
            where=feature.place,
            why="It was added or changed since the store was filled.",
            next="Run `flyball apply`, which fills it from its table.",
        )
    itself = feature.table is question
    if isinstance(feature, Latest):
        return _latest(feature, series, itself=itself)
    if feature.aggregate.adds:
        return _window(feature, series, itself=itself)
    return (_since if feature.aggregate.how == "since" else _values)(feature, series, itself=itself)


def _latest(latest: Latest, series: str, *, itself: bool) -> Ask:
    spec, whose, nothing = contract.spec(latest.table), meaning.whose(latest.by.question), [None] * len(latest.columns)
    early = meaning.span(spec.known_before)
    oldest = meaning.span(latest.max_age) if latest.max_age is not None else meaning.NEVER
    late = [name in spec.late for name in latest.columns]
    decode = msgspec.msgpack.Decoder(list[object]).decode

    def ask(view: View, request: Request, asked: int, own: bytes) -> Found:
        entity = whose(request)
        if entity is None:
            return nothing
        found = view.latest(series, entity, asked, asked + early, own if itself else b"")
        if found is None or asked - found.event > oldest:  # type: ignore[operator]
            return nothing
        values = decode(found.value)  # type: ignore[arg-type]
        if found.settled < asked or True not in late:
            return values
        return [None if masked else value for value, masked in zip(values, late, strict=True)]

    return ask


def _window(window: Window, series: str, *, itself: bool) -> Ask:
    whose, how, unit = meaning.whose(window.by.question), window.aggregate, meaning.unit(window)
    spans, empty = [meaning.span(over) for over in window.over], aggregate.finish(how, unit, 0, 0)

    def ask(view: View, request: Request, asked: int, own: bytes) -> Found:
        entity = whose(request)
        if entity is None:
            return [empty] * len(spans)
        count, total = view.total(series, 0, entity, asked)
        mine = _current(view.chain(series, own), asked) if itself else None
        since, value = _counted(mine, window, entity, asked) if mine is not None else (0, None)
        values = []
        for span in spans:
            before, corrected = view.total(series, 0, entity, asked - span), view.total(series, span, entity, asked)
            n, sum_ = count - before[0] + corrected[0], total - before[1] + corrected[1]
            if value is not None and asked - since <= span:
                n, sum_ = n - 1, sum_ - value
            values.append(aggregate.finish(how, unit, n, sum_))
        return values

    return ask


def _values(window: Window, series: str, *, itself: bool) -> Ask:
    whose, how = meaning.whose(window.by.question), window.aggregate
    spans = [meaning.span(over) for over in window.over]

    def ask(view: View, request: Request, asked: int, own: bytes) -> Found:
        entity = whose(request)
        if entity is None:
            return [how.empty] * len(spans)
        mine = own if itself else b""
        return [aggregate.chosen(how, view.values(series, entity, asked - span, asked, mine)) for span in spans]

    return ask


def _since(window: Window, series: str, *, itself: bool) -> Ask:
    whose, gap = meaning.whose(window.by.question), meaning.span(window.gap)
    spans = [meaning.span(over) for over in window.over]

    def ask(view: View, request: Request, asked: int, own: bytes) -> Found:
        entity = whose(request)
        if entity is None:
            return [None] * len(spans)
        mine = own if itself else b""
        last = view.latest(series, entity, asked, asked, mine)
        if last is None or last.event is None:
            return [None] * len(spans)
        counts = last.event
        if last.settled >= asked:  # it counts since an earlier version was known, and what it says itself is not yet
            there = view.values(series, entity, asked - max(spans), asked, mine)
            counts = max((int(value) for value in there if value is not None), default=-meaning.NEVER)
        return [(asked - counts + gap) / 1e6 if asked - counts <= span else None for span in spans]

    return ask


def _current(chain: Sequence[Version], asked: int) -> Version | None:
    """The version of a key that a question sees."""
    return next((v for v in reversed(chain) if v.known < asked), None)


def _counted(version: Version, window: Window, entity: str | int, asked: int) -> tuple[int, int | None]:
    """Since when a current version counts in a window, and what for an entity: None if nothing."""
    since = online.counts(window, version)
    known = since < asked and version.settled < asked
    counts = version.entity == entity and known and isinstance(version.value, int)
    return since, aggregate.packed(window.aggregate, version.value, since) if counts else None  # type: ignore[arg-type]
