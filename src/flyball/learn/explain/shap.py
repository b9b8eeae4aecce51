"""Contributions: how much each feature moves one answer away from the answer to nobody in particular (Shapley values).

    contributions + base = raw score, for every row: so an answer is accounted for to the last bit of it

    tree      boosted trees: exact and path-dependent, by the library itself (Lundberg et al., Nature Machine Intelligence 2020)
    additive  a score that is a sum over features, such as a linear model's: exact, `h(x) - mean h` over background rows
    sampled   anything else: walks from background rows to the question in random orders of features, each forwards and
              backwards (Strumbelj and Kononenko 2014; Castro et al. 2009; Mitchell et al. 2022), with standard errors

The raw score is what a model sums up before a link makes it an answer, and is before calibration; `unit` says in what it is.
Which link it is, is not believed but checked against the answers; where none fits, the answer itself is explained.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import lightgbm
import numpy as np

from flyball._kernel.errors import Bug, StateError
from flyball.learn.explain.walks import Additive, Array, Contributions, Places, Sampled, indicator
from flyball.learn.export import native, predictor, several
from flyball.learn.export.predictor import Kind, Matrix, Predictor
from flyball.learn.task import Task

Method = Literal["tree", "additive", "sampled"]
Link = Callable[[Array], Array]

BACKGROUND = 100
"""Training rows that stand for nobody in particular, at most."""
ROWS = 2_000
"""Rows of a summary, at most."""
LEAVES = 8_000_000
"""Leaves of all trees times rows that a summary of boosted trees looks at: a second or two; never under `FEWEST` rows."""
FEWEST = 64
ANSWERED_LEAVES, ANSWERS = 1_500_000_000, 60_000
"""Leaves times rows that may be answered besides, at about a nanosecond each; of other models, rows."""
ASKED, MANY = 40_000, 20
"""Rows that a summary asks a model for, where contributions are sampled; fewer where an answer is more numbers than `MANY`."""
SAMPLED_ROWS = 200

LOG_ODDS, LOG_SHARE = "log-odds", "log-probability, up to one constant a question"
ITSELF, LOG = "the answer's own unit", "logarithm of the answer"


@dataclass(frozen=True, slots=True, eq=False)
class Explainer:
    """How one version is explained.

    Attributes:
        method: see the head of this file.
        unit: of scores and contributions.
        family: what answers, in words.
        link: raw scores (rows, outputs) -> answers before calibration, of the same shape.
        summary: how many rows a summary of it can afford to explain,
        answers: and for how many answers it can afford to ask besides.
        one: of some questions, as sure as it gets.
        many: of the rows of a summary, within its means.
    """

    method: Method
    unit: str
    family: str
    link: Link
    summary: int
    answers: int
    one: Callable[[Matrix], Contributions]
    many: Callable[[Matrix], Contributions]


def explainer(
    artifacts: Mapping[str, bytes], answers: Predictor, task: Task, background: Matrix, places: Places
) -> Explainer:
    """The best way to explain a version.

    Args:
        artifacts: its own packed forms, name -> bytes; those that are absent or unknown are passed over.
        answers: its predictor, before calibration.
        background: training rows, (n, columns); `BACKGROUND` of them take part. None are needed for boosted trees.
        places: all features.

    Raises:
        StateError: `explain-no-background`; `hostile-model`.
    """
    background = thinned(background, BACKGROUND)
    trees = _trees(artifacts, answers, task)
    if trees is not None:
        found = _by_trees(trees, answers, task, background, places)
        if found is not None:
            return found
    if not len(background):
        raise StateError(
            "explain-no-background",
            "There are no training rows against which this kind of model could be explained.",
            why="Its contributions are differences from what it answers to training rows, and those were erased.",
            next="flyball apply trains a version on what is left; that one can be explained.",
        )
    score, unit, family = _scored(artifacts, answers, task, background)
    link = _LINKS.get(unit, _as_it_is)
    sure = Additive(score, background, places)
    if sure.holds():
        return Explainer("additive", unit, family, link, ROWS, ANSWERS, sure, sure)
    asked = max(1, 2 * (len(places) - 1))
    # An answer of a thousand classes takes as long as a thousand of one.
    budget = ASKED * MANY // max(MANY, task.width)
    rows = max(1, min(SAMPLED_ROWS, budget // (2 * asked)))
    few = Sampled(score, background, places, max(2, budget // (rows * asked)))
    most = Sampled(score, background, places, max(2, len(background)))
    return Explainer("sampled", unit, family, link, rows, ANSWERS, most, few)


def picked(answers: Array, task: Task) -> Array:
    """(rows, outputs) the numbers of an answer that are explained: of quantiles the middle one, else all."""
    wide = answers[:, None] if answers.ndim == 1 else answers
    return wide[:, [task.middle]] if task.quantiles else wide


def hold(found: Contributions, made: Explainer, answers: Array) -> None:
    """Hold contributions against the answers, (rows, outputs), that their sums must become.

    Raises:
        Bug: `contributions-do-not-sum`.
    """
    if not _same(made.link(found.base + found.values.sum(axis=2)), answers):
        raise Bug(
            "contributions-do-not-sum", "What features contribute does not add up to the answer.", next="Report it."
        )


def thinned(rows: Matrix, n: int) -> Matrix:
    """At most `n` rows, evenly spaced, so that all times of a training have a part."""
    if len(rows) <= n:
        return rows
    return rows[np.linspace(0, len(rows) - 1, n).astype(np.intp)]


# --- boosted trees, by their own libraries


@dataclass(frozen=True, slots=True, eq=False)
class _Trees:
    """What boosted trees say of themselves: contributions (rows, outputs, columns + 1), the last of them the base."""

    family: str
    leaves: int
    contributions: Callable[[Matrix], Array]


def _trees(artifacts: Mapping[str, bytes], answers: Predictor, task: Task) -> _Trees | None:
    """What can be read of them; the bytes are checked first, unless `answers` was loaded from them."""
    for kind, (name, read) in _READERS.items():
        if name in artifacts:
            if answers.name != kind:
                predictor.load(kind, artifacts)
            part = _part(artifacts[name], task)
            return None if part is None else read(part)
    return None


def _part(data: bytes, task: Task) -> bytes | None:
    """The one model in an artifact that is explained: of several joined ones that of the middle quantile, if there is one."""
    found, places = several.parts(data)
    if not places:
        return data
    if not task.quantiles or len(places) != len(found) or task.middle not in places:
        return None
    return found[places.index(task.middle)]


def _lightgbm(data: bytes) -> _Trees:
    text = data.decode()
    booster = lightgbm.Booster(model_str=text)
    leaves = sum(int(n) for n in re.findall(r"^num_leaves=(\d+)$", text, re.MULTILINE))

    def contributions(matrix: Matrix) -> Array:
        # Threads that wait for one another cost more than a small matrix does.
        threads = 1 if len(matrix) * leaves < LEAVES // 8 else 2
        said = booster.predict(matrix, pred_contrib=True, num_threads=threads)
        found = np.asarray(said, dtype=np.float64)
        return found.reshape(len(matrix), -1, matrix.shape[1] + 1)

    return _Trees("boosted trees (LightGBM)", leaves, contributions)


def _xgboost(data: bytes) -> _Trees:
    xgboost: Any = importlib.import_module("xgboost")
    booster = xgboost.Booster()
    booster.load_model(bytearray(data))

    def contributions(matrix: Matrix) -> Array:
        found = booster.predict(xgboost.DMatrix(matrix), pred_contribs=True, strict_shape=True)
        return np.asarray(found, dtype=np.float64).reshape(len(matrix), -1, matrix.shape[1] + 1)

    leaves = int(booster.trees_to_dataframe()["Feature"].eq("Leaf").sum())
    return _Trees("boosted trees (XGBoost)", leaves, contributions)


_READERS: Mapping[Kind, tuple[str, Callable[[bytes], _Trees]]] = {
    "lightgbm": ("model.txt", _lightgbm),
    "xgboost": ("model.xgb", _xgboost),
}


def _by_trees(trees: _Trees, answers: Predictor, task: Task, background: Matrix, places: Places) -> Explainer | None:
    """Exact, if a link makes the answers of the sums; None where none does, or the trees are not one model's."""
    columns = indicator(places, answers.features)

    def contributions(matrix: Matrix) -> Contributions:
        found = trees.contributions(matrix)
        values, base = found[:, :, :-1] @ columns, found[:, :, -1]
        return Contributions(values, base, base + values.sum(axis=2))

    rows = background if len(background) else np.zeros((2, answers.features), dtype=np.float32)
    unit = _unit(contributions(rows).score, picked(answers.batch(rows), task), task)
    if unit is None:
        return None
    leaves = max(1, trees.leaves)
    summary, asked = max(FEWEST, min(ROWS, LEAVES // leaves)), ANSWERED_LEAVES // leaves
    return Explainer("tree", unit, trees.family, _LINKS[unit], summary, asked, contributions, contributions)


# --- any other model, by its answers


def _scored(
    artifacts: Mapping[str, bytes], answers: Predictor, task: Task, rows: Matrix
) -> tuple[Callable[[Matrix], Array], str, str]:
    """The score to explain, its unit, and what answers: a classifier's own sum where it has one, else its answer."""
    answer = answers.batch

    def itself(matrix: Matrix) -> Array:
        return picked(answer(matrix), task)

    unit = "probability" if task.classifies else ITSELF
    if "model.skops" not in artifacts:
        return itself, unit, "a rule" if "rule.json" in artifacts else f"a model ({answers.name})"
    loaded = native.load(artifacts["model.skops"])
    if not isinstance(loaded, native.Estimator):
        return itself, unit, "several models"
    fitted: Any = loaded._fitted
    last = fitted.steps[-1][1] if hasattr(fitted, "steps") else fitted
    family = type(last).__name__
    if task.classifies and hasattr(fitted, "decision_function"):

        def decision(matrix: Matrix) -> Array:
            return picked(np.asarray(fitted.decision_function(matrix), dtype=np.float64), task)

        found = _unit(decision(rows), itself(rows), task)
        if found is not None:
            return decision, found, family
    return itself, unit, family


def _unit(score: Array, answers: Array, task: Task) -> str | None:
    """In what a score is, told by the link that makes the answers of it; None where none does."""
    units = (LOG_ODDS, LOG_SHARE) if task.classifies else (ITSELF, LOG)
    return next((unit for unit in units if _same(_LINKS[unit](score), answers)), None)


def _same(made: Array, answers: Array) -> bool:
    """To what a float32 holds, for some predictors answer in it."""
    return made.shape == answers.shape and bool(np.allclose(made, answers, rtol=1e-4, atol=1e-5))


def _odds(score: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -score)))


def _share(score: Array) -> Array:
    share = np.exp(score - score.max(axis=1, keepdims=True))
    return np.asarray(share / share.sum(axis=1, keepdims=True))


def _as_it_is(score: Array) -> Array:
    return score


def _exponential(score: Array) -> Array:
    return np.asarray(np.exp(np.minimum(score, 700.0)))  # beyond that a float is infinite


_LINKS: Mapping[str, Link] = {LOG_ODDS: _odds, LOG_SHARE: _share, ITSELF: _as_it_is, LOG: _exponential}
