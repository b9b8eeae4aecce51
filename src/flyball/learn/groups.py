"""Groups: which examples go together, and on which side of a split by group each of them lies.

A group is the rows that agree on some columns of the request. Its side follows from a keyed hash of what it is called and from
nothing else: so it stays where it is when other rows come, in every training, and on every machine.
"""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.learn.examples import Examples

Places = npt.NDArray[np.int64]

SALT = b"flyball/split/1"
"""Keys the hash of a group, so that no other hash of it (an index, a shard) says on which side it is."""

TRAIN, VALIDATION, TEST = 0, 1, 2


def grouped(examples: Examples, names: list[str]) -> tuple[list[str], Places]:
    """What each group is called, and (n,) the place there of the group of each row; a row with a null is a group of its own.

    Args:
        names: columns of the request.
    """
    rows = pl.DataFrame([examples.request(name) for name in names])
    each = rows.unique(maintain_order=True).with_row_index(_PLACE)
    joined = rows.join(each, on=names, how="left", nulls_equal=True, maintain_order="left")
    places = joined[_PLACE].cast(pl.Int64).to_numpy(writable=True)
    texts = [_text(row) for row in each.select(names).iter_rows()]
    alone = rows.select(pl.any_horizontal(pl.all().is_null())).to_series()
    if alone.any():
        # Only its whole request tells such a row from others.
        where = np.flatnonzero(alone.to_numpy())
        whole = examples.frame.filter(alone).select("_asked", pl.col("^_request\\..*$"))
        places[where] = len(texts) + np.arange(len(where))
        texts += [_text((None, *row)) for row in whole.iter_rows()]
    return texts, places


_PLACE = "\0place"  # no column of a contract is called so


def sides(examples: Examples, names: list[str], share: float) -> Places:
    """(n,) `TEST` for about `share` of the groups, `VALIDATION` for as many, else `TRAIN`; by where in 0 to 1 a hash falls."""
    texts, places = grouped(examples, names)
    drawn = np.array([_drawn(text) for text in texts], dtype=np.float64)
    side = np.where(drawn < share, TEST, np.where(drawn < 2 * share, VALIDATION, TRAIN))
    return side.astype(np.int64)[places]


def _drawn(group: str) -> float:
    return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8, key=SALT).digest(), "big") / 2**64


def _text(values: tuple[object, ...]) -> str:
    """One text for several values, so that no two groups share it."""
    return msgspec.json.encode([None if v is None else str(v) for v in values]).decode()
