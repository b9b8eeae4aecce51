"""The backup of a home of files, while servers, loop and trainings go on in it.

The order of a cut: what is handed on to the tables (the inbox, online features), the facts of one moment, then what they name:
outcomes, tables, quarantines, the journal, artifacts, the tokens of persons. So everything that the facts speak of is copied
after them, and nothing that hands on to the tables is copied after these. Where the facts meanwhile record what the later
copies may speak of (who answers changed, something was removed) the cut is made anew; since all that has not changed is there
already, soon. Where they never come to rest, the last cut makes them: nobody else records while it lasts.

SQLite's own backup copies each database as of one moment without stopping its writers; the rest is never changed once it is
there. Leases are copied as given back: no process of the old home lives in the new one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from flyball._kernel.clock import Clock, micros
from flyball._kernel.errors import AdapterError, RetryableError, StateError
from flyball._kernel.facts import Head
from flyball._kernel.ports import Facts, Signer
from flyball.adapters.embedded import journal_archive, journal_index, journal_moves
from flyball.adapters.embedded.database import Database
from flyball.adapters.embedded.journal_archive import DeltaArchive
from flyball.adapters.embedded.shelf import DATABASE, Shelf
from flyball.adapters.embedded.tables import DeltaTables
from flyball.cycle import backup
from flyball.cycle.backup import Backup, File, Table
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.data import quarantine
from flyball.serve.journal import Segment

FACTS, ONLINE, OUTCOMES, VAULT = "facts.sqlite", "online.sqlite", "outcomes.sqlite", "vault.sqlite"
TABLES, JOURNAL, ARTIFACTS = "tables", "journal", "artifacts"
_BESIDE: Final = ("-wal", "-shm", "-journal", ".lock", ".new", ".part", ".tmp")
"""How names end that belong to a running process."""
_TRIES: Final = 5
_QUIET: Final = 2_000_000
"""Microseconds: a file that was written to within them before it was read may be written to again under the same time."""
_LOG: Final = "_delta_log"


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made.

    Attributes:
        backup: the path of its document.
        head: the hash of the end of the facts in it, after `transactions`.
        files: in it, with so many `bytes`; `copied` and `copied_bytes` were new in the folder.
        cuts: how often it was begun, because the facts moved on in what matters.
        left_out: entries of the home that are not in it.
        removed: earlier backups that are no longer kept.
    """

    backup: str
    head: str
    transactions: int
    tables: dict[str, Table]
    files: int
    bytes: int
    copied: int
    copied_bytes: int
    cuts: int
    left_out: tuple[str, ...]
    removed: tuple[str, ...]


class _MovedError(Exception):
    """What is copied was removed or went on meanwhile: begin anew."""


def take(session: Session, to: Path, keep: int | None = None, tell: Tell = silent) -> Taken:
    """Make a backup of a session's home in a folder, which may hold earlier ones.

    Args:
        to: the folder of backups, outside the home.
        keep: how many backups are kept, this one included; None keeps all.
        tell: told when it begins, and when it begins anew.

    Raises:
        StateError: `nothing-to-back-up`, `backup-inside-home`, `backup-of-another-home`; `artifact-changed`.
        AdapterError: `backup-unwritable`, `backup-copy-failed`.
        RetryableError: `backup-busy`, `backup-never-still`, `disk-full`.
    """
    home = session.home.resolve()  # as tables name their files
    if not (home / FACTS).is_file():
        raise StateError("nothing-to-back-up", f"There is nothing in {home} yet.", next="flyball apply")
    if to.resolve().is_relative_to(home):
        raise StateError(
            "backup-inside-home",
            f"The backup would lie in {to}, within the home itself.",
            why="What takes the home away would take its backups with it, and each would hold those before.",
            next="Name a folder elsewhere, on another disk if there is one.",
        )
    shelf = Shelf(to)
    with shelf.writing():
        before = _latest(shelf, session.signer)
        copier = _Copier(home, shelf, session.clock, before)
        made, cuts = _still(copier, session.facts, tell)
        _refuse_other(to, home, before, made)
        path = shelf.publish(f"{made.taken:%Y%m%dT%H%M%S%fZ}-{made.head.tx:08d}", backup.seal(made, session.signer))
        removed = _thin_out(shelf, session.signer, path, keep)
    return Taken(
        backup=str(path),
        head=made.head.hash,
        transactions=made.head.tx,
        tables=made.tables,
        files=len(made.files),
        bytes=sum(file.size for file in made.files),
        copied=copier.copied,
        copied_bytes=copier.copied_bytes,
        cuts=cuts,
        left_out=made.left_out,
        removed=removed,
    )


