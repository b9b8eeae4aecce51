"""A backup: what it says of itself, signed, and the proof that what was laid out from it holds together.

A **cut** is consistent when everything that the facts of one moment name is in it: artifacts, batches of tables, segments of
the journal; and when nothing else in it speaks of facts that came later. Tables may be ahead of the facts: the tables decide,
and the next apply records what they have and the facts lack, as after a crash.

`prove` asks it of a home that was laid out anew, over the ports alone: the chain of facts, every signature, every artifact of
every version, every batch against its account, every segment against its own. Nothing is believed because it was copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
import polars as pl

from flyball._kernel import facts as kernel
from flyball._kernel import history
from flyball._kernel.errors import FlyballError, StateError
from flyball._kernel.facts import Anchor, Head, Stored
from flyball._kernel.ports import Blobs, Facts, Signer
from flyball.cycle.account import Accounted
from flyball.data.ingest import Ingested
from flyball.data.tables import BATCH, Tables
from flyball.release import version
from flyball.release.version import Manifest, Registered, Row
from flyball.serve.journal import Journal

FORMAT: Final = 1
"""The layout of a backup; grows with every change to it."""

REMOVES: Final = frozenset(
    {"cycle.erasing", "cycle.erased", "data.retaining", "data.retained", "serve.dropping", "serve.dropped"}
)
"""Facts after which rows, answers and cached frames may be fewer than was once recorded."""

LEFT_OUT: Final = frozenset(
    {"keys.json", "token", "route.json", "loop.json", "alerts.jsonl", "alerts.webhook.json", "cache"}
)
"""What no backup holds: secrets, what is derived from facts when it is next needed, and what says that a process lives."""

_DEEPEST, _LONGEST = 16, 1000


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a home.

    Attributes:
        path: relative to the home, with / between its parts.
        digest: SHA-256 of the bytes in the backup, by which they are found there.
        size: bytes.
        stamp: size and times of the original when it was read, by which the next backup knows it unchanged; empty where it
            had been written to a moment before.
    """

    path: str
    digest: str
    size: int
    stamp: tuple[int, ...] = ()


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a table in the cut: its last batch, its commit, and the rows of all its batches."""

    batch: int
    version: int
    rows: int


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a backup says of itself.

    Attributes:
        format: `FORMAT` of the release that made it.
        flyball: that release.
        taken: when.
        head: the end of the facts in it.
        home: the hash of their first transaction, which tells one home from another; "" in the earliest ones.
        tables: the end of each table.
        files: every file, by its path.
        left_out: entries of the home that are not in it, by their names.
    """

    format: int
    flyball: str
    taken: datetime
    head: Head
    home: str = ""
    tables: dict[str, Table]
    files: tuple[File, ...]
    left_out: tuple[str, ...] = ()


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """The exact bytes of what a backup says, and the signature over them."""

    backup: msgspec.Raw
    signature: str


class _Format(msgspec.Struct, frozen=True):
    format: int


