"""What is recorded of a version, gathered for its report and its model card: facts and signed artifacts, nothing else.

The app's code of today is not asked: a card of an old version says what that version was. Every artifact is read under the
digest that the signed manifest names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from flyball._kernel import facts
from flyball._kernel.facts import Said, Stored
from flyball.cycle import artifacts, environment, tested, touched
from flyball.cycle.session import Session
from flyball.cycle.steps import Done
from flyball.learn import finish, held
from flyball.learn.doubts.suspects import Checked
from flyball.learn.examine.examined import Examined
from flyball.learn.examine.paired import Paired
from flyball.learn.explain.explanation import Explanation
from flyball.learn.export import predictor
from flyball.learn.fit import fitting
from flyball.learn.fit.fitting import Offers
from flyball.learn.fit.mitigation import Mitigation
from flyball.learn.quality.evaluate import Evaluation
from flyball.learn.reports import card as cards
from flyball.learn.reports import report
from flyball.learn.reports.card import Card, Decided, Source
from flyball.learn.reports.card_parts import BEST, Trials
from flyball.learn.reports.sheet import Rendered
from flyball.learn.trying import trials
from flyball.release import rollout, version
from flyball.release.approval import Approved
from flyball.release.rollout import Aborted, Advanced, Paused, Promoted, Resumed, RolledBack, Started
from flyball.release.version import Judged, Manifest, Registered, Row

T = TypeVar("T")
_Rollout = Started | Advanced | Promoted | Aborted | RolledBack | Paused | Resumed
READ = (
    "evaluation",
    "suspects.json",
    "examined.json",
    "explanation.json",
    fitting.MITIGATION,
    finish.ARTIFACT,
    fitting.OFFERS,
    held.ARTIFACT,
    "examples",
)
"""The artifacts that a card reads."""
_KINDS = frozenset(facts.kind(each) for each in (Registered, Judged, Done, Approved)) | rollout.ROLLOUTS.kinds


@dataclass
class Trail:
    """The facts that concern a version, and the numbers that were measured beside them.

    Attributes:
        numbers: kind -> sequence numbers of its facts.
        timed: what registering measured; `judged`: what judging it last measured.
    """

    numbers: dict[str, list[int]] = field(default_factory=dict)
    judgement: Judged | None = None
    timed: dict[str, float] = field(default_factory=dict)
    judged: dict[str, float] = field(default_factory=dict)
    decided: list[Decided] = field(default_factory=list)

    def keep(self, fact: Stored) -> None:
        """Note that this fact concerns it."""
        self.numbers.setdefault(fact.kind, []).append(fact.seq)

    def decide(self, fact: Stored, words: str) -> None:
        """Note what it decided."""
        self.keep(fact)
        self.decided.append(Decided(at=f"{fact.at:%Y-%m-%d %H:%M}", words=words))


def trail(session: Session, model: str, name: str) -> Trail:
    """Walk the facts of a model for what concerns one version."""
    found, last = Trail(), 0
    for fact in session.facts.read(kinds=_KINDS, app=session.app.name):
        if fact.model != model:
            continue
        if fact.kind == facts.kind(Registered) and facts.decode(fact, Registered).version == name:
            found.keep(fact)
        elif fact.kind == facts.kind(Judged) and (judged := facts.decode(fact, Judged)).version == name:
            found.judgement, last = judged, fact.tx
            found.decide(fact, f"its gates say {judged.decision}")
        elif fact.kind == facts.kind(Done):
            done = facts.decode(fact, Done)
            if done.step == "gates" and fact.tx == last:
                found.judged = msgspec.json.decode(fact.measured, type=dict[str, float])
            elif done.step == "register" and done.outputs.get("version") == name:
                found.timed = msgspec.json.decode(fact.measured, type=dict[str, float])
        elif fact.kind == facts.kind(Approved) and (word := facts.decode(fact, Approved)).version == name:
            found.decide(fact, f"{word.by} says {'yes' if word.yes else 'no'}: {word.reason}")
        elif fact.kind in rollout.ROLLOUTS.kinds:
            said = msgspec.json.decode(fact.said, type=_Rollout)
            if name in _concerned(said):
                found.decide(fact, rollout.told(said))
    return found


def _concerned(said: Said) -> set[str]:
    """The versions that a decision is about: who comes, and who goes."""
    return {getattr(said, of) for of in ("version", "previous", "to") if hasattr(said, of)} - {""}


# The report of a training


def report_subject(session: Session, name: str) -> report.Subject:
    """What the report of a version is about."""
    manifest = artifacts.load_learned(session, name)
    found = trail(session, manifest.model, name)
    evaluation = _evaluation(session, manifest)
    return report.Subject(
        title=f"{name}: evaluation",
        app=manifest.app,
        model=manifest.model,
        version=name,
        evaluation=evaluation,
        verdicts=found.judgement.verdicts if found.judgement is not None else (),
        lineage={
            **_data(manifest),
            "looked at": looked(session, manifest, evaluation),
            "answers by": manifest.predictor,
        },
        features=artifacts.load_encoder(session, manifest).names,
        params=manifest.knobs,
        measured=found.judged,
        mitigation=_stored(session, manifest, fitting.MITIGATION, Mitigation),
    )


def report_of(session: Session, name: str) -> Rendered:
    """The report of a version, drawn: a second."""
    return report.render(report_subject(session, name))


# The card


def card(session: Session, name: str) -> Card:
    """All that is recorded of a version.

    Raises:
        StateError: `no-such-version`, `signature-broken`, `artifact-changed`.
    """
    manifest = artifacts.load_learned(session, name)
    row = version.find(session.facts, session.app.name, name)
    found = trail(session, manifest.model, name)
    evaluation = _evaluation(session, manifest)
    looks = looked(session, manifest, evaluation)
    chosen, trial_count = _trials(session, manifest, row)
    spans, missing = _spans(session, manifest)
    return Card(
        app=manifest.app,
        model=manifest.model,
        version=name,
        stands=_stands(session, manifest, row),
        about=_about(manifest, row, evaluation),
        data={**_data(manifest), **spans},
        features=tuple(artifacts.load_encoder(session, manifest).names),
        verdicts=tuple(found.judgement.verdicts) if found.judgement is not None else (),
        measured=found.judged,
        timed={name: us for name, us in found.timed.items() if name != "seconds"},
        trials=chosen,
        evaluation=evaluation,
        finish=artifacts.load_finish(session, manifest),
        offers=_stored(session, manifest, fitting.OFFERS, Offers),
        predictor=manifest.predictor,
        suspects=_stored(session, manifest, "suspects.json", Checked),
        examined=_stored(session, manifest, "examined.json", Examined),
        paired=_compared(session, found),
        rival=found.judgement.rival if found.judgement is not None else "",
        explanation=explanation_of(session, manifest),
        mitigation=_stored(session, manifest, fitting.MITIGATION, Mitigation),
        looked=looks,
        decided=tuple(found.decided),
        missing=tuple(_unknown(evaluation) + missing + list(_absent(manifest))),
        sources=tuple(_sources(manifest, row, found, trial_count)),
    )


def _compared(session: Session, found: Trail) -> Paired | None:
    digest = found.judgement.compared if found.judgement is not None else ""
    if not digest or not session.blobs.has(digest):
        return None
    return msgspec.json.decode(session.blobs.get(digest), type=Paired)


def drawn(found: Card) -> Rendered:
    """A card with its plots: some seconds."""
    return cards.render(found)


def write(made: Rendered, folder: Path, name: str) -> Path:
    """Write a document and its figures into a folder; returns the HTML file."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in made.files(name).items():
        (folder / file).write_bytes(data)
    return folder / f"{name}.html"


