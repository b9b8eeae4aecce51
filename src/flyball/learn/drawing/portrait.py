"""The page of a table: what lies in it, column by column, with pictures; one HTML file that needs nothing else.

First what a person should know, then when rows lie, every column with its shape, missing values by batch, what came since an
earlier version, how groups are represented, and all numbers. Same sketches, same bytes.

How it looks, and that text from outside cannot act, is `page`'s. Personal columns are counted, never shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flyball.data.sketches import days, quantiles, shape, sketch
from flyball.data.sketches.bias import Bias, Group, Share
from flyball.data.sketches.sketch import Column, Sketch
from flyball.learn.drawing import page, strokes
from flyball.learn.drawing.page import Markup

CARDS: Final = 200
"""Columns that are drawn; the JSON holds all."""
BATCHES: Final = 60
_MARKS: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a page is about, as its caller says it.

    Attributes:
        over: where it comes from, in one line.
        roles: column -> what its contract says of it.
        parts: batch -> its sketch, in order; empty for a file.
        before: the sketch of an earlier version, and what to call it.
        since: the sketch of the rows that came after it.
    """

    title: str
    over: str
    whole: Sketch
    roles: Mapping[str, str] = field(default_factory=dict)
    about: str = ""
    parts: Mapping[str, Sketch] = field(default_factory=dict)
    before: tuple[str, Sketch] | None = None
    since: tuple[str, Sketch] | None = None
    biases: Sequence[Bias] = ()
    biased: str = ""


def render(subject: Subject) -> str:
    """The page."""
    whole = subject.whole
    empty = sum(c.nulls for c in whole.columns) / max(1, whole.rows * len(whole.columns))
    tiles = [("rows", f"{whole.rows:,}"), ("columns", f"{len(whole.columns):,}"), ("cells missing", _percent(empty))]
    tiles += [("batches", f"{len(subject.parts):,}")] if subject.parts else []
    noted = list(notes(whole))
    cards = [_card(c, subject.roles.get(c.name, "")) for c in whole.columns[:CARDS]]
    left = f"{len(whole.columns) - CARDS:,} more columns are in --json." if len(whole.columns) > CARDS else None
    body = [
        page.el("style", Markup(_CSS)),
        page.el(
            "header",
            page.el("p", subject.over, class_="over"),
            page.el("h1", subject.title),
            page.el("div", *(_tile(name, text) for name, text in tiles), class_="tiles"),
        ),
        page.section("Worth knowing", page.el("ul", *(page.el("li", n) for n in noted)) if noted else None),
        *_when(subject),
        page.section("Columns", page.el("div", *cards, class_="cards"), page.el("p", left) if left else None),
        _missing(subject),
        _since(subject),
        *_groups(subject),
        page.section("All numbers", _numbers(whole)),
        page.el("footer", _method(whole)),
    ]
    return page.document(subject.title, body)


def notes(whole: Sketch) -> Iterator[str]:
    """What a person should know before anything else, as sentences."""
    for c in whole.columns:
        there, many = c.rows - c.nulls, sketch.many(c)
        if c.rows and not there:
            yield f"{c.name} is missing everywhere."
        elif c.rows and c.nulls / c.rows >= 0.2:
            yield f"{c.name} is missing in {_percent(c.nulls / c.rows)} of the rows."
        if there > 1 and many == (1, True):
            yield f"{c.name} has the same value in every row that has one."
        if c.nans or c.infinite:
            yield f"{c.name} holds {c.nans:,} NaN and {c.infinite:,} infinite numbers."
        if (best := sketch.top(c)[:1]) and many != (1, True) and best[0][1] >= 0.95 * there:
            yield f"{c.name} is {shape.said(c, best[0][0])} in {_percent(best[0][1] / there)} of the rows that have a value."
        if (holes := days.gaps(c.days)) and holes[0].last - holes[0].first >= 6:
            yield (
                f"{c.name} has no row from {shape.day(holes[0].first)} to {shape.day(holes[0].last)} "
                f"({holes[0].last - holes[0].first + 1:,} days)"
                + (f", the longest of {len(holes):,} gaps." if len(holes) > 1 else ".")
            )
    hidden = [c.name for c in whole.columns if c.kind == "personal"]
    if hidden:
        yield f"Personal, so counted and never shown: {', '.join(hidden)}."


