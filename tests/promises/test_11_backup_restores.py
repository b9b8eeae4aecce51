"""Promise 11: a backup restores, also one that was taken while everything ran; and what does not hold is refused.

*Under load*: a real server answers, another process ingests and changes who answers, backups are taken all the while, and
processes that take them are killed. Every backup that looks whole is restored and proved from end to end; all that was
acknowledged before it began is in it.

*An attacker* owns the folder of backups, and flips, swaps, links and adds; in the last attacks they also have the key.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flyball._kernel import history
from flyball._kernel.errors import AdapterError, FlyballError, RetryableError, StateError
from flyball._kernel.facts import Fact
from flyball.adapters.embedded import backup as copying
from flyball.adapters.embedded import restore as restoring
from flyball.adapters.embedded import shelf
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.keys import FileSigner
from flyball.adapters.embedded.shelf import Shelf
from flyball.cycle import account, answering, apply, backup, operate, why
from flyball.cycle.backup import Backup, File, Proof
from flyball.cycle.erasures import Erased, Erasing
from flyball.cycle.session import Session
from flyball.release import rollout
from flyball.runtime import places
from tests.oracles import projects

QUESTION = {
    "order_id": "new-1",
    "placed": "2025-06-29T12:00:00Z",
    "category": "shoes",
    "channel": "web",
    "price": 80.0,
    "customer": "c007",
}

MOVER = """
import sys
from pathlib import Path
from flyball.cycle import account, apply, operate
from flyball.release import rollout
from tests.oracles import projects

project = Path(sys.argv[1])
head, *rows = (project / "data" / "orders.csv").read_text().splitlines()
session = projects.opened(project)
print("ready", flush=True)
for n in range(10_000):
    late = [row.replace("o", f"x{n}o", 1) for row in rows[n : n + 40]]
    aside = project / f"late-{n}.new"
    aside.write_text("\\n".join([head, *late]) + "\\n")
    aside.replace(project / "data" / f"orders-{n:04}.csv")
    apply.apply(session)
    champion = rollout.now(session.facts, "shop", "sent_back").champion
    other = "sent_back-1" if champion == "sent_back-2" else "sent_back-2"
    operate.promote(session, other, by="test", reason="to and fro", override=True, at_once=True)
    account.account(session)
    print(n, flush=True)
"""

TAKER = """
import sys
from pathlib import Path
from flyball.adapters.embedded import backup
from tests.oracles import projects

