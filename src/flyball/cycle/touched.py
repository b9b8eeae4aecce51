"""Touched: who has looked at which held-out rows, each time as a fact, so that it can be counted.

Held-out rows are honest once. Of several versions that are judged on the same rows the best looks better than it is, since it
is also the one that was lucky there; the more were judged, the more. Nothing forbids it, but every look is counted, and what
the best of so many may owe to luck is told beside what the gates say. (The ladder of Blum and Hardt, ICML 2015, bounds that by
telling less; here all is told, and its price.)
"""

from __future__ import annotations

from datetime import datetime
from statistics import NormalDist

import msgspec
import polars as pl

from flyball._kernel import facts, ids
from flyball._kernel.conditions import Measurement
from flyball._kernel.facts import Projection, Said, Stored
from flyball.cycle.session import Session
from flyball.data import contract
from flyball.data.interval import Z
from flyball.learn import split
from flyball.learn.examples import Examples
from flyball.learn.model import Model
from flyball.learn.split import Bounds

EVALUATE = "evaluate"
"""Who looks, where it is no version: `flyball evaluate`."""
PURPOSE = "touched rows"


class Touched(Said, frozen=True, kw_only=True, tag="cycle.touched"):
    """Somebody looked at held-out rows.

    Attributes:
        by: a version, whose gates were judged on them; or `EVALUATE`.
        since, until: when the rows were asked.
        rows: a keyed hash of which they are, by key and moment.
        n: how many.
    """

    by: str
    since: datetime
    until: datetime
    rows: str
    n: int


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How often the same looked at the same rows; attributes as in `Touched`."""

    by: str
    since: datetime
    until: datetime
    rows: str
    times: int


def _key(fact: Stored) -> str:
    said = facts.decode(fact, Touched)
    return facts.about(fact, said.by, said.rows)


def _fold(row: bytes | None, fact: Stored) -> bytes:
    said = facts.decode(fact, Touched)
    times = msgspec.json.decode(row, type=Look).times if row is not None else 0
    return facts.encode(Look(by=said.by, since=said.since, until=said.until, rows=said.rows, times=times + 1))


TOUCHED = Projection("cycle.touched", frozenset({facts.kind(Touched)}), _key, _fold)


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How often held-out rows were looked at before.

    Attributes:
        same: other versions that were judged on exactly these.
        overlapping: other versions that were judged on some of them, or may have been: on rows of the same time.
        evaluations: looks of `flyball evaluate` at rows of the same time.
        again: earlier judgings of this version.
    """

    same: int
    overlapping: int
    evaluations: int
    again: int

    @property
    def versions(self) -> int:
        """Versions that were judged on some of these rows, this one among them."""
        return 1 + self.same + self.overlapping

    @property
    def looks(self) -> int:
        """All looks, this one included."""
        return self.versions + self.evaluations + self.again


def of(session: Session, model: Model, by: str, examples: Examples, bounds: Bounds) -> Touched:
    """The look at the test rows of these examples, to be recorded with what came of it."""
    test = split.cut(examples, bounds).test
    key = [pl.col(f"_request.{name}").cast(pl.String) for name in contract.spec(model.question).key]
    rows = examples.frame.filter(pl.Series(test)).select(pl.col("_asked").cast(pl.Int64), *key).write_csv()
    return Touched(
        by=by,
        since=bounds.test,
        until=bounds.end,
        rows=ids.keyed_hash(session.signer.secret(PURPOSE), rows),
        n=int(test.sum()),
    )


def counted(session: Session, model: str, look: Touched) -> Count:
    """How often these rows were looked at before this look is recorded."""
    scanned = session.facts.scan(TOUCHED.name, f"{session.app.name}/{model}/")
    known = [msgspec.json.decode(row, type=Look) for _, row in scanned]
    near = [each for each in known if each.since < look.until and look.since < each.until]
    others = {each.by for each in near if each.by not in (EVALUATE, look.by)}
    same = {each.by for each in near if each.rows == look.rows} & others
    return Count(
        same=len(same),
        overlapping=len(others - same),
        evaluations=sum(each.times for each in near if each.by == EVALUATE),
        again=sum(each.times for each in known if each.by == look.by != EVALUATE),
    )


def luck(count: Count, headline: Measurement) -> float:
    """By how much the best of so many equally good versions is expected to look better than it is, at most; in the metric's
    unit.

    The mean of the greatest of k normal errors, by Blom (1958), with the standard error that the metric's interval shows.
    Versions that are judged on the same rows err alike, so it is less in truth; and versions that differ in quality owe less.
    """
    k = count.versions + count.evaluations
    error = (headline.high - headline.low) / (2 * Z)
    return error * max(0.0, NormalDist().inv_cdf((k - 0.375) / (k + 0.25))) if k > 1 else 0.0


def told(count: Count, headline: Measurement | None = None) -> str:
    """One or two sentences for a person.

    Args:
        headline: what the app optimises, as measured on the rows.
    """
    if count.looks == 1:
        return "Nobody has looked at these held-out rows before."
    parts = [
        _many(count.same, "another version", "other versions") + (" (the very same rows)" if count.same else ""),
        _many(count.overlapping, "another version", "other versions") + " on rows of the same time",
        _many(count.evaluations, "evaluation", "evaluations"),
        _many(count.again, "earlier judging of this version", "earlier judgings of this version"),
    ]
    shown = [
        p for p, n in zip(parts, (count.same, count.overlapping, count.evaluations, count.again), strict=True) if n
    ]
    said = f"These held-out rows have been looked at {count.looks} times: by this version and {', '.join(shown)}."
    if headline is None or count.versions + count.evaluations == 1:
        return said
    k = count.versions + count.evaluations
    return (
        f"{said} By luck alone the best of {k} is expected to look up to {luck(count, headline):.4f} better than it is."
    )


def _many(n: int, one: str, several: str) -> str:
    return f"{n} {one if n == 1 else several}".replace("1 another", "another")
