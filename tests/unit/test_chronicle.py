"""The chronicle of a month that was told by hand: everything that was put in is found again, and the counts add up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from flyball._kernel.facts import Fact
from flyball.adapters.memory.clock import VirtualClock
from flyball.cycle import chronicle
from flyball.release import rollout
from flyball.release.rollout import Aborted, Promoted, Resumed, RolledBack, Started
from flyball.watch.chronicle import Chronicle
from tests import story
from tests.story import Story, at


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return Story(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def found(told: Story) -> Chronicle:
    return chronicle.chronicle(told.session, told.session.app.model())


def test_the_counts_are_those_that_were_put_in_and_add_up(told: Story, found: Chronicle) -> None:
    expected, total = told.told, found.totals
    assert (total.questions, total.failed) == (expected.questions, expected.failed) == (story.LENGTH * 24 * 6, 1)
    assert total.questions == total.answered + total.failed
    assert total.attempts == expected.attempts == total.answered + total.shadows + total.failures
    assert (total.shadows, total.failures) == (expected.shadows, expected.failures)
    assert total.codes == {"model-broke": 2}
    assert (total.settled, total.void) == (expected.settled, expected.void)
    assert total.answered == total.settled + total.void + total.pending
    assert (total.unmatched, total.dropped) == (0, 0)


def test_days_hold_every_attempt_once(told: Story, found: Chronicle) -> None:
    by_role: Counter[tuple[str, str]] = Counter()
    for each in found.days:
        by_role[each.version, each.role] += each.attempts
    assert dict(by_role) == told.told.by_role
    assert sum(each.failed for each in found.days) == told.told.failures
    assert len({each.day for each in found.days}) == story.LENGTH
    assert [each.day for each in found.days] == sorted(each.day for each in found.days)


def test_who_answered_when_is_who_the_facts_say(told: Story, found: Chronicle) -> None:
    assert [(s.version, s.by, bool(s.fell)) for s in found.spans] == [
        ("lateness-1", "loop", False),
        ("lateness-2", "loop", False),
        ("lateness-4", "ada", True),
        ("lateness-2", "loop", False),
    ]
    assert found.spans[0].start == at(0)
    assert found.spans[-1].end is None
    for before, after in zip(found.spans, found.spans[1:], strict=False):
        assert before.end == after.start
    for span in found.spans:
        middle = span.start + ((span.end or found.at) - span.start) / 2
        assert rollout.at(told.session.facts, "flights", "lateness", middle).champion == span.version
    assert (found.champion, found.since) == ("lateness-2", found.spans[-1].start)
    assert set(found.held) == {"lateness-3", "lateness-4"}


def test_ways_end_as_they_ended_and_their_shadows_are_counted(found: Chronicle) -> None:
    passed, fell = found.ways
    assert (passed.version, passed.ended, passed.overridden) == ("lateness-2", "promoted", False)
    assert [(s.name, s.share) for s in passed.stages] == [("shadow", 0.0), ("canary", 0.5)]
    assert passed.stages[0].end == passed.stages[1].start
    assert passed.end == found.spans[1].start
    assert (fell.version, fell.ended, fell.by, fell.overridden) == ("lateness-3", "aborted", "ada", True)
    assert fell.why.startswith("failed in shadow")
    assert (fell.questions, fell.both) == (144, 144)
    assert passed.questions == 288
    # Two shadows were dropped, and one question was asked at the moment at which the rollout began.
    assert passed.both == 285


def test_every_decision_is_told_with_its_numbers(told: Story, found: Chronicle) -> None:
    assert len(found.events) == len(rollout.history(told.session.facts, "flights", "lateness"))
    assert [e.at for e in found.events] == sorted(e.at for e in found.events)
    (aborted,) = [e for e in found.events if e.kind == "aborted"]
    assert [v.condition for v in aborted.verdicts] == ["roc_auc.live(over=2 d) >= 0.62"]
    (advanced,) = [e for e in found.events if e.kind == "advanced"]
    assert advanced.words == "lateness-2 enters canary 50% for 1d"


def test_trainings_have_their_trigger_their_version_and_their_end(found: Chronicle) -> None:
    assert [(t.why, t.version, t.decision, t.failed) for t in found.trainings] == [
        ("applied", "lateness-1", "release", ""),
        ("every 7 d", "lateness-2", "release", ""),
        ("applied", "lateness-3", "rejected", ""),
        ("breach: drift", "", "", "disk-full"),
    ]
    assert all(t.ended is not None and t.began <= t.ended for t in found.trainings)


def test_monitors_keep_every_point(found: Chronicle) -> None:
    series = {s.monitor: s for s in found.monitors}
    assert set(series) == {"drift", "live quality"}
    assert [p.state for p in series["live quality"].points[:3]] == ["blind", "blind", "ok"]
    assert series["live quality"].points[0].estimate is None
    assert series["live quality"].watches == "roc_auc.live(over=30d) >= 0.62"
    assert series["drift"].points[-1].state == "breach"
    assert len(series["drift"].points) == story.LENGTH - 2


def test_quality_is_measured_by_the_version_that_answered_and_beside_it(found: Chronicle) -> None:
    curves = {c.metric: c for c in found.quality}
    assert list(curves) == ["average_precision", "roc_auc"]  # what the search optimises comes first
    assert (curves["roc_auc"].threshold, curves["average_precision"].threshold) == (0.62, None)
    for point in curves["roc_auc"].points:
        assert point.measured.low <= point.measured.estimate <= point.measured.high
        good = point.version != "lateness-3"
        assert (point.measured.estimate > 0.6) is good
        assert (point.measured.low > 0.5) is good, "an interval narrow enough to tell them apart"
        assert (point.answered > 0) is good, "lateness-3 was only ever a shadow"
    assert {p.version for p in curves["roc_auc"].points} == {f"lateness-{k}" for k in (1, 2, 3, 4)}


def test_it_is_json_and_holds_no_value_of_a_row(found: Chronicle) -> None:
    said = msgspec.json.encode(found)
    assert msgspec.json.decode(said, type=Chronicle) == found
    for secret in (b"secret", b"flight_id", b"origin\\"):
        assert secret not in said


def test_outcomes_that_reach_no_question_are_counted(tmp_path: Path) -> None:
    told = Story(tmp_path, until=1)
    now = told.clock.now()
    early = story.outcome('{"flight_id":"23"}', now, 1.0)
    too_early = msgspec.structs.replace(early, key='{"flight_id":"100"}', settled=at(0))  # the one that nobody answered
    in_time = msgspec.structs.replace(too_early, value=0.0, settled=now)
    nobody = msgspec.structs.replace(early, key='{"flight_id":"nobody"}')
    stray = msgspec.structs.replace(early, key="", prediction="00000000-0000-7000-8000-000000000000")
    another = msgspec.structs.replace(nobody, model="another")
    before = chronicle.chronicle(told.session, told.session.app.model()).totals
    told.session.outcomes.post([nobody, stray, another])
    after = chronicle.chronicle(told.session, told.session.app.model()).totals
    assert (before.unmatched, after.unmatched) == (0, 2)
    assert msgspec.structs.replace(after, unmatched=0) == before
    told.session.outcomes.post([too_early])
    assert chronicle.chronicle(told.session, told.session.app.model()).totals.unmatched == 3
    told.session.outcomes.post([in_time])
    assert chronicle.chronicle(told.session, told.session.app.model()).totals.unmatched == 2


def test_a_model_that_nobody_asked_has_an_empty_chronicle(tmp_path: Path) -> None:
    session = story.opened(tmp_path, VirtualClock(at(0)))
    found = chronicle.chronicle(session, session.app.model())
    assert (found.champion, found.spans, found.ways, found.days, found.quality) == ("", [], [], [], [])
    assert found.totals.questions == found.totals.answered == 0
    assert chronicle.write(session, found).is_file()


def test_what_is_still_going_on_has_no_end(tmp_path: Path) -> None:
    told = Story(tmp_path, an_hour=1, until=8.5)
    found = chronicle.chronicle(told.session, told.session.app.model())
    (way,) = found.ways
    assert (way.ended, way.end, way.stages[-1].name) == ("", None, "canary")
    told.session.facts.append([Fact("flights", "lateness", Resumed(by="ada"))])
    assert chronicle.chronicle(told.session, told.session.app.model()).ways == [way]


def test_a_candidate_that_is_given_up_for_another_has_an_end() -> None:
    stages = story.STAGES
    second = [
        Aborted(version="a-2", epoch=3, reason="given up for a-3", holds=False),
        Started(version="a-3", stages=stages, epoch=4, reason="newer"),
    ]
    events = [
        (at(0), Promoted(version="a-1", previous="", epoch=1, reason="first")),
        (at(1), Started(version="a-2", stages=stages, epoch=2, reason="new")),
        *((at(2), said) for said in second),
        (at(3), Promoted(version="a-4", previous="a-1", epoch=5, reason="at once", by="ada")),
        (at(4), RolledBack(version="a-4", to="a-1", epoch=6, reason="asked", by="ada")),
    ]
    assert [(w.version, w.ended, w.end) for w in chronicle.ways(events)] == [
        ("a-2", "aborted", at(2)),
        ("a-3", "aborted", at(3)),
    ]
    assert [(s.version, s.end, s.fell) for s in chronicle.spans(events)] == [
        ("a-1", at(3), ""),
        ("a-4", at(4), "asked"),
        ("a-1", None, ""),
    ]


def test_the_machine_and_the_chronicle_agree_on_every_prefix(told: Story) -> None:
    events = rollout.history(told.session.facts, "flights", "lateness")
    state = rollout.Rollout()
    for k, (moment, said) in enumerate(events, 1):
        state = rollout.after(state, said, moment)
        spans, ways = chronicle.spans(events[:k]), chronicle.ways(events[:k])
        assert spans[-1].version == state.champion
        assert spans[-1].start == state.since
        running = [w for w in ways if not w.ended]
        assert [w.version for w in running] == ([state.candidate] if state.candidate else [])
        assert all(w.stages[-1].start == state.entered and len(w.stages) == state.stage + 1 for w in running)


def test_reports_are_replaced_and_old_figures_go(told: Story, found: Chronicle) -> None:
    page = chronicle.write(told.session, found)
    folder = page.parent
    assert folder == told.session.home / "reports" / "loop" / "lateness"
    (folder / "monitor-99.svg").write_text("old")
    first = {f.name: f.read_bytes() for f in folder.iterdir()}
    chronicle.write(told.session, found)
    again = {f.name: f.read_bytes() for f in folder.iterdir()}
    del first["monitor-99.svg"]
    assert again == first
    assert {"report.md", "report.html", "releases.svg", "quality-roc_auc.svg", "answers.svg"} <= set(again)
