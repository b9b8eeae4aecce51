"""Who answers: the share of a candidate, who is asked when somebody fails, and the breaker that takes a candidate out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from math import comb
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball._kernel.errors import AdapterError, DataError
from flyball.checks.clock import Wound
from flyball.serve import router
from flyball.serve.breaker import Breaker
from flyball.serve.plan import Plan
from flyball.serve.router import Given, Routed, Router, Way
from tests.live import Factor, plan

ASKED = datetime(2026, 11, 20, 10, tzinfo=UTC)
PLAN = plan()


def row(order: str = "o1") -> dict[str, Any]:
    return {
        "order_id": order,
        "placed": datetime(2026, 11, 20, 12, tzinfo=UTC),
        "category": "books",
        "price": 8.0,
        "customer": "c1",
        "note": None,
    }


def says(version: str, factor: float) -> Plan:
    return replace(PLAN, version=version, predictor=Factor(factor))


def failing(version: str, error: Callable[[], Exception] = ZeroDivisionError, at: str = "encode") -> Plan:
    def broken(*_: Any) -> Any:
        raise error()

    change: dict[str, Any] = {at: broken}
    return replace(PLAN, version=version, **change)


def slow(version: str, clock: Wound, seconds: float) -> Plan:
    def encode(values: Any) -> Any:
        clock.sleep(seconds)
        return PLAN.encode(values)

    return replace(PLAN, version=version, encode=encode)


OLD, NEW = says("orders-1", 0.5), says("orders-2", 0.25)


class Table:
    """A router of one model, and what its breakers told."""

    def __init__(self, routed: Routed, clock: Wound | None = None) -> None:
        self.clock, self.told = clock or Wound(), list[tuple[str, str, str]]()
        self.router = Router(self.clock, lambda *said: self.told.append(said))
        self.router.swap({"orders": routed})

    @property
    def way(self) -> Way:
        return self.router.ways["orders"]

    def ask(self, order: str = "o1") -> Given:
        return self.router.ask(self.way, [row(order)], ASKED, 0.001)[0]


def answered(given: Given) -> tuple[str, str, float]:
    assert given.answer is not None and given.error is None and given.answer.failed == ""
    return given.answer.role, given.answer.version, given.answer.output


@pytest.mark.parametrize("name", ['pri"ce', "pri\\ce", "pri\nce", "", "class", "_0", "price"])
def test_a_feature_may_have_any_name(name: str) -> None:
    """Of columns of other tables nobody says how they are called."""
    odd = replace(PLAN, outputs=("category", name, "hour"))
    for batches in (2, 1 << 62):
        table = Table(Routed(1, replace(odd, batches=batches)))
        for each in table.router.ask(table.way, [row("o1"), row("o2")], ASKED, 0.0):
            assert each.answer is not None, each.error
            assert msgspec.to_builtins(each.answer.features) == {"category": "books", name: 8.0, "hour": 12}


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    first = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    table = Table(Routed(7, OLD))
    given = [table.router.ask(table.way, [row()], asked, 0.0)[0].answer for asked in (first, first.replace(fold=1))]
    assert given[0] is not None and given[1] is not None and given[1].asked - given[0].asked == 3_600_000_000


# --- the share


def test_without_a_candidate_the_champion_answers_and_nobody_computes_beside_it() -> None:
    found = Table(Routed(7, OLD)).ask()
    assert answered(found) == ("champion", "orders-1", 4.0)
    assert found.shadow is None and found.failed == ()
    assert found.answer is not None and found.answer.epoch == 7


def test_in_the_shadow_stage_the_champion_answers_and_the_candidate_computes_later() -> None:
    table = Table(Routed(7, OLD, NEW, 0.0))
    found = table.ask()
    assert answered(found) == ("champion", "orders-1", 4.0)
    assert found.shadow is not None and found.answer is not None
    shadow = table.router.shadow(found.shadow)
    assert shadow is not None
    assert (shadow.role, shadow.version, shadow.output, shadow.failed) == ("shadow", "orders-2", 2.0, "")
    same = ("key", "asked", "inputs", "within_tolerance", "epoch")
    assert [getattr(shadow, name) for name in same] == [getattr(found.answer, name) for name in same]
    assert shadow.id != found.answer.id


def test_of_a_canary_the_other_one_computes_later() -> None:
    table = Table(Routed(7, OLD, NEW, 1.0))
    found = table.ask()
    assert answered(found) == ("canary", "orders-2", 2.0)
    assert found.shadow is not None
    shadow = table.router.shadow(found.shadow)
    assert shadow is not None
    assert (shadow.role, shadow.version, shadow.output) == ("shadow", "orders-1", 4.0)


def test_what_is_personal_is_hashed_in_every_attempt() -> None:
    table = Table(Routed(7, OLD, failing("orders-2"), 1.0))
    found = table.ask()
    assert found.answer is not None
    for each in (found.answer, *found.failed):
        assert each.inputs["customer"] != "c1" and len(each.inputs["customer"]) == 64


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.95])
def test_a_share_is_right_within_what_chance_allows(share: float) -> None:
    """Five standard deviations of a binomial count: one in 1.7 million, and the lot is fixed, so it never flickers."""
    n = 20_000
    for version in ("orders-2", "orders-3"):
        chosen = sum(router.lot(version, f'{{"order_id":"o{i}"}}') < share for i in range(n))
        assert abs(chosen - n * share) < 5 * math.sqrt(n * share * (1 - share))


def test_the_router_gives_the_share_that_the_lot_says_and_it_sticks() -> None:
    early, late = Table(Routed(1, OLD, NEW, 0.2)), Table(Routed(2, OLD, NEW, 0.6))
    orders = [f"o{i}" for i in range(1500)]
    first = {o for o in orders if answered(early.ask(o))[0] == "canary"}
    assert first == {o for o in orders if answered(early.ask(o))[0] == "canary"}, "asked again, the same entities"
    assert first == {o for o in orders if router.lot("orders-2", f'{{"order_id":"{o}"}}') < 0.2}
    assert first < {o for o in orders if answered(late.ask(o))[0] == "canary"}, "who is in stays in"
    other = Table(Routed(3, OLD, says("orders-3", 1.0), 0.2))
    second = {o for o in orders if answered(other.ask(o))[0] == "canary"}
    assert abs(len(first & second) - 1500 * 0.04) < 5 * math.sqrt(1500 * 0.04), "another candidate, another lot"


def test_where_an_entity_is_declared_all_its_questions_go_to_one_version() -> None:
    old, new = (replace(each, entity=("customer",)) for each in (OLD, NEW))
    table = Table(Routed(1, old, new, 0.5))
    roles: dict[str, set[str]] = {}
    for n in range(60):
        asked = {**row(f"o{n}"), "customer": f"c{n % 12}"}
        roles.setdefault(asked["customer"], set()).add(
            answered(table.router.ask(table.way, [asked], ASKED, 0.001)[0])[0]
        )
    assert all(len(each) == 1 for each in roles.values())
    assert {role for each in roles.values() for role in each} == {"champion", "canary"}


@given(st.text(), st.text())
def test_a_lot_is_in_its_range_and_a_matter_of_version_and_key_alone(version: str, key: str) -> None:
    assert 0 <= router.lot(version, key) < 1
    assert router.lot(version, key) == router.lot(version, key)


# --- the cascade

BASELINE = says("orders-1", 0.125)
FAULTS = [
    (ZeroDivisionError, "encode", "server-failed"),
    (lambda: AdapterError("store-busy", "no"), "lookup", "store-busy"),
    (lambda: MemoryError("no"), "lookup", "server-failed"),
]


@pytest.mark.parametrize(("error", "at", "code"), FAULTS)
@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        (0, ("champion", "orders-1", 4.0)),
        (1, ("previous", "orders-0", 6.0)),
        (2, ("baseline", "orders-1", 1.0)),
        (3, ("default", "default", 0.2)),
    ],
)
def test_the_next_one_is_asked_at_every_level(
    error: Any, at: str, code: str, broken: int, expected: tuple[str, str, float]
) -> None:
    line = [("champion", OLD), ("previous", says("orders-0", 0.75)), ("baseline", BASELINE)]
    line = [(role, failing(p.version, error, at) if n < broken else p) for n, (role, p) in enumerate(line)]
    found = Table(Routed(1, line[0][1], fallbacks=tuple(line[1:]), default=0.2)).ask()
    assert answered(found) == expected
    assert [(each.role, each.failed, math.isnan(each.output)) for each in found.failed] == [
        (role, code, True) for role, _ in line[:broken]
    ]


def test_when_nobody_is_left_the_first_error_is_told() -> None:
    champion = failing("orders-1", lambda: AdapterError("store-busy", "no"), "lookup")
    found = Table(Routed(1, champion, fallbacks=(("baseline", failing("orders-1")),))).ask()
    assert found.answer is None
    assert found.error is not None and found.error.code == "store-busy"
    assert [each.role for each in found.failed] == ["champion", "baseline"]


def test_a_fault_of_ours_is_said_once_and_the_caller_s_never(caplog: pytest.LogCaptureFixture) -> None:
    """Another version answers, so nobody else would hear of it."""
    ours = failing("orders-7", lambda: AdapterError("store-busy", "The store of orders-7 is busy"), "lookup")
    theirs = failing("orders-8", lambda: DataError("key-not-given", "secret"), "lookup")
    for champion in (ours, theirs):
        for _ in range(3):
            Table(Routed(1, champion, fallbacks=(("previous", NEW),))).ask()
    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if "orders-7 failed on a question: The store of orders-7 is busy" in text]) == 1
    assert not [text for text in said if "secret" in text]


@pytest.mark.parametrize("output", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_no_answer(output: float) -> None:
    found = Table(Routed(1, says("orders-1", output), fallbacks=(("previous", NEW),))).ask()
    assert answered(found) == ("previous", "orders-2", 2.0)
    assert [each.failed for each in found.failed] == ["answer-not-finite"]


def test_what_the_caller_did_wrong_is_nobody_elses_to_answer() -> None:
    wrong = lambda: DataError("wrong-type", "no")  # noqa: E731
    for candidate in (None, NEW, failing("orders-2", wrong)):
        table = Table(Routed(1, failing("orders-1", wrong), candidate, 0.0, (("previous", NEW),), 0.2))
        found = table.ask()
        assert (found.answer, found.failed, found.shadow) == (None, (), None)
        assert isinstance(found.error, DataError)
    both = Table(Routed(1, failing("orders-1", wrong), failing("orders-2", wrong), 1.0))
    for _ in range(50):
        found = both.ask()
        assert (found.answer, found.failed) == (None, ()) and isinstance(found.error, DataError)
    assert both.told == [], "nor is it held against the candidate"


def test_a_question_that_only_the_candidate_cannot_read_is_the_candidates_fault() -> None:
    table = Table(Routed(1, OLD, failing("orders-2", lambda: DataError("wrong-type", "no")), 1.0))
    found = table.ask()
    assert answered(found) == ("champion", "orders-1", 4.0)
    assert [(each.role, each.version, each.failed) for each in found.failed] == [("canary", "orders-2", "wrong-type")]


def test_a_failing_champion_is_still_compared_with_the_candidate() -> None:
    table = Table(Routed(1, failing("orders-1"), NEW, 0.0, (("baseline", BASELINE),)))
    found = table.ask()
    assert answered(found) == ("baseline", "orders-1", 1.0)
    assert found.shadow is not None
    shadow = table.router.shadow(found.shadow)
    assert shadow is not None and shadow.output == 2.0


def test_a_shadow_that_fails_is_an_attempt_that_failed() -> None:
    table = Table(Routed(1, failing("orders-1"), NEW, 1.0))
    found = table.ask()
    assert found.shadow is not None
    shadow = table.router.shadow(found.shadow)
    assert shadow is not None
    assert (shadow.version, shadow.role, shadow.failed, shadow.features) == ("orders-1", "shadow", "server-failed", {})


def test_an_attempt_takes_its_own_time_and_no_other() -> None:
    clock = Wound()
    table = Table(Routed(1, slow("orders-1", clock, 0.25), slow("orders-2", clock, 0.5), 0.0), clock)
    found = table.ask()
    clock.sleep(100)
    assert found.shadow is not None and found.answer is not None
    shadow = table.router.shadow(found.shadow)
    assert shadow is not None
    assert [found.answer.latency_us, shadow.latency_us] == pytest.approx([251_000, 501_000], abs=2)


# --- the breaker


def opens_after(table: Table, shadows: bool = True) -> int:
    """Questions until the breaker opens."""
    for n in range(1, 2000):
        found = table.ask(f"o{n}")
        answered(found)
        if shadows and found.shadow is not None:
            table.router.shadow(found.shadow)
        if table.told:
            return n
    raise AssertionError("it never opened")


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_candidate_that_always_fails_is_out_with_its_eighth_attempt(share: float) -> None:
    table = Table(Routed(1, OLD, failing("orders-2"), share))
    assert opens_after(table) == Breaker.FAULTS, "every question is an attempt, whatever the share"
    ((model, version, why),) = table.told
    assert (model, version) == ("orders", "orders-2") and "server-failed" in why and "8 faults" in why
    for n in range(100):
        found = table.ask(f"p{n}")
        assert answered(found)[0] == "champion"
        assert found.shadow is None and found.failed == (), "it is not even asked"
    assert len(table.told) == 1


@pytest.mark.parametrize(("seconds", "attempts"), [(0.04, None), (0.06, 8), (0.11, 4), (0.16, 3), (0.3, 2), (60, 2)])
def test_a_candidate_that_is_slow_is_out_before_it_took_long(seconds: float, attempts: int | None) -> None:
    clock = Wound()
    table = Table(Routed(1, OLD, slow("orders-2", clock, seconds), 0.5), clock)
    if attempts is None:
        with pytest.raises(AssertionError, match="never opened"):
            opens_after(table)
    else:
        assert opens_after(table) == attempts
        assert f"took {seconds:.3g} s" in table.told[0][2]


@pytest.mark.parametrize("seconds", [0.06, 0.19, 1.0])
def test_in_a_list_as_well_a_slow_candidate_is_out_before_it_took_long(seconds: float) -> None:
    """What it has no time for is the champion's, and it is a shadow there."""
    clock = Wound()
    table = Table(Routed(1, OLD, slow("orders-2", clock, seconds), 1.0), clock)
    began = clock.monotonic()
    given = table.router.ask(table.way, [row(f"o{n}") for n in range(100)], ASKED, 0.0)
    assert table.way.breaker.why and clock.monotonic() - began < max(19 * 0.05, 2 * seconds + 0.001)
    assert [each.answer is not None for each in given] == [True] * 100
    by = [(each.answer.version, each.shadow.plan.version) for each in given if each.answer and each.shadow]
    assert ("orders-2", "orders-1") in by and set(by) <= {("orders-2", "orders-1"), ("orders-1", "orders-2")}


