"""Queries as sources: on SQLite, and on a real PostgreSQL that these tests start."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from flyball._kernel.errors import AdapterError, DataError, DeclarationError, FlyballError, RetryableError
from flyball.adapters.embedded import sql
from flyball.adapters.embedded.sql import SqlReader
from flyball.checks.sources import Reported
from flyball.data import kinds
from flyball.data.source import LINE, RULE, TEXT, File, Source
from tests import postgres

Run = Callable[..., None]


def as_it_is(raw: pl.LazyFrame) -> pl.LazyFrame:
    return raw


def declare(query: str, **said: Any) -> Source:
    return kinds.sql(query, database="shop", prepare=as_it_is, yields=Reported, **said)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.started() as url:
        yield url


@pytest.fixture
def pg(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs statements, each in a transaction of its own; the schema is new for each test."""
    monkeypatch.setenv("FLYBALL_DATABASE_SHOP", server)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop")
        yield lambda text, *values: connection.execute(text, values or None) and None


@pytest.fixture
def lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("FLYBALL_DATABASE_SHOP", f"sqlite:///{tmp_path / 'shop.sqlite'}")
    with closing(sqlite3.connect(tmp_path / "shop.sqlite", isolation_level=None)) as connection:
        yield lambda text, *values: connection.execute(text, values) and None


def read(source: Source, file: File) -> tuple[pl.DataFrame, pl.DataFrame]:
    with SqlReader().open(source, file) as reading:
        return reading.rows.collect(), reading.ragged.collect()


class Passes:
    """Applies, one after the other: each reads what is new, and remembers the name of the last."""

    def __init__(self, source: Source) -> None:
        self.source, self.since = source, None
        self.names: list[str] = []

    def next(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for file in SqlReader().files(self.source, self.since):
            rows += read(self.source, file)[0].drop(LINE).rows()
            self.since = file.name  # type: ignore[assignment]
            self.names.append(file.name)
        return rows


@pytest.fixture(params=["pg", "lite"])
def run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue(request.param)
    found("CREATE TABLE orders (id integer, at text)")
    return found


def test_each_slice_goes_on_where_the_last_one_ended(run: Run) -> None:
    passes = Passes(declare("SELECT id, at FROM orders WHERE at LIKE '%a%' -- :x and ?", cursor="id"))
    assert passes.next() == []
    run("INSERT INTO orders VALUES (2, 'a'), (1, 'a'), (3, 'b')")
    assert passes.next() == [("1", "a"), ("2", "a")]
    assert passes.next() == []
    run("INSERT INTO orders VALUES (10, 'a'), (9, 'xa'), (8, '100% a')")
    assert passes.next() == [("8", "100% a"), ("9", "xa"), ("10", "a")]
    assert re.fullmatch(r'"?2"? < id <= "?10"?', passes.names[-1])


def test_what_is_written_meanwhile_belongs_to_the_next_slice(run: Run) -> None:
    run("INSERT INTO orders VALUES (1, 'a')")
    source = declare("SELECT * FROM orders", cursor="id")
    (first,) = SqlReader().files(source)
    run("INSERT INTO orders VALUES (2, 'late'), (1, 'tie')")
    assert sorted(read(source, first)[0].drop(LINE).rows()) == [("1", "a"), ("1", "tie")]
    (second,) = SqlReader().files(source, first.name)
    assert read(source, second)[0].drop(LINE).rows() == [("2", "late")]
    assert second.digest != first.digest
    assert SqlReader().files(source)[0].name != first.name


def test_a_lag_reads_again_what_may_have_been_committed_late(run: Run) -> None:
    passes = Passes(declare("SELECT * FROM orders", cursor="at", lag=timedelta(minutes=5)))
    run("INSERT INTO orders VALUES (1, '2026-01-01 00:00:00'), (2, '2026-01-01 01:00:00')")
    assert len(passes.next()) == 2
    run("INSERT INTO orders VALUES (3, '2026-01-01 00:56:00'), (4, '2026-01-01 00:54:00'), (5, '2026-01-01 01:01:00')")
    assert [row[0] for row in passes.next()] == ["3", "2", "5"]  # and 4 was later than the lag says that a row may be
    numbers = Passes(declare("SELECT * FROM orders", cursor="id", lag=2))
    assert len(numbers.next()) == 5
    run("INSERT INTO orders VALUES (6, 'x')")
    assert [row[0] for row in numbers.next()] == ["4", "5", "6"]


def test_rows_without_a_cursor_are_told_once_for_each_number_of_them(run: Run) -> None:
    source = declare("SELECT * FROM orders", cursor="at")
    run("INSERT INTO orders VALUES (1, 'a'), (2, NULL)")
    (first,) = SqlReader().files(source)
    rows, without = read(source, first)
    assert rows["id"].to_list() == ["1"]
    assert without.select(TEXT, RULE).rows() == [('{"id":"2","at":null}', "cursor")]
    run("INSERT INTO orders VALUES (3, 'b')")
    (second,) = SqlReader().files(source, first.name)
    assert second.name.endswith("; still 1 null")
    assert read(source, second)[1].is_empty()
    run("INSERT INTO orders VALUES (4, NULL)")
    (third,) = SqlReader().files(source, second.name)
    rows, without = read(source, third)
    assert (len(rows), len(without)) == (0, 2)
    assert SqlReader().files(source, third.name) == ()


def test_without_a_cursor_all_rows_are_one_file_told_by_its_content(run: Run) -> None:
    source = declare("SELECT * FROM orders ORDER BY at DESC")
    run("INSERT INTO orders VALUES (1, 'a'), (2, NULL)")
    (before,) = SqlReader().files(source)
    assert sorted(read(source, before)[0].drop(LINE).rows()) == [("1", "a"), ("2", None)]
    run("UPDATE orders SET at = 'z' WHERE id = 1")
    (changed,) = SqlReader().files(source)
    assert changed.name == before.name and changed.digest != before.digest
    with pytest.raises(DataError, match="changed") as refused:
        read(source, before)
    assert refused.value.code == "file-changed"
    run("UPDATE orders SET at = 'a' WHERE id = 1")
    assert SqlReader().files(source) == (before,)


def test_a_slice_in_many_parts_is_one_slice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "_ROWS", 100)
    monkeypatch.setattr(sql, "_FETCH", 70)
    for start in range(0, 1000, 250):
        run(f"INSERT INTO orders VALUES {', '.join(f'({n}, null)' for n in range(start, start + 250))}")
    source = declare("SELECT * FROM orders", cursor="id")
    (file,) = SqlReader().files(source)
    rows, _ = read(source, file)
    assert rows["id"].to_list() == [str(n) for n in range(1000)]
    assert rows[LINE].to_list() == list(range(1, 1001))


