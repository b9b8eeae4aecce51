"""Causes that several steps share, by name: what decides on a result, so that a change of it shows in `plan` as itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from platform import machine, python_version_tuple

from flyball._kernel import fingerprint
from flyball._kernel.errors import StateError
from flyball.data import contract
from flyball.data.contract import Contract
from flyball.data.source import Source
from flyball.learn.features import declare
from flyball.learn.model import Model


def of_features(model: Model) -> dict[str, object]:
    """One cause a feature: its definition, with the contract of the table that it looks into."""
    return {f"feature {f.name}": f for f in model.features.features}


def of_sources(sources: Sequence[Source], tables: Sequence[type[Contract]]) -> dict[str, object]:
    """What turns files into the rows of these tables: one cause a source."""
    return {f"source {s.name}": recipe(s) for s in sources if s.contract in tables}


def recipe(source: Source) -> str:
    """What turns a source's files into rows."""
    return fingerprint.of(source.prepare, source.contract, *source.at.recipe)


def of_question(model: Model) -> object:
    """What is asked, when, and of which rows: the columns of the request are kept beside each example, to slice by."""
    spec, asked = contract.spec(model.question), model.asked
    columns = frozenset(c.name for c in spec.request) | {model.predicts.name}
    whole = declare.depends(model.question, columns)
    return (whole, spec.void_after, model.predicts.name, asked.column.name, asked.lead)


def other_outcome(model: Model, trained: Mapping[str, str]) -> str:
    """The outcome that a version learned, if it is another of the same question than the model predicts now; "" if it is not.

    Args:
        trained: the causes of the step that built the version's examples.
    """
    spec = contract.spec(model.question)

    def asks(outcome: str) -> bool:
        asked = replace(model, predicts=contract.Ref(model.question, outcome))
        return trained.get("question") == fingerprint.parts({"question": of_question(asked)})["question"]

    # What else was changed about the question shows in all of them, so that only what is certain is told.
    return "" if asks(model.predicts.name) else next((name for name in spec.outcomes if asks(name)), "")


def environment(*distributions: str) -> dict[str, object]:
    """One cause a distribution, so that an upgrade shows as one."""
    python = ".".join(python_version_tuple()[:2])
    # The machine counts too: another processor may add in another order.
    return {
        "environment: python": python,
        "environment: machine": machine(),
        **{f"environment: {name}": version(name) for name in distributions},
    }


def changed_features(model: Model, trained: Mapping[str, str]) -> list[str]:
    """The features of a version (the causes of its examples) that are declared otherwise now, or no longer."""
    now = fingerprint.parts(of_features(model))
    return [name for name, value in trained.items() if name.startswith("feature ") and now.get(name) != value]


def same_features(model: Model, version: str, trained: Mapping[str, str], commit: str) -> None:
    """Refuse to answer by features that a version was not trained on; features that were added since do no harm.

    Args:
        trained: the causes of the step that built the version's examples.
        commit: where the app file of that time is.

    Raises:
        StateError: `features-changed`, naming them.
    """
    changed = changed_features(model, trained)
    if changed:
        raise StateError(
            "features-changed",
            f"{version} was trained on other features than {model.name!r} declares now.",
            where=model.features.place,
            why=f"Changed since: {', '.join(changed)}.",
            next=f"flyball apply trains a version on them; until then use the app file of {commit or 'that time'}.",
        )