@pytest.mark.parametrize("batches", [2, 1 << 62], ids=["asked together", "asked alone"])
@pytest.mark.parametrize(("before", "listed"), [(0, 100), (7, 8), (5, 4), (7, 2)])
def test_in_lists_as_well_a_candidate_that_always_fails_is_out_with_its_eighth_attempt(
    before: int, listed: int, batches: int
) -> None:
    table = Table(Routed(1, OLD, replace(failing("orders-2"), batches=batches), 1.0))
    failed = [len(table.ask(f"o{n}").failed) for n in range(before)]
    given = table.router.ask(table.way, [row(f"p{n}") for n in range(listed)], ASKED, 0.0)
    failed += [len(each.failed) for each in given]
    assert failed == [1] * Breaker.FAULTS + [0] * (before + listed - Breaker.FAULTS)
    assert [answered(each)[0] for each in given] == ["champion"] * listed
    assert len(table.told) == 1


@pytest.mark.parametrize("before", [0, 5, 7])
@pytest.mark.parametrize("every", [2, 3, 8])
def test_callers_errors_in_lists_take_no_question_from_the_candidate(every: int, before: int) -> None:
    """They count for nothing, so a breaker that is near its limit would never be asked about anything else."""

    def read(values: Any) -> Any:
        if values[1] == 9.0:
            raise DataError("bad-question", "It is bad.")
        return PLAN.encode(values)

    table = Table(Routed(1, replace(OLD, encode=read), replace(NEW, encode=read), 1.0))
    for _ in range(before):
        table.way.breaker.saw("server-failed", 0.0)
    listed = [row(f"o{n}") | {"price": 9.0 if n % every == 0 else 8.0} for n in range(64)]
    given = table.router.ask(table.way, listed, ASKED, 0.0)
    assert [each.answer and each.answer.role for each in given] == [
        None if n % every == 0 else "canary" for n in range(64)
    ]
    assert not table.told and not table.way.breaker.why


