"""A model card: what is known of a version, from recorded facts and signed artifacts only, on one sheet.

After Mitchell et al., Model Cards for Model Reporting (FAT* 2019): what it is, what it was made of, what was measured and on
whom, where it is weak, what it costs whom, and what nobody looked at. Nothing here is computed anew, so every number can be
traced to an artifact or a fact, which stand at the end. Same card, same bytes. Heavy, as `charts` is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import msgspec

from flyball._kernel.conditions import Outcome, Verdict
from flyball.learn import gates
from flyball.learn.doubts import suspects
from flyball.learn.doubts.suspects import Checked
from flyball.learn.drawing import charts
from flyball.learn.drawing.charts import Figure
from flyball.learn.examine import telling
from flyball.learn.examine.examined import Examined
from flyball.learn.examine.paired import Paired
from flyball.learn.explain import explanation, pictures
from flyball.learn.explain.explanation import Explanation
from flyball.learn.finish import Finish
from flyball.learn.fit.fitting import Offers
from flyball.learn.fit.mitigation import Mitigation
from flyball.learn.quality.evaluate import Evaluation
from flyball.learn.reports import card_parts as parts
from flyball.learn.reports import report, sheet, shown
from flyball.learn.reports.card_parts import Trials
from flyball.learn.reports.sheet import Block, Part, Rendered

FEATURES = 100
"""Features that are named on the sheet; as data a card has all."""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was decided about the version, or said of it by a person: when (UTC), and in words with the reason."""

    at: str
    words: str


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where numbers of the card come from: an artifact by its SHA-256, or facts by their numbers in the log."""

    what: str
    where: str


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """All that is recorded of a version.

    Attributes:
        stands: one sentence: whether it answers, and what its gates said.
        about, data: names and what they stand for, in reading order.
        verdicts, measured: what the gates said last, and the times that were measured then.
        timed: form of the model -> microseconds a row, as measured when it was registered.
        offers: the forms that the model was packed in; None where an earlier release packed it.
        predictor: the form that answers.
        suspects, examined, explanation, mitigation: None where they are not recorded.
        paired, rival: who answered when its gates judged it, on the same rows; None and "" if nobody did.
        looked: how often its held-out rows were looked at.
        decided: approvals, overrides, promotions and falls, oldest first.
        missing: what is not recorded, and why.
        sources: where all of it comes from.
    """

    app: str
    model: str
    version: str
    stands: str
    about: dict[str, str]
    data: dict[str, str]
    features: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    measured: dict[str, float]
    timed: dict[str, float]
    trials: Trials
    evaluation: Evaluation
    finish: Finish
    offers: Offers | None
    predictor: str
    suspects: Checked | None
    examined: Examined | None
    paired: Paired | None
    rival: str
    explanation: Explanation | None
    mitigation: Mitigation | None
    looked: str
    decided: tuple[Decided, ...]
    missing: tuple[str, ...]
    sources: tuple[Source, ...]


def render(card: Card) -> Rendered:
    """The card in both forms, in one to three seconds; most of it are the plots."""
    e, seen = card.evaluation, card.examined
    figures = {f.name: f for f in charts.figures(e)}
    outcome = report.DECISIONS[gates.decision(card.verdicts)][0] if card.verdicts else Outcome.INCONCLUSIVE
    return sheet.render(
        sheet.Sheet(
            f"{card.version}: model card",
            f"{card.app} · {card.model} · {card.version}",
            (outcome, card.stands),
            [
                Part("What it is", [sheet.pairs(card.about.items())]),
                Part("What was promised", [shown.promises(card.verdicts, card.measured)]),
                *_made(card),
                *_measured(card, figures),
                Part("Robustness", [parts.robustness(seen), _some(seen, "robust")]),
                Part("Fit and seeds", parts.fit(seen)),
                Part("Why it answers as it does", [*_explained(card.explanation)]),
                Part("How it is served", [parts.exported(card.offers, card.predictor, card.timed), parts.weight(seen)]),
                Part("What was decided about it", [sheet.table(("when (UTC)", "what"), _decided(card))]),
                Part("How often its test rows were looked at", [sheet.text(card.looked)]),
                Part("Limits", [sheet.items(_limits(card))]),
                Part("Where the numbers come from", [sheet.table(("what", "where"), _sources(card), "sources")]),
            ],
            shown.method(e),
        )
    )


def _made(card: Card) -> Iterator[Part]:
    """What it was made of."""
    told = None
    if card.suspects is not None:
        said = suspects.told(card.suspects)
        told = sheet.items(said or [f"Nothing suspicious in {card.suspects.fit + card.suspects.test:,} rows."])
    more = f" and {len(card.features) - FEATURES} more" if len(card.features) > FEATURES else ""
    features = ", ".join(card.features[:FEATURES]) + more
    yield Part("Its data", [sheet.pairs([*card.data.items(), ("features", features)])])
    yield Part("What is suspicious about its data", [told])
    yield Part("How it was chosen", parts.search(card.trials))


def _measured(card: Card, figures: dict[str, Figure]) -> Iterator[Part]:
    """What was measured on rows that it never saw."""
    e, seen = card.evaluation, card.examined
    ranks = [figures[n] for n in ("roc", "precision-recall", "scores", "errors") if n in figures]
    holds = [figures[n] for n in ("calibration",) if n in figures]
    slices = [figures[n] for n in ("slices",) if n in figures]
    against = parts.against(card.paired, card.rival)
    yield Part("Quality, beside simpler models", [shown.models(e), sheet.pictures(ranks), against])
    yield Part("What it decides", [parts.threshold(card.finish), shown.decisions(e)])
    calibrated = sheet.text(parts.calibration(card.finish, e))
    yield Part("Whether its numbers hold", [calibrated, parts.trust(seen), shown.coverage(e), sheet.pictures(holds)])
    yield Part("Groups", [sheet.pictures(slices), shown.groups(e), *parts.worst(seen)])
    yield Part("Fairness", [shown.gaps(e), shown.mitigated(card.mitigation)])


def _some(seen: Examined | None, what: str) -> Block | None:
    """Why a part of the examination is silent."""
    why = getattr(seen, what).why if seen is not None else ""
    return sheet.text(f"Not examined: {why}." if why else "")


def _explained(found: Explanation | None) -> Iterator[Block | None]:
    if found is None:
        return
    yield sheet.text(explanation.told(found))
    yield sheet.items(explanation.costs(found))
    drawn = pictures.figures(found)
    # A file is named after a column; what is no plain name becomes one, and stays its own.
    names = [f"{k:02}-{re.sub(r'[^A-Za-z0-9_-]', '_', f.name)[:60]}" for k, f in enumerate(drawn)]
    yield sheet.pictures([replace(f, name=name) for f, name in zip(drawn, names, strict=True)])


def _decided(card: Card) -> list[tuple[str, str]]:
    return [(each.at, each.words) for each in card.decided]


def _limits(card: Card) -> list[str]:
    said = [*card.missing, *(f"Not measured: {what}." for what in shown.left_out(card.evaluation))]
    if card.examined is not None:
        said += [each for each in telling.told(card.examined) if each.startswith("Not examined")]
    if card.explanation is not None:
        said += [f"Not explained: {why}." for why in card.explanation.why]
    return said


def _sources(card: Card) -> list[tuple[str, str]]:
    return [(each.what, each.where) for each in card.sources]