class _Copier:
    """Copies a home to a shelf; what it has seen unchanged it does not read again."""

    def __init__(self, home: Path, shelf: Shelf, clock: Clock, before: Backup | None) -> None:
        self._home, self._shelf, self._clock = home, shelf, clock
        self._seen = {file.path: file for file in before.files} if before is not None else {}
        self.copied = self.copied_bytes = 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else records a fact meanwhile."""
        with closing(Database(self._home / FACTS)) as database, database.write():
            yield

    def cut(self) -> tuple[Backup, int]:
        """One cut, and the number of its last fact."""
        taken = self._clock.now()
        files, left = self._others()
        facts, (head, first), seq = self._facts()
        files += [facts, *self._databases(OUTCOMES)]
        tables: dict[str, Table] = {}
        names = sorted(p.name for p in self._folder(TABLES) if (p / _LOG).is_dir())
        # A quarantine is ahead of its table, never behind: so it is copied after all tables.
        for name in sorted(names, key=lambda name: (name.endswith(quarantine.table("")), name)):
            tables[name], own = self._table(self._home / TABLES / name)
            files += own
        files += self._journal(head)
        files += self._artifacts()
        files += self._databases(VAULT)  # last, so that it knows every token that a row or an answer names
        made = Backup(
            format=backup.FORMAT,
            flyball=metadata.version("flyball"),
            taken=taken,
            head=head,
            home=first,
            tables=tables,
            files=tuple(files),
            left_out=tuple(left),
        )
        return made, seq

    def _others(self) -> tuple[list[File], list[str]]:
        """What is neither facts nor named by them, such as the inbox, online features and reports; and what is left out."""
        files: list[File] = []
        left: list[str] = []
        for path in self._folder("."):
            if path.name in (FACTS, OUTCOMES, VAULT, TABLES, JOURNAL, ARTIFACTS) or path.name.endswith(_BESIDE):
                continue
            if path.name in backup.LEFT_OUT or path.is_symlink():
                left.append(path.name)
                continue
            for each in _plain_files(path):
                relative = self._relative(each)
                if backup.allowed(relative) and not each.name.endswith(_BESIDE):
                    # One that is gone by now was taken into a table, which is copied later.
                    with suppress(FileNotFoundError):
                        files.append(self._file(each))
                elif not each.name.endswith(_BESIDE):
                    left.append(relative)
        return files, sorted(left)

    def _facts(self) -> tuple[File, tuple[Head, str], int]:
        """The facts, their end and the hash of their beginning, and the number of the last."""
        part = self._shelf.part()
        _copy_database(self._home / FACTS, part)
        with closing(sqlite3.connect(part)) as copy, copy:
            copy.execute("UPDATE leases SET holder = ''")
            last = "SELECT tx, chain, trace, signature FROM transactions ORDER BY tx DESC LIMIT 1"
            found = copy.execute(last).fetchone()
            (seq,) = copy.execute("SELECT max(seq) FROM facts").fetchone()
            (first,) = copy.execute("SELECT chain FROM transactions ORDER BY tx LIMIT 1").fetchone() or ("",)
        if found is None:
            part.unlink()
            raise StateError("nothing-to-back-up", f"There is nothing in {self._home} yet.", next="flyball apply")
        tx, chain, trace, signature = found
        digest, size = self._adopt(part)
        head = Head(tx=tx, hash=chain, trace=trace, signature=signature)
        return File(path=FACTS, digest=digest, size=size), (head, str(first)), int(seq)

    def _databases(self, *names: str) -> list[File]:
        return [self._file(self._home / name) for name in names if (self._home / name).is_file()]

    def _table(self, folder: Path) -> tuple[Table, list[File]]:
        """A table as of one commit: the log up to it, and the files that it names."""
        for _ in range(_TRIES):
            # A vacuum, or a clean-up of the log, may remove what was listed: then another commit is the end.
            with suppress(FileNotFoundError, DeltaError):
                head = DeltaTables(folder.parent).head(folder.name)
                delta = DeltaTable(folder, version=head.version)
                table = Table(batch=head.batch, version=head.version, rows=delta.count())
                paths = [Path(uri) for uri in delta.file_uris()]
                log = (path for path in (folder / _LOG).iterdir() if _is_log(path.name, head.version))
                return table, [self._file(path) for path in (*sorted(log), *sorted(paths))]
        raise _MovedError

    def _journal(self, head: Head) -> Iterator[File]:
        for path in self._folder(JOURNAL):
            segment = Segment.parse(path.name.removesuffix(DATABASE)) if path.name.endswith(DATABASE) else None
            if segment is None:
                continue
            # One that is gone by now was archived, and the archive is copied after it.
            with suppress(journal_moves.GoneError, FileNotFoundError):
                if self._relative(path) not in self._seen:
                    with journal_moves.reading(path, segment) as read:
                        later = read.header.head.tx > head.tx
                    if later:
                        raise _MovedError
                yield self._file(path)
        yield from self._archive(self._home / JOURNAL, head)

    def _archive(self, place: Path, head: Head) -> list[File]:
        """The archive as of one commit, and its index after it: what that intends is none of this commit's."""
        archive = DeltaArchive(place)
        if any(account.header.head.tx > head.tx for account in archive.moved()):
            raise _MovedError
        folder = place / journal_archive.NAME
        if not (folder / _LOG).is_dir():
            return []
        return [*self._table(folder)[1], self._file(place / journal_index.NAME)]

    def _artifacts(self) -> Iterator[File]:
        for folder in self._folder(ARTIFACTS):
            for path in _plain_files(folder):
                with suppress(FileNotFoundError):  # an erasure removed it; `_still` sees that
                    file = self._file(path)
                    if file.digest != path.name:
                        raise StateError(
                            "artifact-changed",
                            f"The artifact {path.name} in {self._home} is not what was stored",
                            why="Its bytes no longer have the SHA-256 that is its name; a backup would keep the damage.",
                            next="delete that file, then restore it from a backup or let `flyball apply` make it again",
                        )
                    yield file

    def _file(self, path: Path) -> File:
        """A file of the home, copied unless it is as it was when it was last copied."""
        relative, now, stamp = self._relative(path), micros(self._clock.now()), _stamp(path)
        seen = self._seen.get(relative)
        if seen is not None and seen.stamp == stamp and self._shelf.has(seen):
            return seen
        if path.name.endswith(DATABASE):
            part = self._shelf.part()
            _copy_database(path, part)
            digest, size = self._adopt(part)
        else:
            digest, size = self._shelf.add(path)
            self._count(size)
        quiet = all(changed // 1000 < now - _QUIET for changed in stamp[1::2])
        self._seen[relative] = file = File(path=relative, digest=digest, size=size, stamp=stamp if quiet else ())
        return file

    def _adopt(self, part: Path) -> tuple[str, int]:
        digest, size = self._shelf.adopt(part)
        self._count(size)
        return digest, size

    def _count(self, size: int) -> None:
        self.copied += 1
        self.copied_bytes += size

    def _folder(self, name: str) -> list[Path]:
        place = self._home / name
        return sorted(p for p in place.iterdir() if not p.name.startswith(".")) if place.is_dir() else []

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._home).as_posix()


