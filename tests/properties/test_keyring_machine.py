"""Keys that are made, rotated, revoked and that expire, in every order, against a naive list of which token holds until when.

The real path: the verbs of `cycle.keyring` over facts in memory, and `Keys` as a server asks it. After each step every token
that ever was is tried; at the end nothing that was recorded holds any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flyball._kernel.errors import StateError
from flyball.cycle import audit, keyring
from flyball.cycle.keyring import Issued, Rotation, Wanted
from flyball.serve import auth
from flyball.serve.auth import Key, Keys
from flyball.serve.guard import Refused
from tests.loops import World

START = datetime(2026, 11, 20, tzinfo=UTC)
NAMES = st.sampled_from(["ada", "billing", "shop"])
SPANS = st.sampled_from([timedelta(0), timedelta(hours=1), timedelta(days=1), timedelta(days=90)])
OWNER = "owner-" + "x" * 40


@dataclass
class Token:
    """What a person would say of one: whose it is, and until when it holds (None: for good)."""

    name: str
    text: str
    until: datetime | None


class Machine(RuleBasedStateMachine):
    """A world whose keys lie in a tuple."""

    @initialize()
    def begin(self) -> None:
        self.kept: tuple[Key, ...] = (Key(name="local", sha256=auth.digest(OWNER), scopes=auth.SCOPES),)
        world = World(keys=lambda: self.kept)
        world.to(START)
        self.session, self.clock, self.world = world.session(), world.clock, world
        self.server = Keys(lambda: self.kept, self.clock)
        self.tokens = [Token("local", OWNER, None)]
        self.scopes: dict[str, frozenset[auth.Scope]] = {"local": auth.SCOPES}
        self.ends: dict[str, datetime | None] = {"local": None}

    def store(self, keys: tuple[Key, ...]) -> None:
        self.kept = keys

    def refused(self, code: str, do: Any, *arguments: Any, **named: Any) -> None:
        before, head = self.kept, self.session.facts.head()
        with pytest.raises(StateError, match=code):
            do(self.session, self.store, *arguments, **named)
        assert (self.kept, self.session.facts.head()) == (before, head), "what is refused changes nothing"

    def issued(self, done: Issued) -> None:
        assert done.token not in repr(done) and all(done.token != each.text for each in self.tokens)
        self.tokens.append(Token(done.key.name, done.token, done.key.expires))

    @rule(name=NAMES, scopes=st.sets(st.sampled_from(sorted(auth.SCOPES)), min_size=1), span=st.none() | SPANS)
    def make(self, name: str, scopes: set[auth.Scope], span: timedelta | None) -> None:
        expires = self.clock.now() + span if span else None
        wanted = Wanted(name, frozenset(scopes), expires)
        if name in self.ends:
            self.refused("key-name-taken", keyring.make, wanted, by="local")
            return
        self.issued(keyring.make(self.session, self.store, wanted, by="local"))
        self.scopes[name], self.ends[name] = frozenset(scopes), expires

    @rule(name=st.sampled_from(["loop", "rehearsal"]))
    def nobody_acts_under_the_name_of_flyball_itself(self, name: str) -> None:
        self.refused("key-name-taken", keyring.make, Wanted(name, auth.SCOPES), by="local")

    @rule(name=NAMES | st.just("local"), grace=SPANS, span=st.none() | SPANS, placed=st.booleans())
    def rotate(self, name: str, grace: timedelta, span: timedelta | None, placed: bool) -> None:
        now, there = self.clock.now(), list[str]()
        expires = now + span if span else None
        wanted = Rotation(name, grace, expires, "a habit", there.append if placed else None)
        if name not in self.ends:
            self.refused("no-such-key", keyring.rotate, wanted, by="local")
            return
        end = self.ends[name]
        if expires is None and end is not None and end <= now:
            self.refused("key-expired", keyring.rotate, wanted, by="local")
            return
        done = keyring.rotate(self.session, self.store, wanted, by="local")
        assert there == ([done.token] if placed else [])
        for token in self.tokens:
            if token.name == name:
                token.until = min(t for t in (token.until, end, now + grace) if t is not None)
        self.ends[name] = expires or end
        self.issued(done)

    @rule(name=NAMES | st.just("local"))
    def revoke(self, name: str) -> None:
        if name not in self.ends:
            self.refused("no-such-key", keyring.revoke, name, by="local", reason="")
            return
        now = self.clock.now()
        others = [n for n, s in self.scopes.items() if n != name and "admin" in s and not self.over(self.ends[n], now)]
        if "admin" in self.scopes[name] and not others:
            self.refused("last-admin-key", keyring.revoke, name, by="local", reason="")
            return
        keyring.revoke(self.session, self.store, name, by="local", reason="left")
        for token in self.tokens:
            token.until = now if token.name == name else token.until
        del self.ends[name], self.scopes[name]

    @rule(span=SPANS)
    def time_goes_by(self, span: timedelta) -> None:
        self.clock.advance(span)

    @staticmethod
    def over(until: datetime | None, now: datetime) -> bool:
        return until is not None and until <= now

    @invariant()
    def every_token_holds_as_one_would_say(self) -> None:
        now = self.clock.now()
        for token in self.tokens:
            end = self.ends.get(token.name)
            holds = token.name in self.ends and not self.over(token.until, now) and not self.over(end, now)
            for scope in ("admin", "label"):
                try:
                    found = self.server.who({b"authorization": f"Bearer {token.text}".encode()}, scope)  # type: ignore[arg-type]
                except Refused:
                    found = ""
                may = holds and scope in self.scopes[token.name]
                assert found == (token.name if may else ""), (token, scope)

    def teardown(self) -> None:
        if not hasattr(self, "tokens"):
            return
        written = b"".join(fact.said + fact.measured for fact in self.session.facts.read()) + msgspec.json.encode(
            self.kept
        )
        deeds = repr(audit.deeds(self.session))
        for token in self.tokens:
            assert token.text.encode() not in written and token.text not in deeds
            assert auth.digest(token.text) not in deeds
        self.session.facts.verify()


TestKeyring = Machine.TestCase
TestKeyring.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
