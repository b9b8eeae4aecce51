"""Erasures in memory: what a condition means, what is asked of the loop, and what stays out afterwards."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import dataframely as dy
import msgspec
import polars as pl
import pytest

import flyball as fb
from flyball._kernel import facts
from flyball._kernel.errors import DataError, StateError
from flyball.adapters.embedded.pushed import PushReader
from flyball.adapters.memory.inbox import MemoryInbox
from flyball.adapters.memory.tables import MemoryTables
from flyball.cycle import apply, erase, erasures, gather, retrain, status, subject, suppress, tested
from flyball.cycle.session import Session
from flyball.data import contract, dataset, kinds, quarantine, where, withdrawal
from flyball.data.source import TEXT, Retold
from flyball.data.tables import KNOWN
from flyball.serve.ingest import Body
from flyball.serve.outcomes import New
from tests import loops
from tests.loops import START, World

ONE = "order_id = 'h100'"


@pytest.fixture(scope="module")
def begun() -> World:
    world = World()
    apply.apply(world.session(), until=START)
    return world


@pytest.fixture
def world(begun: World) -> World:
    return begun.copy()


@pytest.fixture
def session(world: World) -> Session:
    return world.session()


def erased(session: Session, condition: str = ONE) -> erase.Report:
    return erase.erase(session, condition, by="ada", reason="asked for")


def test_a_training_is_due_once_rows_that_were_learned_from_are_gone(world: World, session: Session) -> None:
    (model,) = session.app.models
    assert retrain.ERASED not in retrain.due(session, model).why
    assert erased(session).versions == ("till-1",)
    world.to(START + timedelta(hours=1))
    due = retrain.due(session, model)
    assert (due.until, due.why) == (session.clock.now(), retrain.ERASED)
    apply.apply(session, until=due.until, only="till")
    assert retrain.ERASED not in retrain.due(session, model).why
    assert [bool(v.erased) for v in status.status(session).models[0].versions] == [True, False]


def test_without_a_trigger_nothing_is_trained_and_status_says_so(world: World) -> None:
    session = world.session(loops.declared())
    erased(session)
    (model,) = session.app.models
    assert retrain.due(session, model).until is None
    assert status.status(session).models[0].versions[-1].erased
    assert not apply.apply(session).ran


def test_rows_that_nobody_learned_from_mark_no_version(session: Session) -> None:
    """They were known only after the cutoff: the examples stay, and so does what is learned."""
    late = "placed >= '2013-07-02T00:00:00Z'"
    found = erase.look(session, late)
    assert (found.versions, found.places) == ((), {"online features": 1, "table Order": 16 * 12})
    assert erased(session, late).versions == ()
    assert not apply.apply(session).ran
    assert not apply.apply(session, until=START).ran


def test_what_was_erased_is_not_learned_from_again(session: Session) -> None:
    def learned() -> int:
        done = [facts.decode(f, apply.Done) for f in session.facts.read(kinds=frozenset({"cycle.done"}))]
        return tested.load_examples(session, {"examples": [d for d in done if d.step == "examples"][-1]}).frame.height

    before = learned()
    erased(session)
    with pytest.raises(StateError, match="examples-erased"):
        learned()
    apply.apply(session, until=START)
    assert learned() == before - 1


def test_answers_and_outcomes_of_other_keys_stay(world: World, session: Session) -> None:
    process = loops.Process(world)
    process.look()
    asked = loops.QUESTIONS.head(4).to_dicts()
    for row in asked:
        world.to(row["placed"])
        process.ask(row)
    world.to(asked[-1]["settled"] + timedelta(hours=1))
    for row in asked:
        process.post(row)
    condition = f"order_id = '{asked[1]['order_id']}'"
    assert erase.look(session, condition).places == {"journal": 1, "outcomes": 1}
    assert erased(session, condition).places == {"journal": 1, "outcomes": 1}
    assert [e.key for e in world.journal.read()] == [loops.key(row) for row in (asked[0], *asked[2:])]
    assert [p.key for p in session.outcomes.read()] == [loops.key(row) for row in (asked[0], *asked[2:])]
    assert erased(session, "price >= 0").places["journal"] == 3


def test_an_outcome_is_known_by_what_its_key_says(session: Session) -> None:
    """Also where no row and no answer has that key."""
    said = New(received=START, by="a", model="till", prediction="", key='{"order_id":"x9"}', value=1.0, settled=None)
    session.outcomes.post([said])
    assert erased(session, "order_id = 'x9'").places == {"outcomes": 1}
    assert list(session.outcomes.read()) == []


class Visit(fb.Contract):
    """A key of two columns, one of them a number."""

    place = dy.String(primary_key=True)
    number = dy.Int64(primary_key=True)
    seen = fb.event_time(dy.Datetime(time_zone="UTC"))
    person = fb.personal(dy.String(nullable=True))


def visit(place: str, number: int, person: str | None, day: int) -> dict[str, Any]:
    return {"place": place, "number": number, "seen": START + timedelta(days=day), "person": person}


SCHEMA = {"place": pl.String, "number": pl.Int64, "seen": pl.Datetime("us", "UTC"), "person": pl.String}


def stored(*batches: list[dict[str, Any]]) -> MemoryTables:
    tables = MemoryTables()
    for n, rows in enumerate(batches, 1):
        frame = pl.DataFrame(rows, schema=SCHEMA).with_columns(pl.col("seen").alias(KNOWN))
        tables.append("Visit", frame, n, {}, expect=tables.head("Visit"))
    return tables


def about_visits(tables: MemoryTables) -> Session:
    app = fb.App("visits", sources=[fb.files("v-*.csv", prepare=loops.plain, yields=Visit)], search=loops.APP.search)
    return replace(World().session(), app=app, tables=tables)


def meant(tables: MemoryTables, condition: str) -> list[tuple[int, str, int]]:
    """(batch, key) of what would go."""
    (target,) = subject.targets(about_visits(tables), condition)
    rows = tables.scan("Visit", 99, dataset.schema(target.spec)).filter(target.rows)
    found = rows.sort("_batch", "place", "number").collect()
    assert target.count == found.height
    return [(row["_batch"], row["place"], row["number"]) for row in found.to_dicts()]


HISTORY = (
    [visit("a", 1, "ann", 0), visit("a", 2, None, 0), visit("b", 1, "bob", 0), visit("b", 2, "ann", 0)],
    [visit("a", 2, "ann", 0), visit("b", 2, "bob", 0)],
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        # Theirs from the first; named by a correction, so the row before is theirs too; and one that was never theirs.
        ("person = 'ann'", [(1, "a", 1), (1, "a", 2), (1, "b", 2), (2, "a", 2)]),
        ("person = 'bob'", [(1, "b", 1), (1, "b", 2), (2, "b", 2)]),
        ("number >= 2", [(1, "a", 2), (1, "b", 2), (2, "a", 2), (2, "b", 2)]),
        ("person != 'ann'", [(1, "b", 1), (1, "b", 2), (2, "b", 2)]),
        ("person = 'eve'", []),
    ],
)
def test_what_a_condition_means(condition: str, expected: list[tuple[int, str, int]]) -> None:
    assert meant(stored(*HISTORY), condition) == expected


def test_erasing_leaves_every_other_row() -> None:
    tables = stored(*HISTORY)
    there = about_visits(tables)
    erase.erase(there, "person = 'ann'", by="ada", reason="asked for")
    rows = tables.scan("Visit", 99, {"_batch": pl.Int64(), **SCHEMA}).sort("_batch", "place").collect()
    assert [(r["_batch"], r["place"], r["number"], r["person"]) for r in rows.to_dicts()] == [
        (1, "b", 1, "bob"),
        (2, "b", 2, "bob"),
    ]


QUARANTINED = {
    '{"place":"a","number":"x","seen":"?","person":"ann"}': True,  # its cell says so
    '{"place":"a","number":"1","seen":"?","person":null}': True,  # its key does
    '{"place":"a","number":"3","seen":"said ann, he","person":"bob"}': True,  # it stands in another cell
    '{"place":"joanne","number":"1","seen":"?","person":"anna"}': False,
    '{"place":"b","number":"1","seen":"?","person":"bob"}': False,
    '{"text":"a,1,ann,,,"}': True,
    '{"text":"a,1,anna,,,"}': False,
    r'{"text":"a\tann\t1"}': True,  # what stands around it may be escaped in JSON
    r'{"text":"ann\u0001"}': True,
    r'{"place":"c","number":"1","seen":"so:\nann","person":"bob"}': True,
}


def test_what_is_the_subjects_in_quarantine() -> None:
    tables = stored(*HISTORY)
    rows = pl.DataFrame(
        {
            "_source": "v",
            "_file": "v-1.csv",
            "_line": 1,
            "rules": [["separator"] if "text" in row else ["number|dtype"] for row in QUARANTINED] + [None],
            "row": [*QUARANTINED, '{"an":"account of ann"}'],
        },
        schema={n: t for n, t in quarantine.SCHEMA.items() if n != "_batch"},
    )
    tables.append("Visit__quarantine", rows, 2, {}, expect=tables.head("Visit__quarantine"))
    there = about_visits(tables)
    (target,) = subject.targets(there, "person = 'ann'")
    expected = [row for row, theirs in QUARANTINED.items() if theirs]
    assert subject.quarantined(there, target).to_list() == expected
    assert erase.look(there, "person = 'ann'").places == {"quarantine Visit": 7, "table Visit": 4}
    erase.erase(there, "person = 'ann'", by="ada", reason="asked for")
    left = tables.scan("Visit__quarantine", 9, quarantine.SCHEMA).collect()["row"].to_list()
    assert left == [*(row for row, theirs in QUARANTINED.items() if not theirs), '{"an":"account of ann"}']
    (numbers,) = subject.targets(there, "number = 1")
    assert subject.quarantined(there, numbers).to_list() == [
        expected_ for expected_ in left if '"1"' in expected_ or ",1," in expected_
    ]


def test_what_comes_again_stays_out() -> None:
    """As text or as a value; of the erased column alone; and lines that are no rows, as far as their cells can be told."""
    there = about_visits(stored(*HISTORY))
    (source,) = there.app.sources
    assert suppress.suppressed(there, source) == (source, there.reader), "nothing was erased, so nothing is in the way"
    erase.erase(there, "person = 'ann'", by="ada", reason="asked for")
    erase.erase(there, "number = 2", by="ada", reason="asked for")
    without, reader = suppress.suppressed(there, source)
    rows = pl.DataFrame([visit("c", n, who, 1) for n, who in enumerate(("ann", "anna", None, "bob"))], schema=SCHEMA)
    for frame in (rows, rows.with_columns(pl.col("number", "seen").cast(pl.String))):
        kept = without.prepare(frame.lazy()).lazy().collect()
        assert [(str(r["number"]), r["person"]) for r in kept.to_dicts()] == [("1", "anna"), ("3", "bob")]
    assert without.prepare(rows.drop("person").lazy()).lazy().collect().height == 3
    assert reader is not there.reader
    assert without.at == source.at


def test_the_hash_of_a_subject_is_of_the_condition() -> None:
    """However it was spelt; useless to whoever has not the key."""
    there = about_visits(stored(*HISTORY))
    said = {erase.look(there, text).subject for text in ("person = 'ann'", " person='ann' ", "person = ann")}
    assert len(said) == 1
    assert said != {erase.look(there, "person = 'bob'").subject}
    assert erasures.hashed(there, where.Where("person", "=", "ann")) in said


@pytest.mark.parametrize("said", ['Ann "Nan" Smith', "back\\slash", "Ann\tSmith", "Zoë Öl", "O'Brien", "a.b", "c++"])
def test_whatever_a_name_is_made_of(said: str) -> None:
    """In a cell of its own, in another, in a line of a CSV file; and where it comes again it stays out."""
    there = about_visits(stored([visit("a", 1, said, 0), visit("a", 2, "bob", 0)]))
    rows = [{"place": "a", "number": "x", "seen": "?", "person": p} for p in (said, f"with {said}", said + "x")]
    doubled = said.replace('"', '""')
    rows += [{"text": text} for text in (f'1;"{doubled}";2', f"1\t{said}\t2", f'{{"person": "{said}"', f"1,{said}x")]
    frame = pl.DataFrame(
        {
            "_source": "v",
            "_file": "v",
            "_line": 1,
            "rules": [["ragged"]] * len(rows),
            "row": [msgspec.json.encode(row).decode() for row in rows],
        },
        schema={n: t for n, t in quarantine.SCHEMA.items() if n != "_batch"},
    )
    there.tables.append("Visit__quarantine", frame, 1, {}, expect=there.tables.head("Visit__quarantine"))
    condition = f"person = '{said.replace(chr(39), chr(39) * 2)}'"
    (target,) = subject.targets(there, condition)
    texts = subject.quarantined(there, target).to_list()
    assert texts == [row for n, row in enumerate(frame["row"]) if n not in (2, 6)]
    erase.erase(there, condition, by="ada", reason="asked for")
    (source,) = there.app.sources
    lines = [row["text"] for row in rows if "text" in row and "\t" not in said]
    _, reader = suppress.suppressed(there, source)
    assert isinstance(reader, Retold)
    assert reader._retell(pl.LazyFrame({TEXT: lines})).collect()[TEXT].to_list() == lines[3:]


def test_a_reason_is_refused_for_the_name_alone() -> None:
    """As a word, in any case; not for letters that it shares with others."""
    there = about_visits(stored([visit("a", 1, "m", 0)]))
    with pytest.raises(DataError, match="erase-reason-names-subject"):
        erase.erase(there, "person = 'm'", by="ada", reason="M wrote to us")
    assert erase.erase(there, "person = 'm'", by="ada", reason="some ticket").erased


def test_what_was_withdrawn_does_not_say_whose_the_rest_is() -> None:
    """A wrong file said that a key of Bob's was Ann's, and was rolled back."""
    tables = stored([visit("b", 1, "bob", 0)], [visit("b", 1, "ann", 0)])
    tables.append(
        "Visit",
        tables.scan(
            "Visit", 0, {n: t for n, t in dataset.schema(contract.spec(Visit)).items() if n != "_batch"}
        ).collect(),
        3,
        withdrawal.positions(tables, "Visit", 3, 1),
        expect=tables.head("Visit"),
    )
    assert meant(tables, "person = 'ann'") == [(2, "b", 1)]
    (target,) = subject.targets(about_visits(tables), "person = 'ann'")
    there = about_visits(tables)
    assert not target.learned(there, {"Visit": 1}, START + timedelta(days=9))
    assert target.learned(there, {"Visit": 2}, START + timedelta(days=9))
    assert not target.learned(there, {"Visit": 3}, START + timedelta(days=9)), "it had been withdrawn"


class Parcel(fb.Contract):
    """A key that is a time, and a column whose values have an order of their own."""

    sent = fb.event_time(dy.Datetime(time_zone="UTC", primary_key=True))
    size = dy.Enum(["small", "medium", "large"])
    weight = dy.Float32(nullable=True)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("size >= 'medium'", "bc"),
        ("size = 'large'", "c"),
        ("sent < '2013-07-01T01:00:00Z'", "a"),
        ("sent != '2013-07-01T01:00:00Z'", "ac"),
        ("weight = 0.1", "b"),
    ],
)
def test_answers_compare_as_the_tables_do(condition: str, expected: str) -> None:
    app = fb.App("p", sources=[fb.files("p.csv", prepare=loops.plain, yields=Parcel)], search=loops.APP.search)
    there = replace(World().session(), app=app)
    sizes, weights = ["small", "medium", "large"], [None, 0.1, 0.2]
    asked = {
        name: {"sent": START + timedelta(hours=n), "size": sizes[n], "weight": weights[n]}
        for n, name in enumerate("abc")
    }
    told = subject.of_model(subject.answers(there, subject.targets(there, condition)), "gone")
    assert "".join(name for name, given in asked.items() if told.says(given)) == expected
    if "sent" in condition:
        keys = {name: facts.encode({"sent": given["sent"]}).decode() for name, given in asked.items()}
        assert "".join(name for name, key in keys.items() if subject.key_says(told, key)) == expected


def plainer(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.drop("mail")


def made(version: int, **more: Any) -> type[fb.Contract]:
    columns = {"id": dy.String(primary_key=True), "at": fb.event_time(dy.Datetime(time_zone="UTC"))}
    make: Any = type(fb.Contract)
    migrate = plainer if version > 1 else None
    return make("Guest", (fb.Contract,), {**columns, **more}, version=version, migrate=migrate)


FIRST = made(1, who=fb.personal(dy.String()), mail=dy.String())
SECOND = made(2, who=fb.personal(dy.String()))


def guests(table: type[fb.Contract], there: Session) -> Session:
    app = fb.App("g", sources=[fb.files("g-*.csv", prepare=loops.plain, yields=table)], search=loops.APP.search)
    return replace(there, app=app)


@pytest.mark.parametrize("declared", [SECOND, Visit])
def test_earlier_versions_and_undeclared_contracts_are_reached(declared: type[fb.Contract]) -> None:
    """Their tables, their quarantine; and what comes again of a later version stays out."""
    world = World()
    said = [{"id": n, "at": START, "who": who, "mail": "x"} for n, who in (("1", "ann"), ("2", "bob"), ("", "ann"))]
    bad = {"id": "3", "at": None, "who": "ann", "mail": "x"}
    world.frames = {"g-1.csv": pl.DataFrame([*said[:2], bad])}
    before = guests(FIRST, world.session())
    gather.gather(before)
    after = guests(declared, before)
    if declared is SECOND:
        gather.gather(after)
    found = erase.look(after, "who = 'ann'").places
    assert {name: n for name, n in found.items() if name.endswith("Guest")} == {"quarantine Guest": 1, "table Guest": 1}
    erase.erase(after, "who = 'ann'", by="ada", reason="asked for")
    for name in [name for name in world.tables._tables if "Guest" in name]:
        held = world.tables.scan(name, 9, quarantine.SCHEMA if "quarantine" in name else {"who": pl.String()}).collect()
        assert "ann" not in held.write_ndjson().replace("Guest", ""), name
    if declared is SECOND:
        world.frames["g-2.csv"] = pl.DataFrame([{"id": "4", "at": START, "who": w} for w in ("ann",)])
        gather.gather(after)
        held = world.tables.scan("Guest__2", 9, {"who": pl.String()}).collect()
        assert held["who"].to_list() == ["bob"]


def test_what_was_pushed_and_waits_is_reached() -> None:
    """It is ingested first, and leaves the inbox with its bytes; looking says nothing of it yet, and moves nothing."""
    inbox = MemoryInbox()
    app = fb.App("v", sources=[kinds.push("visits", prepare=loops.plain, yields=Visit)], search=loops.APP.search)
    there = replace(World().session(), app=app, inbox=inbox, reader=PushReader(inbox))
    lines = [msgspec.json.encode({**visit("a", n, who, 0)}) + b"\n" for n, who in enumerate(("ann", "bob"))]
    inbox.accept("visits", Body(b"".join(lines), "till", "1"))
    assert erase.look(there, "person = 'ann'").places == {}
    assert len(inbox.files("visits")) == 1
    assert erased(there, "person = 'ann'").places == {"table Visit": 1}
    assert inbox.files("visits") == ()
    held = there.tables.scan("Visit", 9, {"person": pl.String()}).collect()
    assert held["person"].to_list() == ["bob"]
