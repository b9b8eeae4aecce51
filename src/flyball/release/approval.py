"""Approval: a person looked at a version, and said yes or no, with a reason. A gate may wait for that (`fb.approval`).

gates=[..., fb.approval()]                anybody whose key may operate
gates=[..., fb.approval(by="risk")]       whoever uses the key of that name
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from flyball._kernel import facts, place
from flyball._kernel.conditions import Condition, Measurement, Metric
from flyball._kernel.errors import bounded
from flyball._kernel.facts import Projection, Said
from flyball._kernel.ports import Facts

NAME = "approval"
LONGEST = 300
"""Characters of a reason in a verdict; the whole one is in its own fact."""


class Approved(Said, frozen=True, kw_only=True, tag="release.approved"):
    """Somebody said yes or no to a version, while who answers was at this epoch."""

    version: str
    by: str
    reason: str
    yes: bool = True
    epoch: int = 0


APPROVALS = Projection(
    "release.approvals",
    frozenset({facts.kind(Approved)}),
    lambda fact: facts.about(fact, facts.decode(fact, Approved).version, facts.decode(fact, Approved).by),
    lambda _, fact: fact.said,
)
"""(app, model, version, who) -> what that person said last."""


@dataclass(frozen=True, slots=True)
class Word(Metric):
    """What a person says: 1 for yes, 0 for no. It names whose word counts, so that two who must agree are two gates."""

    def __str__(self) -> str:
        return f"{self.name}(by={self.subject[0]})" if self.subject else self.name


def approval(*, by: str = "") -> Condition:
    """A gate that waits for a person: `flyball approve APP VERSION --reason ...`.

    Args:
        by: the name of the key that must say it; anybody who may operate by default.
    """
    metric = Word(NAME, "higher", subject=(by,) if by else ())
    return Condition(metric, ">=", 1.0, None, place.here())


def said(log: Facts, app: str, model: str, version: str) -> list[Approved]:
    """What persons said of a version, each their last word."""
    return [msgspec.json.decode(row, type=Approved) for _, row in log.scan(APPROVALS.name, f"{app}/{model}/{version}/")]


def told(gate: Condition, words: list[Approved], version: str) -> tuple[Measurement | None, str]:
    """What an approval gate compares with its threshold, and why."""
    (wanted,) = gate.metric.subject or ("",)
    heard = [each for each in words if not wanted or each.by == wanted]
    if not heard:
        who = f"{wanted!r}" if wanted else "a person"
        return None, f"waits for {who}: flyball approve APP {version} --reason ..."
    no = [each for each in heard if not each.yes]
    yes = 0.0 if no else 1.0
    return Measurement(estimate=yes, low=yes, high=yes, n=len(heard)), "; ".join(
        f"{each.by}: {bounded(each.reason, LONGEST)}" for each in (no or heard)
    )
