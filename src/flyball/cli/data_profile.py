"""`flyball data profile`: what lies in a table or a file, as a table in the terminal and as a page with plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flyball._kernel.errors import AdapterError, DataError
from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.session import Session
    from flyball.data.contract import Contract
    from flyball.data.sketches.bias import Bias, Share
    from flyball.data.sketches.sketch import Sketch
    from flyball.learn.drawing.portrait import Subject

_HEAD = ("column", "type", "missing", "distinct", "least", "5 %", "median", "95 %", "greatest", "shape", "top")


def run(
    app: Annotated[str, typer.Argument(help="The app, or a data file.", metavar="APP|FILE")],
    table: Annotated[str, typer.Argument(help="Which table; needed where the app has several.")] = "",
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="The version: batches up to this one.")] = None,
    against: Annotated[int | None, typer.Option("--against", min=1, help="Compare what came after this batch.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the page with plots here.")] = None,
    bias: Annotated[bool, typer.Option("--bias", help="How the groups of protected columns are represented.")] = False,
    version: Annotated[
        str, typer.Option("--version", help="With --bias: the data that this version was made from.")
    ] = "",
    reference: Annotated[
        Path | None, typer.Option("--reference", help='With --bias: JSON, {"sex": {"Female": 0.5}}; {} for alike.')
    ] = None,
    model: options.Model = None,
    home: options.Home = None,
    as_json: options.Json = False,
) -> int:
    """Look at a table, version by version, or at any file: missing and distinct values, quantiles, shapes, frequent values."""
    path = Path(app)
    if path.is_file() and path.suffix != ".py":
        if table or batch or against or bias or version or reference or model or home:
            raise typer.BadParameter("A file has no versions and no roles: only --html and --json go with it.")
        subject = _of_file(path)
    else:
        subject = _of_table(
            opening.session(app, home, create=False),
            table,
            (batch, against),
            (model, version, _shares(reference)) if bias or version or reference or model else None,
        )
    return _say(subject, html, as_json=as_json)


def _of_file(path: Path) -> Subject:
    from flyball._kernel.place import Place
    from flyball.adapters.embedded.sources import FileReader
    from flyball.data import source
    from flyball.data.contract import Contract
    from flyball.data.drafts import glance
    from flyball.learn.drawing.portrait import Subject

    at = source.Files(path.name)
    found = source.Source(path.name, at, lambda raw: raw, Contract, place=Place(str(path.resolve()), 0))
    reader = FileReader()
    with say.err.status("reading …"), reader.open(found, reader.files(found)[0]) as reading:
        seen = glance.glance(reading.rows)
        ragged = int(reading.ragged.select("_line").collect().height)
    over = f"{path.name} · {path.stat().st_size:,} bytes" + (f" · {ragged:,} lines are no rows" if ragged else "")
    roles = {name: f"seems {kind}" for name, kind in seen.hidden.items()}
    return Subject(title=f"What is in {path.name}", over=over, whole=seen.sketch, roles=roles)


def _of_table(
    session: Session, name: str, versions: tuple[int | None, int | None], asked: tuple[Any, ...] | None
) -> Subject:
    from flyball.cycle import profiled
    from flyball.data import contract
    from flyball.learn.drawing.portrait import Subject

    chosen = session.app.model(asked[0]) if asked is not None else None
    table = chosen.question if chosen is not None and not name else _table(session, name)
    spec = contract.spec(table)
    upto, since = versions
    with opening.progress() as tell:
        parts = profiled.parts(session, table, upto, tell)
    whole = profiled.merged(parts, table)
    last = upto or (parts[-1].batch if parts else 0)
    early, late = [p for p in parts if p.batch <= (since or 0)], [p for p in parts if p.batch > (since or 0)]
    before = (f"batches up to {since}", profiled.merged(early, table)) if since else None
    after = (f"batches {since + 1} to {last}", profiled.merged(late, table)) if since else None
    biases = profiled.biased(session, chosen, asked[1], asked[2]) if chosen is not None and asked is not None else ()
    if chosen is not None and asked is not None:
        _compare(chosen.question, {b.column for b in biases}, asked[2] or {})
    taken = f"the data that {asked[1]} was made from" if asked is not None and asked[1] else "all that is known now"
    return Subject(
        title=f"What is in {spec.name}",
        over=f"{session.app.name} · {spec.name} · version {last} · every observation, corrected ones included",
        whole=whole,
        roles=_roles(spec),
        about=spec.event_time,
        parts={f"batch {p.batch}": p.sketch for p in parts},
        before=before,
        since=after,
        biases=biases,
        biased=f"Protected columns of {chosen.question.__name__}, in {taken}, one row a key." if chosen else "",
    )


def _compare(table: type[Contract], told: set[str], reference: dict[str, dict[str, float]]) -> None:
    """Say it where no group is told, and refuse shares of what is not."""
    if unknown := sorted(reference.keys() - told):
        raise DataError(
            "reference-not-understood",
            f"--reference has shares of {unknown[0]!r:.60}, whose groups are not told.",
            why=f"Groups are told of {', '.join(sorted(told)) or 'none'}: protected columns of {table.__name__}, not personal.",
            next="Mend the file.",
        )
    if not told:
        say.err.print(f"{table.__name__} has no protected column that is not personal too: no groups to tell.")


def _table(session: Session, name: str) -> type[Contract]:
    from flyball.cycle import quarantined
    from flyball.data import contract

    found = quarantined.tables(session, name or None)
    if len(found) > 1:
        raise DataError(
            "no-such-table",
            "Which table?",
            where=session.app.place,
            why=f"The app has {', '.join(contract.spec(t).name for t in found)}.",
            next="Name one of them.",
        )
    return found[0]


def _roles(spec: Any) -> dict[str, str]:
    from flyball.data import contract

    said = {
        "key": spec.key,
        "event time": (spec.event_time,),
        "outcome time": (spec.outcome_time,) if spec.outcome_time else (),
        "outcome": spec.outcomes,
        "protected": spec.with_role(contract.Protected),
        "personal": spec.with_role(contract.Personal),
    }
    names = {name for columns in said.values() for name in columns}
    return {name: ", ".join(role for role, columns in said.items() if name in columns) for name in names}


def _shares(path: Path | None) -> dict[str, dict[str, float]] | None:
    import msgspec

    if path is None:
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, float]])
    except (OSError, msgspec.MsgspecError) as problem:
        raise DataError(
            "reference-not-understood",
            f"{path.name} cannot be read as shares of groups: {problem}",
            why='It is JSON: column -> group -> share, such as {"sex": {"Female": 0.5, "Male": 0.5}}.',
            next="Mend the file.",
        ) from problem


def _say(subject: Subject, html: Path | None, *, as_json: bool) -> int:
    from flyball.data.sketches import shape, sketch

    if html is not None:
        from flyball.learn.drawing import portrait

        with say.err.status("drawing …"):
            page = portrait.render(subject)
        try:
            html.write_text(page, encoding="utf-8")
        except OSError as problem:
            raise AdapterError(
                "page-not-written",
                f"{html} cannot be written: {problem.strerror}",
                next="Name a file in a folder that is there, and that you may write to.",
            ) from problem
    if as_json:
        said = {"title": subject.title, "rows": subject.whole.rows, "bias": list(subject.biases)}
        compared = _apart(subject.before[1], subject.since[1]) if subject.before and subject.since else {}
        say.result(said | {"columns": [shape.line(c) for c in subject.whole.columns], "apart": compared})
        return 0
    say.line(f"[bold]{escape(subject.title)}[/]  [dim]{subject.whole.rows:,} rows · {escape(subject.over)}[/]")
    say.table(_HEAD, [_row(c) for c in subject.whole.columns])
    if subject.before and subject.since:
        say.line(f"\n[bold]{escape(subject.since[0])} against {escape(subject.before[0])}[/]")
        far = sorted(_apart(subject.before[1], subject.since[1]).items(), key=lambda each: -each[1])
        gone = [sketch.nulls(x[1]) for x in (subject.before, subject.since)]
        say.table(
            ("column", "apart", "missing"), [(n, f"{x:.3f}", f"{gone[0][n]:.1%} → {gone[1][n]:.1%}") for n, x in far]
        )
    for each in subject.biases:
        _bias(each)
    if html is not None:
        say.line(f"[dim]page: {escape(str(html))}[/]")
    return 0


def _row(column: Any) -> tuple[str, ...]:
    from flyball.data.sketches import shape

    each = shape.line(column)
    missing = f"{each.nulls / each.rows:.1%}" if each.nulls else ""
    many = "" if each.distinct is None else f"{'' if each.distinct_is_exact else '≈'}{each.distinct:,}"
    best = ", ".join(f"{_short(value)} {n / max(1, each.rows - each.nulls):.0%}" for value, n in each.top[:2])
    marks = (each.low, each.p5, each.p50, each.p95, each.high) if column.kind not in ("text", "truth") else ("",) * 5
    return (
        _short(each.name, 30),
        _short(each.type),
        missing,
        many,
        *marks,
        shape.blocks(shape.shape(column, 12)),
        best,
    )


def _short(text: str, most: int = 18) -> str:
    plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def _apart(before: Sketch, since: Sketch) -> dict[str, float]:
    from flyball.data.sketches import shape

    pairs = [(a, b) for b in since.columns if b.kind != "time" and (a := before.column(b.name)) is not None]
    return {a.name: far for a, b in pairs if (far := shape.apart(a, b)) is not None}


def _bias(each: Bias) -> None:
    rate = f"  [dim]{escape(each.label)} in {each.rate.estimate:.1%} of all[/]" if each.rate else ""
    say.line(f"\n[bold]{escape(each.column)}[/]{rate}")
    rows = [
        (
            g.name,
            f"{g.rows:,}",
            _interval(g.share),
            "" if g.reference is None else f"{g.reference:.1%}",
            _interval(g.rate) + (" few rows" if g.weak else ""),
            "" if g.apart is None else f"{g.apart.estimate:+.3f} ({g.apart.low:+.3f} to {g.apart.high:+.3f})",
        )
        for g in each.groups
    ]
    say.table(("group", "rows", "share of rows", "reference", "label rate", "difference to all others"), rows)


def _interval(share: Share | None) -> str:
    return "" if share is None else f"{share.estimate:.1%} ({100 * share.low:.1f} to {100 * share.high:.1f})"
