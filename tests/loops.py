"""A small app whose whole loop lives in memory, and the world around it, which remembers when its processes do not.

    before day 0   sixty days of orders in a file; the first apply makes till-1 champion at once
    from day 0 on  an order now and then is a question, and settles six hours later
    day 3          a second file comes in, late
    day 4          a training is due: a challenger goes through shadow and canary
    day 7          the world turns round: who learned before is wrong from now on
    day 8          the next challenger falls in its shadow; what is learned later its gates hold back
    day 11         ada makes that one champion all the same, and three hours later takes it back

Stores are `World`s; whoever acts on them is a `Process`, which may end at any write and be followed by another.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import msgspec
import polars as pl
from lightgbm import LGBMClassifier

import flyball as fb
from flyball import average_precision, days, hours, roc_auc
from flyball._kernel import facts, ids
from flyball.adapters.memory.blobs import MemoryBlobs
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.facts import Log, MemoryFacts
from flyball.adapters.memory.journal import MemoryJournal
from flyball.adapters.memory.keys import MemorySigner
from flyball.adapters.memory.lease import MemoryLease
from flyball.adapters.memory.online import MemoryOnline
from flyball.adapters.memory.outcomes import MemoryOutcomes
from flyball.adapters.memory.routes import MemoryRoutes
from flyball.adapters.memory.sources import MemoryReader
from flyball.adapters.memory.tables import MemoryTables
from flyball.adapters.memory.vault import MemoryVault
from flyball.app import App
from flyball.cycle import answering, apply, operate, reconcile, steps
from flyball.cycle.reconcile import Here, Looked
from flyball.cycle.session import Session
from flyball.cycle.watching import Watch
from flyball.data import dataset
from flyball.release import rollout, route, version
from flyball.release.policy import Release
from flyball.release.rollout import Rollout
from flyball.release.route import Route
from flyball.runtime.places import PROJECTIONS
from flyball.serve.auth import Keys
from flyball.serve.journal import Recorder, Settings
from flyball.serve.outcomes import New
from flyball.serve.router import Router
from flyball.watch.monitor import Retrain

START = datetime(2013, 7, 1, tzinfo=UTC)
LENGTH = 13
TURN = START + timedelta(days=7)
"""From here on what was likely is unlikely."""
LATE = START + timedelta(days=3)
"""When the second file comes in."""


class Order(fb.Contract):
    """What is asked about."""

    order_id = dy.String(primary_key=True)
    placed = fb.event_time(dy.Datetime(time_zone="UTC"))
    category = dy.Enum(["shoes", "books"])
    price = dy.Float64(min=0)
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    returned = fb.outcome(dy.Bool(nullable=True))


def plain(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows


RETURNS = Order.returned.col.mean()
FEATURES = fb.features(Order.category, Order.price, lately=fb.window(Order, RETURNS, by=Order.category, over=days(2)))


@fb.model(FEATURES, predicts=Order.returned, asked=fb.before(Order.placed, hours(0), tolerance=hours(1)))
def till(knobs: fb.Params) -> LGBMClassifier:
    return LGBMClassifier(num_leaves=3, n_estimators=5, min_child_samples=10, n_jobs=1)


STAGES = (fb.shadow(hours(12)), fb.canary(0.5, hours(12)))
RELEASE = Release(*STAGES, abort_unless=[fb.error_rate <= 0.5], patience=days(1))
QUALITY = fb.Monitor("live quality", roc_auc.live(over=days(2)) >= 0.5)
GATES = (roc_auc >= 0.6,)


def declared(
    *, retrain: Retrain | None = None, release: Release = RELEASE, gates: Sequence[Any] = GATES, **more: Any
) -> App:
    """The app, by other policies."""
    return fb.App(
        "till",
        sources=[fb.files("orders-*.csv", prepare=plain, yields=Order)],
        model=till,
        search=fb.search(trials=1, optimize=average_precision, split=fb.by_time(days(10))),
        gates=gates,
        release=release,
        monitors=[QUALITY],
        retrain=retrain,
        **more,
    )


GUARDS = [fb.error_rate <= 0.5, roc_auc.live(over=days(1)) >= 0.4]
APP = declared(
    release=Release(*STAGES, abort_unless=GUARDS, patience=hours(36)),
    retrain=(fb.breach(QUALITY) | fb.every(days(4))).resting(days(2)),
)


def orders(start: datetime, length: float, a_day: int, seed: int, prefix: str) -> pl.DataFrame:
    """Orders at even distances; seven in eight shoes come back, and one in eight books; after `TURN` it is the reverse."""
    chance, rows = random.Random(seed), []
    for n in range(int(length * a_day)):
        placed = start + timedelta(days=1) * n / a_day + timedelta(minutes=7)
        category = chance.choice(["shoes", "books"])
        likely = (category == "shoes") == (placed < TURN)
        rows.append(
            {
                "order_id": f"{prefix}{n}",
                "placed": placed,
                "category": category,
                "price": round(chance.uniform(5, 200), 2),
                "settled": placed + timedelta(hours=6),
                "returned": (chance.random() < 7 / 8) == likely,
            }
        )
    return pl.DataFrame(rows, schema_overrides={"category": pl.Enum(["shoes", "books"])})


A_DAY = 72
"""Questions: enough that a day of them can be measured."""
HISTORY = orders(START - timedelta(days=60), 60 + LENGTH, 16, 1, "h")
BELATED = orders(START - timedelta(days=1), 3, 8, 2, "b")
QUESTIONS = orders(START, LENGTH, A_DAY, 3, "q")


class Crash(BaseException):
    """The process is no more."""


class Fuse:
    """Counts the writes of one process, and ends it at one of them; what is dead writes nothing.

    Args:
        at: the number of the write, from 0; None never.
        after: whether that write still comes through.
    """

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.at, self.after, self.dead = at, after, False
        self.written: list[str] = []

    def write(self, name: str, do: Callable[[], Any]) -> Any:
        if self.dead:
            raise Crash
        falls = self.at == len(self.written)
        if falls and not self.after:
            self.dead = True
            raise Crash
        self.written.append(name)
        result = do()
        if falls:
            self.dead = True
            raise Crash
        return result


WRITES = {
    "facts": ("append",),
    "blobs": ("put", "drop"),
    "tables": ("append", "delete", "compact"),
    "online": ("commit", "keep", "refill", "withdraw"),
    "routes": ("publish",),
    "lease": ("acquire", "release"),
    "outcomes": ("post", "erase"),
    "journal": ("open", "erase"),
    "recorder": ("record", "close"),
}


class Port:
    """A place of a process that may end at any write to it."""

    def __init__(self, name: str, place: Any, fuse: Fuse) -> None:
        self._name, self._place, self._fuse = name, place, fuse

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._place, attribute)
        if attribute not in WRITES[self._name]:
            return found

        def write(*args: Any, **named: Any) -> Any:
            return self._fuse.write(f"{self._name}.{attribute}", lambda: found(*args, **named))

        return write


@dataclass
class World:
    """Everything that outlives a process, and the time."""

    clock: VirtualClock = field(default_factory=lambda: VirtualClock(START))
    log: Log = field(default_factory=Log)
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)
    tables: MemoryTables = field(default_factory=MemoryTables)
    online: MemoryOnline = field(default_factory=MemoryOnline)
    routes: MemoryRoutes = field(default_factory=MemoryRoutes)
    outcomes: MemoryOutcomes = field(default_factory=MemoryOutcomes)
    frames: dict[str, pl.DataFrame] = field(default_factory=lambda: {"orders-1.csv": HISTORY})
    keys: Callable[[], Any] = tuple

    def __post_init__(self) -> None:
        self.lease = MemoryLease(self.clock)
        self.journal = MemoryJournal(self.clock)

    def copy(self) -> World:
        """What a machine that stops at this moment leaves behind, with no process in it."""
        other = World(VirtualClock(self.clock.now()), online=copy.deepcopy(self.online), frames=dict(self.frames))
        other.log.transactions = list(self.log.transactions)
        other.blobs.kept = dict(self.blobs.kept)
        other.tables._tables = dict(self.tables._tables)
        other.routes.publish(self.routes.read())  # type: ignore[arg-type]
        other.outcomes.post([New(**_without_seq(row)) for row in self.outcomes.read()])
        other.journal = self.journal.image()
        other.journal._clock = other.clock
        return other

    def after_a_crash(self) -> World:
        """Its processes are gone: their leases are free, and nobody writes to their segments of the journal any more."""
        self.lease = MemoryLease(self.clock)
        self.journal = self.journal.image()
        return self

    def session(self, app: App = APP, fuse: Fuse | None = None, holder: str = "one") -> Session:
        def port(name: str, place: Any) -> Any:
            return Port(name, place, fuse) if fuse is not None else place

        signer = MemorySigner()
        journal = port("journal", self.journal)
        return Session(
            app=app,
            home=Path("nowhere"),
            clock=self.clock,
            facts=port("facts", MemoryFacts(self.clock, signer, PROJECTIONS, self.log)),
            blobs=port("blobs", self.blobs),
            lease=port("lease", self.lease),
            signer=signer,
            tables=port("tables", self.tables),
            online=port("online", self.online),
            reader=MemoryReader(self.frames),
            routes=port("routes", self.routes),
            journals=lambda _: journal,
            outcomes=port("outcomes", self.outcomes),
            vault=MemoryVault(),
            keys=Keys(self.keys, self.clock),
            commit=lambda: "",
            holder=holder,
        )

    def to(self, moment: datetime) -> None:
        if moment > self.clock.now():
            self.clock.advance(moment - self.clock.now())


def _without_seq(row: Any) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(row).items() if name != "seq"}


class Process:
    """Server and loop in one: knows nothing but what lies in its world."""

    def __init__(self, world: World, app: App = APP, fuse: Fuse | None = None, holder: str = "one") -> None:
        self.world, self.fuse = world, fuse or Fuse()
        self.session = world.session(app, self.fuse, holder)
        self.watch, self.worker, self.router = Watch(self.session), Here(self.session), Router(world.clock)
        self._recorder: Recorder | None = None
        self._route: Route | None = None

    @property
    def records(self) -> bool:
        """Whether it has opened the journal."""
        return self._recorder is not None

    def look(self) -> Looked:
        """As often as there is something to do at this moment."""
        for _ in range(20):
            looked = reconcile.reconcile(self.session, self.watch, self.worker)
            if not looked.did and not looked.working:
                break
        else:
            raise AssertionError(f"it never comes to rest: {looked.did} {looked.working}")
        self._swap()
        return looked

    def ask(self, row: dict[str, Any]) -> None:
        """One question of which the journal knows nothing yet."""
        if self._route is None or self._route != self.session.routes.read():
            self._swap()  # as a server does, which follows the route within a fraction of a second
        if self._recorder is None:
            recorder = self.session.journals(Settings()).open(self.session.app.name, head=self.session.facts.head)
            self._recorder = recorder if isinstance(recorder, Port) else Port("recorder", recorder, self.fuse)  # type: ignore[assignment]
        assert self._recorder is not None
        way = self.router.ways["till"]
        (decoded,), _ = way.routed.champion.decode(asking(row))
        (given,) = self.router.ask(way, [decoded], row["placed"], 0.0)
        shadow = self.router.shadow(given.shadow) if given.shadow is not None else None
        for answer in (*given.failed, given.answer, shadow):
            if answer is not None:
                self._recorder.record([answer])

    def post(self, row: dict[str, Any]) -> None:
        """What came of it, known at this moment."""
        new = New(
            received=row["settled"],
            by="world",
            model="till",
            prediction="",
            key=key(row),
            value=float(row["returned"]),
            settled=row["settled"],
        )
        self.session.outcomes.post([new])

    def _swap(self) -> None:
        self._route = self.session.routes.read()
        before = {name: way.routed for name, way in self.router.ways.items()}
        self.router.swap(answering.routed(self.session, before))


def asking(row: dict[str, Any]) -> bytes:
    """A question as it is sent."""
    return msgspec.json.encode({name: row[name] for name in ("order_id", "placed", "category", "price")})


def key(row: dict[str, Any]) -> str:
    return facts.encode({"order_id": row["order_id"]}).decode()


def answered(world: World, row: dict[str, Any]) -> bool:
    """Whether the journal knows an answer that may have left."""
    return any(e.key == key(row) and e.role != "shadow" and not e.failed for e in world.journal.read())


@dataclass(frozen=True)
class Event:
    """What happens outside, at a moment; done anew by a process that takes another's place."""

    at: datetime
    kind: str
    row: Any = None

    def happen(self, process: Process, *, again: bool = False) -> None:
        """Do it; `again`: another process may have done some of it."""
        process.world.to(self.at)
        match self.kind:
            case "begin":
                apply.apply(process.session, until=START)
            case "arrive":
                process.world.frames["orders-2.csv"] = BELATED
            case "look":
                process.look()
            case "ask" if not (again and answered(process.world, self.row)):
                process.ask(self.row)
            case "post":
                process.post(self.row)
            case "do":
                self.row(process.session)
                # What a crash left of the route, the loop mends in its next pass, a second later.
                route.sync(process.session.facts, process.session.routes, "till", ("till",))