def test_what_is_slow_is_declared() -> None:
    clock = Wound()
    table = Table(Routed(1, OLD, slow("orders-2", clock, 0.3), 0.5, slow=1.0), clock)
    with pytest.raises(AssertionError, match="never opened"):
        opens_after(table)


def test_one_stall_of_the_machine_opens_nothing() -> None:
    breaker = Breaker()
    assert not breaker.saw("", 3600.0) and breaker.why == ""


def test_a_shadow_that_waits_when_the_breaker_opens_is_not_computed() -> None:
    table = Table(Routed(1, OLD, failing("orders-2"), 0.0))
    waiting = [table.ask(f"o{n}").shadow for n in range(20)]
    computed = [table.router.shadow(each) for each in waiting if each is not None]
    assert [each is None for each in computed] == [False] * 8 + [True] * 12


def test_it_stays_open_for_the_same_candidate_and_stage_and_closes_for_another() -> None:
    bad = failing("orders-2")
    table = Table(Routed(1, OLD, bad, 0.3))
    opens_after(table)
    way = table.way
    table.router.swap({"orders": Routed(2, OLD, bad, 0.3)})
    assert table.way.breaker.why, "another epoch of the same stage"
    table.router.swap({"orders": Routed(3, OLD, bad, 0.6)})
    assert not table.way.breaker.why, "another stage"
    opens_after_again = Table(Routed(1, OLD, bad, 0.3))
    opens_after(opens_after_again)
    opens_after_again.router.swap({"orders": Routed(4, OLD, says("orders-3", 0.25), 0.3)})
    assert not opens_after_again.way.breaker.why, "another candidate"
    assert answered(table.router.ask(way, [row("o1")], ASKED, 0.0)[0])[0] == "champion", (
        "who is answering keeps its way"
    )


