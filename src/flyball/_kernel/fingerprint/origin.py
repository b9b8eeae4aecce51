"""Whose code is it? First-party code is followed through its source; everybody else's counts by its version.

**First-party** is what lies neither in the standard library, nor in site-packages, nor in flyball itself. flyball is told
by its own folder, because an editable install lies outside site-packages. A label says the rest: `python==3.11`,
`flyball==0.1.0`, `polars==2.1.0`. Third-party code that belongs to no installed distribution has no version: refused.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, ModuleType

from flyball._kernel.errors import DeclarationError

PYTHON = f"python=={sys.version_info.major}.{sys.version_info.minor}"
_HOUSE = os.path.realpath(Path(__file__).parents[2])
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def label(module: str, file: str | None = None) -> str | None:
    """The distribution and version that a module belongs to; None if it is first-party.

    Args:
        module: its dotted name.
        file: where its code lies, if that is known better than the module knows it.

    Raises:
        DeclarationError: `cannot-follow`, for installed code without a distribution.
    """
    if file is None or file.startswith("<"):
        file = _file(module)
    if file is None:
        return PYTHON if module.partition(".")[0] in sys.stdlib_module_names else None
    return _owner(module.partition(".")[0], file)


def first_party(module: ModuleType) -> bool:
    """Whether a module's source is followed."""
    return label(module.__name__) is None


def exists(module: str) -> bool:
    """Whether a module could be imported; imports nothing that is not first-party."""
    top = module.partition(".")[0]
    if _file(top) is None and top not in sys.modules and top not in sys.stdlib_module_names:
        return False
    if label(top) is not None or module in sys.modules:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


def spelling(function: FunctionType) -> tuple[str, str] | None:
    """(label, dotted name) of a function that somebody else's module holds under its own name, else None.

    A closure that a library made for a first-party function often claims that function's name: it is not what the name
    in the library's own module stands for, and is told apart by that.
    """
    found: object = sys.modules.get(function.__module__ or "")
    if found is None or (owner := label(function.__module__)) is None:
        return None
    for part in function.__qualname__.split("."):
        found = vars(found).get(part) if isinstance(found, (ModuleType, type)) else None
    found = getattr(found, "__func__", found)
    return (owner, f"{function.__module__}.{function.__qualname__}") if found is function else None


def holder(value: object) -> tuple[str, str] | None:
    """(label, dotted name) of an object that a third-party module holds as one of its own names, such as `polars.col`."""
    claimed = {getattr(value, "__module__", None), type(value).__module__}
    names = {n for n in claimed if isinstance(n, str)}
    for name in sorted(names | {n.partition(".")[0] for n in names}):
        module = sys.modules.get(name)
        if module is not None and (owner := label(name)) is not None:
            held = sorted(k for k, v in vars(module).items() if v is value)
            if held:
                return owner, f"{name}.{held[0]}"
    return None


def _file(module: str) -> str | None:
    loaded = sys.modules.get(module)
    if loaded is not None:
        spec = getattr(loaded, "__spec__", None)
        file: str | None = getattr(loaded, "__file__", None) or getattr(spec, "origin", None)
        folders = list(getattr(loaded, "__path__", ()))
    else:
        spec = importlib.util.find_spec(module.partition(".")[0])
        if spec is None:
            return None
        file, folders = spec.origin, list(spec.submodule_search_locations or ())
    if file is not None and os.path.isabs(file):
        return file
    return folders[0] if folders else None


@functools.lru_cache(maxsize=4096)
def _owner(top: str, file: str) -> str | None:
    path = os.path.realpath(file)
    if _within(path, _HOUSE):
        return f"flyball=={_version('flyball') or 'uninstalled'}"
    installed = (os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib"))
    if not _INSTALLED.isdisjoint(Path(path).parts) or any(_within(path, folder) for folder in installed):
        return _distributions(top, file)
    standard = (os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))
    return PYTHON if any(_within(path, folder) for folder in standard) else None


def _distributions(top: str, file: str) -> str:
    names = sorted(set(_providers().get(top, ())))
    if not names:
        raise DeclarationError(
            "cannot-follow",
            f"The module {top!r} belongs to no installed distribution, so it has no version.",
            why=f"Third-party code counts by its version; this code lies in {file}.",
            next="Install it as a distribution, or move it into your project, where its source is followed.",
        )
    return ",".join(f"{name}=={_version(name)}" for name in names)


@functools.cache
def _providers() -> Mapping[str, list[str]]:
    """Import name -> distributions. Takes a tenth of a second: once in a process."""
    return importlib.metadata.packages_distributions()


@functools.cache
def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _within(path: str, folder: str) -> bool:
    return path.startswith(folder + os.sep)
