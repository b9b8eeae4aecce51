"""Diff: what two versions differ in, and whether it made a difference.

    causes     data, code, features, knobs, environment: by name, from the signed manifests
    quality    each on its own held-out rows; and paired, on rows that neither learned from
    the rest   what features are worth, what is decided, size and speed, which artifacts are the same bytes

Answers to common rows are those that were recorded when each version was trained. Only where a row was not held out for the
earlier version, and it did not learn from it either, is it asked now, by its own encoder and predictor and by features that the
later one's causes name alike. The app's code of today is not asked for anything, unless a rule answers, which is code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball._kernel.conditions import Measurement
from flyball._kernel.errors import StateError
from flyball.cycle import artifacts, card, tested
from flyball.cycle.session import Session
from flyball.learn import finish, split
from flyball.learn.examine import paired as pairing
from flyball.learn.examine.paired import Paired
from flyball.learn.examine.subject import Rows
from flyball.learn.examples import Examples
from flyball.learn.export.predictor import Predictor
from flyball.learn.finish import Finish
from flyball.learn.fit import fitting, fold
from flyball.learn.held import Held
from flyball.learn.knobs import Knob
from flyball.learn.quality.evaluate import Evaluation
from flyball.learn.task import Answers, Task
from flyball.release.version import Manifest


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that differs. `of`: data, features, code, search, environment; `what`: in words."""

    of: str
    name: str
    what: str


class Sides(msgspec.Struct, frozen=True, kw_only=True):
    """A number of both versions; None where one has none."""

    then: float | None
    now: float | None


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of both: those that train and those that are held out; how many are held out for both."""

    fit: tuple[int, int]
    test: tuple[int, int]
    common: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What two versions differ in; `then` is compared with `now`, and every difference is now less then.

    Attributes:
        says: the one sentence that matters.
        rows: None where examples of one are gone.
        metrics: of each on its own held-out rows, which are the same only where `rows` says so.
        paired: on the same rows, which neither learned from; `why` in it says why there is nothing.
        worth: feature -> by how much the metric drops without it.
        thresholds: from which answer on something is decided; of groups "column: group".
        sizes: bytes of what answers; `micros`: one row, as measured when each was registered; each names its unit.
        same, other: artifacts with the same bytes, and with others; `only`: those of one version alone.
    """

    then: str
    now: str
    says: str
    causes: tuple[Cause, ...]
    rows: Counted | None
    knobs: dict[str, tuple[Knob | None, Knob | None]]
    metrics: dict[str, tuple[Measurement | None, Measurement | None]]
    paired: Paired
    worth: dict[str, Sides]
    thresholds: dict[str, Sides]
    sizes: dict[str, Sides]
    same: tuple[str, ...]
    other: tuple[str, ...]
    only: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Side:
    """One version, read."""

    manifest: Manifest
    evaluation: Evaluation
    finish: Finish
    learned: tuple[Examples, Held] | None

    @property
    def task(self) -> Task:
        return self.evaluation.task


def diff(session: Session, then: str, now: str) -> Difference:
    """Compare two versions of a model.

    Raises:
        StateError: `no-such-version`, `signature-broken`, `artifact-changed`; `other-models`.
    """
    a, b = _side(session, then), _side(session, now)
    if a.manifest.model != b.manifest.model:
        raise StateError(
            "other-models",
            f"{then} is a version of {a.manifest.model!r}, and {now} one of {b.manifest.model!r}.",
            why="Versions of two models answer two questions, so that nothing of them can be compared.",
            next="flyball runs --versions lists the versions of each model.",
        )
    rows = _rows(a, b)
    causes = tuple(_causes(a.manifest, b.manifest, rows))
    found = _paired(session, a, b)
    ours, theirs = a.manifest.artifacts, b.manifest.artifacts
    both = sorted(ours.keys() & theirs.keys())
    names = dict.fromkeys((*a.evaluation.measurements, *b.evaluation.measurements))
    return Difference(
        then=then,
        now=now,
        says=_says(then, now, causes, found),
        causes=causes,
        rows=rows,
        knobs={
            name: (a.manifest.knobs.get(name), b.manifest.knobs.get(name))
            for name in dict.fromkeys((*a.manifest.knobs, *b.manifest.knobs))
        },
        metrics={n: (a.evaluation.measurements.get(n), b.evaluation.measurements.get(n)) for n in names},
        paired=found,
        worth=_sides(_worth(session, a), _worth(session, b)),
        thresholds=_sides(_thresholds(a.finish), _thresholds(b.finish)),
        sizes=_sides(_sizes(session, a.manifest), _sizes(session, b.manifest)),
        same=tuple(name for name in both if ours[name] == theirs[name]),
        other=tuple(name for name in both if ours[name] != theirs[name]),
        only=tuple(sorted(ours.keys() ^ theirs.keys())),
    )


