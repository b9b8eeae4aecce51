"""Which facts a person hears of, what is said, and that one bad channel holds up nothing but itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball._kernel import facts
from flyball._kernel.errors import AdapterError, RetryableError
from flyball._kernel.facts import Fact, Said, Stored
from flyball.adapters.memory.alerts import MemoryAlerts
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.checks.alerts import Aborted, Paused
from flyball.checks.clock import START, Wound
from flyball.cycle.account import Accounted
from flyball.cycle.retrain import Retrained
from flyball.cycle.steps import Failed
from flyball.release.rollout import Aborted as ReleaseAborted
from flyball.release.rollout import Advanced, Promoted, RolledBack, Started, Step
from flyball.watch import alert
from flyball.watch.alert import Alert
from flyball.watch.observed import Observed


def stored(said: Said | dict[str, Any], kind: str = "", model: str = "orders") -> Stored:
    return Stored(
        seq=7,
        tx=3,
        at=START,
        kind=kind or facts.kind(said),  # type: ignore[arg-type]
        app="shop",
        model=model,
        said=facts.encode(said),
        measured=b"{}",
    )


HEARD: list[tuple[Said, str, tuple[str, ...]]] = [
    (
        ReleaseAborted(version="orders-2", epoch=4, reason="error_rate fails"),
        "warning",
        ("orders-2", "error_rate fails"),
    ),
    (RolledBack(version="orders-2", to="orders-1", epoch=5, reason="asked", by="ada"), "critical", ("orders-1", "ada")),
    (Promoted(version="orders-2", previous="orders-1", epoch=5, reason="all stages passed"), "info", ("orders-1",)),
    (Promoted(version="orders-1", previous="", epoch=1, reason="the first"), "info", ("orders-1", "the first")),
    (Failed(step="train", key="k", code="disk-full"), "warning", ("train", "disk-full")),
    (
        Observed(monitor="drift", state="breach", reason="carrier: 0.4 > 0.2"),
        "warning",
        ("drift", "carrier: 0.4 > 0.2"),
    ),
    (Observed(monitor="drift", state="breach", before="ok", reason="carrier"), "warning", ("drift", "carrier")),
    (
        Observed(monitor="live quality", state="blind", before="ok", reason="12 settled"),
        "info",
        ("live quality", "12 settled"),
    ),
    (Retrained(until=START, failed="out-of-memory"), "warning", ("training failed", "out-of-memory")),
    (Retrained(until=START, decision="held", reason="roc_auc 0.61"), "info", ("held", "roc_auc 0.61")),
    (Retrained(until=START, decision="rejected", reason="roc_auc 0.41"), "info", ("rejected", "roc_auc 0.41")),
    (
        Accounted(segment="s", durability="acknowledged", closed=False, recorded=9, refused=0, unknown=4096),
        "warning",
        ("4,096", "None of them was acknowledged"),
    ),
    (
        Accounted(segment="s", durability="interval", closed=False, recorded=9, refused=0, unknown=1),
        "critical",
        ("may have left",),
    ),
    (
        Accounted(segment="s", durability="interval", closed=True, recorded=9, refused=0, unknown=3, unlogged=1200),
        "critical",
        ("1,200", "left unrecorded", "3 are unaccounted for"),
    ),
]
NOT_HEARD: list[Said] = [
    Started(version="orders-2", stages=(), epoch=2, reason="new"),
    Advanced(version="orders-2", stage=1, into=Step(name="canary", share=0.25, seconds=3600), epoch=3),
    Observed(monitor="drift", state="ok"),
    Observed(monitor="drift", state="ok", before="breach"),
    Observed(monitor="drift", state="breach", before="breach", reason="a day later"),
    Observed(monitor="drift", state="blind", before="blind", reason="a day later"),
    Observed(monitor="drift", state="blind", reason="looked at for the first time"),
    Retrained(until=START, decision="release"),
    Accounted(segment="s", durability="acknowledged", closed=True, recorded=9, refused=2, unknown=0),
]


@pytest.mark.parametrize(("said", "severity", "words"), HEARD, ids=lambda each: str(each)[:40])
def test_what_is_heard_of(said: Said, severity: str, words: tuple[str, ...]) -> None:
    """Against the records as they are written, so that a field that is renamed there shows here."""
    found = alert.of(stored(said))
    assert found is not None
    assert (found.seq, found.at, found.app, found.model, found.kind) == (7, START, "shop", "orders", facts.kind(said))
    assert found.severity == severity
    assert all(word in f"{found.title} {found.text}" for word in words)
    assert found.title.startswith("orders: ")


@pytest.mark.parametrize("said", NOT_HEARD, ids=lambda each: str(each)[:40])
def test_what_is_not(said: Said) -> None:
    assert alert.of(stored(said)) is None


def test_what_concerns_no_model_is_told_of_the_app() -> None:
    found = alert.of(stored(Failed(step="gather", key="k", code="store-busy"), model=""))
    assert found is not None
    assert found.title.startswith("shop: ")


def test_every_kind_has_a_case() -> None:
    assert {facts.kind(said) for said, _, _ in HEARD} == alert.KINDS


VALUES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(max_size=3), max_size=2)
FIELDS = (
    "version",
    "to",
    "previous",
    "reason",
    "by",
    "step",
    "code",
    "monitor",
    "state",
    "before",
    "failed",
    "decision",
    "unknown",
    "durability",
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(alert.KINDS)), st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_whatever_a_fact_says_an_alert_is_short_and_one_line(kind: str, said: dict[str, Any]) -> None:
    found = alert.of(stored(said, kind))
    if found is not None:
        assert 0 < len(found.title) <= alert.TITLE
        assert len(found.text) <= alert.TEXT
        assert (found.title + found.text).isprintable()


def test_a_long_reason_is_cut_and_its_escapes_are_gone() -> None:
    said = Observed(monitor="m\n\x1b[31m" * 100, state="breach", reason="x\r\n\u202e" + "y" * 5000)
    found = alert.of(stored(said))
    assert found is not None
    assert (len(found.title), len(found.text)) == (alert.TITLE, alert.TEXT)
    assert (found.title + found.text).isprintable()
    assert found.title.endswith("…")


def test_what_no_rule_names_stays_here() -> None:
    found = alert.of(stored({"version": "orders-2", "reason": "r", "customer": "Ada Lovelace"}, "release.aborted"))
    assert found is not None
    assert "Ada" not in json.dumps([found.title, found.text])


# --- delivery


class Broken(MemoryAlerts):
    """A channel that fails at chosen attempts; the alert may have arrived all the same."""

    def __init__(self, failures: Iterator[AdapterError | None]) -> None:
        super().__init__()
        self.failures = failures
        self.arrived: list[Alert] = []

    def send(self, each: Alert) -> None:
        problem = next(self.failures, None)
        if problem is not None and problem.code != "lost":
            raise problem
        self.arrived.append(each)
        if problem is not None:
            raise problem
        super().send(each)


def log_of(*said: Said, app: str = "shop") -> MemoryFacts:
    log = MemoryFacts(Wound(), MemorySigner())
    for each in said:
        log.append([Fact(app, "orders", each)])
    return log


DOWN, GONE, LOST = RetryableError("down", "x"), AdapterError("gone", "x"), RetryableError("lost", "x")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.booleans(), max_size=12), st.lists(st.sampled_from([DOWN, GONE, LOST, None]), max_size=8), st.booleans()
)
def test_all_is_delivered_in_order_at_least_once(
    heard: list[bool], failures: list[AdapterError | None], remembers: bool
) -> None:
    """Whatever fails, and whether or not the caller keeps `through`; nothing is sent twice that was known to have arrived."""
    log = log_of(*(Aborted(version=f"v{n}") if each else Paused() for n, each in enumerate(heard)))
    channel, through, problems = Broken(iter(failures)), 0, 0
    for _ in range(len(failures) + 1):
        found = alert.deliver(log, channel, "shop", through)
        problems += found.problem is not None
        through = found.through if remembers else 0
    expected = [n + 1 for n, each in enumerate(heard) if each]
    assert [each.seq for each in channel.sent] == expected
    arrived = [each.seq for each in channel.arrived]
    assert sorted(set(arrived)) == expected
    assert len(arrived) - len(expected) <= failures.count(LOST)
    assert arrived == sorted(arrived)
    if not any(heard):
        assert problems == 0


@pytest.mark.parametrize("problem", [DOWN, GONE])
def test_a_bad_channel_holds_up_no_other(problem: AdapterError) -> None:
    log = log_of(Aborted(version="a"), Aborted(version="b"))
    bad, good = Broken(iter([None, *[problem] * 9])), MemoryAlerts()
    found = [alert.deliver(log, channel, "shop") for channel in (bad, good)]
    assert [(each.sent, each.through, each.problem) for each in found] == [(1, 1, problem), (2, 2, None)]
    assert len(bad.sent) == 1


def test_a_position_that_cannot_be_read_is_a_problem_too() -> None:
    class Damaged(MemoryAlerts):
        def position(self) -> int:
            raise AdapterError("alerts-unreadable", "x")

    found = alert.deliver(log_of(Aborted(version="a")), Damaged(), "shop", 3)
    assert (found.sent, found.through, found.problem and found.problem.code) == (0, 3, "alerts-unreadable")


def test_a_mistake_of_ours_is_not_hidden() -> None:
    class Wrong(MemoryAlerts):
        def send(self, each: Alert) -> None:
            raise TypeError

    with pytest.raises(TypeError):
        alert.deliver(log_of(Aborted(version="a")), Wrong(), "shop")
