"""Ids that sort by time and never repeat: not between threads, and not between a process and its child."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from flyball._kernel import ids

NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)


def test_an_id_is_a_uuid_of_version_seven() -> None:
    made = UUID(ids.uuid7(NOON))
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == int(NOON.timestamp() * 1000)


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


def test_a_child_process_does_not_continue_its_parents_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    ids.uuid7(NOON)
    left = ids._noise.left
    monkeypatch.setattr(os, "getpid", lambda: -1)
    ids.uuid7(NOON)
    assert ids._noise.left is not left