def _pushes(session: Session) -> None:
    """A person looks first whether it is done already."""
    if rollout.now(session.facts, "till", "till").champion != "till-4":
        operate.promote(session, "till-4", by="ada", reason="the world has changed", override=True, at_once=True)


PUSH = START + timedelta(days=10, hours=5)
PAUSES = START + timedelta(days=1), START + timedelta(days=1, hours=5)


def story(every: timedelta = timedelta(hours=3), until: float = LENGTH) -> list[Event]:
    """Everything that happens, in order."""
    end = START + timedelta(days=until)
    looks = [START + every * n for n in range(1, int((end - START) / every) + 1)]
    rows = QUESTIONS.to_dicts()
    events = [
        *(Event(at, "look") for at in looks),
        *(Event(row["placed"], "ask", row) for row in rows),
        *(Event(row["settled"], "post", row) for row in rows),
        Event(LATE, "arrive"),
        Event(PUSH, "do", _pushes),
        Event(PAUSES[0], "do", lambda session: operate.pause(session, "till", by="ada", reason="lunch")),
        Event(PAUSES[1], "do", lambda session: operate.resume(session, "till", by="ada")),
    ]
    order = {"post": 0, "arrive": 1, "do": 2, "look": 3, "ask": 4}
    return [Event(START, "begin"), *sorted((e for e in events if e.at <= end), key=lambda e: (e.at, order[e.kind]))]


