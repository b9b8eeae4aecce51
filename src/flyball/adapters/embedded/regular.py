"""Whether a CSV file is regular: one record a line, each as wide as the header, quotes as RFC 4180 has them, all UTF-8.

Polars reads a regular file by itself, fast, and reads it right. Looking costs about as much as reading: a block is looked at
as bytes, and only its separators, quotes and ends of lines, a tenth of it, are looked at twice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flyball.adapters.embedded.lines import LONGEST

_BLOCK = 256 << 10
"""Bytes looked at at once: few enough to stay in the processor's cache."""

_QUOTE, _NEWLINE, _RETURN = b'"\n\r'


def is_regular(path: Path, width: int, separator: str) -> bool:
    """Whether every line is a record of `width` fields; reads the file once, in blocks that end with a line."""
    with path.open("rb") as file:
        rest = b""
        while block := file.read(_BLOCK):
            block = rest + block
            end = block.rfind(b"\n") + 1
            block, rest = block[:end], block[end:]
            if max(len(rest), block.find(b"\n") + 1) > LONGEST or not _is_regular_block(block, width, ord(separator)):
                return False
    return not rest or _is_regular_block(rest + b"\n", width, ord(separator))


def _is_regular_block(block: bytes, width: int, separator: int) -> bool:
    if not block:
        return True
    if not _is_utf8(block) or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n")):
        return False
    symbols = np.frombuffer(block, dtype=np.uint8)
    told = (symbols == separator) | (symbols == _NEWLINE)
    if b'"' not in block:
        marks = symbols[told]
    else:
        places = np.flatnonzero(told | (symbols == _QUOTE))
        marks = symbols[places]
        quotes = marks == _QUOTE
        inside = np.logical_xor.accumulate(quotes)
        if (inside & (marks == _NEWLINE)).any() or not _well_quoted(symbols, places, quotes, inside, separator):
            return False
        marks = marks[~(inside | quotes)]
    if len(marks) % width:
        return False
    records = marks.reshape(-1, width)
    return bool((records[:, -1] == _NEWLINE).all() and (records[:, :-1] == separator).all())


def _well_quoted(
    symbols: np.ndarray, places: np.ndarray, quotes: np.ndarray, inside: np.ndarray, separator: int
) -> bool:
    """Whether cells are quoted as a whole, and quotes within them are doubled."""
    opened, closed = places[quotes & inside], places[quotes & ~inside]
    # A block starts and ends outside of quotes, so what precedes its first symbol is what its last one is: a newline.
    before, after = symbols[opened - 1], symbols[closed + 1]
    well_opened = (before == separator) | (before == _NEWLINE) | (before == _QUOTE)
    well_closed = (after == separator) | (after == _NEWLINE) | (after == _RETURN) | (after == _QUOTE)
    return bool(well_opened.all() and well_closed.all())


def _is_utf8(block: bytes) -> bool:
    try:
        return block.isascii() or bool(block.decode())
    except UnicodeDecodeError:
        return False
