"""Promise 9: erasure reaches tables, history, logs, features, explanations, and names the models to retrain.

Attacked with a customer who is everywhere: in rows and their corrections, in quarantine, in examples, in online features, in
answers, in what was posted of them; while a server writes, and with a process that ends at any write of the erasure.
"""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from flyball import cli
from flyball._kernel import facts, ids
from flyball._kernel.errors import DataError, StateError
from flyball.adapters.embedded import delta_files, scrub
from flyball.cycle import answering, apply, erase, erasures, plan, reproduce, status
from flyball.cycle.session import Session
from flyball.data import contract, dataset, quarantine
from flyball.serve import journal
from flyball.serve.journal import Recorder, Settings
from flyball.serve.outcomes import New
from flyball.serve.router import Router
from tests import loops
from tests.loops import Crash, Fuse, Process, World
from tests.oracles import projects
from tests.oracles.remains import remains

WHO = "Quentina-Sentinel"
WHERE = f"customer = '{WHO}'"
ORDERS = [f"zq{n:05d}x" for n in range(30)]
"""Their orders; other people's never begin so."""
OTHERS = f"o{17:05d}"
START = datetime(2025, 1, 1, tzinfo=UTC)


def line(order: str, day: float, customer: str, price: str = "20.0", category: str = "shoes") -> str:
    placed = START + timedelta(days=day)
    times = [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (placed, placed + timedelta(days=14))]
    return f"{order},{times[0]},{category},web,{price},{customer},{times[1]},true"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Orders of one customer among those of others; some corrected later, some broken, some no rows at all."""
    made = projects.make(tmp_path_factory.mktemp("erasing") / "kiosk")
    projects.edit(made / "app.py", "data/orders.csv", "data/orders*.csv")
    first = made / "data" / "orders.csv"
    head, *rest = first.read_text().splitlines()
    own = [line(order, 5 * n, WHO) for n, order in enumerate(ORDERS)]
    broken = [line("zq90000x", 3, WHO, price="-1"), line("zq90002x", 3, WHO) + f",{WHO}"]
    first.write_text("\n".join([head, *rest, *own, *broken]) + "\n")
    # ORDERS[0] was somebody else's after all; OTHERS turns out to be theirs; ORDERS[1] cost more.
    placed = {row.split(",")[0]: row for row in rest}[OTHERS].split(",")
    placed[5] = WHO
    corrections = [line(ORDERS[0], 0, "c001"), ",".join(placed), line(ORDERS[1], 5, WHO, price="21.0")]
    corrections += [line(ORDERS[5], 25, "", price="much")]
    (made / "data" / "orders.late.csv").write_text("\n".join([head, *corrections]) + "\n")
    return made


@pytest.fixture(scope="module")
def lived(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which all of it was ingested, learned from, answered and settled."""
    home = tmp_path_factory.mktemp("lived") / "home"
    session = projects.opened(project, home)
    apply.apply(session)
    recorder = session.journals(Settings()).open(session.app.name, head=session.facts.head)
    asked = [(ORDERS[2], WHO), (ORDERS[3], WHO), ("new-1", WHO), ("new-2", "c002"), (OTHERS, "c003"), ("new-3", "c004")]
    given = ask(session, recorder, asked)
    recorder.close()
    session.outcomes.post([outcome(prediction=given[0]), outcome(prediction=given[3])])
    session.outcomes.post([outcome(key=key) for key in (ORDERS[4], "new-1", "new-3", OTHERS)])
    return home


def ask(session: Session, recorder: Recorder, asked: list[tuple[str, str]]) -> list[str]:
    """Questions as a server answers them; returns the ids of the predictions."""
    router = Router(session.clock)
    router.swap(answering.routed(session))
    way = router.ways["sent_back"]
    found = []
    for order, customer in asked:
        row = {"order_id": order, "placed": "2025-07-01T10:00:00Z", "category": "shoes", "channel": "web", "price": 9.0}
        (decoded,), _ = way.routed.champion.decode(msgspec.json.encode({**row, "customer": customer}))
        answer = router.ask(way, [decoded], decoded["placed"], 0.0)[0].answer
        recorder.record([answer])
        found.append(answer.id)
    return found


def outcome(prediction: str = "", key: str = "") -> New:
    said = facts.encode({"order_id": key}).decode() if key else ""
    model = "sent_back" if key else ""
    settled = START + timedelta(days=200)
    return New(received=settled, by="till", model=model, prediction=prediction, key=said, value=1.0, settled=None)


