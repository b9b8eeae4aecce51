"""A text as a feature: how it is declared, that history and life read the same, and that drift watches its length alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dataframely as dy
import numpy as np
import polars as pl
import pytest

import flyball as fb
from flyball import days
from flyball._kernel import facts, fingerprint
from flyball._kernel.clock import micros
from flyball._kernel.errors import DeclarationError
from flyball.adapters.memory.online import MemoryOnline
from flyball.cycle import features as told
from flyball.cycle import tested
from flyball.data import profile
from flyball.learn import model as models
from flyball.learn import reference as references
from flyball.learn.encoding import encode
from flyball.learn.encoding.texts import Recipe
from flyball.learn.examples import Counts, Examples
from flyball.learn.features import offline
from flyball.learn.features.declare import FeatureSet, Output
from flyball.learn.features.lookup import Lookup
from flyball.learn.features.notation import text
from flyball.learn.model import Model
from flyball.serve.journal import Entry
from flyball.watch.live import Live

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Mail(fb.Contract):
    """A question."""

    mail = dy.String(primary_key=True)
    came = fb.event_time(dy.Datetime(time_zone="UTC"))
    subject = dy.String(nullable=True)
    body = dy.String(nullable=True)
    sender = fb.personal(dy.String(nullable=True))
    known = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    spam = fb.outcome(dy.Bool(nullable=True))


CHARS = Recipe(by="char", grams=(2, 4), min_rows=2)
FEATURES = fb.features(
    text(Mail.body, min_rows=2),
    pieces=text(Mail.body, by="char", grams=(2, 4), min_rows=2),
    both=text(pl.concat_str("subject", "body", separator=" ", ignore_nulls=True), min_rows=2),
    length=Mail.body.col.str.len_chars(),
)
ROWS: list[dict[str, Any]] = [
    {"mail": str(i), "came": NOON + timedelta(hours=i), "subject": subject, "body": body, "sender": "me@x.org"}
    for i, (subject, body) in enumerate(
        [
            ("Hello", "see you at HOME"),
            (None, "free prize"),
            ("Prize!", None),
            ("free", "a free home for you"),
            ("", ""),
        ]
    )
]


def model(features: FeatureSet) -> Model:
    @fb.model(features, predicts=Mail.spam, asked=fb.before(Mail.came, timedelta(), tolerance=days(1)))
    def unwanted() -> object:
        """Whether it is spam."""

    found: Model = unwanted
    return found


@pytest.fixture(scope="module")
def history() -> pl.DataFrame:
    questions = pl.DataFrame(ROWS, schema_overrides={"subject": pl.String, "body": pl.String}).with_columns(
        pl.col("came").cast(pl.Datetime("us", "UTC")), _asked=pl.col("came").cast(pl.Datetime("us", "UTC"))
    )
    return offline.build(FEATURES, Mail, questions, {})


def test_a_text_yields_a_column_that_says_how_it_is_read() -> None:
    assert FEATURES.outputs(Mail) == (
        Output("body", "text", Recipe(min_rows=2)),
        Output("pieces", "text", CHARS),
        Output("both", "text", Recipe(min_rows=2)),
        Output("length", "number"),
    )
    assert FEATURES.reads(Mail) == {"subject", "body"}
    models.check(model(FEATURES))
    assert [told.KINDS[type(f)] for f in FEATURES.features] == ["text", "text", "text", "computed"]
    assert tested.slices(model(FEATURES)) == (), "a text is nothing to slice by"
    assert tested.slices(model(fb.features(Mail.body))) == ("body",)


def test_training_and_serving_encode_the_same_bytes(history: pl.DataFrame) -> None:
    encoder = encode.fit(history, [(o.name, o.text or o.kind) for o in FEATURES.outputs(Mail)])
    matrix = encoder.encode(history)
    assert all(matrix[:, list(places)].any() for _, places in encoder.groups)
    look, row = Lookup(FEATURES, Mail, MemoryOnline()), encode.compile_row(encoder)
    assert b"".join(row(look(each, each["came"])).tobytes() for each in ROWS) == matrix.tobytes()


def test_the_recipe_is_a_part_of_what_a_feature_is() -> None:
    prints = {
        fingerprint.of(fb.features(each))
        for each in (Mail.body, text(Mail.body), text(Mail.body, min_rows=4), text(Mail.subject))
    }
    assert len(prints) == 4
    assert fingerprint.of(fb.features(text(Mail.body))) == fingerprint.of(fb.features(text(Mail.body)))


def test_what_cannot_be_read_as_text_is_refused() -> None:
    with pytest.raises(DeclarationError, match="text-recipe") as caught:
        text(Mail.body, min_rows=1)
    assert "single person" in caught.value.why
    with pytest.raises(DeclarationError, match="feature-of-unusable-type"):
        models.check(model(fb.features(when=text(Mail.came))))
    with pytest.raises(DeclarationError, match="personal-as-feature"):
        models.check(model(fb.features(text(Mail.sender))))
    with pytest.raises(DeclarationError, match="personal-as-feature"):
        models.check(model(fb.features(who=text(Mail.sender.col + " x"))))
    with pytest.raises(DeclarationError, match="leaks-outcome"):
        models.check(model(fb.features(known=text(Mail.spam.col.cast(pl.String)))))
    with pytest.raises(DeclarationError, match="has no name"):
        fb.features(text(Mail.body.col + "!"))


def entry(key: str, body: str | None, version: str = "a-1") -> Entry:
    return Entry(
        **{"id": f"{version}/{key}", "role": "champion", "output": 0.25, "latency_us": 900, "model": "a"},  # type: ignore[arg-type]
        features={"body": body},
        asked=micros(NOON),
        version=version,
        epoch=1,
        within_tolerance=True,
        key=key,
        inputs={},
        via="test",
        app="app",
        process="p",
        segment="s",
        seq=1,
    )


def test_drift_watches_how_long_a_text_is_and_keeps_nothing_of_it() -> None:
    bodies = ["x" * (1 + i % 40) for i in range(200)]
    frame = pl.DataFrame({"_asked": [NOON] * 200, "_label": [True, False] * 100, "body": [*bodies[:-1], None]})
    examples = Examples(
        frame.cast({"_asked": pl.Datetime("us", "UTC")}),
        ("body",),
        Counts(learned=200, void=0, unsettled=0, unaskable=0),
    )
    declared = model(fb.features(text(Mail.body)))
    known = references.reference(declared, examples, np.ones(200, dtype=bool), np.zeros(200))
    known = references.from_bytes(facts.encode(known))
    column = known.features[0]
    assert (column.length, column.edges.kind, column.whole.missing) == (True, "number", 1)
    assert b"xx" not in facts.encode(known)

    live = Live(days(30))
    live.answered([entry("early", "y" * 7)])  # before the reference is known
    live.refer("a-1", known)
    live.answered([entry("late", "z" * 39), entry("none", None)])
    _, seen = live.hourly("a-1", column, NOON, NOON + days(1))
    assert tuple(seen.sum(axis=0)) == profile.profile(pl.Series([7.0, 39.0, None]), column.edges).counts
