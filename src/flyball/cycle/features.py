"""The features of an app: what each is and reads, who uses it, what it costs and is worth; and what nobody uses.

A feature is told from another by its fingerprint, as `plan` tells it: two models that declare the same share it, and a version
uses it if it was trained on that very definition. Worth and stored bytes are those of the version that answers; where none
does, of the last one that was registered.

**Nobody uses** a feature that stands in a loaded module in the folder of the app file (a value of its own, in a set, or in a
model that the app does not run) and is read by no model of the app; nor a series of the online store that no feature reads.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec
import polars as pl

from flyball import app as apps
from flyball._kernel import fingerprint
from flyball._kernel.conditions import Measurement
from flyball._kernel.errors import StateError
from flyball.app import App
from flyball.cycle import artifacts, causes, erasures, feature_costs, tested
from flyball.cycle.feature_costs import Cost, Fresh
from flyball.cycle.session import Event, Session, Tell
from flyball.data import contract
from flyball.data.contract import Contract
from flyball.learn import examples as building
from flyball.learn import gates, split
from flyball.learn import model as models
from flyball.learn.examples import Examples
from flyball.learn.features import online
from flyball.learn.features.declare import Called, Computed, Feature, FeatureSet, Given, Latest, Text, Window
from flyball.learn.fit import fold
from flyball.learn.model import Model
from flyball.learn.quality import metrics
from flyball.learn.quality import worth as worths
from flyball.learn.quality.measures import Terms
from flyball.release import rollout, version
from flyball.release.rollout import Rollout
from flyball.release.version import Manifest

KINDS: dict[type, str] = {
    Given: "given",
    Computed: "computed",
    Text: "text",
    Called: "function",
    Latest: "latest",
    Window: "window",
}


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """A column that a feature comes from, and as what."""

    column: str
    role: Literal["value", "entity", "time"]


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A model that reads a feature, and those of its versions that were trained on it as it is declared now.

    Attributes:
        champion, candidate: "" where they are not among them.
    """

    model: str
    versions: list[str]
    champion: str
    candidate: str


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of a model.

    Attributes:
        version: its fingerprint.
        tells: what its worth says: it holds zero where it says nothing.
    """

    name: str
    kind: str
    outputs: list[str]
    owner: str
    reason: str
    version: str
    reads: list[Read]
    used_by: list[Use]
    cost: Cost
    fresh: Fresh | None
    worth: Measurement | None
    tells: worths.Tells | None


class ModelFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """The features of one model.

    Attributes:
        version: whose worth and bytes these are; "" where there is none.
        metric: what worth is a drop of.
        why: why some worth is not told; "" where all is.
    """

    model: str
    version: str
    metric: str
    why: str
    features: list[Line]


class Unused(msgspec.Struct, frozen=True, kw_only=True):
    """A declared feature that no model of the app reads."""

    name: str
    kind: str
    where: str
    owner: str
    reason: str


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A series of the online store that no declared feature reads; bytes of its content."""

    series: str
    bytes: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    app: str
    models: list[ModelFeatures]
    unused: list[Unused]
    series: list[Series]


@dataclass(frozen=True)
class _Known:
    """A model with what is known of its versions.

    Attributes:
        now: cause -> fingerprint of its features as they are declared.
        manifests: of the versions whose signature holds, oldest first.
        registered: versions, those included whose signature does not hold.
        judged: the version that answers, else the last one; None where there is none.
    """

    model: Model
    now: Mapping[str, str]
    manifests: Sequence[Manifest]
    registered: int
    rollout: Rollout
    judged: Manifest | None

    @property
    def same(self) -> list[Feature]:
        """The features that the judged version was trained on as they are declared."""
        trained = self.judged.causes["examples"] if self.judged is not None else {}
        return [f for f in self.model.features.features if trained.get(_cause(f)) == self.now[_cause(f)]]


