"""`flyball contract diff`: what changed in a contract, for whom; exit code 3 where it breaks and nothing migrates."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyball._kernel.errors import bounded
from flyball.cli import opening, options, say

if TYPE_CHECKING:
    from flyball.cycle.contracts import Compared
    from flyball.data.contract import Contract

_MARKS = {"compatible": "[green]compatible[/]", "narrowing": "[yellow]narrowing[/]", "breaking": "[red]breaking[/]"}


def run(
    app: options.App,
    new: Annotated[
        Path | None,
        typer.Argument(help="Compare the contracts of two Python files, APP being the old one.", metavar="NEW"),
    ] = None,
    table: Annotated[str, typer.Option("--table", help="Only this contract.")] = "",
    home: options.Home = None,
    as_json: options.Json = False,
) -> int:
    """Declared beside recorded, or one file beside another: what is compatible, and what breaks."""
    found = _files(Path(app), new) if new is not None else _recorded(app, home)
    if table:
        found = [each for each in found if each.contract == table]
        if not found:
            raise typer.BadParameter(f"no contract is called {table!r}", param_hint="--table")
    if as_json:
        say.result({"contracts": found, "breaks": any(each.breaking for each in found)})
    else:
        for each in found:
            _tell(each)
    return 3 if any(each.breaking and not each.declared for each in found) else 0


def _recorded(app: str, home: Path | None) -> list[Compared]:
    from flyball.cycle import contracts

    session = opening.session(app, home, create=False)
    return [contracts.compare(session, observed) for observed in session.app.tables()]


def _files(old: Path, new: Path) -> list[Compared]:
    from flyball.cycle.contracts import Compared
    from flyball.data.evolution import evolve

    before, after = _contracts(old, "old"), _contracts(new, "new")
    found = []
    for name in sorted(before.keys() & after.keys()):
        was, now = evolve.shape(before[name]), evolve.shape(after[name])
        found.append(
            Compared(
                contract=name,
                version=now.version,
                since=was.version,
                changes=evolve.diff(was, now),
                migrates=0,
                declared=was.version in after[name].__flyball_migrate__,
                new=was.version != now.version,
            )
        )
    return found


def _contracts(path: Path, alias: str) -> dict[str, type[Contract]]:
    """The contracts that a Python file defines, by name; the file is imported under a name of its own."""
    from flyball.data.contract import Contract

    if not path.is_file() or path.suffix != ".py":
        raise typer.BadParameter(f"{path} is no Python file")
    folder, parents = path.resolve().parent, list[str]()
    while (folder / "__init__.py").is_file():
        parents.insert(0, folder.name)
        folder = folder.parent
    name = ".".join([*parents, f"_{alias}_{path.stem}"])
    present = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        if parents:
            importlib.import_module(".".join(parents))
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        assert spec is not None  # noqa: S101 - a .py file has a loader
        assert spec.loader is not None  # noqa: S101
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as problem:  # the file is the user's code: whatever it raises, it is told where
            raise typer.BadParameter(
                f"{path} cannot be imported: {type(problem).__name__}: {bounded(str(problem), 300)}"
            ) from problem
    finally:
        sys.path.remove(str(folder))
        # The other file may have neighbours of the same names.
        top = parents[0] if parents else name
        near = {f.stem for f in folder.glob("*.py")}
        for loaded in set(sys.modules) - present:
            if loaded.partition(".")[0] in {top, *near}:
                del sys.modules[loaded]
    values = vars(module).values()
    kinds = [v for v in values if isinstance(v, type) and issubclass(v, Contract) and v is not Contract]
    return {kind.__name__: kind for kind in kinds}


def _tell(found: Compared) -> None:
    versions = (
        f"version {found.since} -> {found.version}" if found.since != found.version else f"version {found.version}"
    )
    if not found.since:
        say.line(f"[bold]{found.contract}[/]  [dim]not recorded yet: no apply has stored rows under it[/]")
        return
    say.line(f"[bold]{found.contract}[/]  [dim]{versions}{'' if found.changes else ', unchanged'}[/]")
    for change in found.changes:
        say.out.print(f"  {_MARKS[change.kind]:<12} ", end="")
        whom = f" (for {', '.join(change.whom)})" if change.whom and change.kind != "compatible" else ""
        say.out.print(f"{change.column}: {change.what}; {change.why}{whom}", markup=False)
    if found.declared:
        many = (
            f"{found.migrates:,} stored batch{'es' if found.migrates > 1 else ''}" if found.migrates else "stored rows"
        )
        say.line(f"  [dim]an apply carries {many} over by the declared migration[/]")
    elif found.migrates:
        say.line(f"  [red]no migration from version {found.since} is declared[/], so an apply refuses it")
