"""Gates: the Conditions of an app, judged on held-out rows before a version may answer anyone.

    plain      roc_auc >= 0.65                                          the metric's own interval against the threshold
    relative   average_precision >= average_precision.on(champion) - 0.01   the paired difference on the same rows
    gap        roc_auc.gap(by=Flight.origin) <= 0.08                    the greatest difference between groups
    latency    model_latency <= ms(2)                                   timed by the caller, on this machine
    elsewhere  expect.rises(...) >= 0.95, model_bytes <= 5e6, approval()  told by the caller

Verdicts are said, so they hold what another run repeats. A latency differs from run to run: its verdict carries the outcome
alone, and its numbers stand beside it in `measured`.
Refused when the app is checked: what held-out rows cannot show, such as live quality, drift or the error rate of a server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flyball._kernel import conditions
from flyball._kernel.conditions import Condition, Measurement, Outcome, Verdict
from flyball._kernel.errors import Bug, DeclarationError
from flyball.data import contract
from flyball.learn import behaviour as behaviours
from flyball.learn import model as models
from flyball.learn.behaviour import Behaviour
from flyball.learn.model import Model
from flyball.learn.quality import evaluate, metrics
from flyball.learn.quality.evaluate import HeldOut
from flyball.learn.quality.metrics import Array, Panel
from flyball.learn.task import Kind

Decision = Literal["release", "held", "rejected"]
ELSEWHERE = frozenset({"approval", "model_bytes"})
"""Metrics of gates that no held-out row can show."""
Told = Mapping[str, tuple[Measurement | None, str]]
"""Gate -> what it compares with its threshold, and what should be said about it."""
MEASURED = "timed on the machine that judged"
FIRST = "no champion yet"
UNDEFINED = "undefined on these rows, or on too many draws of them"

_KNOWN = frozenset(m.name for kind in metrics.PLAINLY for m in metrics.measurable(kind))


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts in the order of the gates, and what was timed (`model_latency.estimate` in seconds, ...)."""

    verdicts: tuple[Verdict, ...]
    measured: Mapping[str, float]

    @property
    def decision(self) -> Decision:
        """What follows from the verdicts."""
        return decision(self.verdicts)


def columns(gates: Sequence[Condition]) -> tuple[str, ...]:
    """The columns whose groups the gates compare: they must be among the slices of the held-out rows."""
    return tuple(dict.fromkeys(g.metric.by for g in gates if g.metric.by is not None))


def check(gates: Sequence[Condition], model: Model) -> None:
    """Refuse gates that nothing held out could ever pass.

    Raises:
        DeclarationError: `model-name-taken`, `gate-not-measurable`, `gates-alike`, `gap-of-unknown-column`,
            `gap-of-personal-column`, and what `behaviour.check` refuses.
    """
    spec = contract.spec(model.question)
    task = models.task(model)
    if model.name in evaluate.RESERVED:
        raise DeclarationError(
            "model-name-taken",
            f"A model is called {model.name!r}, as what every model is compared with.",
            where=model.place,
            why="Its answers would be mistaken for those of the other.",
            next="Give its function a name that says what it predicts.",
        )
    _check_metrics(gates, task.kind)
    _check_names(gates)
    for behaviour in (g.metric for g in gates if isinstance(g.metric, Behaviour)):
        behaviours.check(behaviour, model, task)
    known = {c.name for c in spec.request}
    personal = set(spec.with_role(contract.Personal))
    for gate in gates:
        by = gate.metric.by
        if by is not None and by in personal:
            raise DeclarationError(
                "gap-of-personal-column",
                f"{gate} would name the persons of {spec.name}.{by}.",
                where=gate.place,
                why="Groups are named in verdicts and reports, which hold no personal value.",
                next="Compare groups of many, such as a region or an age band.",
            )
        if by is not None and by not in known:
            raise DeclarationError(
                "gap-of-unknown-column",
                f"{gate} compares groups of {by!r}, which a question to {model.name!r} does not carry.",
                where=gate.place,
                why=f"A request carries {', '.join(sorted(known))}.",
                next=f"Name one of them: {gate.metric.name.removesuffix('.gap')}.gap(by={spec.name}.…).",
            )


