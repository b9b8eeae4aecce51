"""Outlines: the one shape that all texts of a column have, as a regular expression: `AB12` and `XY7` are `[A-Z]{2}[0-9]{1,2}`.

Capitals, small letters and digits are kinds; every other sign stands for itself. An outline without a digit says too little
(any word has one) and is no shape.
"""

from __future__ import annotations

import polars as pl

LEAST, LONGEST = 5, 40
"""So many different texts are needed, and none may be longer, in bytes."""


def regex(cells: pl.Series) -> str:
    """One regular expression of capitals, small letters, digits and signs that all cells of the sample match, or ""."""
    texts = cells.drop_nulls().unique()
    if len(texts) < LEAST or texts.str.len_bytes().max() > LONGEST:  # type: ignore[operator]
        return ""
    forms = texts.str.replace_all("[A-Z]", "A").str.replace_all("[a-z]", "a").str.replace_all("[0-9]", "9").unique()
    outlines = forms.str.replace_all("A+", "A").str.replace_all("a+", "a").str.replace_all("9+", "9").unique()
    if len(outlines) != 1 or "9" not in (outline := str(outlines[0])) or not outline.isprintable():
        return ""
    runs = [_runs(form) for form in forms]
    parts = [_part(sign, {run[n][1] for run in runs}) for n, (sign, _) in enumerate(runs[0])]
    return f"^{''.join(parts)}$"


def _runs(form: str) -> list[tuple[str, int]]:
    """The outline of a form, with how long each run of it is; a sign stands for itself, once."""
    runs: list[tuple[str, int]] = []
    for sign in form:
        if runs and sign in "Aa9" and runs[-1][0] == sign:
            runs[-1] = sign, runs[-1][1] + 1
        else:
            runs.append((sign, 1))
    return runs


def _part(sign: str, lengths: set[int]) -> str:
    kind = {"A": "[A-Z]", "a": "[a-z]", "9": "[0-9]"}.get(sign)
    if kind is None:
        return f"\\{sign}" if sign in ".+*?()|[]{}^$\\" else sign
    least, most = min(lengths), max(lengths)
    if least != most:
        return f"{kind}{{{least},{most}}}"
    return kind if most == 1 else f"{kind}{{{most}}}"
