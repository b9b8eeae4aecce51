"""Texts: what is cut, which terms enter, what is stored of them, and the matrices that training and serving read."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from flyball._kernel.errors import DataError, DeclarationError, StateError
from flyball.learn.encoding import design, encode, texts
from flyball.learn.encoding.texts import Recipe

MESSAGES = ["Free prize now", "free PRIZE, now now", None, "see you at home", "home at six", "a free home"]
FRAME = pl.DataFrame({"message": MESSAGES, "day": [1, 2, 3, 4, 5, None], "sender": ["x", "y", "x", None, "y", "x"]})
WORDS = Recipe(grams=(1, 2), min_rows=2)
COLUMNS: list[tuple[str, encode.Kind | Recipe]] = [("day", "number"), ("message", WORDS), ("sender", "category")]


@pytest.fixture(scope="module")
def encoder() -> encode.Encoder:
    return encode.fit(FRAME, COLUMNS)


def test_words_are_of_two_letters_and_more_and_runs_of_them_are_joined_by_a_space() -> None:
    cut = texts.grams(Recipe(grams=(1, 3)))
    assert cut("It's a DAY, öl_1!") == ["it", "day", "öl_1", "it day", "day öl_1", "it day öl_1"]
    assert texts.grams(Recipe(grams=(2, 2)))("one two one two") == ["one two", "two one", "one two"]
    assert texts.grams(Recipe(grams=(2, 3)))("one") == []


def test_characters_do_not_leave_their_word_and_a_short_word_is_one_gram() -> None:
    cut = texts.grams(Recipe(by="char", grams=(3, 4)))
    assert cut("I\t\nam") == [" i ", " am", "am ", " am "]
    assert texts.grams(Recipe(by="char", grams=(5, 6)))("ab") == [" ab "]


def test_a_term_enters_if_enough_rows_hold_it_the_most_frequent_first() -> None:
    def found(**settings: Any) -> tuple[str, ...]:
        return texts.fit(MESSAGES, msgspec.structs.replace(WORDS, **settings)).vocabulary

    assert found() == ("at", "free", "free prize", "home", "now", "prize", "prize now")
    assert found(min_rows=3) == ("free", "home")
    assert found(terms=2) == ("free", "home"), "of equals (now is there three times too) the first by name"
    assert found(min_rows=4) == ()
    assert texts.fit(["once once once", "other"], Recipe(min_rows=2)).vocabulary == (), "rows count, not occurrences"


def test_a_vocabulary_is_chosen_from_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "ROWS", 4)
    assert texts.fit(["even", "odd"] * 4, Recipe(min_rows=2)).vocabulary == ("even",), "every second of eight"
    assert texts.fit(["aa", "bb", "aa", "bb"], Recipe(min_rows=2)).vocabulary == ("aa", "bb")


def test_a_text_is_one_column_a_term(encoder: encode.Encoder) -> None:
    assert encoder.names == ("day", "message", "sender")
    assert encoder.groups == (("day", range(1)), ("message", range(1, 8)), ("sender", range(8, 9)))
    assert (encoder.width, encoder.numbers, encoder.categories, encoder.texts) == (9, (0,), (8,), tuple(range(1, 8)))
    assert encoder.labels[1:3] == ("message: at", "message: free")
    matrix = encoder.encode(FRAME)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    np.testing.assert_allclose((matrix[:, 1:8] ** 2).sum(axis=1), [1, 1, 0, 1, 1, 1], rtol=1e-6)
    np.testing.assert_array_equal(matrix[:, 0], np.array([1, 2, 3, 4, 5, np.nan], dtype=np.float32))
    np.testing.assert_array_equal(matrix[:, 8], np.array([0, 1, 0, np.nan, 1, 0], dtype=np.float32))


def test_a_row_leaves_nothing_of_the_row_before(encoder: encode.Encoder) -> None:
    row = encode.compile_row(encoder)
    first = row([1, "free prize home", "x"]).tobytes()
    assert not row([None, None, None])[1:8].any()
    assert not row([1, "words that nobody shares", "x"])[1:8].any()
    assert row([1, "free prize home", "x"]).tobytes() == first
    with pytest.raises(DataError, match="wrong-type"):
        row([1, 5, "x"])
    assert row([1, "free prize home", "x"]).tobytes() == first
    with pytest.raises(DataError, match="wrong-width"):
        row([1, "free"])


def test_chunks_are_the_matrix_in_pieces(encoder: encode.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoder.encode(FRAME)
    monkeypatch.setattr(encode, "CELLS", 9 * 4)
    chunks = list(encoder.chunks(FRAME))
    assert [len(chunk) for chunk in chunks] == [4, 2]
    assert np.concatenate(chunks).tobytes() == whole.tobytes()
    assert [chunk.shape for chunk in encoder.chunks(FRAME.clear())] == [(0, 9)]
    answers = encoder.answers(FRAME, lambda m: m.astype(np.float64).sum(axis=1))
    np.testing.assert_array_equal(answers, whole.astype(np.float64).sum(axis=1))
    plain = encode.fit(FRAME, [("day", "number")])
    assert [len(chunk) for chunk in plain.chunks(FRAME)] == [6], "what has no text is never cut"


def test_training_reads_the_same_numbers_sparse(encoder: encode.Encoder) -> None:
    rows = design.of(encoder, FRAME)
    assert isinstance(rows, csr_matrix)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows.toarray(), encoder.encode(FRAME))
    assert isinstance(design.of(encode.fit(FRAME, [("day", "number")]), FRAME), np.ndarray)


def test_an_estimator_that_reads_no_sparse_rows_gets_dense_ones_within_bounds(
    encoder: encode.Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = design.of(encoder, FRAME)
    assert design.suited(LogisticRegression(), rows) is rows
    dense = design.suited(HistGradientBoostingClassifier(), rows)
    assert isinstance(dense, np.ndarray)
    assert dense.tobytes() == encoder.encode(FRAME).tobytes()
    monkeypatch.setattr(design, "CELLS", 53)
    with pytest.raises(DeclarationError) as caught:
        design.suited(HistGradientBoostingClassifier(), rows)
    assert caught.value.code == "text-too-wide"


def test_texts_that_share_nothing_are_no_columns() -> None:
    lonely = pl.DataFrame({"message": ["one", "two"], "day": [1, 2]})
    with pytest.raises(DataError, match="no-terms"):
        encode.fit(lonely, [("message", WORDS)])
    encoder = encode.fit(lonely, [("message", WORDS), ("day", "number")])
    assert encoder.encode(lonely).tolist() == [[1.0], [2.0]]
    assert encode.compile_row(encoder)(["one", 2]).tolist() == [2.0]
    np.testing.assert_array_equal(design.of(encoder, lonely), [[1.0], [2.0]])
    assert encode.from_bytes(encoder.to_bytes()) == encoder


def test_only_texts_can_be_cut() -> None:
    with pytest.raises(DeclarationError, match="unencodable"):
        encode.fit(FRAME, [("day", WORDS)])
    with pytest.raises(DataError, match="wrong-type"):
        encode.fit(FRAME, COLUMNS).encode(FRAME.with_columns(message=pl.lit(5)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"grams": (2, 1)},
        {"grams": (0, 1)},
        {"grams": (1, 11)},
        {"grams": (1, 2, 3)},
        {"grams": [1, 2]},
        {"grams": 2},
        {"terms": 0},
        {"terms": texts.MOST_TERMS + 1},
        {"terms": 1.5},
        {"min_rows": 1},
        {"by": "line"},
    ],
)
def test_impossible_recipes_say_what_is_wrong(wrong: dict[str, Any]) -> None:
    assert Recipe(**wrong).wrong
    assert not Recipe().wrong


def test_an_encoder_without_text_is_stored_as_it_ever_was() -> None:
    encoder = encode.fit(FRAME, [("day", "number"), ("sender", "category")])
    assert encoder.to_bytes() == (
        b'{"columns":[{"name":"day","reads":"number","vocabulary":[]},'
        b'{"name":"sender","reads":"text","vocabulary":["x","y"]}],"version":1}'
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"min_rows":2', b'"min_rows":1'),
        (b'"terms":5000', b'"terms":3'),
        (b'"by":"word"', b'"by":"line"'),
        (b'"grams":[1,2]', b'"grams":[2,1]'),
        (b'"idf":[1.', b'"idf":[0.'),
        (b'"idf":[1.', b'"idf":[1111.'),
        (b'"at","free"', b'"free","at"'),
        (b'"at","free"', b'"at",1'),
        (b'"at","free"', b'"at"'),
        (b'"reads":"prose"', b'"reads":"text"'),
        (b'"reads":"number","vocabulary":[]', b'"reads":"prose","vocabulary":[]'),
        (b',"sublinear":false', b',"sublinear":0'),
    ],
)
def test_damaged_texts_are_refused(encoder: encode.Encoder, old: bytes, new: bytes) -> None:
    data = encoder.to_bytes()
    assert encode.from_bytes(data) == encoder
    assert data.replace(old, new) != data
    with pytest.raises(StateError, match="encoder-damaged"):
        encode.from_bytes(data.replace(old, new))
