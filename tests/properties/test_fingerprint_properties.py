"""Fingerprints of plain values: equal exactly if the values are, whatever the order of dicts and sets, in every process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flyball._kernel import fingerprint
from flyball._kernel.fingerprint import canon

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False)
    | st.dates()
    | st.timedeltas()
    | st.datetimes(timezones=st.just(UTC))
)
keys = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.tuples(st.integers(), st.text(max_size=2))
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.frozensets(keys, max_size=4)
    ),
    max_leaves=12,
)


def spelt(value: Any) -> object:
    """An independent canonical form: `==` of these is what equal fingerprints ought to mean."""
    if isinstance(value, dict):
        return "dict", frozenset((spelt(k), spelt(v)) for k, v in value.items())
    if isinstance(value, frozenset):
        return "set", frozenset(spelt(v) for v in value)
    if isinstance(value, (list, tuple)):
        return type(value), tuple(spelt(v) for v in value)
    if isinstance(value, float):
        return "float", "nan" if value != value else value
    return type(value), str(value) if not isinstance(value, (str, bytes)) else value


def shuffled(value: Any, source: random.Random) -> Any:
    """The same value with every dict and set built in another order."""
    if isinstance(value, dict):
        pairs = [(shuffled(k, source), shuffled(v, source)) for k, v in value.items()]
        source.shuffle(pairs)
        return dict(pairs)
    if isinstance(value, frozenset):
        items = list(value)
        source.shuffle(items)
        return frozenset(items)
    return type(value)(shuffled(v, source) for v in value) if isinstance(value, (list, tuple)) else value


@settings(max_examples=300, deadline=None)
@given(values, values)
def test_fingerprints_are_equal_exactly_if_values_are(one: Any, other: Any) -> None:
    assert (fingerprint.of(one) == fingerprint.of(other)) == (spelt(one) == spelt(other))


@settings(max_examples=200, deadline=None)
@given(values, st.randoms(use_true_random=False))
def test_order_within_dicts_and_sets_does_not_count(value: Any, source: random.Random) -> None:
    assert fingerprint.of(shuffled(value, source)) == fingerprint.of(value)


@settings(max_examples=200, deadline=None)
@given(st.lists(values, max_size=4), st.lists(values, max_size=4))
def test_neighbours_never_run_together(one: list[Any], other: list[Any]) -> None:
    assert (fingerprint.of(*one) == fingerprint.of(*other)) == (spelt(one) == spelt(other))


@settings(max_examples=100, deadline=None)
@given(st.datetimes(timezones=st.timezones()))
def test_a_moment_counts_by_instant(moment: Any) -> None:
    assert fingerprint.of(moment) == fingerprint.of(moment.astimezone(UTC))
    later = moment.astimezone(UTC) + timedelta(microseconds=1)
    assert fingerprint.of(later) != fingerprint.of(moment)


graphs = st.integers(1, 6).flatmap(
    lambda n: st.lists(
        st.tuples(st.integers(0, 1), st.lists(st.integers(0, n - 1), max_size=3), st.booleans()), min_size=n, max_size=n
    )
)


def nodes(graph: list[tuple[int, list[int], bool]]) -> list[canon.Form]:
    return [
        canon.group("node", [canon.text("label", str(label)), canon.group(f"{ordered}", references, ordered=ordered)])
        for label, to, ordered in graph
        for references in [[canon.Ref(t) for t in to]]
    ]


def alike(one: list[Any], other: list[Any]) -> bool:
    """Naive bisimilarity of nodes 0: assume all pairs alike, and strike out pairs until nothing changes."""
    pairs = {(i, j) for i in range(len(one)) for j in range(len(other))}

    def fits(i: int, j: int) -> bool:
        (label, to, ordered), (label2, to2, ordered2) = one[i], other[j]
        if (label, len(to), ordered) != (label2, len(to2), ordered2):
            return False
        if ordered:
            return all(pair in pairs for pair in zip(to, to2, strict=True))
        return _matches(to, to2, pairs)

    while struck := {p for p in pairs if not fits(*p)}:
        pairs -= struck
    return (0, 0) in pairs


def _matches(to: list[int], to2: list[int], pairs: set[tuple[int, int]]) -> bool:
    if not to:
        return True
    return any((to[0], t) in pairs and _matches(to[1:], [*to2[:i], *to2[i + 1 :]], pairs) for i, t in enumerate(to2))


def reachable(graph: list[Any]) -> list[Any]:
    """The part of a graph below node 0, renumbered in the order of discovery, as a walk finds it."""
    order = [0]
    for node in order:
        order += [t for t in dict.fromkeys(graph[node][1]) if t not in order]
    number = {old: new for new, old in enumerate(order)}
    return [(graph[n][0], [number[t] for t in graph[n][1]], graph[n][2]) for n in order]


@settings(max_examples=400, deadline=None)
@given(graphs, graphs)
def test_graphs_have_equal_digests_exactly_if_they_are_bisimilar(one: list[Any], other: list[Any]) -> None:
    one, other = reachable(one), reachable(other)
    digests = [canon.digest(canon.Ref(0), nodes(graph)) for graph in (one, other)]
    assert (digests[0] == digests[1]) == alike(one, other)


@settings(max_examples=200, deadline=None)
@given(graphs, st.randoms(use_true_random=False))
def test_neither_numbering_nor_copies_of_nodes_count(graph: list[Any], source: random.Random) -> None:
    size = len(graph)
    places = list(range(2 * size))
    source.shuffle(places)
    twice: list[Any] = [None] * len(places)
    for copy in (0, size):
        for node, (label, to, ordered) in enumerate(graph):
            twice[places[copy + node]] = (label, [places[t + source.choice((0, size))] for t in to], ordered)
    twice[0], twice[places[0]] = twice[places[0]], twice[0]
    swap = {0: places[0], places[0]: 0}
    twice = [(label, [swap.get(t, t) for t in to], ordered) for label, to, ordered in twice]
    digests = [canon.digest(canon.Ref(0), nodes(reachable(each))) for each in (graph, twice)]
    assert digests[0] == digests[1]


def test_a_fresh_process_with_another_hash_seed_agrees() -> None:
    value = "{'b': {'x', 'y', 'z'}, 'a': (1, 2.5, None, b'x'), 3: frozenset({('q', 1), ('p', 2)}), None: [True, -0.0]}"
    program = f"from flyball._kernel import fingerprint; print(fingerprint.of({value}))"
    source = str(Path(fingerprint.__file__).parents[3])
    for seed in ("0", "4711"):
        environment = {**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout.strip() == fingerprint.of(eval(value))  # noqa: S307 - the same text in both processes
