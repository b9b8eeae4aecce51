"""The report: what was promised comes first, nothing from outside can act, and the same evaluation gives the same bytes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import msgspec
import numpy as np
import polars as pl
import pytest
from markdown_it import MarkdownIt

import flyball as fb
from flyball import champion, ms
from flyball._kernel import facts
from flyball._kernel.conditions import Measurement, Outcome, Verdict
from flyball.learn import gates
from flyball.learn.drawing import charts, page
from flyball.learn.quality import evaluate, metrics
from flyball.learn.quality.evaluate import Evaluation, HeldOut
from flyball.learn.reports import report
from flyball.learn.reports.report import Subject
from flyball.learn.task import Task

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>`|](javascript:alert(3))**\n# \x00\u202e&amp;"
N = 1500
VOID = {"meta", "br", "img", "hr"}


def held_out(group: str = "JFK", model: str = "boosted") -> HeldOut:
    rng = np.random.default_rng(0)
    p = rng.beta(2, 5, N)
    origin = [group if k < 20 else "EWR" if k % 2 else f"{group}!" for k in range(N)]
    return HeldOut(rng.random(N) < p, {model: p, "linear": rng.permutation(p)}, {f"{group}?": pl.Series(origin)})


def subject(held: HeldOut, text: str = "flights") -> Subject:
    promised = [
        fb.roc_auc >= 0.6,
        fb.log_loss <= fb.log_loss.on(champion) + 0.01,
        fb.roc_auc.gap(by=next(iter(held.slices))) <= 0.02,
        fb.model_latency <= ms(2),
    ]
    timed = Measurement(estimate=0.0001, low=0.00009, high=0.0002, n=300)
    found = gates.judge_all(promised, held, champion=held.scores["linear"], latency=timed)
    return Subject(
        title=text,
        app=text,
        model=text,
        version=text,
        evaluation=evaluate.evaluate(held, metrics.CLASSIFICATION),
        verdicts=found.verdicts,
        lineage={text: text, "trained on": "2013-01-01 to 2013-06-30"},
        features=["origin", text],
        params={"leaves": 31, text: text},
        measured=found.measured,
    )


@pytest.fixture(scope="module")
def usual() -> Subject:
    return subject(held_out())


@pytest.fixture(scope="module")
def rendered(usual: Subject) -> report.Rendered:
    return report.render(usual)


class Page(HTMLParser):
    """What a browser would build: elements, attributes, text; and that every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(k, v or "") for k, v in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(k, v or "") for k, v in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_verdicts_come_first_with_their_numbers(rendered: report.Rendered, usual: Subject) -> None:
    text = Page(rendered.html).text
    order = ["What was promised", "Models compared", "How it answers", "Where it is strong", "What it was made from"]
    assert [text.index(part) for part in order] == sorted(text.index(part) for part in order)
    auc = usual.evaluation.measurements["roc_auc"]
    for shown in ("roc_auc >= 0.6", f"{auc.estimate:.3f}{auc.low:.3f} to {auc.high:.3f}", "0.1 ms", "0.09 to 0.2 ms"):
        assert shown in text
    assert f"{auc.estimate:.3f} | {auc.low:.3f} to {auc.high:.3f} | 1,500" in rendered.markdown
    assert "20 rows, fewer than 50" in text
    assert "20 rows, fewer than 50" in rendered.markdown


@pytest.mark.parametrize(
    ("outcomes", "sentence"),
    [
        ([Outcome.PASS], "Every gate passed."),
        ([Outcome.PASS, Outcome.INCONCLUSIVE], "Held"),
        ([Outcome.FAIL, Outcome.INCONCLUSIVE], "Rejected"),
        ([], ""),
    ],
)
def test_the_decision_is_said_once(usual: Subject, outcomes: list[Outcome], sentence: str) -> None:
    verdicts = [Verdict(condition="m >= 1", outcome=o, measurement=None, threshold=1.0) for o in outcomes]
    plain = msgspec.structs.replace(usual.evaluation, slices=(), roc=(), precision_recall=())
    shown = report.render(replace(usual, evaluation=plain, verdicts=verdicts))
    said = [s for s in ("Every gate passed.", "Held", "Rejected") if s in shown.html and s in shown.markdown]
    assert said == ([sentence] if sentence else [])


def test_differences_are_coloured_by_what_is_better(rendered: report.Rendered) -> None:
    """`linear` is a permutation: its log loss is higher, and that is worse."""
    assert 'class="apart down">+' in rendered.html
    assert 'class="apart up"' not in rendered.html


def test_the_page_stands_alone(rendered: report.Rendered) -> None:
    page = Page(rendered.html)
    assert "script" not in page.tags
    assert {"link", "img", "iframe", "object", "embed", "form", "base", "use", "image", "a"}.isdisjoint(page.tags)
    assert {k for k, _ in page.attributes}.isdisjoint({"src", "href", "xlink:href", "action", "style", "id", "srcset"})
    assert not re.search(r"url\(|@import", rendered.html)
    assert "default-src 'none'" in dict(page.attributes)["content"] or "default-src 'none'" in rendered.html
    assert page.tags.count("figure") == 5


def test_figures_are_the_ones_that_the_markdown_shows(rendered: report.Rendered) -> None:
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", rendered.markdown)
    assert (
        shown
        == list(rendered.figures)
        == ["roc.svg", "precision-recall.svg", "calibration.svg", "scores.svg", "slices.svg"]
    )
    for svg in rendered.figures.values():
        root = ET.fromstring(svg)  # noqa: S314 - our own output, checked to be well-formed XML
        assert root.tag.endswith("svg")
        assert svg.decode() in rendered.html  # one definition, two uses
    assert set(report.files(rendered)) == {"report.md", "report.html", *shown}


