"""The model card: all that is recorded and nothing else, the same bytes from the same store, and every number has a source."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyball import cli
from flyball._kernel.facts import Fact
from flyball.app import App
from flyball.cli import opening
from flyball.cycle import apply, card
from flyball.cycle.session import Session
from flyball.learn.reports import card as cards
from flyball.learn.reports.card import Card
from flyball.learn.reports.sheet import Rendered
from flyball.release.approval import Approved
from tests import lending
from tests.unit.test_report import HOSTILE, Page


@pytest.fixture(scope="module")
def session() -> Session:
    session = lending.two_versions()
    word = Approved(version="lend-2", by="risk", reason="the gap is small enough", yes=True)
    session.facts.append([Fact("lending", "lend", word)])
    return session


@pytest.fixture(scope="module")
def first(session: Session) -> Card:
    return card.card(session, "lend-1")


@pytest.fixture(scope="module")
def drawn(first: Card) -> Rendered:
    return card.drawn(first)


def part(markdown: str, title: str) -> str:
    return markdown.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_what_it_was_made_of_is_told(first: Card) -> None:
    assert first.data["learned from"] == "Loan up to batch 1"
    assert first.data["trained on rows"].startswith("908, asked 2024-01-01 to ")
    assert first.data["held-out rows"].startswith("280, asked ")
    assert first.features == ("region", "purpose", "income", "hour")
    assert sum(first.trials.counts.values()) == 2 and first.trials.chosen["leaves"] == 5
    scores = [trial.score for trial in first.trials.best]
    assert scores == sorted(scores), "of a loss the least is the best"  # type: ignore[type-var]
    assert "scikit-learn" in first.about["environment"] and "polars 2" in first.about["environment"]


def test_who_overrode_what_and_why_is_told(session: Session, first: Card) -> None:
    words = [each.words for each in first.decided]
    assert words == ["its gates say held", "lend-1 answers from now on, gates overridden: somebody must answer (ada)"]
    assert first.stands.endswith("It answers since 2024-03-01 00:00 UTC.")
    second = card.card(session, "lend-2")
    assert "risk says yes: the gap is small enough" in [each.words for each in second.decided]
    assert second.stands.endswith("It does not answer.")


def test_every_part_has_something_to_say(drawn: Rendered) -> None:
    titles = re.findall(r"^## (.+)$", drawn.markdown, re.MULTILINE)
    assert titles == [
        "What it is",
        "What was promised",
        "Its data",
        "What is suspicious about its data",
        "How it was chosen",
        "Quality, beside simpler models",
        "What it decides",
        "Whether its numbers hold",
        "Groups",
        "Fairness",
        "Robustness",
        "Fit and seeds",
        "Why it answers as it does",
        "How it is served",
        "What was decided about it",
        "How often its test rows were looked at",
        "Limits",
        "Where the numbers come from",
    ]
    page = Page(drawn.html)
    assert [page.text.index(title) for title in titles] == sorted(page.text.index(title) for title in titles)
    assert set(re.findall(r"!\[[^\]]+\]\(([^)]+)\)", drawn.markdown)) == set(drawn.figures)


def test_fairness_is_told_with_what_it_costs(first: Card, drawn: Rendered) -> None:
    told = part(drawn.markdown, "Fairness")
    assert first.mitigation is not None and first.mitigation.chosen == "thresholds"
    for tried in first.mitigation.tried:
        assert f"{tried.measurements['accuracy'].estimate:.3f}" in told
    gap = next(g for g in first.evaluation.gaps if g.metric == "selection_rate")
    assert f"{gap.measurement.estimate:.3f}" in told
    decided = part(drawn.markdown, "What it decides")
    assert f"| region: north | {first.finish.thresholds['north']:.3f} |" in decided
    assert "unmitigated" in decided


def test_every_artifact_that_it_read_is_named_by_its_digest(session: Session, first: Card) -> None:
    """Those of the signed manifest, and they are there."""
    digests = {s.what: s.where.removeprefix("SHA-256 ") for s in first.sources if s.where.startswith("SHA-256 ")}
    assert {"evaluation", "examined.json", "suspects.json", "explanation.json", "mitigation.json"} <= set(digests)
    assert all(session.blobs.has(digest) for digest in digests.values())
    numbers = {s.what: s.where for s in first.sources if s.where.startswith("facts ")}
    for fact in session.facts.read():
        said = json.loads(fact.said)
        if fact.kind in numbers and said.get("version") == "lend-1":
            assert str(fact.seq) in re.findall(r"\d+", numbers[fact.kind])


def test_same_store_same_bytes_and_json_holds_it_all(session: Session, first: Card, drawn: Rendered) -> None:
    stored = msgspec.json.decode(msgspec.json.encode(first), type=Card)
    assert stored == card.card(session, "lend-1") == first
    quick = msgspec.structs.replace(first, explanation=None)
    assert cards.render(quick) == cards.render(msgspec.structs.replace(stored, explanation=None))
    assert "00-contributions.svg" in drawn.figures


def test_the_code_of_today_is_not_asked(session: Session, first: Card) -> None:
    other = App("lending", sources=lending.APP.sources, model=[], search=lending.APP.search)
    assert card.card(replace(session, app=other), "lend-1") == first


def test_nothing_from_outside_can_act(first: Card) -> None:
    names = {
        "features": (HOSTILE,),
        "looked": HOSTILE,
        "missing": (HOSTILE,),
        "stands": HOSTILE,
        "data": {HOSTILE: HOSTILE},
    }
    hostile = cards.render(msgspec.structs.replace(first, explanation=None, **names))
    page = Page(hostile.html)
    assert {"script", "img", "a"}.isdisjoint(page.tags)
    assert page.text.count("<script>alert(1)</script>") == 6


def test_what_was_not_examined_is_a_limit(first: Card) -> None:
    bare = msgspec.structs.replace(
        first, suspects=None, examined=None, explanation=None, mitigation=None, offers=None, verdicts=()
    )
    drawn = cards.render(msgspec.structs.replace(bare, missing=("An examination is not recorded: why.",)))
    assert "An examination is not recorded" in part(drawn.markdown, "Limits")
    assert "## Robustness" not in drawn.markdown and "## What was promised" not in drawn.markdown


def test_the_report_is_drawn_after_the_fact(session: Session, tmp_path: Path) -> None:
    """No step draws: a version has a report when somebody asks, drawn anew only where its gates were judged since."""
    here = replace(session, home=tmp_path)
    stood = apply.apply(here).models[0]
    assert stood.ran == ["gates", "release"], "a person said yes in between"
    assert not [name for name in stood.artifacts if name.endswith((".html", ".svg"))]
    text = apply.write_report(here, stood).read_text()
    assert "risk: the gap is small enough" in text
    assert "What is decided" in text and "What it does to groups" in text and "<svg" in text
    again = apply.apply(here).models[0]
    page = apply.write_report(here, again)
    page.write_text("mine")
    assert apply.write_report(here, again).read_text() == "mine"
    assert apply.write_report(here, stood).read_text() == text


def test_the_verb(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(opening, "session", lambda *_, **__: session)
    assert cli.call(["card", "lending", "lend-2", "--json"]) == 0
    said: dict[str, Any] = json.loads(capfd.readouterr().out)
    assert said["version"] == "lend-2" and said["examined"]["task"] == "binary"
    assert cli.call(["card", "lending", "lend-9"]) == 1
