"""The names of metrics: what users compare with a number. Those at the root of flyball, and those of decisions, classes,
quantiles, groups and live traffic, which users reach as `flyball.metrics`.

A **decision** is an answer at its threshold (that of the model's `decide=`, else one half). A gap of a decision's rate between
groups is the field's fairness: of `selection_rate` demographic parity, of `recall` equal opportunity, of `recall` and
`false_positive_rate` both equalised odds (Hardt, Price and Srebro 2016), of `calibration_error` calibration by group.
"""

from __future__ import annotations

from flyball._kernel.conditions import (
    Metric,
    accuracy,
    average_precision,
    brier,
    calibration_error,
    error_rate,
    log_loss,
    mean_absolute_error,
    model_latency,
    p99_latency,
    r2,
    roc_auc,
    root_mean_squared_error,
)

__all__ = [
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "calibration_error",
    "cost",
    "coverage",
    "disagreement",
    "error_rate",
    "f1",
    "false_positive_rate",
    "invalid_rate",
    "log_loss",
    "macro_f1",
    "macro_roc_auc",
    "matthews",
    "mean_absolute_error",
    "model_bytes",
    "model_latency",
    "outcome_mean",
    "p99_latency",
    "pinball_loss",
    "precision",
    "prediction_shift",
    "r2",
    "recall",
    "roc_auc",
    "root_mean_squared_error",
    "selection_rate",
    "width",
]

f1 = Metric("f1", "higher")
precision = Metric("precision", "higher")
recall = Metric("recall", "higher")
balanced_accuracy = Metric("balanced_accuracy", "higher")
matthews = Metric("matthews", "higher")
false_positive_rate = Metric("false_positive_rate", "lower")
selection_rate = Metric("selection_rate", "lower")
cost = Metric("cost", "lower")
macro_f1 = Metric("macro_f1", "higher")
macro_roc_auc = Metric("macro_roc_auc", "higher")
pinball_loss = Metric("pinball_loss", "lower")
coverage = Metric("coverage", "higher")
width = Metric("width", "lower")
model_bytes = Metric("model_bytes", "lower")

invalid_rate = Metric("invalid_rate", "lower")
"""The share of attempts whose answer is no number, of another task, or outside of what the outcome is declared to be."""
prediction_shift = Metric("prediction_shift", "lower")
"""How far a candidate's answers are spread otherwise than the champion's, on the same questions: 0 to 1."""
disagreement = Metric("disagreement", "lower")
"""The share of questions that a candidate decides otherwise than the champion; of numbers, their mean distance."""
outcome_mean = Metric("outcome_mean", "higher")
"""What came of the questions of one arm of an A/B test, on the mean."""
