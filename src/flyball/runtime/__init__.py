"""Where an application runs: the only place where ports meet adapters.

    load(path)                  the app that a file declares, with the folder that its sources are relative to
    open(app, placement)        the app with its places opened, as a Session
    rehearsal(app, ...)         the same in memory, on a virtual clock
    serve(session, edge)        one server process
    loop(session, ...)          one loop; `upkeep` keeps both alive

A placement is data: which home, which key, which clock. It never changes what an app means. Each name is loaded when it is
first used: the parent that keeps the others alive needs none of their libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyball.adapters.embedded.tokens import local_token
    from flyball.cycle.session import Session
    from flyball.runtime.children import Child
    from flyball.runtime.loading import Loaded, load
    from flyball.runtime.looping import loop
    from flyball.runtime.places import Placement, channels, open, rehearsal  # noqa: A004 - fb.open, as in io.open
    from flyball.runtime.serving import Edge, serve

_HOME_OF = {
    "Child": "runtime.children",
    "Edge": "runtime.serving",
    "Loaded": "runtime.loading",
    "Placement": "runtime.places",
    "Session": "cycle.session",
    "channels": "runtime.places",
    "load": "runtime.loading",
    "local_token": "adapters.embedded.tokens",
    "loop": "runtime.looping",
    "open": "runtime.places",
    "rehearsal": "runtime.places",
    "serve": "runtime.serving",
}

__all__ = [
    "Child",
    "Edge",
    "Loaded",
    "Placement",
    "Session",
    "channels",
    "load",
    "local_token",
    "loop",
    "open",
    "rehearsal",
    "serve",
]


if not TYPE_CHECKING:
    # Hidden from the type checker, which would believe that every name exists.
    def __getattr__(name: str) -> Any:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'flyball.runtime' has no attribute {name!r}")
        value = getattr(import_module(f"flyball.{home}"), name)
        globals()[name] = value
        return value
