"""`flyball status`: what there is, who answers, who is on the way, what the monitors say, and what the loop thinks."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.expectations import Belief
    from flyball.cycle.session import Session
    from flyball.cycle.status import ModelStatus, MonitorStatus, Status

STATES = {"ok": "[green]ok[/]    ", "breach": "[red]breach[/]", "blind": "[yellow]blind[/] "}


def run(
    app: options.App,
    at: Annotated[datetime | None, typer.Option("--at", help="Only who answered at that time (UTC).")] = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """What was ingested, which versions exist, who answers, what the monitors say, and what the loop will do next."""
    from flyball._kernel.clock import in_utc
    from flyball.cycle import status
    from flyball.runtime import looping

    session = opening.session(app, home, clock, create=False)
    if at is not None:
        _then(session, in_utc(at), as_json=as_json)
        return 0
    found = status.status(session, looping.read(session.home))
    if as_json:
        say.result(found)
        return 0
    say.line(f"[bold]{found.app}[/]  [dim]{found.transactions} transactions, head {found.head[:12]}[/]")
    say.table(
        ("table", "rows", "quarantined", "repeats", "corrections", "files"),
        [
            (t.table, f"{t.accepted:,}", f"{t.quarantined:,}", f"{t.duplicates:,}", f"{t.corrections:,}", t.files)
            for t in found.tables
        ],
    )
    for file in found.changed:
        batches = ", ".join(str(batch) for batch in file.batches)
        say.line(
            f"  [yellow]changed[/] {escape(file.file)} of {escape(file.source)}, after it was ingested: batches {batches}"
        )
    _tables(found)
    for source in found.sources:
        _monitor(source)
    for model in found.models:
        _model(model)
    for each in found.erasing:
        say.line(
            f"[yellow]An erasure by {escape(each.column)} {each.op} … has not ended[/] (begun {_when(each.began)}: "
            f"{escape(each.reason)}). Run the same flyball erase again: it goes on."
        )
    journal = found.journal
    say.line(
        f"\n{journal.recorded:,} attempts to answer recorded, {journal.refused:,} refused, {journal.unknown:,} unknown"
    )
    _loop(found)
    return 0


def _then(session: Session, moment: datetime, *, as_json: bool) -> None:
    """Who answered at a time, by what had been recorded until then."""
    from flyball.release import rollout

    states = {name: rollout.at(session.facts, session.app.name, name, moment) for name in session.models}
    if as_json:
        say.result(states)
        return
    for name, state in states.items():
        beside = f", {state.candidate} on its way with {state.share:.0%} of the traffic" if state.candidate else ""
        say.line(f"{name}: {state.champion or 'nobody'} answered{beside} [dim](epoch {state.epoch})[/]")


def _model(model: ModelStatus) -> None:
    since = f" since {_when(model.since)}" if model.since else ""
    say.line(f"\n[bold]{model.model}[/]  answering: {model.champion or 'nobody'}{since} [dim]epoch {model.epoch}[/]")
    if model.paused:
        say.line(f"  [yellow]paused[/]  {escape(model.paused)}")
    way = model.candidate
    if way is not None:
        share = f" with {way.share:.0%} of the traffic" if way.share else ""
        say.line(
            f"  on its way: {way.version}, in {way.stage}{share} until {_when(way.until)} [dim](sent by {way.by})[/]"
        )
    for beside in model.shadows:
        share = f" for {beside.share:.0%} of the entities" if beside.share < 1 else ""
        say.line(
            f"  beside: {beside.version} computes{share} since {_when(beside.since)}: {escape(beside.reason)} "
            f"[dim](set by {beside.by})[/]"
        )
    for version, why in model.held.items():
        say.line(f"  [red]held[/] {escape(version)}: {escape(why)}")
    for monitor in model.monitors:
        _monitor(monitor)
    if model.training is not None:
        last = model.training
        became = last.decision or (f"failed, {last.failed}" if last.failed else "runs")
        say.line(f"  last training {_when(last.began)}: {escape(last.reason)}: [bold]{escape(became)}[/]")
    told = model.outcomes
    if told.targets:
        settled = f"{told.targets - told.void:,} settled, {told.void:,} void, {told.corrections:,} corrected"
        say.line(f"  outcomes: {settled}")
    say.table(
        ("version", "decision", "registered", "learned until"),
        [(v.version, v.decision or "not judged", v.registered[:19], v.cutoff[:19]) for v in model.versions],
    )
    if model.versions and model.versions[-1].erased:
        say.line(
            f"  [yellow]rows that {model.versions[-1].version} learned from were erased[/]: it answers as before. "
            "A retraining, or flyball apply --until TIME, makes a version without them."
        )


def _tables(found: Status) -> None:
    """How far each is believed, how far its features are behind, and what in it looks personal."""
    for belief in found.beliefs:
        _belief(belief)
    for each in found.online:
        if each.behind:
            until = f"batch {each.online}" if each.online is not None else "none of its batches"
            say.line(
                f"  [yellow]online[/] features of {escape(each.table)} hold {until}, and lack {each.behind:,} rows of "
                f"{each.batch}: flyball up APP, or flyball apply"
            )
    for name, bodies in found.waiting.items():
        if bodies:
            say.line(f"  [yellow]waiting[/] {bodies:,} pushed to {escape(name)}")
    for suspect in found.suspects:
        say.line(f"  [yellow]personal?[/] {escape(str(suspect))}")


def _belief(each: Belief) -> None:
    until = f"believed up to batch {each.until} of {each.batch}" if each.until else "not believed"
    mark = say.MARKS["fail" if each.judged is not None and each.judged.failed else "done"]
    say.line(f"  {mark} {escape(each.table)} is {until}{'  [dim]' + escape(each.why) + '[/]' if each.why else ''}")


def _monitor(each: MonitorStatus) -> None:
    found = "" if each.estimate is None else f" {each.estimate:.3g}"
    held = "" if each.threshold is None or each.estimate is None else f" against {each.threshold:.3g}"
    why = f"  [dim]{escape(each.why)}[/]" if each.why else ""
    say.line(f"  {STATES[each.state]} {escape(each.monitor)}{found}{held}, since {_when(each.since)}{why}")


def _loop(found: Status) -> None:
    """What it thought in its last pass, and whether anybody looks at all."""
    if found.silence:
        say.line(f"[yellow]{found.silence}[/]")
    looked = found.loop
    if looked is None:
        return
    say.line(
        f"[bold]loop[/]  looked at {_when(looked.at)}{', works on ' + escape(looked.working) if looked.working else ''}"
    )
    for seen in looked.models:
        soonest = f" [dim]next: {_when(seen.next)}[/]" if seen.next else ""
        say.line(f"  {seen.model}: {escape(seen.release)}; training: {escape(seen.training)}{soonest}")
    for did in looked.did:
        say.line(f"  {say.MARKS['done']} {escape(did)}")


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment is not None else "never"
