"""What is received as an outcome, what is refused and why; and that order and repetition of posts change nothing in the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dataframely as dy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flyball as fb
from flyball._kernel import ids
from flyball._kernel.errors import DataError
from flyball.adapters.embedded.outcomes import SqliteOutcomes
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.outcomes import MemoryOutcomes
from flyball.checks.clock import START
from flyball.checks.outcomes import new
from flyball.learn.task import BINARY, REGRESSION, Task
from flyball.serve import outcomes, protocol
from flyball.serve import plan as plans
from flyball.serve.guard import Refused
from flyball.serve.outcomes import Posted

CLOCK = VirtualClock(START)
ID = ids.uuid7(START, b"0123456789")


class Order(fb.Contract):
    """One order, told by columns of every kind."""

    order_id = dy.String(primary_key=True, min_length=1)
    at = dy.Datetime(time_zone="America/New_York", primary_key=True)
    weight = dy.Float64(primary_key=True)
    customer = fb.personal(dy.Int64(primary_key=True))
    placed = fb.event_time(dy.Datetime(time_zone="UTC"))
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True), void_after=fb.days(60))
    returned = fb.outcome(dy.Bool(nullable=True))


DECODE_KEY = protocol.decoder(Order, frozenset())


@dataclass
class Told:
    """What a plan says of the key of its questions."""

    key: tuple[str, ...] = ("order_id", "at", "weight", "customer")
    personal: frozenset[str] = frozenset({"customer", "elsewhere"})
    asked_of: str = "placed"
    lead: timedelta = timedelta(0)
    tolerance: timedelta = timedelta(0)
    hash: Callable[[str], str] = lambda value: f"hashed {value}"
    decode_key: Callable[[bytes], tuple[list[dict[str, Any]], bool]] = DECODE_KEY
    task: Task = REGRESSION
    seal: None = None
    entity: tuple[str, ...] = ("order_id", "at", "weight", "customer")


@dataclass
class Answering:
    champion: Told


ONE = {"orders": Answering(Told())}
TWO = {**ONE, "others": Answering(Told())}
TRUTH = {"orders": Answering(Told(task=BINARY))}
KEY: dict[str, Any] = {"order_id": "o1", "at": "2013-07-01T12:00:00Z", "weight": 8, "customer": 7}


def post(body: Any, store: MemoryOutcomes | None = None, routed: Any = ONE) -> tuple[int, dict[str, Any]]:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, said = outcomes.receive(sent, routed, store or MemoryOutcomes(), CLOCK, "billing")
    return status, json.loads(said)


def stored(body: Any, routed: Any = ONE) -> Posted:
    store = MemoryOutcomes()
    status, said = post(body, store, routed)
    assert (status, said["accepted"], said["refused"]) == (200, 1, [])
    (row,) = store.read()
    return row


def test_by_prediction() -> None:
    row = stored({"prediction": ID, "outcome": True})
    assert row == Posted(seq=1, received=START, by="billing", model="", prediction=ID, key="", value=1.0, settled=START)


def test_an_id_has_one_spelling() -> None:
    assert stored({"prediction": ID.upper().replace("-", ""), "outcome": 1}).prediction == ID


def test_by_key_in_the_form_of_the_journal() -> None:
    row = stored({"key": KEY, "outcome": 12.5, "settled": "2012-12-01T10:00:00-05:00"})
    assert json.loads(row.key) == {
        "order_id": "o1",
        "at": "2013-07-01T08:00:00-04:00",
        "weight": 8.0,
        "customer": "hashed 7",
    }
    assert (row.prediction, row.model, row.value) == ("", "orders", 12.5)
    assert row.settled == datetime(2012, 12, 1, 15, tzinfo=UTC)
    assert row.settled.utcoffset() == timedelta(0)


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "order_id": st.text(min_size=1, max_size=8).filter(lambda s: not any("\ud800" <= c <= "\udfff" for c in s)),
            "at": st.datetimes(
                datetime(1990, 1, 1),
                datetime(2090, 1, 1),
                timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]),
            ).map(datetime.isoformat),
            "weight": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
            "customer": st.integers(-(2**63), 2**63 - 1),
        }
    ),
    st.randoms(use_true_random=False),
)
def test_a_key_is_told_as_the_journal_tells_it(key: dict[str, Any], chance: Any) -> None:
    """The whole question, read and recorded as an answer's is, against the key alone, its columns in any order."""
    question = protocol.decoder(Order, frozenset({"placed"}))
    (row,), _ = question(json.dumps(key | {"placed": "2013-07-01T12:00:00Z"}).encode())
    told: Any = Told()
    names = list(key)
    chance.shuffle(names)
    found = outcomes.key(told, json.dumps({name: key[name] for name in names}).encode(), START)
    assert found == plans.question(told, row, START, 0.0).key


