"""Whatever happens to a log, in whatever order: both adapters and ten lines of plain Python agree.

Random transactions, stale decisions, failing folds, clocks that go back, processes that restart knowing more or fewer
projections. After every step both logs have one chain and one trace, and the state that the plain model computes.
"""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flyball._kernel import facts as kernel
from flyball._kernel import history
from flyball._kernel.errors import StateError
from flyball._kernel.facts import Fact
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.memory.facts import Log, MemoryFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.checks.clock import START, Wound
from flyball.checks.facts import TALLY, TIMES, Added, Cleared, Noted, Refused, added

SIGNER = MemorySigner("machine")
KINDS = {"checks.added", "checks.cleared", "checks.noted"}

names = st.sampled_from(["", "a", "b", "a_", "é"])
said = st.one_of(st.builds(Added, n=st.integers(0, 9)), st.just(Cleared()), st.builds(Noted, text=st.text(max_size=5)))
measured = st.dictionaries(st.sampled_from(["seconds", "bytes"]), st.floats(0, 1e9), max_size=2)
transactions = st.lists(st.builds(Fact, app=names, model=names, said=said, measured=measured), min_size=1, max_size=4)


class FactsMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock, self.log = Wound(), Log()
        self.recorded: list[tuple[int, Fact]] = []
        self.anchors = [kernel.START]
        self.open_sql([TALLY])
        self.open_memory([TALLY])

    def open_sql(self, projections: list[kernel.Projection]) -> None:
        self.sql = SqlFacts(Path(self.folder.name) / "facts.sqlite", self.clock, SIGNER, projections)

    def open_memory(self, projections: list[kernel.Projection]) -> None:
        self.memory = MemoryFacts(self.clock, SIGNER, projections, self.log)

    @rule(facts=transactions)
    def append(self, facts: list[Fact]) -> None:
        head = self.sql.append(facts, expect=self.anchors[-1].tx)
        assert self.memory.append(facts) == head
        self.recorded += [(head.tx, fact) for fact in facts]
        self.anchors.append(head)

    @rule(facts=transactions, ago=st.integers(1, 3))
    def append_too_late(self, facts: list[Fact], ago: int) -> None:
        for log in (self.sql, self.memory):
            with pytest.raises(StateError, match="moved-on"):
                log.append(facts, expect=self.anchors[-1].tx - ago)

    @rule(facts=transactions, place=st.integers(0, 4), app=names)
    def append_what_does_not_fold(self, facts: list[Fact], place: int, app: str) -> None:
        for log in (self.sql, self.memory):
            with pytest.raises(Refused):
                log.append([*facts[:place], added(-1, app=app), *facts[place:]])

    @rule(seconds=st.floats(-1e4, 1e5))
    def wind(self, seconds: float) -> None:
        self.clock.time += timedelta(seconds=seconds)

    @rule(more=st.booleans())
    def reopen_sql(self, more: bool) -> None:
        self.sql.close()
        self.open_sql([TALLY, TIMES] if more else [TALLY])

    @rule(more=st.booleans())
    def reopen_memory(self, more: bool) -> None:
        self.open_memory([TIMES, TALLY] if more else [TALLY])

    @rule()
    def rebuild(self) -> None:
        self.sql.rebuild()
        self.memory.rebuild()

    @rule(after=st.integers(0, 30), kinds=st.none() | st.frozensets(st.sampled_from(sorted(KINDS))), app=names)
    def read(self, after: int, kinds: frozenset[str] | None, app: str) -> None:
        wanted = [
            (seq, tx, fact.model, kernel.encode(fact.said), kernel.encode(fact.measured))
            for seq, (tx, fact) in enumerate(self.recorded, start=1)
            if seq > after and (kinds is None or kernel.kind(fact.said) in kinds) and fact.app == app
        ]
        found = list(self.sql.read(after=after, kinds=kinds, app=app))
        assert [(f.seq, f.tx, f.model, f.said, f.measured) for f in found] == wanted
        assert list(self.memory.read(after=after, kinds=kinds, app=app)) == found

    @invariant()
    def one_history(self) -> None:
        assert self.sql.head() == self.memory.head() == self.anchors[-1]

    @invariant()
    def one_state(self) -> None:
        tally: dict[str, int] = {}
        for _, fact in self.recorded:
            key = f"{fact.app}/{fact.model}"
            if isinstance(fact.said, Added):
                tally[key] = tally.get(key, 0) + fact.said.n
            elif isinstance(fact.said, Cleared):
                tally.pop(key, None)
        wanted = sorted((key, b"%d" % n) for key, n in tally.items())
        assert list(self.sql.scan("tally")) == list(self.memory.scan("tally")) == wanted

    def teardown(self) -> None:
        if not hasattr(self, "sql"):
            return
        assert self.sql.verify() == self.memory.verify() == self.anchors[-1]
        times = [fact.at for fact in self.sql.read()]
        assert times == sorted(times)
        history.holds(self.sql, *self.anchors)
        self.open_memory([TIMES])
        self.sql.close()
        self.open_sql([TIMES])
        assert list(self.sql.scan("times")) == list(self.memory.scan("times"))
        self.sql.close()
        self.folder.cleanup()


TestFacts = FactsMachine.TestCase
TestFacts.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_measurements_do_not_enter_the_trace() -> None:
    """Two rehearsals of one seed on machines of different speed: one trace, two chains."""
    slow, fast = (MemoryFacts(Wound(START), SIGNER) for _ in range(2))
    one = slow.append([Fact("a", "b", Noted(text="x"), {"seconds": 2.0})])
    two = fast.append([Fact("a", "b", Noted(text="x"), {"seconds": 1.0})])
    assert one.trace == two.trace
    assert one.hash != two.hash