def test_a_cursor_is_never_a_part_of_the_query(run: Run) -> None:
    run("CREATE TABLE kept (id integer)")
    run("INSERT INTO orders VALUES (1, 'a''); DROP TABLE kept; --'), (2, 'z \" < at <= \"')")
    passes = Passes(declare("SELECT * FROM orders", cursor="at"))
    assert len(passes.next()) == 2
    run("INSERT INTO orders VALUES (3, 'zz')")
    assert passes.next() == [("3", "zz")]
    run("INSERT INTO kept VALUES (1)")


TYPES = {
    "1::smallint": "1",
    "9223372036854775807::bigint": "9223372036854775807",
    "12345678901234567890.123456789::numeric": "12345678901234567890.123456789",
    "'NaN'::float8": "NaN",
    "0.1::float8": "0.1",
    "'-Infinity'::float8": "-Infinity",
    "true": "true",
    "false": "false",
    "'2026-03-29 02:30:00+02'::timestamptz": "2026-03-29T00:30:00Z",
    "'2026-01-01 00:00:00.123456+00'::timestamptz": "2026-01-01T00:00:00.123456Z",
    "'2026-01-01 00:00:00'::timestamp": "2026-01-01 00:00:00",
    "'infinity'::timestamptz": "infinity",
    "'-infinity'::date": "-infinity",
    "'0044-03-15 BC'::date": "0044-03-15 BC",
    "'24:00'::time": "24:00:00",
    "'{\"a\": [1, null]}'::jsonb": '{"a": [1, null]}',
    "ARRAY[1, NULL, 3]": "{1,NULL,3}",
    "'\\x00ff'::bytea": "\\x00ff",
    "'0191e9a0-0000-7000-8000-000000000000'::uuid": "0191e9a0-0000-7000-8000-000000000000",
    "'P1DT2H'::interval": "P1DT2H",
    "'caf\u00e9 \u4e2d'::text": "caf\u00e9 \u4e2d",
    "''::text": "",
    "NULL::int": None,
    "'a%b :c ?'": "a%b :c ?",
}


