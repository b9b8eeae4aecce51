"""Free text as numbers: tf-idf, as scikit-learn's TfidfVectorizer defines it, fitted to plain data.

    text -> lower case -> grams -> counts of the known terms -> times idf -> divided by the Euclidean length

Grams are runs of words (of two letters or digits and more), or of characters within words (`char_wb`). A term's idf is
1 + ln((1 + rows) / (1 + rows that hold it)) (smooth; Salton and Buckley 1988). Nothing known in a text, or no text, is all
zeros. One function weighs a text, in training and in serving, so they agree to the bit.

A term is a piece of what somebody wrote, and is stored with the version: it enters only if `min_rows` rows of the training hold
it, two at the least. Light: a server reads it.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

Split = Literal["word", "char"]

MOST_TERMS = 50_000
"""Terms of one text, at most: each is a column of the matrix."""

LONGEST = 10
"""Words or characters of a gram, at most."""

ROWS = 200_000
"""Rows that a vocabulary is chosen from, at most: more are thinned out evenly, since what they would add is rare terms."""

_WORDS = re.compile(r"(?u)\b\w\w+\b").findall


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a text is cut and weighed; a part of the declaration, and of the fitted encoder.

    Attributes:
        by: what a gram is made of: words, or characters within words.
        grams: the shortest and the longest gram.
        terms: the most frequent terms that are kept, at most.
        min_rows: rows that must hold a term; two at the least.
        sublinear: a term that is there n times counts 1 + ln(n).
    """

    by: Split = "word"
    grams: tuple[int, int] = (1, 2)
    terms: int = 5000
    min_rows: int = 3
    sublinear: bool = False

    @property
    def wrong(self) -> str:
        """What is impossible about it; "" where nothing is."""
        said: tuple[object, ...] = (self.by, self.grams, self.terms, self.min_rows)  # nobody checked the types yet
        match said:
            case "word" | "char", tuple((int(low), int(high))), int(terms), int(rows):
                pass
            case _:
                return "by is word or char, grams a pair of whole numbers, terms and min_rows are whole numbers"
        if not 1 <= low <= high <= LONGEST:
            return f"grams={self.grams}: the shortest and the longest gram are from 1 to {LONGEST}"
        if not 1 <= terms <= MOST_TERMS:
            return f"terms={terms:,}: a text becomes from 1 to {MOST_TERMS:,} columns"
        if rows < 2:
            return f"min_rows={rows}: a term of one row would give away what a single person wrote"
        return ""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted.

    Attributes:
        vocabulary: sorted; a term's place is its column.
        idf: one number a term.
    """

    vocabulary: tuple[str, ...]
    idf: tuple[float, ...]


class Weighed(NamedTuple):
    """Many texts, row by row: the layout of a sparse matrix of compressed rows.

    Attributes:
        weights: (n,) float32, not zero.
        places: (n,) int32, the term of each; in a row each once, ascending.
        ends: (rows + 1,) int64, where each row ends, after a zero.
    """

    weights: npt.NDArray[np.float32]
    places: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]


def grams(recipe: Recipe) -> Callable[[str], list[str]]:
    """The function that cuts a text by this recipe; a gram that is there twice is there twice in the list."""
    low, high = recipe.grams
    if recipe.by == "char":
        return lambda text: _within_words(text.lower(), low, high)
    if high == 1:
        return lambda text: _WORDS(text.lower())
    return lambda text: _runs(_WORDS(text.lower()), low, high)


def fit(texts: Sequence[str | None], recipe: Recipe) -> Terms:
    """The terms of these texts that `recipe.min_rows` of them hold: the most frequent ones, of equals the first by name.

    Of more than `ROWS` texts every second, third, ... is read. Logarithms are the C library's: NumPy's depend on the
    processor, and the same texts must give the same bytes.
    """
    read = texts[:: -(-len(texts) // ROWS) or 1]
    cut, total, rows = grams(recipe), Counter[str](), Counter[str]()
    for text in read:
        if text is not None:
            found = cut(text)
            total.update(found)
            rows.update(set(found))
    shared = sorted((-total[term], term) for term, n in rows.items() if n >= recipe.min_rows)
    vocabulary = tuple(sorted(term for _, term in shared[: recipe.terms]))
    return Terms(
        vocabulary=vocabulary, idf=tuple(1 + math.log((1 + len(read)) / (1 + rows[term])) for term in vocabulary)
    )


def weigher(terms: Terms, recipe: Recipe) -> Callable[[str | None], list[tuple[int, float]]]:
    """The function that weighs one text: (place, weight) of each term that it holds, by place."""
    cut, idf, sublinear = grams(recipe), terms.idf, recipe.sublinear
    known = {term: place for place, term in enumerate(terms.vocabulary)}.get

    def weigh(text: str | None) -> list[tuple[int, float]]:
        if text is None:
            return []
        counts: Counter[int | None] = Counter(map(known, cut(text)))
        del counts[None]
        found: list[tuple[int, float]] = []
        for place, n in counts.items():
            assert place is not None  # noqa: S101 - taken out above
            found.append((place, (1 + math.log(n) if sublinear else n) * idf[place]))
        found.sort()
        # An exact sum: neither the order of the terms nor the version of Python changes its last bit.
        length = math.sqrt(math.fsum([weight * weight for _, weight in found]))
        return [(place, weight / length) for place, weight in found]

    return weigh


def weighed(terms: Terms, recipe: Recipe, texts: Iterable[str | None]) -> Weighed:
    """Many texts, weighed one by one: so one alone has the same bits."""
    weigh = weigher(terms, recipe)
    weights, places, ends = array("f"), array("i"), array("q", [0])
    for text in texts:
        for place, weight in weigh(text):
            places.append(place)
            weights.append(weight)
        ends.append(len(places))
    return Weighed(
        np.array(weights, dtype=np.float32), np.array(places, dtype=np.int32), np.array(ends, dtype=np.int64)
    )


def _runs(words: list[str], low: int, high: int) -> list[str]:
    """All runs of `low` to `high` words, joined by one space."""
    found = words[:] if low == 1 else []
    for n in range(max(low, 2), min(high, len(words)) + 1):
        found += map(" ".join, zip(*(words[i:] for i in range(n)), strict=False))
    return found


def _within_words(text: str, low: int, high: int) -> list[str]:
    """All runs of `low` to `high` characters of each word with a space before and behind; a shorter word is a run itself."""
    found = []
    for word in text.split():
        padded, width = f" {word} ", len(word) + 2
        for n in range(low, min(high, width) + 1):
            found += [padded[i : i + n] for i in range(width - n + 1)]
        if width < low:
            found.append(padded)
    return found
