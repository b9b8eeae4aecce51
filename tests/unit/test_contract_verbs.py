"""What `contract infer` and `contract diff` write and answer where the file, or the other contract, is a nasty one."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import typer

from flyball.cli import contract_diff, contract_infer
from flyball.data.drafts import draft, infer

HEAD = "import dataframely as dy\nimport polars as pl\nimport flyball as fb\n"
CONTRACT = """
class Order(fb.Contract{more}):
    order = dy.String(primary_key=True)
    placed = fb.event_time(dy.Datetime(time_zone="UTC"))
    {columns}
"""


def code(**columns: list[object]) -> str:
    return draft.code(infer.infer(pl.LazyFrame(columns)), path="rows.parquet")


def test_a_range_of_personal_numbers_is_not_written_down() -> None:
    cards = [4111111111111111, 5500000000000004, 4012888888881881]
    text = code(id=[1, 2, 3], card=list(cards), phone=["4155550132", "4155550139", "4155550112"])
    assert "personal data (card" in text and "personal data (phone" in text
    for value in (*cards, *(f"{card:,}" for card in cards), 4155550112, "4,155,550,112"):
        assert str(value) not in text


def test_a_sign_that_nobody_sees_is_written_so_that_one_does() -> None:
    text = code(**{"id\u202e": [1, 2, 3], "v": ["a\u2066"] * 3})
    assert text.isascii() and "\\U0000202e" in text
    compile(text, "rows.py", "exec")


def test_days_and_months_that_may_be_either_stay_text() -> None:
    assert "d = dy.Date" not in code(id=[1, 2], d=["03-04-2013", "05-06-2013"])
    assert '"%m-%d-%Y"' in code(id=[1, 2], d=["03-14-2013", "05-16-2013"])


@pytest.mark.parametrize("name", ["class", "source", "fb", "_Order", "a b"])
def test_a_name_that_the_module_could_not_bear_is_refused(name: str) -> None:
    with pytest.raises(typer.BadParameter, match="no name of a class"):
        contract_infer.run(Path("rows.parquet"), name=name)


def test_a_module_is_written_to_a_python_file_of_a_folder_that_exists(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1, 2]}).write_parquet(tmp_path / "rows.parquet")
    for out in (tmp_path / "rows.txt", tmp_path / "nowhere" / "rows.py"):
        with pytest.raises(typer.BadParameter, match="no Python file in a folder"):
            contract_infer.run(tmp_path / "rows.parquet", out=out)
    assert contract_infer.run(tmp_path / "rows.parquet", out=tmp_path / "rows.py") == 0


def test_a_breaking_change_needs_a_migration_and_one_that_has_it_is_no_failure(tmp_path: Path) -> None:
    def file(name: str, columns: str, more: str = "") -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(HEAD + CONTRACT.format(more=more, columns=columns))
        return path

    old = str(file("one", "price = dy.Float64()"))
    migrate = ", version=2, migrate=lambda rows: rows.with_columns(kind=pl.lit(''))"
    assert contract_diff.run(old, file("two", "price = dy.Float64(); kind = dy.String()", migrate)) == 0
    assert contract_diff.run(old, file("bare", "price = dy.Float64(); kind = dy.String()", ", version=2")) == 3
    broken = tmp_path / "broken.py"
    broken.write_text("raise ValueError('boom')")
    with pytest.raises(typer.BadParameter, match="ValueError: boom"):
        contract_diff.run(old, broken)
