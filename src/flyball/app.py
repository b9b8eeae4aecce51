"""An application: one immutable value that holds every declaration and checks that they fit together.

It is a value, not a registry: importing the app file runs nothing and registers nothing, and two apps that say the same are
equal. Where it runs (placement) is told elsewhere and is no part of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from flyball._kernel import fingerprint, place
from flyball._kernel.conditions import Condition, Metric, log_loss
from flyball._kernel.errors import DeclarationError
from flyball._kernel.place import Place
from flyball.data import contract
from flyball.data.contract import Contract
from flyball.data.expectations import expect
from flyball.data.source import Source
from flyball.learn import adopted, split
from flyball.learn import gates as gating
from flyball.learn import model as models
from flyball.learn.model import Model
from flyball.learn.quality import metrics
from flyball.learn.search import Search
from flyball.release.policy import Release
from flyball.watch import quality, trials
from flyball.watch.monitor import Breach, FalseAlarms, Monitor, Retrain

NO_SEARCH = Search(0, log_loss, split.by_time(timedelta(days=30)))
"""Of an app whose models are all adopted: nothing is searched, and nothing is held out."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


@dataclass(frozen=True, init=False, eq=False)
class App:
    """Everything that flyball needs to know of an application.

    Attributes:
        name: lower case; names the state on disk and every fact.
        sources: where observations come from; every table that a model reads needs one.
        expects: what must hold of the tables before they are learned from.
        models: what is predicted; `model=x` is short for `models=[x]`.
        search: how knobs are chosen and how time is split; may be left out where every model is adopted.
        gates: what a version must show on held-out data before it may answer.
        release: the stages by which a new version earns its traffic.
        monitors: what is watched while it answers.
        false_alarms: the budget of the monitors that have no threshold of their own.
        retrain: when a model is trained anew.

    Raises:
        DeclarationError: when declarations contradict each other, with the file and line.
    """

    name: str
    sources: tuple[Source, ...]
    expects: tuple[Condition, ...]
    models: tuple[Model, ...]
    search: Search
    gates: tuple[Condition, ...]
    release: Release
    monitors: tuple[Monitor, ...]
    false_alarms: FalseAlarms | None
    retrain: Retrain
    place: Place = field(compare=False)

    def __init__(  # noqa: PLR0913 - a record: one parameter for each kind of declaration
        self,
        name: str,
        *,
        sources: Sequence[Source],
        search: Search | None = None,
        expects: Sequence[Condition] = (),
        model: Model | None = None,
        models: Sequence[Model] = (),
        gates: Sequence[Condition] = (),
        release: Release | None = None,
        monitors: Sequence[Monitor] = (),
        false_alarms: FalseAlarms | None = None,
        retrain: Retrain | None = None,
    ) -> None:
        said = {
            "name": name,
            "sources": tuple(sources),
            "expects": tuple(expects),
            "models": (*((model,) if model else ()), *models),
            "search": search or NO_SEARCH,
            "gates": tuple(gates),
            "release": release or Release(),
            "monitors": tuple(monitors),
            "false_alarms": false_alarms,
            "retrain": retrain or Retrain(()),
            "place": place.here(),
        }
        for key, value in said.items():
            object.__setattr__(self, key, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, App) and fingerprint.of(self) == fingerprint.of(other)

    def __hash__(self) -> int:
        return hash(self.name)

    def model(self, name: str | None = None) -> Model:
        """One model by name, or the only one.

        Raises:
            DeclarationError: `no-such-model`.
        """
        found = [m for m in self.models if name is None or m.name == name]
        if len(found) != 1:
            raise DeclarationError(
                "no-such-model",
                f"The app {self.name!r} has no single model {name!r}." if name else f"Which model of {self.name!r}?",
                where=self.place,
                why=f"It declares {', '.join(m.name for m in self.models)}.",
                next=f"Name one of them: --model {self.models[0].name}",
            )
        return found[0]

    def tables(self) -> tuple[type[Contract], ...]:
        """The contracts that sources fill, each once."""
        return tuple(dict.fromkeys(s.contract for s in self.sources))


def check(app: App) -> App:
    """Check that the declarations fit together; returns the app.

    Raises:
        DeclarationError: with the line of the declaration that is wrong.
    """
    for problem in (_names, _sources, _expects, _models, _search, _gates, _monitors):
        problem(app)
    return app