@pytest.mark.parametrize(
    ("outcome", "value"), [(True, 1.0), (False, 0.0), (None, None), (3, 3.0), (-0.0, 0.0), (1e308, 1e308)]
)
def test_values(outcome: Any, value: float | None) -> None:
    found = stored({"prediction": ID, "outcome": outcome}).value
    assert (found, str(found)) == (value, str(value))


REFUSED = [
    ({"prediction": ID}, "outcome-unreadable"),
    ({"prediction": ID, "outcome": "true"}, "outcome-value"),
    ({"prediction": ID, "outcome": [1]}, "outcome-unreadable"),
    (f'{{"prediction": "{ID}", "outcome": 1e999}}'.encode(), "outcome-unreadable"),
    ({"prediction": ID, "outcome": 1, "setled": "2013-01-01T00:00:00Z"}, "outcome-unreadable"),
    ({"prediction": ID, "outcome": 1, "settled": "2013-01-01T00:00:00"}, "outcome-unreadable"),
    ({"prediction": ID, "outcome": 1, "settled": 1357000000}, "outcome-unreadable"),
    ({"prediction": ID, "outcome": 1, "settled": "0001-01-01T00:00:00+05:00"}, "outcome-unreadable"),
    ({"prediction": 5, "outcome": 1}, "outcome-unreadable"),
    (5, "outcome-unreadable"),
    ("text", "outcome-unreadable"),
    (None, "outcome-unreadable"),
    (b'{"prediction": "\xff", "outcome": 1}', "outcome-unreadable"),
    ({"outcome": 1}, "outcome-target"),
    ({"outcome": 1, "key": None}, "outcome-target"),
    ({"outcome": 1, "prediction": ID, "key": KEY}, "outcome-target"),
    ({"outcome": 1, "prediction": "o1"}, "outcome-target"),
    ({"outcome": 1, "prediction": "0" * 31}, "outcome-target"),
    ({"outcome": 1, "prediction": ID, "model": "nobody"}, "no-such-model"),
    ({"outcome": 1, "key": KEY, "model": "nobody"}, "no-such-model"),
    ({"outcome": 1, "key": {}}, "outcome-key"),
    ({"outcome": 1, "key": {"order_id": "o1"}}, "outcome-key"),
    ({"outcome": 1, "key": KEY | {"placed": "2013-07-01T12:00:00Z"}}, "outcome-key"),
    ({"outcome": 1, "key": [KEY]}, "outcome-unreadable"),
    ({"outcome": 1, "key": "o1"}, "outcome-unreadable"),
    ({"outcome": 1, "key": KEY | {"order_id": None}}, "request-breaks-contract"),
    ({"outcome": 1, "key": KEY | {"order_id": ""}}, "request-breaks-contract"),
    ({"outcome": 1, "key": KEY | {"at": "2013-07-01T12:00:00"}}, "request-breaks-contract"),
    ({"outcome": 1, "key": KEY | {"weight": "8"}}, "request-breaks-contract"),
    ({"outcome": 1, "key": KEY | {"customer": 2**63}}, "request-breaks-contract"),
]


