"""Arrivals: what the sources show now, beside what was ingested of them before.

A file is told by its name and its content, and what becomes of it by its **recipe**, the fingerprint of its preparation and its
contract. What was ingested under all three is not pending; a file that changed, went, or repeats another is said.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import msgspec

from flyball._kernel import facts
from flyball._kernel.errors import AdapterError, DataError, FlyballError
from flyball._kernel.facts import Projection, Said, Stored
from flyball.cycle import causes
from flyball.cycle.session import Session
from flyball.data import standing, together
from flyball.data.ingest import Ingested
from flyball.data.kinds import UNKNOWN
from flyball.data.source import File, Files, Source
from flyball.data.withdrawal import Withdrawn

_TOLD = 5
"""Names that are told of many."""
_FEW = 64
"""Rows that are asked for one by one: each costs about as much as to look through a few hundred."""


class SourceComplete(Said, frozen=True, kw_only=True, tag="cycle.source_complete"):
    """All files of a source were ingested for the first time: its history ends here, and its life begins."""

    source: str
    files: int


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Since when the rows of a file's content may be known, None for history: kept, whatever its recipe is later."""

    known_from: datetime | None


def _key(fact: Stored) -> str:
    said = facts.decode(fact, Ingested)
    return facts.about(fact, "|".join((said.source, said.file, said.digest, said.recipe)))


def _seen_key(fact: Stored) -> str:
    said = facts.decode(fact, Ingested)
    return facts.about(fact, said.source, said.digest)


def _fold_seen(row: bytes | None, fact: Stored) -> bytes:
    return row or facts.encode(Seen(known_from=facts.decode(fact, Ingested).known_from))


_KINDS = frozenset({facts.kind(Ingested)})


INGESTED = Projection("data.ingested", _KINDS, _key, lambda _, fact: fact.said)


SEEN = Projection("data.seen", _KINDS, _seen_key, _fold_seen)


WITHDRAWN = Projection(
    "data.withdrawn",
    frozenset({facts.kind(Withdrawn)}),
    lambda fact: facts.about(fact, facts.decode(fact, Withdrawn).table),
    lambda _, fact: fact.said,
)


def _fold_last(row: bytes | None, fact: Stored) -> bytes:
    """The greatest batch of a table that the facts know."""
    said = facts.decode(fact, Ingested) if fact.kind == facts.kind(Ingested) else facts.decode(fact, Withdrawn)
    return str(max(said.batch, int(row or b"0"))).encode()


def _table_key(fact: Stored) -> str:
    said = facts.decode(fact, Ingested) if fact.kind == facts.kind(Ingested) else facts.decode(fact, Withdrawn)
    return facts.about(fact, said.table)


LAST = Projection("data.last", frozenset({facts.kind(Ingested), facts.kind(Withdrawn)}), _table_key, _fold_last)


COMPLETE = Projection(
    "data.complete",
    frozenset({facts.kind(SourceComplete)}),
    lambda fact: facts.about(fact, facts.decode(fact, SourceComplete).source),
    lambda _, fact: fact.said,
)


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that is to be ingested, and why."""

    source: Source
    file: File
    recipe: str
    why: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What keeps a file from being ingested; a whole source, where `file` is ""."""

    source: Source
    file: str
    problem: FlyballError

    def __str__(self) -> str:
        return f"{self.file or self.source.name} [{self.problem.code}]"


@dataclass(frozen=True, slots=True)
class Look:
    """What the sources show now.

    Attributes:
        pending: the files that the next apply would ingest, in order.
        hidden: the sources that could not be looked at, and why.
        notes: what a person should know besides: files that were ingested and are gone, batches that were withdrawn.
    """

    pending: tuple[Pending, ...]
    hidden: tuple[Failure, ...]
    notes: tuple[str, ...]


def look(session: Session, only: Collection[str] | None = None) -> Look:
    """Look at every source, or at those of these names; one that cannot be looked at keeps no other waiting.

    Raises:
        DeclarationError: see `source.Reader`.
    """
    found: list[Pending] = []
    hidden: list[Failure] = []
    notes: list[str] = []
    for source in session.app.sources:
        if only is not None and source.name not in only:
            continue
        if source.at.together:
            _look_at_many(session, source, found, hidden)
            continue
        past = ingested(session, source.name)
        read = [said for said in past if standing.origin(said) is None]  # a replay reads no file
        earlier = dict.fromkeys(
            File(said.file, said.digest, UNKNOWN) for said in sorted(read, key=lambda said: said.batch)
        )
        last = next(reversed(earlier), None)
        try:
            files = session.reader.files(source, last.name if last else None)
        except (DataError, AdapterError) as problem:
            hidden.append(Failure(source, "", problem))
            continue
        recipe = causes.recipe(source)
        if source.at.slices:  # those that were read are found by their name alone, should their recipe have changed
            files = (*earlier, *files)
        before = {(said.file, said.digest, said.recipe) for said in past}
        names = {said.digest: said.file for said in past}
        found += [
            Pending(source, file, recipe, _why(file, names))
            for file in files
            if (file.name, file.digest, recipe) not in before
        ]
        gone = sorted({said.file for said in past} - {file.name for file in files})
        if gone and isinstance(source.at, Files):  # other kinds of sources show each slice only once
            notes.append(f"{source.name}: gone, and what was ingested of them stays: {some(gone)}.")
    return Look(tuple(found), tuple(hidden), (*notes, *_withdrawn(session)))


