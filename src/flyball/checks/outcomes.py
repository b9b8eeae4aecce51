"""What every store of outcomes does. Subclass `OutcomesSuite`, supply the fixture `outcomes`, and run it with pytest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
from msgspec import structs

from flyball._kernel import ids
from flyball.checks.clock import START
from flyball.serve.outcomes import Counts, New, Outcomes

PREDICTION = ids.uuid7(START, b"prediction")


def new(value: float | None = 1.0, *, n: int = 0, prediction: str = PREDICTION, key: str = "", model: str = "m") -> New:
    """An outcome, received `n` seconds after the start, of which nobody said when it settled."""
    return New(
        received=START + timedelta(seconds=n),
        by="billing",
        model=model,
        prediction="" if key else prediction,
        key=key,
        value=value,
        settled=None,
    )


def settled(new: New, days: int = 1) -> New:
    """The same, said to have settled so many days (and a microsecond) before the start."""
    return structs.replace(new, settled=START - timedelta(days=days, microseconds=1))


class OutcomesSuite:
    """The behaviour of a store of outcomes."""

    @pytest.fixture
    def outcomes(self) -> Outcomes:
        """An empty store."""
        raise NotImplementedError

    def test_an_empty_store_is_empty(self, outcomes: Outcomes) -> None:
        """And posting nothing leaves it so."""
        assert outcomes.post([]) == []
        assert list(outcomes.read()) == []
        assert outcomes.counts() == {}

    def test_what_is_posted_is_read_as_it_was(self, outcomes: Outcomes) -> None:
        """In the order of receipt, with every field, exactly."""
        key = '{"order_id":"ö \\u0000 \'"}'
        posted = [
            settled(new(0.1, n=2)),
            settled(new(None, n=1, key=key), 2),
            settled(new(-1e308, key=key, model="o"), 0),
        ]
        assert outcomes.post(posted) == ["accepted"] * 3
        found = list(outcomes.read())
        assert [each.seq for each in found] == sorted(each.seq for each in found)
        assert found[0].seq > 0
        fields = New.__struct_fields__
        assert [[getattr(each, f) for f in fields] for each in found] == [
            [getattr(p, f) for f in fields] for p in posted
        ]
        assert all(each.received.utcoffset() == timedelta(0) for each in found)

    @pytest.mark.parametrize("value", [1.0, 0.0, None])
    def test_a_repeat_is_not_stored(self, outcomes: Outcomes, value: float | None) -> None:
        """Whenever it comes, in one post or in another, and whoever sends it; void is a value too."""
        assert outcomes.post([new(value), new(value, n=1)]) == ["accepted", "repeated"]
        assert outcomes.post([new(value, n=2, model="")]) == ["repeated"]
        (row,) = outcomes.read()
        assert row.received == START

    def test_what_nobody_dated_settled_when_it_was_received(self, outcomes: Outcomes) -> None:
        """To the microsecond."""
        outcomes.post([new(n=5)])
        (row,) = outcomes.read()
        assert row.settled == row.received == START + timedelta(seconds=5)

    @pytest.mark.parametrize("value", [1.0, None])
    def test_another_time_of_settling_is_a_correction(self, outcomes: Outcomes, value: float | None) -> None:
        """Of a value that stays; the same time again, and no time at all, are repeats."""
        first, second = settled(new(value), 3), settled(new(value, n=1), 2)
        assert outcomes.post([first, first, new(value, n=2)]) == ["accepted", "repeated", "repeated"]
        assert outcomes.post([second, second, first]) == ["corrected", "repeated", "corrected"]
        assert [row.settled for row in outcomes.read()] == [first.settled, second.settled, first.settled]

    def test_a_correction_is_a_row_of_its_own(self, outcomes: Outcomes) -> None:
        """The last one received counts, and an earlier value that comes back is a correction again."""
        values = [1.0, 0.0, None, None, 1.0]
        how = outcomes.post([new(value, n=n) for n, value in enumerate(values)])
        assert how == ["accepted", "corrected", "corrected", "repeated", "corrected"]
        assert [each.value for each in outcomes.read()] == [1.0, 0.0, None, 1.0]

    def test_targets_are_apart(self, outcomes: Outcomes) -> None:
        """Another prediction, another key, the same key of another model."""
        other = ids.uuid7(START, b"another id")
        posted = [new(), new(prediction=other), new(key="{}"), new(key='{"a":1}'), new(key="{}", model="other")]
        assert outcomes.post(posted) == ["accepted"] * 5
        assert outcomes.post(posted) == ["repeated"] * 5

    def test_a_prediction_is_one_target_with_and_without_its_model(self, outcomes: Outcomes) -> None:
        """Its id says which one it is."""
        assert outcomes.post([new(1.0, model=""), new(0.0, model="m"), new(0.0, model="")]) == [
            "accepted",
            "corrected",
            "repeated",
        ]

    def test_a_reader_goes_on_where_it_stopped(self, outcomes: Outcomes) -> None:
        """By number, over any boundary of pages."""
        outcomes.post([new(float(n), key=f"{{{n}}}") for n in range(2500)])
        rows = list(outcomes.read())
        assert len(rows) == 2500
        for at in (0, 1, 998, 999, 1000, 1001, 2498, 2499):
            assert next(outcomes.read(rows[at].seq), None) == (rows[at + 1] if at < 2499 else None)
        outcomes.post([new()])
        (last,) = outcomes.read(rows[-1].seq)
        assert last.prediction == PREDICTION

    def test_counts(self, outcomes: Outcomes) -> None:
        """By model; a void that was corrected is none."""
        outcomes.post([new(None, key="{1}"), new(1.0, key="{1}"), new(1.0, key="{2}"), new(None, key="{2}")])
        outcomes.post([new(None, key="{2}", model="other"), new(3.0), new(3.0)])
        assert outcomes.counts() == {
            "m": Counts(targets=3, void=1, corrections=2),
            "other": Counts(targets=1, void=1, corrections=0),
        }

    def test_many_post_at_once(self, outcomes: Outcomes) -> None:
        """Each target is accepted once, numbers are unique, and a cursor beside the writers misses nothing."""
        with ThreadPoolExecutor(4) as pool:
            posts = [pool.submit(outcomes.post, [new(key=f"{{{n}}}") for n in range(50)]) for _ in range(8)]
            seen: list[str] = []
            cursor = 0
            while not all(post.done() for post in posts) or len(seen) < 50:
                for row in outcomes.read(cursor):
                    seen.append(row.key)
                    cursor = row.seq
        how = [each for post in posts for each in post.result()]
        assert (how.count("accepted"), how.count("repeated")) == (50, 350)
        assert sorted(seen) == sorted(f"{{{n}}}" for n in range(50))
        assert all(a.seq < b.seq for a, b in pairwise(outcomes.read()))

    def test_what_is_erased_is_gone_for_good(self, outcomes: Outcomes) -> None:
        """Numbers stay, cursors miss nothing, and the same outcome may come again as if for the first time."""
        outcomes.post([new(float(n), key=f"k{n % 3}") for n in range(6)])
        before = list(outcomes.read())
        assert outcomes.erase(lambda posted: posted.key == "k1") == 2
        kept = [row for row in before if row.key != "k1"]
        assert list(outcomes.read()) == kept
        assert list(outcomes.read(before[1].seq)) == kept[1:]
        assert sum(counts.targets for counts in outcomes.counts().values()) == 2
        assert outcomes.erase(lambda posted: posted.key == "k1") == 0
        assert outcomes.post([new(4.0, key="k1")]) == ["accepted"]
        assert next(outcomes.read(before[-1].seq)).key == "k1"
