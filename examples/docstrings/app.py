"""Which part of scikit-learn is this docstring from?  Text, and eight classes; the texts are those of the installed package."""

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import dataframely as dy
import polars as pl
import sklearn

import flyball as fb
from flyball import accuracy, days, log_loss, metrics, minutes

WRITTEN = datetime(2024, 1, 1, tzinfo=UTC)
PARTS = [
    "cluster",
    "decomposition",
    "ensemble",
    "linear_model",
    "metrics",
    "model_selection",
    "neighbors",
    "preprocessing",
]


class Docstring(fb.Contract):
    """One docstring of a class or a function."""

    name = dy.String(primary_key=True, description="where it stands, such as sklearn/cluster/_dbscan.py:DBSCAN.fit")
    module = dy.String()
    written = fb.event_time(dy.Datetime(time_zone="UTC"))
    said = dy.String()
    settled = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
    part = fb.outcome(dy.Enum(PARTS, nullable=True))


def installed() -> Iterator[tuple[str, pl.DataFrame]]:
    """One frame for the version that is installed."""
    root = Path(sklearn.__file__).parent
    files = [file for part in PARTS for file in sorted((root / part).rglob("*.py")) if "tests" not in file.parts]
    rows = [row for file in files for row in docstrings(ast.parse(file.read_text()), file.relative_to(root).as_posix())]
    frame = pl.DataFrame(rows, schema=["name", "module", "said"], orient="row").unique("name", maintain_order=True)
    yield version("scikit-learn"), frame


def docstrings(node: ast.AST, place: str, within: str = "") -> Iterator[tuple[str, str, str]]:
    """Those of classes and functions in a module, or in what is defined there: (name, module, text)."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            name = f"{within}{child.name}"
            if text := ast.get_docstring(child):
                yield f"{place}:{name}", place, text
            yield from docstrings(child, place, f"{name}.")


def dated(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The part is the folder. A docstring's own time is not in the file, so all have one."""
    part = pl.col("module").str.split("/").list.first()
    return rows.with_columns(part=part, written=pl.lit(WRITTEN), settled=pl.lit(WRITTEN + days(1)))


features = fb.features(fb.text(Docstring.said, terms=3000))
origin = fb.auto("origin", features, predicts=Docstring.part, asked=fb.before(Docstring.written, minutes(0)))

app = fb.App(
    "docstrings",
    sources=[fb.frames(installed, prepare=dated, yields=Docstring)],
    model=origin,
    # Docstrings of one module repeat one another: a module is on one side, or the test would be learned by heart.
    search=fb.search(trials=8, optimize=log_loss, split=fb.by_group(Docstring.module), within=minutes(1)),
    gates=[accuracy >= 0.6, metrics.macro_f1 >= 0.4],
)
