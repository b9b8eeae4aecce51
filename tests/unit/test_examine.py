"""A whole examination: every task, the same twice, bounded, and true about models whose faults are known."""

from __future__ import annotations

from typing import Any

import lightgbm
import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

from flyball._kernel import facts
from flyball.learn.encoding import encode
from flyball.learn.examine import diagnosis, examined, refit, robust, seeds, size, telling
from flyball.learn.examine.examined import Examined
from flyball.learn.examine.subject import Rows, Subject
from flyball.learn.export import pack
from flyball.learn.export.several import Several
from flyball.learn.fit import train
from flyball.learn.task import ANOMALY, BINARY, REGRESSION, Task

N = 400
TASKS = (
    BINARY,
    REGRESSION,
    ANOMALY,
    Task(kind="multiclass", classes=("a", "b", "c")),
    Task(kind="quantile", quantiles=(0.1, 0.5, 0.9)),
)
SETTINGS: dict[str, Any] = {
    "verbose": -1,
    "n_jobs": 1,
    "n_estimators": 10,
    "deterministic": True,
    "force_row_wise": True,
}


def _frame(n: int, rng: np.random.Generator) -> pl.DataFrame:
    return pl.DataFrame({"x": rng.normal(size=n), "other": rng.normal(size=n), "place": rng.choice(["n", "e", "s"], n)})


def _outcome(task: Task, frame: pl.DataFrame, rng: np.random.Generator) -> np.ndarray:
    score = 2 * frame["x"].to_numpy() + (frame["place"] == "n").to_numpy()
    if task.truth:
        return rng.random(len(score)) < 1 / (1 + np.exp(-score))
    noisy = score + rng.normal(size=len(score))
    return np.digitize(noisy, [-1.0, 1.0]).astype(np.int64) if task.classes else noisy


def _build(task: Task) -> Any:
    if task.kind == "quantile":
        parts = [lightgbm.LGBMRegressor(objective="quantile", alpha=q, **SETTINGS) for q in task.quantiles]
        return Several(tuple(parts), (0, 1, 2), 3)
    return lightgbm.LGBMClassifier(**SETTINGS) if task.classifies else lightgbm.LGBMRegressor(**SETTINGS)


def _subject(task: Task, build: Any = None, n: int = N) -> Subject:
    rng = np.random.default_rng(7)
    frame = _frame(2 * n, rng)
    outcome = _outcome(task, frame, rng)
    encoder = encode.fit(frame, [("x", "number"), ("other", "number"), ("place", "category")])
    matrix, blocks = encoder.encode(frame), np.arange(2 * n) // (2 * n // 40)
    held = Rows(matrix[:n], outcome[:n], blocks[:n])
    known = Rows(matrix[n:], outcome[n:], blocks[n:])
    if task.kind == "anomaly":
        # Nothing is fitted: what is far out on one side.
        return Subject(task, encoder, lambda m: np.nan_to_num(m[:, 0]).astype(np.float64), held, frame[:n], train=known)
    fit = refit.fit_of(build or (lambda: _build(task)), task)
    answer = fit(known, None)
    return Subject(task, encoder, answer, held, frame[:n], train=known, fit=fit)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.kind)
def test_every_task_is_examined_twice_alike_and_stored(task: Task) -> None:
    subject = _subject(task)
    found = examined.examine(subject)
    stored = facts.encode(found)
    assert stored == facts.encode(examined.examine(subject))
    assert msgspec.json.decode(stored, type=Examined) == found
    assert len(stored) < 20_000 and b"NaN" not in stored and b"Infinity" not in stored
    missing = next(p for p in found.robust.probes if p.fault == "missing")
    units = next(p for p in found.robust.probes if p.fault == "units")
    assert missing.column == units.column == "x"
    assert missing.change.low > 0
    assert found.robust.attack is not None and found.robust.attack.mean >= found.robust.attack.chance > 0
    assert (found.robust.attack.flipped is None) == (task.kind in ("regression", "quantile", "anomaly"))
    assert bool(found.trust.why) == (task.kind == "anomaly")
    assert found.seeds.why == "not asked to train anew"
    assert found.value is not None and found.diagnosis.better is not None and found.diagnosis.better.low > 0
    said = telling.told(found)
    assert any("Without x" in line for line in said) and all(len(line) < 1500 for line in said)


def test_answers_at_hand_are_not_asked_for_again() -> None:
    subject = _subject(REGRESSION)
    answers = subject.answer(subject.test.dense)
    given = msgspec.structs.replace(examined.examine(_with(subject, answers=answers)), seed=subject.seed)
    assert given == examined.examine(subject)


def _with(subject: Subject, **changes: Any) -> Subject:
    return Subject(**{name: changes.get(name, getattr(subject, name)) for name in Subject.__slots__})


