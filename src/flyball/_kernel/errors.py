"""What can go wrong, split by who is at fault.

    FlyballError
    ├── DeclarationError   your app file contradicts itself; found by `plan`, before anything moves
    ├── DataError          your data breaks its contract; the rows are kept in quarantine
    ├── GateError          not good enough: a decision, not a crash (exit code 3)
    ├── StateError         what is recorded forbids this step
    ├── AdapterError       the world failed: disk, network, another process
    │   └── RetryableError   ... in a way that may pass: try again
    └── Bug                we failed; please report it

Every error says what happened, where (the declaration's file and line), why, and the next command. `code` is a stable
slug with a heading in docs/reference/errors.md. Texts are bounded, however large the data that caused them.
"""

from __future__ import annotations

from typing import ClassVar

from flyball._kernel.place import Place

LIMIT = 1_500
"""Characters of one part of a message: an error stays readable however large the data."""


def bounded(text: str, limit: int = LIMIT) -> str:
    """`text`, cut to `limit` characters with the number left out named."""
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} more characters)"


class FlyballError(Exception):
    """The root of every error that flyball raises on purpose.

    Args:
        code: a stable slug, such as `leaks-outcome`; documented in docs/reference/errors.md.
        what: what happened, in one sentence.
        where: the declaration that it is about.
        why: the rule or the fact behind it.
        next: what to do or run next.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, what: str, *, where: Place | None = None, why: str = "", next: str = "") -> None:
        self.code = code
        self.what = bounded(what)
        self.where = where
        self.why = bounded(why)
        self.next = bounded(next)
        super().__init__(code, self.what)

    def __str__(self) -> str:
        lines = [f"{self.what} [{self.code}]"]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.why:
            lines.append(f"  why:   {self.why}")
        if self.next:
            lines.append(f"  next:  {self.next}")
        return "\n".join(lines)


class DeclarationError(FlyballError):
    """The app file contradicts itself."""

    exit_code = 2


class DataError(FlyballError):
    """The data breaks its contract."""


class GateError(FlyballError):
    """A gate said no: a decision, not a crash."""

    exit_code = 3


class StateError(FlyballError):
    """What is recorded forbids this step."""


class AdapterError(FlyballError):
    """The world failed: disk, network, another process."""

    retryable: ClassVar[bool] = False


class RetryableError(AdapterError):
    """The world failed in a way that may pass: try again."""

    retryable = True


class Bug(FlyballError):
    """flyball failed: this should not happen, please report it."""
