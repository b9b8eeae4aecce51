"""The app of an adopted model as Python that runs: written once from what is in its file and in a sample, then a person's own.

Columns come from the file's inputs, from the names that scikit-learn was fitted on, `--features`, or the sample; types
from the file, and where it leaves them open from the sample; limits from the sample alone, with as much room on either side.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from flyball._kernel.errors import DeclarationError
from flyball.data.contract import Contract
from flyball.data.drafts import draft, infer
from flyball.learn.export import adopted_look
from flyball.learn.export.adopted_look import Look
from flyball.learn.features.closures import term

ROWS = 10_000
"""Rows of a sample that are kept beside the app, evenly spaced."""

FLOAT32_WHOLE = 1 << 24
"""From here on float32 skips whole numbers."""

_DY: Mapping[str, str] = {
    **{"float32": "dy.Float64", "float64": "dy.Float64", "int32": "dy.Int32", "int64": "dy.Int64"},
    **{"bool": "dy.Bool", "string": "dy.String", "": "dy.Float64"},
}
_TAKEN = frozenset(dir(Contract)) | {"dy", "fb", "pl", "days", "hours", "id", "asked"}


@dataclass(frozen=True, slots=True)
class Names:
    """What things are called.

    Attributes:
        app: of the app and its model.
        file: of the file that is adopted.
        outcome: the column that holds what came of a question.
    """

    app: str
    file: str
    outcome: str = "outcome"


def columns(
    found: Look, features: Sequence[str], sample: pl.DataFrame | None, beside: Sequence[str]
) -> tuple[str, ...]:
    """The columns of the model, in the order of its inputs.

    Args:
        features: as the caller names them; none where that is left to the file and the sample.
        sample: rows, if there are any.
        beside: columns of the sample that the model does not read.

    Raises:
        DeclarationError: `adopted-needs-names`; `adopted-features-differ`, where the sample has another type.
    """
    wide = [each for each in found.inputs if each.width != 1]
    count = sum(each.width for each in found.inputs) if all(each.width for each in found.inputs) else 0
    if features:
        names = tuple(features)
    elif found.named:
        names = found.named
    elif not wide and found.kind == "onnx" and len(found.inputs) > 1:
        names = tuple(each.name for each in found.inputs)
    elif sample is not None:
        names = tuple(name for name in sample.columns if name not in beside)
    else:
        raise _nameless(f"it takes {count or 'any number of'} columns, and does not name them")
    if count and len(names) != count:
        raise _nameless(f"it takes {count} columns, and {len(names)} are named: {', '.join(names)[:200]}")
    if len(set(names)) < len(names):
        raise _nameless("two columns have one name")
    for name in names:
        if name.startswith("_") or not name.isprintable() or {'"', "\\", "|"} & set(name) or not name.strip():
            raise _nameless(f"a column cannot be called {name[:60]!r} here")
    lacking = [name for name in names if sample is not None and name not in sample.columns]
    if lacking:
        raise _nameless(f"the sample has no column {lacking[0][:60]!r}")
    wanted = [each.dtype for each in found.inputs for _ in range(each.width or len(names))]
    for name, dtype in zip(names, wanted, strict=False):
        if sample is not None and not adopted_look.fits(dtype, sample.schema[name]):
            raise adopted_look.differ(f"the column {name!r} is of {dtype}, and the sample has {sample.schema[name]}")
    return names


def _nameless(why: str) -> DeclarationError:
    return DeclarationError(
        "adopted-needs-names",
        "The columns of the model cannot be named.",
        why=f"As it is, {why}.",
        next="Name them in the order of training: --features age,plan,visits; or give rows that have them: "
        "--sample rows.parquet, with --outcome COLUMN for a column that is not read.",
    )


def sampled(sample: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """The model's columns of some rows, with NaN as missing: what is kept beside the app."""
    kept = sample.select(names).with_columns(pl.col(pl.Float32, pl.Float64).fill_nan(None))
    step = -(-kept.height // ROWS) or 1
    return kept.gather_every(step)


def code(found: Look, names: Names, columns: Sequence[str], sample: pl.DataFrame | None) -> str:
    """The app file.

    Args:
        found: what is in the file.
        columns: the model's, in the order of its inputs.
        sample: what `sampled` kept.
    """
    title = draft.class_name(names.app)
    attributes = _attributes(columns)
    lines = list(_columns(found, columns, attributes, sample))
    key, asked, settled = (_free(name, [*columns, names.outcome]) for name in ("id", "asked", "settled"))
    reads = ", ".join(f"{title}.{attributes[name]}" for name in columns)
    features = f"features = fb.features({reads})"
    if len(features) > draft.WIDTH:
        features = "\n".join(["features = fb.features(", *(f"    {title}.{attributes[n]}," for n in columns), ")"])
    quality = _quality(found)
    said = '\n    sample="sample.parquet",' if sample is not None else ""
    drift = 'fb.Monitor("drift", fb.psi(features, over=days(7)) <= 0.25),' if sample is not None else _NO_DRIFT
    return _APP.format(
        app=names.app,
        file=names.file,
        title=title,
        key=key,
        asked=asked,
        settled=settled,
        columns="\n".join(lines),
        outcome=names.outcome,
        outcome_type=_outcome(found),
        features=features,
        sample=said,
        drift=drift,
        quality=quality,
        gate=quality.replace(".live(over=days(30))", ""),
    )


_NO_DRIFT = "# without a sample of what it was trained on, drift has nothing to compare with: flyball adopt --sample"

_APP = '''"""{app}: {file}, trained elsewhere. flyball serves it, records every answer, and watches; written by `flyball adopt`.

It is yours to change. Limits are the sample's range, and as much again on either side: what is beyond is likely of another
unit, and is refused by name.
"""

import dataframely as dy
import polars as pl

import flyball as fb
from flyball import days, hours


class {title}(fb.Contract):
    """One question to the model; and what came of it, once that is known."""

    {key} = dy.String(primary_key=True, max_length=200, description="the caller's own id of the question")
    {asked} = fb.event_time(dy.Datetime(time_zone="UTC", description="when it is asked; now, where it is left out"))
{columns}
    {settled} = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=days(90))
    {outcome} = fb.outcome({outcome_type})


def prepared(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Labelled rows as the contract has them."""
    return rows


{features}

{app} = fb.adopted(
    "{file}",
    features,
    predicts={title}.{outcome},
    asked=fb.before({title}.{asked}, hours(0), tolerance=hours(1)),{sample}
    name="{app}",
)

app = fb.App(
    "{app}",
    # Labelled rows, for gates: pushed to POST /ingest/labelled, or a file of them: fb.files("labelled.parquet", ...).
    sources=[fb.push("labelled", prepare=prepared, yields={title})],
    model={app},
    # gates=[{gate}],
    release=fb.Release(fb.shadow(hours(1)), fb.canary(0.1, hours(1)), abort_unless=[fb.error_rate <= 0.01], patience=days(3)),
    monitors=[
        fb.Monitor("live quality", {quality}),
        {drift}
    ],
)
'''


def _columns(
    found: Look, names: Sequence[str], attributes: Mapping[str, str], sample: pl.DataFrame | None
) -> Iterator[str]:
    """A line for each column of the model."""
    wanted = [each.dtype for each in found.inputs for _ in range(each.width or len(names))]
    seen = {c.name: c for c in infer.infer(sample.lazy()).columns} if sample is not None else {}
    for name, dtype in zip(names, wanted, strict=False):
        have = sample.schema[name] if sample is not None else None
        type_, said = _type(dtype, have), []
        column = seen.get(name)
        if column is not None and column.nulls:
            said.append("nullable=True")
        if column is not None and type_ == "dy.String" and column.bytes is not None:
            # A category that nobody has seen is for the model to judge, not for the contract.
            said.append(f"max_length={max(64, 2 << max(column.bytes[1] - 1, 0).bit_length())}")
        if column is not None and type_ not in ("dy.String", "dy.Bool") and column.least is not None:
            said += _limits(column.least, column.greatest if column.greatest is not None else column.least, type_)
        if attributes[name] != name:
            said.append(f"alias={json.dumps(name, ensure_ascii=False)}")
        yield f"    {attributes[name]} = {type_}({', '.join(said)})"


def _limits(least: float, greatest: float, type_: str) -> list[str]:
    """A sample is small, and the next row may lie beyond it: the model answered such rows, and monitors of drift tell of them.
    What is far beyond is another unit, or a slip.
    """
    room = greatest - least or abs(greatest) or 1.0
    low, high = least - room, greatest + room
    if least >= 0:
        low = max(low, type(low)(0))
    elif greatest <= 0:
        high = min(high, type(high)(0))
    low, high = infer.outward(low, high)
    if (held := term.RANGES.get(type_.removeprefix("dy."))) is not None:  # no contract has limits beyond its type's
        low, high = max(low, held[0]), min(high, held[1])
    exact = all(abs(limit) < _EXACT for limit in (low, high))
    return [f"min={low:_}", f"max={high:_}"] if exact else []


_EXACT = 2.0**53
"""Beyond this a limit is not what it says."""


def _type(wanted: str, have: pl.DataType | None) -> str:
    if have is None or wanted in ("int32", "int64", "bool", "string"):
        return _DY[wanted]
    if have == pl.Boolean:
        return "dy.Bool"
    if have.is_integer():
        return f"dy.{have}"
    if have == pl.Float32:
        return "dy.Float32"
    return "dy.Float64" if have.is_numeric() else "dy.String"


def _outcome(found: Look) -> str:
    task = found.task
    if task.truth:
        return "dy.Bool(nullable=True)"
    if task.classes:
        return f"dy.Enum({json.dumps(list(task.classes), ensure_ascii=False)}, nullable=True)"
    return "dy.Float64(nullable=True)"


def _quality(found: Look) -> str:
    """The least that is expected: better than chance, or than always saying the mean."""
    if found.task.truth:
        return "fb.roc_auc.live(over=days(30)) >= 0.5"
    if found.task.classes:
        return f"fb.accuracy.live(over=days(30)) >= {1 / len(found.task.classes):.3g}"
    return "fb.r2.live(over=days(30)) >= 0.0"


def told(found: Look, columns: Sequence[str], sample: pl.DataFrame | None) -> list[str]:
    """What a person should know of how the values of a request come to the model."""
    wanted = [each.dtype for each in found.inputs for _ in range(each.width or len(columns))]
    single = [name for name, dtype in zip(columns, wanted, strict=False) if dtype == "float32"]
    said = list(found.told)
    if single:
        said.append(f"{len(single)} columns go in as float32, rounded to the nearest: about seven digits are kept.")
    if sample is not None:
        wide = [n for n in single if sample[n].dtype.is_integer() and _beyond(sample[n])]
        said += [f"{name} has whole numbers beyond 2^24, of which float32 skips some." for name in wide]
    else:
        said.append("There is no sample: no limits in the contract, no reference for drift, and parity was not proven.")
    return said


def _beyond(values: pl.Series) -> bool:
    return bool((values.cast(pl.Float64).abs() > FLOAT32_WHOLE).any())


def _attributes(names: Sequence[str]) -> dict[str, str]:
    """Column -> what it is called in the class."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "column"
        plain = f"column_{plain}" if plain[0].isdigit() else plain
        if keyword.iskeyword(plain) or (plain in _TAKEN and name not in ("id", "asked")):
            plain += "_"
        while plain in found.values():
            plain += "_"
        found[name] = plain
    return found


def _free(name: str, taken: Sequence[str]) -> str:
    while name in taken:
        name += "_"
    return name
