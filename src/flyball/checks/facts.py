"""What every log of facts does. Subclass `FactsSuite`, supply the fixture `open_facts`, and run it with pytest.

Three kinds of fact (`Added`, `Cleared`, `Noted`) and one projection (`TALLY`) say all that the suite needs: a fold that
adds up, one that deletes its row, one that fails, and facts that no projection reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from flyball._kernel import facts as kernel
from flyball._kernel import history
from flyball._kernel.clock import Clock
from flyball._kernel.errors import Bug, StateError
from flyball._kernel.facts import Fact, Projection, Said, Stored
from flyball._kernel.ports import Facts
from flyball.checks.clock import START, Wound

Open = Callable[[Clock, Sequence[Projection]], Facts]


class Added(Said, tag="checks.added"):
    """Adds to the tally; a negative number makes the fold fail."""

    n: int


class Cleared(Said, tag="checks.cleared"):
    """Deletes the row of the tally."""


class Noted(Said, tag="checks.noted"):
    """Read by no projection."""

    text: str


class Refused(Exception):
    """What a fold raises that cannot go on."""


def add_up(row: bytes | None, stored: Stored) -> bytes | None:
    """The fold of `TALLY`."""
    if stored.kind == kernel.kind(Cleared):
        return None
    n = kernel.decode(stored, Added).n
    if n < 0:
        raise Refused
    return b"%d" % (int(row or b"0") + n)


TALLY = Projection("tally", frozenset({kernel.kind(Added), kernel.kind(Cleared)}), kernel.about, add_up)
TIMES = Projection(
    "times", frozenset({kernel.kind(Added)}), kernel.about, lambda row, _: b"%d" % (int(row or b"0") + 1)
)


def added(n: int, app: str = "flights", model: str = "late") -> Fact:
    """A fact that adds `n`."""
    return Fact(app, model, Added(n=n), {"seconds": n / 8})


class LogSuite:
    """The behaviour of a log that is opened once."""

    @pytest.fixture
    def open_facts(self) -> Open:
        """Opens the same log with some projections, anew at each call."""
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> Wound:
        """What gives transactions their time."""
        return Wound()

    @pytest.fixture
    def facts(self, open_facts: Open, clock: Wound) -> Facts:
        """The log under test, empty, with one projection."""
        return open_facts(clock, [TALLY])

    def test_an_empty_log(self, facts: Facts) -> None:
        """Has no head, no facts, no state, and holds."""
        assert facts.head() == facts.verify() == kernel.START
        assert list(facts.read()) == []
        assert facts.get("tally", "flights/late") is None
        assert list(facts.scan("tally")) == []

    def test_facts_are_read_as_they_were_recorded(self, facts: Facts) -> None:
        """Every part of them, in order, with the number and time of their transaction."""
        facts.append([added(3), Fact("flights", "", Noted(text="ünïcödé \0 \U0001f600"))])
        head = facts.append([Fact("", "", Cleared())])
        first, second, third = facts.read()
        assert [fact.seq for fact in (first, second, third)] == [1, 2, 3]
        assert [fact.tx for fact in (first, second, third)] == [1, 1, 2]
        assert {fact.at for fact in (first, second, third)} == {START}
        assert (first.kind, first.app, first.model) == ("checks.added", "flights", "late")
        assert kernel.decode(first, Added) == Added(n=3)
        assert first.measured == b'{"seconds":0.375}'
        assert kernel.decode(second, Noted) == Noted(text="ünïcödé \0 \U0001f600")
        assert (third.app, third.model, third.measured) == ("", "", b"{}")
        assert head.tx == 2

    def test_a_transaction_has_facts(self, facts: Facts) -> None:
        """At least one; and no name in it has a NUL, which parts the hashed bytes."""
        with pytest.raises(Bug, match="empty-transaction"):
            facts.append([])
        with pytest.raises(Bug, match="nul-in-fact"):
            facts.append([added(1, app="a\0b")])
        assert facts.verify() == kernel.START

    def test_reading_is_filtered(self, facts: Facts) -> None:
        """By position, kind and app, together."""
        for n in range(6):
            facts.append([added(n, app="ab"[n % 2]), Fact("a", "", Noted(text=str(n)))])
        noted = frozenset({kernel.kind(Noted)})
        assert [fact.seq for fact in facts.read(after=9)] == [10, 11, 12]
        assert [fact.seq for fact in facts.read(kinds=noted)] == [2, 4, 6, 8, 10, 12]
        assert [fact.seq for fact in facts.read(app="b")] == [3, 7, 11]
        assert [fact.seq for fact in facts.read(after=2, kinds=noted, app="a")] == [4, 6, 8, 10, 12]
        assert list(facts.read(kinds=frozenset())) == list(facts.read(after=12)) == list(facts.read(app="")) == []

    def test_reading_ends_where_the_log_ended_when_it_began(self, facts: Facts) -> None:
        """One who answers each fact with another comes to an end."""
        facts.append([added(1)])
        for fact in facts.read():
            facts.append([added(fact.seq)])
        assert facts.head().tx == 2

    def test_long_histories_are_read_whole(self, facts: Facts) -> None:
        """Across the pages of an adapter."""
        head = facts.append([added(1) for _ in range(2_500)])
        facts.append([added(1)])
        reading = facts.read()
        assert next(reading).seq == 1
        facts.append([added(0)])
        assert [fact.seq for fact in reading] == list(range(2, 2_502))
        assert facts.get("tally", "flights/late") == b"2501"
        assert facts.verify().tx == head.tx + 2

    def test_time_is_the_clocks_and_never_goes_back(self, facts: Facts, clock: Wound) -> None:
        """A machine's clock may; the record of what came first may not."""
        for hours in (0, 2, -5, 3):
            clock.time = START + timedelta(hours=hours)
            facts.append([added(1)])
        assert [(fact.at - START) // timedelta(hours=1) for fact in facts.read()] == [0, 2, 2, 3]
        facts.verify()

    def test_who_decided_upon_an_older_state_is_refused(self, facts: Facts) -> None:
        """And writes nothing; zero is the empty log."""
        head = facts.append([added(1)], expect=0)
        for stale in (0, 2):
            with pytest.raises(StateError, match="moved-on"):
                facts.append([added(1)], expect=stale)
        assert facts.head() == head
        assert facts.append([added(1)], expect=1).tx == 2

    def test_state_is_folded_with_the_facts(self, facts: Facts) -> None:
        """One row per key; several facts of one transaction fold in order; None deletes."""
        facts.append([added(3), added(4), added(5, model="cancelled")])
        assert facts.get("tally", "flights/late") == b"7"
        assert list(facts.scan("tally")) == [("flights/cancelled", b"5"), ("flights/late", b"7")]
        facts.append([Fact("flights", "late", Cleared()), added(1), Fact("flights", "cancelled", Cleared())])
        assert list(facts.scan("tally")) == [("flights/late", b"1")]

    def test_a_failing_fold_undoes_its_transaction(self, facts: Facts) -> None:
        """Facts, state and chain; and the log goes on."""
        head = facts.append([added(1)])
        with pytest.raises(Refused):
            facts.append([added(2), added(3, model="other"), added(-1)])
        assert facts.verify() == facts.head() == head
        assert list(facts.scan("tally")) == [("flights/late", b"1")]
        assert [fact.seq for fact in facts.read()] == [1]
        assert facts.append([added(2)]).tx == 2

    def test_scanning_by_prefix(self, facts: Facts) -> None:
        """Exactly the keys that start with it, in order, whatever their characters."""
        models = ["", "%", "_", "a", "a_b", "aXb", "b", "é", "\ud7ff", "\U0001f600"]
        facts.append([added(1, model=model) for model in models])
        facts.append([added(1, app="flightsX")])
        keys = [key for key, _ in facts.scan("tally")]
        assert keys == sorted(keys)
        assert len(keys) == len(models) + 1
        assert [key for key, _ in facts.scan("tally", "flights/a")] == ["flights/a", "flights/aXb", "flights/a_b"]
        assert [key for key, _ in facts.scan("tally", "flights/a_")] == ["flights/a_b"]
        assert [key for key, _ in facts.scan("tally", "flights/%")] == ["flights/%"]
        assert [key for key, _ in facts.scan("tally", "flights/\ud7ff")] == ["flights/\ud7ff"]
        assert list(facts.scan("tally", "g")) == []

    def test_unknown_state_is_a_mistake(self, facts: Facts) -> None:
        """Not an empty answer."""
        with pytest.raises(Bug, match="no-such-projection"):
            facts.get("tallies", "flights/late")
        with pytest.raises(Bug, match="no-such-projection"):
            facts.scan("tallies")

    def test_rebuilding_gives_the_same_state(self, facts: Facts) -> None:
        """State is nothing but its facts."""
        facts.append([added(3), added(4, model="other")])
        facts.append([Fact("flights", "other", Cleared()), added(2)])
        before = list(facts.scan("tally"))
        facts.rebuild()
        assert list(facts.scan("tally")) == before == [("flights/late", b"5")]
        facts.append([added(1)])
        assert facts.get("tally", "flights/late") == b"6"


class FactsSuite(LogSuite):
    """The behaviour of a log of facts, also when several open it, one after another or at once."""

    def test_what_was_recorded_is_there_when_opened_again(self, open_facts: Open, clock: Wound) -> None:
        """Facts, state, chain."""
        head = open_facts(clock, [TALLY]).append([added(3)])
        again = open_facts(clock, [TALLY])
        assert again.verify() == again.head() == head
        assert again.get("tally", "flights/late") == b"3"
        assert again.append([added(1)], expect=1).tx == 2
        assert again.get("tally", "flights/late") == b"4"

    def test_new_state_is_folded_from_history(self, open_facts: Open, clock: Wound) -> None:
        """A projection that a later release brings knows what happened before it."""
        open_facts(clock, [TALLY]).append([added(1) for _ in range(2_500)])
        both = open_facts(clock, [TALLY, TIMES])
        assert both.get("times", "flights/late") == b"2500"
        both.append([added(1)])
        assert both.get("times", "flights/late") == b"2501"
        both.verify()

    def test_state_is_whole_though_another_does_not_fold_it(self, open_facts: Open, clock: Wound) -> None:
        """Two releases at one log: the one that knows less must not leave holes in the other's state."""
        old, new = open_facts(clock, [TALLY]), open_facts(clock, [TALLY, TIMES])
        for n in range(3):
            old.append([added(n)])
            assert new.get("times", "flights/late") == b"%d" % (2 * n + 1)
            old.append([added(n)])
            assert list(new.scan("times")) == [("flights/late", b"%d" % (2 * n + 2))]
        old.append([added(1)])
        new.append([added(1)])
        assert new.get("times", "flights/late") == b"8"
        new.verify()

    def test_state_of_another_definition_is_folded_anew(self, open_facts: Open, clock: Wound) -> None:
        """When opened; and who still folds by the other definition is told to restart, and changes nothing."""
        old = open_facts(clock, [TALLY])
        old.append([added(3), Fact("flights", "late", Cleared())])
        narrower = replace(TALLY, kinds=frozenset({kernel.kind(Added)}))
        new = open_facts(clock, [narrower])
        assert new.get("tally", "flights/late") == b"3"
        assert new.verify().tx == 1

    def test_two_projections_have_two_names(self, open_facts: Open, clock: Wound) -> None:
        """Or their rows would mix."""
        with pytest.raises(Bug, match="projection-twice"):
            open_facts(clock, [TALLY, replace(TIMES, name="tally")])

    def test_writers_at_once_make_one_chain(self, open_facts: Open, clock: Wound) -> None:
        """Nothing is lost, nothing forks; of those who decided upon the same state, one wins."""
        opened = [open_facts(clock, [TALLY]) for _ in range(4)]

        def record(n: int) -> list[int]:
            return [opened[n].append([added(1)]).tx for _ in range(10)]

        def decide(n: int) -> bool:
            try:
                return opened[n].append([added(1)], expect=40).tx == 41
            except StateError:
                return False

        with ThreadPoolExecutor(4) as pool:
            numbers = [tx for own in pool.map(record, range(4)) for tx in own]
            assert sorted(numbers) == list(range(1, 41))
            assert sum(pool.map(decide, range(4))) == 1
        assert {facts.verify().tx for facts in opened} == {41}
        assert opened[0].get("tally", "flights/late") == b"41"

    def test_an_anchor_holds_while_the_history_goes_on(self, facts: Facts) -> None:
        """A head copied elsewhere stays in the chain; one that never was in it is missed."""
        anchors = [facts.append([added(n)]) for n in range(3)]
        facts.append([added(9)])
        history.holds(facts, kernel.START, *anchors)
        history.holds(facts)
        for gone in (kernel.Head(tx=9, hash="0" * 64, trace="0" * 64, signature=""), replace_trace(anchors[1])):
            with pytest.raises(StateError, match="history-truncated"):
                history.holds(facts, *anchors, gone)


def replace_trace(head: kernel.Head) -> kernel.Head:
    """The same place in another history."""
    return kernel.Head(tx=head.tx, hash=head.hash, trace="0" * 64, signature=head.signature)
