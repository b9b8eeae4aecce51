"""Steps of a preparation: what each makes of a cell, what it leaves alone, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball._kernel import fingerprint
from flyball._kernel.errors import DataError, DeclarationError
from flyball._kernel.place import Place
from flyball.data.preparing import prepare
from flyball.data.preparing.lookup import Lookup
from flyball.data.source import LINE, NULLS, Preparation

BERLIN = "Europe/Berlin"
GERMAN = ["%d.%m.%Y %H:%M", "%d.%m.%Y"]


def after(step: Preparation, **columns: Sequence[object]) -> dict[str, list[object]]:
    return step(pl.LazyFrame(columns, strict=False)).collect().to_dict(as_series=False)


CELLS: list[tuple[Preparation, list[str | None], list[str | None]]] = [
    (prepare.trim("a"), ["\u00a0 x y \u200b\n", "e\u0301", "", None], ["x y", "é", "", None]),
    (prepare.squeeze("a"), ["x \u00a0\t y", " x"], ["x y", " x"]),
    (prepare.cases("a", to="upper"), ["ua", None], ["UA", None]),
    (prepare.cases("a", to="lower"), ["UA"], ["ua"]),
    (prepare.cases("a", to="title"), ["new york"], ["New York"]),
    (prepare.categories("a", spellings={"New York": "NYC"}), [" new york", "LA", None], ["NYC", "LA", None]),
    (prepare.truth("a"), ["Yes", "n", "maybe"], ["true", "false", "maybe"]),
    (prepare.truth("a", yes=["ja"], no=["nein"]), ["JA", "yes"], ["true", "yes"]),
    (prepare.number("a"), ["+12.50", "−3", "12 oz", "1,5", ".5", None], ["12.50", "-3", "12 oz", "1,5", ".5", None]),
    (prepare.number("a", units={"oz": 1}), ["12.0 oz", "oz 3", "12"], ["12.0", "3", "12"]),
    (prepare.number("a", units={"oz": 1, "oz.": 1}), ["12 OZ.", "12 oz x"], ["12", "12 oz x"]),
    (prepare.number("a", units={"kg": 1, "g": 0.001}), ["2 kg", "500 g", "1 lb"], ["2", "0.5", "1 lb"]),
    (prepare.number("a", units={"%": 1}), ["0.10400000000000001%"], ["0.10400000000000001"]),
    (
        prepare.number("a", decimal=",", thousands=".", units={"": 1, "€": 1}),
        ["1.234.567,5", "1.23", "12.3456", "€ 4,50", "1.2345,0"],
        ["1234567.5", "1.23", "12.3456", "4.50", "1.2345,0"],
    ),
    (
        prepare.moment("a", formats=GERMAN, zone=BERLIN),
        ["31.10.2024 09:30", "31.03.2024 02:30", "27.10.2024 02:30", "01.02.2024", "soon", None],
        ["2024-10-31T08:30:00Z", "31.03.2024 02:30", "27.10.2024 02:30", "2024-01-31T23:00:00Z", "soon", None],
    ),
    (
        prepare.moment("a", formats=GERMAN, zone=BERLIN, twice="earliest"),
        ["27.10.2024 02:30"],
        ["2024-10-27T00:30:00Z"],
    ),
    (prepare.moment("a", formats=GERMAN, zone=BERLIN, twice="latest"), ["27.10.2024 02:30"], ["2024-10-27T01:30:00Z"]),
    (
        prepare.moment("a", formats=["%d/%m/%Y", "%m/%d/%Y"], zone="UTC"),
        ["03/04/2024", "13/04/2024", "03/03/2024"],
        ["03/04/2024", "2024-04-13T00:00:00Z", "2024-03-03T00:00:00Z"],
    ),
    (
        prepare.moment("a", formats=["%Y-%m-%d %H:%M:%S%.f %z"]),
        ["2024-01-01 10:00:00.25 +0200"],
        ["2024-01-01T08:00:00.250Z"],
    ),
    (prepare.date("a", formats=["%d.%m.%Y"]), ["01.02.2024", "2024-01-01", "x"], ["2024-02-01", "2024-01-01", "x"]),
    (
        prepare.hhmm("a"),
        ["517", "5", "2359", "2400", "1260", "12345"],
        ["05:17", "00:05", "23:59", "2400", "1260", "12345"],
    ),
    (
        prepare.mojibake("a"),
        ["GÃ¶teborg", "Göteborg", "â€œxâ€\x9d", "Ã", "Ã¶ and €", "Ünlü"],
        ["Göteborg", "Göteborg", "“x”", "Ã", "Ã¶ and €", "Ünlü"],
    ),
    (prepare.nulls("N/A", "-"), ["N/A", "-", "x", "n/a", None], [None, None, "x", "n/a", None]),
    (prepare.clip("a", low=0, high=120), ["1048", "-5", "7", "x", None], ["120", "0", "7", "x", None]),
    (prepare.fill("a", "0"), [None, "1"], ["0", "1"]),
]


@pytest.mark.parametrize(("step", "before", "wanted"), CELLS)
def test_a_step_makes_of_cells(step: Preparation, before: list[str | None], wanted: list[str | None]) -> None:
    lines = list(range(2, 2 + len(before)))
    assert after(step, _line=lines, a=before) == {"_line": lines, "a": wanted}


@pytest.mark.parametrize("step", [step for step, _, _ in CELLS[:-2]])
def test_typed_cells_are_left_alone(step: Preparation) -> None:
    assert after(step, a=[1.5, None]) == {"a": [1.5, None]}


def test_steps_follow_one_another_and_other_columns_stay() -> None:
    both = prepare.chain(prepare.trim("a"), prepare.nulls("-", columns=["a"]), prepare.rename({"a": "c"}))
    assert after(both, a=[" - ", "x"], b=["-", " "]) == {"c": [None, "x"], "b": ["-", " "]}


def test_a_column_that_is_not_there_is_said() -> None:
    for step in (prepare.trim("nope"), prepare.rename({"nope": "a"}), prepare.fill("nope", "0")):
        with pytest.raises(pl.exceptions.ColumnNotFoundError, match="nope"):
            after(step, a=["x"])


def test_rows_are_kept_where_nobody_can_tell() -> None:
    assert after(prepare.keep(pl.col("a") != "x"), a=["x", "y", None]) == {"a": ["y", None]}


def test_repeats_are_told_by_their_columns_and_null_repeats_nothing() -> None:
    columns = {"_line": [2, 3, 4, 5, 6], "a": ["x", "x", None, None, "x"], "b": ["1", "2", "1", "1", "1"]}
    assert after(prepare.drop_repeats("a"), **columns)["_line"] == [2, 4, 5]
    assert after(prepare.drop_repeats(), **columns)["_line"] == [2, 3, 4]


def test_columns_are_split_and_united() -> None:
    split = prepare.split("a", into=["b", "c"], by=", ")
    assert after(split, a=["x, y", "x", "x, y, z", None]) == {
        "a": ["x, y", "x", "x, y, z", None],
        "b": ["x", None, None, None],
        "c": ["y", None, None, None],
    }
    assert after(prepare.unite("c", "a", "b", by="-"), a=["x", None], b=["1", "2"])["c"] == ["x-1", None]


def test_outliers_are_marked_and_numbers_keep_their_type() -> None:
    marked = prepare.mark_outliers("a", high=120, flag="far")
    assert after(marked, a=["1048", "7", "x", None]) == {
        "a": [None, "7", "x", None],
        "far": [True, False, False, False],
    }
    assert after(prepare.clip("a", high=120), a=[1048.5, 7.5, None]) == {"a": [120.0, 7.5, None]}


@pytest.mark.parametrize("bound", [None, pl.col("a").quantile(0.99), "12"])
def test_bounds_that_nobody_knows_are_refused(bound: object) -> None:
    with pytest.raises(DeclarationError) as said:
        prepare.clip("a", high=bound)  # type: ignore[arg-type] - what a user would try
    assert said.value.code == "bounds-from-data"
    assert said.value.where is not None
    assert said.value.where.file == __file__


def test_a_filled_cell_can_be_told() -> None:
    assert after(prepare.fill("a", 0, flag="was"), a=[None, 3]) == {"a": [0, 3], "was": [True, False]}


def test_contradictions_of_a_declaration_are_refused() -> None:
    with pytest.raises(DeclarationError, match="spelling-twice"):
        prepare.categories("a", spellings={"NY": "New York", "ny ": "Norway"})
    with pytest.raises(DeclarationError, match="time-without-zone"):
        prepare.moment("a", formats=["%Y-%m-%d %H:%M %z", "%Y-%m-%d"])


HOUR = timedelta(hours=1)


def test_what_is_carried_comes_strictly_from_the_past() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    step = prepare.carry_forward("v", by=["k"], at="t", within=2 * HOUR)
    rows: list[tuple[str, int | None, str | None, str | None]] = [
        ("a", 1, None, "x"),  # the value of hour 0, which stands further down
        ("a", 0, "x", "x"),
        ("a", 0, None, None),  # the same moment
        ("a", 2, None, "x"),  # just within
        ("a", 3, None, None),  # too old
        ("b", 1, None, None),  # another series
        ("a", None, None, None),  # nobody knows when
        ("a", -1, None, None),  # before
    ]
    times = [None if hour is None else start + hour * HOUR for _, hour, _, _ in rows]
    columns = {"k": [k for k, *_ in rows], "t": times, "v": [v for _, _, v, _ in rows]}
    assert after(step, **columns) == {**columns, "v": [wanted for *_, wanted in rows]}
    columns["t"] = [None if t is None else t.isoformat() for t in times]
    assert after(step, **columns) == {**columns, "v": [wanted for *_, wanted in rows]}


PLANES = "tail,year,seats\nN1,1999,2\nN2,NA,3\n"


@pytest.fixture
def planes(tmp_path: Path) -> Callable[[str], Lookup]:
    def write(text: str) -> Lookup:
        (tmp_path / "planes.csv").write_text(text)
        return Lookup("planes.csv", NULLS, Place(str(tmp_path / "app.py"), 3))

    return write


def test_a_lookup_adds_columns_and_never_rows(planes: Callable[[str], Lookup]) -> None:
    on = {"tailnum": "tail"}
    step = prepare.merge(planes(PLANES), on=on, take=["year"])
    assert after(step, tailnum=["N2", "N1", "N3", None, "N1"])["year"] == [None, "1999", None, None, "1999"]
    inner = prepare.merge(planes(PLANES), on=on, take=["year"], how="inner")
    assert after(inner, tailnum=["N3", "N1", None]) == {"tailnum": ["N1"], "year": ["1999"]}
    with pytest.raises(DataError, match="merge-refused") as said:
        after(prepare.merge(planes(PLANES), on=on, take=["year"]), tailnum=["N1"], year=["1"])
    assert "'year'" in said.value.what
    with pytest.raises(DataError, match="merge-refused") as said:
        after(prepare.merge(planes(PLANES + "N1,2000,2\n"), on=on, take=["year"]), tailnum=["N1"])
    assert "2 of its rows" in said.value.what
    planes(PLANES)
    once = prepare.merge(planes(PLANES), on=on, take=["year"], expect="one-to-one")
    with pytest.raises(pl.exceptions.ComputeError):
        after(once, tailnum=["N1", "N1"])


def test_a_lookup_counts_by_its_content(planes: Callable[[str], Lookup], tmp_path: Path) -> None:
    other = planes(PLANES)
    step = prepare.chain(prepare.trim(), prepare.merge(other, on={"tailnum": "tail"}, take=["year"]))
    first = fingerprint.of(step)
    assert fingerprint.of(step) == first
    planes(PLANES.replace("1999", "1998"))
    assert after(step, tailnum=["N1"])["year"] == ["1999"], "the content that the fingerprint was taken of"
    assert fingerprint.of(step) != first
    assert after(step, tailnum=["N1"])["year"] == ["1998"]
    (tmp_path / "planes.csv").unlink()
    with pytest.raises(DataError, match="lookup-unreadable"):
        fingerprint.of(step)


def test_a_lookup_lies_beside_the_file_that_declares_it() -> None:
    with pytest.raises(DataError, match="lookup-unreadable"):
        prepare.lookup("nowhere.csv").rows()


def test_a_fingerprint_tells_steps_apart() -> None:
    steps = [
        prepare.number("a"),
        prepare.number("b"),
        prepare.number("a", decimal=","),
        prepare.number("a", units={"kg": 1}),
        prepare.chain(prepare.number("a")),
        prepare.trim("a"),
        prepare.keep(pl.col("a") > 1),
        prepare.keep(pl.col("a") > 2),
        prepare.moment("a", formats=["%Y"], zone="UTC"),
        prepare.moment("a", formats=["%Y"], zone=BERLIN),
    ]
    assert len({fingerprint.of(step) for step in steps}) == len(steps)
    assert fingerprint.of(prepare.number("a")) == fingerprint.of(steps[0])


def cells_after(step: Any, cells: list[Any], dtype: Any = pl.String) -> list[Any]:
    rows = pl.LazyFrame({LINE: range(len(cells)), "c": pl.Series(cells, dtype=dtype)})
    return step(rows).collect(engine="streaming")["c"].to_list()


def test_digits_of_other_scripts_stay_and_break_nothing() -> None:
    assert cells_after(prepare.hhmm("c"), ["517", "\u0661\u0662"]) == ["05:17", "\u0661\u0662"]
    grams = prepare.number("c", units={"kg": 1, "g": 0.001})
    assert cells_after(grams, ["\u0661 g", "9" * 400 + " g", "5 g"]) == ["\u0661 g", "9" * 400 + " g", "0.005"]


def test_a_declaration_that_would_multiply_numbers_is_refused() -> None:
    with pytest.raises(DeclarationError, match="spelling-twice"):
        prepare.number("c", units={"m": 0.001, "M": 1e6})
    for separators in ({"thousands": "."}, {"thousands": "-"}, {"decimal": ""}):
        with pytest.raises(DeclarationError, match="separators-unclear"):
            prepare.number("c", **separators)


def test_no_number_is_beyond_no_bound() -> None:
    assert cells_after(prepare.clip("c", low=0, high=10), ["NaN", "nan", "11"]) == ["NaN", "nan", "10"]
    marked = cells_after(prepare.mark_outliers("c", low=0, high=10), [float("nan"), 11.0], pl.Float64)
    assert str(marked) == "[nan, None]"


def test_what_has_no_width_goes_from_the_ends_and_stays_within() -> None:
    assert cells_after(prepare.squeeze("c"), ["\u0645\u06cc\u200c\u062e", "a \u00a0 b"]) == [
        "\u0645\u06cc\u200c\u062e",
        "a b",
    ]
    assert cells_after(prepare.trim("c"), ["\ufeff a\u200db \u200b"]) == ["a\u200db"]


def test_two_digits_are_no_year() -> None:
    assert cells_after(prepare.date("c", formats=["%d.%m.%Y"]), ["01.02.24", "01.02.224"]) == ["01.02.24", "01.02.224"]
    both = prepare.date("c", formats=["%d.%m.%Y", "%d.%m.%y"])
    assert cells_after(both, ["01.02.24", "01.02.2024"]) == ["2024-02-01"] * 2
    times = prepare.moment("c", formats=["%d.%m.%Y %H:%M"], zone="UTC")
    assert cells_after(times, ["01.02.24 10:00"]) == ["01.02.24 10:00"]


def test_nothing_is_carried_by_what_is_no_time() -> None:
    step = prepare.carry_forward("c", by=["c"], at="at", within=timedelta(1))
    assert step(pl.LazyFrame({"c": ["a"], "at": [None]})).collect().height == 1
    with pytest.raises(DataError, match="carried-without-time"):
        step(pl.LazyFrame({"c": ["a"], "at": [1]}))
