"""From a model function to an estimator that is ready to be fitted: its task, quantiles and seeds, and what plan says of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier, XGBRegressor

import flyball as fb
from flyball._kernel.errors import DeclarationError
from flyball.learn import model as models
from flyball.learn import rule
from flyball.learn.encoding import encode
from flyball.learn.export import ruled
from flyball.learn.export.several import Several
from flyball.learn.fit import train
from flyball.learn.model import Model
from flyball.learn.search import SEED


class Visit(fb.Contract):
    id = dy.String(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    size = dy.Float64()
    bought = fb.outcome(dy.Bool(nullable=True))
    spent = fb.outcome(dy.Float64(nullable=True))
    ended = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))


FEATURES = fb.features(Visit.size)
ASKED = fb.before(Visit.at, timedelta(0))
ENCODER = encode.fit(pl.DataFrame({"size": [1.0]}), [("size", "number")])


def model(build: Callable[..., Any], predicts: Any = Visit.bought, **declared: Any) -> Model:
    return fb.model(FEATURES, predicts=predicts, asked=ASKED, **declared)(build)


def declared(of: Model) -> Any:
    return train.declared(of, {}, models.task(of), ENCODER)


def test_what_was_left_open_is_tied_down_at_every_depth() -> None:
    def nested() -> Any:
        return make_pipeline(StandardScaler(), RandomForestClassifier())

    assert declared(model(nested))[-1].random_state == SEED

    def chosen() -> Any:
        return RandomForestClassifier(random_state=7)

    assert declared(model(chosen)).random_state == 7

    def boosted() -> Any:
        return LGBMClassifier()

    params = declared(model(boosted)).get_params()
    assert (params["random_state"], params["deterministic"], params["n_jobs"]) == (SEED, True, 2)

    def extreme() -> Any:
        return XGBClassifier()

    params = declared(model(extreme)).get_params()
    assert (params["random_state"], params["verbosity"]) == (SEED, 0)


@pytest.mark.parametrize(
    ("regressor", "names"),
    [
        (LGBMRegressor, "alpha"),
        (XGBRegressor, "quantile_alpha"),
        (lambda: make_pipeline(StandardScaler(), LGBMRegressor()), "lgbmregressor__alpha"),
    ],
)
def test_one_regressor_a_quantile(regressor: Callable[[], Any], names: str) -> None:
    def build() -> Any:
        return regressor()

    found = declared(model(build, Visit.spent, quantiles=(0.9, 0.1)))
    assert isinstance(found, Several)
    assert [part.get_params()[names] for part in found.parts] == [0.1, 0.9]


@pytest.mark.parametrize(
    ("estimator", "predicts", "more", "why"),
    [
        (LGBMRegressor(), Visit.bought, {}, "no classifier"),
        (LGBMClassifier(), Visit.spent, {}, "no regressor"),
        (RidgeClassifier(), Visit.bought, {}, "CalibratedClassifierCV"),
        (Ridge(), Visit.spent, {"quantiles": (0.5,)}, "learns no quantile"),
        (LGBMClassifier(), Visit.bought, {"unsupervised": True}, "no detector of outliers"),
        (IsolationForest(), Visit.bought, {}, "no classifier"),
        (object(), Visit.bought, {}, "no fit"),
        (XGBRegressor(missing=0.0), Visit.spent, {}, "missing=0.0"),
    ],
)
def test_plan_refuses_what_cannot_learn_the_task(estimator: Any, predicts: Any, more: dict[str, Any], why: str) -> None:
    def build() -> Any:
        return estimator

    with pytest.raises(DeclarationError, match="estimator-of-other-kind") as caught:
        train.check(model(build, predicts, **more))
    assert why in caught.value.why


def test_plan_says_how_a_model_will_be_served() -> None:
    def build() -> Any:
        return LGBMClassifier()

    assert "LightGBM's own library" in train.check(model(build))


def test_a_rule_is_bound_to_what_decodes_its_rows() -> None:
    class Knobs(fb.Params):
        cut: float = fb.between(0.0, 9.0, start=3.0)

    def large(knobs: Knobs) -> Any:
        cut = knobs.cut
        return rule.rule(lambda row: (row["size"] or 0) > cut)

    large.__annotations__["knobs"] = Knobs
    mine = model(large)
    assert "no ONNX" in train.check(mine)
    found = train.declared(mine, {"cut": 4.0}, models.task(mine), ENCODER)
    assert isinstance(found, ruled.Bound)
    data = ruled.stored(found)
    matrix = ENCODER.encode(pl.DataFrame({"size": [3.5, 4.5, None]}))
    loaded = rule.load(data, rule.of(mine, {"cut": 4.0}), ENCODER, models.task(mine))
    assert loaded.batch(matrix).tolist() == [0.0, 1.0, 0.0]
    with pytest.raises(Exception, match="rule-changed"):
        rule.load(data, rule.of(mine, {"cut": 3.0}), ENCODER, models.task(mine))

    def other() -> Any:
        return LGBMClassifier()

    with pytest.raises(Exception, match="rule-changed"):
        rule.of(model(other), {})