@pytest.fixture
def home(lived: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lived, tmp_path / "home"))


@pytest.fixture
def session(project: Path, home: Path) -> Session:
    return projects.opened(project, home)


def needles(session: Session) -> list[str]:
    """All that tells of them: the name, its hash in the journal, their orders, a question that only they asked."""
    hashed = ids.keyed_hash(session.signer.secret(answering.SUBJECTS), WHO)
    return [WHO, hashed, *ORDERS[1:], "zq90000x", "zq90002x", "new-1"]


def rows(session: Session) -> list[tuple[Any, ...]]:
    """All observations, corrected ones too."""
    (table,) = session.app.tables()
    found = dataset.read(session.tables, table, dataset.latest(session.tables, table))
    return found.sort(pl.all()).collect().rows()


def erased(session: Session) -> erase.Report:
    return erase.erase(session, WHERE, by="ada", reason="ticket 7")


EXPECTED = {
    "artifacts": 1,
    "journal": 4,
    "online features": 2,
    "outcomes": 4,
    "quarantine Order": 3,
    "table Order": 33,
}
"""29 orders that are theirs still, one of them with a correction; what ORDERS[0] was first; and OTHERS, before and after."""


def test_they_are_everywhere_and_then_nowhere(session: Session, home: Path) -> None:
    wanted = needles(session)
    before = rows(session)
    places = {name.partition("/")[0].removesuffix("-wal") for name in remains(home, wanted)}
    assert places == {"tables", "artifacts", "journal", "online.sqlite", "outcomes.sqlite"}, places
    counted = erase.look(session, WHERE)
    assert (counted.erased, counted.places, counted.versions) == (False, EXPECTED, ("sent_back-1",))
    assert remains(home, wanted), "looking moves nothing"
    said = erased(session)
    assert (said.erased, said.resumed, said.places) == (True, False, EXPECTED)
    assert (said.versions, said.answering) == (("sent_back-1",), ("sent_back-1",))
    assert remains(home, [*wanted, "ticket-none"]) == {}
    at = {name: n for n, name in enumerate(dataset.schema(contract.spec(session.app.tables()[0])))}
    kept = [row for row in before if row[at["customer"]] != WHO and row[at["order_id"]] != OTHERS]
    assert rows(session) == kept
    assert [row[at["customer"]] for row in kept if row[at["order_id"]] == ORDERS[0]] == ["c001"]


def test_the_rest_goes_on(session: Session) -> None:
    others = [e for e in session.journal.read() if e.inputs["customer"] is not None]
    erased(session)
    kept = list(session.journal.read())
    assert [e.key for e in kept] == ['{"order_id":"new-2"}', '{"order_id":"new-3"}']
    assert [e for e in others if e.key in {k.key for k in kept}] == kept
    assert [(p.prediction, p.key) for p in session.outcomes.read()] == [
        (kept[0].id, ""),
        ("", '{"order_id":"new-3"}'),
    ]
    assert [(a.recorded, a.erased, a.unknown) for a in session.journal.recover()] == [(6, 4, 0)]
    bad = quarantine.read(session.tables, "Order", session.tables.head("Order").batch).collect()
    assert not bad.height
    recorder = session.journals(Settings()).open(session.app.name)
    assert len(ask(session, recorder, [("new-9", "c009")])) == 1
    recorder.close()


def test_online_features_are_as_if_they_had_never_been(session: Session, project: Path, tmp_path: Path) -> None:
    erased(session)
    held = projects.content(session)["online"]
    (session.home / "online.sqlite").unlink()
    apply.apply(projects.opened(project, session.home))
    assert projects.content(projects.opened(project, session.home))["online"] == held


def test_the_certificate_is_a_fact_and_names_nobody(session: Session) -> None:
    said = erased(session)
    fact = next(f for f in session.facts.read(kinds=frozenset({"cycle.erased"})))
    found = facts.decode(fact, erasures.Erased)
    assert (found.subject, found.column, found.op, found.by, found.reason) == (
        said.subject,
        "customer",
        "=",
        "ada",
        "ticket 7",
    )
    assert found.places == EXPECTED
    assert found.versions == ("sent_back-1",)
    assert len(found.subject) == 64
    written = b"".join(f.said + f.measured for f in session.facts.read())
    assert not [needle for needle in needles(session) if needle.encode() in written]
    with pytest.raises(DataError, match="erase-reason-names-subject"):
        erase.erase(session, WHERE, by="ada", reason=f"{WHO} asked")


