"""Class H, keys: guesses are put off wherever they seem to come from, a rate is the key's and no header's, and no token that
was sent is said again, logged, or counted.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flyball.checks.clock import Wound
from flyball.serve import auth
from flyball.serve.auth import UNKNOWN, Key, Keys
from flyball.serve.rates import Rate
from tests.attacks.hostile import kept, say
from tests.live import live

PROXIES = ("X-Forwarded-For", "X-Real-IP", "Forwarded", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP")
SLOW = Key(
    name="slow",
    sha256=auth.digest("flyball_slow"),
    scopes=frozenset({"read"}),
    rate=Rate(per_second=0.001, burst=3),
)
FAST = Key(name="fast", sha256=auth.digest("flyball_fast"), scopes=frozenset({"read"}))


def test_guesses_are_put_off_and_tokens_are_never_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    known = (SLOW, FAST)
    keys = Keys(lambda: known, Wound()).freeing(frozenset())  # no time passes, so no guess is forgiven meanwhile
    said = b""
    with live(tmp_path, keys=keys) as shop, kept(shop) as connection:

        def read(token: str, at: int) -> int:
            nonlocal said
            sent = {"Authorization": f"Bearer {token}", **dict.fromkeys(PROXIES, f"10.0.0.{at}")}
            reply = say(connection, "GET", f"/metrics?token={token}", sent)
            assert reply.status != 429 or int(reply.headers["retry-after"]) >= 1
            said += repr(reply.headers).encode() + reply.body
            return reply.status

        guesses = [read(f"flyball_guess{at}", at) for at in range(UNKNOWN.burst + 10)]
        assert guesses == [401] * UNKNOWN.burst + [429] * 10
        assert [read("flyball_fast", at) for at in range(5)] == [200] * 5, "whoever has a key is locked out by nobody"
        assert [read("flyball_slow", at) for at in range(5)] == [200] * 3 + [429] * 2, "and no header gives more"
    for token in ("flyball_guess", "flyball_slow", "flyball_fast"):
        assert token.encode() not in said and token not in caplog.text
        assert auth.digest(token) not in caplog.text
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"flyball_slow" not in stored and b"flyball_guess" not in stored