@pytest.mark.parametrize(("item", "code"), REFUSED, ids=str)
def test_what_is_refused(item: Any, code: str) -> None:
    store = MemoryOutcomes()
    # In a list, where what surrounds it is JSON: an item is judged alone.
    status, said = post(b"[" + (item if isinstance(item, bytes) else json.dumps(item).encode()) + b"]", store)
    (refusal,) = said["refused"]
    assert (status, refusal["at"], refusal["code"]) == (422, 0, code)
    assert all(refusal[part] for part in ("what", "why", "next"))
    assert list(store.read()) == []


def test_a_personal_value_is_not_shown_again() -> None:
    _, said = post({"outcome": 1, "key": KEY | {"customer": "Ada Lovelace"}})
    assert "Ada" not in json.dumps(said)


@pytest.mark.parametrize("seconds", [60, 0, -1e9])
def test_a_clock_may_be_a_minute_ahead(seconds: float) -> None:
    settled = START + timedelta(seconds=seconds)
    assert stored({"prediction": ID, "outcome": 1, "settled": settled.isoformat()}).settled == settled


def test_the_future_is_refused() -> None:
    settled = START + timedelta(seconds=60, microseconds=1)
    status, said = post({"prediction": ID, "outcome": 1, "settled": settled.isoformat()})
    assert (status, said["refused"][0]["code"]) == (422, "outcome-ahead")


def test_each_of_a_list_is_judged_on_its_own() -> None:
    store = MemoryOutcomes()
    good = {"prediction": ID, "outcome": True}
    status, said = post([good, {"outcome": 1}, good, good | {"outcome": None}, {"key": KEY, "outcome": 2}, 7], store)
    assert status == 200
    assert {name: said[name] for name in ("accepted", "repeated", "corrected")} == {
        "accepted": 2,
        "repeated": 1,
        "corrected": 1,
    }
    assert [(each["at"], each["code"]) for each in said["refused"]] == [
        (1, "outcome-target"),
        (5, "outcome-unreadable"),
    ]
    assert [row.value for row in store.read()] == [1.0, None, 2.0]


def test_repeats_alone_are_no_failure() -> None:
    store = MemoryOutcomes()
    post({"prediction": ID, "outcome": True}, store)
    assert post([{"prediction": ID, "outcome": True}, {"outcome": 1}], store)[0] == 200
    assert post([], store) == (200, {"accepted": 0, "repeated": 0, "corrected": 0, "refused": []})


def test_a_thousand_and_no_more() -> None:
    item = {"prediction": ID, "outcome": True}
    assert post([item] * 1000)[1]["repeated"] == 999
    with pytest.raises(Refused) as raised:
        post([item] * 1001)
    assert (raised.value.status, raised.value.error.code) == (413, "request-too-large")


@pytest.mark.parametrize("body", [b"[", b"[{}", b"[1 2]", b"[NaN]", b"[\xff]", b"[" * 100_000])
def test_a_list_that_is_no_json_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(DataError) as raised:
        post(body)
    assert raised.value.code == "outcome-unreadable"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"key":' * 100_000])
def test_one_that_is_no_json_is_refused(body: bytes) -> None:
    status, said = post(body)
    assert (status, said["refused"][0]["code"]) == (422, "outcome-unreadable")


def test_one_model_of_several_is_named() -> None:
    assert post({"key": KEY, "outcome": 1}, routed=TWO)[1]["refused"][0]["code"] == "outcome-target"
    assert stored({"key": KEY, "outcome": 1, "model": "others"}, TWO).model == "others"
    assert stored({"prediction": ID, "outcome": 1}, TWO).model == ""
    assert stored({"prediction": ID, "outcome": 1, "model": "others"}, TWO).model == "", "its id says whose it is"


def test_what_is_true_or_false_is_no_number() -> None:
    mixed = {**TRUTH, "numbers": Answering(Told())}
    for value in (12.5, -0.3, 2, 1e-9):
        for named, routed in (({"key": KEY}, TRUTH), ({"prediction": ID}, TRUTH)):
            status, said = post({**named, "outcome": value}, routed=routed)
            assert (status, said["refused"][0]["code"]) == (422, "outcome-value")
        assert post({"key": KEY, "model": "orders", "outcome": value}, routed=mixed)[0] == 422
        assert stored({"key": KEY, "model": "numbers", "outcome": value}, mixed).value == value
        assert stored({"prediction": ID, "outcome": value}, mixed).value == value, "whose it is, is not known yet"
    for truth in (True, False, 0, 1, 0.0, -0.0, 1.0, None):
        assert stored({"key": KEY, "outcome": truth}, TRUTH).value == truth