def _check_names(gates: Sequence[Condition]) -> None:
    """A verdict, and what is measured for it, are found by the gate's text."""
    first: dict[str, Condition] = {}
    for gate in gates:
        if (other := first.setdefault(str(gate), gate)) != gate:
            raise DeclarationError(
                "gates-alike",
                f"Two gates read {gate}, and are not the same.",
                where=gate.place,
                why=f"Verdicts name a gate by its text; the other one is declared at {other.place}.",
                next="Give them other functions in to=: a lambda has no name of its own.",
            )


def _check_metrics(gates: Sequence[Condition], kind: Kind) -> None:
    fits = {m.name for m in metrics.measurable(kind)}
    for gate in gates:
        metric, name = gate.metric, _plain(gate)
        timed = metric.name == conditions.model_latency.name and gate.whom is None
        shown = name in fits and metric.over is None and metric.name in (name, f"{name}.gap")
        expected = isinstance(metric, Behaviour) and metric.by is None and metric.over is None
        told = (expected or metric.name in ELSEWHERE) and gate.whom is None
        if timed or told or (shown and gate.whom in (None, conditions.champion)):
            continue
        other = "" if name not in _KNOWN or name in fits else " of this outcome"
        raise DeclarationError(
            "gate-not-measurable",
            f"{gate} cannot be measured on held-out rows{other}.",
            where=gate.place,
            why=f"A gate is judged before the version answers, on {', '.join(sorted(fits))}, their gap(by=...) and "
            "on(champion), and model_latency.",
            next="Make it a monitor, or a guard of the release: fb.Release(..., abort_unless=[...]).",
        )


def judge_all(
    gates: Sequence[Condition],
    held_out: HeldOut,
    *,
    champion: Array | str | None = None,
    latency: Measurement | None = None,
    told: Told | None = None,
) -> Judged:
    """Judge every gate on the main model of `held_out`; all of them see the same draws.

    Args:
        gates: what was promised.
        held_out: the rows; `slices` has every column of `columns(gates)`.
        champion: (n,) the scores of the version that answers now, on the same rows (`held_out.decided` has what it decided,
            under "champion"); why it could not be asked about them (its gates are then inconclusive); or None while nobody
            answers (they pass: there is nothing to fall behind).
        latency: seconds for one row, measured by the caller.
        told: what else the caller measured, by the gate as text; what is not there is inconclusive.

    Raises:
        DeclarationError: `gate-not-measurable`.
    """
    _check_metrics(gates, held_out.kind)
    bench = _Bench(gates, held_out, None if isinstance(champion, str) else champion)
    verdicts = []
    measured: dict[str, float] = {}
    for gate in gates:
        if gate.metric.name == conditions.model_latency.name:
            verdicts.append(_timed(gate, latency))
            if latency is not None:
                measured |= {f"{gate.metric.name}.{key}": getattr(latency, key) for key in latency.__struct_fields__}
        elif isinstance(gate.metric, Behaviour) or gate.metric.name in ELSEWHERE:
            found, reason = (told or {}).get(str(gate), (None, "not measured"))
            verdicts.append(conditions.judge(gate, found, reason=reason))
        elif gate.whom is not None and isinstance(champion, str):
            verdicts.append(_verdict(gate, Outcome.INCONCLUSIVE, champion))
        elif gate.whom is not None and champion is None:
            verdicts.append(_verdict(gate, Outcome.PASS, FIRST))
        else:
            found, reason = bench.measure(gate)
            verdicts.append(conditions.judge(gate, found, reason=reason))
    return Judged(tuple(verdicts), measured)


def decision(verdicts: Sequence[Verdict]) -> Decision:
    """`rejected` if one gate failed, `held` if one is inconclusive, else `release`."""
    outcomes = {v.outcome for v in verdicts}
    if Outcome.FAIL in outcomes:
        return "rejected"
    return "held" if Outcome.INCONCLUSIVE in outcomes else "release"


