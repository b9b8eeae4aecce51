"""What every store of online features does. Subclass `OnlineSuite`, supply the fixture `online`, and run it with pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import pytest

from flyball._kernel.errors import StateError
from flyball.learn.features.meaning import NEVER
from flyball.learn.features.online import NOTHING, Change, Of, Online, Step, Version, View

SERIES, OTHER = "a" * 64, "b" * 64
WIDE = 2**100 + 1
"""A total that needs more than 64 bits."""


def version(key: bytes, known: int, until: int = NEVER, event: int | None = 0, batch: int = 1) -> Version:
    """A version of the entity "x"."""
    return Version(key, known, batch, until, "x", event, NEVER, b"%d" % known)


def change(
    versions: Sequence[Version] = (), steps: Sequence[Step] = (), since: int = NOTHING, position: int = 1
) -> Change:
    """A change of `SERIES`."""
    return Change(SERIES, since, position, versions, steps)


@dataclass
class Failing(Sequence[Version]):
    """Two versions, of which the second cannot be had."""

    first: Version

    def __len__(self) -> int:
        return 2

    @overload
    def __getitem__(self, place: int) -> Version: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Version]: ...
    def __getitem__(self, place: int | slice) -> Version | Sequence[Version]:
        return self.first

    def __iter__(self) -> Iterator[Version]:
        yield self.first
        raise OSError("gone")


def _refuses(online: Online) -> None:
    asks: list[Callable[[View], object]] = [
        lambda view: view.total(SERIES, 0, "x", NEVER),
        lambda view: view.tails(SERIES, {(0, "x"): 0}),
        lambda view: view.chains(SERIES, [b"k"]),
        lambda view: view.values(SERIES, "x", 0, NEVER, b""),
        lambda view: view.chain(SERIES, b"k"),
        lambda view: view.latest(SERIES, "x", NEVER, NEVER, b""),
    ]
    for ask in asks:
        with online.view() as view, pytest.raises(StateError, match="features-not-online"):
            ask(view)


class ViewSuite:
    """What is looked up in a store, and what it says of its size."""

    def test_a_series_is_as_large_as_what_it_holds(self, online: Online) -> None:
        """Numbers count 8, wide ones their digits, text and bytes what they are; what is dropped counts no more."""
        assert dict(online.sizes()) == {}
        online.commit([change(), replace(change(), series=OTHER)])
        assert dict(online.sizes()) == {SERIES: 0, OTHER: 0}
        known = [version(b"key", 10), version(b"key", 20)._replace(entity=None, event=None, value=None)]
        steps = [Step(0, "\u00e4", 10, 1, 7), Step(5, 12, 10, 1, WIDE)]
        online.commit([change(known, steps, since=1)])
        one, other = len(b"key") + 4 * 8 + len("x") + 8 + 8 + len(b"10"), len(b"key") + 5 * 8
        assert dict(online.sizes()) == {SERIES: one + other + (8 + 2 + 24) + (32 + len(str(WIDE))), OTHER: 0}
        online.keep({OTHER})
        assert dict(online.sizes()) == {OTHER: 0}

    def test_a_total_is_of_the_last_step_strictly_before(self, online: Online) -> None:
        """Of that series, span and entity alone."""
        steps = [Step(0, "x", 10, 1, 5), Step(0, "x", 20, 2, -7), Step(3, "x", 11, 9, 9), Step(0, "y", 11, 8, 8)]
        online.commit([change(steps=steps)])
        with online.view() as view:
            found = [view.total(SERIES, 0, "x", before) for before in (10, 11, 20, 21, NEVER)]
            assert found == [(0, 0), (1, 5), (1, 5), (2, -7), (2, -7)]
            assert view.total(SERIES, 3, "x", 12) == (9, 9)
            assert view.total(SERIES, 0, "y", 12) == (8, 8)

    def test_totals_are_exact_beyond_64_bits(self, online: Online) -> None:
        """In steps and in versions, of either sign."""
        wide = version(b"k", 1)._replace(value=-WIDE)
        online.commit([change([wide], [Step(0, "x", 1, 1, WIDE), Step(0, "x", 2, 2, -WIDE)])])
        with online.view() as view:
            assert view.total(SERIES, 0, "x", 2) == (1, WIDE)
            assert view.total(SERIES, 0, "x", 3) == (2, -WIDE)
            assert view.tails(SERIES, {(0, "x"): 1}) == {(0, "x"): {1: (1, WIDE), 2: (2, -WIDE)}}
            assert list(view.chain(SERIES, b"k")) == [wide]

    def test_entities_are_told_by_type(self, online: Online) -> None:
        """Text that looks like a number is text."""
        steps = [Step(0, "1", 1, 1, 1), Step(0, 1, 1, 2, 2), Step(0, "", 1, 3, 3), Step(0, "a\0b", 1, 4, 4)]
        online.commit([change(steps=steps)])
        with online.view() as view:
            assert [view.total(SERIES, 0, e, 2)[0] for e in ("1", 1, "", "a\0b", "a")] == [1, 2, 3, 4, 0]

    def test_a_tail_begins_with_the_step_before(self, online: Online) -> None:
        """So that it can be mended from there on."""
        online.commit([change(steps=[Step(0, "x", at, at, at) for at in (30, 10, 20)])])
        with online.view() as view:
            whole = {at: (at, at) for at in (10, 20, 30)}
            assert view.tails(SERIES, {(0, "x"): 20}) == {(0, "x"): whole}
            assert view.tails(SERIES, {(0, "x"): 31}) == {(0, "x"): {30: (30, 30)}}
            assert view.tails(SERIES, {(0, "x"): 5}) == {(0, "x"): whole}

    def test_many_are_asked_for_at_once(self, online: Online) -> None:
        """Each as if alone; whoever has nothing is not there."""
        many = range(1_000)
        versions = [version(b"%04d" % n, known) for n in many for known in (1, 2)]
        steps = [Step(n % 3, f"e{n}", at, n, at) for n in many for at in (5, 9)]
        online.commit([change(versions, steps)])
        with online.view() as view:
            chains = view.chains(SERIES, [*(b"%04d" % n for n in many), b"nobody"])
            assert chains == {key: list(view.chain(SERIES, key)) for key in chains}
            assert len(chains) == len(many)
            asked: dict[Of, int] = {(n % 3, f"e{n}"): 6 + n % 5 for n in many}
            tails = view.tails(SERIES, {**asked, (1, "nobody"): 0, (2, "e0"): 0})
            assert tails == {of: view.tails(SERIES, {of: since})[of] for of, since in asked.items()}

    def test_values_are_of_a_span_and_current(self, online: Online) -> None:
        """From the first moment on, up to before the question; known, not ended, and not of the question's own key."""
        rows = [
            version(b"a", 1, event=10)._replace(settled=0, value=1.5),
            version(b"b", 1, event=20)._replace(settled=0, value=7),
            version(b"c", 1, event=30)._replace(settled=0, value=b"text"),
            version(b"d", 25, event=15)._replace(settled=0, value=4),
            version(b"e", 1, until=24, event=15)._replace(settled=0, value=5),
            version(b"f", 1, event=15)._replace(settled=0, value=6, entity="y"),
            version(b"h", 1, event=15)._replace(settled=90, value=9),
            version(b"g", 1, event=None)._replace(settled=0, value=8),
        ]
        online.commit([change(rows)])
        with online.view() as view:

            def values(since: int, asked: int, own: bytes = b"") -> list[object]:
                return sorted(view.values(SERIES, "x", since, asked, own), key=str)

            found = [values(10, 25), values(11, 25), values(10, 20), values(10, 26), values(20, 31), values(10, 24)]
            assert found == [[1.5, 7], [7], [1.5, 5], [1.5, 4, 7], [7, b"text"], [1.5, 5, 7]]
            assert values(10, 24, b"e") == [1.5, 7]

    def test_the_latest_is_the_greatest_that_is_current(self, online: Online) -> None:
        """Known before, ended not before, about a time below; never of the own key."""
        old, new = version(b"a", 10, until=20, event=100), version(b"b", 15, event=90)
        future = version(b"c", 12, event=200)
        online.commit([change([future, new, old])])
        with online.view() as view:
            found = [view.latest(SERIES, "x", asked, 150, b"") for asked in (10, 11, 20, 21)]
            assert found == [None, old, old, new]
            assert view.latest(SERIES, "x", 20, 100, b"") == new
            assert view.latest(SERIES, "x", 20, 101, b"") == old
            assert view.latest(SERIES, "x", 20, 150, b"a") == new
            assert view.latest(SERIES, "x", 20, 201, b"a") == future
            assert view.latest(SERIES, "x", 14, 150, b"a") is None
            assert view.latest(SERIES, "y", 20, 150, b"") is None

    def test_ties_go_to_the_last_known_then_the_last_batch_then_the_greatest_key(self, online: Online) -> None:
        """Whatever order they came in."""
        ranked = [
            version(b"d", 4, event=1, batch=2),
            version(b"c", 4, event=1, batch=1),
            version(b"b", 4, event=1, batch=1),
            version(b"z", 3, event=1, batch=3),
        ]
        online.commit([change([ranked[2], ranked[0], ranked[3], ranked[1]])])
        with online.view() as view:
            assert view.latest(SERIES, "x", 9, 9, b"") == ranked[0]
            assert view.latest(SERIES, "x", 9, 9, b"d") == ranked[1]
        online.commit([change([ranked[0]._replace(until=5), ranked[1]._replace(until=6)], since=1, position=2)])
        with online.view() as view:
            assert view.latest(SERIES, "x", 6, 9, b"") == ranked[1]._replace(until=6)
            assert view.latest(SERIES, "x", 7, 9, b"") == ranked[2]
            assert view.latest(SERIES, "x", 7, 9, b"b") == ranked[3]

    def test_windows_and_the_unnamed_are_never_latest(self, online: Online) -> None:
        """A version without an event time, or of no entity, is only in its chain."""
        bare = [version(b"a", 1, event=None), version(b"b", 1)._replace(entity=None)]
        online.commit([change(bare)])
        with online.view() as view:
            assert view.latest(SERIES, "x", 9, 9, b"") is None
            assert [*view.chain(SERIES, b"a"), *view.chain(SERIES, b"b")] == bare


