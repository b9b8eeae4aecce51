"""Promise 9, of who is not erased: what is personal never comes to light, and what is sealed lies nowhere as it was said.

Attacked with one customer who is everywhere (in rows and corrections, in quarantine, in lines that are no rows, in questions
and outcomes) and in what fails: preparations, rules, conditions and migrations that have the name in their mouths. Then every
verb is asked for all that it says, and every file of the home is read.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from flyball import cli
from flyball._kernel.errors import DataError, FlyballError
from flyball.cycle import answering, apply, arrivals, erase, plan, predict, status, suspected
from flyball.cycle.session import Session, silent
from flyball.data import contract, dataset, quarantine
from flyball.serve import outcomes, protocol
from flyball.serve.journal import Settings
from flyball.serve.router import Router
from tests.oracles import projects
from tests.oracles.remains import remains

WHO = "Zebedee-Sentinel"
OTHER = "Yolanda!Sentinel"
"""Breaks the rule of the column itself."""
LOST = "Xaver-Sentinel"
"""Stands in lines that are no rows alone."""
NAMES = (WHO, OTHER, LOST, "Sentinel")

MODES = {"plain": "", "hash": ', stored="hash"', "token": ', stored="token"'}
_CUSTOMER = "customer = fb.personal(dy.String())"
_RULE = r"""customer = fb.personal(dy.String(regex=r"^[\\w-]+$"){})
    mail = dy.String(nullable=True)"""


def line(order: str, day: int, customer: str, price: str = "20.0") -> str:
    return f"{order},2025-0{1 + day // 28}-{1 + day % 28:02d}T10:00:00Z,shoes,web,{price},{customer},2025-04-01T10:00:00Z,true"


@pytest.fixture(scope="module", params=list(MODES))
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project, with one more column, that looks like mail addresses; stored in one of the three ways."""
    made = projects.make(tmp_path_factory.mktemp("never") / f"shop_{request.param}")
    projects.edit(made / "app.py", _CUSTOMER, _RULE.format(MODES[request.param]).replace("\\\\", "\\"))
    projects.edit(made / "app.py", "data/orders.csv", "data/orders*.csv")
    more = 'pl.concat_str(pl.lit("u"), "order_id", pl.lit("@example.org")).alias("mail"), (pl.lit("x") + pl.col("customer"))'
    projects.edit(made / "preparation.py", "with_columns(", f'with_columns({more}.alias("beside"), ')
    first = made / "data" / "orders.csv"
    head, *rest = first.read_text().splitlines()
    own = [line(f"z{n:03d}", n, WHO) for n in range(40)]
    broken = [line("z900", 3, WHO, price="-1"), line("z901", 3, WHO, price="much"), line("z902", 4, OTHER)]
    ragged = [line("z903", 5, LOST) + f",{LOST},{LOST}"]
    first.write_text("\n".join([head, *rest[::3], *own, *broken, *ragged]) + "\n")
    late = [line("z000", 0, WHO), line("z001", 1, "c001"), line("z002", 2, WHO, price="21.0"), rest[0]]
    (made / "data" / "orders.late.csv").write_text("\n".join([head, *late]) + "\n")
    return made


@pytest.fixture(scope="module")
def home(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / "home"


@pytest.fixture(scope="module")
def lived(project: Path, home: Path) -> Session:
    """A home in which it was ingested, learned from, answered and settled."""
    session = projects.opened(project, home)
    apply.apply(session)
    recorder = session.journals(Settings()).open(session.app.name, head=session.facts.head)
    router = Router(session.clock)
    router.swap(answering.routed(session))
    way = router.ways["sent_back"]
    for order, customer in (("z005", WHO), ("new-1", WHO), ("new-2", "c002")):
        (decoded,), _ = way.routed.champion.decode(question(order, customer))
        recorder.record([router.ask(way, [decoded], decoded["placed"], 0.0)[0].answer])
    recorder.close()
    said = b'[{"key": {"order_id": "new-1"}, "outcome": true}, {"key": {"customer": "%s"}, "outcome": "%s"}]'
    code, body = outcomes.receive(
        said % (WHO.encode(), WHO.encode()), answering.routed(session), session.outcomes, session.clock, "till"
    )
    assert code == 200
    assert b"Sentinel" not in body
    return session


def question(order: str, customer: str) -> bytes:
    row = {"order_id": order, "placed": "2025-07-01T10:00:00Z", "category": "shoes", "channel": "web", "price": 9.0}
    return msgspec.json.encode({**row, "customer": customer})


def stored(session: Session) -> str:
    (table,) = session.app.tables()
    return contract.spec(table).sealed.get("customer", "plain")


@pytest.fixture
def silence(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[str], str]]:
    """Checks that nothing that was said until now names anybody; returns it."""
    caplog.set_level(logging.DEBUG)

    def check(what: str) -> str:
        out, err = capfd.readouterr()
        said = out + err + caplog.text
        found = [row for row in said.splitlines() if any(name in row for name in NAMES)]
        assert not found, (what, found[:3])
        return said

    yield check
    check("at the end")


