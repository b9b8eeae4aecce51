"""What every preparation step keeps, and what the count of changes adds up to, whatever the cells are."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import dataframely as dy
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

import flyball as fb
from flyball._kernel.place import Place
from flyball.adapters.embedded.sources import FileReader
from flyball.cycle import changes
from flyball.data.preparing import prepare
from flyball.data.source import Files, Preparation, Source

CELL = st.one_of(
    st.none(),
    st.sampled_from(["1", "1.0", "2", "x", " x", "N/A", "2024-01-01T00:00:00Z", "GÃ¶", "517", "yes"]),
    st.text(max_size=6),
)
STEPS: dict[str, Preparation] = {
    "trim": prepare.trim(),
    "squeeze": prepare.squeeze(),
    "lower": prepare.cases(to="lower"),
    "truth": prepare.truth(),
    "number": prepare.number(),
    "nulls": prepare.nulls("N/A", "x"),
    "hhmm": prepare.hhmm(),
    "moment": prepare.moment(formats=["%Y-%m-%d"], zone="UTC"),
    "clip": prepare.clip("a", low=0, high=1),
    "keep": prepare.keep(pl.col("a") != "x"),
    "repeats": prepare.drop_repeats("a"),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(CELL, max_size=20), st.sampled_from(sorted(STEPS)))
def test_a_step_done_twice_is_done_once(cells: list[str | None], step: str) -> None:
    raw = pl.LazyFrame({"_line": range(len(cells)), "a": pl.Series(cells, dtype=pl.String)})
    once = STEPS[step](raw).collect()
    assert STEPS[step](once.lazy()).collect().equals(once)
    assert set(once["_line"]) <= set(range(len(cells)))


@settings(max_examples=60, deadline=None)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**18), max_value=10**18, places=3))
def test_a_number_is_read_exactly_however_it_is_written(value: Decimal) -> None:
    written = f"{value:,}".translate(str.maketrans(",.", ".,")) + " kg"
    step = prepare.number("a", decimal=",", thousands=".", units={"kg": 1})
    assert Decimal(step(pl.LazyFrame({"a": [written]})).collect().item()) == value


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=0xFF), max_size=8), st.sampled_from(["cp1252", "latin-1"]))
def test_mangled_text_is_what_it_was_again(text: str, wrong: str) -> None:
    try:
        mangled = text.encode().decode(wrong)
    except UnicodeDecodeError:  # five bytes mean nothing in Windows-1252
        return
    assert prepare.mojibake()(pl.LazyFrame({"a": [mangled]})).collect().item() == text


class Row(fb.Contract):
    key = dy.String(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    a = dy.Float64(nullable=True)
    b = fb.personal(dy.String(nullable=True))


def _mix(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Drops some rows, doubles others, and turns them round."""
    line = pl.col("_line")
    kept = rows.filter(line % 5 != 0)
    return pl.concat([kept, kept.filter(line % 7 == 0)]).reverse()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["1", "1.0", "2", "x", "-", ""]), st.sampled_from(["q", " q", ""])), max_size=30)
)
def test_the_kinds_of_changes_add_up(cells: list[tuple[str, str]]) -> None:
    lines = ["key,at,a,b", *(f"k{i},2024-01-01T00:00:00Z,{a},{b}" for i, (a, b) in enumerate(cells))]
    step = prepare.chain(_mix, prepare.trim(), prepare.nulls("-"), prepare.fill("b", "?"), prepare.clip("a", high=1))
    with TemporaryDirectory() as folder:
        Path(folder, "rows.csv").write_text("\n".join(lines) + "\n")
        source = Source("rows.Row", Files("rows.csv"), step, Row, place=Place(f"{folder}/app.py", 1))
        reader = FileReader()
        (file,) = reader.files(source)
        found = changes.compare(reader, source, file)
    numbers = range(2, 2 + len(cells))
    left = [n for n in numbers if n % 5]
    assert (found.read, found.matched, found.dropped) == (len(cells), len(left), len(cells) - len(left))
    assert found.added == sum(n % 7 == 0 for n in left)
    assert found.prepared == len(left) + found.added
    columns = {c.column: c for c in found.columns}
    assert columns.keys() == ({"key", "at", "a", "b"})
    for column in columns.values():
        assert sum(getattr(column, kind) for kind in changes.KINDS) == found.matched
    kind = {"2": "changed", "-": "emptied"}
    wanted = Counter(kind.get(cells[n - 2][0], "kept") for n in left)
    assert {k: getattr(columns["a"], k) for k in changes.KINDS if getattr(columns["a"], k)} == dict(wanted)
    assert columns["a"].unread == sum(cells[n - 2][0] == "x" for n in left)
    assert columns["b"].filled == sum(cells[n - 2][1] == "" for n in left)
    assert columns["b"].changed == sum(cells[n - 2][1] == " q" for n in left)
    assert columns["b"].personal
    assert not columns["b"].examples