def _about(manifest: Manifest, row: Row, evaluation: Evaluation) -> dict[str, str]:
    task = evaluation.task
    among = f" ({', '.join(task.classes or map(str, task.quantiles))})" if task.width > 1 else ""
    versions = (f"{name} {value}" for name, value in environment.plain(manifest.environment).items())
    return {
        "predicts": f"{_KINDS_TOLD[task.kind]}{among}",
        "registered": f"{row.registered:%Y-%m-%d %H:%M} UTC",
        "answers by": manifest.predictor,
        "code": f"commit {manifest.commit}" if manifest.commit else "in no repository",
        "environment": ", ".join(versions),
    }


def _unknown(evaluation: Evaluation) -> list[str]:
    said = ["What its columns and its outcome mean, and whom it is meant for, is said by the app, not recorded here."]
    if "cost" in evaluation.measurements:
        said.append("What each false decision costs is declared by the app; recorded is what all of them came to.")
    return said


_KINDS_TOLD = {
    "binary": "whether something is true: a probability",
    "multiclass": "one of several classes: a probability each",
    "regression": "a number",
    "quantile": "quantiles of a number",
    "anomaly": "how unusual something is: the share of training rows that were more usual",
}


def _stands(session: Session, manifest: Manifest, row: Row) -> str:
    """Whether it answers now, and what its gates said."""
    now, name = rollout.now(session.facts, session.app.name, manifest.model), manifest.version
    judged = report.DECISIONS[row.decision][1] if row.decision else "Its gates have not judged it."
    if name == now.champion:
        answers = f"It answers since {now.since:%Y-%m-%d %H:%M} UTC." if now.since is not None else "It answers."
    elif name == now.candidate:
        answers = f"It is on its way: {now.stages[now.stage]}."
    elif name in now.held:
        answers = f"It fell: {now.held[name]}."
    else:
        answers = "It does not answer."
    return f"{judged} {answers}"


def _data(manifest: Manifest) -> dict[str, str]:
    snap = manifest.snapshot
    return {
        "learned from": ", ".join(f"{table} up to batch {batch}" for table, batch in snap.batches.items()),
        "known before": f"{snap.cutoff:%Y-%m-%d %H:%M} UTC",
        "tested on": f"questions asked {manifest.tested_from:%Y-%m-%d} to {manifest.tested_until:%Y-%m-%d}",
    }