def test_values_of_postgresql_are_kept_as_it_writes_them(pg: Run) -> None:
    source = declare("SELECT " + ", ".join(f"{value} AS c{n}" for n, value in enumerate(TYPES)))
    (file,) = SqlReader().files(source)
    rows, _ = read(source, file)
    assert dict(zip(TYPES, rows.drop(LINE).row(0), strict=True)) == TYPES


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("timestamptz", "2026-01-01 00:00:00+00", "2026-01-01 00:00:00.000001+00"),
        ("timestamp", "2026-01-01 00:00:00", "2026-01-02 00:00:00"),
        ("date", "2025-12-31", "2026-01-01"),
        ("uuid", "0191e9a0-0000-7000-8000-000000000000", "0191e9a0-0000-7000-8000-000000000001"),
        ("numeric", "9.5", "10"),
        ("bigint", "9", "10"),
    ],
)
def test_cursors_of_postgresql(pg: Run, kind: str, first: str, second: str) -> None:
    pg(f"CREATE TABLE shop.orders (seen {kind})")
    passes = Passes(declare("SELECT * FROM shop.orders", cursor="seen"))
    pg(f"INSERT INTO shop.orders VALUES ('{first}')")
    assert len(passes.next()) == 1
    pg(f"INSERT INTO shop.orders VALUES ('{second}')")
    assert len(passes.next()) == 1
    assert passes.next() == []


@pytest.mark.parametrize(("lag", "found"), [(None, []), (timedelta(hours=1), ["slow"])])
def test_a_transaction_that_commits_late_is_found_by_a_lag(
    pg: Run, server: str, lag: timedelta | None, found: list[str]
) -> None:
    pg("CREATE TABLE shop.orders (id text, seen timestamptz DEFAULT clock_timestamp())")
    passes = Passes(declare("SELECT id, seen FROM shop.orders", cursor="seen", lag=lag))
    with psycopg.connect(server) as slow:
        slow.execute("INSERT INTO shop.orders VALUES ('slow')")
        pg("INSERT INTO shop.orders VALUES ('quick')")
        assert [row[0] for row in passes.next()] == ["quick"]
        slow.commit()
    assert passes.next() == []  # it lies behind the cursor
    pg("INSERT INTO shop.orders VALUES ('next')")
    assert [row[0] for row in passes.next() if row[0] == "slow"] == found


def test_values_of_sqlite_are_text(lite: Run) -> None:
    source = declare("SELECT 1 AS a, 1.5 AS b, x'00ff' AS c, NULL AS d, 'x' AS e, 9223372036854775807 AS f")
    (file,) = SqlReader().files(source)
    assert read(source, file)[0].drop(LINE).row(0) == ("1", "1.5", "\\x00ff", None, "x", "9223372036854775807")


def test_a_source_cannot_write(pg: Run) -> None:
    pg("CREATE TABLE shop.orders (id int)")
    with pytest.raises(FlyballError) as refused:
        SqlReader().files(declare("WITH gone AS (INSERT INTO shop.orders VALUES (1) RETURNING id) SELECT * FROM gone"))
    assert refused.value.code in ("query-wrong", "database-refused")


def told(problem: BaseException) -> str:
    """All that a log could show of an error."""
    chain = [problem]
    while (problem := problem.__cause__ or (None if problem.__suppress_context__ else problem.__context__)) is not None:  # type: ignore[assignment]
        chain.append(problem)
    return " ".join(f"{each!r} {each}" for each in chain)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("postgresql://shop:s3cret@/postgres?host=HOST", "database-unreachable"),
        ("postgresql://shop:s3cret@127.0.0.1:1/postgres", "database-unreachable"),
        ("mysql://shop:s3cret@127.0.0.1/shop", "database-url"),
        ("s3cret", "database-url"),
        ("sqlite:////nowhere/s3cret.sqlite", "database-refused"),
        ("env:NO_SUCH_VARIABLE", "database-unknown"),
        ("file:/nowhere/at/all", "database-unknown"),
    ],
)
def test_no_error_shows_how_to_get_in(server: str, url: str, code: str) -> None:
    source = declare("SELECT 1 AS id")
    reader = SqlReader({"shop": url.replace("HOST", server.partition("host=")[2])})
    with pytest.raises(FlyballError) as refused:
        reader.files(source)
    assert refused.value.code == code
    assert refused.value.where == source.place
    assert "s3cret" not in told(refused.value)
    assert isinstance(refused.value, AdapterError)  # other sources do not wait for this one


def test_a_secret_may_lie_in_a_file(server: str, tmp_path: Path) -> None:
    (tmp_path / "shop").write_text(f"{server}\n")
    (file,) = SqlReader({"shop": f"file:{tmp_path / 'shop'}"}).files(declare("SELECT 1 AS id"))
    assert file.name == "all rows"