class _Bench:
    """Every panel that the gates need, drawn once."""

    def __init__(self, gates: Sequence[Condition], held_out: HeldOut, champion: Array | None) -> None:
        y = held_out.outcome
        scores, terms = {"": held_out.scores[held_out.main]}, {"": held_out.terms(held_out.main)}
        if champion is not None:
            metrics.check(y, champion)
            name = conditions.champion.name
            scores[name], terms[name] = champion, held_out.terms(name)
        self._reason = metrics.unmeasurable(y, held_out.blocks)
        self._n = len(y)
        self._groups = {by: _grouped(held_out, by) for by in columns(gates)}
        self._panels: dict[tuple[str, str | None, int], Panel] = {}
        needed: dict[tuple[str, str | None], dict[str, None]] = {}
        for gate in gates:
            if _plain(gate) in _KNOWN and not self._reason:
                for version in scores if gate.whom is not None else [""]:
                    needed.setdefault((version, gate.metric.by), {})[_plain(gate)] = None
        for (version, by), names in needed.items():
            spans = [rows for _, rows in self._groups[by][0]] if by is not None else [None]
            for k, rows in enumerate(spans):
                self._panels[version, by, k] = Panel(list(names), y, scores[version], rows, terms[version])
        drawn = metrics.replicate(list(self._panels.values()), held_out.draws)
        self._drawn = dict(zip(self._panels, drawn, strict=True))

    def measure(self, gate: Condition) -> tuple[Measurement | None, str]:
        """What the gate compares with its threshold, and what should be said about it."""
        if self._reason:
            return None, self._reason
        if gate.metric.by is None:
            found = self._whole(gate)
            return found, "" if found is not None else UNDEFINED
        kept, left = self._groups[gate.metric.by]
        # Facts hold no row values, and a group's name is one: the report names them.
        reason = f"groups left out because they are too small to measure: {len(left)}" if left else ""
        if len(kept) < 2:
            return None, "; ".join(filter(None, ("fewer than two groups can be compared", reason)))
        found = self._gap(gate, sum(len(rows) for _, rows in kept))
        return found, "; ".join(filter(None, ("" if found is not None else UNDEFINED, reason)))

    def _whole(self, gate: Condition) -> Measurement | None:
        estimates, values = self._of("", gate)
        name = _plain(gate)
        if gate.whom is not None:
            theirs, theirs_drawn = self._of(gate.whom.name, gate)
            # Without a name: what the interval of one metric corrects for cancels in a difference.
            estimates, values, name = estimates - theirs, values - theirs_drawn, ""
        return metrics.interval(name, float(estimates[0]), values[0], self._n)

    def _gap(self, gate: Condition, n: int) -> Measurement | None:
        estimates, values = self._of("", gate)
        if gate.whom is None:
            return metrics.gap(estimates, values, n)
        theirs, theirs_drawn = self._of(gate.whom.name, gate)
        drawn = np.ptp(values, axis=0) - np.ptp(theirs_drawn, axis=0)
        return metrics.interval("", float(np.ptp(estimates) - np.ptp(theirs)), drawn, n)

    def _of(self, version: str, gate: Condition) -> tuple[Array, Array]:
        """The estimates (k,) and replicates (k, r) of the gate's metric: of each group, or (k = 1) of all rows."""
        keys = [key for key in self._panels if key[0] == version and key[1] == gate.metric.by]
        at = self._panels[keys[0]].names.index(_plain(gate))
        estimates = np.array([self._panels[key].estimates[at] for key in keys])
        return estimates, np.array([self._drawn[key][at] for key in keys])


def _grouped(held_out: HeldOut, by: str) -> tuple[list[tuple[str, evaluate.Rows]], list[evaluate.LeftOut]]:
    if by not in held_out.slices:
        raise Bug("gap-without-slice", f"A gate compares groups of {by!r}, which is not among the held-out columns.")
    return evaluate.grouped(held_out, by)


def _plain(gate: Condition) -> str:
    return gate.metric.name.removesuffix(".gap")


def _timed(gate: Condition, latency: Measurement | None) -> Verdict:
    if latency is None:
        return _verdict(gate, Outcome.INCONCLUSIVE, "not measured")
    return _verdict(gate, conditions.judge(gate, latency).outcome, MEASURED)


def _verdict(gate: Condition, outcome: Outcome, reason: str) -> Verdict:
    return Verdict(condition=str(gate), outcome=outcome, measurement=None, threshold=gate.threshold, reason=reason)
