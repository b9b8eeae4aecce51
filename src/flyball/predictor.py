"""A version in this process: asked from Python, without a server, by the very plan that a server answers by.

    from flyball.predictor import Predictor

    with Predictor.open("orders") as orders:
        orders.predict({"order_id": "o1", "placed": placed, "category": "shoes", "price": 80.0}).output

For tests, notebooks and batch jobs of a few rows; a file of any size is `flyball predict`. A request goes through JSON, as it
would on the wire, so the contract refuses here what it refuses there. Nothing is recorded unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import msgspec
import polars as pl

from flyball import runtime
from flyball.app import App
from flyball.cycle import answering, chosen
from flyball.cycle.session import Session
from flyball.release import rollout
from flyball.runtime import Placement
from flyball.serve import journal, reply
from flyball.serve import plan as plans
from flyball.serve.journal import Recorder, Settings
from flyball.serve.plan import Attempt
from flyball.serve.reply import Prediction
from flyball.serve.router import OVERRIDE

_CHAMPION = "champion"


class Predictor:
    """One version of a model, ready to be asked by one thread at a time.

    Args:
        session: where the app runs.
        model: its name, where the app has several.
        version: any that is registered, released or not; by default who answers now.
        record: write each answer to the journal, as a server does; as an override where the version is not champion.

    Raises:
        StateError: `nothing-released`, `no-such-version`, `features-changed`, `task-changed`; see `answering.plan_of`.
    """

    def __init__(
        self, session: Session, model: str | None = None, version: str | None = None, *, record: bool = False
    ) -> None:
        declared = session.app.model(model)
        now = rollout.now(session.facts, session.app.name, declared.name)
        name = chosen.chosen(session, declared, version).version
        self._plan = answering.plan_of(session, declared, name)
        self._clock, self._epoch = session.clock, now.epoch
        self._role = _CHAMPION if name == now.champion else OVERRIDE
        self._recorder: Recorder | None = session.journals(Settings()).open(session.app.name) if record else None

    @classmethod
    def open(
        cls, app: App | str | Path, model: str | None = None, version: str | None = None, *, home: Path | None = None
    ) -> Self:
        """Open what a folder or a file declares; of an app that was imported, `home` says where its state lies.

        Raises:
            DeclarationError: what `runtime.load` raises; StateError: as the class.
        """
        if isinstance(app, App):
            declared, root = app, Path(app.place.file).parent
        else:
            loaded = runtime.load(str(app))
            declared, root = loaded.app, loaded.root
        return cls(runtime.open(declared, Placement(root=root, home=home, create=False)), model, version)

    @property
    def version(self) -> str:
        """Who answers."""
        return self._plan.version

    @overload
    def predict(self, questions: Mapping[str, Any], asked: datetime | None = None) -> Prediction: ...
    @overload
    def predict(self, questions: Sequence[Mapping[str, Any]], asked: datetime | None = None) -> list[Prediction]: ...
    @overload
    def predict(self, questions: pl.DataFrame, asked: datetime | None = None) -> list[Prediction]: ...
    def predict(
        self,
        questions: Mapping[str, Any] | Sequence[Mapping[str, Any]] | pl.DataFrame,
        asked: datetime | None = None,
    ) -> Prediction | list[Prediction]:
        """Answer a question, or several: what a server would say of them at that moment.

        Args:
            questions: by column, as a request carries them; of a frame each row. NaN is a missing value.
            asked: the moment of the question; now by default.

        Raises:
            DataError: `request-breaks-contract`; FlyballError: why there is no answer.
        """
        given = questions.to_dicts() if isinstance(questions, pl.DataFrame) else questions
        rows, _ = self._plan.decode(msgspec.json.encode(given))
        moment = asked or self._clock.now()
        asking = [plans.question(self._plan, row, moment, 0.0) for row in rows]
        tried = plans.attempts(self._plan, asking, self._epoch, self._role, self._clock)
        self._record(tried)
        for each in tried:
            if each.error is not None:
                raise each.error
        found = [reply.prediction(each.answer, moment, self._plan.task) for each in tried]
        return found[0] if isinstance(given, Mapping) else found

    def _record(self, tried: Sequence[Attempt]) -> None:
        """Wait until all of it is on disk."""
        if self._recorder is None or not tried:
            return
        kept: Future[None] = Future()
        self._recorder.record([each.answer for each in tried], journal.resolve(kept))
        kept.result()

    def close(self) -> None:
        """Close the journal, where one is written."""
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
