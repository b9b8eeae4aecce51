"""The environment of a training: every installed distribution that it may have run, with its version, as it is signed.

What decides on a result is a cause (`causes.environment`) and is few. This is more: what somebody needs to make an environment
in which the version can be made again. Found are the requirements of this package, and of each library that the app's own
modules of models and preparations name, transitively.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any

from flyball.app import App
from flyball.cycle import causes

PREFIX = "environment: "
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OTHERWISE = {"sklearn": "scikit-learn"}
"""Modules whose distribution has another name, and which are common; of others the installed files are asked."""


def recorded(app: App) -> dict[str, str]:
    """Python, the machine, and distribution -> version; names as causes have them."""
    found = distributions(("flyball", *sorted(set(_used(app)))))
    basis = {name: str(value) for name, value in causes.environment().items()}
    return basis | {f"{PREFIX}{name}": version for name, version in found.items()}


def plain(environment: dict[str, str]) -> dict[str, str]:
    """The same by plain names."""
    return {name.removeprefix(PREFIX): version for name, version in environment.items()}


@cache
def distributions(roots: Sequence[str]) -> dict[str, str]:
    """The installed distributions that these need, with themselves: name -> version, in order.

    What only an extra asks for is not followed: where the app uses it, it is a root of its own.
    """
    found: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        found[name] = distribution.version
        waiting += filter(None, map(_required, distribution.requires or ()))
    return dict(sorted(found.items()))


def _required(line: str) -> str:
    """The distribution that a requirement names; "" where only an extra has it."""
    requirement, _, marker = line.partition(";")
    named = _NAME.match(requirement.strip())
    return named.group() if named is not None and "extra" not in marker else ""


def _used(app: App) -> Iterator[str]:
    """The distributions of what the app's own modules of models and preparations name."""
    functions: list[Any] = [*(m.build for m in app.models), *(s.prepare for s in app.sources)]
    for function in functions:
        for value in list(getattr(function, "__globals__", {}).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(name, str) and (found := _distribution(name.partition(".")[0])):
                yield found


@cache
def _distribution(module: str) -> str:
    """The distribution of an installed top module; "" for what is no installed library."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    if module in sys.stdlib_module_names or "-packages" not in file:
        return ""
    name = _OTHERWISE.get(module, module)
    try:
        return metadata.distribution(name).name
    except metadata.PackageNotFoundError:
        return next(iter(metadata.packages_distributions().get(module, ())), "")
