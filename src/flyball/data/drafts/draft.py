"""Drafting: a first contract as Python that runs, from what `infer` measured; a person reads it and decides.

Ranges and values are those of the file, rounded outwards: suggestions. What no file can tell (what a row is, which times are
whose, what is personal, what is to be predicted) is a TODO. Imported as it is, the module accepts every row of its file.
"""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import polars as pl

from flyball.data.contract import Contract
from flyball.data.drafts import infer
from flyball.data.drafts.infer import Column, Draft
from flyball.data.source import LINE

WIDTH = 120
"""Columns of a line of code."""

_MODULE = frozenset({"dy", "fb", "pl", "prepared", "source"})
_TAKEN = _MODULE | frozenset(dir(Contract))


def code(draft: Draft, *, path: str, name: str = "") -> str:
    """A module with a contract, a preparation and a source.

    Args:
        draft: what the file's rows are.
        path: the file, relative to the folder in which the module will lie.
        name: of the contract; by default after the file.
    """
    name, file = name or class_name(path), _plain(path.rsplit("/", 1)[-1])
    event, row = draft.event_time or _free(draft, "observed"), _free(draft, "row")
    attributes = _attributes([*(() if draft.key else (row,)), *(c.name for c in draft.columns), event])
    columns = [line for column in draft.columns for line in _column(column, draft, attributes)]
    if not draft.key:
        said = _comment("TODO no three columns tell the rows apart; this is the row's number")
        columns = [*said, *_made(attributes, row, "dy.Int64", ["primary_key=True"]), *columns]
    if not draft.event_time:
        columns += _comment("TODO no column says what time a row is about; every row has this one")
        columns += _made(attributes, event, _EVENT, ['time_zone="UTC"'])
    return "\n".join(
        [
            f'"""A first contract of {file}, written from its data by `flyball contract infer`; it is yours to change.',
            "",
            f"{draft.rows:,} rows were measured. Ranges are those of the file, rounded outwards: suggestions. Look for TODO.",
            '"""',
            "",
            "import dataframely as dy",
            "import polars as pl",
            "",
            "import flyball as fb",
            "",
            "",
            f"class {name}(fb.Contract):",
            '    """TODO what one row is; and which columns are its outcome: fb.outcome and fb.outcome_time."""',
            "",
            *columns,
            "",
            "",
            "def prepared(rows: pl.LazyFrame) -> pl.LazyFrame:",
            '    """Cells as the contract reads them; TODO what else must be mended first."""',
            *_preparation(draft, event, row),
            "",
            "",
            *_statement("source = fb.files(", [_quoted(path), "prepare=prepared", f"yields={name}"], ")"),
            "",
        ]
    )


def class_name(path: str) -> str:
    """What to call the rows of a file: `data/late-flights.csv.zip` has LateFlight rows."""
    stem = path.replace("\\", "/").rsplit("/", 1)[-1].split(".", 1)[0]
    words = [w for w in re.split(r"[^A-Za-z0-9]+", stem) if w]
    if words and re.search(r"[a-rt-z]s$", words[-1]) and not re.search(r"(us|is)$", words[-1]):
        words[-1] = words[-1][:-1]
    name = "".join(w[0].upper() + w[1:] for w in words)
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"Row{name}"


def may_name(name: str) -> bool:
    """Whether a contract can be called so in a module that `code` writes."""
    return name.isidentifier() and not (keyword.iskeyword(name) or name.startswith("_") or name in _MODULE)


def _column(column: Column, draft: Draft, attributes: Mapping[str, str]) -> Iterator[str]:
    """The lines of one column: what was seen, and how it is declared."""
    if column.dtype is None:
        yield from _comment(f"TODO {_plain(column.name)} is left out: no contract holds its type")
        return
    yield from _comment(*_seen(column, draft))
    (head, first), keyed = _type(column.dtype), column.name in draft.key
    if column.values:
        head, first = "dy.Enum", [_list(column.values)]
    if column.name == draft.event_time:
        head, first = _EVENT, ['time_zone="UTC"']
    optional = ["primary_key=True"] if keyed else ["nullable=True"] if column.nulls else []
    yield from _made(attributes, column.name, head, [*first, *optional, *_limits(column, draft)])


_EVENT = "fb.event_time(dy.Datetime"


def _made(attributes: Mapping[str, str], name: str, head: str, arguments: Sequence[str]) -> list[str]:
    alias = [] if attributes[name] == name else [f"alias={_quoted(name)}"]
    return _statement(f"    {attributes[name]} = {head}(", [*arguments, *alias], "))" if head == _EVENT else ")")


