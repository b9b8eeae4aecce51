"""What every journal does. Subclass `JournalSuite`, supply the fixture `bench`, and run it with pytest.

A `Bench` gives journals on new places, and shows what a crash would leave of one: without it nobody could tell a
journal that keeps its promise from one that has been lucky.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pytest

from flyball._kernel import facts, ids
from flyball._kernel.clock import Clock, micros
from flyball._kernel.errors import DataError, StateError
from flyball.checks.clock import START, Wound
from flyball.serve import journal
from flyball.serve.journal import Answer, Journal, Recorder, Recovery, Settings

SETTINGS = Settings(block=16, rows=1000, patience=timedelta(seconds=30))
"""A small block, so that suites see it run out."""

VALUES: dict[str, Any] = {
    "carrier": "ünïcödé \0 \U0001f600",
    "tailnum": None,
    "distance": 1400,
    "far": 2**63 - 1,
    "wind": -0.1,
    "late": True,
    "scheduled": datetime(2013, 7, 1, 12, 0, 0, 1, tzinfo=UTC),
}
FEATURES: dict[str, float | int | str | None] = {"hour": 12, "wind": math.inf, "carrier": "UA", "gap": None, "x": 0.1}


class Bench(Protocol):
    """Where a suite works."""

    def journal(self, clock: Clock, settings: Settings) -> Journal:
        """A journal on a place of its own, empty."""

    def crashed(self, left: Journal) -> Journal:
        """A journal over a copy of what a crash at this moment would leave of `left`."""


def answer(clock: Clock, **fields: Any) -> Answer:
    """An answer given now."""
    now = clock.now()
    usual: dict[str, Any] = {
        "id": ids.uuid7(now),
        "asked": micros(now),
        "model": "lateness",
        "version": "v7",
        "epoch": 3,
        "role": "champion",
        "within_tolerance": True,
        "key": '{"flight_id":"UA1545"}',
        "inputs": VALUES,
        "features": FEATURES,
        "output": 0.25,
        "latency_us": 312,
        "via": "lightgbm",
        "failed": "",
    }
    return Answer(**{**usual, **fields})


def recorded(recorder: Recorder, answers: Iterable[Answer]) -> list[int]:
    """Record each and wait until it may leave; returns their numbers."""
    numbers = []
    for each in answers:
        future: Future[None] = Future()
        numbers.append(recorder.record([each], journal.resolve(future)))
        future.result(timeout=30)
    return numbers


def spoken_for(account: Recovery, recorded_numbers: Iterable[int]) -> set[int]:
    """The numbers that an account speaks for: recorded, or in a gap."""
    return set(recorded_numbers) | {n for first, last in account.gaps for n in range(first, last + 1)}


class WritingSuite:
    """Recording, and finding again."""

    @pytest.fixture
    def bench(self) -> Bench:
        """The journals under test."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Wound:
        """What dates answers and segments."""
        return Wound()

    @pytest.fixture
    def place(self, bench: Bench, clock: Wound) -> Journal:
        """An empty journal."""
        return bench.journal(clock, SETTINGS)

    def test_an_empty_journal(self, place: Journal) -> None:
        """Finds nothing, and has nothing to account for."""
        assert place.find(ids.uuid7(START)) is None
        assert list(place.read()) == []
        assert place.recover() == []

    def test_an_acknowledged_answer_is_found_as_it_was(self, place: Journal, clock: Wound) -> None:
        """Every part of it, while the recorder is open and after."""
        numbers: dict[str, Any] = {"outputs": (0.25, 5e-324), "decision": "late"}
        given = answer(clock, within_tolerance=False, asked=-1, epoch=2**63 - 1, **numbers)
        recorder = place.open("flights")
        assert recorded(recorder, [answer(clock), given]) == [1, 2]
        for _ in "open", "closed":
            found = place.find(given.id)
            assert found is not None
            own = (found.app, found.process, found.seq, found.segment.startswith(recorder.process))
            assert own == ("flights", recorder.process, 2, True)
            for field in Answer.__struct_fields__:
                assert getattr(found, field) == getattr(given, field), field
            assert list(found.features) == list(given.features)
            recorder.close()

    @pytest.mark.parametrize("output", [math.nan, math.inf, -math.inf, 5e-324, 0.1 + 0.2])
    def test_every_float_comes_back(self, place: Journal, clock: Wound, output: float) -> None:
        """As an output and as a feature."""
        recorder = place.open("flights")
        given = answer(clock, output=output, features={"x": output})
        recorded(recorder, [given])
        found = place.find(given.id)
        assert found is not None
        assert repr((found.output, found.features)) == repr((output, {"x": output}))
        recorder.close()

    def test_an_attempt_that_failed_is_recorded_as_one(self, place: Journal, clock: Wound) -> None:
        """It has a number like any other, and says of what it failed; beside it lies the answer that left instead."""
        recorder = place.open("flights")
        failed = answer(clock, role="canary", output=math.nan, features={}, failed="answer-not-finite")
        given = answer(clock, decision=False)
        assert recorded(recorder, [failed, given]) == [1, 2]
        found = [(entry.id, entry.role, entry.failed, math.isnan(entry.output)) for entry in place.read()]
        assert found == [(failed.id, "canary", "answer-not-finite", True), (given.id, "champion", "", False)]
        assert [entry.decision for entry in place.read()] == [None, False]
        recorder.close()

    def test_an_unknown_id_is_not_found(self, place: Journal, clock: Wound) -> None:
        """Nor is text that is no id."""
        recorder = place.open("flights")
        recorded(recorder, [answer(clock)])
        assert [place.find(each) for each in (ids.uuid7(START), "", "UA1545", "0" * 31)] == [None] * 4
        recorder.close()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"inputs": {"x": object()}},
            {"inputs": {"x": "\ud800"}},
            {"features": {"x": 2**64}},
            {"id": "UA1545"},
            {"id": "0190AAAA-0000-7000-8000-000000000001"},
            {"asked": 1.5},
            {"epoch": 2**63},
            {"output": "late"},
            {"version": "\ud800"},
            {"key": None},
            {"failed": None},
            {"failed": "\ud800"},
            {"outputs": ("late",)},
            {"decision": 1},
        ],
    )
    def test_what_cannot_be_stored_is_refused_alone(self, place: Journal, clock: Wound, wrong: dict[str, Any]) -> None:
        """It takes no number, and its neighbours are recorded."""
        recorder = place.open("flights")
        assert recorded(recorder, [answer(clock)]) == [1]
        with pytest.raises(DataError, match="unrecordable-answer"):
            recorder.record([answer(clock, **wrong)])
        assert recorded(recorder, [answer(clock)]) == [2]
        recorder.close()

    def test_changing_what_was_handed_over_changes_nothing(self, place: Journal, clock: Wound) -> None:
        """An answer is recorded as it is at that moment."""
        recorder, inputs = place.open("flights"), {"carrier": "UA"}
        given = answer(clock, inputs=inputs)
        recorder.record([given])
        inputs["carrier"] = "AA"
        recorder.close()
        found = place.find(given.id)
        assert found is not None
        assert found.inputs == {"carrier": "UA"}

    def test_a_group_is_delivered_at_once(self, place: Journal, clock: Wound) -> None:
        """Acknowledgements pass through `deliver`, every one of them, and a group in one call."""
        groups: list[Callable[[], None]] = []
        recorder = place.open("flights", deliver=groups.append)
        told: list[BaseException | None] = []
        for _ in range(10):
            recorder.record([answer(clock)], told.append)
        recorder.close()
        assert told == []
        for acknowledge in groups:
            acknowledge()
        assert told == [None] * 10
        assert len(groups) <= 10

    def test_under_interval_an_answer_leaves_at_once(self, bench: Bench, clock: Wound) -> None:
        """It is told so before `record` returns, and closing commits what is in flight."""
        place = bench.journal(clock, replace(SETTINGS, durability="interval", interval=timedelta(hours=1)))
        recorder, told = place.open("flights"), list[tuple[BaseException | None, int]]()
        for _ in range(5):
            recorder.record([answer(clock)], lambda error: told.append((error, threading.get_ident())))
        assert told == [(None, threading.get_ident())] * 5
        recorder.close()
        assert [entry.seq for entry in place.read()] == [1, 2, 3, 4, 5]
        assert [(each.recorded, each.unknown) for each in place.recover()] == [(5, 0)]

    def test_a_closed_recorder_takes_no_more(self, place: Journal, clock: Wound) -> None:
        """And closing it again does nothing."""
        recorder = place.open("flights")
        recorder.close()
        recorder.close()
        with pytest.raises(StateError, match="journal-closed"):
            recorder.record([answer(clock)])

    def test_many_threads_share_a_recorder(self, place: Journal, clock: Wound) -> None:
        """Each answer gets a number of its own, none is left out, whatever the block."""
        recorder = place.open("flights")
        threads = [
            threading.Thread(target=recorded, args=(recorder, [answer(clock) for _ in range(25)])) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        recorder.close()
        assert [entry.seq for entry in place.read()] == list(range(1, 101))


class JournalSuite(WritingSuite):
    """The whole behaviour of a journal."""

    def test_segments_are_full_by_answers(self, bench: Bench, clock: Wound) -> None:
        """Numbers run on over them, and every answer is found."""
        place = bench.journal(clock, replace(SETTINGS, rows=3))
        recorder, given = place.open("flights"), [answer(clock) for _ in range(8)]
        assert recorded(recorder, given) == list(range(1, 9))
        entries = list(place.read())
        segments = [entry.segment for entry in entries]
        assert segments == sorted(segments)
        assert [segments.count(each) for each in dict.fromkeys(segments)] == [3, 3, 2]
        assert [entry.id for entry in entries] == [each.id for each in given]
        assert all(place.find(each.id) is not None for each in given)
        recorder.close()
        accounts = place.recover()
        assert [account.segment for account in accounts] == list(dict.fromkeys(segments))
        assert [(account.closed, account.recorded, account.refused, account.unknown) for account in accounts] == [
            (True, 3, 0, 0),
            (True, 3, 0, 0),
            (True, 2, 0, 0),
        ]

    def test_segments_are_full_by_bytes_and_by_age(self, bench: Bench, clock: Wound) -> None:
        """A clock that goes back makes none older."""
        for settings, expected in ((replace(SETTINGS, size=1), 4), (replace(SETTINGS, age=timedelta(hours=1)), 2)):
            place = bench.journal(clock, settings)
            recorder = place.open("flights")
            for minutes in (0, 50, -70, 130):
                clock.sleep(60 * minutes)
                recorded(recorder, [answer(clock)])
            assert len({entry.segment for entry in place.read()}) == expected
            recorder.close()

    def test_an_answer_older_than_its_segment_is_found(self, bench: Bench, clock: Wound) -> None:
        """Its id was made before a rotation, and written after; or a clock went back."""
        place = bench.journal(clock, replace(SETTINGS, rows=1))
        recorder, given = place.open("flights"), [answer(clock) for _ in range(3)]
        for each in reversed(given):
            clock.sleep(3600)
            recorded(recorder, [each])
        assert [entry and entry.seq for entry in map(place.find, (each.id for each in given))] == [3, 2, 1]
        recorder.close()

    def test_a_cursor_misses_nothing_while_two_write(self, bench: Bench, clock: Wound) -> None:
        """Each process has its own numbers; what was read is not read again."""
        place = bench.journal(clock, replace(SETTINGS, rows=2))
        recorders = [place.open("flights"), place.open("flights")]
        cursor: dict[str, int] = {}
        seen = []
        for pen, many in ((0, 1), (1, 3), (0, 4), (1, 1), (0, 0), (0, 2)):
            recorded(recorders[pen], [answer(clock) for _ in range(many)])
            for entry in place.read(cursor):
                cursor[entry.process] = entry.seq
                seen.append((entry.process, entry.seq))
        for recorder in recorders:
            recorder.close()
        assert len(seen) == len(set(seen)) == 11
        assert cursor == {recorders[0].process: 7, recorders[1].process: 4}
        assert list(place.read(cursor)) == []

    def test_segments_carry_the_end_of_the_chain(self, bench: Bench, clock: Wound) -> None:
        """As it was when each was opened."""
        place = bench.journal(clock, replace(SETTINGS, rows=1))
        heads = iter([a_head(1), a_head(2)])
        recorder = place.open("flights", head=lambda: next(heads))
        recorded(recorder, [answer(clock), answer(clock)])
        recorder.close()
        headers = [account.header for account in place.recover()]
        assert [header.head for header in headers] == [a_head(1), a_head(2)]
        assert {(header.app, header.durability, header.format) for header in headers} == {
            ("flights", "acknowledged", journal.FORMAT)
        }

    def test_who_lives_is_not_accounted_for(self, bench: Bench, clock: Wound) -> None:
        """Its full segments are over; the open one is not."""
        place = bench.journal(clock, replace(SETTINGS, rows=3))
        recorder = place.open("flights")
        recorded(recorder, [answer(clock) for _ in range(5)])
        recorder.record([answer(clock)])
        assert [(account.closed, account.recorded, account.unknown) for account in place.recover()] == [(True, 3, 0)]
        recorder.close()
        assert [account.recorded for account in place.recover()] == [3, 3]

    def test_what_is_accounted_for_is_left_out(self, bench: Bench, clock: Wound) -> None:
        """By its name, whoever the others are; what is left says what it said before."""
        place = bench.journal(clock, replace(SETTINGS, rows=3))
        for _ in range(2):
            recorder = place.open("flights")
            recorded(recorder, [answer(clock) for _ in range(5)])
            recorder.close()
            clock.sleep(1)
        accounts = place.recover()
        assert len(accounts) == 4
        for known in (accounts[:1], accounts[1:3], accounts):
            rest = [account for account in accounts if account not in known]
            assert place.recover({account.segment for account in known}) == rest

    @pytest.mark.parametrize("many", [0, 1, 7, 8, 9, 16, 40])
    def test_a_crash_leaves_what_was_acknowledged(self, bench: Bench, clock: Wound, many: int) -> None:
        """And speaks for every number that was handed out: at most one block is unknown."""
        place = bench.journal(clock, SETTINGS)
        recorder, given = place.open("flights"), [answer(clock) for _ in range(many)]
        numbers = recorded(recorder, given)
        left = bench.crashed(place)
        recorder.close()
        assert [entry.id for entry in left.read()] == [each.id for each in given]
        (account,) = left.recover()
        assert (account.closed, account.recorded, account.refused) == (False, many, 0)
        assert 0 < account.unknown <= SETTINGS.block
        assert account.gaps[0][0] == many + 1
        assert spoken_for(account, numbers) >= set(range(1, many + 2))
        assert left.recover() == [account]

    def test_a_crash_under_interval_loses_a_bounded_part(self, bench: Bench, clock: Wound) -> None:
        """Every answer that left is recorded, or counted."""
        settings = replace(SETTINGS, durability="interval", interval=timedelta(hours=1), block=64)
        place = bench.journal(clock, settings)
        recorder = place.open("flights")
        numbers = [recorder.record([answer(clock)]) for _ in range(10)]
        left = bench.crashed(place)
        recorder.close()
        (account,) = left.recover()
        kept = [entry.seq for entry in left.read()]
        assert account.recorded == len(kept)
        assert spoken_for(account, kept) >= set(numbers)
        assert account.unknown <= settings.block

    def test_life_goes_on_after_a_crash(self, bench: Bench, clock: Wound) -> None:
        """Under another identity; the account stays what it was."""
        place = bench.journal(clock, SETTINGS)
        dead = place.open("flights")
        recorded(dead, [answer(clock)])
        left = bench.crashed(place)
        accounts = left.recover()
        clock.sleep(1)
        recorder = left.open("flights")
        recorded(recorder, [answer(clock), answer(clock)])
        assert left.recover() == accounts
        recorder.close()
        dead.close()
        assert [(each.recorded, each.closed) for each in left.recover()] == [(1, False), (2, True)]
        assert [(entry.process, entry.seq) for entry in left.read()] == [
            (dead.process, 1),
            (recorder.process, 1),
            (recorder.process, 2),
        ]


def a_head(tx: int) -> facts.Head:
    """Some end of a chain."""
    return facts.Head(tx=tx, hash=f"{tx}" * 64, trace="0" * 64, signature="ab")
