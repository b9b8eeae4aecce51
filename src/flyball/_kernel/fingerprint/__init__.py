"""Fingerprints: a value as 64 hexadecimal digits; equal exactly if it means the same. What a step's key is made of.

Values count by canonical structure. Polars expressions count by `meta.serialize()` and the Polars version. Estimators
count by class, `get_params(deep=True)` and the version of their distribution. Functions count by the normalised syntax tree of
themselves and of everything first-party that they reach; third-party code counts by version. What cannot be fingerprinted is
refused by name, with a `DeclarationError`: a fingerprint that leaves something out would be worse than none.

    origin    whose code is it?                      source    from a live function to its statement
    recipes   how known types are said plainly       mentions  what a statement mentions
    canon     canonical bytes, and graphs of them    code      what a definition reaches
    walk      over all that a value holds
"""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType

from flyball._kernel.fingerprint import walk
from flyball._kernel.fingerprint.code import DECLARED

__all__ = ["DECLARED", "of", "parts"]


def of(*values: object) -> str:
    """The fingerprint of values: SHA-256 in 64 hexadecimal digits, the same in every process and checkout.

    A class says what it means itself with `__fingerprint__`, a method (for instances) or classmethod (for the class) that
    returns plainer values.

    Raises:
        DeclarationError: `cannot-fingerprint` names the type and the path within the value; `cannot-follow` names the
            code and the line.
    """
    if len(values) != 1:
        return walk.digest({f"values[{i}]": v for i, v in enumerate(values)})
    (value,) = values
    return walk.digest({value.__qualname__ if isinstance(value, (type, FunctionType)) else type(value).__name__: value})


def parts(named: Mapping[str, object]) -> dict[str, str]:
    """The fingerprint of each named part, so that a changed whole can say which part changed.

    Raises:
        DeclarationError: as for `of`; the path begins with the name of the part.
    """
    return {name: walk.digest({name: value}) for name, value in named.items()}
