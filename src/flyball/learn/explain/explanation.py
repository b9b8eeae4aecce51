"""What is told of a version as a whole: what its features contribute and are worth, how answers depend on them, and what
simplicity would cost. Stored with the version as `explanation.json`; a charted page is drawn from it alone.

It holds nothing of anybody: means and quantiles over held-out rows, and grid points that at least `dependence.SHARED` training
rows share. So it outlives the erasure of a person. Bounded: the first `FEATURES` features (fewer where an answer is many
numbers), `CURVES` columns with `dependence.POINTS` points; under 200 kB. Bounded in cost as well: rows are sampled, evenly
over time or by one seed, and how many is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from flyball._kernel.conditions import Measurement, Metric
from flyball._kernel.errors import StateError
from flyball.data.contract import Contract
from flyball.learn.encoding.encode import Encoder
from flyball.learn.explain import dependence as depending
from flyball.learn.explain import shap
from flyball.learn.explain.dependence import Dependence, short
from flyball.learn.explain.shap import Explainer, Method
from flyball.learn.explain.walks import Array, Contributions, Places
from flyball.learn.export.predictor import Matrix, Predictor
from flyball.learn.features.declare import FeatureSet
from flyball.learn.finish import Finished
from flyball.learn.quality import metrics
from flyball.learn.quality import worth as worths
from flyball.learn.quality.evaluate import Compared
from flyball.learn.task import Task

ARTIFACT = "explanation.json"
"""The name under which a version keeps it."""

FEATURES = 50
"""Features that are told, those that contribute most."""
TOLD = 120
"""Contributions that are told at most: features times numbers of an answer."""
OUTPUTS = 10
"""Numbers of an answer that are told, at most: the first of them."""
CURVES = 8
"""Columns whose dependence is told."""
WORTH_FEATURES, WORTH_ROWS, FEWEST, PERMUTATIONS = 20, 2_000, 200, 4
"""What permutation importance is measured on: features, held-out rows (the fewer the slower a model is), shuffles of each."""
TRAIN_ROWS = 5_000
"""Training rows that grids and backgrounds are made of, at most."""

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What a feature contributes to one number of the answer, over the rows that were explained.

    Attributes:
        output: the class, or "" where an answer is one number.
        size: the mean of its absolute contribution, with a 95 % interval (normal, rows on their own).
        quantiles: 5, 25, 50, 75 and 95 % of its contributions.
        follows: the rank correlation of contribution and value, from -1 to 1; None for categories, texts, several columns.
        error: the mean standard error of one contribution; 0 where they are exact. It adds to `size` where it is not small.
    """

    output: str
    size: Measurement
    quantiles: tuple[float, ...]
    follows: float | None = None
    error: float = 0.0


