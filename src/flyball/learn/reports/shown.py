"""What an evaluation shows, as blocks of a sheet: promises, models side by side, decisions, coverage, groups, fairness.

Used by the report of a training and by the card of a version, so that a number looks the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from flyball._kernel.conditions import Measurement, Metric, Verdict
from flyball.learn.drawing import page
from flyball.learn.fit import mitigation
from flyball.learn.fit.mitigation import Mitigation
from flyball.learn.quality import metrics
from flyball.learn.quality.evaluate import Compared, Evaluation
from flyball.learn.reports import sheet
from flyball.learn.reports.sheet import Block

_HEAD: Final = ("outcome", "promise", "estimate", "95 % interval", "rows", "remark")


def measured(m: Measurement | None, *, signed: bool = False) -> str:
    """An estimate with its interval; "" where there is none."""
    return "" if m is None else f"{page.number(m.estimate, signed=signed)} ({page.span(m, signed=signed)})"


def promises(verdicts: Sequence[Verdict], times: Mapping[str, float]) -> Block | None:
    """What the gates asked for, and how it turned out.

    Args:
        times: `gates.Judged.measured`, which has the numbers of a latency.
    """
    if not verdicts:
        return None
    rows, cells = [], []
    for v in verdicts:
        estimate, interval, n, remark = _verdict_row(v, times)
        marked, said = f"{page.SIGNS[v.outcome]} {v.outcome}", page.el("code", v.condition)
        rows.append([marked, *map(page.md, (v.condition, estimate, interval, n, remark))])
        cells.append([page.badge(v.outcome), said, estimate, interval, _glyph(v), n, remark])
    return Block(page.md_table(_HEAD, rows), page.table([*_HEAD[:4], "", *_HEAD[4:]], cells, "verdicts"))


def _verdict_row(verdict: Verdict, times: Mapping[str, float]) -> tuple[str, str, str, str]:
    """(estimate, interval, rows, remark) as text; a latency's numbers come from what was measured."""
    m, name = verdict.measurement, verdict.condition.split(" ")[0]
    if m is not None:
        signed = ".on(" in verdict.condition
        return page.number(m.estimate, signed=signed), page.span(m, signed=signed), f"{m.n:,}", verdict.reason
    if f"{name}.estimate" in times:
        mid, low, high = (f"{times[f'{name}.{k}'] * 1e3:.3g}" for k in ("estimate", "low", "high"))
        return f"{mid} ms", f"{low} to {high} ms", f"{times[f'{name}.n']:,.0f}", verdict.reason
    return "", "", "", verdict.reason


def _glyph(verdict: Verdict) -> str:
    """The interval as a bar, the estimate as a dot, the threshold as a line, and its good side shaded."""
    m = verdict.measurement
    if m is None:
        return ""
    points = (m.low, m.high, m.estimate, verdict.threshold)
    span = (max(points) - min(points)) or 1.0
    low, mid, high, at = (
        f"{10 + 120 * (x - min(points)) / span:.1f}" for x in (m.low, m.estimate, m.high, verdict.threshold)
    )
    above = " >= " in verdict.condition
    good = page.el("rect", x=at if above else "0", y="2", width=f"{140 - float(at):.1f}" if above else at, height="14")
    shapes = (
        page.el("g", good, class_="good"),
        page.el("line", x1=at, x2=at, y1="2", y2="16", class_="at"),
        page.el("line", x1=low, x2=high, y1="9", y2="9", class_="bar"),
        page.el("circle", cx=mid, cy="9", r="3.5", class_="dot"),
    )
    return page.el("svg", *shapes, viewBox="0 0 140 18", width="140", height="18", class_="glyph", aria_hidden="true")


# Models side by side


def models(evaluation: Evaluation) -> Block | None:
    """The version and its rivals by what suits the outcome; below each number its distance from the version's."""
    return _models(evaluation, metrics.PLAINLY[evaluation.task.kind])


def decisions(evaluation: Evaluation) -> Block | None:
    """The same by what is decided; None where decisions were not measured."""
    return _models(evaluation, metrics.DECISIONS) if evaluation.task.truth else None


def _models(evaluation: Evaluation, suited: Sequence[Metric]) -> Block | None:
    shown = [m for m in suited if any(m.name in c.measurements for c in evaluation.models)]
    if not shown:
        return None
    head = ["model", *(m.name for m in shown)]
    cells = ([page.el("b", c.name), *(_cell(c, m) for m in shown)] for c in evaluation.models)
    rows = ([page.md(c.name), *(_md_cell(c, m) for m in shown)] for c in evaluation.models)
    return Block(page.md_table([page.md(h) for h in head], rows), page.table(head, cells, "models"))