def _look_at_many(session: Session, source: Source, found: list[Pending], hidden: list[Failure]) -> None:
    """What a source of many small files shows: each is asked about by itself, for those that are ingested may be millions."""
    try:
        files = session.reader.files(source, None)
    except (DataError, AdapterError) as problem:
        hidden.append(Failure(source, "", problem))
        return
    if files:
        recipe, done = causes.recipe(source), already(session, source, files)
        found += [Pending(source, file, recipe, "new") for file in files if file not in done]


def already(session: Session, source: Source, files: Collection[File]) -> frozenset[File]:
    """Those of the files that are ingested with this content, by whatever recipe.

    Of many small files that is all that is asked: one that was taken in, and is sent again, says nothing new, though its
    preparation changed meanwhile; as a correction it would put what it says over what came after it.
    """
    about = f"{session.app.name}//{source.name}|"
    told = {f"{about}{file.name}|{file.digest}": file for file in files}
    prefixes = [about] if len(told) > _FEW else [f"{each}|" for each in told]
    keys = (key.rpartition("|")[0] for prefix in prefixes for key, _ in session.facts.scan(INGESTED.name, prefix))
    return frozenset(told[key] for key in keys if key in told)


def _rows_of(session: Session, projection: str, about: str, keys: Collection[str]) -> dict[str, bytes]:
    """The rows of those of the keys that are there; all begin with `about`. Few are asked for, many are looked through."""
    if len(keys) > _FEW:
        return {key: row for key, row in session.facts.scan(projection, about) if key in keys}
    found = ((key, session.facts.get(projection, key)) for key in keys)
    return {key: row for key, row in found if row is not None}


def last_known(session: Session, table: str) -> int:
    """The last batch of a table that the facts know; 0 for none."""
    return int(session.facts.get(LAST.name, f"{session.app.name}//{table}") or b"0")


def _withdrawn(session: Session) -> list[str]:
    """What the last rollback of each table took, for its files will not come back by themselves."""
    rows = session.facts.scan(WITHDRAWN.name, f"{session.app.name}//")
    last = [msgspec.json.decode(row, type=Withdrawn) for _, row in rows]
    return [
        f"{said.table}: {some([str(n) for n in said.batches])} withdrawn by batch {said.batch} ({said.reason}); their "
        "files are read again only if they, their preparation or their contract change."
        for said in last
        if said.batches
    ]


def groups(pending: Sequence[Pending]) -> Iterator[list[Pending]]:
    """What is ingested with one commit: of a source of many small files as many as may be, of any other each file alone."""
    for _, one_after_the_other in groupby(pending, key=lambda each: each.source.name):
        by_file = {each.file: each for each in one_after_the_other}
        if next(iter(by_file.values())).source.at.together:
            yield from ([by_file[file] for file in group] for group in together.groups(list(by_file)))
        else:
            yield from ([each] for each in by_file.values())


def _why(file: File, before: Mapping[str, str]) -> str:
    """Why a file is to be ingested; `before` is what was: digest -> name."""
    if file.name in before.values():
        return "its preparation or contract changed" if file.digest in before else "its content changed"
    return f"new file, repeats {before[file.digest]}" if file.digest in before else "new file"


def some(names: Sequence[str]) -> str:
    """A few of them, and how many there are."""
    more = f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was ingested with one content, and later with another.

    Attributes:
        batches: of its contents, in order; the rows of the earlier ones are corrected, or stay as they are.
    """

    source: str
    file: str
    batches: list[int]


def changed(session: Session) -> list[Changed]:
    """The past files whose content changed after they were ingested."""
    contents: dict[tuple[str, str], dict[str, int]] = {}
    for source in session.app.sources:
        for said in sorted(ingested(session, source.name), key=lambda said: said.batch):
            contents.setdefault((said.source, said.file), {}).setdefault(said.digest, said.batch)
    return [
        Changed(source=source, file=file, batches=sorted(found.values()))
        for (source, file), found in sorted(contents.items())
        if len(found) > 1
    ]


def rewritten(session: Session, said: Sequence[Ingested]) -> list[str]:
    """Those of the files that were just ingested that had another content before."""
    now = {(each.source, each.batch) for each in said}
    return [each.file for each in changed(session) if (each.source, each.batches[-1]) in now] if now else []


def seen(session: Session, source: Source, files: Sequence[File]) -> dict[str, Seen]:
    """Digest -> what is known of a file's content since its first reading; of those that were ever read."""
    about = f"{session.app.name}//{source.name}/"
    rows = _rows_of(session, SEEN.name, about, {about + file.digest for file in files})
    return {key.removeprefix(about): msgspec.json.decode(row, type=Seen) for key, row in rows.items()}


def ingested(session: Session, source: str) -> list[Ingested]:
    """What was ingested from a source."""
    rows = session.facts.scan(INGESTED.name, f"{session.app.name}//{source}|")
    found = (msgspec.json.decode(row, type=Ingested) for _, row in rows)
    return [said for said in found if said.source == source]  # the name of another may go on with "|"
