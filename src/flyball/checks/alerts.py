"""What every channel of alerts does. Subclass `AlertsSuite`, supply its fixtures, and run it with pytest."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from flyball._kernel.facts import Fact, Said
from flyball._kernel.ports import Facts
from flyball.checks.clock import START
from flyball.watch import alert
from flyball.watch.alert import Alert, Alerts


class Aborted(Said, frozen=True, kw_only=True, tag="release.aborted"):
    """A fact that is an alert."""

    version: str
    reason: str = "slow"


class Paused(Said, frozen=True, kw_only=True, tag="release.paused"):
    """A fact that is none."""

    reason: str = ""


def one(seq: int, text: str = 'ünïcödé and "quotes"') -> Alert:
    """An alert."""
    return Alert(
        seq=seq,
        at=START + timedelta(seconds=seq, microseconds=1),
        app="shop",
        model="orders",
        kind="release.aborted",
        title="orders: orders-2 was aborted",
        text=text,
        severity="warning",
    )


class AlertsSuite:
    """The behaviour of a channel."""

    @pytest.fixture
    def alerts(self) -> Alerts:
        """A channel to which nothing was sent."""
        raise NotImplementedError

    @pytest.fixture
    def again(self) -> Callable[[], Alerts]:
        """Opens the same channel once more, as after a restart."""
        raise NotImplementedError

    @pytest.fixture
    def arrived(self) -> Callable[[], list[Alert]]:
        """What came out at the other end, in order."""
        raise NotImplementedError

    @pytest.fixture
    def log(self) -> Facts:
        """An empty log of facts."""
        raise NotImplementedError

    def test_nothing_was_sent(self, alerts: Alerts, arrived: Callable[[], list[Alert]]) -> None:
        """The position is before the first fact."""
        assert alerts.position() == 0
        assert arrived() == []

    def test_what_is_sent_arrives_as_it_is(self, alerts: Alerts, arrived: Callable[[], list[Alert]]) -> None:
        """In order; numbers may be far apart, as most facts are no alerts."""
        sent = [one(3), one(4, "x" * alert.TEXT), one(2**31, "")]
        for each in sent:
            alerts.send(each)
            assert alerts.position() == each.seq
        assert arrived() == sent

    def test_the_position_survives(
        self, alerts: Alerts, again: Callable[[], Alerts], arrived: Callable[[], list[Alert]]
    ) -> None:
        """What was sent before a restart is not sent after it."""
        alerts.send(one(7))
        assert again().position() == 7
        for each in (one(6), one(7), one(8)):
            again().send(each)
        assert [each.seq for each in arrived()] == [7, 8]
        assert again().position() == 8

    def test_facts_are_delivered_once(
        self, alerts: Alerts, again: Callable[[], Alerts], arrived: Callable[[], list[Alert]], log: Facts
    ) -> None:
        """Those of the app that are alerts, however often and by whom it is tried."""
        said = [Fact("shop", "orders", Aborted(version="a")), Fact("shop", "", Paused()), Fact("other", "", Paused())]
        log.append([*said, Fact("other", "orders", Aborted(version="b"))])
        first = alert.deliver(log, alerts, "shop")
        assert (first.sent, first.problem) == (1, None)
        log.append([Fact("shop", "orders", Aborted(version="c"))])
        assert alert.deliver(log, again(), "shop", first.through).sent == 1
        assert alert.deliver(log, again(), "shop").sent == 0
        assert [each.title for each in arrived()] == ["orders: a was aborted", "orders: c was aborted"]
        assert [each.seq for each in arrived()] == [1, 5]