session = projects.opened(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    try:
        print(backup.take(session, Path(sys.argv[2])).backup, flush=True)
    except Exception as problem:
        print(getattr(problem, "code", problem), flush=True)
"""


@dataclass
class Shop:
    """A project with two versions of its model, and the places around it."""

    folder: Path
    signer: FileSigner

    @property
    def project(self) -> Path:
        return self.folder / "shop"

    def session(self, home: Path | None = None) -> Session:
        return projects.opened(self.project, home)

    def restored(self, source: Path, name: str) -> tuple[Path, Proof]:
        home = self.folder / name
        found = restoring.choose(source, self.signer)
        return home, restoring.restore(found, home, self.signer, SystemClock(), places.PROJECTIONS)

    def verified(self, source: Path) -> Proof:
        return restoring.verify(restoring.choose(source, self.signer), self.signer, SystemClock(), places.PROJECTIONS)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("backups")
    before = Path.cwd()
    os.chdir(folder)
    project = projects.make(folder / "shop")
    projects.edit(project / "app.py", '"data/orders.csv"', '"data/orders*.csv"')
    apply.apply(projects.opened(project))
    projects.edit(project / "app.py", "n_estimators=10", "n_estimators=12")
    apply.apply(projects.opened(project))
    yield Shop(folder, FileSigner(places.signing_key()))
    os.chdir(before)


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said, "the process ended"
    return said.strip()


@dataclass
class Asking:
    """Somebody who asks one question after the other; `answers` are those that came back."""

    address: str
    answers: list[dict[str, Any]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def more_than(self, number: int) -> bool:
        return len(self.answers) > number

    def __call__(self) -> None:
        with closing(http.client.HTTPConnection(self.address, timeout=20)) as connection:
            n = 0
            while not self.over.wait(0.002):
                n += 1
                body = json.dumps({**QUESTION, "order_id": f"q{n}"})
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                assert answer.status == 200
                self.answers.append(json.loads(answer.read()))


@contextmanager
def asked(project: Path) -> Iterator[Asking]:
    """A server in a process of its own, and somebody who asks it."""
    with running(sys.executable, "-m", "flyball", "serve", str(project), "--port", "0", "--json") as server:
        said = ""
        while not said.endswith("}}"):
            said += line(server)
        asking = Asking(json.loads(said)["address"].removeprefix("http://"))
        thread = threading.Thread(target=asking)
        thread.start()
        try:
            yield asking
        finally:
            asking.over.set()
            thread.join(30)


def until(enough: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not enough():
        assert time.monotonic() < end
        time.sleep(0.01)


@dataclass(frozen=True)
class Whole:
    """A backup that was finished, and what had been acknowledged when it began."""

    document: Path
    answers: list[dict[str, Any]]


@dataclass(frozen=True)
class Load:
    """What was taken under load: finished backups, and those of a process that was killed."""

    taken: list[Whole]
    killed: list[Path]
    folder: Path


@pytest.fixture(scope="module")
def load(shop: Shop) -> Load:
    """A server, a process that ingests and promotes, and backups; two processes that take some are killed at it."""
    folder, killed = shop.folder / "taken", shop.folder / "killed"
    taken = list[Whole]()
    python = [sys.executable, "-c"]
    with (
        running(*python, MOVER, str(shop.project)) as mover,
        running(*python, TAKER, str(shop.project), str(killed)) as taker,
        asked(shop.project) as asking,
    ):
        assert line(mover) == line(taker) == "ready"
        line(taker)  # one whole, so that the next is killed beside it
        time.sleep(random.Random(11).uniform(0.02, 0.2))
        taker.send_signal(signal.SIGKILL)
        taker.wait()
        session = shop.session()
        while len(taken) < 4:
            answers = list(asking.answers)
            taken.append(Whole(Path(copying.take(session, folder).backup), answers))
            line(mover)
            until(partial(asking.more_than, len(answers) + 5))
    return Load(taken, Shelf(killed).backups(), folder)


def test_every_backup_taken_under_load_restores(shop: Shop, load: Load) -> None:
    live = shop.session()
    heads, sizes = set(), set()
    for n, whole in enumerate(load.taken):
        home, proof = shop.restored(whole.document, f"home-{n}")
        said = backup.unseal(whole.document.read_bytes(), shop.signer)
        assert proof.head == said.head
        history.holds(live.facts, said.head.anchor())
        heads.add(said.head.hash)
        sizes.add(proof.rows["Order"])
        session = shop.session(home)
        assert session.facts.head() == said.head
        found = {entry.id for entry in session.journal.read()}
        acknowledged = {answer["id"] for answer in whole.answers}
        assert acknowledged <= found
        assert proof.versions == 2 and proof.answers >= len(acknowledged)
        # What the server handed out after the cut may be among these, but nothing that it recorded before it.
        assert proof.unknown <= 4096 and proof.refused == 0
        for entry in session.journal.read():
            assert entry.epoch <= rollout.now(session.facts, "shop", "sent_back").epoch
    assert len(heads) == len(load.taken), "the facts stood still: nothing was attacked"
    assert len(sizes) > 1 and len(load.taken[-1].answers) > len(load.taken[0].answers) > 0


def test_a_killed_backup_never_looks_whole(shop: Shop, load: Load) -> None:
    """Whatever has a document restores; what was killed has none, and the next backup clears it away."""
    assert load.killed
    for n, document in enumerate(load.killed[-2:]):
        shop.restored(document, f"survivor-{n}")
    folder = load.killed[0].parent
    assert {p.name for p in (folder / "objects").rglob("*")}
    copying.take(shop.session(), folder, keep=1)
    (left,) = Shelf(folder).backups()
    named = {file.digest for file in backup.unseal(left.read_bytes(), shop.signer).files}
    assert {p.name for p in (folder / "objects").rglob("*") if p.is_file()} == named
    shop.verified(folder)


def test_a_restored_app_goes_on_where_it_was(shop: Shop, load: Load, tmp_path: Path) -> None:
    """Once nothing is left to do in the old home, nothing is left to do in the new one."""
    live, answer = shop.session(), load.taken[-1].answers[-1]
    apply.apply(live)
    copying.take(live, tmp_path)
    home, proof = shop.restored(tmp_path, "goes-on")
    session = shop.session(home)
    explained = why.why(session, answer["id"])
    assert (explained.version, explained.output) == (answer["version"], answer["output"])
    champion = rollout.now(live.facts, "shop", "sent_back").champion
    applied, head = apply.apply(session), proof.head
    assert applied.models[0].ran == [] and applied.ingested == [] and session.facts.head() == head
    assert rollout.now(session.facts, "shop", "sent_back").champion == champion
    assert answering.routed(session)["sent_back"].champion.version == champion
    told = account.account(session)
    assert sum(each.recorded for each in told) + _accounted(session, told) == proof.answers
    assert not (home / "loop.json").exists() and session.lease.holder("shop/apply") is None


def _accounted(session: Session, told: list[account.Accounted]) -> int:
    new = {each.segment for each in told}
    rows = (msgspec.json.decode(row, type=account.Accounted) for _, row in session.facts.scan(account.ACCOUNTS.name))
    return sum(row.recorded for row in rows if row.segment not in new)


@pytest.fixture
def still(shop: Shop, load: Load, tmp_path: Path) -> Path:
    """A folder with one backup, to be attacked; nothing runs any more."""
    folder = tmp_path / "still"
    shutil.copytree(load.folder, folder)
    for document in Shelf(folder).backups()[:-1]:
        document.unlink()
    with Shelf(folder).writing():
        Shelf(folder).sweep({file.digest for file in said_by(shop, folder).files})
    return folder


def said_by(shop: Shop, folder: Path) -> Backup:
    return backup.unseal(Shelf(folder).backups()[-1].read_bytes(), shop.signer)


def stored(folder: Path, file: File) -> Path:
    return folder / "objects" / file.digest[:2] / file.digest


def test_no_flipped_byte_of_any_file_is_taken(shop: Shop, still: Path, tmp_path: Path) -> None:
    draw, said = random.Random(3), said_by(shop, still)
    files = {stored(still, file) for file in said.files}
    document = Shelf(still).backups()[-1]
    for path in [*sorted(files), *[document] * 20]:
        whole = path.read_bytes()
        if not whole:
            continue
        at = draw.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
        with pytest.raises(StateError, match=r"backup-(damaged|not-signed)"):
            shop.verified(still)
        path.write_bytes(whole)
    shop.verified(still)


def test_what_lies_there_is_neither_followed_nor_waited_for(shop: Shop, still: Path, tmp_path: Path) -> None:
    """Class B of what befell others: links, pipes, devices, what is cut short or goes on for ever."""
    victim = max(said_by(shop, still).files, key=lambda file: file.path.startswith("tables/"))
    path = stored(still, victim)
    whole = path.read_bytes()
    outside = tmp_path / "outside"
    outside.write_bytes(whole)  # even the right bytes: what is a link today is another file tomorrow

    def sparse() -> None:
        path.write_bytes(whole)
        os.truncate(path, 1 << 40)

    attacks: dict[str, Callable[[], object]] = {
        "gone": lambda: None,
        "a link": lambda: path.symlink_to(outside),
        "a pipe": lambda: os.mkfifo(path),
        "a device": lambda: path.symlink_to("/dev/zero"),
        "a folder": lambda: path.mkdir(),
        "cut short": lambda: path.write_bytes(whole[:-1]),
        "longer": lambda: path.write_bytes(whole + b"x"),
        "a terabyte of nothing": sparse,
        "another file": lambda: path.write_bytes(bytes(len(whole))),
    }
    for name, attack in attacks.items():
        path.unlink() if path.exists() or path.is_symlink() else None
        attack()
        with pytest.raises(StateError, match="backup-damaged"):
            shop.restored(still, "attacked")
        assert not (shop.folder / "attacked").exists() and not list(shop.folder.glob(".attacked*")), name
        path.rmdir() if path.is_dir() else None
    document = Shelf(still).backups()[-1]
    for hostile in (
        b"",
        b"[" * 1_000_000,
        b'{"backup":' + b"[" * 100_000,
        b'{"backup":{},"signature":"00"}',
        b"\xff\xfe",
    ):
        document.write_bytes(hostile)
        with pytest.raises(StateError, match="backup-not-signed"):
            restoring.choose(still, shop.signer)
    document.unlink()
    document.symlink_to("/dev/zero")
    with pytest.raises(StateError, match=r"backup-damaged|no-such-backup"):
        restoring.choose(still, shop.signer)


def resealed(shop: Shop, folder: Path, **changes: Any) -> Path:
    said = msgspec.structs.replace(said_by(shop, folder), **changes)
    document = Shelf(folder).backups()[-1]
    document.write_bytes(backup.seal(said, shop.signer))
    return document


@pytest.mark.parametrize(
    "path",
    [
        *("../evil", "/etc/evil", "tables/../../evil", "tables//x", "./x", "a\0b", "a\nb", "..\\evil", ""),
        *("keys.json", "token", "loop.json", "journal/.x", "/".join("a" * 20), "x" * 2000),
    ],
)
def test_not_even_the_key_lays_files_elsewhere(shop: Shop, still: Path, path: str) -> None:
    files = said_by(shop, still).files
    resealed(shop, still, files=(*files, msgspec.structs.replace(files[0], path=path)))
    with pytest.raises(StateError, match="backup-damaged"):
        shop.restored(still, "elsewhere")
    assert not (shop.folder / "evil").exists() and not (shop.folder / "elsewhere").exists()


def test_another_key_and_a_later_format_are_refused(shop: Shop, still: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(shop, signer=FileSigner(tmp_path / "other" / "key.pem"))
    with pytest.raises(StateError, match="backup-not-signed"):
        other.verified(still)
    resealed(shop, still, format=backup.FORMAT + 1)
    with pytest.raises(StateError, match="backup-is-newer"):
        shop.verified(still)


def test_what_the_facts_name_must_be_there(shop: Shop, still: Path) -> None:
    """Signed by the right key, every digest right, and still not believed: one thing is missing, or of another time."""
    whole = said_by(shop, still)

    def without(wanted: Callable[[str], bool]) -> tuple[File, ...]:
        gone = next(file for file in whole.files if wanted(file.path))
        return tuple(file for file in whole.files if file is not gone)

    session = shop.session()
    named = {d for v in ("sent_back-1", "sent_back-2") for d in _manifest(session, v).artifacts.values()}
    order = msgspec.structs.replace(whole.tables["Order"], rows=whole.tables["Order"].rows - 1)
    lacking: dict[str, dict[str, Any]] = {
        "an artifact": {"files": without(lambda p: p.rpartition("/")[2] in named)},
        "rows": {"files": without(lambda p: p.startswith("tables/Order/") and p.endswith(".parquet"))},
        "the count of rows": {"tables": {**whole.tables, "Order": order}},
        "a table": {"tables": {}, "files": tuple(f for f in whole.files if not f.path.startswith("tables/"))},
        "the end of a log": {"files": without(lambda p: p.endswith(f"{whole.tables['Order'].version:020}.json"))},
        "the head": {"head": msgspec.structs.replace(whole.head, tx=whole.head.tx - 1)},
    }
    for name, changes in lacking.items():
        resealed(shop, still, **changes)
        with pytest.raises(FlyballError, match=r"backup-incomplete|table-unreadable") as raised:
            shop.verified(still)
        assert raised.value.code != "bug", name
        resealed(shop, still, files=whole.files, tables=whole.tables, head=whole.head)
    shop.verified(still)


def _manifest(session: Session, version: str) -> Any:
    from flyball.cycle import artifacts

    return artifacts.load_manifest(session, version)


def test_an_account_without_its_segment_is_missed(shop: Shop, tmp_path: Path) -> None:
    """The server was killed by now: its segments are accounted for, and belong to the backup from then on."""
    session = shop.session()
    account.account(session)
    folder = tmp_path / "accounted"
    copying.take(session, folder)
    said = said_by(shop, folder)
    assert any(file.path.startswith("journal/") for file in said.files)
    shop.verified(folder)
    resealed(shop, folder, files=tuple(f for f in said.files if not f.path.startswith("journal/")))
    with pytest.raises(StateError, match=r"accounts? for"):
        shop.verified(folder)


def test_a_home_that_is_there_is_not_touched(shop: Shop, still: Path, tmp_path: Path) -> None:
    for name, make in {
        "full": lambda home: (home.mkdir(), (home / "mine").write_text("precious")),
        "file": lambda home: home.write_text("precious"),
        "link": lambda home: home.symlink_to(tmp_path),
    }.items():
        make(shop.folder / name)
        with pytest.raises(StateError, match="home-not-empty"):
            shop.restored(still, name)
    assert (shop.folder / "full" / "mine").read_text() == "precious"
    (shop.folder / "empty").mkdir()
    home, _ = shop.restored(still, "empty")
    assert home.stat().st_mode & 0o077 == 0
    assert not any(path.stat().st_mode & 0o077 for path in home.rglob("*"))
    assert not {each.name for each in home.iterdir()} & backup.LEFT_OUT


def test_everything_in_a_home_is_in_a_backup_or_left_out_by_name(shop: Shop, tmp_path: Path) -> None:
    """A new store cannot be forgotten: what no list names is copied, or is said to be left out."""
    session = shop.session()
    inbox = session.home / "inbox" / "clicks"
    inbox.mkdir(parents=True, exist_ok=True)
    (inbox / "posted.jsonl").write_text("{}\n")
    (session.home / "a-link").symlink_to("/etc")
    said_of = copying.take(session, tmp_path / "all")
    (session.home / "a-link").unlink()
    files = {file.path for file in said_by(shop, tmp_path / "all").files}
    assert "inbox/clicks/posted.jsonl" in files and "a-link" in said_of.left_out
    entries = {each.name for each in session.home.iterdir()}
    spoken = {path.partition("/")[0] for path in files} | set(said_of.left_out)
    assert {each for each in entries - spoken if not each.endswith(("-wal", "-shm"))} == set()


def test_the_second_backup_copies_what_is_new(shop: Shop, tmp_path: Path) -> None:
    session, folder = shop.session(), tmp_path / "twice"
    time.sleep(2.1)  # what was written to a moment ago is not believed to be unchanged
    first = copying.take(session, folder)
    second = copying.take(session, folder)
    assert first.copied == first.files and second.copied < 12 < second.files
    third = copying.take(session, folder, keep=2)
    assert third.removed == (Path(first.backup).name,)
    assert [str(each) for each in Shelf(folder).backups()] == [second.backup, third.backup]
    shop.verified(Path(second.backup))
    (folder / "stranger.backup.json").write_text("{}")
    Path(second.backup).write_text("{}")
    fourth = copying.take(session, folder, keep=2)
    assert fourth.removed == (Path(second.backup).name,), "what is not named as a backup is none, and stays"
    shop.verified(Path(third.backup))


def test_the_facts_moving_on_makes_another_cut(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers changes while the journal is copied: that cut is given up; where it never ends, it is said."""
    session, cut = shop.session(), copying._Copier.cut
    versions = iter(("sent_back-1", "sent_back-2", "sent_back-1"))
    changes: list[str] = []

    def moving(self: copying._Copier) -> Any:
        made = cut(self)
        champion = rollout.now(session.facts, "shop", "sent_back").champion
        version = next((v for v in versions if v != champion), None)
        if version is not None:
            operate.promote(session, version, by="test", reason="now", override=True, at_once=True)
            changes.append(version)
        return made

    monkeypatch.setattr(copying._Copier, "cut", moving)
    assert copying.take(session, tmp_path / "moved").cuts == len(changes) + 1 >= 3
    assert said_by(shop, tmp_path / "moved").head == session.facts.head()
    monkeypatch.setattr(backup, "moved", lambda *_: True)
    with pytest.raises(RetryableError, match="backup-never-still"):
        copying.take(session, tmp_path / "never")
    assert Shelf(tmp_path / "never").backups() == []


def test_facts_that_never_rest_are_made_to(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is released within every cut: the last one has them wait, so that a busy home is backed up as well."""
    session, cut = shop.session(), copying._Copier.cut
    waiting: list[threading.Thread] = []

    def promote() -> None:
        other = shop.session()
        champion = rollout.now(other.facts, "shop", "sent_back").champion
        version = "sent_back-1" if champion == "sent_back-2" else "sent_back-2"
        operate.promote(other, version, by="test", reason="now", override=True, at_once=True)

    def moving(self: copying._Copier) -> Any:
        made = cut(self)
        waiting.append(threading.Thread(target=promote))
        waiting[-1].start()
        waiting[-1].join(1 if len(waiting) == copying._TRIES else 30)
        return made

    monkeypatch.setattr(copying._Copier, "cut", moving)
    taken = copying.take(session, tmp_path / "busy")
    waiting[-1].join(30)
    assert taken.cuts == len(waiting) == copying._TRIES
    assert said_by(shop, tmp_path / "busy").head != session.facts.head()
    shop.verified(tmp_path / "busy")


def test_a_backup_appears_last(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no name that is given within its folder is it there already, nor are earlier ones gone."""
    session, seen, replace = shop.session(), list[int](), os.replace

    def watched(source: Any, target: Any) -> None:
        seen.append(len(Shelf(tmp_path).backups()))
        replace(source, target)

    copying.take(session, tmp_path)
    monkeypatch.setattr(os, "replace", watched)
    copying.take(session, tmp_path, keep=1)
    assert len(seen) >= 2 and set(seen) == {1}


def test_a_backup_is_alone_and_elsewhere(shop: Shop, tmp_path: Path) -> None:
    session = shop.session()
    with pytest.raises(StateError, match="backup-inside-home"):
        copying.take(session, session.home / "backups")
    with Shelf(tmp_path).writing(), pytest.raises(RetryableError, match="backup-busy"):
        copying.take(session, tmp_path)
    with pytest.raises(StateError, match="no-such-backup"):
        restoring.choose(tmp_path, shop.signer)
    with pytest.raises(StateError, match="key-missing"):
        restoring.key(tmp_path / "no.pem")


def test_it_is_one_home_however_it_is_named(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delta tells the whole paths of its files, with no link in them."""
    home = shop.project / ".flyball"
    whole = copying.take(shop.session(), tmp_path / "taken")
    (tmp_path / "link").symlink_to(home)
    monkeypatch.chdir(shop.project)
    for named in (Path(".flyball"), Path("..") / shop.project.name / ".flyball", tmp_path / "link"):
        again = copying.take(shop.session(named), tmp_path / "taken")
        assert (again.head, again.files, again.tables) == (whole.head, whole.files, whole.tables)
    with pytest.raises(StateError, match="backup-inside-home"):
        copying.take(shop.session(Path(".flyball")), home / "backups")


def test_leases_are_not_carried_over(shop: Shop, tmp_path: Path) -> None:
    session = shop.session()
    token = session.lease.acquire("shop/loop", "somebody", session.clock.now().replace(year=2999))
    copying.take(session, tmp_path / "leased")
    session.lease.release("shop/loop", "somebody")
    home, _ = shop.restored(tmp_path / "leased", "unleased")
    other = shop.session(home)
    assert other.lease.holder("shop/loop") is None
    again = other.lease.acquire("shop/loop", "me", other.clock.now().replace(year=2999))
    assert token is not None and again == token + 1, "a fencing token never goes back"


def test_a_removal_that_is_recorded_is_allowed(shop: Shop, still: Path, tmp_path: Path) -> None:
    """An erasure takes rows and cached frames away; the same lack without its fact is refused above."""
    session = shop.session()
    examples = _manifest(session, "sent_back-1").artifacts["examples"]
    path = session.home / "artifacts" / examples[:2] / examples
    whole = path.read_bytes()
    said = {"subject": "hash", "column": "customer", "op": "=", "by": "test", "reason": "asked", "versions": ()}
    begun = Erasing(**said, places={}, tables={}, frames=(examples,))
    session.facts.append([Fact("shop", "", begun)])
    session.facts.append([Fact("shop", "", Erased(**said, places={}))])
    path.unlink()
    copying.take(session, tmp_path / "erased")
    path.write_bytes(whole)
    assert shop.verified(tmp_path / "erased").removed > 0


def test_what_killed_checks_and_restores_left_is_cleared_and_living_ones_are_not(tmp_path: Path) -> None:
    (tmp_path / ".x-killed").mkdir()
    (tmp_path / ".x-killed" / "facts.sqlite").write_text("half")
    with shelf.aside(tmp_path, ".x-") as living:
        assert not (tmp_path / ".x-killed").exists()
        with shelf.aside(tmp_path, ".x-") as other:
            assert living.exists() and other != living
        assert living.exists() and not other.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_made_is_said(shop: Shop, still: Path) -> None:
    found = restoring.choose(still, shop.signer)
    with pytest.raises(AdapterError, match="home-not-made"):
        restoring.restore(found, Path("/dev/null/home"), shop.signer, SystemClock(), places.PROJECTIONS)


def test_a_folder_holds_the_backups_of_one_home(shop: Shop, still: Path) -> None:
    resealed(shop, still, home="0" * 64)
    before = Shelf(still).backups()
    with pytest.raises(StateError, match="backup-of-another-home"):
        copying.take(shop.session(), still, keep=1)
    assert Shelf(still).backups() == before


def test_the_backup_that_was_just_made_is_kept_though_the_clock_was_set_back(shop: Shop, tmp_path: Path) -> None:
    session = shop.session()
    first = Path(copying.take(session, tmp_path).backup)
    later = first.with_name("9" + first.name[1:])
    first.rename(later)
    taken = copying.take(session, tmp_path, keep=1)
    assert taken.removed == (later.name,) and Path(taken.backup).is_file()