class FeatureTold(msgspec.Struct, frozen=True, kw_only=True):
    """One feature.

    Attributes:
        columns: its declared columns.
        worth: by how much the metric drops when it is shuffled (see `learn.quality.worth`); None where it was not measured.
    """

    name: str
    columns: tuple[str, ...]
    shares: tuple[Share, ...]
    worth: Measurement | None = None
    tells: worths.Tells | None = None


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """A simpler model, and by how much it is worse than the declared one, on the same rows and draws."""

    name: str
    worse: Measurement

    @property
    def tells(self) -> Literal["worse", "better", "the same"]:
        """What the interval says."""
        return "worse" if self.worse.low > 0 else "better" if self.worse.high < 0 else "the same"


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What a version makes of its features. Stored as deterministic JSON (`facts.encode`).

    Attributes:
        method, unit, family: of the contributions; see `shap`.
        calibrated: whether a calibration makes answers of the scores; it is in `dependence` and `worth`, not in contributions.
        base: by output: the mean score of nobody in particular.
        metric: what worth is a drop of, and what rivals are compared by.
        held_out, explained, asked: held-out rows; those of them that were explained; those that worth was measured on.
        background: training rows that grids and backgrounds were made of.
        features: what contributes most first; `left_out` more are not told.
        rivals: simpler models that were trained beside it.
        why: what could not be told, and why.
    """

    model: str
    task: Task
    method: Method
    unit: str
    family: str
    calibrated: bool
    base: dict[str, float]
    metric: str
    held_out: int
    explained: int
    asked: int
    background: int
    features: tuple[FeatureTold, ...]
    left_out: int
    dependence: tuple[Dependence, ...]
    rivals: tuple[Rival, ...]
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A version as it is explained.

    Attributes:
        model: its name.
        features: feature -> its declared columns, as the encoder names them.
        predictor: what answers, its finish included.
        artifacts: its own packed forms, name -> bytes.
        train: training rows, encoded; `TRAIN_ROWS` of them are enough. May be empty where they were erased.
    """

    model: str
    task: Task
    encoder: Encoder
    features: Mapping[str, tuple[str, ...]]
    predictor: Predictor
    artifacts: Mapping[str, bytes]
    train: Matrix

    @property
    def places(self) -> Places:
        """Feature -> its columns of the matrix."""
        groups = dict(self.encoder.groups)
        return {name: [p for c in columns for p in groups[c]] for name, columns in self.features.items()}

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the explained numbers of an answer are called."""
        return self.task.classes or ("",)

    @property
    def scores(self) -> Predictor:
        """What answers, without its finish."""
        return self.predictor.predictor if isinstance(self.predictor, Finished) else self.predictor

    def explainer(self) -> Explainer:
        """See `shap.explainer`."""
        return shap.explainer(self.artifacts, self.scores, self.task, self.train, self.places)


def columns_of(features: FeatureSet, question: type[Contract]) -> dict[str, tuple[str, ...]]:
    """Feature -> the declared columns that it yields."""
    return {f.name: tuple(o.name for o in f.outputs(question)) for f in features.features}


def explain_version(
    subject: Subject, held_out: worths.Rows, metric: Metric, compared: Sequence[Compared]
) -> Explanation:
    """Explain a version.

    Args:
        subject: the version.
        held_out: its held-out rows, in the order of time.
        metric: what the app optimises.
        compared: the models of its evaluation, the declared one first.

    Raises:
        StateError: `explain-no-background`, where there are no training rows and the model needs some.
        Bug: `contributions-do-not-sum`.
    """
    made = subject.explainer()
    rows = shap.thinned(held_out.matrix, made.summary)
    found = made.many(rows)
    shap.hold(found, made, shap.picked(subject.scores.batch(rows), subject.task))
    sizes = np.abs(found.values).mean(axis=(0, 1))
    names = list(subject.features)
    order = [names[k] for k in np.argsort(-sizes, kind="stable")]
    asked = max(FEWEST, min(WORTH_ROWS, made.answers // (PERMUTATIONS * min(len(names), WORTH_FEATURES))))
    judged = held_out.sample(asked, metrics.SEED)
    worth, why = _worth(subject, judged, metric, order[:WORTH_FEATURES])
    outputs = subject.outputs[:OUTPUTS]
    told = order[: min(FEATURES, max(10, TOLD // len(outputs)))]
    base = found.base.mean(axis=0)
    return Explanation(
        model=subject.model,
        task=subject.task,
        method=made.method,
        unit=made.unit,
        family=made.family,
        calibrated=subject.scores is not subject.predictor,
        base=dict(zip(outputs, short(base[: len(outputs)]), strict=True)),
        metric=metric.name,
        held_out=len(held_out.matrix),
        explained=len(rows),
        asked=len(judged.outcome),
        background=min(len(subject.train), TRAIN_ROWS),
        features=tuple(_told(subject, found, rows, name, worth.get(name)) for name in told),
        left_out=len(names) - len(told),
        dependence=_dependence(subject, held_out.matrix, order),
        rivals=rivals(compared, metric),
        why=why,
    )


def _told(subject: Subject, found: Contributions, rows: Matrix, name: str, worth: Measurement | None) -> FeatureTold:
    return FeatureTold(
        name=name,
        columns=subject.features[name],
        shares=tuple(_share(subject, found, rows, name, at) for at in range(len(subject.outputs[:OUTPUTS]))),
        worth=worth,
        tells=worths.tells(worth) if worth is not None else None,
    )


def from_bytes(data: bytes) -> Explanation:
    """What was stored.

    Raises:
        StateError: `explanation-unreadable`.
    """
    try:
        return msgspec.json.decode(data, type=Explanation)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StateError(
            "explanation-unreadable",
            "The explanation of a version cannot be read.",
            why=str(error),
            next="Train a version anew with `flyball apply`; the one that answers is not touched by this.",
        ) from error


def rivals(compared: Sequence[Compared], metric: Metric) -> tuple[Rival, ...]:
    """By how much each simpler model is worse; those whose difference could not be measured are left out."""
    found = []
    for each in compared[1:]:
        apart = each.differences.get(metric.name)
        if apart is not None:
            low, high = sorted((_worse(apart.low, metric), _worse(apart.high, metric)))
            worse = Measurement(estimate=_worse(apart.estimate, metric), low=low, high=high, n=apart.n)
            found.append(Rival(name=each.name, worse=worse))
    return tuple(found)


def told(found: Explanation) -> str:
    """How the contributions were made, in a sentence."""
    how = {
        "tree": "exact, path-dependent (TreeSHAP)",
        "additive": "exact, against training rows",
        "sampled": "sampled, against training rows",
    }[found.method]
    before = ", before calibration" if found.calibrated else ""
    return f"Contributions to the score in {found.unit}{before}: {how}, of {found.explained:,} held-out questions."


def costs(found: Explanation) -> list[str]:
    """What simplicity costs, in sentences."""
    said = []
    for rival in found.rivals:
        worse, tells = rival.worse, rival.tells
        if tells == "better":
            worse = Measurement(estimate=-worse.estimate, low=-worse.high, high=-worse.low, n=worse.n)
        apart = f"{worse.estimate:.3g} ({worse.low:.3g} to {worse.high:.3g})"
        text = f"is {apart} {tells} in {found.metric}"
        if tells == "the same":
            text = f"cannot be told from it in {found.metric}: by {apart} worse"
        said.append(f"{found.model} answers with {found.family}; the {rival.name} model {text}")
    return said


def _worse(x: float, metric: Metric) -> float:
    return (-x if metric.better == "higher" else x) + 0.0


def _worth(
    subject: Subject, rows: worths.Rows, metric: Metric, names: Sequence[str]
) -> tuple[dict[str, Measurement | None], tuple[str, ...]]:
    """The worth of some features, and why of some it is not told."""
    places = {name: subject.places[name] for name in names}
    found = worths.worth(subject.predictor.batch, rows, places, metric, permutations=PERMUTATIONS)
    why = []
    if None in found.values():
        why.append(f"worth: {metrics.unmeasurable(rows.outcome, rows.blocks) or f'{metric.name} is undefined'}")
    if len(subject.features) > len(names):
        why.append(f"worth: of the {len(names)} features alone that contribute most")
    return found, tuple(why)


def _share(subject: Subject, found: Contributions, rows: Matrix, name: str, output: int) -> Share:
    at = list(subject.features).index(name)
    values = found.values[:, output, at]
    sizes, n = np.abs(values), len(values)
    mean, reach = float(sizes.mean()), 1.959964 * float(sizes.std()) / n**0.5
    middle, low, high = short(np.array([mean, max(0.0, mean - reach), mean + reach]))
    error = 0.0 if found.error is None else short(found.error[:, output, at].mean(keepdims=True))[0]
    return Share(
        output=subject.outputs[output],
        size=Measurement(estimate=middle, low=low, high=high, n=n),
        quantiles=short(np.quantile(values, _QUANTILES)),
        follows=_follows(values, rows, subject.places[name], subject.encoder),
        error=error,
    )


def _follows(values: Array, rows: Matrix, places: Sequence[int], encoder: Encoder) -> float | None:
    """Spearman's correlation of a feature's contributions with its values, where it is one number."""
    if len(places) != 1 or places[0] not in encoder.numbers:
        return None
    known = ~np.isnan(rows[:, places[0]])
    ours, theirs = _ranks(values[known]), _ranks(rows[known, places[0]].astype(np.float64))
    if len(ours) < depending.SHARED or not ours.std() or not theirs.std():
        return None
    return round(float(np.corrcoef(ours, theirs)[0, 1]), 4)


def _ranks(values: Array) -> npt.NDArray[np.float64]:
    """Ranks; of equal values their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])


def _dependence(subject: Subject, held_out: Matrix, order: Sequence[str]) -> tuple[Dependence, ...]:
    train = shap.thinned(subject.train, TRAIN_ROWS)
    grids: list[tuple[str, str, depending.Grid]] = []
    for name in order:
        for column in subject.features[name]:
            at = depending.grid(subject.encoder, column, train) if len(grids) < CURVES else None
            if at is not None:
                grids.append((name, column, at))
    names = subject.outputs if subject.task.classes or not subject.task.quantiles else _levels(subject.task)
    return depending.dependence(subject.predictor.batch, held_out, grids, names)


def _levels(task: Task) -> tuple[str, ...]:
    return tuple(f"{q:g}" for q in task.quantiles)
