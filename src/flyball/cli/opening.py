"""How a verb opens an app: load the file, choose the places, and show progress while it works."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from flyball._kernel.errors import DeclarationError
from flyball.cli import say

if TYPE_CHECKING:
    from flyball.cycle.session import Event, Tell
    from flyball.runtime import Loaded, Session


def session(app: str, home: Path | None, clock: Path | None = None, *, create: bool = True) -> Session:
    """Load an app and open its places.

    Raises:
        DeclarationError: when the app file is broken or contradicts itself.
    """
    found = loaded(app)
    from flyball import runtime

    return runtime.open(found.app, runtime.Placement(root=found.root, home=home, clock=clock, create=create))


def loaded(app: str) -> Loaded:
    """Load an app, without opening anything.

    Raises:
        DeclarationError: when the app file is broken or contradicts itself.
    """
    if not Path(app).exists() and (os.sep in app or not _importable(app)):
        # Asked before the libraries are loaded, which takes seconds.
        raise _no_such_app(app)
    with say.err.status("loading the app and its libraries …"):
        from flyball import runtime

        return runtime.load(app)


def folder(app: str) -> Path:
    """The folder of an app's file, found without loading it.

    Raises:
        DeclarationError: `no-such-app`.
    """
    path = Path(app)
    if path.is_dir():
        return path.resolve()
    if path.is_file():
        return path.resolve().parent
    found = importlib.util.find_spec(app) if os.sep not in app and _importable(app) else None
    if found is None or found.origin is None:
        raise _no_such_app(app)
    return Path(found.origin).resolve().parent


def _no_such_app(app: str) -> DeclarationError:
    return DeclarationError(
        "no-such-app",
        f"There is no folder, file or module {app!r}.",
        why="An app is a folder with app.py, a Python file, or a module.",
        next="flyball new NAME makes one that runs.",
    )


def _importable(module: str) -> bool:
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except ValueError:
        return False
    finally:
        del sys.path[0]


@contextmanager
def progress() -> Iterator[Tell]:
    """Tell of long work on standard error: one line a finished step, a moving one for the step that runs."""
    with say.err.status("…") as status:

        def tell(event: Event) -> None:
            if event.state == "run":
                status.update(f"{escape(event.step)} [dim]{escape(event.detail)}[/]")
                return
            seconds = f" [dim]{event.seconds:.1f} s[/]" if event.seconds is not None else ""
            mark = say.MARKS.get(event.state, escape(event.state))
            say.err.print(f"{mark} {escape(event.step):<28} {escape(event.detail)}{seconds}")

        yield tell
