"""Checks of examples: what is suspected of leaking, what has shifted, what the model has seen before; and what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from flyball._kernel import facts
from flyball.learn import split
from flyball.learn.doubts import suspects
from flyball.learn.doubts.suspects import Checked
from flyball.learn.encoding import encode
from flyball.learn.encoding.texts import Recipe
from flyball.learn.examples import Counts, Examples
from flyball.learn.split import Bounds
from flyball.learn.task import ANOMALY, BINARY, REGRESSION, Task

N = 1200
START = datetime(2020, 1, 1, tzinfo=UTC)
BOUNDS = Bounds.between(START + timedelta(days=75), START + timedelta(days=100), split.by_time(timedelta(days=20)))
"""Twelve rows a day, so 900 that train and 300 that are tested."""
RNG = np.random.default_rng(5)
NOISE, OTHER = RNG.normal(size=N), RNG.normal(size=N)
LATE = RNG.random(N) < 1 / (1 + np.exp(-NOISE + 1))
"""What `noise` says something of: a ROC AUC of about .7."""
HONEST = pl.DataFrame({"noise": NOISE, "other": OTHER, "kind": RNG.choice(["a", "b", "c"], N)})


def checked(frame: pl.DataFrame, label: pl.Series, task: Task = BINARY) -> Checked:
    asked = pl.Series([START + timedelta(hours=2 * k) for k in range(N)], dtype=pl.Datetime("us", "UTC"))
    whole = frame.with_columns(_asked=asked, _settled=asked + timedelta(minutes=1), _label=label)
    examples = Examples(whole, tuple(frame.columns), Counts(learned=N, void=0, unsettled=0, unaskable=0))
    kinds: list[tuple[str, encode.Kind | Recipe]] = [
        (name, Recipe() if name == "text" else "category" if frame[name].dtype == pl.String else "number")
        for name in frame.columns
    ]
    encoder = encode.fit(whole.filter(pl.Series(split.cut(examples, BOUNDS).fit)), kinds)
    return suspects.check(examples, BOUNDS, encoder, task)


@pytest.fixture(scope="module")
def honest() -> Checked:
    return checked(HONEST, pl.Series(LATE))


def test_the_same_examples_are_told_the_same(honest: Checked) -> None:
    assert facts.encode(checked(HONEST, pl.Series(LATE))) == facts.encode(honest)


def test_honest_examples_are_not_suspected(honest: Checked) -> None:
    assert honest.leaks == () and not any(shift.certain for shift in honest.shifts)
    assert (honest.fit, honest.test, honest.columns) == (900, 300, 3)
    assert honest.adversarial is not None and honest.adversarial.low < 0.5 < honest.adversarial.high
    assert honest.duplicates.same == honest.duplicates.contrary == 0
    assert suspects.told(honest) == []


def delay(strength: float) -> pl.Series:
    """Known only afterwards: as the departure's delay is of the arrival's."""
    return pl.Series(strength * LATE + np.random.default_rng(7).normal(size=N))


@pytest.mark.parametrize(
    ("leak", "why"),
    [
        (delay(2.0), "alone"),
        (pl.Series(LATE.astype(float)), "equal"),
        (pl.Series(np.where(LATE, "yes", "no")), "equal"),
        (pl.Series([1.0 if late or k % 9 == 0 else None for k, late in enumerate(LATE)]), "presence"),
        (pl.Series([f"row {k}" for k in range(N)]), "identifies"),
        (pl.Series(np.arange(N)), "identifies"),
    ],
)
def test_what_leaks_is_suspected_and_nothing_else_is(leak: pl.Series, why: str) -> None:
    found = checked(HONEST.with_columns(leak=leak), pl.Series(LATE))
    assert [(each.feature, each.why) for each in found.leaks] == [("leak", why)]
    assert suspects.told(found)[0].startswith(("leak ", "Whether leak "))
    if why == "alone":
        (leaked,) = found.leaks
        assert leaked.measure == "roc_auc" and 0.88 < leaked.alone < 0.95
        assert leaked.others is not None and leaked.others < 0.75


def test_two_that_leak_do_not_hide_each_other() -> None:
    found = checked(HONEST.with_columns(one=delay(2.5), two=delay(2.5) * 3 + 1), pl.Series(LATE))
    assert {each.feature for each in found.leaks} == {"one", "two"}


def test_a_strong_feature_among_strong_ones_is_not_suspected() -> None:
    rng = np.random.default_rng(9)
    strong = {f"s{k}": pl.Series(1.5 * LATE + rng.normal(size=N)) for k in range(4)}
    assert checked(HONEST.with_columns(**strong), pl.Series(LATE)).leaks == ()


def test_a_gap_without_a_single_exception_tells_the_outcome() -> None:
    """Some 150 of 900 rows have none, and by chance 40 of those would be late."""
    rng = np.random.default_rng(11)
    gap = ~LATE & (rng.random(N) < 0.25)
    found = checked(
        HONEST.with_columns(landed=pl.Series(np.where(gap, np.nan, rng.normal(size=N))).fill_nan(None)), pl.Series(LATE)
    )
    assert [(each.feature, each.why) for each in found.leaks] == [("landed", "presence")]
    anywhere = rng.random(N) < 0.17
    gaps = pl.Series(np.where(anywhere, np.nan, rng.normal(size=N))).fill_nan(None)
    assert checked(HONEST.with_columns(landed=gaps), pl.Series(LATE)).leaks == ()


def test_numbers_and_classes_are_told_too() -> None:
    price = pl.Series(NOISE + RNG.normal(size=N))
    found = checked(HONEST.with_columns(cents=price * 100, rounded=price + 0.1 * OTHER), price, REGRESSION)
    assert {(each.feature, each.measure) for each in found.leaks} == {("cents", "r2"), ("rounded", "r2")}
    assert checked(HONEST, price, REGRESSION).leaks == ()
    classes = ("red", "green", "blue")
    colour = pl.Series([classes[k] for k in RNG.integers(0, 3, N)], dtype=pl.Enum(classes))
    task = Task(kind="multiclass", classes=classes)
    assert [each.why for each in checked(HONEST.with_columns(code=colour.cast(pl.String)), colour, task).leaks] == [
        "equal"
    ]
    assert checked(HONEST, colour, task).leaks == ()


def test_what_learns_from_no_outcome_is_not_suspected_of_it() -> None:
    assert checked(HONEST.with_columns(leak=pl.Series(LATE.astype(float))), pl.Series(LATE), ANOMALY).leaks == ()


def test_what_moves_in_the_test_span_is_told_and_the_rest_is_not() -> None:
    later = np.arange(N) >= 900
    found = checked(HONEST.with_columns(moved=pl.Series(OTHER + NOISE + 1.0 * later)), pl.Series(LATE))
    assert [each.feature for each in found.shifts if each.certain] == ["moved"]
    assert found.shifts[0].feature == "moved" and found.shifts[0].chance == 0.005
    assert found.adversarial is not None and found.adversarial.low > 0.6
    assert found.adversarial.telling[0][0] == "moved"
    assert any("not spread" in line and "moved (psi" in line for line in suspects.told(found))
    assert any("small model tells test rows" in line for line in suspects.told(found))


def test_days_are_compared_with_days_and_not_rows_with_rows() -> None:
    """Weather that is one thing all day: of any 25 days it is another than of the other 75, and that is no shift."""
    weather = np.repeat(np.random.default_rng(13).normal(size=N // 12), 12)
    found = checked(HONEST.with_columns(weather=pl.Series(weather)), pl.Series(LATE))
    (shift,) = [each for each in found.shifts if each.feature == "weather"]
    assert shift.psi > 0.1  # taken for rows, that would be far beyond chance
    assert not shift.certain
    assert found.adversarial is not None and found.adversarial.low < 0.6


def test_a_value_that_only_test_rows_have_is_told_by_its_share() -> None:
    kinds = ["new" if k >= 900 and k % 3 == 0 else "old" for k in range(N)]
    found = checked(HONEST.with_columns(kind=pl.Series(kinds)), pl.Series(LATE))
    (shift,) = [each for each in found.shifts if each.feature == "kind"]
    assert shift.unseen == pytest.approx(1 / 3, abs=0.01) and shift.certain


def test_rows_that_were_seen_in_training_are_counted() -> None:
    again = HONEST.with_row_index().with_columns(pl.col("index").cast(pl.Int64))
    copied = pl.concat([again[:900], again[:60], again[960:]]).drop("index")
    label = np.concatenate([LATE[:900], LATE[:30], ~LATE[30:60], LATE[960:]])
    found = checked(copied, pl.Series(label))
    assert (found.duplicates.n, found.duplicates.same, found.duplicates.contrary) == (300, 30, 30)
    assert found.duplicates.usual == 0.0
    told = suspects.told(found)
    assert any("30 of 300 test rows (10.0%) have the features and the outcome" in line for line in told)
    assert any("came out otherwise" in line for line in told)


def test_of_a_text_only_its_repetitions_are_told() -> None:
    """Its terms are thousands of columns that nobody declared, and words of people."""
    words = pl.Series([f"word{k % 900} again" for k in range(N)])
    found = checked(pl.DataFrame({"text": words}), pl.Series([k % 900 % 2 == 0 for k in range(N)]))
    assert (found.columns, found.leaks, found.shifts, found.adversarial) == (0, (), (), None)
    assert found.duplicates.same == 300
