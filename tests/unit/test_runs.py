"""What was tried and registered, as tables: of facts in memory, and through the verb on a home on disk."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from benchmarks import learn_turns
from flyball import cli, runtime
from flyball._kernel.conditions import Measurement, Outcome, Verdict
from flyball._kernel.errors import DataError, StateError
from flyball._kernel.facts import Fact
from flyball.adapters.memory.clock import VirtualClock
from flyball.adapters.memory.facts import MemoryFacts
from flyball.adapters.memory.keys import MemorySigner
from flyball.cycle import runs
from flyball.cycle.session import Session
from flyball.learn.trying import trial_charts, trials
from flyball.learn.trying.trials import Trial, Tried
from flyball.release import rollout, version
from flyball.release.rollout import Promoted
from flyball.release.version import Judged, Registered

NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)
ONE, TWO = "a" * 64, "b" * 64


def tried(key: str, number: int, score: float | None, *, higher: bool = True, **more: object) -> Fact:
    trial = Trial(
        number=number, knobs=cast("Any", more.pop("knobs", {"leaves": 7 + number})), score=score, **cast("Any", more)
    )
    said = Tried(key=key, metric="roc_auc" if higher else "log_loss", higher=higher, trial=trial)
    return Fact("flights", "late", said, {"seconds": 0.5})


@pytest.fixture
def log() -> MemoryFacts:
    clock = VirtualClock(NOON)
    log = MemoryFacts(clock, MemorySigner(), (trials.TRIALS, version.VERSIONS, rollout.ROLLOUTS))
    log.append(
        [
            tried(TWO, 0, 0.7, origin="start"),
            tried(TWO, 1, 0.9, state="pruned"),
            tried(TWO, 2, 0.8),
            tried(TWO, 3, None, state="failed", code="trial-failed"),
            tried(TWO, 4, 0.8),
        ]
    )
    clock.advance(timedelta(hours=1))
    knobs = {"leaves": 9, "algorithm": "boosted", "score": 1.5}
    log.append([tried(ONE, 0, 0.6, higher=False, knobs=knobs), tried(ONE, 1, 0.4, higher=False)])
    verdict = Verdict(
        condition="roc_auc >= 0.65",
        outcome=Outcome.PASS,
        measurement=Measurement(estimate=0.7, low=0.69, high=0.71, n=1000),
        threshold=0.65,
    )
    log.append(
        [
            Fact("flights", "late", Registered(version="late-1", manifest="m")),
            Fact(
                "flights",
                "late",
                Registered(version="late-2", manifest="m", search=TWO, knobs={"leaves": 9.0}, metrics={"roc_auc": 0.8}),
            ),
            Fact("flights", "late", Judged(version="late-2", decision="release", verdicts=[verdict])),
            Fact("flights", "late", Promoted(version="late-2", previous="", epoch=1, reason="gates")),
            Fact("flights", "price", Registered(version="price-1", manifest="m", knobs={"leaves": "many"})),
        ]
    )
    return log


@pytest.fixture
def session(log: MemoryFacts) -> Session:
    # What the tables read of a session, and no more.
    return cast("Session", SimpleNamespace(app=SimpleNamespace(name="flights"), facts=log, models=("late", "price")))


def test_every_trial_is_a_row_by_search_and_number(session: Session) -> None:
    rows = runs.frame(session)
    assert rows["search"].to_list() == ["b" * 12] * 5 + ["a" * 12] * 2
    assert rows["trial"].to_list() == [0, 1, 2, 3, 4, 0, 1]
    assert rows["score"].to_list() == [0.7, 0.9, 0.8, None, 0.8, 0.6, 0.4]
    assert rows["version"].to_list() == ["late-2"] * 5 + [None] * 2
    assert rows["seconds"].to_list() == [0.5] * 7
    assert rows["leaves"].to_list() == [7.0, 8.0, 9.0, 10.0, 11.0, 9.0, 8.0]
    assert rows["algorithm"].to_list()[-2:] == ["boosted", None]
    assert rows["knob_score"].to_list()[-2:] == [1.5, None]
    assert rows["at"].unique().to_list() == [NOON, NOON + timedelta(hours=1)]
    assert runs.frame(session, "price").is_empty()


def test_the_best_is_what_the_search_would_choose(session: Session) -> None:
    best = runs.frame(session).filter("best")
    # Of equals the first, what was given up never, and of a loss the lowest.
    assert best.select("search", "trial").rows() == [("b" * 12, 2), ("a" * 12, 1)]


def test_trials_of_the_last_searches_and_of_a_version(session: Session) -> None:
    rows = runs.frame(session)
    assert runs.of_last(rows, 1)["search"].unique().to_list() == ["a" * 12]
    assert runs.of_last(rows, 2).equals(rows)
    assert runs.of_version(session, rows, "late-2").equals(rows.filter(search="b" * 12))
    assert runs.of_version(session, rows, "late-1").is_empty()
    with pytest.raises(StateError, match="no-such-version"):
        runs.of_version(session, rows, "late-9")


def test_every_version_is_a_row(session: Session) -> None:
    rows = runs.versions_frame(session)
    assert rows["version"].to_list() == ["late-1", "late-2", "price-1"]
    assert rows["decision"].to_list() == ["", "release", ""]
    assert rows["champion"].to_list() == [False, True, False]
    assert rows["registered"].to_list() == [NOON + timedelta(hours=1)] * 3
    assert rows["roc_auc"].to_list() == [None, 0.8, None]
    assert rows["leaves"].to_list() == [None, "9.0", "many"]
    assert runs.versions_frame(session, "late")["leaves"].to_list() == [None, 9.0]


def test_hundreds_of_versions_are_found_by_name_and_listed_in_order(log: MemoryFacts) -> None:
    made = [
        Fact(
            "a",
            "m",
            Registered(version=f"m-{n}", manifest=f"{n}", knobs={f"k{n % 3}": float(n)}, metrics={"auc": n / 7}),
        )
        for n in range(1, 251)
    ]
    log.append(made)
    log.append([Fact("a", "m", Judged(version="m-199", decision="held", verdicts=[]))])
    assert [row.version for row in version.versions(log, "a", "m")] == [f"m-{n}" for n in range(1, 251)]
    assert (version.find(log, "a", "m-199").decision, version.find(log, "a", "m-200").manifest) == ("held", "200")
    assert version.worth(log, "a", "m-200") == ({"k2": 200.0}, {"auc": 200 / 7})
    rows = runs.versions_of(log, "a", ["m"])
    assert rows["k2"].to_list() == [float(n) if n % 3 == 2 else None for n in range(1, 251)]
    assert rows["auc"].to_list() == [n / 7 for n in range(1, 251)]


@pytest.mark.parametrize(
    ("text", "trials_"),
    [
        ("score >= 0.8", [1, 2, 4]),
        ("score != 0.8", [0, 1, 0, 1]),
        ("algorithm = 'boosted'", [0]),
        ("state = failed", [3]),
        ("best = true", [2, 1]),
        ("trial > 2", [3, 4]),
        ("at > '2013-07-01T12:30:00'", [0, 1]),
        ("at > 2013-07-01T14:30:00+02:00", [0, 1]),
    ],
)
def test_rows_are_chosen_by_column_operator_and_literal(session: Session, text: str, trials_: list[int]) -> None:
    assert runs.chosen(runs.frame(session), text)["trial"].to_list() == trials_


@pytest.mark.parametrize(
    "text", ["", "score", "nope = 1", "score >= high", "score > 1 or 1 = 1", "best = yes", "at > noon"]
)
def test_anything_else_is_refused(session: Session, text: str) -> None:
    with pytest.raises(DataError, match="cannot be read") as caught:
        runs.chosen(runs.frame(session), text)
    assert caught.value.code == "runs-not-understood"


def test_rows_are_ordered_with_what_has_no_value_last(session: Session) -> None:
    rows = runs.frame(session)
    assert runs.ordered(rows, "-score")["score"].to_list() == [0.9, 0.8, 0.8, 0.7, 0.6, 0.4, None]
    assert runs.ordered(rows, "score")["score"].to_list()[::6] == [0.4, None]
    with pytest.raises(DataError, match="runs-not-understood"):
        runs.ordered(rows, "--score")


def test_two_versions_side_by_side(session: Session) -> None:
    found = runs.compare(session, "late-1", "late-2")
    assert (found.knobs, found.metrics) == ({"leaves": (None, 9.0)}, {"roc_auc": (None, 0.8)})
    assert found.facts["decision"] == ("not judged", "release")


def test_what_is_drawn_rises_and_shows_what_was_chosen(session: Session) -> None:
    dots = runs.dots(runs.frame(session).filter(metric="roc_auc"))
    assert [dot.best for dot in dots] == [0.7, 0.7, 0.8, 0.8, 0.8]
    assert [dot.chosen for dot in dots] == [False, False, True, False, False]
    both = runs.dots(runs.frame(session))
    assert [(dot.score, dot.best) for dot in both] == [(0.6, 0.6), (0.4, 0.4)]  # a loss lies on another scale
    page = trial_charts.document("<b>flights</b>", both, "log_loss")
    assert page.count("<svg") == 2 and "<script" not in page and "<b>flights" not in page
    assert trial_charts.sheet([], "log_loss") == "" and trial_charts.figures([], "") == ()


APP = """
import dataframely as dy
import flyball as fb
from flyball import days