def _still(copier: _Copier, facts: Facts, tell: Tell) -> tuple[Backup, int]:
    """A cut after whose facts nothing was recorded that the rest of it may speak of, and how many it took."""
    for cuts in range(1, _TRIES + 1):
        tell(Event(step="backup", state="run", detail="again, the facts moved on" if cuts > 1 else ""))
        # Whoever records waits for the last cut as for one another, `PATIENCE` long; those before it left it little to copy.
        with suppress(_MovedError), copier.alone() if cuts == _TRIES else nullcontext():
            made, seq = copier.cut()
            if not backup.moved(facts, seq):
                return made, cuts
    raise RetryableError(
        "backup-never-still",
        f"{_TRIES} times something was removed while the backup was made.",
        why="Answers and tables must not speak of what the facts in the same backup do not know yet.",
        next="Try again; what was copied is kept, so that it takes less time.",
    )


def _refuse_other(to: Path, home: Path, before: Backup | None, made: Backup) -> None:
    if before is not None and before.home not in ("", made.home):
        raise StateError(
            "backup-of-another-home",
            f"The backups in {to} are of another home than {home}.",
            why="The newest one is restored, and --keep removes the oldest, whosever they are.",
            next="Name a folder for the backups of this home alone.",
        )


def _latest(shelf: Shelf, signer: Signer) -> Backup | None:
    """The newest backup, for what has not changed since; none where it cannot be believed."""
    for document in reversed(shelf.backups()):
        with suppress(StateError):
            return backup.unseal(shelf.document(document), signer)
    return None


