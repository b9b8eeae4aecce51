"""schemathesis against the description that the server gives of itself: what it says is what is done.

It makes requests that the OpenAPI document allows and such that it forbids, with and without keys and under other methods,
and looks at each answer: no failure of the server, a status, a media type, headers and a body that are described.
Where JSON Schema cannot say what is allowed (that an outcome names one target, that tensors agree in length), what it
allows may be refused; and of rows that are pushed, and of CSV, what it forbids may be taken. Our own questions are held to all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import BaseSchema, Case, GenerationMode, openapi
from schemathesis.checks import CHECKS, load_all_checks

from flyball.adapters.embedded.clock import SystemClock
from flyball.serve import auth
from flyball.serve.auth import SCOPES, Key, Keys
from flyball.serve.rates import Rate
from tests.attacks import hostile
from tests.live import Live, live

EXAMPLES = int(os.environ.get("FLYBALL_SCHEMATHESIS", "3"))
"""Requests an operation; by hand a hundred times as many."""
TOKEN = "flyball_everything"
KEY = {"Authorization": f"Bearer {TOKEN}"}

load_all_checks()
ALLOWED, FORBIDDEN = (CHECKS.get_one(f"{name}") for name in ("positive_data_acceptance", "negative_data_rejection"))


def undecided(path: str) -> list[object]:
    """The checks that ask of JSON Schema what it cannot say there."""
    if path.startswith("/predict"):
        return []
    return [ALLOWED, FORBIDDEN] if path.startswith(("/ingest", "/invocations")) else [ALLOWED]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Exposed, with everything on; the key may all but operate, since a version that is named is rarely there."""
    known = (Key(name="all", sha256=auth.digest(TOKEN), scopes=frozenset(SCOPES - {"operate"})),)
    with pytest.MonkeyPatch.context() as patch:
        # Tokens that nobody has are tried on every operation: else they would be put off, as guesses are (429).
        patch.setattr(auth, "UNKNOWN", Rate(per_second=1e6, burst=1_000_000))
        keys = Keys(lambda: known, SystemClock()).freeing(frozenset())
    ground = hostile.exposed() | {"keys": keys}
    with live(tmp_path_factory.mktemp("described"), **ground) as found:
        yield found


@pytest.fixture(scope="module")
def described(shop: Live) -> BaseSchema:
    """What the server says of itself."""
    return openapi.from_url(f"http://127.0.0.1:{shop.port}/openapi.json", headers=KEY)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_what_it_says_is_what_it_does(described: BaseSchema, mode: GenerationMode) -> None:
    """Every operation of the document; "positive" is what it allows, "negative" what it forbids."""
    asked = 0
    for found in described.get_all_operations():
        operation = found.ok()

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def run(case: Case) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(headers=KEY, excluded_checks=undecided(case.operation.path))

        try:
            run()
        except Unsatisfiable:  # nothing can be sent that it forbids
            assert mode is GenerationMode.NEGATIVE and operation.method == "get"
    assert asked >= 20