def _seen(column: Column, draft: Draft) -> Iterator[str]:
    """What a reader should know of a column before deciding."""
    filled = draft.rows - column.nulls
    if not filled:
        yield "TODO every cell is empty"
    elif column.distinct == 1:
        yield "TODO every filled cell says the same"
    if column.suspect is not None:
        share = f"{100 * column.suspect.share:.0f} % of the cells look like it"
        yield f"TODO personal data ({column.suspect.kind}; {share})? Then fb.personal(...)"
    if column.name == draft.event_time:
        yield from _timely(column)
    elif column.name in draft.key:
        others = " with the other key columns" if len(draft.key) > 1 else ""
        yield f"tells all rows apart{others}"
    elif column.dtype is not None and column.dtype != pl.Boolean and filled > 1 and _identifies(column, filled):
        yield "about every row has its own"
    if marks := [value for value in column.values if value.strip().lower() in _MISSING]:
        yield f"TODO does {_plain(marks[0])!r} mean missing? Then null it in the preparation"
    if column.least is not None:
        yield f"{_figure(column.least)} to {_figure(column.greatest)}"
    if column.nulls and filled:
        yield f"{column.nulls:,} missing"
    if column.odd:
        yield "has NaN or infinite numbers"


_MISSING = frozenset(
    {"", "?", "-", "--", ".", "n/a", "na", "nan", "null", "none", "nil", "unknown", "empty", "missing", "#n/a"}
)


def _timely(column: Column) -> Iterator[str]:
    if column.dtype == infer.INSTANT:
        yield "TODO is this what a row is about, and was it known then?"
    else:
        yield "TODO of which zone are these times? They are taken as UTC"


def _identifies(column: Column, filled: int) -> bool:
    return column.distinct >= 0.85 * filled and not (column.dtype is not None and column.dtype.is_float())


def _limits(column: Column, draft: Draft) -> list[str]:
    """The rules of a column beside its type."""
    if column.values:
        return []
    if column.odd:
        return ["allow_inf=True", "allow_nan=True"]
    if column.regex:
        pattern = f'r"{column.regex}"' if '"' not in column.regex else _quoted(column.regex)
        return [f"regex={pattern}"]
    if column.bytes is not None and column.dtype == pl.String:
        short, long = column.bytes
        same = short == long and draft.rows > 1 and long > 0
        return [f"min_length={long}", f"max_length={long}"] if same else [f"max_length={_roomy(long)}"]
    if column.least is None or column.greatest is None or column.name in draft.key:
        return []
    if _identifies(column, draft.rows - column.nulls) and column.name.lower().endswith("id"):
        return []
    low, high = infer.outward(column.least, column.greatest)
    return [f"min={low:_}", f"max={high:_}"] if math.isfinite(low) and math.isfinite(high) else []


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _roomy(length: int) -> int:
    """The next power of two."""
    return 1 << max(length - 1, 0).bit_length()


