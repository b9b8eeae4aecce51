"""Where an application runs: the only place where ports meet adapters.

    load(path)            the app that a file declares, with the folder that its sources are relative to
    open(app, placement)  the app with its places opened, as a Session
    serve(session, edge)  one server process
    loop(session, ...)    one loop

A placement is data: which home, which key, which clock. It never changes what an app means.
"""

from __future__ import annotations

from flyball.adapters.embedded.tokens import local_token
from flyball.cycle.session import Session
from flyball.runtime.children import Child
from flyball.runtime.loading import Loaded, load
from flyball.runtime.looping import loop
from flyball.runtime.places import Placement, channels, open, rehearsal  # noqa: A004 - fb.open, as in io.open
from flyball.runtime.serving import Edge, serve

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
