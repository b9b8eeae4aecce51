"""`flyball features`: what each feature is and reads, who uses it, what it costs and is worth, and what nobody uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.features import Line, ModelFeatures, Report, Use


def run(
    app: options.App,
    model: Annotated[str | None, typer.Option("--model", help="One model; by default all.")] = None,
    worth: Annotated[
        bool, typer.Option("--worth/--no-worth", help="Measure what each is worth; takes seconds.")
    ] = True,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Who uses which feature, what each reads, costs and is worth, and which nobody uses."""
    from flyball.cycle import features

    session = opening.session(app, home, clock, create=False)
    with opening.progress() as tell:
        found = features.features(session, model, tell, worth=worth)
    if as_json:
        say.result(found)
        return 0
    for each in found.models:
        _model(each)
    _nobody(found)
    return 0


def _model(each: ModelFeatures) -> None:
    version = f"as {each.version} reads it" if each.version else "never trained"
    say.line(f"[bold]{escape(each.model)}[/]  [dim]{len(each.features)} features, {escape(version)}[/]")
    say.table(
        ("feature", "kind", "owner", "version", "reads", "outputs", "used by"),
        [
            (
                f.name,
                f.kind,
                f.owner or "-",
                f.version[:12],
                ", ".join(dict.fromkeys(read.column for read in f.reads)),
                ", ".join(f.outputs),
                "; ".join(_use(use) for use in f.used_by),
            )
            for f in each.features
        ],
    )
    reasons = [(f.name, f.reason.partition("\n")[0]) for f in each.features if f.reason]
    if reasons:
        say.line()
        say.table(("feature", "reason"), reasons)
    say.line()
    _costs(each)
    nothing = [f.name for f in each.features if f.tells == "nothing"]
    if nothing:
        say.line(f"worth nothing that can be told: {escape(', '.join(nothing))}")
    if each.why:
        say.line(f"[dim]worth not told: {escape(each.why)}[/]")
    say.line()


def _costs(each: ModelFeatures) -> None:
    built = max((f.cost.questions for f in each.features), default=0)
    say.table(
        (
            "feature",
            "build",
            "stored",
            "online",
            "look-up p50",
            "p99",
            "online until",
            f"worth ({each.metric})",
            "95 %",
            "",
        ),
        [
            (
                f.name,
                "-" if f.cost.seconds is None else f"{f.cost.seconds * 1e3:,.1f} ms",
                _size(f.cost.stored),
                _size(f.cost.online),
                _micros(f.cost.p50),
                _micros(f.cost.p99),
                _until(f),
                *_worth(f),
            )
            for f in each.features
        ],
    )
    if built:
        say.line(f"[dim]build: alone, for the last {built:,} questions; look-up: of one question, alone[/]")


def _nobody(found: Report) -> None:
    if found.unused:
        say.line("[bold]Nobody uses[/]")
        say.table(
            ("feature", "kind", "owner", "reason", "declared at"),
            [(u.name, u.kind, u.owner or "-", u.reason.partition("\n")[0], u.where) for u in found.unused],
        )
    if found.series:
        size = sum(series.bytes for series in found.series)
        say.line(
            f"{len(found.series)} series of the online store, {_size(size)}, that no declared feature reads: "
            "flyball apply drops them, once whoever answers reads none of them"
        )


def _use(use: Use) -> str:
    named = {use.champion: "champion", use.candidate: "candidate"}
    shown = [f"{v} ({named[v]})" for v in use.versions if v in named]
    more = len(use.versions) - len(shown)
    shown += [f"{more} more" if shown else f"{more} versions"] if more else []
    return f"{use.model}: {', '.join(shown) or 'no version yet'}"


def _size(size: int | None) -> str:
    if size is None:
        return "-"
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} B"


def _micros(taken: float | None) -> str:
    return "-" if taken is None else f"{taken:.0f} µs" if taken >= 10 else f"{taken:.1f} µs"


def _until(f: Line) -> str:
    if f.fresh is None:
        return "-"
    known = f"{f.fresh.known:%Y-%m-%d %H:%M}" if f.fresh.known is not None else "nothing"
    return known if f.fresh.batch >= f.fresh.of else f"{known} ({f.fresh.of - f.fresh.batch} batches behind)"


def _worth(f: Line) -> tuple[str, str, str]:
    if f.worth is None:
        return "-", "", ""
    said = {"worth": "", "harm": "answers get worse by it", "nothing": "may be nothing"}[f.tells or "nothing"]
    return f"{f.worth.estimate:+.4f}", f"{f.worth.low:+.4f} to {f.worth.high:+.4f}", said
