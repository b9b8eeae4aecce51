"""Sealing, in memory: what is judged is what was said, what lies there is not, and everything else is as if it were."""

from __future__ import annotations

from typing import Any

import dataframely as dy
import polars as pl
import pytest

import flyball as fb
from flyball import days, hours
from flyball._kernel.errors import DataError, DeclarationError
from flyball.adapters.memory.sources import MemoryReader
from flyball.adapters.memory.tables import MemoryTables
from flyball.adapters.memory.vault import MemoryVault
from flyball.data import contract, dataset, ingest, intake, quarantine, seal, source
from flyball.data.contract import Contract
from flyball.data.evolution import evolve, migrate
from flyball.data.evolution.migrate import Step
from flyball.data.ingest import Ingested
from flyball.data.seal import Seal
from flyball.data.source import LINE
from flyball.learn import model
from tests.unit.test_data_ingest import at


class Plain(Contract):
    person = fb.personal(dy.String(primary_key=True, regex=r"^p\d+$"))
    day = fb.event_time(dy.Datetime(time_zone="UTC"))
    friend = fb.personal(dy.String(nullable=True, max_length=4))
    amount = dy.Int32(min=1)


class Hash(Contract):
    person = fb.personal(dy.String(primary_key=True, regex=r"^p\d+$"), stored="hash")
    day = fb.event_time(dy.Datetime(time_zone="UTC"))
    friend = fb.personal(dy.String(nullable=True, max_length=4), stored="hash")
    amount = dy.Int32(min=1)


class Token(Contract):
    person = fb.personal(dy.String(primary_key=True, regex=r"^p\d+$"), stored="token")
    day = fb.event_time(dy.Datetime(time_zone="UTC"))
    friend = fb.personal(dy.String(nullable=True, max_length=4), stored="token")
    amount = dy.Int32(min=1)


FIRST = [("p1", 1, "p2", 5), ("p2", 1, None, 6), ("p2", 1, None, 6), ("p3", 2, "p1", 7), ("p3", 2, "p1", 8)]
FIRST += [("q4", 3, "p1", 9), ("p5", 3, "p1", 0), ("p6", 3, "too long", 1), (None, 3, "p1", 1), ("p7", 4, "p2", 2)]
LATER = [("p1", 1, "p2", 5), ("p2", 1, "p1", 6), ("p8", 5, None, 4), ("p7", 4, "p2", 3)]
"""Good rows, a repeat, a contradiction, broken ones; then a repeat, two corrections and a new row."""


class Home:
    def __init__(self, observed: type[Contract]) -> None:
        self.observed, self.tables = observed, MemoryTables()
        self.seal = Seal(b"secret", MemoryVault())
        self.source = source.files("*.csv", prepare=lambda raw: raw, yields=observed)

    def ingest(self, name: str, rows: list[tuple[Any, ...]], ragged: list[tuple[int, str]] | None = None) -> Ingested:
        cells = [(who, at(day), friend, amount, f"note on {who}") for who, day, friend, amount in rows]
        schema = {**contract.spec(self.observed).dtypes, "note": pl.String()}
        frame = pl.DataFrame(cells, schema=schema, orient="row")
        reader = MemoryReader({name: frame}, {name: ragged or []})
        (file,) = reader.files(self.source)
        sealed, opening = seal.sealing(self.seal, self.source, reader)
        return ingest.ingest(sealed, self.tables, opening, recipe="r", known_from=None, file=file).said

    def rows(self) -> pl.DataFrame:
        spec = contract.spec(self.observed)
        found = dataset.scan(self.tables, spec, self.tables.head(spec.name).batch)
        return found.select(*spec.names, "_batch").sort("amount", "_batch").collect()

    def refused(self) -> pl.DataFrame:
        name = contract.spec(self.observed).name
        return quarantine.read(self.tables, name, self.tables.head(quarantine.table(name)).batch).collect()


def told(said: Ingested) -> tuple[Any, ...]:
    counts = said.read, said.accepted, said.quarantined, said.duplicates, said.corrections
    return *counts, said.by_rule, said.ignored


