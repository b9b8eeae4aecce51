"""From feature values to the float32 row that the model reads, as `flyball.learn.encoding` does it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .refused import Refused

_LARGEST = float(np.finfo(np.float32).max)
_WORDS = re.compile(r"(?u)\b\w\w+\b").findall
_PLAIN = {"text": str, "integer": int}


def encoder(columns: list[dict[str, Any]]) -> Callable[[Sequence[Any]], Any]:
    """Values in the order of `columns` -> float32, (1, width)."""
    parts = [_text(column) if column["reads"] == "prose" else _plain(column) for column in columns]

    def encode(values: Sequence[Any]) -> Any:
        found: list[float] = []
        for part, value in zip(parts, values, strict=True):
            found += part(value)
        return np.array([found], dtype=np.float32)

    return encode


def _plain(column: dict[str, Any]) -> Callable[[Any], list[float]]:
    wanted = _PLAIN.get(column["reads"])
    codes = {value: float(code) for code, value in enumerate(column.get("vocabulary", ()))}

    def code(value: Any) -> list[float]:
        if value is None:
            return [math.nan]
        if wanted is None and type(value) in (bool, int, float):
            return [float(value) if -_LARGEST <= value <= _LARGEST else math.nan]
        if wanted is None or type(value) is not wanted:
            raise Refused(f"{column['name']!r} is a {type(value).__name__}, and the model reads {column['reads']}.")
        return [codes.get(value, -1.0)]

    return code


def _text(column: dict[str, Any]) -> Callable[[Any], list[float]]:
    """tf-idf: the weights of the known terms of a text, divided by their length."""
    vocabulary, idf, recipe = column["vocabulary"], column["idf"], column["recipe"]
    known = {term: place for place, term in enumerate(vocabulary)}.get
    low, high = recipe["grams"]

    def weigh(value: Any) -> list[float]:
        found = [0.0] * len(vocabulary)
        if value is None:
            return found
        cut = _within_words(value.lower(), low, high) if recipe["by"] == "char" else _runs(value.lower(), low, high)
        counts = Counter(map(known, cut))
        del counts[None]
        weights = {
            place: (1 + math.log(n) if recipe["sublinear"] else n) * idf[place]
            for place, n in counts.items()
            if place is not None
        }
        length = math.sqrt(math.fsum(weight * weight for weight in weights.values()))
        for place, weight in weights.items():
            found[place] = weight / length
        return found

    return weigh


def _runs(text: str, low: int, high: int) -> list[str]:
    words = _WORDS(text)
    return [" ".join(words[i : i + n]) for n in range(low, high + 1) for i in range(len(words) - n + 1)]


def _within_words(text: str, low: int, high: int) -> list[str]:
    found = []
    for word in text.split():
        padded, width = f" {word} ", len(word) + 2
        for n in range(low, min(high, width) + 1):
            found += [padded[i : i + n] for i in range(width - n + 1)]
        if width < low:
            found.append(padded)
    return found
