"""What the steps of one model read: the session, the model, and the data that it is pinned to."""

from __future__ import annotations

from dataclasses import dataclass

from flyball._kernel.errors import Bug
from flyball.cycle.session import Event, Session, Tell
from flyball.cycle.steps import Pinned
from flyball.learn import split
from flyball.learn.examples import Examples
from flyball.learn.model import Model
from flyball.learn.split import Bounds


@dataclass(frozen=True)
class Work:
    """What the steps of one model read: the session, the model, and the pinned data (None before the first pin).

    Attributes:
        key: of the step that runs.
    """

    session: Session
    model: Model
    pin: Pinned | None
    tell: Tell
    key: str = ""

    @property
    def about(self) -> tuple[str, str]:
        """(app, model): how facts and projections are keyed."""
        return self.session.app.name, self.model.name

    @property
    def pinned(self) -> Pinned:
        """The pin, which every running step has."""
        if self.pin is None:
            raise Bug("step-before-pin", "A step ran before its data was pinned", next="Report it, with the command.")
        return self.pin

    def bounds(self, examples: Examples) -> Bounds:
        """The spans before the cutoff."""
        return split.bounds_of(examples, self.pinned.cutoff, self.session.app.search.split)

    def say(self, step: str, detail: str) -> None:
        """Tell whoever waits how a step comes along."""
        self.tell(Event(step=step, state="run", detail=detail))
