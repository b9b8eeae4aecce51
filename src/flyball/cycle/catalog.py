"""The catalog, where it is away: whether the history can be read, and what a server goes by while it cannot.

Facts decide. While they cannot be read (locked, moved, on a disk that is gone) nothing is decided either, and a server answers
by the last route that was signed; see `release.route`. Its journal goes on; when the history is back, the loop accounts for it.
"""

from __future__ import annotations

from collections.abc import Callable

from flyball._kernel.errors import AdapterError, FlyballError, StateError
from flyball.cycle.session import Session
from flyball.release import route
from flyball.release.route import Route

Say = Callable[[str], None]


def away(session: Session) -> str:
    """Why the history cannot be read; "" where it can. Waits for a lock as long as any reader does."""
    try:
        session.facts.head()
    except FlyballError as problem:
        return problem.what
    return ""


def route_now(session: Session, known: dict[str, int], say: Say) -> Route:
    """The route by what the facts say; where they are away, by the last that was signed.

    Args:
        known: model -> the epoch that is answered by already.
        say: told where it is the signed one.

    Raises:
        AdapterError: the facts are away, and no route lies here that this key signed for this app.
        StateError: `route-is-older`; or what a reader of the facts raises.
    """
    try:
        return route.derive(session.facts, session.app.name, session.models)
    except AdapterError as problem:
        found = session.routes.proven()
        if found is None or found.app != session.app.name:
            raise
        older = route.older(found, known)
        if older:
            raise StateError(
                "route-is-older",
                f"The history is away, and the route says less of {', '.join(older)} than this server knows.",
                why="It is signed, but it is one of before: somebody put it back.",
                next="Put the history back; the route is derived from it.",
            ) from problem
        say(f"The history cannot be read; answering goes by the last signed route: {problem.what}")
        return Route(app=found.app, models={n: each for n, each in found.models.items() if n in session.models})
