"""The report of a chronicle: it stands alone, says the first things first, and what comes from outside cannot act in it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest
from markdown_it import MarkdownIt

from flyball._kernel.conditions import Measurement, Outcome, Verdict
from flyball.learn.drawing import charts
from flyball.learn.reports.report import Rendered
from flyball.watch import picture, report
from flyball.watch.chronicle import (
    Chronicle,
    Count,
    Curve,
    Event,
    Point,
    Quality,
    Series,
    Span,
    Stage,
    Totals,
    Training,
    Way,
)

START = datetime(2013, 7, 1, tzinfo=UTC)
HOSTILE = "x</style><script>alert(1)</script>](javascript:alert)|`!\u202e<b>\n# big {{datum.x}}"


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def measured(estimate: float) -> Measurement:
    return Measurement(estimate=estimate, low=estimate - 0.03, high=estimate + 0.03, n=900)


def point(day: float, state: str, estimate: float | None) -> Point:
    band = measured(estimate) if estimate is not None else None
    return Point(
        at=at(day),
        state=state,  # type: ignore[arg-type]
        version="a-1",
        estimate=estimate,
        low=band.low if band else None,
        high=band.high if band else None,
        n=900 if band else 0,
        threshold=0.2,
        reason="" if band else "12 rows",
    )


def chronicle(name: str = "a") -> Chronicle:
    """Two champions, one candidate that fell, one on its way; everything that is text comes from `name`."""
    one, two, three, four = (f"{name}-{k}" for k in (1, 2, 3, 4))
    shadow = Stage(name="shadow", share=0.0, start=at(5), end=at(6))
    canary = Stage(name="canary", share=0.05, start=at(6), end=at(7))
    verdict = Verdict(condition=f"{name} <= 0.01", outcome=Outcome.FAIL, measurement=measured(0.4), threshold=0.01)
    quality = [
        Quality(start=at(7 * k), end=at(7 * k + 7), version=version, measured=measured(0.7 - 0.02 * k), answered=n)
        for k, (version, n) in enumerate([(one, 900), (two, 900), (three, 0)])
    ]
    return Chronicle(
        app=name,
        model=name,
        at=at(21),
        champion=two,
        since=at(7),
        epoch=6,
        paused="",
        held={three: "failed"},
        spans=[
            Span(version=one, start=at(0), end=at(7), by="loop", why="passed its gates"),
            Span(version=two, start=at(7), end=None, by="loop", why=f"passed every stage of {name}"),
        ],
        ways=[
            Way(version=two, by="loop", overridden=False, stages=[shadow, canary], ended="promoted", why="passed"),
            Way(
                version=three,
                by="ada",
                overridden=True,
                stages=[Stage(name="shadow", share=0.0, start=at(14), end=at(15))],
                ended="aborted",
                why=f"failed: {name}",
                questions=100,
                both=99,
            ),
            Way(
                version=four,
                by="loop",
                overridden=False,
                stages=[Stage(name="canary", share=0.5, start=at(20), end=None)],
                ended="",
                why="",
            ),
        ],
        events=[Event(at=at(15), kind="aborted", words=f"{three} is aborted", verdicts=[verdict])],
        trainings=[Training(began=at(13), ended=at(13), why=name, version=three, decision="rejected")],
        monitors=[
            Series(
                monitor=f"{name} drift",
                watches=name,
                points=[point(1, "blind", None), point(2, "ok", 0.1), point(20, "breach", 0.4)],
            )
        ],
        quality=[Curve(metric="roc_auc", better="higher", days=7, threshold=0.62, points=quality, unmeasured=9)],
        days=[
            Count(day="2013-07-01", version=one, role="champion", attempts=1_000, failed=1),
            Count(day="2013-07-06", version=two, role="shadow", attempts=1_000, failed=0),
            Count(day="2013-07-07", version="default", role="default", attempts=1, failed=0),
        ],
        totals=Totals(
            questions=1_001,
            answered=1_000,
            failed=1,
            attempts=2_001,
            shadows=1_000,
            failures=1,
            codes={name: 1},
            settled=990,
            void=3,
            pending=7,
        ),
    )


@pytest.fixture(scope="module")
def rendered() -> Rendered:
    return report.render(chronicle())


@pytest.fixture(scope="module")
def hostile() -> Rendered:
    return report.render(chronicle(HOSTILE))


def test_there_is_a_picture_of_everything(rendered: Rendered) -> None:
    assert list(rendered.figures) == ["releases.svg", "quality-roc_auc.svg", "monitor-1.svg", "answers.svg"]
    for svg in rendered.figures.values():
        ET.fromstring(svg)  # noqa: S314 - our own
    assert all(f"]({name})" in rendered.markdown for name in rendered.figures)


def test_the_timeline_shows_bands_and_shares_and_where_a_version_fell(rendered: Rendered) -> None:
    svg = rendered.figures["releases.svg"].decode()
    for text in ("a-1", "a-2", "a-3", "a-4", ">5%<", ">50%<", "✕"):
        assert text in svg
    for colour in ("accent", "second", "soft", "bad"):
        assert charts.LIGHT[colour] in svg
    assert svg.count("✕") == 1, "one fell"


def test_quality_shows_its_threshold_and_the_change_of_versions(rendered: Rendered) -> None:
    svg = rendered.figures["quality-roc_auc.svg"].decode()
    assert re.search(rf'stroke="{charts.LIGHT["bad"]}"[^>]*stroke-dasharray="5,4"', svg)
    assert "a-2" in svg


def test_the_first_screen_says_who_answers_and_what_fell_and_why(rendered: Rendered) -> None:
    first = rendered.html.split("<section>")[0]
    assert "a-2 answers since 2013-07-08 00:00: passed every stage of a." in first
    assert "a-3 fell on its way at 2013-07-16 00:00 (its gates overridden): failed: a." in first
    assert "a-4 is on its way: in canary with 50% of the traffic since 2013-07-21 00:00." in first
    assert "a drift is in breach." in first
    assert "1,001 questions: 1,000 answered, 1 failed" in first
    assert 'class="decision fail"' in first, "a monitor is in breach"


def test_tables_say_the_numbers(rendered: Rendered) -> None:
    tables = {t.title: t for t in report.tables(chronicle())}
    assert list(tables) == [
        "Decisions",
        "Ways to be champion",
        "Trainings",
        "Monitors",
        "Live quality",
        "Attempts by version and role",
        "Counts",
    ]
    assert tables["Decisions"].rows[0][3] == "✕ a <= 0.01 0.400 (0.370 to 0.430, n = 900)"
    assert tables["Ways to be champion"].rows[1][-1] == "99 of 100 (99.0%)"
    assert tables["Trainings"].rows[0][-1] == "✕ rejected"
    assert tables["Monitors"].rows[0][1:4] == ["✕ breach", "2013-07-21 00:00", "0.400 against 0.200"]
    assert 'class="badge fail">✕ rejected' in rendered.html
    assert "9 settled answers" in tables["Live quality"].note


def test_the_page_stands_alone(rendered: Rendered, hostile: Rendered) -> None:
    for page in (rendered.html, hostile.html):
        assert "<script" not in page.lower()
        assert not re.search(r"url\(|@import|<link|<img|<iframe|\son\w+=", page)
        assert not re.search(r"(?:src|href)=\"(?!#)", page)
        assert "default-src 'none'" in page
        assert "prefers-color-scheme:dark" in page


def test_names_from_outside_cannot_act(hostile: Rendered) -> None:
    assert "<b>" not in hostile.html
    html = MarkdownIt("commonmark").enable("table").render(hostile.markdown)
    assert not re.search(r"<script|<b>|javascript:alert\"|<h1>big", html)
    assert html.count("<h1>") == 1
    for text in (hostile.html, hostile.markdown, *(f.decode() for f in hostile.figures.values())):
        assert "\u202e" not in text
    for svg in hostile.figures.values():
        drawn = ET.fromstring(svg)  # noqa: S314 - our own
        assert not [e for e in drawn.iter() if e.tag.endswith(("script", "}b", "a"))]


def test_every_row_of_a_table_has_as_many_cells_as_its_head(hostile: Rendered) -> None:
    for table in report.tables(chronicle(HOSTILE)):
        assert {len(row) for row in table.rows} == {len(table.head)}
    html = MarkdownIt("commonmark").enable("table").render(hostile.markdown)
    assert html.count("<table>") == len(report.tables(chronicle()))


def test_whatever_is_drawn_has_a_dark_counterpart(rendered: Rendered) -> None:
    for name, svg in rendered.figures.items():
        drawn = svg.decode().split("</style>")[1]
        colours = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]+)"', drawn))
        assert colours, name
        assert colours <= set(charts.LIGHT.values()), name


def test_the_axis_of_time_is_utc_wherever_it_is_drawn() -> None:
    """Vega's plain time scale is that of the machine's zone, so that two machines would draw two pictures."""
    said = picture._x("at", (at(0), at(1))).to_dict()
    assert said["scale"]["type"] == "utc"
    assert all(end["utc"] for end in said["scale"]["domain"])


def test_same_chronicle_same_bytes(rendered: Rendered) -> None:
    assert report.render(chronicle()) == rendered


def test_a_long_history_is_cut_and_says_so() -> None:
    long = chronicle()
    many = [Event(at=at(k / 50), kind="advanced", words=f"number {k}", verdicts=[]) for k in range(report.LATEST + 5)]
    (decisions, *_) = report.tables(
        Chronicle(**{f: getattr(long, f) for f in long.__struct_fields__} | {"events": many})
    )
    assert len(decisions.rows) == report.LATEST
    assert decisions.rows[-1][2] == f"number {report.LATEST + 4}"
    assert "205" in decisions.note


def test_nothing_yet_is_said_and_draws_nothing() -> None:
    empty = Chronicle(
        app="a",
        model="a",
        at=at(0),
        champion="",
        since=None,
        epoch=0,
        paused="asked (ada)",
        held={},
        spans=[],
        ways=[],
        events=[],
        trainings=[],
        monitors=[],
        quality=[],
        days=[],
        totals=Totals(),
    )
    assert picture.figures(empty) == ()
    assert report.tables(empty) == []
    said = report.render(empty)
    assert "Nobody answers yet." in said.html
    assert "Paused: asked (ada)." in said.markdown.replace("\\", "")
