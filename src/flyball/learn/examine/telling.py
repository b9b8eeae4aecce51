"""What matters of an examination, in sentences: for a terminal, and for the model card.

Only what could be told from its interval is said, with the numbers that say it. What was not examined is said once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

from flyball._kernel.conditions import Measurement
from flyball.learn.examine.diagnosis import Diagnosis
from flyball.learn.examine.examined import Examined
from flyball.learn.examine.robust import Probe, Robust
from flyball.learn.examine.seeds import Seeds
from flyball.learn.examine.trust import Line, Trust
from flyball.learn.examine.worst import Slice, Worse, Worst

SLICES = 5
"""Groups that are named."""
LOSSES = {
    "log_loss": "log loss",
    "squared_error": "squared error",
    "pinball_loss": "pinball loss",
    "ranking_loss": "ranking loss (1 - ROC AUC)",
}
FAULTS = {
    "missing": "Without {0}",
    "unseen": "With a category of {0} that training never saw",
    "units": "With {0} in another unit ({1})",
}


def told(found: Examined) -> list[str]:
    """The sentences, the most important ones first: the verdict, weak groups, faults, calibration, seeds."""
    loss = LOSSES[found.loss]
    return [
        *_diagnosis(found.diagnosis, loss),
        *_worst(found.worst, loss),
        *_robust(found.robust, loss),
        *_trust(found.trust),
        *_seeds(found.seeds, loss),
        *_weight(found),
        *_silent(found),
    ]


def _diagnosis(found: Diagnosis, loss: str) -> Iterator[str]:
    if found.seen is None or found.unseen is None:
        return
    numbers = f"{loss} {found.seen:.4g} on training rows, {found.unseen:.4g} on held-out rows"
    if found.skill_seen is not None and found.skill_unseen is not None:
        numbers += f"; that takes away {found.skill_seen:.0%} and {found.skill_unseen:.0%} of a constant answer's"
    verdicts = {
        "underfits": "It underfits",
        "overfits": "It overfits",
        "apart": "It does far worse on held-out rows than on training rows: it overfits, or the world has changed since",
        "more data would help": "More training rows would help",
        "fits": "Neither over- nor underfitting could be told",
        "unknown": "No diagnosis",
    }
    yield f"{verdicts[found.verdict]}: {numbers}."
    curve = found.curve
    if curve is None:
        return
    last = curve.points[-1]
    if curve.boosted is not None and curve.boosted.low > 0:
        better = f"{curve.boosted.estimate:.3g} ({_range(curve.boosted)})"
        yield f"Boosted trees with modest settings have {better} less {loss}, on the same {last.rows:,} rows."
    if curve.gain is not None and len(curve.points) > 1:
        before = curve.points[-2].rows
        end = "" if 2 * last.rows >= curve.of else f"; there are {curve.of:,} rows, and the curve ends here"
        yield (
            f"From {before:,} to {last.rows:,} training rows the {loss} fell by {curve.gain.estimate:.3g} "
            f"({_range(curve.gain)}){end}."
        )


def _worst(found: Worst, loss: str) -> Iterator[str]:
    kinds: dict[tuple[tuple[str, ...], tuple[str, ...]], set[Worse]] = {}
    for each in found.slices:
        kinds.setdefault((each.columns, each.groups), set()).add(each.worse)
    first = {(each.columns, each.groups): each for each in reversed(found.slices)}
    # What is only hard may be nobody's fault; answers that do not admit it are.
    for where in sorted(kinds, key=lambda key: "further off" not in kinds[key])[:SLICES]:
        yield _slice(first[where], kinds[where], loss)
    if found.tried and not found.slices:
        yield (
            f"No group among {found.candidates:,} could be shown to be answered worse than the rest "
            f"({found.tried} were put to the test)."
        )


def _slice(each: Slice, kinds: set[Worse], loss: str) -> str:
    name = " and ".join(f"{c} = {g}" for c, g in zip(each.columns, each.groups, strict=True))
    lean = each.lean
    side = "" if lean is None else "low" if lean.low > 0 else "high" if lean.high < 0 else ""
    how = "is harder than the rest" if "harder" in kinds else "is answered with too little doubt"
    if kinds == {"harder", "further off"}:
        how = "is harder than the rest, and more so than its answers admit"
    return (
        f"{name} {how}: {loss} {each.loss:.4g} against {each.rest:.4g} ({each.share:.0%} of the rows, "
        f"corrected p {_p(each.p)})" + (f"; its answers lie too {side}." if side else ".")
    )


def _robust(found: Robust, loss: str) -> Iterator[str]:
    noise = [p for p in found.probes if p.fault == "noise" and p.change.low > 0]
    if noise:
        most = noise[-1]
        yield f"Noise of {float(most.how):.0%} of the spread of all numbers adds {_rise(most)} to the {loss}."
    for fault, text in FAULTS.items():
        worst = next((p for p in found.probes if p.fault == fault), None)
        if worst is not None and worst.change.low > 0:
            of = found.probed.get(fault, 0)
            others = f", the worst of {of} columns" if of > 1 else ""
            yield f"{text.format(worst.column, worst.how)}{others}, {_rise(worst)} is added to the {loss}."
    if found.attack is not None and found.attack.most > 0:
        a = found.attack
        flips = "" if a.flipped is None else f", and {a.flipped:.0%} of the decisions can be turned"
        yield (
            f"Moving {a.moved} of {a.columns} numbers by {a.reach:.0%} of their spread changes an answer by up to {a.mean:.3g} "
            f"on average (chance: {a.chance:.3g}), {a.most:.3g} at most{flips}."
        )


def _rise(probe: Probe) -> str:
    share = f" (+{probe.change.estimate / probe.before:.0%})" if probe.before > 0 else ""
    return f"{probe.change.estimate:.3g}{share}"


def _trust(found: Trust) -> Iterator[str]:
    for line in found.lines:
        what = f"the answers for {line.of}" if line.of else "its answers"
        if line.slope is not None and (line.slope.high < 1 or line.slope.low > 1):
            side = "too extreme" if line.slope.high < 1 else "too timid"
            yield f"Calibration: {what} are {side}: slope {line.slope.estimate:.2f} ({_range(line.slope)})."
        if line.intercept.low > 0 or line.intercept.high < 0:
            yield _intercept(line, what)


def _intercept(line: Line, what: str) -> str:
    if line.slope is None:
        share = float(line.of) + line.intercept.estimate
        return f"Calibration: {share:.1%} of the outcomes lie at or below the quantile {line.of}, of {line.n:,} rows."
    side = "low" if line.intercept.estimate > 0 else "high"
    return f"Calibration: {what} lie too {side}: intercept {line.intercept.estimate:+.3g} ({_range(line.intercept)})."


def _seeds(found: Seeds, loss: str) -> Iterator[str]:
    if found.spread is None or found.error is None:
        return
    if found.spread == 0 and not found.moved:
        yield "Another seed gives the same model."
        return
    says = (
        "decides less than which rows were held out" if found.steady else "decides more than which rows were held out"
    )
    yield f"The seed {says}: {loss} differs by {found.spread:.2g} between seeds, its standard error is {found.error:.2g}."


def _weight(found: Examined) -> Iterator[str]:
    weight = found.weight
    if weight.total:
        trees = f", {weight.trees:,} trees with {weight.leaves:,} leaves" if weight.trees is not None else ""
        yield f"It weighs {weight.total / 1e6:.3g} MB{trees}."


def _silent(found: Examined) -> Iterator[str]:
    parts = {
        "worst groups": found.worst.why,
        "robustness": found.robust.why,
        "diagnosis": found.diagnosis.why,
        "calibration": found.trust.why,
        "seeds": found.seeds.why,
    }
    missing = [f"{what} ({why})" for what, why in parts.items() if why]
    missing += [f"{o.what} ({o.why})" for o in (*found.robust.omitted, *found.diagnosis.omitted, *found.trust.omitted)]
    if missing:
        yield "Not examined: " + "; ".join(missing) + "."


def _range(measured: Measurement) -> str:
    return f"{measured.low:.3g} to {measured.high:.3g}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
