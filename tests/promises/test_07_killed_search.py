"""Promise 7, within one step: a search that is killed goes on with the trial after the last that was written down.

A process of its own searches on a database on disk and kills itself in the middle of a trial, without a chance to tidy up.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import flyball as fb
from flyball import days
from flyball._kernel import facts
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.embedded.keys import FileSigner
from flyball.cycle import steps
from flyball.cycle.steps import Done
from flyball.cycle.trying import Diary
from flyball.learn.knobs import Knob
from flyball.learn.trying import explore, trials
from flyball.learn.trying.explore import Found, Score
from flyball.learn.trying.trials import Tried


class Knobs(fb.Params):
    leaves: int = fb.between(2, 64, start=31, log=True)
    rate: float = fb.between(0.0, 1.0, start=0.5)
    kind: str = fb.one_of("boosted", "linear")


SETTINGS = fb.search(trials=15, optimize=fb.roc_auc, split=fb.by_time(days(30)), workers=2, prune=True)
ABOUT = ("flights", "lateness")


def score(knobs: Mapping[str, Knob]) -> Iterator[float]:
    top = -((float(knobs["rate"]) - 0.2) ** 2) - float(knobs["leaves"]) / 100 + (knobs["kind"] == "linear")
    yield from (top / 3, top)


def opened(place: Path) -> SqlFacts:
    signer = FileSigner(place / "key.pem")
    return SqlFacts(place / "facts.sqlite", SystemClock(), signer, (trials.TRIALS, steps.DONE, steps.LAST))


def search(log: SqlFacts, score: Score, seconds: float = 1.0) -> tuple[Found, Diary]:
    """`seconds` each look at the clock takes: at one, every round is written down by itself."""
    looks = iter(range(10**6))
    diary = Diary(log, ABOUT, "k" * 64, fb.roc_auc, lambda: next(looks) * seconds)
    course = diary.course({"leaves": 4.0, "rate": 0.3, "kind": "linear"}, lambda _: None)
    return explore.run(SETTINGS, Knobs, score, course, stages=2), diary


DIES = """
import os, signal, sys
from pathlib import Path
from tests.promises import test_07_killed_search as here

def dies(knobs, asked=[]):
    asked.append(knobs)
    if len(asked) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    yield from here.score(knobs)

here.search(here.opened(Path(sys.argv[1])), dies)
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    found, _ = search(opened(tmp_path_factory.mktemp("whole")), score)
    return facts.encode(found)


def test_a_search_that_is_killed_in_a_trial_goes_on_with_it(tmp_path: Path, whole: bytes) -> None:
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], cwd=root, check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL
    log = opened(tmp_path)
    before = [row.trial.number for row in trials.rows(log, *ABOUT)]
    assert before == [0, 1, 2, 3, 4, 5]
    asked: list[Mapping[str, Knob]] = []

    def counted(knobs: Mapping[str, Knob]) -> Iterator[float]:
        asked.append(knobs)
        yield from score(knobs)

    found, _ = search(log, counted)
    assert facts.encode(found) == whole
    assert len(asked) == 15 - 6
    tried = [facts.decode(fact, Tried).trial.number for fact in log.read(kinds=frozenset({facts.kind(Tried)}))]
    assert tried == list(range(15))
    assert log.verify() == log.head()


def test_quick_trials_are_written_together_and_the_last_with_the_end_of_the_search(
    tmp_path: Path, whole: bytes
) -> None:
    log = opened(tmp_path)
    found, diary = search(log, score, seconds=0.0)
    assert (log.head().tx, len(diary.unwritten)) == (0, 15)
    done = Done(step="search", key="k" * 64, causes={}, outputs={})
    log.append([*diary.unwritten, facts.Fact(*ABOUT, done)])
    # Its artifact was lost: what was found is found again, and nothing is tried.
    again, diary = search(log, lambda _: pytest.fail("tried again"))
    assert facts.encode(again) == facts.encode(found) == whole
    assert not diary.unwritten


def test_a_search_without_a_score_begins_anew_and_says_why(tmp_path: Path, whole: bytes) -> None:
    log = opened(tmp_path)

    def broken(_: Mapping[str, Knob]) -> Iterator[float]:
        raise ValueError("the library is broken")
        yield 0.0

    for _ in range(2):
        with pytest.raises(fb.DeclarationError, match="ValueError"):
            search(log, broken)
    assert {row.trial.state for row in trials.rows(log, *ABOUT)} == {"failed"}
    assert facts.encode(search(log, score)[0]) == whole