def test_every_verb_is_discreet(
    project: Path, home: Path, lived: Session, silence: Callable[[str], str], tmp_path: Path
) -> None:
    app, own = str(project), ["--home", str(home)]
    answered = next(iter(lived.journal.read())).id
    page = tmp_path / "page.html"
    verbs = [
        ["status", app, *own],
        ["status", app, *own, "--json"],
        ["plan", app, *own, "--json"],
        ["why", app, answered, *own, "--json"],
        ["report", app, *own],
        ["data", "versions", app, *own],
        ["data", "show", app, "Order", *own, "--head", "6000"],
        ["data", "quarantine", app, *own, "--sample", "9"],
        ["data", "quarantine", app, "Order", *own, "--sample", "9", "--json"],
        ["data", "diff", app, "Order", "--from", "1", *own, "--json"],
        ["data", "profile", app, "Order", *own, "--html", str(page)],
        ["data", "expect", app, *own, "--propose"],
        ["data", "changes", app, "orders*.Order", "--file", "data/orders.csv", *own, "--sample", "9"],
        ["data", "suspects", app, *own, "--json"],
        ["contract", "diff", app, *own],
        ["apply", app, *own],
    ]
    if stored(lived) != "plain":  # the home cannot tell then; these read the files
        verbs = [verb for verb in verbs if verb[0] in ("plan", "why") or verb[1] in ("changes", "quarantine", "show")]
    for verb in verbs:
        code = cli.call(verb)
        said = silence(" ".join(verb))
        assert code in (0, 3), (verb, code, said)
    assert not page.exists() or "Sentinel" not in page.read_text()
    for file in ("quarantine", "show"):
        refused = ["data", file, app, "Order", *own, "--out", str(tmp_path / f"{file}.csv")]
        assert cli.call(refused) == 1
        assert not (tmp_path / f"{file}.csv").exists()
        silence(" ".join(refused))


def test_a_fact_a_report_or_a_page_names_nobody(lived: Session, home: Path) -> None:
    places = {name.partition("/")[0].removesuffix("-wal") for name in remains(home, NAMES)}
    allowed = {"tables"} if stored(lived) == "plain" else set()
    allowed |= {"online.sqlite"} if stored(lived) == "plain" else set()
    assert places == allowed


def test_what_is_sealed_works_as_what_is_not(lived: Session, home: Path) -> None:
    """Repeats, corrections and windows by person are those of plain rows; the answer is that of training."""
    (table,) = lived.app.tables()
    batches = {said.file: said for said in status_of(lived)}
    assert (batches["data/orders.late.csv"].duplicates, batches["data/orders.late.csv"].corrections) == (2, 2)
    assert batches["data/orders.csv"].by_rule["customer|regex"] == 1
    rows = dataset.read(lived.tables, table, dataset.latest(lived.tables, table))
    assert (
        rows.filter(pl.col("order_id").str.starts_with("z")).select(pl.col("customer").n_unique()).collect().item() == 2
    )
    entries = {entry.key: entry for entry in lived.journal.read()}
    own = entries['{"order_id":"new-1"}']
    # 40 orders less the one that was somebody else's after all, all settled and sent back within 120 days.
    assert own.features["customer_returns"] == 1.0
    assert own.inputs["customer"] != entries['{"order_id":"new-2"}'].inputs["customer"]


def status_of(session: Session) -> list[Any]:

    return [said for source in session.app.sources for said in arrivals.ingested(session, source.name)]


def test_a_file_of_questions_is_answered_as_a_server_does(lived: Session, tmp_path: Path) -> None:
    asked, answers = tmp_path / "asked.csv", tmp_path / "answers.parquet"
    head = "order_id,placed,category,channel,price,customer"
    asked.write_text(f"{head}\nnew-1,2025-07-01T10:00:00Z,shoes,web,9.0,{WHO}\n")
    assert predict.predict(lived, None, asked, answers, silent).answered == 1
    server = next(e for e in lived.journal.read() if e.key == '{"order_id":"new-1"}')
    assert pl.read_parquet(answers)["_output"].item() == pytest.approx(server.output, abs=1e-9)


