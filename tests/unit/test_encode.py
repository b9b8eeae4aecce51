"""The Encoder: codes, numbers, what is refused, and that reading one back proves it whole."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest

from flyball._kernel.errors import DataError, DeclarationError, StateError
from flyball.learn.encoding import encode

TRAINING = pl.DataFrame(
    {
        "origin": ["LGA", "EWR", None, "JFK", "EWR"],
        "gate": pl.Series([7, None, 2, 7, 40], dtype=pl.Int64),
        "distance": [200, 300, None, 1400, 5000],
        "wind": [1.5, float("nan"), float("inf"), None, -0.0],
        "holiday": [True, False, None, True, False],
    }
)
COLUMNS: list[tuple[str, encode.Kind]] = [
    ("origin", "category"),
    ("gate", "category"),
    ("distance", "number"),
    ("wind", "number"),
    ("holiday", "number"),
]
nan = float("nan")


@pytest.fixture(scope="module")
def encoder() -> encode.Encoder:
    return encode.fit(TRAINING, COLUMNS)


def test_codes_are_places_in_the_sorted_vocabulary(encoder: encode.Encoder) -> None:
    assert encoder.columns[0].vocabulary == ("EWR", "JFK", "LGA")
    assert encoder.columns[1].vocabulary == (2, 7, 40)
    expected = [
        [2, 1, 200, 1.5, 1],
        [0, nan, 300, nan, 0],
        [nan, 0, nan, nan, nan],
        [1, 1, 1400, nan, 1],
        [0, 2, 5000, -0.0, 0],
    ]
    np.testing.assert_array_equal(encoder.encode(TRAINING), np.array(expected, dtype=np.float32))


def test_matrix_is_float32_and_contiguous(encoder: encode.Encoder) -> None:
    matrix = encoder.encode(TRAINING)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert matrix.shape == (5, 5)
    assert encoder.encode(TRAINING.clear()).shape == (0, 5)
    assert (encoder.categories, encoder.numbers) == ((0, 1), (2, 3, 4))


LARGEST = int(encode.LARGEST)
ODD: list[list[object]] = [
    ["JFK", 2, 1, 1.5, True],
    [None, None, None, None, None],
    ["SFO", 3, LARGEST, -0.0, False],
    ["EWR", 7, LARGEST + 1, float("inf"), None],
    ["EWR", 40, -LARGEST - 1, float("-nan"), True],
    ["LGA", 2, 2**53 + 1, 3.4028235677973366e38, True],
    ["LGA", 2, 10**400, -1e300, True],
    ["LGA", 2**70, True, 7, 2.5],
]


@pytest.mark.parametrize("chosen", [ODD, ODD[:1], ODD[:2], ODD[:3], ODD[3:], ODD[-1:], []], ids=len)
def test_many_rows_are_encoded_as_each_alone(encoder: encode.Encoder, chosen: list[list[object]]) -> None:
    row = encode.compile_row(encoder)
    found = encode.compile_rows(encoder)(chosen)
    assert (found.shape, found.dtype) == ((len(chosen), 5), np.float32)
    assert found.tobytes() == b"".join(row(values).tobytes() for values in chosen)


def test_unseen_is_minus_one(encoder: encode.Encoder) -> None:
    row = encode.compile_row(encoder)
    assert row(["SFO", 3, 1, 1.0, False])[:2].tolist() == [-1.0, -1.0]
    seen = TRAINING.with_columns(origin=pl.lit("SFO"), gate=pl.lit(3, dtype=pl.Int64))
    assert (encoder.encode(seen)[:, :2] == -1).all()


@pytest.mark.parametrize("value", [nan, float("inf"), float("-inf"), 3.5e38, -1e300, 10**400, None])
def test_what_float32_cannot_hold_is_missing(encoder: encode.Encoder, value: float | None) -> None:
    assert np.isnan(encode.compile_row(encoder)(["JFK", 2, value, value, None])[2:4]).all()


def test_all_ways_to_be_missing_are_the_same_bits(encoder: encode.Encoder) -> None:
    signed = -np.float64("nan")
    row = encode.compile_row(encoder)
    assert row([None, None, None, float(signed), None]).tobytes() == np.full(5, nan, dtype=np.float32).tobytes()
    frame = TRAINING[:1].with_columns(wind=pl.Series([float(signed)]))
    assert encoder.encode(frame)[0, 3].tobytes() == np.float32(nan).tobytes()


def test_row_order_does_not_matter() -> None:
    assert encode.fit(TRAINING, COLUMNS).to_bytes() == encode.fit(TRAINING.reverse(), COLUMNS).to_bytes()


def test_enum_and_string_of_the_same_values_are_one(encoder: encode.Encoder) -> None:
    named = TRAINING.with_columns(pl.col("origin").cast(pl.Enum(["LGA", "SFO", "JFK", "EWR"])))
    assert encode.fit(named, COLUMNS) == encoder
    assert encoder.encode(named).tobytes() == encoder.encode(TRAINING).tobytes()


def test_all_null_category_is_all_unseen() -> None:
    encoder = encode.fit(pl.DataFrame({"a": pl.Series([None], dtype=pl.String)}), [("a", "category")])
    assert encoder.encode(pl.DataFrame({"a": ["x"]})).tolist() == [[-1.0]]
    assert encode.compile_row(encoder)(["x"]).tolist() == [-1.0]


def test_unsigned_integers_beyond_the_signed_are_told_apart() -> None:
    frame = pl.DataFrame({"a": pl.Series([2**64 - 1, 2**63], dtype=pl.UInt64)})
    encoder = encode.fit(frame, [("a", "category")])
    assert encoder.encode(frame).ravel().tolist() == [1.0, 0.0]
    assert encode.from_bytes(encoder.to_bytes()) == encoder


@pytest.mark.parametrize(
    "value", [datetime(2013, 1, 1, tzinfo=UTC), date(2013, 1, 1), time(1), timedelta(hours=1)], ids=lambda v: type(v)
)
@pytest.mark.parametrize("kind", ["number", "category"])
def test_times_are_refused(value: object, kind: encode.Kind) -> None:
    with pytest.raises(DeclarationError) as caught:
        encode.fit(pl.DataFrame({"when": [value]}), [("when", kind)])
    assert caught.value.code == "time-as-number"
    assert "dt.hour()" in caught.value.next


@pytest.mark.parametrize(
    ("series", "kind", "code"),
    [
        (pl.Series([True]), "category", "boolean-category"),
        (pl.Series([1.5]), "category", "unencodable"),
        (pl.Series(["a"]), "number", "unencodable"),
        (pl.Series([Decimal("1.5")]), "number", "unencodable"),
        (pl.Series([[1]]), "number", "unencodable"),
        (pl.Series([1], dtype=pl.Int128), "number", "unencodable"),
        (pl.Series([None]), "category", "unencodable"),
    ],
)
def test_what_is_no_number_is_refused(series: pl.Series, kind: encode.Kind, code: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        encode.fit(pl.DataFrame({"a": series}), [("a", kind)])
    assert caught.value.code == code


def test_contradicting_declarations_are_refused() -> None:
    with pytest.raises(DeclarationError, match="no-columns"):
        encode.fit(TRAINING, [])
    with pytest.raises(DeclarationError, match="column-twice"):
        encode.fit(TRAINING, [("wind", "number"), ("wind", "number")])
    with pytest.raises(DataError, match="missing-column"):
        encode.fit(TRAINING, [("rain", "number")])


def test_frames_of_other_types_are_refused(encoder: encode.Encoder) -> None:
    for changed in (
        TRAINING.with_columns(pl.col("gate").cast(pl.String)),
        TRAINING.with_columns(pl.col("wind").cast(pl.String)),
        TRAINING.with_columns(distance=pl.lit(datetime(2013, 1, 1, tzinfo=UTC))),
        TRAINING.with_columns(origin=pl.lit(1)),
    ):
        with pytest.raises(DataError) as caught:
            encoder.encode(changed)
        assert caught.value.code == "wrong-type"
    with pytest.raises(DataError, match="missing-column"):
        encoder.encode(TRAINING.drop("gate"))


@pytest.mark.parametrize(
    "values",
    [
        (1, 7, 1, 1.0, True),
        ("JFK", True, 1, 1.0, True),
        ("JFK", 7.0, 1, 1.0, True),
        ("JFK", 7, "1", 1.0, True),
        ("JFK", 7, 1, Decimal(1), True),
        ("JFK", 7, 1, datetime(2013, 1, 1, tzinfo=UTC), True),
        (["JFK"], 7, 1, 1.0, True),
    ],
)
def test_rows_of_other_types_are_refused(encoder: encode.Encoder, values: tuple[object, ...]) -> None:
    with pytest.raises(DataError) as caught:
        encode.compile_row(encoder)(values)
    assert caught.value.code == "wrong-type"
    with pytest.raises(DataError) as together:
        encode.compile_rows(encoder)([("JFK", 7, 1, 1.0, True), values])
    assert str(together.value) == str(caught.value)


def test_rows_of_another_width_are_refused(encoder: encode.Encoder) -> None:
    with pytest.raises(DataError, match="wrong-width"):
        encode.compile_row(encoder)(["JFK"])
    with pytest.raises(DataError, match="wrong-width"):
        encode.compile_rows(encoder)([("JFK", 7, 1, 1.0, True), ["JFK"]])


@pytest.mark.parametrize(
    "damage",
    [
        (b'"EWR","JFK"', b'"JFK","EWR"'),
        (b'"EWR","JFK"', b'"EWR","EWR"'),
        (b'"EWR","JFK"', b'"EWR",1'),
        (b'"vocabulary":[2,', b'"vocabulary":[ 2,'),
        (b'"reads":"number"', b'"reads":"code"'),
        (b'"version":1', b'"version":2'),
        (b'"name":"gate"', b'"name":"origin"'),
        (b"{", b""),
        (b"}", b"\xff}"),
    ],
)
def test_damaged_bytes_are_refused(encoder: encode.Encoder, damage: tuple[bytes, bytes]) -> None:
    data = encoder.to_bytes()
    assert encode.from_bytes(data) == encoder
    assert data.replace(*damage) != data
    with pytest.raises(StateError, match="encoder-damaged"):
        encode.from_bytes(data.replace(*damage))