# What is to be the same, however often a process ended


def facts_of(world: World) -> MemoryFacts:
    return MemoryFacts(world.clock, MemorySigner(), PROJECTIONS, world.log)


def told(world: World, *kinds: str) -> Iterator[tuple[datetime, dict[str, Any]]]:
    """(when, what was said) of some kinds."""
    for fact in facts_of(world).read():
        if fact.kind in kinds:
            yield fact.at, {"kind": fact.kind, **msgspec.json.decode(fact.said)}


RELEASES = tuple(sorted(rollout.ROLLOUTS.kinds))
TRAININGS = ("cycle.retraining", "cycle.retrained")


def state(world: World) -> Rollout:
    return rollout.now(facts_of(world), "till", "till")


def content(world: World) -> dict[str, Any]:
    """What was decided, when, and what lies there.

    Left out is what a lost shadow moves: measured numbers of live traffic, which also stand in the reason why a version is
    held, and so in a cause of `release`.
    """
    log, session = facts_of(world), world.session()
    now = state(world)
    versions = version.versions(log, "till", "till")
    manifests = [version.read("till", row, world.blobs, session.signer) for row in versions]
    pin = steps.pin(log, "till", "till")
    says = ("kind", "version", "epoch", "stage", "previous", "to", "by", "holds", "at")
    shown = world.routes.read()
    assert shown == route.derive(log, "till", ("till",)), "the route is what the facts say"
    log.verify()
    return {
        "rollout": {**msgspec.structs.asdict(now), "held": sorted(now.held)},
        "released": [(at, {n: v for n, v in said.items() if n in says}) for at, said in told(world, *RELEASES)],
        "versions": [(row.version, row.decision, row.registered) for row in versions],
        "learned": [(m.snapshot, m.knobs, m.artifacts) for m in manifests],
        "pin": pin and (pin.batches, pin.cutoff),
        "trainings": list(told(world, *TRAININGS)),
        # Whether a version may be sent is asked anew whenever something stands in its way or no longer does.
        "steps": sorted(said["key"] for _, said in told(world, "cycle.done") if said["step"] != "release"),
        "rows": dataset.read(world.tables, Order, dataset.latest(world.tables, Order)).sort(pl.all()).collect().rows(),
        "ingested": [said for _, said in told(world, "data.ingested", "cycle.source_complete")],
        "online": _series(world.online),
        "left": sorted(
            (e.asked, e.key, e.version, e.epoch, e.role) for e in world.journal.read() if e.role != "shadow"
        ),
        "outcomes": [_without_seq(row) for row in world.outcomes.read()],
    }


def _series(online: MemoryOnline) -> list[Any]:
    """By digest, since the chains go on to grow in place."""

    def digest(rows: Mapping[Any, Any]) -> str:
        return ids.digest(repr(sorted(map(repr, rows.items()))).encode())

    kept = online._series.items()
    return sorted((name, found.position, digest(found.chains), repr(found.totals)) for name, found in kept)