def _when(subject: Subject) -> Iterator[Markup | None]:
    """The column that tells when rows lie: the event time, or the first time of a file."""
    times = [c for c in subject.whole.columns if c.kind == "time" and c.days.starts]
    found = next((c for c in times if c.name == subject.about), times[0] if times and not subject.about else None)
    drawn = shape.shape(found, 120) if found is not None else None
    if found is None or drawn is None:
        return
    caption = f"Rows by {found.name}, {drawn.low} to {drawn.high}"
    wide = page.el(
        "figure", strokes.bars(drawn.counts, drawn.labels, 1072, 130, "bars full"), page.el("figcaption", caption)
    )
    parts = [wide]
    if sum(found.days.week):
        said = page.el("figcaption", "Rows by hour of the week, as the times are written")
        parts.append(page.el("figure", strokes.week(found.days.week), said))
    yield page.section("When", *parts)


def _card(c: Column, role: str) -> Markup:
    drawn, share = shape.shape(c, 32), c.nulls / c.rows if c.rows else 0.0
    head = page.el("h3", page.el("code", c.name), page.el("small", c.dtype), page.el("em", role) if role else None)
    kept: list[Markup] = []
    if c.kind in ("text", "truth") and drawn is not None:
        kept.append(_ranked(c))
    elif drawn is not None:
        kept.append(strokes.bars(drawn.counts, drawn.labels, high=104))
        beyond = " · ".join(f"{n:,} {where}" for n, where in ((drawn.below, "below"), (drawn.above, "above")) if n)
        ends = (page.el("span", drawn.low), page.el("span", beyond), page.el("span", drawn.high))
        kept.append(page.el("p", *ends, class_="ends"))
    else:
        kept.append(page.el("p", _nothing(c), class_="nothing"))
    said = [page.el("div", page.el("dt", name), page.el("dd", text)) for name, text in _facts(c)]
    gone = page.el("i", style=f"width:{100 * share:.2f}%")
    return page.el("article", head, page.el("div", gone, class_="gone"), *kept, page.el("dl", *said))


def _nothing(c: Column) -> str:
    if c.kind == "personal":
        return "personal: counted, not shown"
    if c.nulls == c.rows:
        return "no values"
    return f"no value that {sketch.NAMED} rows share" if c.kind == "text" else "nested: counted, not drawn"


def _facts(c: Column) -> list[tuple[str, str]]:
    said, each = [("missing", _percent(c.nulls / c.rows if c.rows else 0.0))], shape.line(c)
    said += [("distinct", _many(each))] if each.distinct is not None else []
    if c.kind in ("number", "span", "time", "text", "list") and c.quantiles.n:
        length = " length" if c.kind in ("text", "list") else ""
        said.append((f"median{length}", each.p50))
    said += [("mean", page.number(each.mean))] if each.mean is not None else []
    said += [("deviation", page.number(each.deviation))] if each.deviation is not None else []
    return said


def _ranked(c: Column) -> Markup:
    """The most frequent values as bars that lie."""
    there = max(1, c.rows - c.nulls)
    rows = []
    best = sketch.top(c)[:6]
    for value, n in best:
        bar = page.el("i", style=f"width:{100 * n / best[0][1]:.1f}%")
        name = shape.said(c, value) or "(empty text)"
        rows.append(page.el("li", page.el("span", name), page.el("b", _percent(n / there)), bar))
    rest = there - sum(n for _, n in best)
    if rest > 0:
        rows.append(page.el("li", page.el("span", "all others"), page.el("b", _percent(rest / there)), class_="rest"))
    return page.el("ol", *rows, class_="ranked")


def _missing(subject: Subject) -> Markup | None:
    """How much of each column is missing in each batch."""
    if len(subject.parts) < 2:
        return None
    latest = dict(list(subject.parts.items())[-BATCHES:])
    shares = {name: sketch.nulls(part) for name, part in latest.items()}
    names = [c.name for c in subject.whole.columns if any(s.get(c.name, 1.0) for s in shares.values())]
    if not names:
        return None
    drawn = strokes.stripes({n: [s.get(n, 1.0) for s in shares.values()] for n in names}, list(shares))
    caption = "Share of each batch that is missing; columns that never lack a value are left out"
    return page.section("Missing values, by batch", page.el("figure", drawn, page.el("figcaption", caption)))


