"""Which files of an app's folder are its code: what an image holds of it, and no more.

All Python files of the folder but its tests, what the app file imports beside it, and what is included by name. A link that
leaves the folder is refused, not followed: what it leads to was never meant to be handed on. So is whatever looks like a key or
a token, by its name and by its content.
"""

from __future__ import annotations

import ast
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Final

from flyball._kernel.errors import DeclarationError
from flyball.app import App

MARKER: Final = "flyball-package.json"
"""Says that a folder was packaged: no part of an app."""
_SECRETS: Final = (
    "token",
    "keys.json",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.kdbx",
    "id_rsa*",
    "id_ed25519*",
)
_PRIVATE: Final = re.compile(rb"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----\s*[A-Za-z0-9+/]{16}")
_TOKEN: Final = re.compile(rb"\bflyball_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")
_TESTS: Final = ("tests", "test", "node_modules")
_LARGEST: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Code:
    """The code of an app.

    Attributes:
        entry: what `flyball serve` is told, relative to the folder that `files` are relative to.
        files: relative path -> bytes.
        needs: the distributions that the app file, and what it imports of its own, import.
    """

    entry: str
    files: dict[str, bytes] = field(repr=False)
    needs: tuple[str, ...]


def collect(app: App, root: Path, include: Sequence[str]) -> Code:
    """The code of an app that was loaded from a file in `root`.

    Args:
        include: further files, relative to `root`, where `*` stands for any name; such as a table that a rule reads.

    Raises:
        DeclarationError: `package-link-leaves`, `package-holds-a-secret`, `package-includes-nothing`, `package-file-unusable`.
    """
    root = root.resolve()
    file, top, entry = _entry(app, root)
    wanted = set(_python(root, root)) | set(_included(root, include))
    closure, names = _followed(file, top)
    wanted |= closure
    for path in tuple(wanted):
        wanted |= {each / "__init__.py" for each in path.parents if each.is_relative_to(top)}
    files = {
        path.relative_to(top).as_posix(): _bytes(path, root if path.is_relative_to(root) else top)
        for path in sorted(wanted)
        if path.exists()
    }
    return Code(entry, files, tuple(sorted(set(_distributions(names)))))


def _entry(app: App, root: Path) -> tuple[Path, Path, str]:
    """The file of the app, the folder on the path that it was imported from, and what to load it by."""
    for module in tuple(sys.modules.values()):
        file = Path(getattr(module, "__file__", None) or "/")
        if file.parent.resolve() == root and any(value is app for value in vars(module).values()):
            break
    else:
        raise DeclarationError(
            "package-file-unusable",
            f"No file in {root} declares this app.",
            where=app.place,
            next="Package it by the folder or file that `flyball serve` is told.",
        )
    file, parts = root / file.name, [file.stem]
    top = root
    while (top / "__init__.py").is_file():
        parts.insert(0, top.name)
        top = top.parent
    if module.__name__ != ".".join(parts):
        above = module.__name__.count(".")
        return file, root.parents[above - 1] if above else root, module.__name__
    return file, top, file.relative_to(top).as_posix()


def _python(folder: Path, root: Path) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name == "__pycache__" or entry.name in _TESTS:
            continue
        if entry.is_symlink():
            _stays(path, root)
        if entry.is_dir(follow_symlinks=False):
            if not any((path / mark).exists() for mark in (MARKER, "pyvenv.cfg")):
                yield from _python(path, root)
        elif entry.name.endswith(".py") and not fnmatch(entry.name, "test_*") and entry.name != "conftest.py":
            yield path


def _included(root: Path, include: Sequence[str]) -> Iterator[Path]:
    for pattern in include:
        parts = PurePosixPath(pattern)
        found: list[Path] = []
        if pattern and "\0" not in pattern and not parts.is_absolute() and ".." not in parts.parts:
            found = [path for path in root.glob(pattern) if path.is_file()]
        if not found:
            raise DeclarationError(
                "package-includes-nothing",
                f"--include {pattern[:80]!r} names no file of {root}.",
                why="It is relative to the folder of the app file, and leads to files within it.",
                next="--include model/words.json, or --include 'model/*.json'",
            )
        yield from found


def _followed(file: Path, top: Path) -> tuple[set[Path], set[str]]:
    """The files under `top` that a file imports, transitively, with itself; and the top modules that lie elsewhere."""
    found, names, waiting = set[Path](), set[str](), [file]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imports(path, top):
            own = [each for each in _files(name, top) if each.is_file()]
            waiting += own
            if not own:
                names.add(name.partition(".")[0])
    return found, names


def _imports(path: Path, top: Path) -> Iterator[str]:
    """The dotted names that a file imports, anywhere in it."""
    package = path.relative_to(top).parts[:-1]
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        raise _unusable(path, f"{type(error).__name__}: {error}"[:300]) from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += node.module.split(".") if node.module else []
            if node.level == 0:
                yield ".".join(base)
            for each in (".".join((*base, alias.name)) for alias in node.names):
                if any(found.is_file() for found in _files(each, top)):
                    yield each
            if node.level and base and any(found.is_file() for found in _files(".".join(base), top)):
                yield ".".join(base)


def _files(name: str, top: Path) -> tuple[Path, Path]:
    place = top.joinpath(*name.split("."))
    return place.with_name(f"{place.name}.py"), place / "__init__.py"


def _distributions(names: set[str]) -> Iterator[str]:
    installed = metadata.packages_distributions()
    for name in names - set(sys.stdlib_module_names):
        yield from installed.get(name, ())


def _stays(path: Path, root: Path) -> Path:
    """Where a link leads, if it stays below `root`."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        target = Path("/")
    if target.is_relative_to(root) and not any(part.startswith(".") for part in target.relative_to(root).parts):
        return target
    raise DeclarationError(
        "package-link-leaves",
        f"{path} is a link out of the app's folder.",
        why="What it leads to would be copied into an image that others can read.",
        next="Put the file itself there, or move the link out of the app's folder.",
    )


def _bytes(path: Path, root: Path) -> bytes:
    """The content of a plain file."""
    if path.name.startswith(".") or any(fnmatch(path.name.lower(), each) for each in _SECRETS):
        raise _secret(path)
    target = _stays(path, root) if path.resolve() != path else path
    try:
        # Opened without following, and looked at when it is open: what a name stands for may change in between.
        with open(os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(_LARGEST + 1) if plain else b""
    except OSError as error:
        raise _unusable(path, str(error)) from error
    if not plain or len(data) > _LARGEST:
        raise _unusable(path, f"It is no plain file of at most {_LARGEST >> 20} MiB.")
    if _PRIVATE.search(data) or _TOKEN.search(data):
        raise _secret(path)
    return data


def _unusable(path: Path, why: str) -> DeclarationError:
    return DeclarationError(
        "package-file-unusable",
        f"{path} cannot be copied into an image.",
        why=why,
        next="Code and small tables go into an image; larger things are mounted, or read from where they are.",
    )


def _secret(path: Path) -> DeclarationError:
    return DeclarationError(
        "package-holds-a-secret",
        f"{path} looks like a key or a token.",
        why="Whoever can pull an image can read all of it.",
        next="Mount it as a Secret, and take it away from the app's folder; leave it out of --include.",
    )
