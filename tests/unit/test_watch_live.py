"""Live: outcomes find their attempts whatever comes first, nothing is told too early, and memory is bounded."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from flyball._kernel.clock import from_micros, micros
from flyball._kernel.durations import days, hours, minutes
from flyball.data import profile
from flyball.learn.reference import PREDICTION, Column, Reference
from flyball.serve.journal import Entry
from flyball.serve.outcomes import Posted
from flyball.watch import reached
from flyball.watch.live import Live

DAY = from_micros(1_380_000_000_000_000 // 86_400_000_000 * 86_400_000_000)


def at(**span: float) -> datetime:
    return DAY + timedelta(**span)


def entry(key: str, asked: datetime, version: str = "a-1", **more: Any) -> Entry:
    said: dict[str, Any] = {
        "id": f"{version}/{key}/{micros(asked)}",
        "role": "champion",
        "output": 0.25,
        "latency_us": 900,
        "features": {"hour": 7, "origin": "JFK"},
        "model": "a",
    }
    return Entry(
        **(said | more),
        asked=micros(asked),
        version=version,
        epoch=1,
        within_tolerance=True,
        key=key,
        inputs={},
        via="test",
        app="app",
        process="p",
        segment="s",
        seq=1,
    )


def posted(value: float | None, settled: datetime, seq: int = 1, **target: Any) -> Posted:
    said: dict[str, Any] = {"prediction": "", "key": "", "received": settled, "model": "a"} | target
    return Posted(**said, seq=seq, by="local", value=value, settled=settled)


def outcomes(live: Live, version: str | None = "a-1", now: datetime | None = None) -> list[float | None]:
    return live.frame(version, at(), at(days=9), now or at(days=9))["outcome"].to_list()


def test_a_key_that_is_asked_and_corrected_often_is_not_multiplied() -> None:
    """Of a thousand questions of one key and as many corrections there are a million pairs."""
    chance, made, n = random.Random(0), Live(days(30)), 1000
    settled = {seq: at(seconds=chance.randrange(n)) for seq in range(1, n + 1)}
    made.answered([entry("same", at(seconds=k)) for k in range(n)])
    made.settled([posted(float(seq), settled[seq], seq=seq, key="same") for seq in settled])
    later = [max((seq for seq in settled if settled[seq] > at(seconds=k)), default=None) for k in range(n)]
    assert outcomes(made) == later
    rows = made.frame("a-1", at(), at(days=9), at(days=9)).drop("outcome").with_row_index("row")
    assert reached.by_key(rows, made._told()).height == sum(seq is not None for seq in later), "each meets one"


def test_one_request_that_names_a_key_often_is_one_question() -> None:
    made = Live(days(30))
    made.answered([entry("same", at(), id=f"p{k}") for k in range(300)])
    made.settled([posted(float(k), at(hours=1), seq=k + 1, prediction=f"p{k}") for k in range(300)])
    assert outcomes(made) == [299.0] * 300


def test_an_outcome_of_a_key_reaches_every_attempt_asked_before_it_was_settled() -> None:
    live = Live(days(30))
    live.settled([posted(1.0, at(hours=5), key="k")])
    live.answered(
        [entry("k", at(hours=1)), entry("k", at(hours=2)), entry("k", at(hours=5)), entry("other", at(hours=1))]
    )
    live.answered([entry("k", at(hours=1), "a-2", role="shadow")])
    frame = live.frame(None, at(), at(days=1), at(days=1))
    found = {(v, k, a): o for v, k, a, o in frame.select("version", "key", "asked", "outcome").iter_rows()}
    assert found == {
        ("a-1", "k", micros(at(hours=1))): 1.0,
        ("a-1", "k", micros(at(hours=2))): 1.0,
        ("a-1", "k", micros(at(hours=5))): None,
        ("a-1", "other", micros(at(hours=1))): None,
        ("a-2", "k", micros(at(hours=1))): 1.0,
    }


def test_an_outcome_of_a_prediction_reaches_all_attempts_at_that_question_and_no_other() -> None:
    live = Live(days(30))
    first = entry("k", at(hours=1))
    live.answered([first, entry("k", at(hours=1), "a-2", role="shadow"), entry("k", at(hours=2))])
    live.settled([posted(1.0, at(hours=5), prediction=first.id, model="")])
    assert outcomes(live) == [1.0, None]
    assert outcomes(live, "a-2") == [1.0]


def test_nothing_is_told_before_it_was_settled() -> None:
    live = Live(days(30))
    live.answered([entry("k", at(hours=1))])
    live.settled([posted(1.0, at(hours=5), key="k")])
    assert outcomes(live, now=at(hours=5)) == [None]
    assert outcomes(live, now=at(hours=5) + timedelta(microseconds=1)) == [1.0]


def test_a_correction_replaces_and_a_void_takes_back() -> None:
    live = Live(days(30))
    live.answered([entry("k", at(hours=1))])
    live.settled([posted(1.0, at(hours=5), 1, key="k"), posted(0.0, at(hours=6), 2, key="k")])
    assert outcomes(live) == [0.0]
    assert outcomes(live, now=at(hours=6)) == [1.0]
    live.settled([posted(None, at(hours=7), 3, key="k")])
    frame = live.frame("a-1", at(), at(days=1), at(days=1))
    assert frame["outcome"].to_list() == [None]
    assert frame["void"].to_list() == [True]


def test_the_last_received_counts_not_the_last_settled() -> None:
    live = Live(days(30))
    live.answered([entry("k", at(hours=1))])
    live.settled([posted(0.0, at(hours=4), 2, key="k", received=at(hours=8))])
    live.settled([posted(1.0, at(hours=6), 1, key="k", received=at(hours=6))])
    assert outcomes(live) == [0.0]


def test_the_order_in_which_things_come_makes_no_difference() -> None:
    rng = random.Random(3)
    entries = [entry(f"k{k % 20}", at(hours=k), f"a-{1 + k % 2}") for k in range(60)]
    told = [posted(float(k % 2), at(hours=30 + k), k, key=f"k{k % 20}") for k in range(30)]
    told += [posted(0.5, at(hours=80), 50 + k, prediction=entries[k].id) for k in range(0, 60, 7)]
    frames = []
    for _ in range(4):
        live, left = Live(days(30)), [*entries, *told, *told[:5]]
        rng.shuffle(left)
        for each in left:
            live.answered([each]) if isinstance(each, Entry) else live.settled([each])
        assert live.counts().attempts == 60
        frames.append(live.frame(None, at(), at(days=9), at(days=9)))
    assert all(f.equals(frames[0]) for f in frames)
    assert frames[0]["outcome"].null_count() < 60


def test_what_is_old_or_too_much_goes_and_is_counted() -> None:
    live = Live(days(1), most=5)
    live.answered([entry(f"k{k}", at(hours=k)) for k in range(30)])
    live.settled([posted(1.0, at(hours=k), k, key=f"k{k}") for k in range(30)])
    assert live.counts().attempts == 5
    assert live.since() == at(hours=25)
    assert live.counts().dropped == 20 + 20  # of the 25 within a day
    assert live.counts().outcomes == 5


def test_entries_of_other_models_are_passed_over() -> None:
    live = Live(days(1), model="a")
    live.answered([entry("k", at()), entry("k", at(), "b-1", model="b")])
    live.settled([posted(1.0, at(hours=1), key="k", model="b")])
    assert live.counts().attempts == 1
    assert outcomes(live) == [None]
    assert live.asked(at(), at(days=1)).tolist() == [micros(at())]


def column(name: str, values: pl.Series, kind: profile.Kind, meaning: str = "m") -> Column:
    by = profile.edges(values, kind)
    return Column(
        name=name, feature=name, meaning=meaning, edges=by, days=(1,), profiles=(profile.profile(values, by),)
    )


def reference(meaning: str = "m") -> Reference:
    return Reference(
        features=(
            column("hour", pl.Series(range(24), dtype=pl.Float64), "number", meaning),
            column("origin", pl.Series(["JFK", "LGA"] * 10), "category", meaning),
        ),
        predictions=column(PREDICTION, pl.Series([0.1, 0.2, 0.3, 0.4]), "number", ""),
    )


def counted(live: Live, version: str, column: Column | None, start: datetime, end: datetime) -> list[int]:
    """What `hourly` counts, of all hours together."""
    assert column is not None
    return [int(n) for n in live.hourly(version, column, start, end)[1].sum(axis=0)]


def test_a_question_is_profiled_once_whoever_answered_it() -> None:
    live = Live(days(30))
    for version in ("a-1", "a-2"):
        live.refer(version, reference())
    live.answered([entry("k", at()), entry("k", at(), "a-2", role="shadow", output=0.4)])
    live.answered([entry("l", at(minutes=1), role="shadow"), entry("l", at(minutes=1), "a-2", role="canary")])
    live.answered([entry("m", at(minutes=2), failed="boom", output=float("nan"), features={})])
    for version in ("a-1", "a-2"):
        assert counted(live, version, reference().column("origin"), at(), at(days=1)) == [2, 0, 0, 0]
    predictions = reference().predictions
    own = profile.profile(pl.Series([0.4, 0.25]), predictions.edges)
    assert counted(live, "a-2", predictions, at(), at(days=1)) == list(own.counts)


def test_a_feature_that_means_something_else_counts_from_its_own_version_alone() -> None:
    live = Live(days(30))
    live.refer("a-1", reference("before"))
    live.refer("a-2", reference("after"))
    live.answered([entry("k", at()), entry("l", at(hours=1)), entry("l", at(hours=1), "a-2", role="shadow")])
    assert sum(counted(live, "a-2", reference("after").column("hour"), at(), at(days=1))) == 1


def test_a_question_counts_in_its_hour_and_missing_features_are_missing() -> None:
    live = Live(days(30))
    live.refer("a-1", reference())
    live.answered([entry(f"k{k}", at(minutes=20 * k), features={"hour": float(k)}) for k in range(9)])
    live.answered([entry("n", at(hours=5), features={"hour": None, "origin": "EWR"})])
    hour = reference().column("hour")
    assert hour is not None
    found, counts = live.hourly("a-1", hour, at(), at(days=1))
    assert (found * 3_600_000_000).tolist() == [micros(at(hours=h)) for h in (0, 1, 2, 5)]
    assert counts.sum(axis=1).tolist() == [3, 3, 3, 1]
    whole = profile.profile(pl.Series([*map(float, range(9)), None]), hour.edges)
    assert counts.sum(axis=0).tolist() == list(whole.counts)
    assert counted(live, "a-1", reference().column("origin"), at(), at(days=1)) == [0, 0, 1, 9]
    assert live.frame("a-1", at(), at() + minutes(30), at(days=1)).height == 2
    assert sum(counted(live, "a-1", hour, at() + hours(5), at(days=1))) == 1


def test_which_outcome_is_last_is_a_matter_of_their_numbers_and_of_no_clock() -> None:
    live = Live(days(30))
    live.answered([entry("k", at(hours=1))])
    first = posted(1.0, at(hours=5), 1, key="k", received=at(hours=6))
    live.settled([posted(0.0, at(hours=5), 2, key="k", received=at(hours=6) - minutes(1))])
    live.settled([first])
    assert outcomes(live) == [0.0]


def test_a_clock_that_was_ahead_pushes_nothing_out() -> None:
    live = Live(days(1))
    live.answered([entry("k", at(hours=1))], at(hours=2))
    ahead = entry("ahead", at(days=4000))
    live.answered([ahead], at(hours=2))
    live.settled([posted(1.0, at(hours=1, minutes=30), key="k", received=at(days=4000))], at(hours=2))
    assert outcomes(live) == [1.0]
    live.answered([entry("near", at(days=1, hours=2))], at(days=1, hours=2) - minutes(4))
    live.answered([entry("now", at(hours=4))], at(hours=4))
    assert live.asked(at(), at(days=9)).tolist() == [micros(at(hours=4)), micros(at(days=1, hours=2))]


def test_what_an_operator_asked_of_a_version_by_name_counts_for_nobody() -> None:
    live = Live(timedelta(days=1))
    asked = from_micros(0)
    live.answered(
        [entry("k", asked), entry("l", asked, "a-2", role="override"), entry("m", asked, "a-2", role="shadow")]
    )
    assert live.counts().attempts == 2
    assert live.covered("a-2", asked, asked + timedelta(hours=1)) == (2, 1)