def test_errors_of_the_database_name_no_row(pg: Run) -> None:
    pg("CREATE TABLE shop.people (name text)")
    pg("INSERT INTO shop.people VALUES ('Ada Lovelace')")
    with pytest.raises(AdapterError) as refused:
        SqlReader().files(declare("SELECT name::int AS id FROM shop.people"))
    assert refused.value.code == "database-refused" and "Lovelace" not in told(refused.value)
    with pytest.raises(AdapterError, match="nowhere") as wrong:
        SqlReader().files(declare("SELECT * FROM shop.nowhere"))
    assert wrong.value.code == "query-wrong"


def test_a_column_is_there_once(run: Run) -> None:
    with pytest.raises(DeclarationError, match="query-columns-repeat"):
        SqlReader().files(declare("SELECT 1 AS a, 2 AS _line"))


def test_a_cursor_that_is_always_null_is_said(run: Run) -> None:
    run("INSERT INTO orders VALUES (1, NULL)")
    with pytest.raises(DataError, match="cursor-always-null"):
        SqlReader().files(declare("SELECT * FROM orders", cursor="at"))


def test_a_lag_has_the_measure_of_its_cursor(run: Run) -> None:
    run("INSERT INTO orders VALUES (1, 'a')")
    source = declare("SELECT * FROM orders", cursor="at", lag=1)
    (file,) = SqlReader().files(source)
    run("INSERT INTO orders VALUES (1, 'b')")
    with pytest.raises(DeclarationError, match="lag-without-measure"):
        SqlReader().files(source, file.name)


@pytest.mark.parametrize(
    ("query", "said", "code"),
    [
        ("DELETE FROM orders", {}, "query-not-usable"),
        ("SELECT 1", {"lag": 1}, "lag-not-usable"),
        ("SELECT 1", {"lag": timedelta(0), "cursor": "id"}, "lag-not-usable"),
    ],
)
def test_declarations_that_cannot_be(query: str, said: dict[str, Any], code: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        declare(query, **said)
    assert refused.value.code == code


def test_a_database_is_a_name() -> None:
    with pytest.raises(DeclarationError, match="database-not-named") as refused:
        kinds.sql("SELECT 1", database="postgresql://me:s3cret@host/x", prepare=as_it_is, yields=Reported)
    assert "s3cret" not in str(refused.value)


def test_a_server_that_stops_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres.started() as url:
        reader, source = SqlReader({"shop": url}), declare("SELECT 1 AS id")
        assert len(reader.files(source)) == 1
    with pytest.raises(RetryableError):
        reader.files(source)


def test_where_there_is_no_postgresql_it_is_said_loudly() -> None:
    with pytest.raises(pytest.skip.Exception, match="NO POSTGRESQL HERE"):
        postgres.server_binaries(None)


def test_a_cursor_of_sqlite_may_be_a_fraction(lite: Run) -> None:
    lite("CREATE TABLE seen (at real)")
    lite("INSERT INTO seen VALUES (1.5), (2.25e-7)")
    passes = Passes(declare("SELECT * FROM seen", cursor="at"))
    assert passes.next() == [("2.25e-07",), ("1.5",)]
    lite("INSERT INTO seen VALUES (1e300), (9e999)")
    assert passes.next() == [("1e+300",), ("inf",)]
    assert passes.next() == []


def test_a_cursor_of_bytes_is_said(lite: Run) -> None:
    lite("CREATE TABLE seen (at blob)")
    lite("INSERT INTO seen VALUES (x'00ff')")
    with pytest.raises(DeclarationError, match="cursor-not-usable"):
        SqlReader().files(declare("SELECT * FROM seen", cursor="at"))


def test_a_cursor_that_is_no_column_is_said(run: Run) -> None:
    """SQLite would take its quoted name for a text: read all once, and never again."""
    run("INSERT INTO orders VALUES (1, 'a')")
    with pytest.raises(AdapterError, match="query-wrong"):
        SqlReader().files(declare("SELECT * FROM orders", cursor="moved_at"))


def test_text_of_sqlite_that_is_no_utf8_keeps_no_other_row(lite: Run) -> None:
    lite("CREATE TABLE seen (id integer, name text)")
    lite("INSERT INTO seen VALUES (1, cast(x'ff41' as text)), (2, 'é')")
    assert Passes(declare("SELECT * FROM seen", cursor="id")).next() == [("1", "\\xffA"), ("2", "é")]
