"""Always: what every rollout is guarded by, whatever its release declares; and what a stage needs besides its time.

A release that says nothing must not let a version stay that fails. So two shares are always limited to `FAULTS`: attempts that
gave no answer, and answers that cannot be right. Neither is a proof that a version is sound, which takes hundreds of questions:
they abort when they are sure, and never hold a version up. A looser one that is declared (`error_rate <= 0.5`) takes the
place of its default. Nothing is said of a question that the other version failed at as well: it is not the candidate's fault.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

import polars as pl

from flyball._kernel import conditions
from flyball._kernel import metrics as named
from flyball._kernel.clock import micros
from flyball._kernel.conditions import Measurement, Outcome, Verdict
from flyball.data.interval import wilson
from flyball.release.policy import Release
from flyball.release.rollout import Step
from flyball.watch.live import OWN, Live

FAULTS = 0.02
"""The share of attempts that may fail, and of answers that may be invalid, where nothing is declared."""
LATELY = timedelta(hours=1)
"""What is looked at by itself, beside all of it."""
FEW = 20
"""Attempts below which nothing is said."""
INVALID = ("answer-not-finite", "answer-of-another-task")
"""Failures that are answers which cannot be right."""
SUM = 1e-3
"""By which the chances of all classes may miss one."""


def sound(
    live: Live, version: str, other: str, start: datetime, now: datetime, declared: Collection[str] = ()
) -> Iterator[Verdict]:
    """The guards that nobody declared: fail when they are sure, and else pass.

    They look at all that was asked since `start`, and once more at what was `LATELY`: else a day in which it was sound would
    cover for who turns bad.

    Args:
        other: who is asked the same, and whose faults at a question excuse the version's own.
        declared: names of the metrics that the release guards itself, and as strictly.
    """
    names = [m.name for m in (conditions.error_rate, named.invalid_rate) if m.name not in declared]
    if not names:
        return
    own = pl.col("role").is_in(OWN)
    rows, others = (live.frame(each, start, now, now).filter(own) for each in (version, other))
    lately = pl.col("asked") >= micros(now - LATELY)
    for name in names:
        bad = pl.col("failed") != "" if name == conditions.error_rate.name else impossible(live, version)
        shared = others.filter((pl.col("failed") != "") | bad).select("asked", "key")
        tried = rows.join(shared, on=("asked", "key"), how="anti")
        spans = [_limited(name, each.filter(bad).height, each.height) for each in (tried, tried.filter(lately))]
        yield max(spans, key=lambda verdict: verdict.outcome is Outcome.FAIL)


def looser(release: Release) -> set[str]:
    """The metrics of which a release declares that more may fail than `FAULTS`: that is then what counts."""
    return {
        g.metric.name.removesuffix(".live") for g in release.abort_unless if g.whom is None and g.threshold > FAULTS
    }


def impossible(live: Live, version: str) -> pl.Expr:
    """Whether an attempt gave an answer that cannot be right: no number, of another task, or outside of `live.bounds`."""
    low, high = live.bounds
    within = pl.col("output").is_between(low, high)
    reference = live.references.get(version)
    if reference is not None and reference.says is not None and reference.says.task.width > 1:
        task, numbers = reference.says.task, pl.col("outputs").list
        within &= (numbers.len() == task.width) & (numbers.min() >= low) & (numbers.max() <= high)
        if task.classes:
            within &= (numbers.sum() - 1).abs() <= SUM
    # A null is no reason to doubt.
    return pl.col("failed").is_in(INVALID) | ((pl.col("failed") == "") & ~within.fill_null(value=True))


def _limited(name: str, bad: int, n: int) -> Verdict:
    condition = f"{name} <= {FAULTS:g} (every rollout has it)"
    if n < FEW:
        return Verdict(condition=condition, outcome=Outcome.PASS, measurement=None, threshold=FAULTS)
    low, high = wilson(bad, n)
    found = Measurement(estimate=bad / n, low=low, high=high, n=n)
    outcome = Outcome.FAIL if low > FAULTS else Outcome.PASS
    return Verdict(condition=condition, outcome=outcome, measurement=found, threshold=FAULTS)


def enough(live: Live, version: str, step: Step, began: datetime, now: datetime) -> Iterator[Verdict]:
    """Whether a stage has seen as much as it asks for: what it gave to callers; of a shadow, what it computed."""
    if not (step.at_least or step.outcomes):
        return
    role = "canary" if step.share else "shadow"
    rows = live.frame(version, began, now, now).filter(role=role, failed="")
    came = rows.filter(pl.col("outcome").is_not_null() | pl.col("label").is_not_null()).height
    for wanted, seen, what in ((step.at_least, rows.height, "answers"), (step.outcomes, came, "outcomes of them")):
        if wanted:
            yield Verdict(
                condition=f"at least {wanted:,} {what} in {step.name}",
                outcome=Outcome.PASS if seen >= wanted else Outcome.INCONCLUSIVE,
                measurement=None,
                threshold=float(wanted),
                reason=f"{seen:,} so far",
            )