_PLAIN: Mapping[type[pl.DataType], str] = {
    **{
        t: f"dy.{t.__name__}"
        for t in (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
    },
    **{t: f"dy.{t.__name__}" for t in (pl.Float32, pl.Float64, pl.String, pl.Binary, pl.Date, pl.Time)},
    pl.Boolean: "dy.Bool",
    pl.Categorical: "dy.String",
    pl.Null: "dy.String",
}


def _type(dtype: pl.DataType) -> tuple[str, list[str]]:
    """The column class of dataframely and its first arguments."""
    match dtype:
        case pl.Datetime(time_zone=str()) if dtype == infer.INSTANT:
            return "dy.Datetime", ['time_zone="UTC"']
        case pl.Datetime(time_unit=unit, time_zone=zone):
            zones = [f"time_zone={_quoted(zone)}"] if zone else []
            return "dy.Datetime", [*([f"time_unit={_quoted(unit)}"] if unit != "us" else []), *zones]
        case pl.Duration(time_unit=unit):
            return "dy.Duration", [f"time_unit={_quoted(unit)}"] if unit != "us" else []
        case pl.Decimal(precision=precision, scale=scale):
            return "dy.Decimal", [str(precision), str(scale)]
        case pl.Enum(categories=categories):
            return "dy.Enum", [_list(categories)]
        case pl.List(inner=inner):
            return "dy.List", [_nested(inner)]
        case pl.Array(inner=inner, size=size):
            return "dy.Array", [_nested(inner), str(size)]
        case pl.Struct(fields=fields):
            return "dy.Struct", ["{" + ", ".join(f"{_quoted(f.name)}: {_nested(f.dtype)}" for f in fields) + "}"]
    return _PLAIN[type(dtype)], []


def _nested(dtype: object) -> str:
    of = dtype() if isinstance(dtype, type) else dtype
    head, first = _type(of) if isinstance(of, pl.DataType) else ("dy.String", [])
    odd = ["allow_inf=True", "allow_nan=True"] if isinstance(of, pl.Float32 | pl.Float64) else []
    return _call(head, [*first, "nullable=True", *odd])


def _preparation(draft: Draft, event: str, row: str) -> Iterator[str]:
    """The body of the preparation."""
    if draft.renamed:
        pairs = ", ".join(f"{_quoted(a)}: {_quoted(b)}" for a, b in draft.renamed.items())
        yield from _statement("    rows = rows.rename(", ["{" + pairs + "}"], ")")
    padded = [_quoted(c.name) for c in draft.columns if c.stripped]
    if padded:
        yield from _statement("    padded = pl.col(", padded, ")")
        yield '    rows = rows.with_columns(padded.str.strip_chars().replace("", None))'
    made = [_clock(c) for c in draft.columns if c.clock]
    if made:
        yield "    # What is not of the format stays as it is, and is found by the contract."
        yield from _statement("    rows = rows.with_columns(", made, ")")
    made = []
    if draft.event_time:
        made += _instant(draft.column(draft.event_time))
    else:
        made.append(f'{event}=pl.datetime(1970, 1, 1, time_zone="UTC")')
    if not draft.key:
        made.append(f"{row}=pl.col({_quoted(LINE)})")
    if made:
        yield from _statement("    return rows.with_columns(", made, ")")
    else:
        yield "    return rows"


def _clock(column: Column) -> str:
    cell, parse = f"pl.col({_quoted(column.name)})", "to_datetime" if "%H" in column.clock else "to_date"
    return f"pl.coalesce({cell}.str.{parse}({_quoted(column.clock)}, strict=False).cast(pl.String), {cell})"


def _instant(column: Column) -> list[str]:
    """The event time as an instant, where the file has a clock time or a day."""
    cell = f"pl.col({_quoted(column.name)})"
    if column.dtype == infer.INSTANT:
        return []
    if column.text:
        return [f'{cell} + "{"Z" if column.dtype == pl.Datetime("us") else "T00:00:00Z"}"']
    moment = cell if column.dtype == pl.Datetime("us") else f'{cell}.cast(pl.Datetime("us"))'
    return [f'{moment}.dt.replace_time_zone("UTC")']


def _free(draft: Draft, name: str) -> str:
    taken = {c.name for c in draft.columns}
    return next(n for n in (name, *(f"{name}_{i}" for i in range(2, 1_000))) if n not in taken)


def _attributes(names: Sequence[str]) -> dict[str, str]:
    """Column -> the class attribute for it; where the two differ, the column has its name as its alias."""
    taken: dict[str, str] = {}
    for name in sorted(names, key=lambda n: _attribute(n) != n):
        plain = wanted = _attribute(name)
        n = 1
        while wanted in taken.values():
            n += 1
            wanted = f"{plain}_{n}"
        taken.setdefault(name, wanted)
    return taken


def _attribute(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") if not (name.isascii() and name.isidentifier()) else name
    plain = f"column_{plain}".strip("_") if not plain or plain[0].isdigit() else plain
    return f"{plain}_" if keyword.iskeyword(plain) or plain in _TAKEN else plain


def _comment(*said: str) -> list[str]:
    return [f"    # {text}" for text in ("; ".join(said),) if text]


def _plain(text: str) -> str:
    """Text for a comment or a docstring."""
    return "".join(c if c.isprintable() and c not in '"\\' else "?" for c in text)[:80]


def _quoted(text: str) -> str:
    said = json.dumps(text, ensure_ascii=False)
    # A sign that nobody sees (one that turns the line round, say) must not make the code look like other code.
    return said if said.isprintable() else "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in said)


def _call(head: str, arguments: Sequence[str]) -> str:
    return f"{head}({', '.join(arguments)})"


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(map(_quoted, texts)) + "]"


def _statement(head: str, arguments: Sequence[str], tail: str) -> list[str]:
    """A call on one line if it fits, with its arguments on one line of their own, or with one line each."""
    flat = ", ".join(arguments)
    if len(head) + len(flat) + len(tail) <= WIDTH:
        return [head + flat + tail]
    indent = " " * (len(head) - len(head.lstrip()))
    if len(indent) + 4 + len(flat) <= WIDTH:
        return [head, f"{indent}    {flat}", indent + tail]
    return [head, *(line for a in arguments for line in _argument(a, f"{indent}    ")), indent + tail]


def _argument(argument: str, indent: str) -> list[str]:
    if len(indent) + len(argument) + 1 <= WIDTH or not argument.startswith("["):
        return [f"{indent}{argument},"]
    return [f"{indent}[", *(f"{indent}    {_quoted(text)}," for text in json.loads(argument)), f"{indent}],"]
