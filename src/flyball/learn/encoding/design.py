"""The matrix that estimators are fitted on: dense, or of compressed sparse rows where there is text.

A message holds a few of thousands of terms: 100,000 messages by 20,000 terms are 8 GB dense, and some 30 MB sparse. Answers are
always given to dense rows (`Encoder.chunks`), as in serving, so what is measured is what is served.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import polars as pl
from scipy.sparse import csr_matrix, hstack
from sklearn.utils import get_tags

from flyball._kernel.errors import DeclarationError
from flyball.learn.encoding import encode
from flyball.learn.encoding.encode import Encoder, Matrix

CELLS = 1 << 28
"""Cells of a dense matrix that an estimator is fitted on, at most: 1 GB."""

Rows: TypeAlias = Matrix | csr_matrix
"""float32, (rows, width)."""


def of(encoder: Encoder, frame: pl.DataFrame) -> Rows:
    """The matrix of the training rows; sparse where the encoder has text, whatever the size.

    Raises:
        DataError: as `Encoder.encode`.
    """
    if not encoder.texts:
        return encoder.encode(frame)
    blocks = []
    for column in encoder.columns:
        if (text := column.text) is None:
            blocks.append(csr_matrix(encode.plain(frame, [column])))
        else:
            found = encode.weighed(frame, column, text)
            blocks.append(csr_matrix((found.weights, found.places, found.ends), shape=(frame.height, column.width)))
    rows: csr_matrix = hstack(blocks, format="csr")
    return rows


def suited(estimator: Any, rows: Rows) -> Rows:
    """The same rows, dense if the estimator does not say that it reads sparse ones.

    Raises:
        DeclarationError: `text-too-wide`, when they are too many for that.
    """
    if not isinstance(rows, csr_matrix) or get_tags(estimator).input_tags.sparse:
        return rows
    if rows.shape[0] * rows.shape[1] > CELLS:
        raise DeclarationError(
            "text-too-wide",
            f"{type(estimator).__name__} cannot be fitted on {rows.shape[0]:,} rows of {rows.shape[1]:,} columns.",
            why=f"It reads no sparse matrix, and a dense one has at most {CELLS:,} cells.",
            next="Use an estimator that does (LogisticRegression, LGBMClassifier), or fewer terms: fb.text(..., terms=500).",
        )
    dense: Matrix = rows.toarray(order="C")
    return dense
