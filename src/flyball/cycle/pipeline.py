"""The way of one model from pinned data to a decision, as a list of steps that reads from top to bottom.

    examples -> search -> train -> evaluate -> examine -> register -> gates -> release
    `learning`, which the data and the declaration decide alone                `judging`, which also looks at who answers

Each step says its causes by name, so that `plan` can say which of them changed. A monitor is no cause of any step; a gate is a
cause of `gates` alone; one feature is one cause of `examples`.
"""

from __future__ import annotations

from flyball.cycle import adopting, erasures, judging, learning, steps
from flyball.cycle.steps import Planned, Step
from flyball.cycle.work import Work
from flyball.learn import adopted
from flyball.learn.model import Model

STEPS: tuple[Step[Work], ...] = (
    Step("examples", (), learning.examples_causes, learning.examples, repeats=True),
    Step("search", ("examples",), learning.search_causes, learning.search, repeats=True),
    Step("train", ("examples", "search"), learning.train_causes, learning.train, repeats=True),
    Step("evaluate", ("examples", "train"), learning.evaluate_causes, learning.evaluate, repeats=True),
    Step(
        "examine", ("examples", "search", "train", "evaluate"), learning.examine_causes, learning.examine, repeats=True
    ),
    Step("register", ("examples", "search", "train", "evaluate", "examine"), judging.nothing, judging.register),
    Step("gates", ("examples", "train", "evaluate", "register"), judging.gate_causes, judging.judge),
    Step("release", ("register", "gates"), judging.release_causes, judging.release),
)


def of(model: Model) -> tuple[Step[Work], ...]:
    """The steps of a model: those of an adopted one train nothing."""
    return STEPS if adopted.of(model) is None else adopting.STEPS


def walk(work: Work) -> list[Planned]:
    """The steps as they stand. Examples that an erasure took stay done: only a decision to retrain makes others."""
    session = work.session
    return steps.walk(
        of(work.model),
        work,
        session.facts,
        work.about,
        lambda digest: session.blobs.has(digest) or erasures.holds_frame(session, digest),
    )