def test_what_memorises_overfits_and_what_is_blind_underfits() -> None:
    forest = diagnosis.diagnose(
        _subject(BINARY, lambda: ExtraTreesClassifier(10, random_state=1, n_jobs=1)), refits=True
    )
    assert forest.verdict == "overfits"
    assert forest.curve is not None and forest.curve.points[-1].seen < 0.1 < forest.curve.points[-1].unseen
    blind = _subject(BINARY, lambda: train.baseline(BINARY))
    assert diagnosis.diagnose(blind, refits=False).verdict == "underfits"
    assert diagnosis.diagnose(blind, refits=True).verdict == "underfits"


def test_a_straight_line_fits_what_is_straight_and_more_rows_help_where_they_do() -> None:
    line = diagnosis.diagnose(_subject(BINARY, lambda: LogisticRegression(max_iter=200)), refits=True)
    assert line.verdict == "fits" and line.skill_unseen is not None and line.skill_unseen > 0.2
    assert line.curve is not None and [p.rows for p in line.curve.points] == [75, 150, 300]
    assert line.curve.boosted is not None and line.curve.boosted.estimate < 0
    trees = {**SETTINGS, "n_estimators": 100, "num_leaves": 15, "learning_rate": 0.05}
    hungry = diagnosis.diagnose(_subject(REGRESSION, lambda: lightgbm.LGBMRegressor(**trees), n=800), refits=True)
    assert hungry.verdict == "more data would help"
    assert hungry.curve is not None and hungry.curve.gain is not None and hungry.curve.gain.low > 0


def test_other_seeds_move_what_draws_and_leave_what_does_not() -> None:
    still = seeds.seeds(_subject(BINARY), refits=True)
    assert (still.spread, still.moved, still.flipped, still.steady) == (0, 0, 0, True)
    drawn = seeds.seeds(_subject(BINARY, lambda: ExtraTreesClassifier(3, random_state=1, n_jobs=1)), refits=True)
    assert drawn.spread is not None and drawn.spread > 0
    assert drawn.moved is not None and drawn.moved > 0.05 and drawn.flipped is not None and drawn.flipped > 0.05


def test_a_model_that_refuses_missing_values_is_named_not_hidden() -> None:
    found = robust.robust(_subject(BINARY, lambda: LogisticRegression(max_iter=200)))
    assert {p.fault for p in found.probes} == {"noise", "unseen", "units"}
    assert [o.what for o in found.omitted] == ["missing"] and "ValueError" in found.omitted[0].why
    assert found.probed == {"missing": 0, "unseen": 1, "units": 2}


def test_what_a_model_does_not_read_does_it_no_harm() -> None:
    subject = _subject(BINARY)
    blind = _with(subject, answer=lambda m: np.where(np.isnan(m[:, 0]) | (m[:, 0] < 0), 0.2, 0.8), answers=None)
    found = robust.robust(blind)
    harmless = [p for p in found.probes if p.column in ("other", "place")]
    assert harmless and all(p.change.low == p.change.high == 0 == p.flipped for p in harmless)
    assert found.attack is not None and found.attack.most == pytest.approx(0.6)
    near = np.abs(subject.test.dense[:, 0]) < 0.1 * 0.9
    assert found.attack.flipped == pytest.approx(near.mean(), abs=0.03)


def test_what_it_weighs_is_counted() -> None:
    subject = _subject(BINARY)
    assert subject.train is not None
    fitted = train.fit(_build(BINARY), subject.train.matrix, subject.train.outcome, BINARY)
    packed = pack.pack(fitted, subject.test.matrix, BINARY)
    weight = size.weigh({**packed.artifacts, "linear/model.onnx": b"not ours"})
    assert weight.trees == 10 and weight.leaves == sum(
        t["num_leaves"] for t in fitted.booster_.dump_model()["tree_info"]
    )
    assert weight.total == sum(len(data) for data in packed.artifacts.values())
    assert weight.numbers is not None and weight.numbers > weight.leaves


def test_too_few_rows_say_why_everywhere() -> None:
    subject = _subject(BINARY)
    few = _with(subject, test=subject.test.at(np.arange(20)), frame=subject.frame[:20])
    found = examined.examine(few, refits=True)
    assert found.value is None and not found.robust.probes
    for part in (found.worst, found.robust, found.diagnosis, found.seeds, found.trust):
        assert part.why == "20 rows, fewer than 50"
    assert telling.told(found)[-1].startswith("Not examined: ")


def test_what_has_very_many_classes_is_not_fitted_anew() -> None:
    task = Task(kind="multiclass", classes=tuple(f"c{n}" for n in range(refit.CLASSES + 1)))
    rows = Rows(matrix=np.zeros((5, 1), dtype=np.float32), outcome=np.arange(5))
    never: Any = None
    assert refit.tried(never, task, rows) == "101 classes, more than 100"