def test_a_second_erasure_finds_nothing_and_says_nothing(session: Session) -> None:
    erased(session)
    head = session.facts.head()
    again = erased(session)
    assert (again.erased, again.places, again.versions) == (False, {}, ())
    assert session.facts.head() == head


def test_versions_are_marked_until_one_is_trained_without_them(session: Session, project: Path) -> None:
    erased(session)
    (found,) = status.status(session).models
    assert found.champion == "sent_back-1"
    assert found.versions[-1].erased
    assert plan.plan(session).work == "", "an erasure alone makes nothing restless"
    made = reproduce.reproduce(session, "sent_back-1")
    assert (made.identical, made.erased, made.step) == (False, True, "examples")
    assert made.why.startswith("reproducible except erased rows")
    after = apply.apply(session, until=datetime(2030, 1, 1, tzinfo=UTC))
    assert after.models[0].version == "sent_back-2"
    (found,) = status.status(session).models
    assert [bool(v.erased) for v in found.versions] == [True, False]
    assert reproduce.reproduce(session, "sent_back-2").identical
    assert not apply.apply(session, until=datetime(2030, 1, 1, tzinfo=UTC)).ran
    assert remains(session.home, needles(session)) == {}


def test_what_needs_the_erased_examples_says_so(session: Session, project: Path, home: Path) -> None:
    erased(session)
    file = project / "app.py"
    text = file.read_text()
    projects.edit(file, "roc_auc >= 0.6", "roc_auc >= 0.59")
    try:
        with pytest.raises(StateError, match="examples-erased"):
            apply.apply(projects.opened(project, home))
    finally:
        file.write_text(text)


def test_a_file_that_still_holds_them_does_not_bring_them_back(session: Session, project: Path, home: Path) -> None:
    erased(session)
    file = project / "preparation.py"
    text, wanted, before = file.read_text(), needles(session), len(rows(session))
    projects.edit(file, ".str.strip_chars()", ".str.strip_chars().str.strip_chars()")
    extra = project / "data" / "orders.later.csv"
    extra.write_text(
        f"{(project / 'data' / 'orders.csv').read_text().splitlines()[0]}\n{line('zq70000x', 9, WHO)}\n{WHO};torn\n"
    )
    try:
        again = projects.opened(project, home)
        assert len(apply.apply(again).ingested) == 3
        came = [row for row in rows(again) if row[0] == OTHERS]
        assert len(rows(again)) == before + len(came)
        assert len(came) == 1, "the first file says that this one is another's, and what told otherwise is gone"
        # A row that breaks the contract, of an order that is told to be theirs nowhere any more.
        assert remains(home, [*(n for n in wanted if n != ORDERS[5]), "zq70000x"]) == {}
    finally:
        file.write_text(text)
        extra.unlink()


class Falling:
    """A place of a process that ends at one of its writes."""

    WRITES = frozenset({"append", "delete", "compact", "drop", "erase", "withdraw"})

    def __init__(self, place: Any, fuse: Fuse) -> None:
        self._place, self._fuse = place, fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._place, name)
        if name not in self.WRITES:
            return found
        return lambda *args, **named: self._fuse.write(name, lambda: found(*args, **named))


def falling(session: Session, fuse: Fuse) -> Session:
    journal = Falling(session.journal, fuse)
    ports = {name: Falling(getattr(session, name), fuse) for name in ("facts", "tables", "blobs", "online", "outcomes")}
    return replace(session, **ports, journals=lambda _: journal)


def test_a_crash_between_any_two_writes_is_followed_by_the_same_command() -> None:
    """In memory, with answers and outcomes: what is told of it, and what is left, is the same."""
    world = World()
    process = Process(world)
    apply.apply(process.session, until=loops.START)
    process.look()
    for row in loops.QUESTIONS.head(3).to_dicts():
        world.to(row["placed"])
        process.ask(row)
    world.to(loops.START + timedelta(days=2))
    for row in loops.QUESTIONS.head(3).to_dicts():
        process.post(row)

    def carried_out(session: Session) -> erase.Report:
        return erase.erase(session, "category = 'books'", by="ada", reason="ticket 7")

    def left(world: World) -> tuple[Any, ...]:
        (row,) = erasures.rows(world.session())
        tables = world.tables.scan("Order", 99, dataset.schema(contract.spec(loops.Order))).sort(pl.all()).collect()
        said = [e.id for e in world.journal.read()], [p.seq for p in world.outcomes.read()]
        series = {name: (found.position, found.totals) for name, found in world.online._series.items()}
        over = msgspec.structs.replace(row, began=START, ended=START if row.ended else None)
        return over, tables.rows(), said, sorted(world.blobs.kept), series

    fuse, whole = Fuse(), world.copy()
    carried_out(falling(whole.session(), fuse))
    assert len(fuse.written) == 11, fuse.written
    expected = left(whole)
    assert expected[0].ended is not None
    assert expected[0].places["journal"] + len(expected[2][0]) == 3
    for at in range(len(fuse.written)):
        other = world.copy()
        with pytest.raises(Crash):
            carried_out(falling(other.session(), Fuse(at)))
        other.after_a_crash()
        assert len(status.status(other.session()).erasing) == (at > 0)
        assert carried_out(other.session()).resumed == (at > 0)
        assert left(other) == expected, fuse.written[at]


