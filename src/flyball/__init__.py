"""flyball: the governor for machine-learning applications.

Declare an application once, in one typed Python file; flyball takes it from raw data to a served, watched and
self-correcting model. Everything a user writes is named here, and each name is loaded when it is first used: importing
flyball loads none of the heavy libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyball._kernel import metrics
    from flyball._kernel.conditions import (
        Condition,
        Metric,
        accuracy,
        average_precision,
        brier,
        calibration_error,
        champion,
        error_rate,
        log_loss,
        mean_absolute_error,
        model_latency,
        p99_latency,
        r2,
        roc_auc,
        root_mean_squared_error,
    )
    from flyball._kernel.durations import days, hours, minutes, ms, seconds
    from flyball._kernel.errors import (
        AdapterError,
        Bug,
        DataError,
        DeclarationError,
        FlyballError,
        GateError,
        StateError,
    )
    from flyball.app import App
    from flyball.data.contract import Contract, before, entity, event_time, outcome, outcome_time, personal, protected
    from flyball.data.expectations.expect import column, table
    from flyball.data.kinds import delta, frames, push, sql
    from flyball.data.preparing import prepare
    from flyball.data.source import files
    from flyball.learn import behaviour as expect
    from flyball.learn.adopted import adopted
    from flyball.learn.features.declare import Feature
    from flyball.learn.features.notation import feature, features, function, latest, since_last, text, trend, window
    from flyball.learn.knobs import Params, between, one_of
    from flyball.learn.model import auto, model
    from flyball.learn.rule import rule
    from flyball.learn.search import search
    from flyball.learn.split import by_group, by_time, rolling
    from flyball.learn.treatment import best, costs, mitigate
    from flyball.release.approval import approval
    from flyball.release.policy import Release, ab, canary, shadow
    from flyball.runtime import Placement, Session, open  # noqa: A004 - fb.open, as in io.open
    from flyball.watch.monitor import Monitor, at_most, breach, every, js, new_rows, psi

__version__ = "0.2.0"

_HOMES = {
    "_kernel.conditions": (
        "Condition Metric accuracy average_precision brier calibration_error champion error_rate log_loss "
        "mean_absolute_error model_latency p99_latency r2 roc_auc root_mean_squared_error"
    ),
    "_kernel.durations": "days hours minutes ms seconds",
    "_kernel.errors": "AdapterError Bug DataError DeclarationError FlyballError GateError StateError",
    "app": "App",
    "data.contract": "Contract before entity event_time outcome outcome_time personal protected",
    "data.expectations.expect": "column table",
    "data.kinds": "delta frames push sql",
    "data.source": "files",
    "learn.adopted": "adopted",
    "learn.features.declare": "Feature",
    "learn.features.notation": "feature features function latest since_last text trend window",
    "learn.knobs": "Params between one_of",
    "learn.model": "auto model",
    "learn.search": "search",
    "learn.rule": "rule",
    "learn.split": "by_group by_time rolling",
    "learn.treatment": "best costs mitigate",
    "release.approval": "approval",
    "release.policy": "Release ab canary shadow",
    "runtime": "Placement Session open",
    "watch.monitor": "Monitor at_most breach every js new_rows psi",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}
_MODULES = {"expect": "learn.behaviour", "metrics": "_kernel.metrics", "prepare": "data.preparing.prepare"}

__all__ = [
    "AdapterError",
    "App",
    "Bug",
    "Condition",
    "Contract",
    "DataError",
    "DeclarationError",
    "Feature",
    "FlyballError",
    "GateError",
    "Metric",
    "Monitor",
    "Params",
    "Placement",
    "Release",
    "Session",
    "StateError",
    "ab",
    "accuracy",
    "adopted",
    "approval",
    "at_most",
    "auto",
    "average_precision",
    "before",
    "best",
    "between",
    "breach",
    "brier",
    "by_group",
    "by_time",
    "calibration_error",
    "canary",
    "champion",
    "column",
    "costs",
    "days",
    "delta",
    "entity",
    "error_rate",
    "event_time",
    "every",
    "expect",
    "feature",
    "features",
    "files",
    "frames",
    "function",
    "hours",
    "js",
    "latest",
    "log_loss",
    "mean_absolute_error",
    "metrics",
    "minutes",
    "mitigate",
    "model",
    "model_latency",
    "ms",
    "new_rows",
    "one_of",
    "open",
    "outcome",
    "outcome_time",
    "p99_latency",
    "personal",
    "prepare",
    "protected",
    "psi",
    "push",
    "r2",
    "roc_auc",
    "rolling",
    "root_mean_squared_error",
    "rule",
    "search",
    "seconds",
    "shadow",
    "since_last",
    "sql",
    "table",
    "text",
    "trend",
    "window",
]


if not TYPE_CHECKING:
    # Hidden from the type checker, which would believe that every name exists.
    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            value: Any = import_module(f"flyball.{_MODULES[name]}")
        elif name in _HOME_OF:
            value = getattr(import_module(f"flyball.{_HOME_OF[name]}"), name)
        else:
            raise AttributeError(f"module 'flyball' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