@dataclass(frozen=True, slots=True)
class Laid:
    """The places of a home that was laid out from a backup."""

    facts: Facts
    blobs: Blobs
    tables: Tables
    journal: Journal
    signer: Signer


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was found to hold.

    Attributes:
        head: the end of the facts, which is the one that was signed.
        versions: registered versions whose manifests are signed,
        artifacts: and the artifacts that they name, each with the bytes of its name.
        rows: by table, as they were counted.
        segments: segments of the journal,
        answers: what they hold,
        refused: what they turned away,
        unknown: and numbers that may have been handed out and are nowhere.
        removed: artifacts and batches that have become fewer by an erasure or a retention that the facts record.
    """

    head: Head
    versions: int
    artifacts: int
    rows: dict[str, int]
    segments: int
    answers: int
    refused: int
    unknown: int
    removed: int


def seal(backup: Backup, signer: Signer) -> bytes:
    """What a backup says, signed."""
    data = msgspec.json.encode(backup, order="deterministic")
    return msgspec.json.encode(Signed(backup=msgspec.Raw(data), signature=signer.sign(_covered(data))))


def unseal(data: bytes, signer: Signer) -> Backup:
    """What a backup says, once its signature is found to be this key's.

    Raises:
        StateError: `backup-not-signed`; `backup-is-newer`; `backup-damaged`, where it names what no home has.
    """
    try:
        signed = msgspec.json.decode(data, type=Signed)
        trusted = signer.verify(_covered(bytes(signed.backup)), signed.signature)
        written = msgspec.json.decode(signed.backup, type=_Format).format if trusted else 0
        if trusted and written > FORMAT:
            raise StateError(
                "backup-is-newer",
                f"The backup was made by a later release (format {written}; this one knows {FORMAT}).",
                next="Restore it with that release.",
            )
        backup = msgspec.json.decode(signed.backup, type=Backup) if trusted else None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        backup = None
    if backup is None:
        raise StateError(
            "backup-not-signed",
            "What the backup says of itself was not signed by the key in use, or was changed.",
            why="Its signature covers every name, size and digest in it; the rest could be anybody's.",
            next="Use the key of the home that was backed up (FLYBALL_KEY), or another backup.",
        )
    names = [file.path for file in backup.files]
    strange = next((name for name in names if not allowed(name)), None)
    if strange is not None or len(set(names)) != len(names):
        raise StateError(
            "backup-damaged",
            "The backup names a file that no home has, or one file twice.",
            why=f"Found: {strange or 'a repeated name'!r:.200}. A name must stay below the home.",
            next="Use another backup, and find out who can write to this one and has the key.",
        )
    return backup


def allowed(path: str) -> bool:
    """Whether a backup may hold a file of that path: below the home, plain, and nothing that a home makes anew."""
    parts = path.split("/")
    plain = all(part and part[0] != "." and part.isprintable() and "\\" not in part for part in parts)
    return plain and len(parts) <= _DEEPEST and len(path) <= _LONGEST and parts[0] not in LEFT_OUT


def moved(log: Facts, seq: int) -> bool:
    """Whether something was recorded after fact `seq` that files copied since may already speak of.

    That is: who answers has changed, or something was removed.
    """
    return any(fact.kind.startswith("release.") or fact.kind in REMOVES for fact in log.read(after=seq))


def prove(laid: Laid, backup: Backup) -> Proof:
    """Check a home that was laid out from a backup, end to end.

    Raises:
        StateError: `backup-incomplete`; `history-broken`, `history-truncated`, `signature-broken`, `artifact-changed`, as
            where they are found in a living home.
        AdapterError: `store-damaged`, `table-unreadable`, `journal-unreadable`.
    """
    head = laid.facts.verify()
    if head != backup.head:
        raise _incomplete(f"its facts end at transaction {head.tx}, and not as transaction {backup.head.tx} was signed")
    removes = any(True for _ in laid.facts.read(kinds=REMOVES))
    held = {file.digest for file in backup.files}
    manifests = list(_manifests(laid))
    artifacts = gone = 0
    for manifest in manifests:
        for name, digest in manifest.artifacts.items():
            if removes and digest not in held:
                gone += 1
                continue
            _sound(laid.blobs, digest, f"{name} of {manifest.version}")
            artifacts += 1
    rows, fewer = _tables(laid, backup, removes=removes)
    proof, heads = _journal(laid, removes=removes)
    history.holds(laid.facts, *(manifest.head for manifest in manifests), *heads)
    return msgspec.structs.replace(
        proof, head=head, versions=len(manifests), artifacts=artifacts, rows=rows, removed=gone + fewer
    )


def _manifests(laid: Laid) -> Iterator[Manifest]:
    for fact in laid.facts.read(kinds=frozenset({kernel.kind(Registered)})):
        said = kernel.decode(fact, Registered)
        row = Row(version=said.version, manifest=said.manifest, registered=fact.at)
        yield version.read(fact.app, row, laid.blobs, laid.signer)


def _sound(blobs: Blobs, digest: str, what: str) -> None:
    try:
        blobs.get(digest)
    except FlyballError as problem:
        raise _incomplete(f"the artifact {what} is not there as it was named ({problem.code})") from problem


def _tables(laid: Laid, backup: Backup, *, removes: bool) -> tuple[dict[str, int], int]:
    """The rows of every table as counted, and how many batches have become fewer."""
    accepted: dict[str, dict[int, int]] = {}
    for fact in laid.facts.read(kinds=frozenset({kernel.kind(Ingested)})):
        said = kernel.decode(fact, Ingested)
        accepted.setdefault(said.table, {})[said.batch] = said.accepted
    fewer, rows = 0, dict[str, int]()
    for table in sorted(backup.tables.keys() | accepted.keys()):
        cut = backup.tables.get(table, Table(batch=0, version=-1, rows=0))
        if laid.tables.head(table).batch != cut.batch:
            raise _incomplete(f"the table {table} does not end at batch {cut.batch}, as was signed")
        batches = laid.tables.scan(table, cut.batch, {BATCH: pl.Int64()}).group_by(BATCH).len().collect()
        counted = {int(batch): int(n) for batch, n in batches.rows()}
        rows[table] = sum(counted.values())
        if rows[table] != cut.rows:
            raise _incomplete(f"the table {table} has {rows[table]:,} rows, and not {cut.rows:,}, as was signed")
        for batch, wanted in accepted.get(table, {}).items():
            found = counted.get(batch, 0)
            if found > wanted or (found < wanted and not removes):
                raise _incomplete(
                    f"batch {batch} of the table {table} has {found:,} rows, and its account says {wanted:,}"
                )
            fewer += found < wanted
    return rows, fewer


def _journal(laid: Laid, *, removes: bool) -> tuple[Proof, list[Anchor]]:
    """What the segments hold, against what the facts say of those that were accounted for; and the heads that they name."""
    found = {each.segment: each for each in laid.journal.recover()}
    for fact in laid.facts.read(kinds=frozenset({kernel.kind(Accounted)})):
        _accounted(fact, found[name].recorded if (name := _segment(fact)) in found else None, removes=removes)
    ends = [each.header.head for each in found.values()]
    proof = Proof(
        head=kernel.START,
        versions=0,
        artifacts=0,
        rows={},
        segments=len(found),
        answers=sum(each.recorded for each in found.values()),
        refused=sum(each.refused for each in found.values()),
        unknown=sum(each.unknown for each in found.values()),
        removed=0,
    )
    return proof, [end.anchor() for end in ends]


def _segment(fact: Stored) -> str:
    return kernel.decode(fact, Accounted).segment


def _accounted(fact: Stored, recorded: int | None, *, removes: bool) -> None:
    said = kernel.decode(fact, Accounted)
    if recorded is None:
        raise _incomplete(f"the segment {said.segment} of the journal, which the facts account for, is not there")
    if recorded > said.recorded or (recorded < said.recorded and not removes):
        raise _incomplete(f"segment {said.segment} holds {recorded:,} answers, and its account says {said.recorded:,}")


def _incomplete(why: str) -> StateError:
    return StateError(
        "backup-incomplete",
        f"The backup does not hold together: {why}.",
        why="Everything that its facts name must be in it, with the bytes, rows and counts that were recorded.",
        next="Use an earlier backup, and try with `flyball backup --verify` those that you keep.",
    )


def _covered(data: bytes) -> bytes:
    return b"flyball/backup/1:" + data