def features(session: Session, name: str | None, tell: Tell, *, worth: bool = True) -> Report:
    """Look at the features of all models, or of one.

    Args:
        name: the model; None: all.
        worth: whether to measure what each is worth, which takes the version's answers to its held-out questions some ten
            times a feature.

    Raises:
        DeclarationError: `no-such-model`, and what `app.check` refuses.
    """
    apps.check(session.app)
    chosen = [session.app.model(name).name] if name is not None else [m.name for m in session.app.models]
    known = {model.name: _known(session, model) for model in session.app.models}
    sizes = session.online.sizes()
    read = {s for model in session.app.models for s in online.names(model.features)}
    found = []
    for each in (known[n] for n in chosen):
        tell(Event(step=each.model.name, state="run", detail="what its features cost"))
        examples, lost = _examples(session, each)
        costs = feature_costs.costs(session, each.model, _same_columns(each, examples), sizes)
        measured: dict[str, Measurement | None] = {}
        why = "not asked for"
        if worth:
            tell(Event(step=each.model.name, state="run", detail="what its features are worth"))
            measured, why = _worth(session, each, examples) if examples is not None else ({}, lost)
        found.append(
            ModelFeatures(
                model=each.model.name,
                version=each.judged.version if each.judged is not None else "",
                metric=session.app.search.optimize.name,
                why=why,
                features=[
                    _line(session, each, f, costs[f.name], measured.get(f.name), known.values())
                    for f in each.model.features.features
                ],
            )
        )
    return Report(
        app=session.app.name,
        models=found,
        unused=unread(_folder(session.app), [m.features for m in session.app.models]),
        series=[Series(series=s, bytes=size) for s, size in sorted(sizes.items()) if s not in read],
    )


def _line(
    session: Session, own: _Known, f: Feature, cost: Cost, worth: Measurement | None, known: Iterable[_Known]
) -> Line:
    return Line(
        name=f.name,
        kind=KINDS[type(f)],
        outputs=[o.name for o in f.outputs(own.model.question)],
        owner=f.owner,
        reason=f.reason,
        version=own.now[_cause(f)],
        reads=lineage(f, own.model.question),
        used_by=[use for each in known if (use := _use(f, own.now[_cause(f)], each)) is not None],
        cost=cost,
        fresh=feature_costs.fresh(session, f),
        worth=worth,
        tells=worths.tells(worth) if worth is not None else None,
    )


def lineage(feature: Feature, question: type[Contract]) -> list[Read]:
    """The columns that a feature comes from, each once a role: values, entities on both sides, and the times that decide
    what was known when.
    """
    asks = contract.spec(question).title
    found: list[tuple[str, str, Literal["value", "entity", "time"]]] = []
    match feature:
        case Given():
            found.append((asks, feature.name, "value"))
        case Computed():
            found += [(asks, name, "value") for name in sorted(feature.expression.columns)]
        case Called():
            found += [(asks, name, "value") for name in feature.reads]
        case Latest() | Window():
            spec = contract.spec(feature.table)
            values = feature.columns if isinstance(feature, Latest) else tuple(sorted(feature.value.columns))
            times = (spec.event_time, *((spec.outcome_time,) if spec.outcome_time and set(values) & spec.late else ()))
            found += [(spec.title, name, "value") for name in values]
            found += [(asks, name, "entity") for name in feature.by.question]
            found += [(spec.title, name, "entity") for name in feature.by.table]
            found += [(spec.title, name, "time") for name in times]
    return [Read(column=f"{table}.{name}", role=role) for table, name, role in dict.fromkeys(found)]


# Who uses it


def _cause(feature: Feature) -> str:
    return f"feature {feature.name}"


def _known(session: Session, model: Model) -> _Known:
    manifests, rows = [], version.versions(session.facts, session.app.name, model.name)
    for row in rows:
        # What is not signed by us says nothing about what it was trained on; `flyball status` names it.
        with suppress(StateError):
            manifests.append(version.read(session.app.name, row, session.blobs, session.signer))
    now = rollout.now(session.facts, session.app.name, model.name)
    judged = [m for m in manifests if m.version == now.champion] or manifests[-1:]
    declared = fingerprint.parts(causes.of_features(model))
    return _Known(model, declared, manifests, len(rows), now, judged[0] if judged else None)