def _md_cell(c: Compared, metric: Metric) -> str:
    apart = c.differences.get(metric.name)
    return measured(c.measurements.get(metric.name)) + (f"<br>{measured(apart, signed=True)}" if apart else "")


def _cell(c: Compared, metric: Metric) -> str:
    m, d = c.measurements.get(metric.name), c.differences.get(metric.name)
    if m is None:
        return ""
    apart = None
    if d is not None:
        ends = (d.low, d.high) if metric.better == "higher" else (-d.high, -d.low)
        # How many are selected, how wide an interval is and how much it covers are better neither way.
        better = metric.name not in _NEITHER
        kind = "up" if better and ends[0] > 0 else "down" if better and ends[1] < 0 else ""
        apart = page.el("small", measured(d, signed=True), class_=f"apart {kind}")
    return page.Markup(
        "".join(filter(None, (page.el("b", page.number(m.estimate)), page.el("small", page.span(m)), apart)))
    )


_NEITHER: Final = frozenset({"selection_rate", "coverage"})


# Groups


def coverage(evaluation: Evaluation) -> Block | None:
    """Of quantiles: the share of outcomes at or below each, against what it promises."""
    rows = []
    for b in evaluation.calibration if evaluation.quantiles else ():
        held = "yes" if b.low <= b.score <= b.high else "no"
        rows.append([f"{b.score:g}", f"{b.outcome:.1%}", f"{b.low:.1%} to {b.high:.1%}", held, f"{b.n:,}"])
    return sheet.table(("quantile", "outcomes at or below it", "95 % interval", "as promised", "rows"), rows)


def groups(evaluation: Evaluation) -> Block | None:
    """Every group of every slice, as numbers."""
    suited = metrics.measurable(evaluation.task.kind)
    names = [m.name for m in suited if any(m.name in g.measurements for g in evaluation.slices)]
    rows = (
        [g.slice, g.group, f"{g.n:,}", *(measured(g.measurements.get(n)) for n in names)] for g in evaluation.slices
    )
    return sheet.folded("The same as numbers", sheet.table(["slice", "group", "rows", *names], rows, "groups"))


def gaps(evaluation: Evaluation) -> Block | None:
    """The greatest differences between groups of protected columns."""
    rows = ([g.slice, g.metric, measured(g.measurement), f"{g.measurement.n:,}"] for g in evaluation.gaps)
    return sheet.table(("protected column", "metric", "greatest gap between groups", "rows"), rows)


def mitigated(told: Mitigation | None) -> Block | None:
    """What was tried to make the model fair, on validation rows, and what each way costs."""
    if told is None:
        return None
    names = list(dict.fromkeys(name for each in told.tried for name in each.measurements))
    rows = []
    for each in told.tried:
        name = "plain model" if each.method == mitigation.PLAIN else each.method
        taken = "taken" if each.method == told.chosen else ""
        passes = "passes" if each.passes else "not shown to pass"
        costs = [measured(each.measurements.get(n)) for n in names]
        rows.append([name, passes, measured(each.gap), *costs, taken])
    return sheet.table(("way", told.until, "gap", *names, ""), rows)


def left_out(evaluation: Evaluation) -> list[str]:
    """What was not measured, and why."""
    said = []
    for x in evaluation.left_out:
        what = " ".join(filter(None, (x.metric, f"{x.slice} {x.group}".strip()))) or "all metrics"
        said.append(f"{what}: {x.why} (n = {x.n:,})")
    return said


def rows_told(evaluation: Evaluation) -> str:
    """How many rows were held out, and what they are like."""
    kind = f"mean outcome {page.number(evaluation.base_rate)}"
    if evaluation.shares:
        kind = f"{evaluation.base_rate:.1%} of them {'of the most frequent class' if evaluation.classes else 'true'}"
    return f"{evaluation.n:,}, {kind}"


def method(evaluation: Evaluation) -> str:
    """How the intervals were made."""
    blocks = evaluation.units < evaluation.n
    what = f"{evaluation.units:,} blocks of rows that share a cause" if blocks else "the held-out rows"
    return (
        f"Intervals are 95 % bootstrap intervals from {evaluation.replicates:,} draws of {what} (seed "
        f"{evaluation.seed}); differences are paired on the same draws, each model minus {evaluation.model}."
    )
