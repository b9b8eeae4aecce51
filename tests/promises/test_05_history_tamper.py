"""Promise 5: tampering with the history, and cutting off its end, shows.

The attacker owns the machine's disk: they write to the database by SQL, recompute hashes, flip bytes, put back an old
copy. They lack the key; and where they have stolen it as well, they cannot reach the anchors that were copied elsewhere.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from flyball._kernel import facts as kernel
from flyball._kernel import history
from flyball._kernel.clock import from_micros
from flyball._kernel.errors import FlyballError, StateError
from flyball._kernel.facts import Head, Stored
from flyball._kernel.ports import Signer
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.embedded.keys import FileSigner
from flyball.checks.clock import Wound
from flyball.checks.facts import TALLY, added

T = TypeVar("T")

LENGTH = 6
"""Transactions of two facts each."""


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return FileSigner(tmp_path / "keys" / "key.pem")


@pytest.fixture
def store(tmp_path: Path, signer: Signer) -> Path:
    path = tmp_path / "store" / "facts.sqlite"
    facts = SqlFacts(path, Wound(), signer, [TALLY])
    for n in range(LENGTH):
        facts.append([added(n), added(n + 1, model="cancelled")])
    assert facts.verify().tx == LENGTH
    facts.close()
    return path


def opened(store: Path, signer: Signer, use: Callable[[SqlFacts], T]) -> T:
    facts = SqlFacts(store, Wound(), signer, [TALLY])
    try:
        return use(facts)
    finally:
        facts.close()


def attack(store: Path, *statements: str) -> None:
    database = sqlite3.connect(store)
    with database:
        for statement in statements:
            assert database.execute(statement).rowcount > 0, f"this attack changes nothing: {statement}"
    database.close()


def heads(store: Path, signer: Signer) -> list[Head]:
    database = sqlite3.connect(store)
    rows = database.execute("SELECT tx, chain, trace, signature FROM transactions ORDER BY tx").fetchall()
    database.close()
    return [Head(tx=tx, hash=chain, trace=trace, signature=signature) for tx, chain, trace, signature in rows]


EDITS = {
    "what was said": (3, ["UPDATE facts SET said = CAST(replace(CAST(said AS TEXT), '2', '7') AS BLOB) WHERE seq = 5"]),
    "how it was spelled": (3, ["UPDATE facts SET said = CAST(replace(CAST(said AS TEXT), ':', ': ') AS BLOB) WHERE seq = 5"]),
    "what was measured": (3, ["UPDATE facts SET measured = CAST('{}' AS BLOB) WHERE seq = 5"]),
    "whom it is about": (3, ["UPDATE facts SET model = 'early' WHERE seq = 5"]),
    "where a name ends": (3, ["UPDATE facts SET app = app || substr(model, 1, 1), model = substr(model, 2) WHERE seq = 5"]),
    "what kind it is": (3, ["UPDATE facts SET kind = 'checks.noted' WHERE seq = 5"]),
    "when it was": (3, ["UPDATE transactions SET at = at + 1 WHERE tx = 3"]),
    "the order": (3, [
        "UPDATE facts SET seq = -5 WHERE seq = 5", "UPDATE facts SET seq = 5 WHERE seq = 6",
        "UPDATE facts SET seq = 6 WHERE seq = -5"]),
    "a fact removed": (3, ["DELETE FROM facts WHERE seq = 6"]),
    "a fact removed, the rest moved up": (3, [
        "DELETE FROM facts WHERE seq = 6", "UPDATE facts SET seq = seq - 1 WHERE seq > 6"]),
    "the last fact removed": (6, ["DELETE FROM facts WHERE seq = 12"]),
    "a fact added": (6, [
        "INSERT INTO facts SELECT 13, 6, kind, app, model, said, measured FROM facts WHERE seq = 12"]),
    "a fact of no transaction": (7, [
        "INSERT INTO facts SELECT 13, 7, kind, app, model, said, measured FROM facts WHERE seq = 12"]),
    "a fact moved to another transaction": (3, ["UPDATE facts SET tx = 4 WHERE seq = 6"]),
    "a transaction removed": (3, ["DELETE FROM facts WHERE tx = 3", "DELETE FROM transactions WHERE tx = 3"]),
    "a transaction removed, the rest moved up": (3, [
        "DELETE FROM facts WHERE tx = 3", "DELETE FROM transactions WHERE tx = 3",
        "UPDATE facts SET seq = seq - 2, tx = tx - 1 WHERE tx > 3", "UPDATE transactions SET tx = tx - 1 WHERE tx > 3"]),
    "the beginning removed": (1, ["DELETE FROM facts WHERE tx < 3", "DELETE FROM transactions WHERE tx < 3"]),
    "facts of the end removed": (6, ["DELETE FROM facts WHERE tx = 6"]),
    "links of the end removed": (6, ["DELETE FROM transactions WHERE tx = 6"]),
    "an empty transaction": (7, [
        "INSERT INTO transactions SELECT 7, at, chain, trace, signature FROM transactions WHERE tx = 6"]),
    "a hash": (3, ["UPDATE transactions SET chain = trace WHERE tx = 3"]),
    "a trace": (3, ["UPDATE transactions SET trace = chain WHERE tx = 3"]),
    "a signature": (3, ["UPDATE transactions SET signature = (SELECT signature FROM transactions WHERE tx = 2) WHERE tx = 3"]),
    "a signature in capitals": (3, ["UPDATE transactions SET signature = upper(signature) WHERE tx = 3"]),
    "no signature": (3, ["UPDATE transactions SET signature = '' WHERE tx = 3"]),
    "a time out of this world": (3, ["UPDATE transactions SET at = 9000000000000000000 WHERE tx = 3"]),
}  # fmt: skip


@pytest.mark.parametrize(("first", "statements"), EDITS.values(), ids=EDITS)
def test_every_edit_shows_where_it_begins(store: Path, signer: Signer, first: int, statements: list[str]) -> None:
    attack(store, *statements)
    with pytest.raises(StateError, match=f"not hold from transaction {first} on") as raised:
        opened(store, signer, SqlFacts.verify)
    assert raised.value.code == "history-broken"


def test_what_is_missing_is_called_missing(store: Path, signer: Signer) -> None:
    attack(store, "DELETE FROM facts WHERE tx IN (3, 4)", "DELETE FROM transactions WHERE tx IN (3, 4)")
    with pytest.raises(StateError, match="transaction 3 on: the next one stored is 5"):
        opened(store, signer, SqlFacts.verify)


def rewrite(store: Path, sign: Callable[[bytes], str]) -> None:
    """The attacker changes a fact and recomputes every hash from there on."""
    attack(store, "UPDATE facts SET said = CAST(replace(CAST(said AS TEXT), '2', '7') AS BLOB) WHERE seq = 5")
    database = sqlite3.connect(store)
    head = kernel.START
    for tx, at in database.execute("SELECT tx, at FROM transactions ORDER BY tx").fetchall():
        columns = ("seq", "tx", "kind", "app", "model", "said", "measured")
        rows = database.execute(f"SELECT {', '.join(columns)} FROM facts WHERE tx = ? ORDER BY seq", [tx])
        own = [Stored(at=from_micros(at), **dict(zip(columns, row, strict=True))) for row in rows]
        chain, trace = kernel.link(head, tx, from_micros(at), own)
        signature = sign(kernel.signed_part(tx, chain, trace))
        head = Head(tx=tx, hash=chain, trace=trace, signature=signature)
        with database:
            values = (chain, trace, signature, tx)
            database.execute("UPDATE transactions SET chain = ?, trace = ?, signature = ? WHERE tx = ?", values)
    database.close()


def test_recomputed_hashes_lack_the_key(store: Path, signer: Signer, tmp_path: Path) -> None:
    """Transactions 1 and 2 were not changed, but another key signed them: it shows at once."""
    rewrite(store, FileSigner(tmp_path / "attacker" / "key.pem").sign)
    with pytest.raises(StateError, match="not hold from transaction 1 on: its signature"):
        opened(store, signer, SqlFacts.verify)
    with pytest.raises(StateError, match="history-broken"):
        opened(store, signer, lambda facts: facts.append([added(1)]))


def test_a_stolen_key_does_not_reach_the_anchors(store: Path, signer: Signer) -> None:
    """All is signed and folded anew; only the copy of one head, elsewhere, still says what was."""
    anchor = heads(store, signer)[3]
    rewrite(store, signer.sign)
    opened(store, signer, SqlFacts.rebuild)
    opened(store, signer, SqlFacts.verify)
    with pytest.raises(StateError, match="history-truncated"):
        opened(store, signer, lambda facts: history.holds(facts, anchor))


CUT = ["DELETE FROM facts WHERE tx > 4", "DELETE FROM transactions WHERE tx > 4", "UPDATE folds SET tx = 4"]


def test_a_cut_off_end_is_missed_by_its_anchor(store: Path, signer: Signer) -> None:
    """The store alone looks like a younger one, and says that it holds; every anchor before the cut still does."""
    anchors = heads(store, signer)
    attack(store, *CUT)
    opened(store, signer, SqlFacts.rebuild)
    assert opened(store, signer, SqlFacts.verify) == anchors[3]
    opened(store, signer, lambda facts: history.holds(facts, *anchors[:4]))
    with pytest.raises(StateError, match="Transaction 5 was anchored elsewhere"):
        opened(store, signer, lambda facts: history.holds(facts, *anchors))


def test_going_on_after_the_cut_does_not_hide_it(store: Path, signer: Signer) -> None:
    """The new transactions have the old numbers, but not the old hashes."""
    anchors = heads(store, signer)
    attack(store, *CUT)
    opened(
        store, signer, lambda facts: [facts.rebuild(), *(facts.append([added(9)]) for _ in range(4)), facts.verify()]
    )
    with pytest.raises(StateError, match="Transaction 5 was anchored elsewhere"):
        opened(store, signer, lambda facts: history.holds(facts, *anchors))


def test_an_old_copy_put_back_is_missed_by_its_anchor(store: Path, signer: Signer, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(store.parent, old)
    anchor = opened(store, signer, lambda facts: facts.append([added(1)]))
    shutil.rmtree(store.parent)
    shutil.copytree(old, store.parent)
    opened(store, signer, SqlFacts.verify)
    with pytest.raises(StateError, match="history-truncated"):
        opened(store, signer, lambda facts: history.holds(facts, anchor))


def test_an_emptied_store_is_missed_by_its_anchor(store: Path, signer: Signer) -> None:
    anchor = heads(store, signer)[0]
    store.unlink()
    assert opened(store, signer, SqlFacts.verify) == kernel.START
    with pytest.raises(StateError, match="history-truncated"):
        opened(store, signer, lambda facts: history.holds(facts, anchor))


STATE = {
    "a row": "UPDATE projections SET row = CAST('99' AS BLOB) WHERE key = 'flights/late'",
    "a row removed": "DELETE FROM projections WHERE key = 'flights/late'",
    "a row added": "INSERT INTO projections VALUES ('tally', 'flights/early', CAST('1' AS BLOB))",
    "how far it is folded": "UPDATE folds SET tx = 5",
    "that it is folded": "DELETE FROM folds",
}


@pytest.mark.parametrize("statement", STATE.values(), ids=STATE)
def test_edited_state_shows_and_is_folded_anew(store: Path, signer: Signer, statement: str) -> None:
    """Who is champion is state: the quietest edit is the one that touches no fact."""
    before = opened(store, signer, lambda facts: list(facts.scan("tally")))
    attack(store, statement)
    with pytest.raises(StateError, match="state-differs"):
        opened(store, signer, SqlFacts.verify)
    opened(store, signer, SqlFacts.rebuild)
    assert opened(store, signer, SqlFacts.verify).tx == LENGTH
    assert opened(store, signer, lambda facts: list(facts.scan("tally"))) == before


def test_an_index_that_hides_facts_shows(store: Path, signer: Signer) -> None:
    """Reading by kind goes through an index, which the chain does not cover."""
    database = sqlite3.connect(store)
    database.execute("PRAGMA writable_schema = ON")
    database.execute("UPDATE sqlite_master SET sql = sql || ' WHERE seq > 6' WHERE name = 'ix_facts_kind_seq'")
    database.execute("PRAGMA writable_schema = RESET")
    database.execute("PRAGMA writable_schema = OFF")
    database.execute("REINDEX ix_facts_kind_seq")
    database.execute("PRAGMA writable_schema = ON")
    database.execute(
        "UPDATE sqlite_master SET sql = replace(sql, ' WHERE seq > 6', '') WHERE name = 'ix_facts_kind_seq'"
    )
    database.commit()
    database.close()
    with pytest.raises(FlyballError, match="store-damaged"):
        opened(store, signer, SqlFacts.verify)


def test_no_flipped_byte_changes_anything_unseen(store: Path, signer: Signer, tmp_path: Path) -> None:
    """Wherever a byte of the file flips: it shows, as an error of ours, or nothing that is read has changed."""

    def everything(facts: SqlFacts) -> tuple[object, ...]:
        kinds = [list(facts.read(kinds=frozenset({kind}))) for kind in sorted(TALLY.kinds)]
        return facts.verify(), list(facts.read()), kinds, list(facts.scan("tally"))

    whole, sound = store.read_bytes(), opened(store, signer, everything)
    used = [place for place, byte in enumerate(whole) if byte]
    rng, shown = random.Random(5), 0
    for place in rng.sample(used, 250):
        broken = tmp_path / "broken.sqlite"
        broken.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        try:
            assert opened(broken, signer, everything) == sound, f"byte {place}"
        except FlyballError:
            shown += 1
        for each in tmp_path.glob("broken.sqlite*"):
            each.unlink()
    assert shown > 150