def _use(feature: Feature, fingerprinted: str, each: _Known) -> Use | None:
    if each.now.get(_cause(feature)) != fingerprinted:
        return None
    versions = [m.version for m in each.manifests if m.causes["examples"].get(_cause(feature)) == fingerprinted]
    return Use(
        model=each.model.name,
        versions=versions,
        champion=each.rollout.champion if each.rollout.champion in versions else "",
        candidate=each.rollout.candidate if each.rollout.candidate in versions else "",
    )


def unread(folder: Path, sets: Iterable[FeatureSet]) -> list[Unused]:
    """The features that stand in loaded modules under a folder and that are in none of these sets, whatever their names."""
    read = [_nameless(f) for each in sets for f in each.features]
    found: list[Unused] = []
    # One that says why it is there speaks for its equals.
    for name, feature in sorted(_declared(folder), key=lambda each: not each[1].reason):
        if _nameless(feature) not in read:
            read.append(_nameless(feature))  # told once, however many modules import it
            found.append(
                Unused(
                    name=feature.name or name,
                    kind=KINDS[type(feature)],
                    where=str(feature.place),
                    owner=feature.owner,
                    reason=feature.reason,
                )
            )
    return sorted(found, key=lambda each: each.where)


def _folder(app: App) -> Path:
    return Path(app.place.file).resolve().parent


def _declared(folder: Path) -> Iterator[tuple[str, Feature]]:
    """Every feature that a module under a folder holds, and under which of its names."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or "site-packages" in file or not Path(file).resolve().is_relative_to(folder):
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, Feature):
                yield name, value
            elif isinstance(value, FeatureSet | Model):
                held = value if isinstance(value, FeatureSet) else value.features
                yield from ((f.name, f) for f in held.features)


def _nameless(feature: Feature) -> Feature:
    """A definition whatever its name: `latest(...)` has none until a set gives it one."""
    return feature if isinstance(feature, Given) else replace(feature, name="")


# What it is worth


def _examples(session: Session, each: _Known) -> tuple[Examples | None, str]:
    """The examples of the judged version; where there are none, also why."""
    if each.judged is None:
        return None, "no version can be read" if each.registered else "no version was registered yet"
    if "examples" not in each.judged.artifacts:
        return None, f"{each.judged.version} was adopted, and not trained here"
    digest = each.judged.artifacts["examples"]
    if not session.blobs.has(digest) and erasures.holds_frame(session, digest):
        return None, f"the examples of {each.judged.version} held rows that were erased, so they are gone"
    try:
        return building.from_bytes(session.blobs.get(digest)), ""
    except StateError as problem:
        return None, problem.what  # an artifact that is broken; what the features are can be told without it


def _same_columns(each: _Known, examples: Examples | None) -> pl.DataFrame | None:
    if examples is None:
        return None
    same = {o.name for f in each.same for o in f.outputs(each.model.question)}
    return examples.frame.select(n for n in examples.features if n in same)


def _worth(session: Session, each: _Known, examples: Examples) -> tuple[dict[str, Measurement | None], str]:
    """The worth of the features that the judged version was trained on as they are declared, and why of others none is told."""
    judged = each.judged
    assert judged is not None  # noqa: S101 - it has examples
    try:
        encoder, predictor = artifacts.load_encoder(session, judged), artifacts.load_predictor(session, judged)
    except StateError as problem:
        return {}, problem.what
    held = tested.masks(session, judged, examples).test
    frame, terms = examples.frame.filter(pl.Series(held)), Terms(quantiles=models.task(each.model).quantiles)
    matrix = fold.sample(encoder, frame)
    days = split.days(frame["_asked"])[: len(matrix)]
    rows = worths.Rows(matrix, examples.labels[held][: len(matrix)], days, terms)
    columns = dict(encoder.groups)
    places = {f.name: [i for o in f.outputs(each.model.question) for i in columns[o.name]] for f in each.same}
    changed = sorted({f.name for f in each.model.features.features} - places.keys())
    found = worths.worth(predictor.batch, rows, places, session.app.search.optimize)
    reasons = [f"{', '.join(changed)} changed since {judged.version} was trained"] if changed else []
    if None in found.values():
        reasons.append(metrics.unmeasurable(rows.outcome, rows.blocks) or gates.UNDEFINED)
    return found, "; ".join(reasons)
