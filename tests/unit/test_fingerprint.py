"""A fingerprint is equal exactly if the value means the same; what has none is named with the way to it."""

from __future__ import annotations

import enum
import functools
import math
import operator
import re
import subprocess
import sys
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import dataframely as dy
import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flyball._kernel import conditions, fingerprint
from flyball._kernel.errors import DeclarationError
from flyball._kernel.fingerprint import origin
from flyball._kernel.place import Place


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Shade(enum.Enum):
    RED = 1


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclass(frozen=True)
class Gate:
    name: str
    threshold: object = 0
    place: Place = field(default=Place("app.py", 1), compare=False)
    note: str = field(default="", compare=False)


@dataclass(frozen=True)
class Other:
    name: str
    threshold: object = 0


class Point(NamedTuple):
    x: int
    y: int = 0


class Row(msgspec.Struct, frozen=True):
    x: int
    y: object = 0


class Hooked:
    def __init__(self, meaning: object, rest: object = None) -> None:
        self.meaning, self.rest = meaning, rest

    def __fingerprint__(self) -> object:
        return self.meaning


class HookedToo(Hooked):
    pass


class Knobs:
    ranges: tuple[int, ...] = (1, 2)

    @classmethod
    def __fingerprint__(cls) -> object:
        return cls.ranges


class MoreKnobs(Knobs):
    ranges = (1, 3)


class Flight(dy.Schema):
    key = dy.String(primary_key=True)
    distance = dy.Int32(min=1, max=6000, description="miles", metadata={"role": Colour.RED})
    origin = dy.Enum(["EWR", "JFK"])
    legs = dy.List(dy.Struct({"a": dy.Float64(nullable=True)}))

    @dy.rule()
    def far(cls) -> pl.Expr:
        return cls.distance.col > 2


T = datetime(2013, 1, 1, 12, tzinfo=UTC)

DISTINCT: list[Any] = [
    None, False, True, 0, 1, -1, 2**70, 0.0, 1.0, math.inf, -math.inf, math.nan, "", "0", "1", "None", b"", b"1", ...,
    NotImplemented, (), [], {}, set(), frozenset(), (1,), [1], {1}, frozenset({1}), {1: 1}, (1, 2), (2, 1), ((1,), 2),
    (1, (2,)), ("ab", "c"), ("a", "bc"), {"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": None}, [["a", 1]],
    OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), Counter("aab"), defaultdict(list, a=1), defaultdict(int, a=1),
    deque([1]), deque([1], 3), T, T + timedelta(microseconds=1), date(2013, 1, 1), time(12), time(12, tzinfo=UTC),
    timedelta(1), timedelta(microseconds=1), "2013-01-01", Decimal(1), Decimal("1.0"), Fraction(1, 3), 1j,
    UUID(int=1), range(3), range(4), slice(1, 2), ZoneInfo("Europe/Paris"), UTC, timezone(timedelta(hours=1)),
    Colour.RED, Colour.BLUE, Shade.RED, Flags.A, Flags.A | Flags.B, Gate("a"), Gate("b"), Gate("a", 1), Other("a"),
    ("a", 0), {"name": "a", "threshold": 0}, Point(1), Point(1, 1), Row(1), Row(2), Hooked(1), Hooked(2),
    HookedToo(1), Knobs, MoreKnobs, re.compile("a"), re.compile("b"), re.compile("a", re.IGNORECASE),
    PurePosixPath("a/b"), "a/b", int, str, type(None), datetime, LogisticRegression, len, max, math.sin, math.cos,
    str.upper, str.lower, "a".upper, "b".upper, [].append, operator.itemgetter(1), operator.itemgetter(2),
    operator.attrgetter("a"), operator.methodcaller("a"), operator.methodcaller("a", b=1), functools.partial(max, 1),
    functools.partial(max, 2), functools.partial(min, 1), functools.partial(max, key=1), math, re, np, np.float64(1),
    np.float32(1), np.int64(1), np.bool_(True), np.array([1, 2]), np.array([[1, 2]]),
    np.array([1, 2], dtype=np.int32), np.array([1.0, 2.0]), np.array(["a"]), np.array([None, "a"], dtype=object),
    np.dtype("i4"), np.dtype("i8"), np.dtype([("a", "i4")]), np.datetime64(1, "us"), np.datetime64(1, "ns"), np.log,
    np.exp, pl.col("a"), pl.col("b"), pl.col("a") + 1, pl.col("a") + 1.0, pl.lit(T), pl.col("a").is_in([1, 2]),
    pl.col("a").is_in([1, 3]), pl.lit(pl.Series([1, 2])), pl.col("a").cast(pl.Enum(["x"])),
    pl.col("a").cast(pl.Enum(["y"])), pl.col, pl.when, pl.Int64(), pl.Int32(), pl.Datetime("us"),
    pl.Datetime("us", "UTC"), pl.Datetime("ms", "UTC"), pl.List(pl.Int64), pl.Array(pl.Int64, 2),
    pl.Struct({"a": pl.Int64}), pl.Struct({"b": pl.Int64}), pl.Enum(["a"]), pl.Enum(["b"]), pl.Categorical(),
    pl.Decimal(10, 2), pl.Schema({"a": pl.Int64()}), LogisticRegression(), LogisticRegression(C=2),
    make_pipeline(StandardScaler(), LogisticRegression()), make_pipeline(StandardScaler(), LogisticRegression(C=2)),
    list[int], list[str], int | None, object(), Flight, dy.Schema,
]  # fmt: skip


