"""`flyball loop`: the loop alone; `flyball up` starts it, beside the servers."""

from __future__ import annotations

import signal
import threading

from flyball.cli import opening, options


def run(
    app: options.App,
    every: options.Every = 1.0,
    memory_mb: options.Memory = None,
    webhook: options.Webhook = None,
    allow: options.Allow = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
) -> int:
    """Look, decide, act; again and again, until told to stop."""
    from flyball import runtime

    stop = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    with opening.progress() as tell:
        session = opening.session(app, home, clock)
        where = [*(["--home", str(home)] if home else []), *(["--clock", str(clock)] if clock else [])]
        worker = runtime.Child([app, *where], session.clock, session.home, memory_mb)
        channels = runtime.channels(session, webhook, allow or [])
        runtime.loop(session, worker, channels, every, stop, tell)
    return 0
