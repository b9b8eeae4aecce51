"""Plain values as YAML that a person can read: block style, and every text in double quotes, escaped as JSON does.

So no text can be anything but itself: not a number, not a second document, not a tag or a template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z")
_TAKEN: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""Words that YAML 1.1 reads as something else than text."""


def documents(values: list[dict[str, Any]]) -> str:
    """Several documents in one file."""
    return "---\n".join("\n".join((*_block(value), "")) for value in values)


def _block(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _entry(f"{_key(key)}:", each)
    elif isinstance(value, list) and value:
        for each in value:
            lines = list(_block(each))
            yield f"- {lines[0]}"
            yield from (f"  {line}" for line in lines[1:])
    else:
        yield _scalar(value)


def _entry(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield key
        yield from (f"  {line}" for line in _block(value))
    else:
        yield f"{key} {_scalar(value)}"


def _key(key: str) -> str:
    return key if _KEY.match(key) and key.lower() not in _TAKEN else _scalar(key)


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    # JSON says what lies beyond 16 bits as two halves, which YAML does not put together.
    return '"' + "".join(f"\\U{ord(c):08x}" if ord(c) > 0xFFFF else json.dumps(c)[1:-1] for c in value) + '"'
