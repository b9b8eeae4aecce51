"""Texts are weighed as scikit-learn weighs them, and one alone as among many, to the bit."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from flyball.learn.encoding import design, encode
from flyball.learn.encoding.texts import Recipe

PIECES = [
    "free",
    "Prize",
    "PRIZE",
    "a",
    "I",
    "öl",
    "ǅ",
    "ΣΑΣ",
    "İx",
    "x_1",
    "don't",
    "42",
    "😀",
    "e\u0301te",
    "日本",
    "\u00a0",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).flatmap(
    lambda words: st.sampled_from([" ", "  ", ", ", "\n\t", "\u2003", "-"]).map(lambda gap: gap.join(words))
)
MANY = st.lists(st.one_of(st.none(), TEXTS, st.text(max_size=6)), min_size=2, max_size=10)
# A term has to be in up to three rows: drawn at random few are.
SEEN = MANY | MANY.map(lambda rows: rows * 3)
RECIPES = st.builds(
    lambda by, low, more, rows, sublinear: Recipe(
        by=by, grams=(low, low + more), min_rows=rows, sublinear=sublinear, terms=50_000
    ),
    st.sampled_from(["word", "char"]),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(2, 3),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(seen=SEEN, asked=MANY, recipe=RECIPES)
@example(seen=["free free prize", "free now", None], asked=["FREE free now", ""], recipe=Recipe(min_rows=2))
def test_texts_are_weighed_as_scikit_learn_does_and_one_as_many(
    seen: list[str | None], asked: list[str | None], recipe: Recipe
) -> None:
    frame = pl.DataFrame({"text": seen}, schema={"text": pl.String})
    theirs = TfidfVectorizer(
        analyzer="word" if recipe.by == "word" else "char_wb",
        ngram_range=recipe.grams,
        min_df=recipe.min_rows,
        sublinear_tf=recipe.sublinear,
    )
    try:
        theirs.fit([text or "" for text in seen])
    except ValueError:
        assume(False)
    encoder = encode.from_bytes(encode.fit(frame, [("text", recipe)]).to_bytes())
    assert encoder.columns[0].vocabulary == tuple(theirs.get_feature_names_out())
    table = pl.DataFrame({"text": asked}, schema={"text": pl.String})
    matrix = encoder.encode(table)
    expected = theirs.transform([text or "" for text in asked]).toarray()
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-6)
    row = encode.compile_row(encoder)
    assert b"".join(row([text]).tobytes() for text in asked) == matrix.tobytes()
    assert design.of(encoder, table).toarray().tobytes() == matrix.tobytes()