def _thin_out(shelf: Shelf, signer: Signer, made: Path, keep: int | None) -> tuple[str, ...]:
    """Remove the backups beyond `keep`, and all bytes that none names; none of these while one cannot be read."""
    # The one just made stays, whatever its clock says: one that was set back would have it be the oldest.
    documents = sorted(shelf.backups(), key=lambda each: (each == made, each))
    gone = documents[: max(0, len(documents) - keep)] if keep is not None else []
    for document in gone:
        document.unlink()
    kept: set[str] = set()
    for document in documents[len(gone) :]:
        try:
            kept |= {file.digest for file in backup.unseal(shelf.document(document), signer).files}
        except StateError:
            return tuple(each.name for each in gone)
    shelf.sweep(kept)
    return tuple(each.name for each in gone)


def _copy_database(source: Path, to: Path) -> None:
    """A SQLite database as of one moment, while others write to it; it keeps no log beside it."""
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as original,
            closing(sqlite3.connect(to)) as copy,
        ):
            # In one step: by several, every commit of another process would have it begin anew.
            original.backup(copy)
    except sqlite3.Error as error:
        to.unlink(missing_ok=True)
        raise AdapterError(
            "backup-copy-failed",
            f"The database {source.name} cannot be copied.",
            why=str(error),
            next="Free space where the backup lies; if the database itself is damaged, restore it from an earlier backup.",
        ) from error


def _plain_files(path: Path) -> Iterator[Path]:
    """A plain file, or all below a folder; links are not followed, and what has a dot before it is not finished."""
    if path.is_symlink() or path.is_file():
        yield from () if path.is_symlink() else (path,)
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            each
            for name in sorted(names)
            if not name.startswith(".") and not (each := Path(folder) / name).is_symlink()
        )


def _is_log(name: str, last: int) -> bool:
    """Whether it is an entry or a checkpoint of a Delta log, up to a commit."""
    number, _, rest = name.partition(".")
    known = rest == "json" or (rest.startswith("checkpoint.") and rest.endswith((".parquet", ".json")))
    return number.isdecimal() and len(number) == 20 and int(number) <= last and known


def _stamp(path: Path) -> tuple[int, ...]:
    """(size, time of change) of a file, and of the log beside a database."""
    found = path.stat()
    stamp: tuple[int, ...] = (found.st_size, found.st_mtime_ns)
    if path.name.endswith(DATABASE):
        with suppress(FileNotFoundError):
            log = path.with_name(f"{path.name}-wal").stat()
            stamp += (log.st_size, log.st_mtime_ns)
    return stamp