class OnlineSuite(ViewSuite):
    """The behaviour of a store of online features."""

    @pytest.fixture
    def online(self) -> Online:
        """The store under test, empty."""
        raise NotImplementedError

    def test_what_was_never_filled_is_not_empty(self, online: Online) -> None:
        """Asking it is refused, before there is anything and after it was dropped."""
        assert online.position(SERIES) is None
        _refuses(online)
        online.commit([change()])
        with online.view() as view:
            assert view.total(SERIES, 0, "x", NEVER) == (0, 0)
            assert dict(view.tails(SERIES, {(0, "x"): 0})) == {}
            assert dict(view.chains(SERIES, [b"k"])) == {}
            assert list(view.values(SERIES, "x", 0, NEVER, b"")) == []
            assert list(view.chain(SERIES, b"k")) == []
            assert view.latest(SERIES, "x", NEVER, NEVER, b"") is None
        online.keep(())
        _refuses(online)

    def test_a_series_is_known_with_its_position(self, online: Online) -> None:
        """Also one that has seen no batch yet."""
        online.commit([change(position=NOTHING)])
        assert online.position(SERIES) == NOTHING
        online.commit([change(position=7)])
        assert online.position(SERIES) == 7
        assert online.position(OTHER) is None

    def test_what_is_committed_again_replaces(self, online: Online) -> None:
        """A step by its moment, a version by key, known time and batch."""
        online.commit([change([version(b"k", 5)], [Step(0, "x", 1, 1, 1)])])
        ended, next_ = version(b"k", 5, until=9), version(b"k", 9, batch=2)
        online.commit([change([next_, ended], [Step(0, "x", 1, 2, 2)], since=1, position=2)])
        with online.view() as view:
            assert list(view.chain(SERIES, b"k")) == [ended, next_]
            assert view.total(SERIES, 0, "x", 2) == (2, 2)
            assert view.latest(SERIES, "x", 9, NEVER, b"") == ended
            assert view.latest(SERIES, "x", 10, NEVER, b"") == next_

    def test_a_change_decided_upon_another_state_is_refused(self, online: Online) -> None:
        """With all that comes with it: a batch is never applied twice."""
        online.commit([change([version(b"k", 1)])])
        later = Change(OTHER, NOTHING, 1, [version(b"o", 1)], [Step(0, "x", 1, 1, 1)])
        for since in (NOTHING, 2):
            with pytest.raises(StateError, match="online-moved-on"):
                online.commit([later, change([version(b"k", 2)], since=since, position=2)])
        assert online.position(SERIES) == 1
        assert online.position(OTHER) is None
        with online.view() as view:
            assert list(view.chain(SERIES, b"k")) == [version(b"k", 1)]

    def test_a_commit_that_fails_changes_nothing(self, online: Online) -> None:
        """Whatever failed, and the store works on."""
        online.commit([change([version(b"k", 1)])])
        with pytest.raises(OSError, match="gone"):
            online.commit([change(Failing(version(b"l", 1)), [Step(0, "x", 1, 1, 1)], since=1, position=2)])
        assert online.position(SERIES) == 1
        with online.view() as view:
            assert list(view.chain(SERIES, b"l")) == []
        online.commit([change([version(b"l", 1)], since=1, position=2)])
        assert online.position(SERIES) == 2

    def test_only_what_is_kept_stays(self, online: Online) -> None:
        """A series that comes back begins anew."""
        both = [change([version(b"k", 1)], [Step(0, "x", 1, 1, 1)]), Change(OTHER, NOTHING, 4, [version(b"o", 1)], [])]
        online.commit(both)
        online.keep({OTHER})
        assert (online.position(SERIES), online.position(OTHER)) == (None, 4)
        online.commit([change()])
        with online.view() as view:
            assert list(view.chain(SERIES, b"k")) == []
            assert view.total(SERIES, 0, "x", 2) == (0, 0)
            assert list(view.chain(OTHER, b"o")) == [version(b"o", 1)]

    def test_a_refill_takes_the_place_of_all_that_was_there(self, online: Online) -> None:
        """Whatever its position; other series stay, and one that was never filled is."""
        old = [version(b"k", 1), version(b"l", 2, event=7)]
        online.commit([change(old, [Step(0, "x", 1, 1, 1), Step(3, "y", 1, 1, 1)], position=5)])
        online.commit([Change(OTHER, NOTHING, 4, [version(b"o", 1)], [])])
        third = "c" * 64
        online.refill([change([version(b"l", 2)], [Step(0, "x", 2, 1, 9)], since=77, position=5)])
        online.refill([Change(third, NOTHING, 2, [version(b"t", 1)], [])])
        assert [online.position(series) for series in (SERIES, OTHER, third)] == [5, 4, 2]
        with online.view() as view:
            assert list(view.chain(SERIES, b"k")) == []
            assert list(view.chain(SERIES, b"l")) == [version(b"l", 2)]
            assert view.latest(SERIES, "x", 9, 9, b"") == version(b"l", 2)
            assert (view.total(SERIES, 0, "x", 2), view.total(SERIES, 0, "x", 3)) == ((0, 0), (1, 9))
            assert view.total(SERIES, 3, "y", 9) == (0, 0)
            assert list(view.chain(OTHER, b"o")) == [version(b"o", 1)]
            assert list(view.chain(third, b"t")) == [version(b"t", 1)]

    def test_a_refill_that_fails_changes_nothing(self, online: Online) -> None:
        """All that was there is there still."""
        online.commit([change([version(b"k", 1)])])
        with pytest.raises(OSError, match="gone"):
            online.refill([change(Failing(version(b"l", 1)))])
        with online.view() as view:
            assert list(view.chain(SERIES, b"k")) == [version(b"k", 1)]

    def test_a_withdrawal_takes_out_what_is_named_and_every_other_series(self, online: Online) -> None:
        """Versions and steps by their identity; what has the same identity as something new is replaced."""
        old = [version(b"k", 1, until=2), version(b"k", 2, event=7), version(b"l", 1, event=9)]
        online.commit([change(old, [Step(0, "x", 1, 1, 1), Step(0, "x", 2, 2, WIDE), Step(3, "x", 1, 5, 5)])])
        online.commit([Change(OTHER, NOTHING, 4, [version(b"o", 1)], [])])
        gone, spent = [(b"k", 2, 1), (b"l", 1, 1), (b"m", 1, 1)], [(0, "x", 1), (3, "x", 1), (3, "y", 1)]
        with pytest.raises(StateError, match="online-moved-on"):
            online.withdraw([Change(SERIES, 7, 7, [], [], gone, spent)], {SERIES})
        assert online.position(OTHER) == 4
        online.withdraw([Change(SERIES, 1, 1, [version(b"k", 1)], [Step(0, "x", 2, 1, 3)], gone, spent)], {SERIES})
        assert (online.position(SERIES), online.position(OTHER)) == (1, None)
        with online.view() as view:
            assert list(view.chain(SERIES, b"k")) == [version(b"k", 1)]
            assert list(view.chain(SERIES, b"l")) == []
            assert view.latest(SERIES, "x", 9, 99, b"") == version(b"k", 1)
            assert view.tails(SERIES, {(0, "x"): 0, (3, "x"): 0}) == {(0, "x"): {2: (1, 3)}}
