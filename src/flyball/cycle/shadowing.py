"""What a person may decide about shadows: let a version compute beside the champion, and stop it. Each is a fact with a name.

A shadow answers nobody, so no gate is asked. What it computes is recorded like any attempt, and its quality is measured like
any version's, on the questions that the champion answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flyball._kernel.errors import StateError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import artifacts, causes
from flyball.cycle.operate import Operated
from flyball.cycle.session import Session
from flyball.release import rollout, route, shadowing
from flyball.release.shadowing import Watching


def begin(session: Session, name: str, *, share: float, by: str, reason: str) -> Operated:
    """Let a version compute the questions of a share of the entities beside whoever answers.

    Raises:
        StateError: `no-such-version`, `signature-broken`; `already-answers`; `too-many-shadows`.
        DeclarationError: `shadow-share`.
    """
    manifest = artifacts.load_manifest(session, name)
    model = session.app.model(manifest.model)
    now = rollout.now(session.facts, session.app.name, model.name)
    if name in (now.champion, now.candidate):
        raise StateError(
            "already-answers",
            f"{name} is {'the champion' if name == now.champion else 'on its way to be champion'} of {model.name}.",
            why="It is asked every question as it is.",
            next="flyball status APP says who else there is.",
        )
    done = _record(session, model.name, lambda set_: shadowing.begin(set_, name, share, by=by, reason=reason))
    changed = causes.changed_features(model, manifest.causes["examples"])
    if done.did and changed:
        code = f" of commit {manifest.commit}" if manifest.commit else ""
        done.did.append(f"but {', '.join(changed)} changed since: servers leave it out, unless they run the code{code}")
    return done


def end(session: Session, name: str, *, by: str, reason: str) -> Operated:
    """Let a version compute beside nobody any more.

    Raises:
        StateError: `no-such-version`, `signature-broken`.
    """
    model = artifacts.load_manifest(session, name).model
    return _record(session, model, lambda set_: shadowing.end(set_, name, by=by, reason=reason))


def _record(session: Session, model: str, choose: Callable[[Sequence[Watching]], Sequence[Said]]) -> Operated:
    log, app = session.facts, session.app.name
    said = rollout.decided(log, lambda: [Fact(app, model, each) for each in choose(shadowing.now(log, app, model))])
    route.sync(log, session.routes, app, session.models)
    now = rollout.now(log, app, model)
    did = [shadowing.told(each.said) for each in said]
    return Operated(model=model, did=did, champion=now.champion, candidate=now.candidate, epoch=now.epoch)
