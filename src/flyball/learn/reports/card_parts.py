"""Parts of a model card, as blocks: how it was chosen, what it decides, where it is weak, how it fits and what it weighs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from flyball.learn.drawing import page
from flyball.learn.examine.examined import Examined
from flyball.learn.examine.paired import Paired
from flyball.learn.finish import Finish, Sigmoid
from flyball.learn.fit.fitting import Offers
from flyball.learn.knobs import Knob
from flyball.learn.knobs import said as said_of
from flyball.learn.quality.evaluate import Evaluation
from flyball.learn.reports import sheet
from flyball.learn.reports.sheet import Block
from flyball.learn.reports.shown import measured
from flyball.learn.trying.trials import Trial

BEST = 5
"""Trials that are shown."""


class Trials(msgspec.Struct, frozen=True, kw_only=True):
    """How the knobs were chosen.

    Attributes:
        chosen: the knobs of the version.
        counts: state -> trials.
        best: the complete trials with the best scores, the best first.
    """

    chosen: dict[str, Knob]
    metric: str = ""
    counts: dict[str, int] = {}
    best: tuple[Trial, ...] = ()


def search(trials: Trials) -> Iterator[Block | None]:
    """The chosen knobs, and what they were chosen among."""
    if not trials.counts:
        yield sheet.text("No trial is recorded.")
    else:
        how_many = ", ".join(f"{n:,} {state}" for state, n in sorted(trials.counts.items()))
        yield sheet.text(f"Trials: {how_many}; compared by {trials.metric} on rows before the held-out ones.")
    yield sheet.pairs([("chosen", said_of(trials.chosen) if trials.chosen else "it has no knobs")])
    rows = [
        (str(t.number), t.origin, page.number(t.score), said_of(t.knobs)) for t in trials.best if t.score is not None
    ]
    yield sheet.table(("trial", "origin", trials.metric, "knobs"), rows)


def against(paired: Paired | None, rival: str) -> Block | None:
    """Against the champion of then, paired."""
    if paired is None or paired.difference is None:
        return None
    rows = [(f"{paired.loss}, this minus that of {rival}", measured(paired.difference, signed=True), f"{paired.n:,}")]
    if paired.roc_auc is not None:
        auc = paired.roc_auc
        rows.append((f"roc_auc (DeLong p {auc.p:.3f})", measured(auc.difference, signed=True), f"{paired.n:,}"))
    if paired.decisions is not None:
        d = paired.decisions
        said = (
            f"right decisions (McNemar mid-p {d.mid:.3f}; {d.ours:,} only by this one, {d.theirs:,} only by the other)"
        )
        rows.append((said, measured(d.difference, signed=True), f"{d.n:,}"))
    return sheet.table((f"against {rival}", "difference (95 %)", "rows"), rows)


def threshold(finish: Finish) -> Block | None:
    """From which answer on something is decided."""
    if finish.threshold is None:
        return None
    rows = [("all" if not finish.by else f"{finish.by}: others", page.number(finish.threshold))]
    rows += [(f"{finish.by}: {name or '(none)'}", page.number(at)) for name, at in sorted(finish.thresholds.items())]
    return sheet.table(("who", "decided to be true from"), rows)


def calibration(finish: Finish, evaluation: Evaluation) -> str:
    """What is done to a score before it is an answer."""
    if evaluation.quantiles:
        return "Quantiles are put into order." if finish.ascending else ""
    if finish.calibration is None:
        return "Scores are answers as they are: no calibration was learned." if evaluation.shares else ""
    kind = "Platt scaling" if isinstance(finish.calibration, Sigmoid) else "a rising line through points"
    return f"Answers are scores after {kind}, learned on validation rows."


def trust(seen: Examined | None) -> Block | None:
    """Slope and intercept of outcomes on answers: 1 and 0 where the answers hold."""
    rows = [
        (line.of or "answer", measured(line.slope), measured(line.intercept, signed=True), f"{line.n:,}")
        for line in (seen.trust.lines if seen is not None else ())
    ]
    return sheet.table(("of", "slope (1: holds)", "intercept (0: holds)", "rows"), rows)


def worst(seen: Examined | None) -> Iterator[Block | None]:
    """The groups that were found to be answered worse than the rest."""
    if seen is None or seen.worst.why:
        return
    found = seen.worst
    tried = f"{found.candidates:,} groups of {found.columns} columns were searched, and {found.tried} put to the test"
    yield sheet.text(f"{tried} on rows that did not find them; p is corrected for how many.")
    rows = []
    for each in found.slices:
        name = " and ".join(f"{c} = {g}" for c, g in zip(each.columns, each.groups, strict=True))
        apart = measured(each.difference, signed=True)
        rows.append(
            (name, each.worse, page.number(each.loss), page.number(each.rest), apart, f"{each.n:,}", _p(each.p))
        )
    yield sheet.table(("worst groups", "how", seen.loss, "of the rest", "difference (95 %)", "rows", "p"), rows)


def robustness(seen: Examined | None) -> Block | None:
    """What faults in the inputs do to the loss."""
    if seen is None:
        return None
    rows = []
    for p in seen.robust.probes:
        turned = "" if p.flipped is None else f"{p.flipped:.1%}"
        fault, where = f"{p.fault} {p.how}".rstrip(), p.column or "all numbers"
        rows.append((fault, where, page.number(p.before), measured(p.change, signed=True), turned))
    if seen.robust.attack is not None:
        a = seen.robust.attack
        moves = f"{page.number(a.mean)} on average, {page.number(a.most)} at most; chance {page.number(a.chance)}"
        turned = "" if a.flipped is None else f"{a.flipped:.1%}"
        what = f"{a.moved} of {a.columns} numbers, by {a.reach:.0%} of their spread"
        rows.append(("adversarial", what, "", f"an answer moves by {moves}", turned))
    return sheet.table(("fault", "where", f"{seen.loss} before", "change (95 %)", "decisions turned"), rows)


def fit(seen: Examined | None) -> Iterator[Block | None]:
    """Over- or underfit, what more rows would do, and what the seed decides."""
    if seen is None:
        return
    diagnosis, seeds = seen.diagnosis, seen.seeds
    about: list[tuple[str, str]] = [("verdict", diagnosis.verdict)]
    about += [(f"{diagnosis.loss} on training rows", page.number(diagnosis.seen))] if diagnosis.seen is not None else []
    about += (
        [(f"{diagnosis.loss} on held-out rows", page.number(diagnosis.unseen))] if diagnosis.unseen is not None else []
    )
    about += [("difference", measured(diagnosis.gap, signed=True))]
    if seeds.spread is not None:
        about += [("between seeds", f"{page.number(seeds.spread)} ({len(seeds.losses)} refits of {seeds.rows:,} rows)")]
    if seeds.error is not None:
        about += [("standard error of the rows", page.number(seeds.error))]
    yield sheet.pairs(about)
    if diagnosis.curve is not None:
        rows = [(f"{p.rows:,}", page.number(p.seen), page.number(p.unseen)) for p in diagnosis.curve.points]
        yield sheet.table(("trained on rows", f"{diagnosis.loss}, seen", "unseen"), rows)
    why = "; ".join(filter(None, (diagnosis.why, seeds.why)))
    yield sheet.text(f"Not examined: {why}." if why else "")


def exported(offers: Offers | None, predictor: str, timed: Mapping[str, float]) -> Block | None:
    """The forms of the model: exact, or how far from the estimator, or why refused.

    Args:
        timed: form -> microseconds a row.
    """
    rows = []
    for offer in offers.offers if offers is not None else ():
        same = offer.parity
        how = offer.refused or "the estimator itself"
        if same is not None and not offer.refused:
            far = f"differs by {same.max_abs:.2g} at most"
            how = f"{'exact: the same bits' if same.exact else far}, on {same.rows:,} rows"
        stands = "refused" if offer.refused else "answers" if offer.kind == predictor else "shipped"
        micros = f"{timed[offer.kind]:.3g} µs" if offer.kind in timed else ""
        rows.append((offer.kind, stands, how, micros))
    return sheet.table(("form", "", "against the estimator", "one row, as measured then"), rows)


def weight(seen: Examined | None) -> Block | None:
    """What it takes to store."""
    if seen is None or not seen.weight.total:
        return None
    found = seen.weight
    rows = [
        (name, f"{size:,} bytes")
        for name, size in sorted(found.artifacts.items(), key=lambda each: (-each[1], each[0]))
    ]
    rows += [("trees", f"{found.trees:,} with {found.leaves:,} leaves")] if found.trees is not None else []
    return sheet.folded(f"It takes {found.total:,} bytes", sheet.pairs(rows))


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
