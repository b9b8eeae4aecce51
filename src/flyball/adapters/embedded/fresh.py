"""Fresh: a verb in a process that inherits nothing of Python from ours; and if wanted, by libraries installed for it alone.

A clean child is `python -I`: no PYTHON* variable, no folder of the user, no current folder decides what it imports. A clean
environment is a virtual one with the distributions that a version recorded, and this package as it is here, copied: its code is
never fetched, and never read from a store.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from pathlib import Path
from platform import python_version_tuple

from flyball._kernel.errors import StateError, bounded

PACKAGE = "flyball"
_SAID = 1_500
"""Characters of what pip says that are repeated."""


def call(arguments: Sequence[str], python: str = sys.executable) -> int:
    """Run a verb in a clean child, which writes where we do; returns its exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [python, "-I", "-m", PACKAGE, *arguments]
    return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603 - ourselves


def environment(folder: Path, recorded: Mapping[str, str]) -> str:
    """Make a virtual environment in `folder`; returns its Python.

    Args:
        recorded: distribution -> version, with "python"; others than distributions are passed over.

    Raises:
        StateError: `environment-not-made`.
    """
    here, then = ".".join(python_version_tuple()[:2]), recorded.get("python", "")
    if then != here:
        raise _not_made(f"It was trained by Python {then or 'of an unknown version'}, and this is {here}.")
    mine = metadata.version(PACKAGE)
    if recorded.get(PACKAGE) != mine:
        raise _not_made(f"It was trained by {PACKAGE} {recorded.get(PACKAGE)}, and this is {mine}.")
    ours = util.find_spec("pip") is not None
    venv.EnvBuilder(symlinks=True, with_pip=not ours).create(folder)
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-I", "-m", "pip", "--python", python] if ours else [python, "-I", "-m", "pip"]
    wanted = [f"{name}=={version}" for name, version in sorted(recorded.items()) if name not in _NONE]
    command = [*pip, "install", "--quiet", "--no-input", "--disable-pip-version-check", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - pip of that environment
    if done.returncode:
        raise _not_made(f"pip cannot install what was recorded: {bounded(done.stderr.strip(), _SAID)}")
    _copy(Path(_out(python, "import sysconfig; print(sysconfig.get_path('purelib'))")))
    return python


_NONE = frozenset({"python", "machine", PACKAGE})


def _copy(target: Path) -> None:
    """This package as it is here, with what says its version."""
    source = Path(__file__).parents[2]
    shutil.copytree(source, target / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    distribution = metadata.distribution(PACKAGE)
    said = target / f"{PACKAGE}-{distribution.version}.dist-info"
    said.mkdir()
    (said / "METADATA").write_text(distribution.read_text("METADATA") or "")


def _out(python: str, program: str) -> str:
    command = [python, "-I", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - ours


def _not_made(why: str) -> StateError:
    return StateError(
        "environment-not-made",
        "An environment as the version was trained in cannot be made here.",
        why=why,
        next="Mend that (pip reads its index from PIP_INDEX_URL or PIP_FIND_LINKS), or leave out --fresh-environment.",
    )