def test_different_values_have_different_fingerprints() -> None:
    found: dict[str, object] = {}
    for value in DISTINCT:
        print_ = fingerprint.of(value)
        assert re.fullmatch("[0-9a-f]{64}", print_)
        assert print_ not in found, (found[print_], value)
        found[print_] = value


def test_the_same_value_has_the_same_fingerprint_again() -> None:
    assert [fingerprint.of(v) for v in DISTINCT] == [fingerprint.of(v) for v in DISTINCT]


EQUAL: list[tuple[Any, Any]] = [
    (0.0, -0.0),
    (math.nan, -math.nan),
    (math.nan, float("nan") * 2),
    ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
    ({"a": 1}, MappingProxyType({"a": 1})),
    ({"a", "b", "c"}, {"c", "b", "a"}),
    (T, T.astimezone(ZoneInfo("America/New_York"))),
    (timedelta(days=1), timedelta(hours=24)),
    (Gate("a", 1, Place("one.py", 1)), Gate("a", 1, Place("two.py", 2))),
    (Gate("a", note="x"), Gate("a", note="y")),
    (Place("one.py", 1), Place("two.py", 2)),
    (Hooked(1, rest=1), Hooked(1, rest=threading.Lock())),
    (pl.col("a").alias("b") + 1, pl.col("a").alias("b") + 1),
    (pl.Datetime("us", "UTC"), pl.Datetime(time_unit="us", time_zone="UTC")),
    (LogisticRegression(), LogisticRegression(C=1.0)),
    (PurePosixPath("a/b"), PureWindowsPath("a\\b")),
    (Path("a"), PurePosixPath("a")),
    (np.array([1, 2, 3, 4])[::2], np.array([1, 3])),
    (np.asfortranarray([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]])),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_values_that_mean_the_same_are_equal(one: object, other: object) -> None:
    assert fingerprint.of(one) == fingerprint.of(other)


def test_an_estimator_is_what_it_was_told_and_not_what_it_learned() -> None:
    fitted = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    assert fingerprint.of(fitted) == fingerprint.of(LogisticRegression())


def test_several_values_are_not_one() -> None:
    found = [fingerprint.of(), fingerprint.of(1), fingerprint.of(1, 2), fingerprint.of((1, 2)), fingerprint.of(2, 1)]
    assert len(set(found)) == 5


def test_a_method_speaks_for_instances_and_a_classmethod_for_the_class() -> None:
    assert fingerprint.of(Hooked) != fingerprint.of(HookedToo)
    with pytest.raises(DeclarationError, match="cannot-fingerprint"):
        fingerprint.of(Knobs())


def test_a_metaclass_speaks_for_its_classes() -> None:
    class Meta(type):
        def __fingerprint__(cls) -> object:
            return sorted(k for k in vars(cls) if not k.startswith("_"))

    one, other, different = (Meta("A", (), {name: threading.Lock()}) for name in ("a", "a", "b"))
    assert fingerprint.of(one) == fingerprint.of(other) != fingerprint.of(different)