def test_the_champions_own_shadows_open_nothing() -> None:
    table = Table(Routed(1, failing("orders-1"), NEW, 1.0))
    for n in range(100):
        found = table.ask(f"o{n}")
        assert answered(found)[0] == "canary" and found.shadow is not None
        table.router.shadow(found.shadow)
    assert table.told == []


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_the_champion_fails_at_as_well_is_not_held_against_the_candidate(share: float) -> None:
    """A store that is away for a moment must not end a stage."""
    down = [True]

    def lookup(row: Any, asked: datetime) -> Any:
        if down[0]:
            raise AdapterError("store-busy", "no")
        return PLAN.lookup(row, asked)

    both = [replace(PLAN, version=version, lookup=lookup) for version in ("orders-1", "orders-2")]
    table = Table(Routed(1, both[0], both[1], share, default=0.1))
    with pytest.raises(AssertionError, match="never opened"):
        opens_after(table)
    down[0] = False
    assert answered(table.ask())[0] == ("canary" if share else "champion")
    assert table.ask().shadow is not None


def test_a_question_at_which_the_champion_is_as_slow_tells_nothing_of_the_candidate() -> None:
    clock = Wound()
    table = Table(Routed(1, slow("orders-1", clock, 0.3), slow("orders-2", clock, 0.31), 0.0), clock)
    with pytest.raises(AssertionError, match="never opened"):
        opens_after(table)
    slower = Table(Routed(1, slow("orders-1", clock, 0.3), slow("orders-2", clock, 0.52), 0.0), clock)
    assert opens_after(slower) == 2