class Order(fb.Contract):
    key = dy.String(primary_key=True)
    at = fb.event_time(dy.Datetime(time_zone="UTC"))
    price = dy.Float64()
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    late = fb.outcome(dy.Bool(nullable=True))

def plain(rows):
    return rows

@fb.model(fb.features(Order.price), predicts=Order.late, asked=fb.before(Order.at))
def late():
    raise NotImplementedError

app = fb.App("flights", sources=[fb.files("x.csv", prepare=plain, yields=Order)], model=late,
             search=fb.search(trials=3, optimize=fb.roc_auc, split=fb.by_time(days(30))), gates=[fb.roc_auc >= 0.5])
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which facts lie, as a search and a registration leave them."""
    folder = tmp_path_factory.mktemp("runs") / "journeying"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "app.py").write_text(APP)
    loaded = runtime.load(str(folder))
    opened = runtime.open(loaded.app, runtime.Placement(root=loaded.root))
    opened.facts.append([tried(TWO, 0, 0.7, origin="start"), tried(TWO, 1, 0.75), tried(TWO, 2, 0.6)])
    opened.facts.append(
        [Fact("flights", "late", Registered(version="late-1", manifest="m", search=TWO, knobs={"leaves": 8.0}))]
    )
    return folder


def test_the_verb_says_writes_and_draws(app: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def call(*words: str) -> tuple[int, str]:
        code = cli.call(["runs", str(app), *words])
        return code, capfd.readouterr().out

    said = json.loads(call("--json", "--where", "score > 0.65", "--sort=-score")[1])["trials"]
    assert [(row["trial"], row["score"], row["leaves"], row["best"]) for row in said] == [
        (1, 0.75, 8.0, True),
        (0, 0.7, 7.0, False),
    ]
    code, text = call("--version", "late-1", "--out", str(tmp_path / "t.parquet"), "--plot", str(tmp_path / "t.svg"))
    assert (code, "late-1" in text, "roc_auc" in text) == (0, True, True)
    assert pl.read_parquet(tmp_path / "t.parquet")["score"].to_list() == [0.7, 0.75, 0.6]
    assert (tmp_path / "t.svg").read_text().count("<svg") == 1
    assert [row["version"] for row in json.loads(call("--versions", "--json")[1])["versions"]] == ["late-1"]
    assert json.loads(call("--compare", "late-1", "late-1", "--json")[1])["knobs"] == {"leaves": [8.0, 8.0]}
    assert call("--where", "nope = 1")[0] == 1
    assert (call("--plot", "x.pdf")[0], call("--versions", "--version", "late-1")[0]) == (2, 2)
    assert "No trials" in call("--where", "score > 9")[1]
    assert call("--out", str(tmp_path / "none" / "t.csv"))[0] == 1


def test_the_turns_of_the_benchmark_find_what_was_recorded(tmp_path: Path) -> None:
    for what, count in (("record-ours", 30), ("record-limit", 30), ("list-ours", 220), ("list-limit", 220)):
        folder = tmp_path / what
        folder.mkdir()
        seconds, found = learn_turns.TURN[what](folder, count)
        assert seconds > 0
        assert found == count