def schema(name: str = "S", **columns: object) -> type[dy.Schema]:
    made: type[dy.Schema] = type(dy.Schema)(name, (dy.Schema,), {"__module__": __name__, **columns})  # type: ignore[assignment]
    return made


def over(n: int) -> Callable[[pl.Expr], pl.Expr]:
    return lambda column: column > n


def test_a_schema_is_its_columns_and_rules() -> None:
    found = [
        schema(a=dy.Int64()),
        schema(a=dy.Int32()),
        schema(b=dy.Int64()),
        schema("R", a=dy.Int64()),
        schema(a=dy.Int64(nullable=True)),
        schema(a=dy.Int64(primary_key=True)),
        schema(a=dy.Int64(unique=True)),
        schema(a=dy.Int64(min=1)),
        schema(a=dy.Int64(min=2)),
        schema(a=dy.Int64(max=2)),
        schema(a=dy.Int64(is_in=[1])),
        schema(a=dy.Int64(alias="b")),
        schema(a=dy.Int64(metadata={"role": 1})),
        schema(a=dy.Int64(metadata={"role": 2})),
        schema(a=dy.Int64(check=over(1))),
        schema(a=dy.Int64(check=over(2))),
        schema(a=dy.Int64(check={"big": over(2)})),
        schema(a=dy.Int64(), b=dy.Int64()),
        schema(b=dy.Int64(), a=dy.Int64()),
        schema(a=dy.Datetime(time_zone="UTC")),
        schema(a=dy.Datetime()),
        schema(a=dy.Enum(["x"])),
        schema(a=dy.Enum(["y"])),
        schema(a=dy.String(regex="x")),
        schema(a=dy.List(dy.Int64())),
        schema(a=dy.List(dy.Int64(nullable=True))),
        schema(a=dy.Struct({"x": dy.Int64(min=1)})),
        schema(a=dy.Struct({"x": dy.Int64(min=2)})),
        schema(a=dy.Int64(), r=dy.rule()(lambda cls: cls.a.col > 1)),
        schema(a=dy.Int64(), r=dy.rule()(lambda cls: cls.a.col > 2)),
    ]
    assert len({fingerprint.of(each) for each in found}) == len(found)


def test_the_words_about_a_column_are_no_part_of_a_schema_nor_is_looking_at_it() -> None:
    before = fingerprint.of(schema(a=dy.Int64(), b=dy.Struct({"x": dy.Int64()})))
    told = schema(a=dy.Int64(description="miles"), b=dy.Struct({"x": dy.Int64()}))
    assert told.a.name == "a"  # type: ignore[attr-defined]
    assert told.columns()["b"].name == "b"
    told.a._remembered = threading.Lock()  # type: ignore[attr-defined]
    assert fingerprint.of(told) == before


def test_a_schema_that_extends_another_holds_its_columns() -> None:
    def extended(low: int) -> type[dy.Schema]:
        below = schema("Below", a=dy.Int64(min=low), r=dy.rule()(over(low)))
        return type(dy.Schema)("S", (below,), {"__module__": __name__, "b": dy.Int64()})  # type: ignore[return-value]

    assert fingerprint.of(extended(1)) == fingerprint.of(extended(1)) != fingerprint.of(extended(2))


LOCK = threading.Lock()

REFUSED: list[tuple[Any, str]] = [
    (LOCK, "lock has no fingerprint: it is a _thread.lock"),
    ([1, (LOCK,)], "list[1][0] has no"),
    ({"gates": {"a": LOCK}}, "dict['gates']['a'] has no"),
    (Gate("a", [Gate("b", 1), Gate("c", LOCK)]), "Gate.threshold[1].threshold has no"),
    (Row(1, LOCK), "Row.y has no"),
    (Point(1, LOCK), "Point.y has no"),  # type: ignore[arg-type]
    (Hooked([LOCK]), "Hooked[0] has no"),
    (LogisticRegression(C=LOCK), "LogisticRegression.C has no"),
    ({LOCK: 1}, "dict(key) has no"),
    (functools.partial(max, LOCK), "partial[1][0] has no"),
    (datetime(2013, 1, 1), "datetime has no fingerprint: it is a datetime.datetime"),
    (Exception("a"), "it is a Exception"),
    (pl.DataFrame({"a": [1]}), "it is a polars.dataframe.frame.DataFrame"),
    (pl.Series([1]), "it is a polars.series.series.Series"),
    (np.random.default_rng(1), "it is a numpy.random._generator.Generator"),
    (np.random.rand, "method[0] has no"),
    (type("S", (str,), {})("a"), "it is a test_fingerprint.S"),
    (pl.col("a").map_batches(len), "it is a polars.expr.expr.Expr"),
    (pl.col("a").name.map(str.upper), "it is a polars.expr.expr.Expr"),
    (pl.reduce(function=operator.add, exprs=[pl.col("a"), pl.col("b")]), "it is a polars.expr.expr.Expr"),
    (pl.lit(LOCK, allow_object=True), "it is a polars.expr.expr.Expr"),
    (sys.stdin, "it is a"),
]


