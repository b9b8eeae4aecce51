"""An evaluation as something to read: one Markdown file with figures, and one HTML file that needs nothing else.

First what was promised and how it turned out, then the models side by side, what is decided, how the version ranks and how its
probabilities hold, where it is weak, what it does to groups, and what it was made from.

How it looks, and that text from outside cannot act, is `page`'s. Same input, same bytes: nothing here holds a time, a random
id or a counter. Heavy, as `charts` is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flyball._kernel.conditions import Outcome, Verdict
from flyball.learn import gates
from flyball.learn.drawing import charts
from flyball.learn.fit.mitigation import Mitigation
from flyball.learn.quality.evaluate import Evaluation
from flyball.learn.reports import sheet, shown
from flyball.learn.reports.sheet import Part

DECISIONS: Final[Mapping[str, tuple[Outcome, str]]] = {
    "release": (Outcome.PASS, "Every gate passed."),
    "held": (Outcome.INCONCLUSIVE, "Held: the data cannot settle every gate."),
    "rejected": (Outcome.FAIL, "Rejected: a gate failed."),
}

Rendered = sheet.Rendered


@dataclass(frozen=True, slots=True)
class Subject:
    """What a report is about, as its caller says it.

    Attributes:
        lineage: what the version was made from, in reading order: "trained on" -> "2013-01-01 to 2013-06-30", ...
        params: the chosen knobs.
        measured: `gates.Judged.measured`.
        mitigation: what was tried to make it fair; None where nothing had to be.
    """

    title: str
    app: str
    model: str
    version: str
    evaluation: Evaluation
    verdicts: Sequence[Verdict]
    lineage: Mapping[str, str] = field(default_factory=dict)
    features: Sequence[str] = ()
    params: Mapping[str, object] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    mitigation: Mitigation | None = None


def files(rendered: Rendered) -> dict[str, bytes]:
    """File name -> bytes: `report.md`, `report.html` and the figures."""
    return rendered.files("report")


def render(subject: Subject) -> Rendered:
    """Render a report, in about a second; most of it is the first plot."""
    e = subject.evaluation
    figures = charts.figures(e)
    slices = [f for f in figures if f.name == "slices"]
    parts = [
        Part("What was promised", [shown.promises(subject.verdicts, subject.measured)]),
        Part("Models compared", [shown.models(e)]),
        Part("What is decided", [shown.decisions(e)]),
        Part("How it answers", [sheet.pictures([f for f in figures if f.name != "slices"]), shown.coverage(e)]),
        Part("Where it is strong, where weak", [sheet.pictures(slices), shown.groups(e)]),
        Part("What it does to groups", [shown.gaps(e), shown.mitigated(subject.mitigation)]),
        Part("Not measured", [sheet.items(shown.left_out(e))]),
        Part("What it was made from", [sheet.pairs(_lineage(subject))]),
    ]
    lead = DECISIONS[gates.decision(subject.verdicts)] if subject.verdicts else None
    over = f"{subject.app} · {subject.model} · {subject.version}"
    return sheet.render(sheet.Sheet(subject.title, over, lead, parts, shown.method(e)))


def _lineage(subject: Subject) -> list[tuple[str, str]]:
    return [
        ("version", subject.version),
        *subject.lineage.items(),
        ("held-out rows", shown.rows_told(subject.evaluation)),
        ("features", ", ".join(subject.features)),
        ("knobs", ", ".join(f"{k} = {v}" for k, v in subject.params.items())),
    ]
