"""The command line: one file per verb, and one way to say results, progress and errors.

Exit codes: 0 done, 1 failed, 2 wrong usage (the app file included), 3 a gate said no. With `--json` the one result goes to
standard output, and everything else to standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import typer
from typer.exceptions import Abort, TyperException

from flyball._kernel.errors import FlyballError
from flyball.cli import (
    adopt,
    apply,
    approve,
    audit,
    backup,
    bundle,
    card,
    contract,
    data,
    diff,
    erase,
    evaluate,
    explain,
    exposures,
    features,
    journal,
    key,
    loop,
    new,
    package,
    pause,
    plan,
    predict,
    promote,
    rehearse,
    report,
    reproduce,
    restore,
    rollback,
    runs,
    say,
    serve,
    shadow,
    skew,
    status,
    up,
    why,
)

VERBS: dict[str, Callable[..., Any]] = {
    "new": new.run,
    "adopt": adopt.run,
    "plan": plan.run,
    "apply": apply.run,
    "evaluate": evaluate.run,
    "serve": serve.run,
    "up": up.run,
    "approve": approve.run,
    "promote": promote.run,
    "rollback": rollback.run,
    "pause": pause.run,
    "shadow": shadow.run,
    "exposures": exposures.run,
    "loop": loop.run,
    "rehearse": rehearse.run,
    "report": report.run,
    "features": features.run,
    "status": status.run,
    "audit": audit.run,
    "why": why.run,
    "explain": explain.run,
    "card": card.run,
    "diff": diff.run,
    "runs": runs.run,
    "skew": skew.run,
    "predict": predict.run,
    "bundle": bundle.run,
    "package": package.run,
    "reproduce": reproduce.run,
    "erase": erase.run,
    "backup": backup.run,
    "restore": restore.run,
}

app = typer.Typer(
    name="flyball",
    help="The governor for machine-learning applications.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)
app.add_typer(data.app, name="data")
app.add_typer(contract.app, name="contract")
app.add_typer(key.app, name="key")
app.add_typer(journal.app, name="journal")


_GROUPS: dict[str, dict[str, Callable[..., Any]]] = {
    "data": data.VERBS,
    "contract": contract.VERBS,
    "key": key.VERBS,
    "journal": journal.VERBS,
}


def _verb_of(arguments: list[str]) -> str:
    """Whose help would have said it: the verb, or the verb within its group."""
    first, second = [*arguments, "", ""][:2]
    if first in _GROUPS:
        return f"{first} {second}" if second in _GROUPS[first] else first
    return first if first in VERBS else ""


def main() -> None:
    """Run one verb and exit with its code."""
    # OpenMP's threads spin while they wait for one another. On cores that others use too, that made a LightGBM fit of one
    # second take eleven; asleep, two. It must be said before the library is loaded, and the user's own choice stands.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "FLYBALL_PARENT" in os.environ:
        from flyball.adapters.embedded import process

        process.obey(os.environ)
    sys.exit(call(sys.argv[1:]))


def call(arguments: list[str]) -> int:
    """Run one verb; returns the exit code. A user's mistake is told, never thrown."""
    as_json = "--json" in arguments
    try:
        # What the app file or a preparation prints must not run into the one document that --json promises.
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = app(arguments, standalone_mode=False)
    except FlyballError as error:
        say.error(error, as_json=as_json)
        return error.exit_code
    except TyperException as error:
        say.usage(error.format_message(), _verb_of(arguments), as_json=as_json)
        return error.exit_code
    except (Abort, KeyboardInterrupt):
        return 130
    except Exception as error:  # noqa: BLE001 - the edge of the process: whatever is left is our bug, told as one
        say.bug(error, "".join(traceback.format_exception(error)), as_json=as_json)
        return 1
    return result if isinstance(result, int) else 0
