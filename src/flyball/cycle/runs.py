"""Runs: what was tried and what came of it, as tables: the trials of searches, and the versions that were registered.

Each is a Polars frame with a column for every knob and metric, filtered by a condition that a person can say: one column, one
operator, one literal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final, cast

import msgspec
import polars as pl

from flyball._kernel.clock import in_utc, micros
from flyball._kernel.errors import DataError
from flyball._kernel.ports import Facts
from flyball.cycle.session import Session
from flyball.data import where as wheres
from flyball.data.where import Op, Where
from flyball.learn.knobs import Knob
from flyball.learn.trying import trials
from flyball.learn.trying.trial_charts import Dot
from flyball.release import rollout, version

_TRIAL: Final = {
    "model": pl.String(),
    "version": pl.String(),
    "search": pl.String(),
    "trial": pl.Int64(),
    "origin": pl.String(),
    "state": pl.String(),
    "code": pl.String(),
    "metric": pl.String(),
    "better": pl.String(),
    "score": pl.Float64(),
    "best": pl.Boolean(),
    "seconds": pl.Float64(),
    "at": pl.Datetime("us", "UTC"),
}
_VERSION: Final = {
    "model": pl.String(),
    "version": pl.String(),
    "decision": pl.String(),
    "champion": pl.Boolean(),
    "registered": pl.Datetime("us", "UTC"),
    "search": pl.String(),
}
KEY: Final = 12
"""Characters of a search's key that are shown."""


def frame(session: Session, model: str | None = None) -> pl.DataFrame:
    """Every recorded trial, searches in the order in which they began: a row each, a column for each knob.

    `version` is the first that came of the search; `best` is the trial that its search chose, or would choose by now.

    Args:
        model: of this one alone; by default of all of the app's.
    """
    found: list[dict[str, Any]] = []
    spread: list[Mapping[str, Knob]] = []
    app = session.app.name
    for name in (model,) if model is not None else session.models:
        made = {row.search: row.version for row in reversed(version.versions(session.facts, app, name))}
        for row in trials.rows(session.facts, app, name):
            trial = row.trial
            found.append(
                {
                    "model": name,
                    "version": made.get(row.key),
                    "search": row.key[:KEY],
                    "trial": trial.number,
                    "origin": trial.origin,
                    "state": trial.state,
                    "code": trial.code,
                    "metric": row.metric,
                    "better": "higher" if row.higher else "lower",
                    "score": trial.score,
                    "seconds": row.seconds,
                    "at": row.at,
                }
            )
            spread.append(trial.knobs)
    rows = pl.DataFrame(found, schema=_TRIAL, orient="row").with_columns(_columns(_by_name(spread), _TRIAL, "knob"))
    worth = pl.when(pl.col("better") == "higher").then(pl.col("score")).otherwise(-pl.col("score"))
    complete = pl.when(pl.col("state") == "complete").then(worth).fill_null(float("-inf"))
    first = pl.int_range(pl.len()).over(_SEARCH) == complete.arg_max().over(_SEARCH)
    return rows.with_columns(best=first & (pl.col("state") == "complete")).sort(
        pl.col("at").min().over(_SEARCH), *_SEARCH, "trial"
    )


_SEARCH: Final = ("model", "search")


def of_last(rows: pl.DataFrame, count: int) -> pl.DataFrame:
    """The trials of the last `count` searches of each model."""
    begun = rows.group_by(_SEARCH, maintain_order=True).agg(pl.col("at").min())
    last = begun.with_columns(back=pl.col("at").rank("ordinal", descending=True).over("model"))
    return rows.join(last.filter(pl.col("back") <= count), on=_SEARCH, how="semi", maintain_order="left")


def of_version(session: Session, rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """The trials of the search that a version came of.

    Raises:
        StateError: `no-such-version`.
    """
    search = version.find(session.facts, session.app.name, name).search[:KEY]
    return rows.filter((pl.col("search") == search) & (pl.col("search") != ""))


def knobs(rows: pl.DataFrame) -> list[str]:
    """The columns of a frame of trials that are knobs."""
    return [name for name in rows.columns if name not in _TRIAL]


def versions_frame(session: Session, model: str | None = None) -> pl.DataFrame:
    """Every registered version, oldest first: a row each, a column for each knob and each metric of its evaluation.

    The metrics are estimates on held-out rows; their intervals are in the report. Versions of releases before this table was
    kept have none of either.

    Args:
        model: of this one alone; by default of all of the app's.
    """
    return versions_of(session.facts, session.app.name, (model,) if model is not None else session.models)


def versions_of(log: Facts, app: str, models: Sequence[str]) -> pl.DataFrame:
    """The same of any log of facts, for these models of an app."""
    parts = []
    for name in models:
        champion = rollout.now(log, app, name).champion
        shelves = version.shelves(log, app, name)
        rows = [row for shelf in shelves for row in shelf.rows]
        part = pl.DataFrame(
            {
                "model": [name] * len(rows),
                "version": [row.version for row in rows],
                "decision": [row.decision for row in rows],
                "champion": [row.version == champion for row in rows],
                "registered": [micros(row.registered) for row in rows],
                "search": [row.search[:KEY] for row in rows],
            },
            schema={**_VERSION, "registered": pl.Int64()},
        ).cast({"registered": _VERSION["registered"]})
        sizes = [len(shelf.rows) for shelf in shelves]
        metrics = _columns(_end_to_end([shelf.metrics for shelf in shelves], sizes), _VERSION, "metric")
        knobs = _end_to_end([shelf.knobs for shelf in shelves], sizes)
        taken = [*_VERSION, *(each.name for each in metrics)]
        parts.append(part.with_columns(*metrics, *_columns(knobs, taken, "knob")))
    return pl.concat(parts, how="diagonal_relaxed")


Columns = Mapping[str, Sequence[Knob | None]]


def _columns(values: Columns, taken: Iterable[str], what: str) -> list[pl.Series]:
    """A column for each name; one whose name is taken is called `knob_<name>`.

    A name that is a number here and a text there (declared anew in between) is shown as text.
    """
    found, taken = [], set(taken)
    for name, each in values.items():
        shown = f"{what}_{name}" if name in taken else name
        try:
            found.append(pl.Series(shown, each, dtype=pl.Float64))
        except TypeError:
            texts = [value if value is None or isinstance(value, str) else f"{value:g}" for value in each]
            found.append(pl.Series(shown, texts, dtype=pl.String))
    return found


def _by_name(rows: Sequence[Mapping[str, Knob]]) -> Columns:
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}


