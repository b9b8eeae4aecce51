"""Who is given to whom: sticky across processes, restarts, swaps and growing shares; independent between versions; fair."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyball.checks.clock import Wound
from flyball.serve import router
from flyball.serve.router import Beside, Routed, Router
from tests.live import Factor, plan

ASKED = datetime(2026, 11, 20, 10, tzinfo=UTC)
OLD = plan()
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
ENTITIES = st.lists(NAMES, min_size=1, max_size=12, unique=True)
SHARES = st.floats(0.0, 1.0, exclude_min=True)


def says(version: str) -> Any:
    return replace(OLD, version=version, predictor=Factor(0.25))


def chosen(table: Router, entities: list[str]) -> dict[str, str]:
    """Entity -> the version that answered it."""
    row = {"placed": ASKED, "category": "books", "price": 8.0, "customer": "c", "note": None}
    rows = [row | {"order_id": each} for each in entities]
    given = table.ask(table.ways["orders"], rows, ASKED, 0.0)
    return {n: g.answer.version for n, g in zip(entities, given, strict=True) if g.answer is not None}


@given(ENTITIES, NAMES, SHARES, SHARES, st.data())
@example(["a"], "v", 5e-324, 1.0, None)
@settings(max_examples=60, deadline=None)
def test_an_entity_stays_where_it_was(entities: list[str], version: str, one: float, other: float, data: Any) -> None:
    small, large = sorted((one, other))
    candidate = says(f"orders-{version}")
    one_process, another = Router(Wound()), Router(Wound())
    one_process.swap({"orders": Routed(1, OLD, candidate, small)})
    first = chosen(one_process, entities)
    assert set(first) == set(entities)
    # Another process, which has other models, other shadows, another order of questions, and was started later.
    shadows = (Beside(says("orders-9"), 0.5),)
    another.swap({"else": Routed(8, OLD), "orders": Routed(5, OLD, candidate, small, shadows=shadows)})
    shuffled = data.draw(st.permutations(entities)) if data is not None else entities
    assert chosen(another, list(shuffled)) == first
    one_process.swap({"orders": Routed(2, OLD, candidate, large), "else": Routed(9, OLD)})
    later = chosen(one_process, entities)
    assert all(later[each] == candidate.version for each in entities if first[each] == candidate.version)
    one_process.swap({"orders": Routed(3, OLD, candidate, small)})
    assert chosen(one_process, entities) == first, "and back, where a share shrinks"


def test_versions_are_independent_and_shares_are_right() -> None:
    """Five standard deviations of a binomial count: one in 1.7 million, and the lot is fixed, so it never flickers."""
    n, keys = 20_000, [f'{{"order_id":"o{i}"}}' for i in range(20_000)]
    first, second = ([router.lot(f"orders-{v}", key) for key in keys] for v in (2, 3))
    for share in (0.01, 0.05, 0.5, 0.9):
        for lots in (first, second):
            assert abs(sum(each < share for each in lots) - n * share) < 5 * math.sqrt(n * share * (1 - share))
    both = sum(a < 0.5 and b < 0.5 for a, b in zip(first, second, strict=True))
    assert abs(both - n / 4) < 5 * math.sqrt(n * 3 / 16)


def test_another_python_draws_the_same_lots() -> None:
    """Whatever seeds its own hashes: what was handed out is for good, so it is held by numbers."""
    code = "import json, flyball.serve.router as r; print(json.dumps([r.lot(f'm-{n}', 'é%d' % n) for n in range(20)]))"
    found = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, check=True
    )
    assert json.loads(found.stdout) == [router.lot(f"m-{n}", f"é{n}") for n in range(20)]
    assert [round(router.lot("m-1", key), 6) for key in ("a", "b")] == [0.077493, 0.242249]
