"""What is expected of a model whatever its quality: a planted dependence fails, its absence passes, and nonsense is refused."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import dataframely as dy
import numpy as np
import polars as pl
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor

import flyball as fb
from flyball._kernel.conditions import Condition, Measurement, Outcome, judge
from flyball._kernel.errors import DataError, DeclarationError
from flyball.data import contract
from flyball.learn import behaviour, gates
from flyball.learn import examples as building
from flyball.learn import model as models
from flyball.learn.behaviour import Answer, Behaviour
from flyball.learn.examples import Examples
from flyball.learn.fit import fold
from flyball.learn.model import Model

START = datetime(2026, 1, 1, tzinfo=UTC)
PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
SETTINGS: dict[str, Any] = {"n_estimators": 15, "num_leaves": 6, "verbose": -1, "n_jobs": 1, "deterministic": True}
expect = fb.expect


class Applicant(fb.Contract):
    """Somebody who applies."""

    applicant = dy.String(primary_key=True)
    came = fb.event_time(dy.Datetime(time_zone="UTC"))
    skill = dy.Float64()
    sex = dy.Enum(["f", "m"])
    town = dy.String(nullable=True)
    note = dy.String(nullable=True)
    loud = dy.Bool()
    name = fb.personal(dy.String(nullable=True))
    unread = dy.Int32()
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    hired = fb.outcome(dy.Bool(nullable=True))
    pay = fb.outcome(dy.Float64(nullable=True))
    grade = fb.outcome(dy.Enum(["a", "b", "c"], nullable=True))


def shout(values: pl.Series) -> pl.Series:
    """A change that must not matter."""
    return values.str.to_uppercase()


def swap(values: pl.Series) -> pl.Series:
    """A change of meaning."""
    return values.str.replace("good", "poor")


def fails(values: pl.Series) -> pl.Series:
    """A change that cannot be made."""
    raise ZeroDivisionError("'Ada' is named here")


def length(rows: pl.DataFrame) -> pl.Series:
    """A feature of Python."""
    return pl.Series([float(len(town or "")) for town in rows["town"]], dtype=pl.Float64)


FEATURES = fb.features(
    Applicant.skill,
    Applicant.sex,
    Applicant.loud,
    man=Applicant.sex.col == "m",
    town_length=fb.function(length, Applicant.town, returns=pl.Float64),
    note=fb.text(Applicant.note, grams=(1, 1)),
)
ASKED = fb.before(Applicant.came, fb.hours(0))


@fb.model(FEATURES, predicts=Applicant.hired, asked=ASKED)
def hiring() -> LGBMClassifier:
    return LGBMClassifier(**SETTINGS)


@fb.model(FEATURES, predicts=Applicant.grade, asked=ASKED)
def grading() -> LGBMClassifier:
    return LGBMClassifier(**SETTINGS)


@fb.model(FEATURES, predicts=Applicant.pay, asked=ASKED)
def paying() -> LGBMRegressor:
    return LGBMRegressor(**SETTINGS)


def applicants(n: int = 900, *, unfair: bool) -> pl.DataFrame:
    """Skill decides, a good note helps, and so does being a man where `unfair`."""
    chance, rows = random.Random(11), []
    for k in range(n):
        came, skill, sex = START + timedelta(hours=k), chance.gauss(0, 1), chance.choice("fm")
        note = None if k % 9 == 0 else chance.choice(["good work", "poor work", "Good. Work"])
        lean = 2 * skill + (2 if unfair and sex == "m" else 0) + (2 if note and "good" in note.lower() else 0) - 1
        rows.append(
            {
                "applicant": f"a{k}",
                "came": came,
                "skill": skill,
                "sex": sex,
                "town": chance.choice(["Rome", "Oslo", "Aberystwyth", None]),
                "note": note,
                "loud": chance.random() < 0.5,
                "name": "Ada",
                "unread": k,
                "settled": came + timedelta(hours=1),
                "hired": chance.random() < 1 / (1 + 2.718 ** (-2 * lean)),
                "pay": 1000 + 100 * lean,
                "grade": "a" if lean < -1 else "b" if lean < 1 else "c",
                "_batch": 1,
                "_known": came,
                "_outcome_known": came + timedelta(hours=1),
            }
        )
    return pl.DataFrame(rows, schema_overrides=dict(contract.spec(Applicant).dtypes))


def learned(model: Model, *, unfair: bool = True) -> tuple[Examples, Answer]:
    """Examples, and what a model that was fitted on all of them answers."""
    examples = building.build(model, {"Applicant": applicants(unfair=unfair).lazy()}, START + timedelta(days=400))
    every = np.ones(len(examples.labels), dtype=bool)
    of = fold.Fold.of(model, examples, every, every)
    fitted = of.fit({})

    def answer(frame: pl.DataFrame) -> Any:
        return of.encoder.answers(frame, lambda matrix: fold.pack.answers(fitted, matrix, of.task))

    return examples, answer


@pytest.fixture(scope="module")
def unfair() -> tuple[Examples, Answer]:
    """A model of the unfair world."""
    return learned(hiring)


@pytest.fixture(scope="module")
def fair() -> tuple[Examples, Answer]:
    """A model of the fair one, with the same features."""
    return learned(hiring, unfair=False)


def outcome(
    gate: Condition, of: tuple[Examples, Answer], model: Model = hiring
) -> tuple[Outcome, Measurement | None, str]:
    assert isinstance(gate.metric, Behaviour)
    behaviour.check(gate.metric, model, models.task(model))
    found, why = behaviour.measure(gate.metric, model.features, of[0].frame, of[1], None)
    return judge(gate, found).outcome, found, why


SEX = expect.unchanged(Applicant.sex, within=0.1) >= 0.95


def test_a_planted_dependence_fails_and_its_absence_passes(
    unfair: tuple[Examples, Answer], fair: tuple[Examples, Answer]
) -> None:
    """The column is given and computed from: both features change with the request."""
    verdict, found, _ = outcome(SEX, unfair)
    assert verdict == FAIL and found is not None and found.n == 900
    assert outcome(SEX, fair)[0] == PASS
    # The computed feature alone is changed where it is named, and the tree that reads the given one stays.
    assert outcome(expect.unchanged("man", to=True, within=0.1) >= 0.95, fair)[0] == PASS


def test_direction(unfair: tuple[Examples, Answer]) -> None:
    assert outcome(expect.rises(Applicant.skill, by=1.5, within=0.05) >= 0.9, unfair)[0] == PASS
    verdict, found, _ = outcome(expect.falls(Applicant.skill, by=1.5, within=0.05) >= 0.9, unfair)
    assert verdict == FAIL and found is not None and found.estimate < 0.7
    assert outcome(expect.rises(Applicant.sex, to="m", within=0.02) >= 0.9, unfair)[0] == PASS
    assert outcome(expect.falls(Applicant.sex, to={"m": "f"}, within=0.02) >= 0.9, unfair)[0] == PASS


def test_texts_and_functions_of_the_request(unfair: tuple[Examples, Answer]) -> None:
    verdict, found, _ = outcome(expect.unchanged(Applicant.note, to=shout, within=0.01) >= 0.98, unfair)
    assert verdict == PASS and found is not None and found.n == 800, "a note that is missing is no row that changes"
    assert outcome(expect.unchanged(Applicant.note, to=swap, within=0.1) >= 0.9, unfair)[0] == FAIL
    changed, differs = behaviour._changed(
        expect.unchanged(Applicant.town, to="Llanfairpwll"),
        FEATURES,
        unfair[0].frame,
        lambda s: s.replace("Rome", "Ur"),
    )
    assert set(changed.filter(pl.Series(differs))["town_length"]) == {2.0}, "what a function makes of it follows"
    assert set(unfair[0].frame.filter(pl.Series(differs))["town_length"]) == {4.0}


def test_every_task_can_be_expected_of() -> None:
    assert outcome(expect.unchanged(Applicant.sex, within=0.1) >= 0.95, learned(grading), grading)[0] == FAIL
    paid = learned(paying)
    assert outcome(expect.rises(Applicant.skill, by=1, within=5) >= 0.9, paid, paying)[0] == PASS
    assert outcome(expect.unchanged(Applicant.loud, within=60) >= 0.9, paid, paying)[0] == PASS


def test_a_change_that_touches_few_rows_says_nothing(unfair: tuple[Examples, Answer]) -> None:
    verdict, found, why = outcome(expect.unchanged(Applicant.town, to={"Ur": "Rome"}) >= 0.9, unfair)
    assert (verdict, found, why) == (OPEN, None, "the change touches 0 rows, fewer than 50")
    few = unfair[0].frame
    found, why = behaviour.measure(SEX.metric, FEATURES, few, unfair[1], np.zeros(900, dtype=np.int64))  # type: ignore[arg-type]
    assert found is None and why == "the change touches rows of 1 blocks, fewer than 5"


def test_a_change_that_fails_names_no_value(unfair: tuple[Examples, Answer]) -> None:
    for to in (fails, lambda s: s.head(3), "abc"):
        column = Applicant.note if callable(to) else Applicant.sex
        with pytest.raises(DataError) as caught:
            outcome(expect.unchanged(column, to=to) >= 0.9, unfair)
        assert caught.value.code == "behaviour-failed" and "Ada" not in str(caught.value)


def test_the_most_frequent_values_are_always_the_same_ones() -> None:
    names = [f"v{k:02}" for k in range(30)]
    wanted = expect.unchanged("count")
    seen = [
        [change(pl.Series("count", ["x"]))[0] for change in behaviour._changes(wanted, pl.DataFrame({"count": order}))]
        for order in (names, names[::-1], names[7:] + names[:7])
    ]
    assert seen == [names[:8]] * 3


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda: expect.rises(Applicant.skill), "behaviour-without-change"),
        (lambda: expect.rises(Applicant.skill, by=1, to=2), "behaviour-without-change"),
        (lambda: expect.unchanged(Applicant.skill, within=-1), "behaviour-without-change"),
        (lambda: expect.rises(Applicant.sex, by=1), "behaviour-without-change"),
        (lambda: expect.unchanged("nothing"), "behaviour-of-unknown-column"),
        (lambda: expect.unchanged(Applicant.hired), "behaviour-of-unknown-column"),
        (lambda: expect.unchanged(Applicant.name), "behaviour-of-personal-column"),
        (lambda: expect.rises(Applicant.unread, by=1), "behaviour-of-unread-column"),
    ],
)
def test_what_no_gate_can_show_is_refused(wrong: Any, code: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        gates.check([wrong() >= 0.9], hiring)
    assert caught.value.code == code
    assert len(str(caught.value)) < 2000


def test_several_probabilities_have_no_direction() -> None:
    with pytest.raises(DeclarationError, match="behaviour-without-direction"):
        gates.check([expect.rises(Applicant.skill, by=1) >= 0.9], grading)
    gates.check([expect.unchanged(Applicant.sex) >= 0.9], grading)


@pytest.mark.parametrize(
    "gate",
    [
        expect.rises(Applicant.skill, by=1).gap(by=Applicant.sex) <= 0.1,
        expect.unchanged(Applicant.sex).live(over=fb.days(7)) >= 0.9,
        expect.unchanged(Applicant.sex) >= expect.unchanged(Applicant.sex).on(fb.champion),
    ],
)
def test_an_expectation_is_of_all_rows_of_this_version(gate: Condition) -> None:
    """A gap of `rises` would have been judged as what is unchanged."""
    with pytest.raises(DeclarationError, match="gate-not-measurable"):
        gates.check([gate], hiring)


def test_gates_that_read_alike_and_are_not_are_refused() -> None:
    """What is measured for one would be the verdict of the other."""
    first, second = (expect.unchanged(Applicant.note, to=to) >= 0.9 for to in (lambda s: s, lambda s: s + "!"))
    with pytest.raises(DeclarationError, match="gates-alike"):
        gates.check([first, second], hiring)
    gates.check([SEX, SEX, expect.unchanged(Applicant.note, to=shout) >= 0.9], hiring)
    gates.check([expect.unchanged(Applicant.town, to={"a": "b"}) >= 0.9] * 2, hiring)
    assert str(expect.unchanged(Applicant.town, to={"a": "b"})) != str(expect.unchanged(Applicant.town, to={"a": "c"}))
