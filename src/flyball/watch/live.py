"""Live: what one model answered lately, and what came of it, as columns that can be measured.

It folds **attempts** (journal entries) and **outcomes** (what was posted of them) as they come, in any order. Nothing is
matched before somebody looks, so a late, corrected or repeated outcome, or one that comes before its question, needs no care
of its own. An outcome of a key reaches every attempt at that key asked before it was settled; one of a prediction reaches the
attempts at that question (same key, same moment); where several reach one attempt, the last stored counts.

All of it is derived: after a restart the journal is read again. Bounded: kept is what was asked within `keeps` of the newest
moment, at most `most` attempts and as many outcomes; what was pushed out is counted. With ten features an attempt takes about
200 bytes. Refused: matching by anything but the exact key, and telling an outcome before it was settled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta

import msgspec
import numpy as np
import polars as pl

from flyball._kernel.clock import MICROSECOND, from_micros, micros
from flyball.data import profile
from flyball.data.profile import Counts
from flyball.learn.reference import PREDICTION, Column, Reference
from flyball.learn.task import Task
from flyball.serve import outcomes
from flyball.serve.journal import Entry
from flyball.serve.outcomes import Posted
from flyball.serve.router import OVERRIDE
from flyball.watch import reached
from flyball.watch.arms import Arms

MOST = 1_000_000
"""Attempts that are kept, and outcomes."""
PARTS = 64
"""Pieces that may lie about before they are put together."""
HOUR = 3_600_000_000
AHEAD = timedelta(minutes=5)
"""How far the clock of who answered may be ahead."""

OWN = ("champion", "canary", "shadow", "previous")
"""Roles in which a version answers by its own model; "baseline" and "default" stand in for one."""

_key = msgspec.json.Encoder(order="deterministic")
_ATTEMPT = pl.Schema(
    {
        "asked": pl.Int64(),
        "key": pl.String(),
        "id": pl.String(),
        "version": pl.String(),
        "role": pl.String(),
        "failed": pl.String(),
        "output": pl.Float64(),
        "latency": pl.Int64(),
        "outputs": pl.List(pl.Float64()),
        "decision": pl.String(),
        "entity": pl.String(),
    }
)
_OUTCOME = pl.Schema(
    {
        "seq": pl.Int64(),
        "settled": pl.Int64(),
        "prediction": pl.String(),
        "key": pl.String(),
        "value": pl.Float64(),
        "label": pl.String(),
    }
)


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in a Live.

    Attributes:
        attempts: journal entries kept, and `failed`: those of them that gave no answer.
        outcomes: kept, corrections and repeats included.
        dropped: attempts and outcomes pushed out because there were too many.
    """

    attempts: int
    failed: int
    outcomes: int
    dropped: int


