"""What a person may decide: promote, roll back, pause. Each decision is a fact that names who made it and why.

A version whose gates did not release it needs an override, which is written down as one; it goes through the same stages and
under the same guards as any other, unless it is made champion at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from flyball._kernel.errors import DeclarationError, GateError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import artifacts, causes
from flyball.cycle.session import Session
from flyball.release import approval, moves, rollout, route, version
from flyball.release.approval import Approved
from flyball.release.policy import ANYBODY
from flyball.release.rollout import Paused, Resumed, Rollout


class Operated(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded, in words, and who answers now."""

    model: str
    did: list[str]
    champion: str
    candidate: str
    epoch: int


def promote(
    session: Session, name: str, *, by: str, reason: str, override: bool = False, at_once: bool = False
) -> Operated:
    """Send a version on its way through the declared stages, or make it champion at once.

    Raises:
        StateError: `no-such-version`, `signature-broken`, `already-answers`, `rollout-in-progress`.
        GateError: `gates-not-passed`.
        DeclarationError: `override-without-reason`.
    """
    row = version.find(session.facts, session.app.name, name)
    if override and not reason.strip():
        raise DeclarationError(
            "override-without-reason",
            f"The gates of {name} would be overridden, and nobody says why.",
            why="What was decided against the evidence is recorded with its reason, for whoever asks later.",
            next=f"flyball promote APP {name} --override-gates --reason '...'",
        )
    model = artifacts.load_manifest(session, name).model
    if row.decision != "release" and not override:
        against = [v for v in version.verdicts(session.facts, session.app.name, name) if v.outcome != "pass"]
        raise GateError(
            "gates-not-passed",
            f"{name} is {row.decision or 'not judged yet'}.",
            why="; ".join(f"{v.condition}: {v.outcome.value}" for v in against) or "No gate has looked at it.",
            next=f"flyball promote APP {name} --override-gates --reason '...' is recorded with your key's name.",
        )
    overridden = override and row.decision != "release"
    reason = reason or "asked for"
    policy = session.app.release

    def choose(now: Rollout) -> Sequence[Said]:
        if at_once:
            return moves.promote(now, name, reason=reason, by=by, overridden=overridden)
        return moves.start(now, name, policy, reason=reason, by=by, overridden=overridden)

    return _record(session, model, choose)


def approve(session: Session, name: str, *, by: str, reason: str, yes: bool = True) -> Approved:
    """Say yes or no to a version: its gates, or the stage that waits for it, are judged anew by the loop, or the next apply.

    Raises:
        StateError: `no-such-version`, `signature-broken`.
        DeclarationError: `nobody-waits-for-approval`, `approval-without-reason`.
    """
    if not reason.strip():
        raise DeclarationError(
            "approval-without-reason",
            f"{by!r} says {'yes' if yes else 'no'} to {name}, and not why.",
            why="A word of a person is recorded with its reason, for whoever asks later.",
            next=f"flyball approve APP {name} --reason '...'",
        )
    model = artifacts.load_manifest(session, name).model
    now = rollout.now(session.facts, session.app.name, model)
    wanted = [gate.metric.subject for gate in session.app.gates if gate.metric.name == approval.NAME]
    if now.candidate == name and (whose := now.stages[now.stage].approval):
        wanted.append(() if whose == ANYBODY else (whose,))
    if not any(by in (who or (by,)) for who in wanted):
        raise DeclarationError(
            "nobody-waits-for-approval",
            f"No gate or stage of {session.app.name!r} waits for the approval of {by!r}.",
            where=session.app.place,
            why=f"They wait for {', '.join(', '.join(who) or 'anybody' for who in wanted)}." if wanted else "",
            next="Declare gates=[..., fb.approval()] or canary(..., approval=True); or use the key that is waited for.",
        )
    said = Approved(version=name, by=by, reason=reason, yes=yes, epoch=now.epoch)
    session.facts.append([Fact(session.app.name, model, said)])
    return said


def roll_back(session: Session, model: str, *, by: str, reason: str) -> Operated:
    """Take the last release of a model back: abort the candidate, or else return to who answered before.

    Raises:
        StateError: `nothing-to-roll-back`.
    """
    return _record(session, model, lambda now: moves.roll_back(now, reason=reason, by=by))


def pause(session: Session, model: str, *, by: str, reason: str) -> Operated:
    """Let the loop release and train nothing of this model until it is resumed; a failing candidate is still aborted."""
    return _record(session, model, lambda now: [] if now.paused else [Paused(reason=reason, by=by)])


def resume(session: Session, model: str, *, by: str) -> Operated:
    """Let the loop go on."""
    return _record(session, model, lambda now: [Resumed(by=by)] if now.paused else [])


def _unfollowed(session: Session, model: str, name: str) -> list[str]:
    """That servers of this code cannot answer by the version that shall, where its features are declared no longer."""
    manifest = artifacts.load_manifest(session, name)
    changed = causes.changed_features(session.app.model(model), manifest.causes["examples"])
    if not changed:
        return []
    code = f" of commit {manifest.commit}" if manifest.commit else ""
    return [f"but {', '.join(changed)} changed since {name} was trained: servers answer by it only with the code{code}"]


def _record(session: Session, model: str, choose: Callable[[Rollout], Sequence[Said]]) -> Operated:
    said = rollout.record(session.facts, session.app.name, model, choose)
    route.sync(session.facts, session.routes, session.app.name, session.models)
    now = rollout.now(session.facts, session.app.name, model)
    did = [rollout.told(each) for each in said]
    if said and now.champion:
        did += _unfollowed(session, model, now.champion)
    return Operated(model=model, did=did, champion=now.champion, candidate=now.candidate, epoch=now.epoch)