INNER = [
    (scrub, "scrub", 0),
    (scrub, "scrub", 1),
    (scrub, "scrub", 2),
    (delta_files, "vacuum", 0),
    (delta_files, "vacuum", 1),
]
"""Outcomes, journal and online features are deleted, and not scrubbed; quarantine and table are, and not compacted."""


@pytest.mark.parametrize(("where", "name", "nth"), INNER)
def test_a_crash_within_a_write_leaves_no_byte_after_the_next(
    session: Session, project: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, nth: int
) -> None:
    real, calls = getattr(where, name), count()

    def fails(*args: Any) -> Any:
        if next(calls) == nth:
            raise Crash
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(where, name, fails)
        with pytest.raises(Crash):
            erased(session)
    again = projects.opened(project, session.home)
    said = erased(again)
    assert (said.resumed, said.places, said.versions) == (True, EXPECTED, ("sent_back-1",))
    assert remains(session.home, needles(again)) == {}


def test_who_answers_meanwhile_answers_on(session: Session) -> None:
    """In the very segment that an erasure rewrites: every answer that was acknowledged is there, and none of theirs."""
    place = session.journals(Settings())
    recorder, over = place.open(session.app.name, head=session.facts.head), threading.Event()
    ask(session, recorder, [("zq80000x", WHO)])
    kept = ask(session, recorder, [("new-7", "c007")])
    answer = next(e for e in place.read() if e.id == kept[0]) if _written(place, kept[0]) else None
    assert answer is not None
    acknowledged: list[str] = []

    def answers() -> None:
        while not over.is_set():
            one = msgspec.structs.replace(answer, id=ids.uuid7(session.clock.now()))
            done: Future[None] = Future()
            recorder.record([one], journal.resolve(done))
            done.result(timeout=30)
            acknowledged.append(one.id)

    writing = threading.Thread(target=answers)
    writing.start()
    try:
        said = erased(session)
        during = len(acknowledged)
        while len(acknowledged) < during + 3:
            over.wait(0.01)
        assert remains(session.home / "journal", [*needles(session), "zq80000x"]) == {}
    finally:
        over.set()
        writing.join()
        recorder.close()
    assert said.places["journal"] == EXPECTED["journal"] + 1
    assert during > 0
    assert set(acknowledged) <= {e.id for e in place.read()}
    assert sum(a.unknown for a in place.recover()) == 0


def _written(place: journal.Journal, prediction: str) -> bool:
    """Wait until an answer is committed."""
    return any(place.find(prediction) is not None or threading.Event().wait(0.01) for _ in range(500))


def test_other_operators_and_the_command_line(project: Path, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    common = ["erase", str(project), "--home", str(home), "--json"]
    assert cli.call([*common, "--where", "customer ~ 'x'"]) == 1
    assert "where-not-understood" in capfd.readouterr().out
    assert cli.call([*common, "--where", "colour = 'x'"]) == 1
    assert "erase-no-such-column" in capfd.readouterr().out
    assert cli.call([*common, "--where", WHERE, "--table", "Flight"]) == 1
    assert "erase-no-such-table" in capfd.readouterr().out
    assert cli.call([*common, "--where", WHERE, "--yes"]) == 2
    capfd.readouterr()
    assert cli.call([*common, "--where", WHERE]) == 0
    assert msgspec.json.decode(capfd.readouterr().out)["places"] == EXPECTED
    assert cli.call([*common, "--where", "placed < '2025-01-03T00:00:00Z'", "--reason", "too old", "--yes"]) == 0
    said = msgspec.json.decode(capfd.readouterr().out)
    assert said["erased"]
    session = projects.opened(project, home)
    assert min(row[1] for row in rows(session)) >= datetime(2025, 1, 3, tzinfo=UTC)