def _side(session: Session, name: str) -> _Side:
    manifest = artifacts.load_learned(session, name)
    data = session.blobs.get(manifest.artifacts["evaluation"])
    return _Side(
        manifest=manifest,
        evaluation=msgspec.json.decode(data, type=Evaluation),
        finish=artifacts.load_finish(session, manifest),
        learned=tested.learned(session, manifest),
    )


def _sides(then: Mapping[str, float], now: Mapping[str, float]) -> dict[str, Sides]:
    return {name: Sides(then=then.get(name), now=now.get(name)) for name in dict.fromkeys((*now, *then))}


# Causes


def _causes(then: Manifest, now: Manifest, rows: Counted | None) -> list[Cause]:
    """What differs, by name: each cause once, at the first step that it is a cause of."""
    found: dict[str, Cause] = {}
    for step in ("examples", "search", "train", "evaluate", "examine"):
        ours, theirs = then.causes.get(step, {}), now.causes.get(step, {})
        for name in dict.fromkeys((*ours, *theirs)):
            if ours.get(name) != theirs.get(name) and name not in found:
                what = "is new" if name not in ours else "is gone" if name not in theirs else "changed"
                found[name] = Cause(of=_group(name), name=name.removeprefix("environment: "), what=what)
    data = found.pop("data", None)
    causes = [] if data is None else [Cause(of="data", name="data", what=_data(then, now, rows))]
    if then.commit != now.commit:
        commits = f"{then.commit or 'no repository'} to {now.commit or 'no repository'}"
        causes.append(Cause(of="code", name="commit", what=commits))
    names = dict.fromkeys((*now.knobs, *then.knobs))
    sides = {n: (then.knobs.get(n), now.knobs.get(n)) for n in names}
    knobs = [f"{n} {_shown(a)} to {_shown(b)}" for n, (a, b) in sides.items() if a != b]
    if knobs:
        causes.append(Cause(of="knobs", name="knobs", what=", ".join(knobs)))
    order = ("data", "features", "code", "search", "knobs", "environment")
    return sorted([*causes, *found.values()], key=lambda each: order.index(each.of))


def _shown(knob: Knob | None) -> str:
    return "-" if knob is None else knob if isinstance(knob, str) else f"{knob:g}"


def _group(name: str) -> str:
    if name.startswith("environment: "):
        return "environment"
    if name.startswith("feature "):
        return "features"
    if name in ("search", "knobs", "split", "metric", "treatment", "metrics", "slices", "protected"):
        return "search"
    return "data" if name in ("data", "erased") else "code"


def _data(then: Manifest, now: Manifest, rows: Counted | None) -> str:
    a, b = then.snapshot, now.snapshot
    said = [
        f"{table} batch {a.batches.get(table, 0)} to {b.batches.get(table, 0)}"
        for table in dict.fromkeys((*a.batches, *b.batches))
        if a.batches.get(table) != b.batches.get(table)
    ]
    if a.cutoff != b.cutoff:
        said.append(f"known before {a.cutoff:%Y-%m-%d %H:%M} to {b.cutoff:%Y-%m-%d %H:%M}")
    if rows is not None:
        said.append(f"{rows.fit[1] - rows.fit[0]:+,} rows that train, {rows.test[1] - rows.test[0]:+,} held out")
    return "; ".join(said)


