"""`flyball explain`: what made one answer what it was, or what a version makes of its features as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.explain import Explained
    from flyball.learn.explain.explanation import Explanation

PARTS = 15
"""Features that are shown; `--json` has all of them."""


def run(
    app: options.App,
    prediction: Annotated[
        str | None, typer.Argument(help="The prediction id, as the server returned it.", metavar="[PREDICTION]")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="Explain this version as a whole, such as lateness-2.")
    ] = None,
    nearest: Annotated[int, typer.Option("--nearest", min=0, max=100, help="Nearest training rows to name.")] = 5,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show what came of the nearest training rows.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="With --version: write the charts as a page.", metavar="FILE.html")
    ] = None,
    home: options.Home = None,
    clock: options.ClockFile = None,
    as_json: options.Json = False,
) -> int:
    """Which features made an answer what it is, and which training rows are like it; or a version as a whole."""
    from flyball.cycle import explain

    if (prediction is None) == (version is None):
        raise typer.BadParameter("name a prediction, or a version with --version", param_hint="PREDICTION")
    if plot is not None and version is None:
        raise typer.BadParameter("charts are of a version: add --version", param_hint="--plot")
    session = opening.session(app, home, clock, create=False)
    if prediction is not None:
        found = explain.explain(session, prediction, nearest=nearest, reveal=reveal)
        if as_json:
            say.result(found)
        else:
            _answer(found, reveal=reveal)
        return 0
    assert version is not None  # noqa: S101 - one of the two was given
    with opening.progress() as tell:
        whole = explain.of_version(session, version, tell)
    if plot is not None:
        from flyball.learn.explain import pictures

        plot.write_text(pictures.html(whole, version))
    if as_json:
        say.result(whole)
    else:
        _version(whole, version)
        if plot is not None:
            say.line(f"[dim]written: {escape(str(plot))}[/]")
    return 0


def _answer(found: Explained, *, reveal: bool) -> None:
    output = "no answer" if found.output is None else f"{found.output:.6g}"
    decided = f", decided {found.decision}" if found.decision is not None else ""
    say.line(f"[bold]{output}[/]{escape(decided)}  from {found.version} [dim]as {found.role}, asked {found.asked}[/]")
    if found.outputs:
        say.line(f"[dim]{escape(', '.join(f'{name}: {p:.4g}' for name, p in found.outputs.items()))}[/]")
    if found.method:
        sure = "exact" if found.method != "sampled" else "sampled, ± one standard error"
        of = f" of {escape(found.of)}" if found.of else ""
        before = ", before calibration" if found.calibrated else ""
        say.line(f"score{of}, {found.unit}{before}: {found.score:+.4g} = {found.base:+.4g} + what follows ({sure})")
        say.line()
        rows = [
            (p.feature, ", ".join(_value(v) for v in p.values.values()), _signed(p.contribution, p.error))
            for p in found.parts[:PARTS]
        ]
        rest = found.parts[PARTS:]
        if rest:
            rows.append((f"{len(rest)} more", "", _signed(sum(p.contribution for p in rest), 0.0)))
        say.table(("feature", "value as known when asked", "contribution"), rows)
    if found.nearest:
        say.line()
        head = ("nearest training rows, by key", "asked", "distance", *(("outcome",) if reveal else ()))
        say.table(
            head,
            [
                (_key(n.key), n.asked, f"{n.distance:.3f}", *((_value(n.outcome),) if reveal else ()))
                for n in found.nearest
            ],
        )
    for why in found.why:
        say.line(f"[yellow]{escape(why)}[/]")


def _version(found: Explanation, version: str) -> None:
    from flyball.learn.explain import explanation

    say.line(f"[bold]{version}[/]  {escape(found.family)}")
    say.line(f"[dim]{escape(explanation.told(found))}[/]")
    follows = {None: "", 1.0: "rises with it", -1.0: "falls with it"}
    rows = []
    for f in found.features[:PARTS]:
        s = max(f.shares, key=lambda share: share.size.estimate)
        sign = None if s.follows is None or abs(s.follows) < 0.5 else 1.0 if s.follows > 0 else -1.0
        worth = "-" if f.worth is None else f"{f.worth.estimate:+.4f} ({f.worth.low:+.4f} to {f.worth.high:+.4f})"
        size = f"{s.size.estimate:.4g} ({s.size.low:.4g} to {s.size.high:.4g})"
        rows.append((f.name, s.output, size, follows[sign], worth))
    say.table(("feature", "of", "mean |contribution|, 95 %", "", f"worth ({found.metric}), 95 %"), rows)
    more = len(found.features) - len(rows) + found.left_out
    if more:
        say.line(f"[dim]and {more} more[/]")
    for said in (*explanation.costs(found), *found.why):
        say.line(escape(said))


def _value(value: object) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _key(key: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in key.items())


def _signed(contribution: float, error: float) -> str:
    return f"{contribution:+.4f}" + (f" ± {error:.4f}" if error else "")
