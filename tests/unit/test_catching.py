"""A loop that starts in the middle of a long A/B test concludes what one concludes that has seen all of it."""

from __future__ import annotations

import functools

import msgspec
import pytest

from flyball import hours, minutes, seconds
from flyball._kernel.clock import from_micros, micros
from flyball.adapters.memory.outcomes import MemoryOutcomes
from flyball.cycle.catching import Catching
from flyball.serve.outcomes import New
from flyball.watch import arms, trials
from flyball.watch.live import Live
from tests.unit.test_trials import CLICKS, estimate, live, look, state, traffic
from tests.unit.test_watch_quality import NOW


@pytest.fixture
def read_again(monkeypatch: pytest.MonkeyPatch) -> Live:
    """A test that keeps 150 answers for their outcomes."""
    made = live(most=100)
    monkeypatch.setattr(trials, "Arms", functools.partial(arms.Arms, most=150))
    trials.follow(made, state(CLICKS), NOW)
    return made


@pytest.mark.parametrize("along", [True, False], ids=["with their outcomes", "alone"])
def test_answers_of_one_process_after_the_other(read_again: Live, along: bool) -> None:
    """Two processes, three hours, an outcome after eight minutes: some hundred wait at a time, and 1,200 answers come."""
    said, posts = traffic(1200, 1, {"a-1": 0.3, "a-2": 0.6})
    said = [msgspec.structs.replace(e, asked=micros(NOW - hours(5)) + (n // 2) * 9_000_000) for n, e in enumerate(said)]
    asked = {e.key: from_micros(e.asked) for e in said}
    store = MemoryOutcomes()
    for p in posts:
        known = asked[p.key] + minutes(8)
        new = {name: getattr(p, name) for name in New.__struct_fields__} | {"received": known, "settled": known}
        store.post([New(**new)])
    whole = live()
    whole.answered(said)
    whole.settled(store.read())

    catching = Catching(store, [read_again])
    history = [*said[0::4], *said[1::4], *said[2::4], *said[3::4]]  # each process's own, as a journal is read
    for at in range(0, len(history), 30):
        page = history[at : at + 30]
        read_again.answered(page)
        if along:
            catching.beside(page)
    posted = list(store.read())
    for at in range(0, len(posted), 100):
        read_again.settled(posted[at : at + 100])
    assert read_again.arms is not None
    assert (read_again.arms.given_up == 0) == along
    if along:
        assert look(read_again, CLICKS) == look(whole, CLICKS)
        assert estimate(read_again, CLICKS) == pytest.approx(0.3, abs=0.1)


def test_where_clocks_differ_little_nothing_is_told_again() -> None:
    store, told = MemoryOutcomes(), list[int]()
    said, posts = traffic(20, 1, {"a-1": 0.3, "a-2": 0.6})
    for n, p in enumerate(posts):
        new = {name: getattr(p, name) for name in New.__struct_fields__} | {"received": NOW + seconds(n)}
        store.post([New(**new)])

    class Heard(Live):
        def tell(self, posted: object) -> None:
            told.extend(p.seq for p in posted)  # type: ignore[attr-defined]

    catching = Catching(store, [Heard(hours(1))])
    for second in (4, 3, 9, 5, 30):
        catching.beside([msgspec.structs.replace(said[0], asked=micros(NOW + seconds(second)))])
    assert told == list(range(1, 21))
