"""Promise 5: promotion and rollback are atomic, and who answered at a time is always answerable.

A process promotes, starts, advances, aborts and rolls back as fast as it can, on real files, and is killed at a random moment,
again and again. Whatever it left: the history verifies, the state is the fold of the facts, the route comes back to what the
facts say, no epoch ever comes twice, and for every moment of the past the answer is what a plain reading of the facts gives.
Meanwhile a reader of the route, as every server is one, never sees half of one.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from flyball._kernel.facts import Fact
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.embedded.keys import FileSigner
from flyball.adapters.embedded.routes import FileRoutes
from flyball.release import rollout, route, shadowing, version
from flyball.release.rollout import Aborted, Advanced, Promoted, RolledBack, Started
from flyball.release.version import Registered

ROOT = Path(__file__).parents[2]
VERSIONS = 6
MODEL = ("app", "m")
BUSY = """
import itertools, random, sys
from pathlib import Path
from flyball import Release, StateError, canary, hours, shadow
from flyball.release import moves, rollout, route
from tests.promises.test_05_release_is_atomic import MODEL, VERSIONS, opened

log, routes = opened(Path(sys.argv[1]))
draw, policy = random.Random(int(sys.argv[2])), Release(shadow(hours(0)), canary(0.5, hours(0)))
print("ready", flush=True)
for n in itertools.count():
    name = f"m-{draw.randint(1, VERSIONS)}"
    choice = draw.choice([
        lambda now: moves.promote(now, name, reason="x", by="ann"),
        lambda now: moves.start(now, name, policy, reason="x", by="ann"),
        lambda now: [s for s in [moves.decide(now, log_time(), [], policy.patience).said] if s is not None],
        lambda now: moves.roll_back(now, reason="x", by="ann"),
    ])
    log_time = lambda: log._clock.now()
    try:
        rollout.record(log, *MODEL, choice)
    except StateError:
        continue
    route.sync(log, routes, MODEL[0], (MODEL[1],))
"""


def opened(place: Path) -> tuple[SqlFacts, FileRoutes]:
    signer = FileSigner(place / "key.pem")
    log = SqlFacts(
        place / "facts.sqlite", SystemClock(), signer, (rollout.ROLLOUTS, shadowing.SHADOWS, version.VERSIONS)
    )
    return log, FileRoutes(place / "route.json", signer)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A place in which a busy process was killed a dozen times, and what was found torn while it was busy."""
    place = tmp_path_factory.mktemp("release")
    log, routes = opened(place)
    registered = [Registered(version=f"m-{n}", manifest=f"{n:064x}") for n in range(1, VERSIONS + 1)]
    log.append([Fact(*MODEL, each) for each in registered])
    draw, torn, over = random.Random(5), list[str](), threading.Event()

    def read() -> None:
        epoch = 0
        while not over.wait(0.0005):
            found = routes.read()
            if found is not None and found.models:
                seen = found.models[MODEL[1]].epoch
                if seen < epoch:
                    torn.append(f"epoch {seen} after {epoch}")
                epoch = seen

    reader = threading.Thread(target=read)
    reader.start()
    for round_ in range(120):
        if round_ >= 12 and rollout.now(log, *MODEL).epoch > 50:
            break
        command = [sys.executable, "-c", BUSY, str(place), str(round_)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as busy:
            assert busy.stdout is not None and busy.stdout.readline() == b"ready\n"
            threading.Event().wait(draw.uniform(0.02, 0.3))
            busy.send_signal(signal.SIGKILL)
    over.set()
    reader.join()
    return place, torn


def test_whatever_a_kill_leaves_is_whole(lived: tuple[Path, list[str]]) -> None:
    log, routes = opened(lived[0])
    log.verify()
    before = rollout.now(log, *MODEL)
    log.rebuild()
    assert rollout.now(log, *MODEL) == before, "the state is the fold of the facts"
    said = route.sync(log, routes, MODEL[0], (MODEL[1],))
    assert routes.read() == said
    assert said.models[MODEL[1]].champion == before.champion and said.models[MODEL[1]].epoch == before.epoch
    assert before.epoch > 50, "it was busy"


def test_a_reader_of_the_route_never_sees_half_of_one_nor_an_older_one(lived: tuple[Path, list[str]]) -> None:
    assert lived[1] == []


def test_no_epoch_comes_twice_and_none_is_left_out(lived: tuple[Path, list[str]]) -> None:
    log, _ = opened(lived[0])
    told = [said for _, said in rollout.history(log, *MODEL)]
    epochs = [s.epoch for s in told if isinstance(s, Started | Advanced | Promoted | Aborted | RolledBack)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert {type(s) for s in told} == {Started, Advanced, Promoted, Aborted, RolledBack}


def test_who_answered_is_known_for_every_moment(lived: tuple[Path, list[str]]) -> None:
    """Against a plain reading: the champion is whom the last promotion or rollback up to then names."""
    log, _ = opened(lived[0])
    history = rollout.history(log, *MODEL)
    step = max(1, len(history) // 60)
    for at, _ in [*history[::step], history[-1]]:
        for moment in (at - timedelta(microseconds=1), at):
            champion, candidate = "", ""
            for then, said in history:
                if then > moment:
                    break
                match said:
                    case Promoted():
                        champion, candidate = said.version, ""
                    case RolledBack():
                        champion, candidate = said.to, ""
                    case Started():
                        candidate = said.version
                    case Aborted():
                        candidate = ""
            state = rollout.at(log, *MODEL, moment)
            assert (state.champion, state.candidate) == (champion, candidate), moment
