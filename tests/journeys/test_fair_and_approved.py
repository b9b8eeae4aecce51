"""A plain model that is not fair, the mitigation that makes it so, the person who must agree, and the group's threshold in
every answer: from rows in a file to what a caller is told.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import msgspec
import numpy as np
import polars as pl
import pytest
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import metrics
from flyball._kernel.conditions import Outcome, Verdict
from flyball._kernel.errors import DeclarationError
from flyball.cycle import answering, apply, artifacts, operate, rival, why
from flyball.cycle.session import Session
from flyball.cycle.work import Work
from flyball.learn.examples import Counts, Examples
from flyball.learn.features.declare import FeatureSet
from flyball.learn.fit import fitting
from flyball.learn.fit.mitigation import Mitigation, reweighing
from flyball.learn.model import Model
from flyball.learn.quality.evaluate import Evaluation
from flyball.release import rollout, version
from flyball.serve.journal import Settings
from flyball.serve.plan import attempt, question
from tests.live import live
from tests.loops import START, Process, World

DAYS = 60


class Person(fb.Contract):
    """Somebody who asks for credit."""

    person = dy.String(primary_key=True)
    came = fb.event_time(dy.Datetime(time_zone="UTC"))
    income = dy.Float64()
    sex = fb.protected(dy.Enum(["f", "m"]))
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    repaid = fb.outcome(dy.Bool(nullable=True))


def plain(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


def credit(features: FeatureSet, **declared: Any) -> Model:
    @fb.model(features, predicts=Person.repaid, asked=fb.before(Person.came, fb.hours(0)), **declared)
    def credit() -> LGBMClassifier:
        return LGBMClassifier(num_leaves=6, n_estimators=10, n_jobs=1, verbose=-1)

    return credit


FEATURES = fb.features(Person.income, Person.sex)
FAIR = metrics.selection_rate.gap(by=Person.sex) <= 0.25
RISK = fb.approval(by="risk")


def app(model: Model, *gates: Any) -> fb.App:
    return fb.App(
        "bank",
        sources=[fb.files("people.csv", prepare=plain, yields=Person)],
        model=model,
        search=fb.search(trials=1, optimize=fb.roc_auc, split=fb.by_time(fb.days(15))),
        gates=[fb.roc_auc >= 0.6, *gates],
    )


PLAIN = app(credit(FEATURES), FAIR)
MITIGATED = app(credit(FEATURES, mitigate=fb.mitigate(FAIR)), FAIR, metrics.model_bytes <= 1e6, RISK, fb.approval())


def people(a_day: int = 30) -> pl.DataFrame:
    """Income says much about repaying, and sex says more than it should."""
    chance, rows = random.Random(3), []
    for n in range(DAYS * a_day):
        came = START - timedelta(days=DAYS) + timedelta(days=1) * n / a_day
        sex, income = chance.choice("fm"), chance.gauss(0, 1)
        likely = 1 / (1 + 2.718 ** -(2 * income + (1.5 if sex == "m" else -1.5)))
        settled = came + timedelta(hours=6)
        rows.append((f"p{n}", came, income, sex, settled, chance.random() < likely))
    names = ["person", "came", "income", "sex", "settled", "repaid"]
    return pl.DataFrame(rows, schema=names, orient="row", schema_overrides={"sex": pl.Enum(["f", "m"])})


@pytest.fixture(scope="module")
def world() -> World:
    """The plain model is rejected, and the mitigated one waits for two words."""
    world = World(frames={"people.csv": people()})
    (done,) = apply.apply(world.session(PLAIN), until=START).models
    assert (done.version, done.decision) == ("credit-1", "rejected")
    (done,) = apply.apply(world.session(MITIGATED)).models
    assert (done.version, done.decision) == ("credit-2", "held")
    return world


def read(session: Session, name: str, artifact: str, kind: type[Any]) -> Any:
    return msgspec.json.decode(session.blobs.get(artifacts.load_manifest(session, name).artifacts[artifact]), type=kind)


def said(session: Session, name: str) -> dict[str, Verdict]:
    return {v.condition: v for v in version.verdicts(session.facts, "bank", name)}


def champion(session: Session) -> str:
    return rollout.now(session.facts, "bank", "credit").champion


def test_the_plain_model_fails_by_its_gap_alone(world: World) -> None:
    verdicts = said(world.session(MITIGATED), "credit-1")
    assert {c: v.outcome.value for c, v in verdicts.items()} == {"roc_auc >= 0.6": "pass", str(FAIR): "fail"}
    found = verdicts[str(FAIR)].measurement
    assert found is not None and found.estimate > 0.4


def test_what_was_tried_is_kept_with_what_it_cost(world: World) -> None:
    session = world.session(MITIGATED)
    told = read(session, "credit-2", fitting.MITIGATION, Mitigation)
    assert [each.method for each in told.tried] == ["none", "reweighing", "thresholds"]
    passing = [each for each in told.tried if each.passes]
    assert told.tried[0] not in passing and told.chosen == "thresholds", told
    best = max(each.measurements["accuracy"].estimate for each in passing)
    assert next(each for each in told.tried if each.method == told.chosen).measurements["accuracy"].estimate == best
    assert said(session, "credit-2")[str(FAIR)].outcome is Outcome.PASS
    size = said(session, "credit-2")["model_bytes <= 1e+06"].measurement
    assert size is not None and 1000 < size.estimate < 1e6


def test_the_evaluation_names_the_price(world: World) -> None:
    """Accuracy falls, against the same estimator without the mitigation, on the same rows and draws."""
    session = world.session(MITIGATED)
    found = read(session, "credit-2", "evaluation", Evaluation)
    other = next(each for each in found.models if each.name == "unmitigated")
    price = other.differences["accuracy"]
    assert price.estimate == pytest.approx(
        other.measurements["accuracy"].estimate - found.measurements["accuracy"].estimate
    )
    assert 0 < price.low < price.estimate
    assert other.differences["roc_auc"].estimate == 0, "thresholds move no score"
    gap = next(g for g in found.gaps if (g.slice, g.metric) == ("sex", "selection_rate"))
    assert gap.measurement.estimate < 0.15


def test_a_word_without_a_reason_or_from_somebody_else_does_not_count(world: World) -> None:
    session = world.copy().session(MITIGATED)
    with pytest.raises(DeclarationError, match="approval-without-reason"):
        operate.approve(session, "credit-2", by="risk", reason=" ")
    with pytest.raises(DeclarationError, match="override-without-reason"):
        operate.promote(session, "credit-2", by="risk", reason="  ", override=True)
    with pytest.raises(DeclarationError, match="nobody-waits-for-approval"):
        operate.approve(world.copy().session(PLAIN), "credit-1", by="risk", reason="fine")
    operate.approve(session, "credit-2", by="ada", reason="looked at it")
    assert apply.apply(session).models[0].decision == "held", "one of the two gates waits for risk alone"
    verdicts = said(session, "credit-2")
    assert verdicts["approval >= 1"].outcome is Outcome.PASS
    assert verdicts["approval(by=risk) >= 1"].outcome is Outcome.INCONCLUSIVE
    assert "flyball approve APP credit-2" in verdicts["approval(by=risk) >= 1"].reason


def test_a_refusal_rejects_and_is_kept_with_its_reason(world: World) -> None:
    session = world.copy().session(MITIGATED)
    operate.approve(session, "credit-2", by="risk", reason="x" * 5000, yes=False)
    assert apply.apply(session).models[0].decision == "rejected" and champion(session) == ""
    no = said(session, "credit-2")["approval(by=risk) >= 1"]
    assert no.outcome is Outcome.FAIL and no.reason.startswith("risk: xxx") and len(no.reason) < 500
    operate.approve(session, "credit-2", by="risk", reason="thought again")
    assert apply.apply(session).models[0].decision == "release", "the last word of a person counts"


def test_the_loop_hears_a_word_too(world: World) -> None:
    process = Process(world.copy(), MITIGATED)
    operate.approve(process.session, "credit-2", by="risk", reason="the gap is small")
    process.look()
    assert champion(process.session) == "credit-2"


@pytest.fixture(scope="module")
def approved(world: World) -> Session:
    """Risk said yes, and the next apply released it without training anything anew."""
    session = world.copy().session(MITIGATED)
    operate.approve(session, "credit-2", by="risk", reason="the gap is small")
    (done,) = apply.apply(session).models
    assert (done.ran, done.decision, champion(session)) == (["gates", "release"], "release", "credit-2")
    assert apply.apply(session).models[0].ran == []
    return session


def test_a_served_decision_is_that_of_the_group(approved: Session, tmp_path: Path) -> None:
    ending = artifacts.load_finish(approved, artifacts.load_manifest(approved, "credit-2"))
    assert ending.by == "sex" and ending.thresholds["f"] < ending.thresholds["m"]
    rows = [
        {"person": f"{sex}{k}", "came": "2013-07-02T00:00:00Z", "income": k / 10, "sex": sex}
        for k in range(-20, 20)
        for sex in "fm"
    ]
    with live(tmp_path, answering.routed(approved)) as edge:
        answers = edge.ask(rows, "/predict/credit").json
        refused = edge.ask([{key: rows[0][key] for key in ("person", "came", "income")}], "/predict/credit")
    assert refused.status == 422, "the column of the groups is asked for"
    for row, answer in zip(rows, answers, strict=True):
        assert answer["decision"] is (answer["output"] >= ending.thresholds[row["sex"]])
    told = {
        (row["sex"], answer["output"] >= 0.5): answer["decision"] for row, answer in zip(rows, answers, strict=True)
    }
    assert {answer["decision"] for answer in answers} == {True, False} and len(told) >= 4
    between = [r["sex"] for r, a in zip(rows, answers, strict=True) if a["decision"] != (a["output"] > 0.5)]
    assert "f" in between, "somebody is decided about otherwise than by one half"


def test_why_says_the_threshold_of_the_group(approved: Session) -> None:
    (routed,) = answering.routed(approved).values()
    plan, asked = routed.champion, START + timedelta(days=1)
    row = {"person": "x", "came": asked, "income": 0.1, "sex": "f"}
    answer = attempt(plan, question(plan, row, asked, 0.0), 1, "champion", approved.clock).answer
    approved.journals(Settings()).open("bank", head=approved.facts.head).record([answer])
    found = why.why(approved, answer.id)
    ending = artifacts.load_finish(approved, artifacts.load_manifest(approved, "credit-2"))
    assert (found.threshold, found.decision) == (ending.thresholds["f"], answer.output >= ending.thresholds["f"])


def test_the_next_version_is_compared_with_what_the_champion_decides(approved: Session, world: World) -> None:
    """The champion's own thresholds of groups decide for it, and the challenger's common one for itself."""
    gate = fb.accuracy >= fb.accuracy.on(fb.champion) + 0.01
    other = app(credit(FEATURES, decide=fb.best(fb.accuracy), calibrate="isotonic"), gate)
    session = replace(approved, app=other)
    (done,) = apply.apply(session).models
    assert (done.version, done.decision) == ("credit-3", "release")
    verdict = said(session, "credit-3")[str(gate)]
    ours, theirs = (
        read(session, name, "evaluation", Evaluation).measurements["accuracy"].estimate
        for name in ("credit-3", "credit-2")
    )
    assert verdict.measurement is not None and verdict.measurement.estimate == pytest.approx(ours - theirs)


def test_a_champion_that_was_asked_for_something_else_is_no_rival(approved: Session) -> None:
    """Its answers are probabilities, and the new ones shares of rows: a difference of them would say nothing."""
    other = credit(FEATURES, unsupervised=True)
    said = rival.answered(Work(approved, other, None, lambda event: None), {})
    assert isinstance(said, str) and "was asked for something else than this version is" in said


def test_reweighing_makes_group_and_outcome_independent() -> None:
    """By hand: of 8 rows 6 are men, of whom 4 repaid; of 2 women 1 did. P(m) P(yes) / P(m, yes) = 6/8 * 5/8 / (4/8)."""
    sex, repaid = ["m"] * 6 + ["f"] * 2, np.array([1, 1, 1, 1, 0, 0, 1, 0], dtype=bool)
    frame = pl.DataFrame({"_label": repaid, "_request.sex": sex})
    built = Examples(frame, (), Counts(learned=8, void=0, unsettled=0, unaskable=0))
    found = reweighing(built, np.ones(8, dtype=bool), "sex")
    assert found.tolist() == [0.9375] * 4 + [1.125] * 2 + [1.25, 0.75]
    men, women = np.array(sex) == "m", np.array(sex) == "f"
    share = [np.average(repaid[mine], weights=found[mine]) for mine in (men, women)]
    assert share == pytest.approx([5 / 8, 5 / 8]) and found.sum() == pytest.approx(8)
    assert len(reweighing(built, men, "sex")) == 6
