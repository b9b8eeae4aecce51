"""What every inbox does. Subclass `InboxSuite`, supply the fixture `inbox`, and run it with pytest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from flyball._kernel.errors import RetryableError, StateError
from flyball.serve.ingest import Body, Inbox

MOST = 1000
"""Bytes that an inbox under test holds for one source."""


def body(rows: bytes = b'{"id": 1}\n', by: str = "shop", told: str = "") -> Body:
    """What one request brings; without `told`, it is told by its content."""
    return Body(rows, by, told or f"content {rows!r}")


class InboxSuite:
    """The behaviour of an inbox."""

    @pytest.fixture
    def inbox(self) -> Inbox:
        """An empty inbox, which holds `MOST` bytes for each source."""
        raise NotImplementedError

    def test_an_empty_inbox_is_empty(self, inbox: Inbox) -> None:
        """And nobody needs to have pushed."""
        assert inbox.files("clicks") == ()
        assert inbox.read("clicks", body().file) is None
        inbox.drop("clicks", [body().file])
        inbox.drop("clicks", [])

    def test_what_is_accepted_waits_in_the_order_in_which_it_came(self, inbox: Inbox) -> None:
        """Each under its source, with its rows as they were."""
        sent = [body(b'{"id": "%d"}\n' % n) for n in (3, 1, 2, 11, 4)]
        assert [inbox.accept("clicks", each) for each in sent] == [True] * 5
        assert inbox.accept("orders", sent[0])
        assert inbox.files("clicks") == tuple(each.file for each in sent)
        assert [inbox.read("clicks", each.file) for each in sent] == [each.rows for each in sent]
        assert all(each.file.size == len(each.rows) and len(each.file.digest) == 64 for each in sent)

    def test_a_body_that_comes_again_is_one(self, inbox: Inbox) -> None:
        """Of the same sender; another may say the same."""
        assert inbox.accept("clicks", body())
        assert not inbox.accept("clicks", body())
        assert inbox.accept("clicks", body(by="till"))
        assert [file.name.partition("/")[0] for file in inbox.files("clicks")] == ["shop", "till"]

    def test_a_key_stands_for_one_body(self, inbox: Inbox) -> None:
        """While it waits."""
        inbox.accept("clicks", body(told="key 7"))
        assert not inbox.accept("clicks", body(told="key 7"))
        with pytest.raises(StateError) as refused:
            inbox.accept("clicks", body(b"{}\n", told="key 7"))
        assert refused.value.code == "idempotency-key-reused"
        assert inbox.accept("clicks", body(b"{}\n", told="key 8"))

    def test_what_is_dropped_is_gone_and_nothing_else(self, inbox: Inbox) -> None:
        """Another content that came under its name since is kept."""
        first, second = body(b"1\n"), body(b"2\n")
        inbox.accept("clicks", first)
        inbox.accept("clicks", second)
        inbox.drop("clicks", [first.file])
        assert inbox.files("clicks") == (second.file,)
        assert inbox.read("clicks", first.file) is None
        inbox.accept("clicks", body(b"3\n", told="key"))
        inbox.drop("clicks", [body(b"4\n", told="key").file])
        assert len(inbox.files("clicks")) == 2
        assert inbox.accept("clicks", first)
        assert inbox.files("clicks")[-1] == first.file

    def test_a_full_inbox_takes_nothing_more(self, inbox: Inbox) -> None:
        """Until something was dropped; other sources have room of their own."""
        large = body(b"x" * (MOST - 10) + b"\n")
        assert inbox.accept("clicks", large)
        with pytest.raises(RetryableError) as refused:
            inbox.accept("clicks", body(b"y" * 20))
        assert refused.value.code == "inbox-full"
        assert not inbox.accept("clicks", large)
        assert inbox.accept("orders", body(b"y" * 20))
        inbox.drop("clicks", [large.file])
        assert inbox.accept("clicks", body(b"y" * 20))

    def test_many_at_once(self, inbox: Inbox) -> None:
        """Each is taken once, whoever else sends it at the same moment."""
        sent = [body(b"%d\n" % (n % 10)) for n in range(40)]
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda each: inbox.accept("clicks", each), sent))
        assert sum(taken) == 10
        assert len(inbox.files("clicks")) == 10
