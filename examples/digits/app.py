"""Which digit is this?  A multiclass: 1,797 of them, handwritten, eight by eight pixels, as scikit-learn carries them."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dataframely as dy
import polars as pl
from sklearn.datasets import load_digits

import flyball as fb
from flyball import accuracy, days, log_loss, metrics, minutes

COLLECTED = datetime(1998, 7, 1, tzinfo=UTC)
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PIXELS = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]


class Digit(fb.Contract):
    """One digit. It has no time of its own: all were given to the world on one day."""

    digit = dy.Int32(primary_key=True)
    collected = fb.event_time(dy.Datetime(time_zone="UTC"))
    vars().update({pixel: dy.Float64(min=0, max=16, description="ink, of 16") for pixel in PIXELS})
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    meant = fb.outcome(dy.Enum(NAMES, nullable=True))


def scans() -> Iterator[tuple[str, pl.DataFrame]]:
    """The one frame that there is."""
    pixels, digits = load_digits(return_X_y=True)
    rows = pl.DataFrame(pixels, schema=PIXELS).with_row_index("digit")
    yield "1998", rows.with_columns(pl.Series("meant", [NAMES[digit] for digit in digits]))


def dated(rows: pl.LazyFrame) -> pl.LazyFrame:
    """What was meant is known a day later: somebody looked."""
    return rows.with_columns(collected=pl.lit(COLLECTED), settled=pl.lit(COLLECTED + days(1)))


features = fb.features(*(getattr(Digit, pixel) for pixel in PIXELS))
reading = fb.auto("reading", features, predicts=Digit.meant, asked=fb.before(Digit.collected, minutes(0)))

app = fb.App(
    "digits",
    sources=[fb.frames(scans, prepare=dated, yields=Digit)],
    model=reading,
    # Rows that have nothing to do with one another are split at random: each is a group of its own.
    search=fb.search(trials=12, optimize=log_loss, split=fb.by_group(Digit.digit), within=minutes(1)),
    gates=[accuracy >= 0.93, metrics.macro_f1 >= 0.93],
)