def _since(subject: Subject) -> Markup | None:
    """What came after an earlier version, beside it; what differs most stands first."""
    if subject.before is None or subject.since is None:
        return None
    (early, old), (late, new) = subject.before, subject.since
    if not new.rows or not old.rows:
        return page.section("What came since", page.el("p", f"{early} and {late}: one of them has no rows."))
    rows = []
    pairs = [(a, b) for b in new.columns if b.kind != "time" and (a := old.column(b.name)) is not None]
    for a, b in sorted(pairs, key=lambda p: -(shape.apart(*p) or 0.0)):
        far, change = shape.apart(a, b), b.nulls / b.rows - a.nulls / a.rows
        missing = f"{_percent(a.nulls / a.rows)} → {_percent(b.nulls / b.rows)}"
        if far is None and not change:
            continue
        moved = page.el("b", missing) if abs(change) >= 0.01 else missing
        rows.append([page.el("code", a.name), _twin(a, b), "" if far is None else f"{far:.3f}", _middle(a, b), moved])
    head = ("column", "5, 25, 50, 75 and 95 %", "apart", "median, or most frequent", "missing")
    said = (
        f"{late} ({new.rows:,} rows, blue) against {early} ({old.rows:,} rows, grey). "
        "Apart: 0 alike, 1 nothing in common. Times are left out: they move on."
    )
    return page.section("What came since", page.el("p", said, class_="over"), page.table(head, rows, "since"))


def _twin(a: Column, b: Column) -> str:
    marks = [[quantiles.quantile(x.quantiles, q) for q in _MARKS] for x in (a, b)]
    if a.kind in ("text", "truth") or any(m is None for each in marks for m in each):
        return ""
    old, new = ([m or 0.0 for m in each] for each in marks)
    ends = (min(old[0], new[0]), max(old[-1], new[-1]))
    return Markup(strokes.box(old, ends, kind="box old") + strokes.box(new, ends))


def _middle(a: Column, b: Column) -> str:
    if a.kind not in ("text", "truth"):
        before, after = shape.at(a, 0.5), shape.at(b, 0.5)
    else:
        before, after = (_best(x) for x in (a, b))
    return before if before == after else f"{before} → {after}"


def _best(c: Column) -> str:
    best = sketch.top(c)[:1]
    return f"{shape.said(c, best[0][0])} ({_percent(best[0][1] / max(1, c.rows - c.nulls))})" if best else ""


def _groups(subject: Subject) -> Iterator[Markup | None]:
    if not subject.biases:
        return
    parts: list[Markup] = [page.el("p", subject.biased, class_="over")]
    for each in subject.biases:
        rates = [g.rate.high for g in each.groups if g.rate]
        most = max((g.share.high for g in each.groups), default=1.0), max(rates, default=1.0) or 1.0
        labels = ["share that is " + each.label, "points apart from all others"] if rates else []
        head = [each.column, "rows", "share of rows", *labels]
        rows = [_group(g, each, most) for g in each.groups]
        parts.append(page.table(head, rows, "biases"))
    yield page.section("Groups", *parts)


def _group(g: Group, of: Bias, most: tuple[float, float]) -> list[str]:
    wanted = page.el("small", f"reference {_percent(g.reference)}") if g.reference is not None else None
    cells = [g.name, f"{g.rows:,}", _pair(strokes.interval(g.share, most[0], g.reference), g.share, wanted)]
    if of.rate is None:
        return cells
    if g.rate is None:
        return [*cells, "no labels", ""]
    apart: str = ""
    if g.apart is not None:
        told = f"{100 * g.apart.estimate:+.1f} ({100 * g.apart.low:+.1f} to {100 * g.apart.high:+.1f})"
        clear = g.apart.low > 0 or g.apart.high < 0
        apart = page.el("b" if clear else "span", told.replace("-", "−"))
    few = page.el("small", "few rows") if g.weak else None
    return [*cells, _pair(strokes.interval(g.rate, most[1], of.rate.estimate), g.rate, few), apart]


def _pair(drawn: Markup, share: Share, remark: Markup | None = None) -> Markup:
    said = f"{_percent(share.estimate)} ({100 * share.low:.1f} to {100 * share.high:.1f})"
    return page.el("div", drawn, page.el("span", said, remark), class_="pair")


def _numbers(whole: Sketch) -> Markup:
    head = ("column", "type", "missing", "distinct", "least", "5 %", "median", "95 %", "greatest")
    rows = []
    for c in whole.columns:
        each = shape.line(c)
        many = _many(each)
        ends = [each.low, each.p5, each.p50, each.p95, each.high]
        rows.append([page.el("code", c.name), c.dtype, f"{c.nulls:,}", many, *ends])
    return page.table(head, rows, "numbers")


def _many(each: shape.Line) -> str:
    return "" if each.distinct is None else f"{'' if each.distinct_is_exact else '≈ '}{each.distinct:,}"


