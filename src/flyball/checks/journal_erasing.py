"""What every journal does, erasing included. Subclass `ErasingSuite`, which is the whole, and supply the fixture `bench`."""

from __future__ import annotations

from dataclasses import replace

from flyball.checks.clock import Wound
from flyball.checks.journal import SETTINGS, Bench, answer, recorded
from flyball.checks.journal_groups import GroupSuite


class ErasingSuite(GroupSuite):
    """The whole behaviour of a journal out of which answers are erased."""

    def test_what_is_erased_is_gone_and_spoken_for(self, bench: Bench, clock: Wound) -> None:
        """In segments that are full and in one that is being written; the writer goes on, and no number is unknown."""
        place = bench.journal(clock, replace(SETTINGS, rows=4))
        recorder = place.open("flights")
        given = [answer(clock, key=f"k{n % 3}") for n in range(6)]
        recorded(recorder, given)
        assert place.erase(lambda entry: entry.key == "k1") == 2
        assert [(entry.seq, entry.id) for entry in place.read()] == [(n + 1, given[n].id) for n in (0, 2, 3, 5)]
        assert [place.find(each.id) is None for each in given] == [n % 3 == 1 for n in range(6)]
        assert recorded(recorder, [answer(clock, key="k1")]) == [7]
        assert place.erase(lambda entry: entry.key == "k1") == 1
        recorded(recorder, [answer(clock)])
        recorder.close()
        assert [(a.recorded, a.erased, a.refused, a.unknown) for a in place.recover()] == [(4, 1, 0, 0), (4, 2, 0, 0)]
        assert place.erase(lambda entry: entry.key == "k1") == 0

    def test_what_is_erased_is_no_gap_of_a_crash(self, bench: Bench, clock: Wound) -> None:
        """It was recorded: what is unknown does not grow by it."""
        place = bench.journal(clock, SETTINGS)
        recorder = place.open("flights")
        recorded(recorder, [answer(clock, key=f"k{n}") for n in range(5)])
        (before,) = bench.crashed(place).recover()
        assert place.erase(lambda entry: entry.key in ("k0", "k3", "k4")) == 3
        left = bench.crashed(place)
        recorder.close()
        (account,) = left.recover()
        assert (account.recorded, account.erased, account.gaps) == (5, 3, before.gaps)
        assert left.erase(lambda entry: entry.key == "k1") == 1
        assert [entry.key for entry in left.read()] == ["k2"]
