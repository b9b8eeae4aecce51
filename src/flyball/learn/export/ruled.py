"""A rule, answering: the app's own function over decoded rows, and the artifact that says which function it was.

`rule.json` can be read without the app, and cannot answer without it: `bound` joins it with the function, whose
fingerprint must be the same. Rows are decoded from the encoded ones, so a rule sees what an estimator sees.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from flyball._kernel import fingerprint
from flyball._kernel.errors import DeclarationError, StateError
from flyball._kernel.place import Place
from flyball.learn.encoding.encode import Encoder
from flyball.learn.export import predictor
from flyball.learn.task import Answer, Answers, Task

Row = Mapping[str, Any]
Function = Callable[[Row], Any]

_SUM = 1e-6
"""How far the probabilities of all classes may be from one."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What a version keeps of a rule: that it was this one."""

    fingerprint: str
    features: int
    version: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class Bound:
    """A rule with what decodes its rows: fitted from the start, and its own predictor."""

    function: Function
    encoder: Encoder
    task: Task

    @property
    def name(self) -> Literal["rule"]:
        """The kind of predictor."""
        return "rule"

    @property
    def features(self) -> int:
        """The number of columns that it reads."""
        return self.encoder.width

    def row(self, values: predictor.Matrix) -> Answer:
        """The answer to one row: float32 of shape (features,).

        Raises:
            DeclarationError: `rule-failed`, `rule-out-of-range`.
        """
        if values.shape != (self.features,):
            raise predictor.wrong_shape(values.shape, values.dtype, self.features)
        try:
            answer = self.function(self._decoded(values.tolist(), values))
        except Exception as error:
            raise _failed(self.function, error) from error
        return self._checked(answer)

    def batch(self, matrix: predictor.Matrix) -> Answers:
        """The answers to a matrix: float32 of shape (rows, features); float64 of shape (rows,) or (rows, width)."""
        width = self.task.width
        found = np.array([self.row(values) for values in matrix], dtype=np.float64)
        return found.reshape((len(matrix),) if width == 1 else (len(matrix), width))

    def _decoded(self, values: list[float], exact: predictor.Matrix) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for column, (name, places) in zip(self.encoder.columns, self.encoder.groups, strict=True):
            if column.text is not None:
                continue
            value = values[places.start]
            if value != value:
                row[name] = None
            elif column.reads != "number":
                row[name] = column.vocabulary[int(value)] if value >= 0 else None
            else:
                # The shortest decimal that is this float32: 0.1 is 0.1 again, as the rule's own constants say it.
                row[name] = value if value.is_integer() else float(str(exact[places.start]))
        return row

    def _checked(self, answer: Any) -> Answer:
        task = self.task
        if isinstance(answer, str) and answer in task.classes:
            return tuple(float(name == answer) for name in task.classes)
        numbers = answer if isinstance(answer, tuple) else (answer,)
        if len(numbers) != task.width or not all(
            isinstance(n, (bool, int, float, np.number, np.bool_)) and math.isfinite(n) for n in numbers
        ):
            raise _out_of_range(self.function, answer, task)
        found = tuple(float(n) for n in numbers)
        if task.classifies and not all(0 <= n <= 1 for n in found):
            raise _out_of_range(self.function, answer, task)
        if task.classes and abs(sum(found) - 1) > _SUM:
            raise _out_of_range(self.function, answer, task)
        return found[0] if task.width == 1 else found


def stored(bound: Bound) -> bytes:
    """`rule.json`: deterministic, and no code."""
    return msgspec.json.encode(Stored(fingerprint=fingerprint.of(bound.function), features=bound.features))


def read(data: bytes) -> Stored:
    """What `stored` wrote.

    Raises:
        StateError: `hostile-model`.
    """
    try:
        found = msgspec.json.decode(data, type=Stored)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StateError(
            "hostile-model", "A stored rule is refused.", why=str(error), next="flyball reproduce, or flyball apply"
        ) from error
    return found


def bound(data: bytes, function: Function, encoder: Encoder, task: Task) -> predictor.Predictor:
    """The predictor of a version that answers by a rule, over the app's own function.

    Raises:
        StateError: `hostile-model`; `rule-changed`, when the app's function is not the one that the version was judged with.
    """
    found = read(data)
    if found.fingerprint != fingerprint.of(function) or found.features != encoder.width:
        raise changed("Its function, or what it reaches, was edited since.")
    return Bound(function, encoder, task)


def load(data: bytes) -> predictor.Predictor:
    """Never: a rule is no data.

    Raises:
        StateError: `hostile-model`; `rule-needs-its-app`.
    """
    found = read(data)
    raise StateError(
        "rule-needs-its-app",
        "A version that answers by a rule cannot answer without its app.",
        why=f"What is stored of it is a fingerprint ({found.fingerprint[:12]}), and never code.",
        next="Ask through the app that declares it: flyball serve.",
    )


def changed(why: str) -> StateError:
    """The error for a rule that is not the one that was judged."""
    return StateError(
        "rule-changed",
        "A version answers by a rule that the app does not declare any more.",
        why=why,
        next="flyball apply: the rule as it is now becomes a version, and is judged",
    )


def _failed(function: Function, error: Exception) -> DeclarationError:
    code = getattr(function, "__code__", None)
    mine = [f for f in traceback.extract_tb(error.__traceback__) if code and f.filename == code.co_filename]
    return DeclarationError(
        "rule-failed",
        f"The rule {_called(function)} failed: {type(error).__name__}.",
        where=Place(mine[-1].filename, mine[-1].lineno or 0) if mine else _place(function),
        why="A rule answers every row; a value that is missing, or was never seen in training, is None.",
        next="Mend that line, then run the same command again.",
    )


def _out_of_range(function: Function, answer: Any, task: Task) -> DeclarationError:
    wanted = {
        "binary": "a Boolean, or a probability from 0 to 1",
        "multiclass": f"a class by its name, or a tuple of {task.width} probabilities that sum to 1",
        "quantile": f"a tuple of {task.width} finite numbers",
    }.get(task.kind, "a finite number")
    return DeclarationError(
        "rule-out-of-range",
        f"The rule {_called(function)} answered {type(answer).__name__}, which is no answer here.",
        where=_place(function),
        why=f"It must answer {wanted}.",
        next="Mend what it returns, then run the same command again.",
    )


def _called(function: Function) -> str:
    return repr(str(getattr(function, "__name__", type(function).__name__))[:60])


def _place(function: Function) -> Place | None:
    code = getattr(function, "__code__", None)
    return Place(code.co_filename, code.co_firstlineno) if code else None
