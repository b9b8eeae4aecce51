"""`flyball adopt`: put the server, the journal and the monitors around a model that somebody else trained."""

from __future__ import annotations

import keyword
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flyball._kernel.errors import FlyballError
from flyball.cli import new, options, say

if TYPE_CHECKING:
    import polars as pl

    from flyball.learn.model import Model


def run(
    file: Annotated[Path, typer.Argument(help="The model: .onnx, or .skops of scikit-learn.", metavar="FILE")],
    name: Annotated[
        str, typer.Option("--name", help="A new folder, and the name of the app; by default after the file.")
    ] = "",
    features: Annotated[
        str, typer.Option("--features", help="The columns of the model in its order: age,plan,visits.")
    ] = "",
    sample: Annotated[
        Path | None, typer.Option("--sample", help="Rows such as it was trained on: .parquet or .csv.")
    ] = None,
    outcome: Annotated[
        str, typer.Option("--outcome", help="What the model predicts; a column of the sample of this name is not read.")
    ] = "outcome",
    as_json: options.Json = False,
) -> int:
    """Write an app around a model that was trained elsewhere; no code of its file runs."""
    plain = name or re.sub(r"[^a-z0-9]+", "_", file.name.rpartition(".")[0].lower()).strip("_")
    folder = new.fresh(
        name or plain,
        "flyball adopt FILE --name my_app",
        "Choose another name; or replace the file in it, and the next flyball apply makes a version of that.",
    )
    if not outcome.isidentifier() or keyword.iskeyword(outcome) or outcome.startswith("_"):
        raise typer.BadParameter(f"{outcome!r} is no name of a column", param_hint="--outcome")
    if not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="FILE")
    from flyball.learn.export import adopted_app, adopted_look

    with say.err.status(f"looking into {escape(file.name)} …"):
        found = adopted_look.look(file.name, file.read_bytes())
        rows = _rows(sample) if sample is not None else None
        given = [each.strip() for each in features.split(",") if each.strip()]
        columns = adopted_app.columns(found, given, rows, (outcome,))
        kept = adopted_app.sampled(rows, columns) if rows is not None else None
        text = adopted_app.code(found, adopted_app.Names(folder.name, file.name, outcome), columns, kept)
        made = _written(folder, {"__init__.py": "", "app.py": text, ".gitignore": ".flyball/\n"}, file, kept)
    notes = adopted_app.told(found, columns, kept)
    if as_json:
        said = {"columns": list(columns), "answers": found.task.kind, "classes": list(found.task.classes)}
        say.result({"folder": str(folder), "files": made, "kind": found.kind, **said, "notes": notes})
        return 0
    classes = f" ({', '.join(found.task.classes)})" if found.task.classes else ""
    say.line(
        f"{say.MARKS['done']} {escape(str(folder))}: {len(columns)} columns in, {escape(found.task.kind + classes)} out"
    )
    for note in notes:
        say.line(f"  {escape(note)}")
    say.line(f"[dim]next: flyball apply {escape(str(folder))}; flyball up {escape(str(folder))}[/]")
    return 0


def _rows(path: Path) -> pl.DataFrame:
    import polars as pl

    try:
        return pl.read_csv(path, infer_schema_length=None) if path.suffix == ".csv" else pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {type(error).__name__}", param_hint="--sample") from error


def _written(folder: Path, texts: dict[str, str], file: Path, rows: pl.DataFrame | None) -> list[str]:
    """Write the folder, load the app as every verb does, and prove what it declares; nothing stays where that fails."""
    folder.mkdir(parents=True)
    try:
        for each, text in texts.items():
            (folder / each).write_text(text, encoding="utf-8")
        shutil.copyfile(file, folder / file.name)
        if rows is not None:
            rows.write_parquet(folder / "sample.parquet")
        _proven(folder)
    except (FlyballError, OSError):
        shutil.rmtree(folder)
        raise
    return sorted(each.name for each in folder.iterdir() if each.is_file())


def _proven(folder: Path) -> None:
    from flyball import app as apps
    from flyball import runtime
    from flyball.cycle import adopting

    loaded = apps.check(runtime.load(str(folder)).app)
    model: Model = loaded.model()
    adopting.tried(model)
