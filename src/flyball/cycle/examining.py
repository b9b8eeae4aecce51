"""What is known of a version beyond its quality: what is suspicious about its rows, where it is weak, and why it answers.

    suspects.json     leaks, shifts and duplicates among the rows that trained and tested it     `learn.doubts.suspects`
    examined.json     worst slices, robustness, fit, seeds, calibration                         `learn.examine`
    explanation.json  what each feature contributes, and what simpler models reach               `learn.explain`

All three follow from the examples and the trained artifacts to the byte; nothing of them decides, and no row is in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import polars as pl

from flyball._kernel import facts
from flyball._kernel.conditions import Metric
from flyball.learn import finish, rule, sampling, split
from flyball.learn import model as models
from flyball.learn.doubts import suspects
from flyball.learn.encoding import design, encode
from flyball.learn.encoding.encode import Encoder
from flyball.learn.examine import examined
from flyball.learn.examine import refit as refits
from flyball.learn.examine.subject import Rows, Subject
from flyball.learn.examples import Examples
from flyball.learn.explain import explanation
from flyball.learn.export import predictor
from flyball.learn.export.predictor import Predictor
from flyball.learn.finish import Finish
from flyball.learn.fit import fitting, fold, train
from flyball.learn.knobs import Knob
from flyball.learn.model import Model
from flyball.learn.quality import worth as worths
from flyball.learn.quality.evaluate import Evaluation
from flyball.learn.quality.measures import Terms
from flyball.learn.split import Bounds, Mask

SUSPECTS, EXAMINED, EXPLANATION = "suspects.json", "examined.json", "explanation.json"


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A version that was trained, as its examination wants it.

    Attributes:
        trained: name -> bytes of what `fitting.train_all` made.
        evaluation: its evaluation on the held-out rows.
        metric: what the app optimises.
    """

    model: Model
    knobs: Mapping[str, Knob]
    examples: Examples
    bounds: Bounds
    trained: Mapping[str, bytes]
    evaluation: Evaluation
    metric: Metric

    @property
    def encoder(self) -> Encoder:
        """Fitted on the rows that trained it."""
        return encode.from_bytes(self.trained[encode.ARTIFACT])

    @property
    def finish(self) -> Finish:
        """What follows its score."""
        return finish.from_bytes(self.trained[finish.ARTIFACT])

    @property
    def answering(self) -> Predictor:
        """Its native predictor: the same whatever a measurement would choose."""
        offers = msgspec.json.decode(self.trained[fitting.OFFERS], type=fitting.Offers).offers
        kind = next(offer.kind for offer in offers if offer.shipped)
        if kind == "rule":
            data, task = self.trained[predictor.ARTIFACTS[kind]], models.task(self.model)
            found: Predictor = rule.load(data, rule.of(self.model, self.knobs), self.encoder, task)
        else:
            found = predictor.load(kind, self.trained)
        return finish.finished(found, self.finish)


def examine(given: Trained, *, refit: bool) -> dict[str, bytes]:
    """Name -> bytes of the three.

    Args:
        refit: train anew on samples, for the learning curve and other seeds.
    """
    spans, task = split.cut(given.examples, given.bounds), models.task(given.model)
    checked = suspects.check(given.examples, given.bounds, given.encoder, task)
    encoder, answering = given.encoder, given.answering
    test, fit = _rows(given, encoder, spans.test), _rows(given, encoder, spans.fit)
    held_out = given.examples.frame.filter(pl.Series(spans.test))
    ending = given.finish
    seen = examined.examine(
        Subject(
            task=task,
            encoder=encoder,
            answer=answering.batch,
            test=test,
            frame=held_out.select(given.examples.features),
            train=fit,
            fit=refits.fit_of(lambda: train.declared(given.model, given.knobs, task, encoder), task, ending),
            finish=ending,
            groups=fold.groups(held_out, ending.by) if ending.by else None,
            artifacts={name: data for name, data in given.trained.items() if "/" not in name},
        ),
        refits=refit,
    )
    told = explanation.explain_version(
        explanation.Subject(
            model=given.model.name,
            task=task,
            encoder=encoder,
            features=explanation.columns_of(given.model.features, given.model.question),
            predictor=answering,
            artifacts=given.trained,
            train=_dense(fit),
        ),
        _judged(given, encoder, spans.test, test),
        given.metric,
        given.evaluation.models,
    )
    return {SUSPECTS: facts.encode(checked), EXAMINED: facts.encode(seen), EXPLANATION: facts.encode(told)}


def _rows(given: Trained, encoder: Encoder, mask: Mask) -> Rows:
    frame = given.examples.frame.filter(pl.Series(mask))
    labels = given.examples.labels[mask]
    return Rows(
        matrix=design.of(encoder, frame),
        outcome=labels,
        blocks=split.blocks(given.examples, given.bounds, mask),
        weights=fold.weights(given.model, frame, labels),
    )


def _dense(rows: Rows) -> encode.Matrix:
    """As many of them as an explanation reads, evenly."""
    return rows.at(sampling.evenly(len(rows), explanation.TRAIN_ROWS)).dense


def _judged(given: Trained, encoder: Encoder, mask: Mask, test: Rows) -> worths.Rows:
    matrix = fold.sample(encoder, given.examples.frame.filter(pl.Series(mask)))
    n = len(matrix)
    terms = Terms(quantiles=models.task(given.model).quantiles)
    return worths.Rows(matrix, test.outcome[:n], None if test.blocks is None else test.blocks[:n], terms)
