"""Errors, and the small words of the kernel: places, durations, ids, moments."""

from __future__ import annotations

import pickle
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

import flyball as fb
from flyball._kernel import clock, durations, errors, ids, place
from flyball._kernel.errors import FlyballError
from flyball._kernel.place import Place

LEAVES = [
    errors.DeclarationError,
    errors.DataError,
    errors.GateError,
    errors.StateError,
    errors.AdapterError,
    errors.RetryableError,
    errors.Bug,
]


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_error_is_caught_by_the_root_and_keeps_its_code(leaf: type[FlyballError]) -> None:
    with pytest.raises(FlyballError) as caught:
        raise leaf("some-slug", "It happened.")
    assert caught.value.code == "some-slug"
    assert type(caught.value) is leaf


def test_kinds_of_fault_do_not_catch_one_another() -> None:
    kinds = [leaf for leaf in LEAVES if leaf is not errors.RetryableError]
    assert not [(a, b) for a in kinds for b in kinds if a is not b and issubclass(a, b)]


def test_exit_codes_are_those_of_the_command_line() -> None:
    assert errors.DeclarationError.exit_code == 2
    assert errors.GateError.exit_code == 3
    assert {leaf.exit_code for leaf in (errors.DataError, errors.StateError, errors.AdapterError, errors.Bug)} == {1}


def test_only_the_retryable_error_asks_to_try_again() -> None:
    assert errors.RetryableError("x", "y").retryable
    assert not errors.AdapterError("x", "y").retryable


def test_a_message_says_what_where_why_and_next_in_that_order() -> None:
    error = errors.DataError("slug", "What.", where=Place("app.py", 7), why="Because.", next="flyball plan")
    assert str(error).splitlines() == [
        "What. [slug]",
        "  where: app.py:7",
        "  why:   Because.",
        "  next:  flyball plan",
    ]


def test_a_message_leaves_out_what_is_not_known() -> None:
    assert str(errors.Bug("slug", "What.")) == "What. [slug]"


def test_texts_are_bounded_however_large_the_data() -> None:
    huge = "x" * 1_000_000
    error = errors.DataError("slug", huge, why=huge, next=huge)
    assert len(str(error)) < 4 * errors.LIMIT
    assert "998,500 more characters" in error.what


@pytest.mark.parametrize("length", [0, 1, errors.LIMIT - 1, errors.LIMIT])
def test_what_fits_is_not_cut(length: int) -> None:
    assert errors.bounded("é" * length) == "é" * length


def test_what_just_does_not_fit_is_cut_and_counted() -> None:
    assert errors.bounded("abcdef", limit=4) == "abcd … (2 more characters)"


def test_an_error_survives_the_way_between_processes() -> None:
    error = errors.RetryableError("slug", "What.", where=Place("app.py", 7), why="w", next="n")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes, a moment old
    assert type(again) is errors.RetryableError
    assert str(again) == str(error)
    assert again.retryable


def test_here_is_the_line_of_the_caller() -> None:
    found = place.here()
    assert Path(found.file) == Path(__file__)
    assert "place.here()" in Path(__file__).read_text().splitlines()[found.line - 1]


def test_here_skips_the_house_and_finds_the_declaration() -> None:
    monitor = fb.Monitor("drift", fb.roc_auc >= 0.5)
    line = Path(__file__).read_text().splitlines()[monitor.place.line - 1]
    assert 'fb.Monitor("drift"' in line


def test_a_place_is_no_part_of_what_a_declaration_means() -> None:
    one = fb.Monitor("drift", fb.roc_auc >= 0.5)
    other = fb.Monitor("drift", fb.roc_auc >= 0.5)
    assert one.place != other.place
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("spelt", "seconds"),
    [
        (durations.days(2), 172_800),
        (durations.hours(3), 10_800),
        (durations.minutes(5), 300),
        (durations.seconds(7), 7),
        (durations.ms(2), 0.002),
        (durations.days(0.5), 43_200),
    ],
)
def test_durations_are_what_they_are_called(spelt: timedelta, seconds: float) -> None:
    assert spelt.total_seconds() == seconds


@pytest.mark.parametrize(
    ("duration", "spelling"),
    [
        (timedelta(days=7), "7d"),
        (timedelta(hours=24), "1d"),
        (timedelta(hours=6), "6h"),
        (timedelta(minutes=90), "90m"),
        (timedelta(seconds=45), "45s"),
        (timedelta(milliseconds=2), "2ms"),
        (timedelta(microseconds=1501), "1501us"),
        (timedelta(days=1, microseconds=1), "86400000001us"),
        (timedelta(0), "0d"),
    ],
)
def test_the_short_spelling_is_the_coarsest_exact_one(duration: timedelta, spelling: str) -> None:
    assert durations.short(duration) == spelling


def test_different_durations_never_share_a_spelling() -> None:
    many = [
        timedelta(microseconds=n) for k in (1, 1000, 1_000_000, 60_000_000, 3_600_000_000) for n in (k, k + 1, 24 * k)
    ]
    assert len({durations.short(d) for d in many}) == len(set(many))


EVENING = datetime(2013, 7, 1, 18, 30, 15, 123_456, tzinfo=UTC)


def test_an_id_is_a_uuid_of_version_7() -> None:
    found = uuid.UUID(ids.uuid7(EVENING))
    assert found.version == 7
    assert found.variant == uuid.RFC_4122
    assert found.int >> 80 == clock.micros(EVENING) // 1000


def test_ids_sort_by_time_as_text() -> None:
    moments = [EVENING + timedelta(milliseconds=n) for n in range(50)]
    made = [ids.uuid7(m) for m in moments]
    assert sorted(made) == made


def test_ids_of_one_moment_differ_and_those_of_one_seed_do_not() -> None:
    assert len({ids.uuid7(EVENING) for _ in range(1000)}) == 1000
    assert ids.uuid7(EVENING, bytes(range(10))) == ids.uuid7(EVENING, bytes(range(10)))


@pytest.mark.parametrize("bit", range(74))
def test_every_random_bit_of_an_id_counts(bit: int) -> None:
    still = ids.uuid7(EVENING, bytes(10))
    assert ids.uuid7(EVENING, (1 << bit).to_bytes(10, "big")) != still


def test_an_id_keeps_its_form_when_all_random_bits_are_set() -> None:
    found = uuid.UUID(ids.uuid7(EVENING, b"\xff" * 10))
    assert (found.version, found.variant) == (7, uuid.RFC_4122)


def test_a_digest_is_sha_256() -> None:
    assert ids.digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_keyed_hash_needs_the_key() -> None:
    # RFC 4231, test case 2.
    assert ids.keyed_hash(b"Jefe", "what do ya want for nothing?") == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    assert ids.keyed_hash(b"other", "N14228") != ids.keyed_hash(b"key", "N14228")


@pytest.mark.parametrize(
    "moment",
    [
        clock.EPOCH,
        EVENING,
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_microseconds_are_exact_both_ways(moment: datetime) -> None:
    assert clock.from_micros(clock.micros(moment)) == moment


def test_a_moment_in_another_zone_is_the_same_moment() -> None:
    there = EVENING.astimezone(timezone(timedelta(hours=-4)))
    assert clock.micros(there) == clock.micros(EVENING)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        clock.micros(datetime(2013, 7, 1))