class Live:
    """The recent past of one model.

    Args:
        keeps: how far back anything is measured.
        model: entries and outcomes of other models are passed over; "" takes all.
        entity: the columns of a question by which it is told whom it is about; its key, where there are none.
        most: attempts, and outcomes, that are kept.
    """

    def __init__(self, keeps: timedelta, *, model: str = "", most: int = MOST, entity: tuple[str, ...] = ()) -> None:
        self.keeps, self.model, self.most, self.entity = keeps, model, most, entity
        self.bounds = (-math.inf, math.inf)
        """Between which every number of an answer must lie."""
        self.task: Task | None = None
        """Of the model's answers, where it is known; a version's reference goes before it."""
        self.references: dict[str, Reference] = {}
        self.arms: Arms | None = None
        """The A/B test that the model is in, which remembers more than this does; None where it is in none."""
        self.dropped = 0
        self._lengths: set[tuple[str, str]] = set()
        self._attempts = [_ATTEMPT.to_frame()]
        self._outcomes = [_OUTCOME.to_frame()]
        self._newest = 0

    def refer(self, version: str, reference: Reference) -> None:
        """Make a version's reference known: by it, and by it alone, the version's questions are profiled."""
        self.references[version] = reference
        self._lengths |= {(version, c.name) for c in reference.features if c.length}

    def answered(self, entries: Iterable[Entry], now: datetime | None = None) -> None:
        """Fold attempts; each entry of the journal once. What an operator asked of one version by its name is nobody's.

        Args:
            now: what is dated more than `AHEAD` after it, by a clock that was wrong, pushes nothing out.
        """
        new = [e for e in entries if self.model in ("", e.model) and e.role != OVERRIDE]
        if not new:
            return
        self._seen((e.asked for e in new), now)
        columns: dict[str, Sequence[object]] = {
            "asked": [e.asked for e in new],
            "key": [e.key for e in new],
            "id": [e.id for e in new],
            "version": [e.version for e in new],
            "role": [e.role for e in new],
            "failed": [e.failed for e in new],
            "output": [e.output for e in new],
            "latency": [e.latency_us for e in new],
            "outputs": [e.outputs or None for e in new],
            "decision": [_decision(e.decision) for e in new],
            "entity": [whom(e, self.entity) for e in new],
        }
        frame = pl.DataFrame(columns, schema=_ATTEMPT)
        self._attempts.append(frame.hstack(_features(new, self._lengths)))
        if len(self._attempts) > PARTS:
            self._all()
        if self.arms is not None:
            self.arms.answered(frame, self._told())

    def settled(self, posted: Iterable[Posted], now: datetime | None = None) -> None:
        """Fold outcomes; a repeat is harmless. `now` as in `answered`."""
        if not (new := self._own(posted)):
            return
        self._seen((micros(p.received) for p in new), now)
        told = _told(new)
        self._outcomes.append(told)
        if len(self._outcomes) > PARTS:
            self._told()
        if self.arms is not None:
            self.arms.settled(told)

    def tell(self, posted: Iterable[Posted]) -> None:
        """Let the A/B test alone know outcomes, which are folded later."""
        if self.arms is not None and (new := self._own(posted)):
            self.arms.settled(_told(new))

    def _own(self, posted: Iterable[Posted]) -> list[Posted]:
        return [p for p in posted if self.model in ("", p.model) or not p.model]

    def compare(self, arms: Arms) -> None:
        """From now on an A/B test sees what comes, and now what lies here."""
        self.arms = arms
        arms.answered(self._all(), self._told())

    def frame(self, version: str | None, start: datetime, end: datetime, now: datetime) -> pl.DataFrame:
        """Attempts asked in [start, end), by (asked, key, version), with their outcome as known before `now`.

        Returns:
            `asked` (microseconds), `key`, `version`, `role`, `failed`, `output`, `latency` (microseconds), `outputs` (null
            where an answer is one number), `decision` (the class, "true" or "false"; null for none), `entity` (as its lot is
            drawn), `outcome` and, where it is a class, `label` (both null while it is not
            known, and where it is void), `void`.
        """
        window = self._all().select(_ATTEMPT.names()).filter(_within(start, end))
        rows = (window if version is None else window.filter(version=version)).sort("asked", "key", "version")
        rows = rows.with_row_index("row")
        known = self._told().filter(pl.col("settled") < micros(now))
        keyed, named = (known.filter(pl.col(name) != "") for name in ("key", "prediction"))
        last = reached.reached(rows, window, keyed, named).select("row", "label", outcome="value", known=True)
        joined = rows.join(last, on="row", how="left", maintain_order="left")
        void = pl.col("known").fill_null(value=False) & pl.col("outcome").is_null() & pl.col("label").is_null()
        return joined.with_columns(void=void).drop("row", "known", "id")

    def hourly(self, version: str, column: Column, start: datetime, end: datetime) -> tuple[Counts, Counts]:
        """The questions asked in [start, end), each once, by the edges of a version's reference.

        A question counts by the attempt that left, or by the version's own, if versions agree on what the feature means.
        Answers (`PREDICTION`) are the version's own alone.

        Returns:
            (hours,) since 1970 in which something was asked, ascending; (hours, width) counts.
        """
        rows, values = self._served(version, column, start, end)
        hours, groups = np.unique(rows["asked"].to_numpy() // HOUR, return_inverse=True)
        return hours, profile.counted(values, groups.astype(np.int64), len(hours), column.edges)

    def asked(self, start: datetime, end: datetime) -> Counts:
        """(n,) when each question asked in [start, end) was asked, ascending, in microseconds; each once."""
        rows = self._all().filter(_within(start, end)).select("asked", "key").unique()
        return rows["asked"].sort().to_numpy()

    def versions(self) -> list[str]:
        """Every version that made an attempt that is kept."""
        return sorted(self._all()["version"].unique().to_list())

    def covered(self, version: str, start: datetime, end: datetime) -> tuple[int, int]:
        """The questions asked in [start, end), and those of them that a version attempted."""
        rows = self._all().filter(_within(start, end))
        asked = rows.select("asked", "key").n_unique()
        return asked, rows.filter(version=version).select("asked", "key").n_unique()

    def since(self) -> datetime | None:
        """When the oldest kept attempt was asked; None before the first."""
        first = self._all()["asked"].min()
        return None if first is None else from_micros(int(str(first)))

    def counts(self) -> Counted:
        """How much lies here."""
        rows, told = self._all(), self._told()
        failed = rows.filter(pl.col("failed") != "").height
        return Counted(attempts=rows.height, failed=failed, outcomes=told.height, dropped=self.dropped)

    def _served(self, version: str, column: Column, start: datetime, end: datetime) -> tuple[pl.DataFrame, pl.Series]:
        """The questions that count for a column, and its value for each."""
        rows = self._all().filter(_within(start, end), failed="")
        own = (pl.col("version") == version) & pl.col("role").is_in(OWN)
        if column.name == PREDICTION:
            rows = rows.filter(own)
            return rows, rows["decision" if column.edges.kind == "category" else "output"]
        left = (pl.col("role") != "shadow") & pl.col("version").is_in(self._alike(version, column))
        rows = rows.filter(own | left).unique(("asked", "key"))
        name = _stored(column.name, text=column.edges.kind == "category")
        found = rows[name] if name in rows.columns else pl.Series(name, [None] * rows.height, dtype=pl.String)
        whole = _stored(column.name, text=True)
        if column.length and whole in rows.columns:  # of attempts that were folded before the reference was known
            found = rows[whole].str.len_chars().cast(pl.Float64).fill_null(found.cast(pl.Float64))
        return rows, found

    def _alike(self, version: str, column: Column) -> list[str]:
        """The versions for which the column means the same."""
        others = {name: reference.column(column.name) for name, reference in self.references.items()}
        return [version, *(n for n, c in others.items() if c is not None and c.meaning == column.meaning)]

    def _all(self) -> pl.DataFrame:
        """The attempts in one piece, without what is too old or too much."""
        if len(self._attempts) > 1:
            rows = pl.concat(self._attempts, how="diagonal").filter(pl.col("asked") >= self._horizon())
            self._attempts = [self._bounded(rows, "asked")]
        return self._attempts[0]

    def _told(self) -> pl.DataFrame:
        """The outcomes in one piece: one that was settled before the horizon can reach nothing that is kept."""
        if len(self._outcomes) > 1:
            told = pl.concat(self._outcomes).unique().filter(pl.col("settled") >= self._horizon())
            self._outcomes = [self._bounded(told, "seq")]
        return self._outcomes[0]

    def _seen(self, moments: Iterable[int], now: datetime | None) -> None:
        until = None if now is None else micros(now + AHEAD)
        self._newest = max(self._newest, *(at for at in moments if until is None or at <= until), 0)

    def _horizon(self) -> int:
        return self._newest - self.keeps // MICROSECOND

    def _bounded(self, rows: pl.DataFrame, by: str) -> pl.DataFrame:
        over = max(0, rows.height - self.most)
        self.dropped += over
        return rows.sort(by).tail(self.most) if over else rows


def whom(entry: Entry, entity: Sequence[str]) -> str:
    """The entity of a question as `serve.plan.question` says it, so that its lot can be drawn again; its key for no columns."""
    return _key.encode({name: entry.inputs.get(name) for name in entity}).decode() if entity else entry.key


def _within(start: datetime, end: datetime) -> pl.Expr:
    return pl.col("asked").is_between(micros(start), micros(end), closed="left")


def _told(posted: Sequence[Posted]) -> pl.DataFrame:
    """Outcomes as columns."""
    columns: dict[str, Sequence[object]] = {
        "seq": [p.seq for p in posted],
        "settled": [micros(p.settled) for p in posted],
        "prediction": [p.prediction for p in posted],
        "key": [p.key for p in posted],
        "value": [None if isinstance(p.value, str) else p.value for p in posted],
        "label": [outcomes.class_of(p.value) for p in posted],
    }
    return pl.DataFrame(columns, schema=_OUTCOME)


def _decision(said: bool | str | None) -> str | None:
    return ("true" if said else "false") if isinstance(said, bool) else said


def _stored(name: str, *, text: bool) -> str:
    """The column of a feature: a text and a number of one name are two, since a feature may change its type."""
    return f"{'text' if text else 'number'} {name}"


def _features(entries: Sequence[Entry], lengths: AbstractSet[tuple[str, str]]) -> pl.DataFrame:
    """The features of entries as columns; what an entry does not have is null. Truth values are 0 and 1.

    Args:
        lengths: the (version, feature) of which only the number of characters is watched, and so kept.
    """
    names = dict.fromkeys(name for e in entries for name in e.features)
    columns = []
    for name in names:
        values = [e.features.get(name) for e in entries]
        if lengths:
            pairs = zip(entries, values, strict=True)
            values = [len(v) if isinstance(v, str) and (e.version, name) in lengths else v for e, v in pairs]
        texts = [v if isinstance(v, str) else None for v in values]
        numbers = [float(v) if v is not None and not isinstance(v, str) else None for v in values]
        if any(v is not None for v in texts):
            columns.append(pl.Series(_stored(name, text=True), texts, dtype=pl.String))
        if any(v is not None for v in numbers):
            columns.append(pl.Series(_stored(name, text=False), numbers, dtype=pl.Float64))
    return pl.DataFrame(columns)