@settings(max_examples=300, deadline=None)
@given(st.lists(st.booleans(), max_size=120))
def test_it_opens_exactly_with_the_eighth_fault_among_thirty_two(faults: list[bool]) -> None:
    breaker = Breaker()
    expected = next(
        (n for n in range(len(faults)) if faults[n] and sum(faults[max(0, n - 31) : n + 1]) >= 8), len(faults)
    )
    opened = [breaker.saw("x" if fault else "", 0.0) for fault in faults]
    assert opened == [n == expected for n in range(len(faults))]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.05, 0.2499), min_size=8, max_size=20))
def test_a_candidate_that_became_slow_holds_its_process_up_for_less_than_a_second(seconds: list[float]) -> None:
    breaker, spent = Breaker(), 0.0
    for each in seconds:
        spent += each
        if breaker.saw("", each):
            break
    assert breaker.why and spent < 0.95


def test_its_false_alarms_are_as_rare_as_it_says() -> None:
    def alarm(p: float) -> float:
        return p * comb(31, 7) * p**7 * (1 - p) ** 24

    assert 1 / alarm(0.01) == pytest.approx(4.8e9, rel=0.02)
    assert 1 / alarm(0.05) == pytest.approx(33_000, rel=0.05)


# --- any story


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=4, max_size=4), st.sampled_from([0.0, 0.4, 1.0]), st.booleans(), st.text())
def test_whoever_fails_somebody_answers_and_every_attempt_is_told(
    sound: list[bool], share: float, default: bool, order: str
) -> None:
    names = ["orders-2", "orders-1", "orders-0", "orders-1"]
    candidate, champion, previous, baseline = (
        says(name, 0.5) if fine else failing(name) for name, fine in zip(names, sound, strict=True)
    )
    line = (("previous", previous), ("baseline", baseline))
    found = Table(Routed(3, champion, candidate, share, line, 0.2 if default else None)).ask(order)
    chosen = bool(share) and router.lot("orders-2", found.failed[0].key if found.failed else key(found)) < share
    roles = (["canary"] if chosen else []) + ["champion", "previous", "baseline"]
    fine = ([sound[0]] if chosen else []) + sound[1:]
    first = fine.index(True) if True in fine else len(fine)
    assert [each.role for each in found.failed] == roles[:first]
    if first < len(fine) or default:
        assert found.answer is not None and found.error is None
        assert found.answer.role == (roles[first] if first < len(fine) else "default")
        assert (found.shadow is None) == (chosen and not sound[0])
        assert all(each.key == found.answer.key and each.epoch == 3 for each in found.failed)
    else:
        assert found.answer is None and found.error is not None and found.shadow is None


def key(found: Given) -> str:
    assert found.answer is not None
    return found.answer.key
