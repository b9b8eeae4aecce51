"""What the verbs of an operator share: who asks, and what came of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich.markup import escape

from flyball.cli import say

if TYPE_CHECKING:
    from flyball.cycle.operate import Operated
    from flyball.runtime import Session
    from flyball.serve.auth import Scope


def who(session: Session, scope: Scope = "operate") -> str:
    """The name of the key in use: FLYBALL_TOKEN, or the token that lies in the home for whoever owns it.

    Args:
        scope: what it must have.

    Raises:
        StateError: `key-needed`, `key-unknown`, `key-expired`, `scope-missing`.
    """
    from flyball.runtime import local_token

    token = os.environ.get("FLYBALL_TOKEN") or local_token(session.home)
    return session.keys.name_of(token, scope)


def show(done: Operated, *, as_json: bool) -> None:
    """What was recorded, and who answers now."""
    if as_json:
        say.result(done)
        return
    for each in done.did:
        say.line(f"{say.MARKS['done']} {escape(each)}")
    if not done.did:
        say.line("Nothing to do.")
    on_its_way = f", {done.candidate} is on its way" if done.candidate else ""
    say.line(f"[dim]{done.model}: {done.champion or 'nobody'} answers{on_its_way} (epoch {done.epoch})[/]")
