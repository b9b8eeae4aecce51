"""The git commit of a folder: what the app file was when a version was trained."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def commit(folder: Path) -> str:
    """The commit, with a + when tracked files of the folder differ from it; "" outside a repository, or without git."""
    git = shutil.which("git")
    if git is None:
        return ""
    head = _run(git, folder, "rev-parse", "HEAD")
    if not head:
        return ""
    return head + ("+" if _run(git, folder, "status", "--porcelain", "--untracked-files=no", "--", ".") else "")


def _run(git: str, folder: Path, *arguments: str) -> str:
    command = [git, "-C", str(folder), *arguments]
    # Fixed words and a folder of ours; no shell.
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    return done.stdout.strip() if done.returncode == 0 else ""