def _end_to_end(parts: Sequence[Columns], sizes: Sequence[int]) -> Columns:
    found: dict[str, list[Knob | None]] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        found[name] = list(chain.from_iterable(p.get(name, [None] * n) for p, n in zip(parts, sizes, strict=True)))
    return found


_SAID: Final = re.compile(r"\s*([^\W\d]\w*)\s*(<=|>=|!=|=|<|>)\s*(?:'((?:[^']|'')*)'|([^\s']+))\s*")


def chosen(rows: pl.DataFrame, text: str) -> pl.DataFrame:
    """The rows for which `column operator literal` holds, such as `score >= 0.7` or `algorithm = 'boosted'`; never for a null.

    Raises:
        DataError: `runs-not-understood`.
    """
    said = _SAID.fullmatch(text)
    if said is None:
        raise _not_understood(f"{text[:200]!r} is not a column, an operator and a literal.", rows)
    column, op, quoted, bare = said.groups()
    literal = quoted.replace("''", "'") if quoted is not None else bare
    if column not in rows.columns:
        raise _not_understood(f"There is no column {column!r}.", rows)
    try:
        value = _literal(literal, rows.schema[column])
    except ValueError:
        raise _not_understood(
            f"{literal[:200]!r} is no value of {column}, which is {rows.schema[column]}.", rows
        ) from None
    return rows.filter(wheres.expr(Where(column, cast("Op", op), value)))


def _literal(text: str, want: pl.DataType) -> float | str | bool | datetime:
    if want == pl.Boolean:
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if want.is_numeric():
        return float(text)
    return in_utc(datetime.fromisoformat(text)) if want.is_temporal() else text


def ordered(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """The rows by a column, the highest first where its name has a minus before it; nulls last.

    Raises:
        DataError: `runs-not-understood`.
    """
    name = column.removeprefix("-")
    if name not in rows.columns:
        raise _not_understood(f"There is no column {name!r}.", rows)
    return rows.sort(name, descending=column.startswith("-"), nulls_last=True, maintain_order=True)


def _not_understood(why: str, rows: pl.DataFrame) -> DataError:
    return DataError(
        "runs-not-understood",
        "What was asked of the runs cannot be read.",
        why=f"{why} The columns are {', '.join(rows.columns)[:1000]}.",
        next="Write column, operator and literal, such as: --where 'score >= 0.7'; or --sort=-score.",
    )


def dots(rows: pl.DataFrame) -> list[Dot]:
    """Trials as they are drawn: only those of the metric that the last of them has, since others lie on other scales."""
    if rows.is_empty():
        return []
    rows = rows.filter(pl.col("metric") == rows["metric"][-1])
    complete = pl.when(pl.col("state") == "complete").then(pl.col("score"))
    best = pl.when(pl.col("better") == "higher").then(complete.cum_max().forward_fill().over(_SEARCH))
    rows = rows.with_columns(_best=best.otherwise(complete.cum_min().forward_fill().over(_SEARCH)))
    names = [name for name in knobs(rows) if name != "_best"]
    return [
        Dot(
            search=row["search"],
            score=row["score"],
            best=row["_best"],
            state=row["state"],
            chosen=row["best"],
            knobs={name: row[name] for name in names},
        )
        for row in rows.iter_rows(named=True)
    ]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What two versions differ in: name -> the value of each, None where it has none."""

    then: str
    now: str
    knobs: dict[str, tuple[Knob | None, Knob | None]]
    metrics: dict[str, tuple[float | None, float | None]]
    facts: dict[str, tuple[str, str]]


def compare(session: Session, then: str, now: str) -> Difference:
    """Two versions side by side: all knobs and metrics, and what else is recorded of each.

    Raises:
        StateError: `no-such-version`.
    """
    log, app = session.facts, session.app.name
    one, other = (version.find(log, app, name) for name in (then, now))
    (one_knobs, one_metrics), (other_knobs, other_metrics) = (version.worth(log, app, name) for name in (then, now))

    def paired(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
        return {name: (a.get(name), b.get(name)) for name in dict.fromkeys((*a, *b))}

    return Difference(
        then=then,
        now=now,
        knobs=paired(one_knobs, other_knobs),
        metrics=paired(one_metrics, other_metrics),
        facts=paired(_told(one), _told(other)),
    )


def _told(row: version.Row) -> dict[str, str]:
    return {
        "registered": f"{row.registered:%Y-%m-%d %H:%M}",
        "decision": row.decision or "not judged",
        "search": row.search[:KEY],
    }