def test_dark_readers_get_dark_colours(rendered: report.Rendered) -> None:
    for svg in rendered.figures.values():
        used = {c for c in charts.LIGHT.values() if f'"{c}"' in svg.decode()}
        assert charts.LIGHT["line"] in used
        colours = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]+)"', svg.decode()))
        assert colours <= set(charts.LIGHT.values())  # whatever is drawn has a dark counterpart
        for name, light in charts.LIGHT.items():
            assert f"[fill='{light}']{{fill:{charts.DARK[name]}}}" in svg.decode()


def test_same_input_same_bytes(rendered: report.Rendered, usual: Subject) -> None:
    stored = msgspec.json.decode(facts.encode(usual.evaluation), type=Evaluation)
    assert report.render(replace(usual, evaluation=stored)) == rendered


def test_nothing_from_outside_can_act() -> None:
    hostile = report.render(subject(held_out(HOSTILE, HOSTILE), HOSTILE))
    page = Page(hostile.html)
    assert {"script", "img", "a"}.isdisjoint(page.tags)
    assert not [k for k, _ in page.attributes if k.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") > 10  # shown as what it is
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e]", hostile.html)
    for svg in hostile.figures.values():
        tree = ET.fromstring(svg)  # noqa: S314 - our own output
        assert not [e for e in tree.iter() if e.tag.endswith(("script", "image", "foreignObject", "}a"))]
        assert not [k for e in tree.iter() for k in e.attrib if k.startswith("on") or k.endswith("href")]


def test_nothing_from_outside_can_act_in_markdown() -> None:
    hostile = report.render(subject(held_out(HOSTILE, HOSTILE), HOSTILE))
    calm = report.render(subject(held_out(), "calm"))
    read = MarkdownIt("commonmark", {"html": True}).enable("table")
    pages = [Page(read.render(r.markdown)) for r in (hostile, calm)]
    built, expected = (sorted(p.tags) for p in pages)
    assert built == expected  # the same elements, so no text became markup and no cell was split
    assert [v for k, v in pages[0].attributes if k in {"src", "href"}] == list(hostile.figures)
    assert pages[0].text.count("<script>alert(1)</script>") > 10


def test_a_regressor_and_one_without_anything_measured() -> None:
    rng = np.random.default_rng(1)
    s = rng.gamma(2, 10, 300)
    held = HeldOut(s + rng.normal(0, 5, 300), {"boosted": s, "baseline": np.full(300, 20.0)})
    usual = Subject("delay", "flights", "delay", "1", evaluate.evaluate(held, metrics.REGRESSION), ())
    assert list(report.render(usual).figures) == ["calibration.svg", "errors.svg"]
    few = HeldOut(held.outcome[:9], {"boosted": s[:9]})
    shown = report.render(replace(usual, evaluation=evaluate.evaluate(few, metrics.REGRESSION)))
    assert "all metrics: 9 rows, fewer than 50" in shown.html


def of_kind(kind: str) -> HeldOut:
    rng = np.random.default_rng(2)
    p = rng.random(400)
    match kind:
        case "binary" | "anomaly":
            return HeldOut(rng.random(400) < p, {"m": p}, {}, task=Task(kind=kind), decided={"m": p > 0.3})  # type: ignore[arg-type]
        case "multiclass":
            scores = rng.dirichlet([1, 1, 1], 400)
            return HeldOut(rng.integers(0, 3, 400), {"m": scores}, task=Task(kind=kind, classes=("a", "b", "c")))
        case "quantile":
            scores = np.sort(rng.normal(size=(400, 2)), axis=1)
            return HeldOut(rng.normal(size=400), {"m": scores}, task=Task(kind=kind, quantiles=(0.1, 0.9)))
    return HeldOut(p + rng.normal(size=400), {"m": p}, task=Task(kind="regression"))


@pytest.mark.parametrize(
    ("kind", "shows"),
    [
        ("binary", ["What is decided", "false_positive_rate", "roc.svg"]),
        ("anomaly", ["What is decided", "average_precision"]),
        ("multiclass", ["macro_f1", "macro_roc_auc", "of the most frequent class"]),
        ("regression", ["root_mean_squared_error", "mean outcome", "errors.svg"]),
        ("quantile", ["pinball_loss", "outcomes at or below it", "| 0.1 |", "as promised"]),
    ],
)
def test_every_kind_of_task_is_shown_by_what_suits_it(kind: str, shows: list[str]) -> None:
    measured = evaluate.evaluate(of_kind(kind), metrics.measurable(kind))  # type: ignore[arg-type]
    shown = report.render(Subject(kind, "app", "m", "m-1", measured, ()))
    plain = shown.markdown.replace("\\", "")
    assert [part for part in shows if part not in plain] == []
    assert ("What is decided" in plain) == (kind in ("binary", "anomaly"))
    assert Page(shown.html).tags.count("figure") == len(shown.figures) >= 2


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.70312, False, "0.703"),
        (-0.0384, True, "−0.038"),
        (0.0384, True, "+0.038"),
        (1234.56, False, "1,234.6"),
        (0.00012, False, "1.2e-04"),
        (8.7e-18, False, "0.000"),
        (-8.7e-18, True, "+0.000"),
    ],
)
def test_numbers(value: float, signed: bool, text: str) -> None:
    assert page.number(value, signed=signed) == text