def _method(whole: Sketch) -> str:
    slack = max((c.quantiles.slack / c.quantiles.n for c in whole.columns if c.quantiles.n), default=0.0)
    return (
        "One pass over all rows. Counts, sums and ends are exact; a quantile's rank is wrong by at most "
        f"{slack:.2%} of the rows; ≈ stands for a standard error of 2 %. A value is named where {sketch.NAMED} rows share it. "
        "Shares of groups have Wilson's 95 % intervals, differences Newcombe's. Times are UTC where they have a zone. "
        "Texts are measured in characters."
    )


def _tile(name: str, text: str) -> Markup:
    return page.el("div", page.el("b", text), page.el("span", name))


def _percent(share: float) -> str:
    if share and share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if 0 < share < 1 else f"{100 * share:.0f} %"


_CSS: Final = """
.tiles{display:flex;flex-wrap:wrap;gap:12px 48px}
.tiles b{display:block;font-size:1.7rem;line-height:1.15;font-weight:600;letter-spacing:-.02em;color:var(--strong);
font-variant-numeric:tabular-nums}.tiles span{color:var(--muted);font-size:.86rem}
.strokes{display:block;max-width:100%;height:auto;overflow:visible}
.bars rect,.week rect{fill:var(--accent)}.bars rect:hover,.week rect:hover,.stripes rect:hover{fill:var(--second)}
.strokes .base,.strokes .rail{stroke:var(--line)}.strokes text{fill:var(--muted);font-size:11px}
.stripes rect{fill:var(--bad)}.week{max-width:560px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(320px,100%),1fr));gap:20px}
article{border:1px solid var(--line);border-radius:10px;padding:16px 18px 14px;min-width:0;break-inside:avoid;
display:flex;flex-direction:column}
article h3{display:flex;align-items:baseline;gap:8px;margin:0 0 8px;font-size:.95rem;min-width:0}
article h3 code{font-size:.92rem;font-weight:600;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
article h3 small{color:var(--muted);font-size:.74rem;font-weight:400;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
article h3 em{margin-left:auto;font-style:normal;font-weight:500;font-size:.72rem;color:var(--accent);white-space:nowrap;
padding:.05rem .5rem;border-radius:99px;background:color-mix(in srgb,currentColor 10%,transparent)}
.gone{height:3px;border-radius:2px;background:var(--line);margin-bottom:14px;overflow:hidden}
.gone i{display:block;height:100%;background:var(--bad)}
article .bars{width:100%}
.ends{display:flex;justify-content:space-between;gap:8px;margin:4px 0 0;color:var(--muted);font-size:.76rem;
font-variant-numeric:tabular-nums}
.nothing{color:var(--muted);font-size:.86rem;margin:0;padding:22px 0;text-align:center}
article dl{display:grid;grid-template-columns:repeat(3,1fr);gap:10px 14px;margin-top:auto;padding-top:14px;
font-variant-numeric:tabular-nums}
article dt{font-size:.72rem}article dd{font-size:.84rem;color:var(--strong);white-space:nowrap}
.ranked{list-style:none;margin:0;padding:0;font-size:.82rem}
.ranked li{display:grid;grid-template-columns:1fr auto;gap:0 10px;padding:2px 0 3px}
.ranked span{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}.ranked b{font-weight:500;color:var(--strong)}
.ranked i{grid-column:1/-1;height:3px;border-radius:2px;background:var(--accent)}
.ranked .rest{color:var(--muted)}.ranked .rest b{color:var(--muted)}
.box .reach{stroke:var(--accent);stroke-width:1.5}.box .mid{fill:var(--accent);opacity:.45}
.box .half{stroke:var(--accent);stroke-width:2}
.old .reach,.old .half{stroke:var(--muted)}.old .mid{fill:var(--muted)}
.since td,.biases td,.numbers td{white-space:nowrap;vertical-align:middle;padding-top:7px;padding-bottom:7px}
section>.over{margin-bottom:18px}
.biases{margin-bottom:36px;table-layout:fixed;min-width:980px}.biases td:first-child{font-weight:500;color:var(--strong);
overflow:hidden;text-overflow:ellipsis}
.biases th:first-child{width:17%}.biases th:nth-child(2){width:7%}.biases th:nth-child(3){width:27%}
.biases th:last-child{width:20%}
.pair{display:flex;align-items:center;gap:12px;font-size:.86rem}.pair .glyph{flex:none}.pair small{display:block}
.numbers{font-size:.84rem}.numbers td{overflow-wrap:normal}.full{width:100%}
"""
