"""What a person must hear of, and how it gets to them.

An **alert** is made from one recorded fact, by a rule that looks at nothing else: so it can be made again at any time, and a
**channel** (a log, a webhook) needs to remember only its **position**, the number of the last fact that it told of. What lies
after it is delivered in order, at least once; a channel that fails is tried again from there, and holds up no other.

Alerts leave the machine, so they are short, and they are made from named fields alone; facts hold no values of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from flyball._kernel.errors import AdapterError
from flyball._kernel.facts import Stored
from flyball._kernel.ports import Facts

Severity = Literal["info", "warning", "critical"]

TITLE: Final = 120
TEXT: Final = 500
"""Characters, at most."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to hear of.

    Attributes:
        seq: the number of the fact; with the app, it tells an alert from every other.
        at: when the fact was recorded.
        model: the model that it is about, or "".
        kind: of the fact, such as "release.aborted".
        title: one line.
        text: what is known of it.
    """

    seq: int
    at: datetime
    app: str
    model: str
    kind: str
    title: str
    text: str
    severity: Severity


class Alerts(Protocol):
    """A channel."""

    def position(self) -> int:
        """The greatest `seq` that was sent; 0 for none.

        Raises:
            AdapterError: `alerts-unreadable`.
        """

    def send(self, alert: Alert) -> None:
        """Send it and remember its position; one that is not after the position is passed over.

        Raises:
            RetryableError: it did not get through, and may later.
            AdapterError: it will not get through until somebody changes something.
        """


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one attempt to deliver.

    Attributes:
        sent: alerts that were.
        through: every fact up to this number needs no second look: the next attempt may begin after it.
        problem: why it stopped before the end, if it did.
    """

    sent: int
    through: int
    problem: AdapterError | None = None


def deliver(log: Facts, channel: Alerts, app: str, after: int = 0) -> Delivery:
    """Send what lies after the channel's position, in order, and stop at the first that does not get through.

    Args:
        after: `through` of the attempt before, which saves a look at facts that tell nothing; 0 is always right.
    """
    sent, through = 0, after
    try:
        through = max(after, channel.position())
        for stored in log.read(after=through, kinds=KINDS, app=app):
            alert = of(stored)
            if alert is not None:
                channel.send(alert)
                sent += 1
            through = stored.seq
    except AdapterError as problem:
        return Delivery(sent, through, problem)
    return Delivery(sent, through)


class _Told(NamedTuple):
    title: str
    text: str
    severity: Severity


def of(stored: Stored) -> Alert | None:
    """The alert that a fact is; None where nobody needs to hear of it."""
    rule = _RULES.get(stored.kind)
    told = rule(stored.model or stored.app, _Fields(msgspec.json.decode(stored.said))) if rule is not None else None
    if told is None:
        return None
    return Alert(
        seq=stored.seq,
        at=stored.at,
        app=stored.app,
        model=stored.model,
        kind=stored.kind,
        title=_line(told.title, TITLE),
        text=_line(told.text, TEXT),
        severity=told.severity,
    )


class _Fields:
    """What a fact says, by name: "" or 0 where it does not say it, as an earlier release may not have."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self._said = said

    def text(self, name: str) -> str:
        value = self._said.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int:
        value = self._said.get(name)
        return value if isinstance(value, int) else 0


def _aborted(about: str, said: _Fields) -> _Told:
    return _Told(f"{about}: {said.text('version')} was aborted", _because(said), "warning")


def _rolled_back(about: str, said: _Fields) -> _Told:
    title = f"{about}: {said.text('version')} was rolled back, {said.text('to')} answers again"
    return _Told(title, _because(said), "critical")


def _promoted(about: str, said: _Fields) -> _Told:
    previous = said.text("previous")
    title = f"{about}: {said.text('version')} answers from now on"
    return _Told(title, f"{f'It replaces {previous}. ' if previous else ''}{_because(said)}", "info")


def _failed(about: str, said: _Fields) -> _Told:
    title = f"{about}: the step {said.text('step')} failed"
    return _Told(title, f"[{said.text('code')}] The champion goes on answering. `flyball status` says more.", "warning")


def _retrained(about: str, said: _Fields) -> _Told | None:
    failed, decision = said.text("failed"), said.text("decision")
    if failed:
        text = f"[{failed}] The champion goes on answering. `flyball status` says when it is tried again."
        return _Told(f"{about}: the training failed", text, "warning")
    if decision in ("held", "rejected"):
        text = said.text("reason") or "No reason is recorded."
        return _Told(f"{about}: what was trained anew is {decision}, by its gates", text, "info")
    return None


def _observed(about: str, said: _Fields) -> _Told | None:
    state, before, title = said.text("state"), said.text("before"), f"{about}: {said.text('monitor')}"
    if state == before:
        return None  # a point of its curve
    if state == "breach":
        return _Told(f"{title} is in breach", said.text("reason"), "warning")
    if state == "blind" and before:  # at first nothing can be measured, and nobody need hear that
        return _Told(f"{title} is blind", said.text("reason") or "It cannot be measured.", "info")
    return None


def _accounted(about: str, said: _Fields) -> _Told | None:
    if (unlogged := said.number("unlogged")) > 0:
        told = (
            f"{said.number('recorded'):,} are recorded beside them, and {said.number('unknown'):,} are unaccounted for."
        )
        return _Told(
            f"{about}: {unlogged:,} answers left unrecorded",
            f"The disk of the journal took no more. {told}",
            "critical",
        )
    if said.number("unknown") <= 0:
        return None
    title = f"{about}: up to {said.number('unknown'):,} answers are unaccounted for"
    sent = said.text("durability") == "interval"
    why = "Some may have left before they were recorded." if sent else "None of them was acknowledged."
    recorded = f"A server ended without closing its journal, in which {said.number('recorded'):,} answers are recorded."
    return _Told(title, f"{recorded} {why}", "critical" if sent else "warning")


def _because(said: _Fields) -> str:
    by, reason = said.text("by"), said.text("reason")
    return f"{reason or 'No reason is recorded.'}{f' (by {by})' if by else ''}"


def _line(text: str, limit: int) -> str:
    """One line without control characters, cut to `limit`: it is shown in terminals, chats and mails."""
    clean = " ".join("".join(ch if ch.isprintable() else " " for ch in text).split())
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"


_RULES: Final[Mapping[str, Callable[[str, _Fields], _Told | None]]] = MappingProxyType(
    {
        "cycle.failed": _failed,
        "cycle.retrained": _retrained,
        "release.aborted": _aborted,
        "release.promoted": _promoted,
        "release.rolled_back": _rolled_back,
        "serve.accounted": _accounted,
        "watch.observed": _observed,
    }
)
KINDS: Final = frozenset(_RULES)
"""The kinds of facts that can be alerts."""