# Rows and answers


def _keys(one: Examples, other: Examples) -> list[str] | None:
    """The columns by which rows of both are told apart: the request and when it was asked; None where they differ."""
    same = [n for n in one.frame.columns if n == "_asked" or n.startswith("_request.")]
    theirs = [n for n in other.frame.columns if n == "_asked" or n.startswith("_request.")]
    alike = set(same) == set(theirs) and all(one.frame.schema[n] == other.frame.schema[n] for n in same)
    return same if alike else None


def _within(rows: pl.DataFrame, others: pl.DataFrame, same: list[str]) -> npt.NDArray[np.bool_]:
    """(rows,) whether each is among the others."""
    marked = others.select(same).unique().with_columns(_there=pl.lit(value=True))
    joined = rows.select(same).join(marked, on=same, how="left", nulls_equal=True, maintain_order="left")
    return joined["_there"].fill_null(value=False).to_numpy()


def _rows(a: _Side, b: _Side) -> Counted | None:
    if a.learned is None or b.learned is None:
        return None
    (one, first), (other, second) = a.learned, b.learned
    same = _keys(one, other)
    common = 0
    if same is not None:
        theirs = other.frame.filter(pl.Series(second.test))
        common = int(_within(theirs, one.frame.filter(pl.Series(first.test)), same).sum())
    return Counted(
        fit=(int(first.fit.sum()), int(second.fit.sum())),
        test=(int(first.test.sum()), int(second.test.sum())),
        common=common,
    )


def _paired(session: Session, a: _Side, b: _Side) -> Paired:
    """Both on the rows that were held out for `b` and that `a` did not learn from."""
    if a.task != b.task:
        return Paired(why=f"one answers {a.task.kind} questions, the other {b.task.kind} ones, or of other classes")
    if a.learned is None or b.learned is None:
        return Paired(why="rows that one of them learned from were erased, so its examples are gone")
    (one, first), (other, second) = a.learned, b.learned
    same = _keys(one, other)
    if same is None:
        return Paired(
            why="their questions have other columns, so that no row of the one is known to be a row of the other"
        )
    rows = other.frame.filter(pl.Series(second.test))
    unlearned = ~_within(rows, one.frame.filter(pl.Series(first.fit)), same)
    theirs = _answers(session, a, rows, same, askable=_askable(a, b, rows))
    usable = unlearned & np.isfinite(theirs if theirs.ndim == 1 else theirs.sum(axis=1))
    if not usable.any():
        return Paired(
            why=f"{a.manifest.version} learned from all rows that are held out for {b.manifest.version}, or cannot "
            "be asked about them"
        )
    ours = fitting.read_scores(session.blobs.get(b.manifest.artifacts[fitting.SCORES]))[0][usable]
    theirs, kept = theirs[usable], rows.filter(pl.Series(usable))
    labels = other.labels[second.test][usable]
    whole = Rows(matrix=np.zeros((len(labels), 1), dtype=np.float32), outcome=labels, blocks=split.days(kept["_asked"]))
    decided = None
    if a.task.truth:
        decided = (_decided(b.finish, ours, kept), _decided(a.finish, theirs, kept))
    return pairing.paired(a.task, whole, ours, theirs, decided)


def _answers(session: Session, side: _Side, rows: pl.DataFrame, same: list[str], *, askable: bool) -> Answers:
    """What a version said about rows when it was trained, or says now if it is `askable`; NaN where neither."""
    assert side.learned is not None  # noqa: S101 - `_paired` looked
    examples, held = side.learned
    theirs = examples.frame.filter(pl.Series(held.test))
    scores = fitting.read_scores(session.blobs.get(side.manifest.artifacts[fitting.SCORES]))[0]
    places = pl.Series("_place", np.arange(len(scores)), dtype=pl.Int64)
    known = theirs.select(*same, places).unique(same, keep="first", maintain_order=True)
    at = rows.select(same).join(known, on=same, how="left", nulls_equal=True, maintain_order="left")["_place"]
    found = np.full((rows.height, *scores.shape[1:]), np.nan)
    there = at.is_not_null().to_numpy()
    found[there] = scores[at.drop_nulls().to_numpy()]
    if askable and not there.all() and (answering := _answering(session, side.manifest)) is not None:
        encoder = artifacts.load_encoder(session, side.manifest)
        found[~there] = encoder.answers(rows.filter(pl.Series(~there)), answering.batch)
    return found


