"""Ids that sort by time and never repeat: not between threads, and not between a process and its child."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from flyball._kernel import ids
from flyball._kernel.clock import micros

NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)


def test_an_id_is_a_uuid_of_version_seven() -> None:
    made = UUID(ids.uuid7(NOON))
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == int(NOON.timestamp() * 1000)


def test_every_digit_of_an_id_that_may_vary_does() -> None:
    seen = [set(digits) for digits in zip(*(ids.uuid7(NOON) for _ in range(1000)), strict=True)]
    assert [len(each) for each in seen[:13]] == [1] * 13, "the time"
    assert seen[14] == {"7"} and seen[19] == set("89ab")
    varies = [n for n in range(15, 36) if n not in (18, 19, 23)]
    assert all(seen[n] == set("0123456789abcdef") for n in varies)
    assert {UUID(ids.uuid7(NOON)).version for _ in range(600)} == {7}


def test_ids_sort_by_time() -> None:
    moments = [NOON + timedelta(milliseconds=n) for n in range(100)]
    made = [ids.uuid7(moment) for moment in moments]
    assert made == sorted(made)


def test_the_same_entropy_is_the_same_id() -> None:
    assert ids.uuid7(NOON, bytes(10)) == ids.uuid7(NOON, bytes(10)) != ids.uuid7(NOON, b"\1" * 10)


def test_ids_of_many_threads_are_all_different() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [each for part in pool.map(lambda _: [ids.uuid7(NOON) for _ in range(1000)], range(16)) for each in part]
    assert len(set(made)) == 16_000


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_continue_its_parents_randomness() -> None:
    ids.uuid7(NOON)
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writes, ids.uuid7(NOON).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reads, 100).decode() not in {ids.uuid7(NOON) for _ in range(300)}
    os.close(reads)
    os.close(writes)


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    """The two are equal for Python, and an hour apart."""
    first = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    made = [ids.uuid7(first), ids.uuid7(first.replace(fold=1)), ids.uuid7(first + timedelta(hours=2))]
    assert [int(each.replace("-", "")[:12], 16) - micros(first) // 1000 for each in made] == [
        0,
        3_600_000,
        3 * 3_600_000,
    ]
