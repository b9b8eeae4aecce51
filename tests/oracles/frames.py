"""Frames of one library as those of another, without the third that both would use."""

from __future__ import annotations

from typing import Any

import polars as pl
import polars.selectors as cs


def of_pandas(frame: Any) -> pl.DataFrame:
    """A frame of pandas: what is NaN is null."""
    columns = {name: frame[name].astype(object).where(frame[name].notna(), None).to_list() for name in frame}
    return pl.DataFrame(columns).with_columns(cs.float().fill_nan(None))