def test_what_looks_personal_is_reported_once_and_by_share(lived: Session) -> None:
    (found,) = suspected.standing(lived)
    assert (found.table, found.column, found.kind, found.share) == ("Order", "mail", "email", 1.0)
    assert str(found) in plan.plan(lived).notes
    assert status.status(lived).suspects == [found]
    assert suspected.look(lived, status_of(lived)) == []


@pytest.mark.parametrize("fault", ["preparation", "lazily", "rule", "where", "request"])
def test_what_fails_names_nobody(
    project: Path, tmp_path: Path, fault: str, silence: Callable[[str], str], lived: Session
) -> None:
    app, own = str(project), ["--home", str(tmp_path / "home")]
    for name in [n for n in sys.modules if n == project.name or n.startswith(f"{project.name}.")]:
        del sys.modules[name]
    text, rows = (project / "app.py").read_text(), (project / "preparation.py").read_text()
    try:
        if fault == "preparation":
            bad = f"    raise ValueError('cannot use {WHO}')\n"
            (project / "preparation.py").write_text(rows.replace("    return raw", f"{bad}    return raw"))
            assert cli.call(["apply", app, *own]) == 1
        elif fault == "lazily":
            cast = 'pl.col("customer").cast(pl.Int64).alias("bad"),'
            (project / "preparation.py").write_text(rows.replace("with_columns(", f"with_columns({cast}", 1))
            assert cli.call(["apply", app, *own]) == 1
        elif fault == "rule":
            bad = "\n    @dy.rule()\n    def numbers(cls):\n        return cls.customer.col.cast(pl.Int64) > 0\n"
            broken = text.replace("\n\nreturns =", f"{bad}\n\nreturns =", 1)
            (project / "app.py").write_text(
                broken.replace("import dataframely as dy", "import dataframely as dy\nimport polars as pl")
            )
            assert cli.call(["apply", app, *own]) == 2
        elif fault == "where":
            assert cli.call(["erase", app, "--where", f"customer == '{WHO}'", *own]) == 1
            assert cli.call(["erase", app, "--where", f"nobody = '{WHO}'", *own]) == 1
            assert cli.call(["erase", app, "--where", f"placed = '{WHO}'", *own]) == 1
        else:
            (table,) = lived.app.tables()
            decode = protocol.decoder(table, frozenset({"customer"}))
            for body in (question("x", OTHER), question("x", WHO).replace(b"9.0", b'"' + WHO.encode() + b'"')):
                with pytest.raises(FlyballError) as refused:
                    decode(body)
                print(refused.value, refused.value.why, refused.value.what)
        said = silence(fault)
        assert "Error" in said or fault == "request"
    finally:
        (project / "app.py").write_text(text)
        (project / "preparation.py").write_text(rows)


def test_an_erasure_finds_who_is_sealed(lived: Session, home: Path) -> None:
    """Last, for it empties the home of them: what is sealed is found by what is said, and a token is forgotten."""
    how, where = stored(lived), f"customer = '{WHO}'"
    (table,) = lived.app.tables()
    before = dataset.latest(lived.tables, table)
    cell = lived.seal.find(how, WHO) if how != "plain" else WHO  # type: ignore[arg-type]
    assert cell is not None
    assert remains(home, [cell])
    if how != "plain":
        with pytest.raises(DataError) as refused:
            erase.look(lived, f"customer < '{WHO}'")
        assert refused.value.code == "where-on-sealed-column"
    report = erase.erase(lived, where, by="ada", reason="ticket 7")
    assert report.places["table Order"] == 41
    assert report.places["journal"] == 2
    assert ("vault" in report.places) == (how == "token")
    assert not remains(home, [cell, *([lived.seal.digest("token", WHO)] if how == "token" else [])])
    left = dataset.read(lived.tables, table, before).filter(pl.col("customer") == cell).collect()
    assert left.is_empty()
    refused_rows = quarantine.read(lived.tables, "Order", lived.tables.head("Order__quarantine").batch).collect()
    assert not refused_rows["row"].str.contains(cell, literal=True).any()
    assert lived.seal.find("token", WHO) is None
