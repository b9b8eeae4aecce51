"""What every journal does with its archive. Subclass `ArchivingSuite`, and supply the fixture `bench`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from flyball._kernel.clock import from_micros, micros
from flyball.checks.clock import Wound
from flyball.checks.journal import SETTINGS, Bench, answer, recorded
from flyball.serve.journal import Answer, Journal

EVER = 2**62
"""A moment that every segment was opened before."""


def archive(place: Journal) -> int:
    """Move everything that is over; returns how many pieces that took."""
    accounted, pieces = {account.segment for account in place.recover()}, 0
    while place.compact(accounted, EVER) is not None:
        pieces += 1
    return pieces


class ArchivingSuite:
    """Moving, and dropping."""

    @pytest.fixture
    def bench(self) -> Bench:
        """The journals under test."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Wound:
        """What dates answers and segments."""
        return Wound()

    def test_what_is_archived_reads_the_same(self, bench: Bench, clock: Wound) -> None:
        """By its id, by any cursor, and in the accounts; what goes on is read with it."""
        place = bench.journal(clock, replace(SETTINGS, rows=3))
        first, second = place.open("flights"), place.open("flights")
        given = [answer(clock, key=f"k{n}") for n in range(12)]
        for n, each in enumerate(given):
            clock.sleep(1)
            recorded((first, second)[n % 2], [each])
        first.close()
        entries, accounts = list(place.read()), place.recover()
        assert archive(place) == len(accounts) == 3
        assert list(place.read()) == entries
        assert [place.find(each.id) for each in entries] == entries
        assert place.recover() == accounts
        for cut in range(len(entries)):
            cursor = {entry.process: entry.seq for entry in entries[:cut]}
            assert list(place.read(cursor)) == entries[cut:]
        recorded(second, [answer(clock)])
        assert [(e.process, e.seq) for e in place.read() if e not in entries] == [(second.process, 7)]
        second.close()

    def test_only_what_is_over_and_accounted_for_moves(self, bench: Bench, clock: Wound) -> None:
        """And was opened before; the first of a process first."""
        place = bench.journal(clock, replace(SETTINGS, rows=2))
        recorder = place.open("flights")
        for _ in range(6):
            recorded(recorder, [answer(clock)])
            clock.sleep(60)
        one, two = (account.segment for account in place.recover())
        opened = micros(clock.now()) - 360_000_000
        assert place.compact((), EVER) is None
        assert place.compact({one, two}, opened) is None
        moved = place.compact({one, two}, opened + 1)
        assert moved is not None
        assert (moved.segment, moved.answers) == (one, 2)
        assert place.compact({one}, EVER) is None
        assert archive(place) == 1
        recorder.close()

    def test_what_is_archived_is_erased(self, bench: Bench, clock: Wound) -> None:
        """Its number stays spoken for, as that of one that was erased before."""
        place = bench.journal(clock, SETTINGS)
        recorder = place.open("flights")
        given = [answer(clock, key=f"k{n % 3}") for n in range(6)]
        recorded(recorder, given)
        recorder.close()
        assert place.erase(lambda entry: entry.key == "k0") == 2
        archive(place)
        assert place.erase(lambda entry: entry.key == "k1") == 2
        assert [entry.id for entry in place.read()] == [given[2].id, given[5].id]
        assert [place.find(each.id) is None for each in given] == [True, True, False] * 2
        assert [(a.recorded, a.erased, a.dropped, a.unknown) for a in place.recover()] == [(6, 4, 0, 0)]
        assert place.erase(lambda entry: entry.key == "k1") == 0

    def test_days_are_dropped(self, bench: Bench, clock: Wound) -> None:
        """Whole ones, of what is archived; the accounts stay, and what was erased is told apart."""
        place = bench.journal(clock, replace(SETTINGS, rows=3, age=timedelta(days=9)))
        recorder, given = place.open("flights"), list[Answer]()
        for n in range(8):
            given.append(answer(clock, key=f"k{n}"))
            recorded(recorder, given[-1:])
            clock.sleep(86_400 / 2)
        archive(place)
        place.erase(lambda entry: entry.key == "k1")
        before = list(place.read())
        today = (clock.now() - timedelta(days=2)).date()
        looked = place.drop(today, look=True)
        assert list(place.read()) == before
        gone = place.drop(today)
        old = [each for each in before if each.key < "k6" and from_micros(each.asked).date() < today]
        assert (gone, gone.answers) == (looked, len(old))
        assert list(place.read()) == [entry for entry in before if entry not in old]
        assert [place.find(entry.id) is None for entry in before] == [entry in old for entry in before]
        assert gone.first == from_micros(given[0].asked).date()
        assert sum(account.dropped for account in place.recover()) == gone.answers
        assert sum(account.erased for account in place.recover()) == 1
        assert place.drop(today).answers == 0
        recorder.close()
