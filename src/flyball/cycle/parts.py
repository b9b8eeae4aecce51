"""Answers in parts: what is finished of a file of answers, in a folder beside it, until all of it is there.

    .answers.parquet.parts/  run.json            what is answered, by whom, as of when: a run that goes on must be the same
                             00000.json          part 0 is done: its counts, written last
                             00000.parquet       its answers
                             00000.bad.parquet   its refused rows

A part is there whole or not at all, whenever the process dies. At the end the parts become one file, which is renamed into its
place, and the folder goes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from flyball._kernel import facts
from flyball._kernel.errors import AdapterError
from flyball.cycle.questions import Disputes

FORMAT = 1
ROWS = 1 << 18
"""Rows of a row group of the answers."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is answered, by whom and as of when: all that the answers follow from.

    Attributes:
        questions: the digest of the files.
        now: the moment as of which a question is asked whose own lies ahead.
        batches: the last batch of each table that features look at.
        size: rows of a part.
    """

    app: str
    model: str
    version: str
    questions: str
    now: datetime
    batches: dict[str, int]
    size: int
    format: int = FORMAT


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the rows of one part."""

    answered: int
    refused: int
    repeats: int
    by_rule: dict[str, int]


class Parts:
    """The folder beside a file of answers."""

    def __init__(self, answers: Path) -> None:
        self.answers = answers
        self.folder = answers.with_name(f".{answers.name}.parts")
        self.refused = answers.with_name(f"{answers.stem}.refused.parquet")

    def begun(self) -> Run | None:
        """The run that was begun here and not ended; None where there is none that can go on."""
        try:
            found = msgspec.json.decode((self.folder / "run.json").read_bytes(), type=Run)
        except (OSError, msgspec.DecodeError):
            return None
        return found if found.format == FORMAT else None

    def begin(self, run: Run) -> None:
        """Begin anew: whatever another run left is dropped."""
        with self.writable():
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir()
            self._write("run.json", facts.encode(run))

    def settle(self, disputes: Disputes) -> None:
        """Keep what was settled before the first part."""
        arrays: dict[str, Any] = {f"rule {rule}": at for rule, at in disputes.rules.items()}
        with self.writable(), _aside(self.folder / "disputes.npz") as aside, aside.open("wb") as file:
            np.savez(file, repeats=disputes.repeats, **arrays)

    def settled(self) -> Disputes | None:
        """What was settled; None where that is still to be done."""
        path = self.folder / "disputes.npz"
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as found:
            rules = {name.removeprefix("rule "): found[name] for name in found.files if name.startswith("rule ")}
            return Disputes(found["repeats"], rules)

    def done(self) -> list[Part]:
        """The parts that are finished, from the first on without a gap."""
        found: list[Part] = []
        while (path := self.folder / f"{len(found):05d}.json").exists():
            found.append(msgspec.json.decode(path.read_bytes(), type=Part))
        return found

    def write(self, number: int, answers: pl.DataFrame, refused: pl.DataFrame, part: Part) -> None:
        """Finish a part.

        Raises:
            AdapterError: `answers-unwritable`.
        """
        with self.writable():
            for name, frame in (("", answers), (".bad", refused)):
                if frame.height or not name:
                    with _aside(self.folder / f"{number:05d}{name}.parquet") as aside:
                        frame.write_parquet(aside, row_group_size=ROWS)
            self._write(f"{number:05d}.json", facts.encode(part))

    def join(self, count: int) -> str:
        """Make one file of `count` parts, and one of the refused rows where there are any; returns the digest of the answers.

        Raises:
            AdapterError: `answers-unwritable`.
        """
        made = [self.folder / f"{n:05d}.parquet" for n in range(count)]
        bad = [path for n in range(count) if (path := self.folder / f"{n:05d}.bad.parquet").exists()]
        with self.writable():
            # The answers last: once they are there, all is.
            if bad:
                with _aside(self.refused) as aside:
                    pl.scan_parquet(bad).sink_parquet(aside, row_group_size=ROWS)
            else:
                self.refused.unlink(missing_ok=True)
            with _aside(self.answers) as aside:
                pl.scan_parquet(made).sink_parquet(aside, row_group_size=ROWS)
                with aside.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest

    def end(self) -> None:
        """Drop the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, data: bytes) -> None:
        with _aside(self.folder / name) as aside:
            aside.write_bytes(data)

    @contextmanager
    def writable(self) -> Iterator[None]:
        """Say where the answers should have gone, if they cannot."""
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            raise AdapterError(
                "answers-unwritable",
                f"The answers cannot be written to {self.answers}.",
                why=str(error),
                next="Name a file in a folder that exists and is yours, other than that of the questions.",
            ) from error


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Write aside and to the disk, then rename: whoever looks sees the whole file or none."""
    aside = path.with_name(f".{path.name}.part")
    yield aside
    with aside.open("rb+") as file:
        os.fsync(file.fileno())
    aside.replace(path)
