"""What every journal does with several answers of one call, and with a catalog that is away. A part of `ErasingSuite`."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from flyball._kernel import facts
from flyball._kernel.errors import DataError, RetryableError
from flyball.checks.clock import Wound
from flyball.checks.journal import SETTINGS, Bench, JournalSuite, a_head, answer, recorded
from flyball.serve import journal
from flyball.serve.journal import Journal, Standing


class GroupSuite(JournalSuite):
    """Several answers of one request, which leave together."""

    @pytest.mark.parametrize("durability", ["acknowledged", "interval"])
    def test_the_answers_of_one_call_are_told_once(self, bench: Bench, clock: Wound, durability: Any) -> None:
        """Their numbers follow one another, and all of them are recorded by then."""
        place = bench.journal(clock, replace(SETTINGS, durability=durability))
        recorder, told = place.open("flights"), list[BaseException | None]()
        given = [answer(clock) for _ in range(SETTINGS.at_once)]
        assert recorded(recorder, [answer(clock)]) == [1]
        future: Future[None] = Future()

        def done(error: BaseException | None) -> None:
            told.append(error)
            journal.resolve(future)(error)

        assert recorder.record(given, done) == 2
        future.result(timeout=30)
        if durability == "interval":
            recorder.close()
        assert [(entry.seq, entry.id) for entry in place.read()][1:] == [
            (n + 2, each.id) for n, each in enumerate(given)
        ]
        assert [place.find(each.id) is not None for each in given] == [True] * len(given)
        recorder.close()
        assert (told, recorder.standing()) == ([None], Standing())

    def test_one_that_cannot_be_recorded_refuses_all(self, place: Journal, clock: Wound) -> None:
        """No number is handed out, and nobody is told."""
        recorder, told = place.open("flights"), list[BaseException | None]()
        with pytest.raises(DataError, match="unrecordable-answer"):
            recorder.record([answer(clock), answer(clock, key=None), answer(clock)], told.append)
        assert recorded(recorder, [answer(clock)]) == [1]
        recorder.close()
        assert told == []

    def test_no_answers_are_told_as_any(self, place: Journal, clock: Wound) -> None:
        """A request of no rows: nothing is recorded for it, and it may leave."""
        recorder, future = place.open("flights"), Future[None]()
        recorder.record([], journal.resolve(future))
        assert future.result(timeout=30) is None
        assert recorded(recorder, [answer(clock)]) == [1]
        recorder.close()

    def test_a_call_takes_no_more_than_half_of_a_block(self, place: Journal, clock: Wound) -> None:
        """So that whoever waits for room gets it; more is refused at once, and for good."""
        recorder, size = place.open("flights"), SETTINGS.at_once
        with pytest.raises(DataError, match="unrecordable-answer"):
            recorder.record([answer(clock) for _ in range(size + 1)])
        for n in range(5):
            assert recorder.record([answer(clock) for _ in range(size)]) == n * size + 1
        recorder.close()
        assert [entry.seq for entry in place.read()] == list(range(1, 5 * size + 1))

    def test_a_catalog_that_is_away_stops_nobody(self, bench: Bench, clock: Wound) -> None:
        """A segment is tied to the last end of the chain that was known, and says so."""
        place = bench.journal(clock, replace(SETTINGS, rows=1))
        heads = iter([None, a_head(1), None, a_head(2)])

        def head() -> facts.Head:
            if (said := next(heads)) is None:
                raise RetryableError("store-busy", "the facts are away")
            return said

        recorder = place.open("flights", head=head)
        recorded(recorder, [answer(clock) for _ in range(4)])
        recorder.close()
        said = [(each.header.head, each.header.head_is_stale) for each in place.recover()]
        assert said == [(facts.START, True), (a_head(1), False), (a_head(1), True), (a_head(2), False)]