def _answering(session: Session, manifest: Manifest) -> Predictor | None:
    """What answers for a version; None where that is a rule that the app declares no more."""
    try:
        return artifacts.load_predictor(session, manifest)
    except StateError as problem:
        if problem.code != "rule-changed":
            raise
        return None


def _askable(a: _Side, b: _Side, rows: pl.DataFrame) -> bool:
    """Whether `a` can be asked about rows that it was not tested on: its features are there, defined alike; and it was split by
    time, since of a split by groups a row may be new whose group it learned from.
    """
    assert a.learned is not None  # noqa: S101 - `_paired` looked
    examples, held = a.learned
    ours, theirs = a.manifest.causes["examples"], b.manifest.causes["examples"]
    alike = all(theirs.get(name) == value for name, value in ours.items() if name.startswith("feature "))
    there = all(rows.schema.get(name) == examples.frame.schema[name] for name in examples.features)
    fit, test = (examples.frame.filter(pl.Series(mask))["_asked"] for mask in (held.fit, held.test))
    by_time = bool((fit < test.min()).all()) if len(test) else False
    return alike and there and by_time


def _decided(ending: Finish, answers: Answers, rows: pl.DataFrame) -> npt.NDArray[np.bool_]:
    return ending.decided(answers, fold.groups(rows, ending.by) if ending.by else None)


# The rest


def _worth(session: Session, side: _Side) -> dict[str, float]:
    found = card.explanation_of(session, side.manifest)
    return {f.name: f.worth.estimate for f in found.features if f.worth is not None} if found is not None else {}


def _thresholds(ending: Finish) -> dict[str, float]:
    if ending.threshold is None:
        return {}
    return {"threshold": ending.threshold} | {
        f"{ending.by}: {finish.group(name)}": at for name, at in sorted(ending.thresholds.items())
    }


def _sizes(session: Session, manifest: Manifest) -> dict[str, float]:
    found = card.trail(session, manifest.model, manifest.version)
    data = session.blobs.get(manifest.artifacts[card.answering(manifest)])
    micros = {f"{name}, one row, µs": us for name, us in sorted(found.timed.items()) if name != "seconds"}
    latency = found.judged.get("model_latency.estimate")
    return {"bytes of what answers": float(len(data)), **micros} | (
        {"latency of the gate, s": latency} if latency is not None else {}
    )


def _says(then: str, now: str, causes: tuple[Cause, ...], found: Paired) -> str:
    """The one sentence that matters."""
    why = _why(causes)
    if found.difference is None:
        return f"{now} cannot be compared with {then} ({found.why}); {why}."
    d = found.difference
    if d.low == d.high == 0:
        return f"{now} answers {found.n:,} rows that neither learned from as {then} does; {why}."
    told = f"cannot be told apart from {then}"
    if d.high < 0:
        told = f"is better than {then}"
    elif d.low > 0:
        told = f"is worse than {then}"
    return (
        f"{now} {told} by {found.loss}: {d.estimate:+.4g} ({d.low:+.3g} to {d.high:+.3g}), on {found.n:,} rows that "
        f"neither learned from; {why}."
    )


def _why(causes: tuple[Cause, ...]) -> str:
    if not causes:
        return "no recorded cause differs"
    names = list(dict.fromkeys(c.of if c.of in ("data", "knobs", "environment") else c.name for c in causes))
    return f"what differs: {', '.join(names[:6])}" + (f" and {len(names) - 6} more" if len(names) > 6 else "")
