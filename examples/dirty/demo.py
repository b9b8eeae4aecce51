"""`python -m examples.dirty.demo`: dirty files in, and every line accounted for. Each figure is asserted, not hoped for.

On the first day a naive preparation meets seven files. The quarantine tells what is wrong with them; a better preparation mends
what can be mended, and the same files are read again. On the second day a late file comes, one that came before, and a past
file that has changed. Then a model learns from what can be believed.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

import flyball as fb
from examples.dirty import app as dirty
from examples.dirty import first, make_files
from examples.dirty.make_files import EACH, Planted
from flyball.cycle import apply, changes, gather
from flyball.cycle.session import Session
from flyball.data import dataset, quarantine
from flyball.data.ingest import Ingested

ROOT = Path(__file__).parent / ".flyball"
say = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)


def main() -> int:
    """Tell the story; returns the exit code."""
    started = time.perf_counter()
    shutil.rmtree(ROOT, ignore_errors=True)
    inbox = ROOT / "inbox"
    planted = make_files.first_files(inbox)
    title(f"1. {len(planted.read)} files, {sum(planted.read.values()):,} lines: a naive preparation meets them")
    session = opened(first.app)
    naive(session, planted)
    show(session)
    title("2. The preparation is mended; the same files are read again")
    session = opened(dirty.app)
    mended(session, planted)
    title("3. What the better preparation does to the cells of one file, counted")
    counted(session)
    title("4. A late file, a file that came before, and a past file that changed")
    later(session, make_files.later_files(inbox))
    title("5. A model learns from what can be believed")
    learned(session)
    say.print(f"\n[bold]The whole story took {time.perf_counter() - started:.0f} s.[/]")
    return 0


def opened(app: fb.App) -> Session:
    """The app with its state beside the files."""
    return fb.open(app, fb.Placement(root=ROOT, home=ROOT / "state", key=ROOT / "key.pem"))


def naive(session: Session, planted: Planted) -> None:
    """Everything that was planted is found, by the right rule."""
    said = gathered(session)
    assert {s.file.rpartition("/")[2]: s.read for s in said} == planted.read
    assert rules(said) == planted.naive, (rules(said), planted.naive)
    assert sum(s.quarantined for s in said) == planted.naive.total()
    assert sum(s.duplicates for s in said) == planted.repeats


def mended(session: Session, planted: Planted) -> None:
    """What can be mended is accepted now, what cannot stays in quarantine, and everything else is known already."""
    said = gathered(session)
    assert sum(s.read for s in said) == sum(planted.read.values()) - planted.tests
    assert rules(said) == +planted.for_good, (rules(said), planted.for_good)
    healed = planted.naive.total() - planted.for_good.total() - planted.tests
    assert sum(s.accepted for s in said) == healed
    assert sum(s.corrections for s in said) == 0
    say.print(
        f"{healed:,} rows left the quarantine; {planted.for_good.total():,} stay, for nobody knows what they mean."
    )


def counted(session: Session) -> None:
    """Cell by cell."""
    found = changes.changes(session, "desk", ".flyball/inbox/departures-04.csv")
    table(
        ("column", *changes.KINDS, "unread", "such as"),
        [
            (c.column, *(getattr(c, k) for k in (*changes.KINDS, "unread")), example(c))
            for c in found.columns
            if c.kept < found.read
        ],
    )
    columns = {c.column: c for c in found.columns}
    assert found.matched == found.read == found.prepared
    assert (columns["origin"].mended, columns["origin"].unread) == (2 * EACH, EACH)
    assert (columns["carrier"].changed, columns["agent"].changed) == (EACH, EACH)
    assert columns["distance"].mended == found.read
    assert not columns["agent"].examples, "whose name it is stays where it is"


def example(column: changes.Cells) -> str:
    """One change, for a person."""
    shown = [f"{e.before!r} -> {e.after!r}" for e in column.examples[:1]]
    return shown[0] if shown else "(personal)" if column.personal else ""


def later(session: Session, planted: Planted) -> None:
    """Only what is new is accepted."""
    said = gathered(session)
    assert {s.file.rpartition("/")[2]: s.read for s in said} == planted.read
    assert sum(s.duplicates for s in said) == planted.repeats
    assert sum(s.corrections for s in said) == 40
    assert sum(s.quarantined for s in said) == 0


def learned(session: Session) -> None:
    """The whole loop from here on; applied twice, the second does nothing."""
    done = apply.apply(session)
    (model,) = done.models
    say.print(f"{model.version}: [bold]{model.decision}[/]")
    for verdict in model.verdicts:
        found = verdict.measurement
        assert found is not None
        say.print(
            f"  {verdict.condition}: {verdict.outcome}, {found.estimate:.3f} on {found.n:,} rows"
            f" [dim](95 % interval {found.low:.3f} to {found.high:.3f})[/]"
        )
    assert model.decision == "release", [v.measurement for v in model.verdicts]
    assert not done.ingested
    assert not apply.apply(session).ran
    rows = dataset.read(session.tables, dirty.Departure, dataset.latest(session.tables, dirty.Departure)).collect()
    say.print(f"{rows['flight_id'].n_unique():,} flights are believed, in {rows.height:,} observations.")


def gathered(session: Session) -> list[Ingested]:
    """Ingest what is new; the counts add up in every file."""
    said = gather.gather(session)
    names = ("read", "accepted", "quarantined", "duplicates")
    table(
        ("file", *names, "by rule"),
        [
            (
                s.file.rpartition("/")[2],
                *(getattr(s, name) for name in names),
                ", ".join(f"{rule} {n}" for rule, n in sorted(s.by_rule.items())),
            )
            for s in said
        ],
    )
    for each in said:
        assert each.read == each.accepted + each.quarantined + each.duplicates, each
    total = Counter({name: sum(getattr(s, name) for s in said) for name in names})
    say.print(
        f"[bold]{total['read']:,} read = {total['accepted']:,} accepted + {total['quarantined']:,} quarantined"
        f" + {total['duplicates']:,} duplicates[/]"
    )
    return said


def rules(said: Sequence[Ingested]) -> Counter[str]:
    """Rule -> rows."""
    return sum((Counter(s.by_rule) for s in said), Counter())


def show(session: Session) -> None:
    """One row of the quarantine a rule: where it stands in its file, and the cell that is wrong."""
    name = "Departure"
    rows = quarantine.read(session.tables, name, session.tables.head(name).batch).collect()
    assert rows["_line"].null_count() == 0
    first_of = rows.explode("rules").sort("rules", "_file", "_line").group_by("rules", maintain_order=True).first()
    shown = []
    for file, line, rule, row in first_of.select("_file", "_line", "rules", "row").iter_rows():
        column = rule.partition("|")[0]
        cell = pl.Series([row]).str.json_path_match(f"$.{column if '|' in rule else 'text'}").item() or row
        held = column in {"agent", "tailnum"} or "|" not in rule  # whole rows and names are nobody's business here
        shown.append((rule, file.rpartition("/")[2], line, f"({len(cell):,} characters)" if held else cell[:60]))
    table(("rule", "file", "line", "cell"), shown)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain table."""
    made = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    say.print(made)


def title(text: str) -> None:
    """A chapter begins."""
    say.print(f"\n[bold]{text}[/]")


if __name__ == "__main__":
    raise SystemExit(main())