def _names(app: App) -> None:
    if not _NAME.fullmatch(app.name):
        raise DeclarationError(
            "name-not-plain",
            f"{app.name!r} cannot name an app.",
            where=app.place,
            why="The name becomes part of paths and addresses.",
            next="Use a lower-case letter, then letters, digits, - and _.",
        )
    _once(app, "model", [m.name for m in app.models], app.place)
    _once(app, "source", [s.name for s in app.sources], app.place)
    _once(app, "monitor", [m.name for m in app.monitors], app.place)
    _once(app, "table", [t.__name__ for t in app.tables()], app.place)


def _once(app: App, what: str, names: list[str], where: Place) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DeclarationError(
            "name-taken",
            f"The app {app.name!r} declares two {what}s named {twice[0]!r}.",
            where=where,
            why=f"Facts and files tell {what}s by their names.",
            next="Rename one of them.",
        )


def _sources(app: App) -> None:
    for table in app.tables():
        contract.spec(table)


def _expects(app: App) -> None:
    expect.check(app.expects, app.tables(), app.place)


def _models(app: App) -> None:
    if not app.models:
        raise DeclarationError(
            "no-model",
            f"The app {app.name!r} declares no model.",
            where=app.place,
            why="An application predicts something.",
            next="Decorate a function with @fb.model(...) and pass it as model=.",
        )
    fed = set(app.tables())
    for model in app.models:
        models.check(model)
        for table in (model.question, *model.features.tables()):
            if table not in fed:
                raise DeclarationError(
                    "table-without-source",
                    f"No source yields {table.__name__}, which the model {model.name!r} reads.",
                    where=app.place,
                    why="A table that nothing fills stays empty, and its features would always be null.",
                    next=f"Add fb.files(..., yields={table.__name__}) to sources.",
                )


def _search(app: App) -> None:
    for model in app.models:
        if adopted.of(model) is not None:
            continue
        if app.search == NO_SEARCH:
            raise DeclarationError(
                "no-search",
                f"The app {app.name!r} trains {model.name!r}, and declares no search.",
                where=app.place,
                why="It says how knobs are chosen, and which rows are held out.",
                next="Write search=fb.search(trials=1, optimize=..., split=fb.by_time(days(30))).",
            )
        split.check(app.search.split, model)
        fits = metrics.measurable(models.task(model).kind)
        if app.search.optimize not in fits:
            raise DeclarationError(
                "search-for-nothing",
                f"The search optimises {app.search.optimize}, which trials of {model.name!r} cannot show.",
                where=app.place,
                why=f"A trial is scored on held-out rows: {', '.join(str(m) for m in fits)}.",
                next="Optimise one of them. A classifier and a regressor need an app each.",
            )


def _gates(app: App) -> None:
    for gate in app.gates:
        if (gate.op == ">=") != (gate.metric.better == "higher"):
            raise DeclarationError(
                "gate-upside-down",
                f"The gate {gate} asks for the worse direction.",
                where=gate.place,
                why=f"{gate.metric.name} is better when it is {gate.metric.better}.",
                next=f"Turn it round: {gate.metric} {'>=' if gate.op == '<=' else '<='} {gate.threshold:g}.",
            )
    for model in app.models:
        gating.check(app.gates, model)


def _monitors(app: App) -> None:
    for model in app.models:
        quality.check_guards(app.release, model)
        trials.check(app.release, model)
        quality.check_monitors(app.monitors, model)
    calibrated = [m for m in app.monitors if isinstance(m.watches, Metric)]
    if calibrated and app.false_alarms is None:
        raise DeclarationError(
            "no-budget-for-alarms",
            f"The monitor {calibrated[0].name!r} has no threshold, and the app no budget of false alarms.",
            where=calibrated[0].place,
            why="A monitor without a threshold is calibrated from how often it may cry wolf.",
            next="Add false_alarms=fb.at_most(1, per=days(30)) to the app, or give the monitor a threshold.",
        )
    if any(isinstance(t, Breach) and not t.monitors for t in app.retrain.triggers):
        raise DeclarationError(
            "no-such-monitor",
            "retrain waits for a breach of nothing.",
            where=app.place,
            why="A breach that nobody can find never comes.",
            next="Name monitors: fb.breach(drift, quality).",
        )
    known = {m.name for m in app.monitors}
    for trigger in app.retrain.triggers:
        missing = sorted(set(trigger.monitors) - known) if isinstance(trigger, Breach) else []
        if missing:
            raise DeclarationError(
                "no-such-monitor",
                f"retrain waits for a breach of {missing[0]!r}, which is not among the monitors.",
                where=app.place,
                why="A breach that nobody can find never comes.",
                next="Add it to monitors=[...].",
            )