@pytest.mark.parametrize(("value", "words"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_what_has_no_fingerprint_is_named_with_the_way_to_it(value: object, words: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        fingerprint.of(value)
    assert caught.value.code == "cannot-fingerprint"
    assert words in caught.value.what.replace("tests.unit.", "")
    assert caught.value.why
    assert caught.value.next


def test_the_error_stands_where_the_innermost_declaration_stands() -> None:
    value = Gate("a", [Gate("b", 1, Place("app.py", 7)), Gate("c", LOCK, Place("app.py", 8))], Place("app.py", 6))
    with pytest.raises(DeclarationError) as caught:
        fingerprint.of(value)
    assert caught.value.where == Place("app.py", 8)


def test_the_place_of_a_neighbour_is_not_taken_for_it() -> None:
    value = Gate("a", [Gate("b", 1, Place("app.py", 7)), LOCK], Place("app.py", 6))
    with pytest.raises(DeclarationError) as caught:
        fingerprint.of(value)
    assert caught.value.where == Place("app.py", 6)


def test_text_that_imitates_the_encoding_deceives_nobody() -> None:
    assert fingerprint.of(["a\x03strb"]) != fingerprint.of(["a", "b"])


def test_versions_count_for_code_and_not_for_values(monkeypatch: pytest.MonkeyPatch) -> None:
    code = [LogisticRegression(), LogisticRegression, pl.col("a"), pl.col, np.log, dy.Schema]
    values = [pl.Int64(), np.float64(1), schema(a=dy.Int64()), conditions.champion, {"a": [Path("b"), T]}]
    before = [fingerprint.of(v) for v in (*code, *values)]
    monkeypatch.setattr(origin, "_version", lambda _: "99")
    origin._owner.cache_clear()
    after = [fingerprint.of(v) for v in (*code, *values)]
    origin._owner.cache_clear()
    assert [b == a for b, a in zip(before, after, strict=True)] == [False] * len(code) + [True] * len(values)


def test_data_that_contains_itself_is_refused() -> None:
    value: list[object] = [1]
    value.append({"a": value})
    with pytest.raises(DeclarationError, match=re.escape("list[1]['a']")) as caught:
        fingerprint.of(value)
    assert "contains itself" in caught.value.why


def test_one_object_met_twice_is_no_circle() -> None:
    twice = [1]
    assert fingerprint.of([twice, twice]) == fingerprint.of([[1], [1]])


def test_parts_are_named_and_independent() -> None:
    before = fingerprint.parts({"data": {"a": 1}, "code": len})
    after = fingerprint.parts({"data": {"a": 2}, "code": len})
    assert list(before) == ["data", "code"]
    assert before["code"] == after["code"] == fingerprint.of(len)
    assert before["data"] != after["data"]
    with pytest.raises(DeclarationError, match=re.escape("gates[0] has no fingerprint")):
        fingerprint.parts({"gates": [LOCK]})


def test_importing_it_loads_nothing_heavy() -> None:
    program = (
        "import sys; from flyball._kernel import fingerprint; fingerprint.of({'a': [1.0]});"
        "sys.exit(not {'polars', 'numpy', 'dataframely', 'sklearn'}.isdisjoint(sys.modules))"
    )
    environment = {"PYTHONPATH": str(Path(fingerprint.__file__).parents[3])}
    assert subprocess.run([sys.executable, "-c", program], check=False, env=environment).returncode == 0