def _spans(session: Session, manifest: Manifest) -> tuple[dict[str, str], list[str]]:
    """Which rows trained it and which tested it; and why that is not known."""
    learned = tested.learned(session, manifest)
    if learned is None:
        return {}, [
            "Its examples held rows that were erased, so they are gone: how many trained it is not known any more."
        ]
    examples, rows = learned
    said = {}
    for what, mask in (("trained on rows", rows.fit), ("held-out rows", rows.test)):
        asked = examples.asked.filter(mask)
        said[what] = f"{len(asked):,}, asked {str(asked.min())[:10]} to {str(asked.max())[:10]}"
    neither = len(examples.asked) - int((rows.fit | rows.test).sum())
    counts = examples.counts
    said["rows in neither"] = f"{neither:,} (embargo, or another group)" if neither else ""
    said["not learned from"] = f"{counts.void:,} void, {counts.unsettled:,} not settled, {counts.unaskable:,} unaskable"
    return said, []


def _trials(session: Session, manifest: Manifest, row: Row) -> tuple[Trials, int]:
    found = list(trials.rows(session.facts, session.app.name, manifest.model, row.search)) if row.search else []
    complete = [each for each in found if each.trial.state == "complete" and each.trial.score is not None]
    higher = bool(found) and found[0].higher
    best = sorted(complete, key=lambda each: (_score(each, higher=higher), each.trial.number))
    return Trials(
        chosen=manifest.knobs,
        metric=found[0].metric if found else "",
        counts=dict(Counter(each.trial.state for each in found)),
        best=tuple(each.trial for each in best[:BEST]),
    ), len(found)


def _score(row: trials.Row, *, higher: bool) -> float:
    score = row.trial.score or 0.0
    return -score if higher else score


def looked(session: Session, manifest: Manifest, evaluation: Evaluation) -> str:
    """How often its held-out rows were looked at, up to now; and what luck may owe to it."""
    scanned = session.facts.scan(touched.TOUCHED.name, f"{session.app.name}/{manifest.model}/")
    mine = [each for _, row in scanned if (each := msgspec.json.decode(row, type=touched.Look)).by == manifest.version]
    if not mine:
        return "No look at its held-out rows is recorded."
    look = touched.Touched(
        by=mine[-1].by, since=mine[-1].since, until=mine[-1].until, rows=mine[-1].rows, n=evaluation.n
    )
    count = touched.counted(session, manifest.model, look)
    # The look that was recorded with the last judgement is this one.
    count = msgspec.structs.replace(count, again=max(0, count.again - 1))
    if count.looks == 1:
        return "Its held-out rows were looked at once: when its gates judged it."
    row = version.find(session.facts, session.app.name, manifest.version)
    tried = next(trials.rows(session.facts, session.app.name, manifest.model, row.search), None) if row.search else None
    return touched.told(count, evaluation.measurements.get(tried.metric) if tried is not None else None)


def _evaluation(session: Session, manifest: Manifest) -> Evaluation:
    return msgspec.json.decode(session.blobs.get(manifest.artifacts["evaluation"]), type=Evaluation)


def _stored(session: Session, manifest: Manifest, name: str, type_: type[T]) -> T | None:
    digest = manifest.artifacts.get(name)
    return msgspec.json.decode(session.blobs.get(digest), type=type_) if digest is not None else None


def explanation_of(session: Session, manifest: Manifest) -> Explanation | None:
    """What was stored of what a version makes of its features."""
    return _stored(session, manifest, "explanation.json", Explanation)


def answering(manifest: Manifest) -> str:
    """The artifact that answers."""
    return predictor.ARTIFACTS[msgspec.convert(manifest.predictor, type=predictor.Kind)]


def _absent(manifest: Manifest) -> Iterator[str]:
    for name, what in (
        ("suspects.json", "what is suspicious about its data"),
        ("examined.json", "an examination"),
        ("explanation.json", "an explanation"),
    ):
        if name not in manifest.artifacts:
            yield f"Not recorded, since an earlier release trained it: {what}."


def _sources(manifest: Manifest, row: Row, found: Trail, trial_count: int) -> Iterator[Source]:
    yield Source(what="the signed manifest", where=f"SHA-256 {row.manifest}")
    for name in READ:
        if name in manifest.artifacts:
            yield Source(what=name, where=f"SHA-256 {manifest.artifacts[name]}")
    for kind, numbers in sorted(found.numbers.items()):
        yield Source(what=kind, where=f"facts {', '.join(map(str, numbers))}")
    if trial_count:
        yield Source(what="learn.tried", where=f"{trial_count:,} facts of the search {row.search[:12]}")
    yield Source(what="history", where=f"transaction {manifest.head.tx}, trace {manifest.head.trace}")