@pytest.mark.parametrize("whole", [250_000, 2])
@pytest.mark.parametrize("observed", [Hash, Token])
def test_sealed_rows_are_judged_and_compared_as_plain_ones_are(
    observed: type[Contract], whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Home(Plain)
    expected = [told(plain.ingest("a.csv", FIRST)), told(plain.ingest("b.csv", LATER))]
    monkeypatch.setattr(intake, "WHOLE", whole)
    home = Home(observed)
    assert [told(home.ingest("a.csv", FIRST)), told(home.ingest("b.csv", LATER))] == expected
    assert expected[0][:5] == (10, 3, 6, 1, 0)
    assert expected[1][:5] == (4, 3, 0, 1, 2)
    how = contract.spec(observed).sealed["person"]
    said = plain.rows()
    names = said["person"].to_list() + said["friend"].drop_nulls().to_list()
    cells = dict(zip(names, home.seal.cells(how, names), strict=True))
    sealed = said.with_columns(pl.col("person", "friend").replace_strict(cells, default=None))
    assert home.rows().equals(sealed)
    everything = repr(home.rows().rows()) + repr(home.refused().rows())
    assert not [name for name in ("p1", "p2", "p3", "q4", "p5", "p6", "too long") if name in everything]
    assert len({len(cell) for cell in cells.values()}) == 1


@pytest.mark.parametrize("whole", [250_000, 2])
def test_refused_rows_keep_what_is_not_sealed_and_nothing_undeclared(
    whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "WHOLE", whole)
    home = Home(Hash)
    home.ingest("a.csv", FIRST)
    cells = home.refused()["row"].str.json_decode(
        pl.Struct({"person": pl.String, "amount": pl.Int32, "note": pl.String})
    )
    rows = cells.struct.unnest().sort("amount")
    assert rows["amount"].to_list() == [0, 1, 1, 7, 8, 9]
    assert rows["note"].null_count() == 6
    assert rows["person"].null_count() == 1
    assert rows.row(0)[0] == home.seal.cells("hash", ["p5"])[0]


def test_a_ragged_line_is_counted_and_not_repeated() -> None:
    home = Home(Hash)
    said = home.ingest("a.csv", FIRST[:2], ragged=[(9, "p1,too,many,cells"), (10, "p1,too,many,cells")])
    assert said.by_rule == {"ragged": 2}
    rows = home.refused().filter(pl.col(LINE) >= 9)
    assert rows["row"].n_unique() == 1
    assert "17 characters" in rows["row"][0]
    assert "too" not in rows["row"][0]


def test_equal_values_are_equal_in_every_table_and_secrets_tell_homes_apart() -> None:
    vault = MemoryVault()
    ours, theirs = Seal(b"ours", vault), Seal(b"theirs", vault)
    for how in ("hash", "token"):
        assert ours.cells(how, ["ada", "bob", "ada"]) == [*ours.cells(how, ["ada", "bob"]), *ours.cells(how, ["ada"])]  # type: ignore[arg-type]
        assert ours.cells(how, ["ada"]) != theirs.cells(how, ["ada"])  # type: ignore[arg-type]
    assert ours.cells("hash", ["ada"]) != ours.cells("token", ["ada"])


def test_a_forgotten_token_says_nothing_even_to_who_has_the_key() -> None:
    vault = MemoryVault()
    ours = Seal(b"ours", vault)
    before = ours.cells("token", ["ada"])
    assert ours.find("token", "ada") == before[0]
    assert vault.forget([ours.digest("token", "ada")]) == 1
    assert ours.find("token", "ada") is None
    assert ours.cells("token", ["ada"]) != before


def test_a_request_is_sealed_as_the_table_is() -> None:
    ours, spec = Seal(b"ours", MemoryVault()), contract.spec(Token)
    row = {"person": "p1", "day": at(0), "friend": None, "amount": 3}
    sealed = ours.row(spec, row)
    frame = ours.columns(pl.LazyFrame([row], schema=spec.dtypes), spec).collect()
    assert sealed == frame.row(0, named=True)
    assert sealed["person"] != "p1"
    assert sealed["friend"] is None
    assert ours.row(contract.spec(Plain), row) is row


def test_only_texts_are_sealed() -> None:
    for column, stored in ((dy.Int64(), "hash"), (dy.Enum(["a"]), "token"), (dy.String(), "hashed")):
        with pytest.raises(DeclarationError) as refused:
            fb.personal(column, stored=stored)  # type: ignore[arg-type]
        assert refused.value.code == "personal-not-text"


def _knobs(knobs: fb.Params) -> object:
    return knobs


def test_a_feature_that_could_never_find_anybody_is_refused() -> None:
    class Visit(Contract):
        visit = dy.String(primary_key=True)
        came = fb.event_time(dy.Datetime(time_zone="UTC"))
        person = fb.personal(dy.String(), stored="token")
        left = fb.outcome_time(dy.Datetime(time_zone="UTC", nullable=True))
        paid = fb.outcome(dy.Bool(nullable=True))

    def made(observed: type[Contract]) -> Any:
        found = fb.features(known=fb.latest(observed, by=(Visit.person, observed.person), max_age=days(9)))  # type: ignore[attr-defined]
        return fb.model(found, predicts=Visit.paid, asked=fb.before(Visit.came, hours(0)))(_knobs)

    for observed in (Plain, Hash):
        with pytest.raises(DeclarationError) as refused:
            model.check(made(observed))
        assert refused.value.code == "sealed-differently"
    model.check(made(Token))


class Older(Contract):
    person = fb.personal(dy.String(primary_key=True, regex=r"^p\d+$"))
    day = fb.event_time(dy.Datetime(time_zone="UTC"))
    friend = fb.personal(dy.String(nullable=True, max_length=4), stored="hash")
    amount = dy.Int32(min=1)


def newer(**columns: Any) -> type[Contract]:
    body = {
        "person": fb.personal(dy.String(primary_key=True, regex=r"^p\d+$"), stored="hash"),
        "day": fb.event_time(dy.Datetime(time_zone="UTC")),
        "friend": fb.personal(dy.String(nullable=True, max_length=4), stored="hash"),
        "amount": dy.Int32(min=1),
    }
    return type(Contract)("Older", (Contract,), {**body, **columns}, version=2, migrate=lambda rows: rows)


def carried(home: Home, observed: type[Contract]) -> Home:
    moved = Home(observed)
    moved.tables, moved.seal = home.tables, home.seal
    step = Step(evolve.shape(Older), observed, lambda rows: rows, {}, home.seal)
    migrate.migrate(home.tables, step, lambda batch, of: None)
    return moved


def test_a_migration_seals_what_was_plain_and_judges_nothing_by_a_hash() -> None:
    """`friend` holds hashes of 32 characters already, which its rule would refuse; `person` does not."""
    home = Home(Older)
    home.ingest("a.csv", FIRST)
    before = home.rows()
    after = carried(home, newer()).rows()
    people = dict(zip(before["person"], home.seal.cells("hash", before["person"].to_list()), strict=True))
    assert after.equals(before.with_columns(pl.col("person").replace_strict(people)))
    again = Home(newer())
    again.tables, again.seal = home.tables, home.seal
    assert told(again.ingest("b.csv", LATER))[:5] == (4, 3, 0, 1, 2)


def test_a_migration_never_gives_back_what_was_said() -> None:
    home = Home(Older)
    home.ingest("a.csv", FIRST)
    plain = newer(friend=fb.personal(dy.String(nullable=True, max_length=4)))
    token = newer(friend=fb.personal(dy.String(nullable=True, max_length=4), stored="token"))
    for observed in (plain, token):
        assert [c.kind for c in evolve.diff(evolve.shape(Older), evolve.shape(observed)) if c.column == "friend"] == [
            "breaking"
        ] * (1 if observed is plain else 2)
        with pytest.raises(DataError, match="give back what was said in friend"):
            carried(home, observed)


def test_a_rehearsal_seals_nothing() -> None:
    ours, spec = Seal(b"", None), contract.spec(Token)
    assert ours.row(spec, {"person": "p1", "friend": "p2"}) == {"person": "p1", "friend": "p2"}
    assert ours.find("token", "p1") == "p1"