CLASSES = {"orders": Answering(Told(task=Task(kind="multiclass", classes=("1", "1.0", "nan", 'ro"t', "late"))))}


@pytest.mark.parametrize("name", CLASSES["orders"].champion.task.classes)
def test_a_class_comes_back_as_it_was_named(name: str, tmp_path: Path) -> None:
    """Also one that a column of numbers would take for a number."""
    for store in (MemoryOutcomes(), SqliteOutcomes(tmp_path / "outcomes.sqlite")):
        for expected in ("accepted", "repeated"):
            status, said = post({"key": KEY, "outcome": name}, store, CLASSES)  # type: ignore[arg-type]
            assert (status, said[expected]) == (200, 1)
        assert [outcomes.class_of(row.value) for row in store.read()] == [name]


def test_what_is_no_class_of_the_outcome_is_refused() -> None:
    mixed = {**CLASSES, "numbers": Answering(Told())}
    for value in ("Late", "", "x" * 5000, True, 1, 0.5):
        status, said = post({"key": KEY, "outcome": value}, routed=CLASSES)
        assert (status, said["refused"][0]["code"]) == (422, "outcome-value")
        assert len(json.dumps(said)) < 1000
    assert (
        post({"key": KEY, "outcome": "late"}, routed=ONE)[0]
        == post({"key": KEY, "outcome": "1"}, routed=TRUTH)[0]
        == 422
    )
    assert outcomes.class_of(stored({"prediction": ID, "outcome": "late"}, mixed).value) == "late"
    assert stored({"prediction": ID, "outcome": 12.5}, mixed).value == 12.5
    assert stored({"key": KEY, "outcome": None}, CLASSES).value is None


def test_a_time_of_settling_is_corrected_like_a_value() -> None:
    store = MemoryOutcomes()
    early = {"key": KEY, "outcome": True, "settled": "2012-12-01T15:00:00Z"}
    right = early | {"settled": "2012-12-02T15:00:00Z"}
    undated = {"key": KEY, "outcome": True}
    said = post([early, early, undated, right], store)[1]
    assert (said["accepted"], said["repeated"], said["corrected"]) == (1, 2, 1)
    assert [row.settled.day for row in store.read()] == [1, 2]
    (row,) = [stored(undated)]
    assert row.settled == row.received


def test_a_refusal_does_not_repeat_what_it_was_sent() -> None:
    long = b'{"outcome": 1, "' + b"x" * 100_000 + b'": 1}'
    _, said = post(b"[" + b",".join([long, long]) + b"]")
    assert all(len(each["why"]) < 300 for each in said["refused"])


POSTS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from([0.0, 1.0, None])), min_size=1, max_size=12
)


@settings(max_examples=100, deadline=None)
@given(POSTS, st.data())
def test_order_between_targets_and_repetition_change_nothing(posts: list[tuple[str, float | None]], data: Any) -> None:
    """Targets interleaved anew, each post repeated at once or with its whole batch: the last value of each is the same."""
    expected: dict[str, float | None] = dict(posts)
    of = {key: [value for each, value in posts if each == key] for key in expected}
    store = MemoryOutcomes()
    while any(of.values()):
        key = data.draw(st.sampled_from(sorted(key for key, left in of.items() if left)))
        size = data.draw(st.integers(1, len(of[key])))
        batch, of[key] = of[key][:size], of[key][size:]
        store.post([new(value, key=key) for value in batch for _ in range(data.draw(st.integers(1, 3)))])
        # Whoever is unsure whether a post arrived sends it again; of a batch, its last value counts.
        if data.draw(st.booleans()):
            store.post([new(value, key=key) for value in batch])
    assert {row.key: row.value for row in store.read()} == expected
    assert store.counts()["m"].targets == len(expected)
