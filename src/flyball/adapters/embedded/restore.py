"""Restore: a backup laid out as a new home, proved from end to end, and only then given its name.

A home that is there is never touched, and one that is half made never looks whole: everything happens in a folder beside it,
which becomes the home by one rename. No process, lease, token or key of the old home comes along; the signing key must be
there already, for the history that it signed can be proved by no other.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from flyball._kernel.clock import Clock
from flyball._kernel.errors import AdapterError, StateError
from flyball._kernel.facts import Projection
from flyball._kernel.ports import Signer
from flyball.adapters.embedded import disk, mounts
from flyball.adapters.embedded.backup import ARTIFACTS, FACTS, JOURNAL, TABLES
from flyball.adapters.embedded.blobs import FileBlobs
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.embedded.keys import FileSigner
from flyball.adapters.embedded.shelf import DATABASE, Shelf, aside, room
from flyball.adapters.embedded.tables import DeltaTables
from flyball.cycle import backup
from flyball.cycle.backup import Backup, Laid, Proof


class Found(NamedTuple):
    """A backup that was chosen, its signature checked."""

    shelf: Shelf
    document: Path
    backup: Backup


def key(path: Path) -> FileSigner:
    """The key that signed what is restored; a new one is not made.

    Raises:
        StateError: `key-missing`, and as `FileSigner`.
    """
    if not path.exists():
        raise StateError(
            "key-missing",
            f"There is no signing key at {path}.",
            why="A backup does not hold the key, and no other can prove what was signed with it.",
            next="Restore the key, or say where it is: FLYBALL_KEY=/path/to/signing.pem",
        )
    return FileSigner(path)


def restore(found: Found, home: Path, signer: Signer, clock: Clock, projections: Sequence[Projection]) -> Proof:
    """Lay a backup out as a home, prove it, and only then give it its name.

    Args:
        home: must not exist, or be an empty folder.

    Raises:
        StateError: `home-not-empty`, `backup-damaged`, and what `backup.prove` raises; the home is then as it was.
        AdapterError: `home-on-a-network`, `home-not-made`.
        RetryableError: `disk-full`, `backup-busy`.
    """
    mounts.refuse_network(home)
    home = home.absolute()
    try:
        _refuse_full(home)
        if home.is_mount():
            raise OSError(errno.EBUSY, "a mount point takes no other name", str(home))
        home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        room(home.parent, sum(file.size for file in found.backup.files))
        with aside(home.parent, f".{home.name}.restoring-") as place:
            with found.shelf.reading():
                _lay_out(found, place, linked=False)
            proof = _proved(place, found.backup, signer, clock, projections)
            for folder, _, _ in os.walk(place):
                disk.sync(Path(folder))
            _refuse_full(home)  # another restore may have been first
            place.rename(home)
            disk.sync(home.parent)
    except OSError as error:
        raise AdapterError(
            "home-not-made",
            f"The home {home} cannot be made.",
            why=str(error),
            next="Name a folder that you may make: its parent must be yours, and it cannot be a mount point itself.",
        ) from error
    return proof


def _refuse_full(home: Path) -> None:
    if home.is_symlink() or (home.exists() and (not home.is_dir() or any(home.iterdir()))):
        raise StateError(
            "home-not-empty",
            f"{home} is not an empty folder.",
            why="A backup is restored as a whole: mixed with what is there, neither would hold.",
            next="Name a folder that does not exist, or move away what is there.",
        )


def verify(found: Found, signer: Signer, clock: Clock, projections: Sequence[Projection]) -> Proof:
    """Everything that `restore` checks, in a folder that is removed again; raises as it does."""
    where = found.shelf.place if os.access(found.shelf.place, os.W_OK) else Path(tempfile.gettempdir())
    with aside(where, ".flyball-check-") as place:
        with found.shelf.reading():
            _lay_out(found, place, linked=True)
        return _proved(place, found.backup, signer, clock, projections)


def choose(source: Path, signer: Signer) -> Found:
    """The newest backup of a folder, or the one whose document is named.

    Raises:
        StateError: `no-such-backup`; `backup-damaged`, `backup-not-signed`, `backup-is-newer`.
    """
    shelf = Shelf(source if source.is_dir() else source.parent)
    documents = shelf.backups() if source.is_dir() else [source]
    if not documents or not documents[-1].is_file():
        raise StateError(
            "no-such-backup",
            f"There is no backup in {source}.",
            why="A backup is whole when its document TIME-TX.backup.json lies in the folder; one that was killed has none.",
            next="flyball backup APP --to FOLDER makes one.",
        )
    return Found(shelf, documents[-1], backup.unseal(shelf.document(documents[-1]), signer))


def _lay_out(found: Found, aside: Path, *, linked: bool) -> None:
    for file in found.backup.files:
        to = aside
        for part in Path(file.path).parent.parts:
            to /= part
            with suppress(FileExistsError):
                to.mkdir(mode=0o700)
        found.shelf.fetch(file, aside / file.path, linked=linked and not file.path.endswith(DATABASE))


def _proved(home: Path, said: Backup, signer: Signer, clock: Clock, projections: Sequence[Projection]) -> Proof:
    facts = SqlFacts(home / FACTS, clock, signer, projections)
    with closing(facts):
        tables, journal = DeltaTables(home / TABLES), SqliteJournal(home / JOURNAL, clock)
        return backup.prove(Laid(facts, FileBlobs(home / ARTIFACTS), tables, journal, signer), said)
