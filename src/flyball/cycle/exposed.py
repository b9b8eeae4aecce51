"""Exposures: who was answered by whom while a candidate had a share of the traffic, read from the journal.

Every answer is recorded with its version and epoch, and the epoch names the stage; so nothing is written for an A/B test that
was not there already. An **exposure** is the first answer that an entity got from one arm of one stage; entities are named as
they are recorded, personal values as keyed hashes.

The lot of an entity is computed again. One that was answered against it is **astray**: the assignment was not sticky, which
must never be. One that drew the candidate and was answered by the champion was **mended**: the candidate failed, or was taken
out. Either may have seen **both** arms, and belongs in no comparison.

In bounded memory: the journal streams through sorted pieces on disk, and a part of the entities at a time is put together.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec
import polars as pl

from flyball._kernel.errors import AdapterError
from flyball.cycle.session import Session
from flyball.data import contract
from flyball.release import rollout
from flyball.release.rollout import Rollout
from flyball.serve.journal import Entry
from flyball.serve.router import OVERRIDE, lot
from flyball.watch import live

PIECE: Final = 100_000
"""Answers that are in memory at a time, and about as many exposures."""

PARTS: Final = 1024
"""Parts that entities are divided into at most, by a checksum."""

SHOWN: Final = 20
"""Entities that are named."""

CANDIDATE, CHAMPION, STOOD_IN = "candidate", "champion", "stood in"

_SCHEMA = pl.Schema(
    {
        "epoch": pl.Int64(),
        "entity": pl.String(),
        "arm": pl.String(),
        "version": pl.String(),
        "asked": pl.Int64(),
        "part": pl.UInt16(),
    }
)


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage in which a candidate had a share of the entities.

    Attributes:
        stage: its name, and the epoch under which it was entered.
        began: when it was entered.
        entities: that were answered in it, by either arm or by who stood in.
        candidates, champions: that were answered by it.
        both: that were answered by both.
        mended: that had drawn the candidate, and were answered by the champion.
        astray: that were answered against their lot.
        z: by how many standard deviations `candidates` differ from the share of the entities; None without any.
    """

    model: str
    candidate: str
    champion: str
    stage: str
    epoch: int
    share: float
    began: datetime
    entities: int = 0
    candidates: int = 0
    champions: int = 0
    both: int = 0
    mended: int = 0
    astray: int = 0
    z: float | None = None


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """One entity that saw both arms, or the wrong one."""

    entity: str
    candidate: str
    stage: str
    epoch: int
    why: str


class Exposures(msgspec.Struct, frozen=True, kw_only=True):
    """The whole; of those who moved, `SHOWN` are named. `sticky`: nobody was answered against the lot."""

    stages: list[Stage]
    moved: list[Moved]
    exposures: int
    sticky: bool


def exposed(session: Session, model: str | None = None, out: Path | None = None) -> Exposures:
    """Read who was exposed to what.

    Args:
        model: one model; all by default.
        out: a Parquet file that gets every exposure: model, candidate, stage, epoch, share, entity, arm, version, first
            (time of the first answer), answers, drawn (the arm by the lot).

    Raises:
        AdapterError: `exposures-unwritable`; what the journal raises.
    """
    names = [session.app.model(model).name] if model is not None else list(session.models)
    stages = {(name, epoch): stage for name in names for epoch, stage in _stages(session, name).items()}
    with ExitStack() as undo:
        beside = out.parent if out is not None else None
        try:
            folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix=".exposures-", dir=beside)))
            return _read(session, stages, folder, out)
        except OSError as error:
            raise AdapterError(
                "exposures-unwritable",
                f"The exposures cannot be written to {out or 'the folder for temporary files'}.",
                why=str(error),
                next="Give --out a file in a folder that exists, with room on its disk.",
            ) from error


def _read(session: Session, stages: Mapping[tuple[str, int], Stage], folder: Path, out: Path | None) -> Exposures:
    found: list[Stage] = []
    moved: list[Moved] = []
    exposures, written = 0, list[Path]()
    for name in dict.fromkeys(name for name, _ in stages):
        own = {epoch: stage for (model, epoch), stage in stages.items() if model == name}
        place = folder / f"{len(written)}-{len(found)}"
        place.mkdir()
        counted = _Counted(own)
        pieces, rows = _pieces(_told(session, name, own), place)
        for n, part in enumerate(_merged(pieces, rows)):
            judged = _judged(part, own)
            counted.add(judged)
            exposures += judged.height
            if out is not None:
                written.append(place / f"out-{n}.parquet")
                _shown(judged, own).write_parquet(written[-1])
        found += counted.stages()
        moved += counted.moved
    if out is not None:
        _together(written, folder, out)
    sticky = all(stage.astray == 0 for stage in found)
    return Exposures(stages=found, moved=moved[:SHOWN], exposures=exposures, sticky=sticky)


def _stages(session: Session, model: str) -> dict[int, Stage]:
    """Epoch -> the stage that was entered by it, where a candidate answered."""
    found, state = dict[int, Stage](), Rollout()
    for at, said in rollout.history(session.facts, session.app.name, model):
        before, state = state.epoch, rollout.after(state, said, at)
        if state.candidate and state.share and state.epoch != before:
            found[state.epoch] = Stage(
                model=model,
                candidate=state.candidate,
                champion=state.champion,
                stage=state.stages[state.stage].name,
                epoch=state.epoch,
                share=state.share,
                began=at,
            )
    return found


Told = tuple[int, str, str, str, int, int]
"""As `_SCHEMA`."""


def _told(session: Session, model: str, stages: Mapping[int, Stage]) -> Iterator[Told]:
    """Every answer that left in one of the stages."""
    spec = contract.spec(session.app.model(model).question)
    columns = () if spec.entity == spec.key else spec.entity
    for entry in session.journal.read():
        stage = stages.get(entry.epoch) if entry.model == model else None
        if stage is None or entry.failed or entry.role in ("shadow", OVERRIDE):
            continue
        entity = live.whom(entry, columns)
        yield entry.epoch, entity, _arm(entry, stage), entry.version, entry.asked, crc32(entity.encode()) % PARTS


def _arm(entry: Entry, stage: Stage) -> str:
    if entry.version == stage.candidate:
        return CANDIDATE
    return CHAMPION if (entry.version, entry.role) == (stage.champion, "champion") else STOOD_IN


def _pieces(told: Iterable[Told], folder: Path) -> tuple[list[Path], int]:
    """The first answer of each entity and arm, a piece at a time, by part; with the rows in all."""
    written, rows, waiting = list[Path](), 0, list[Told]()

    def write() -> None:
        nonlocal rows
        frame = pl.DataFrame(waiting, schema=_SCHEMA, orient="row").with_columns(answers=pl.lit(1, pl.Int64()))
        grouped = _grouped(frame).sort("part")
        written.append(folder / f"piece-{len(written)}.parquet")
        grouped.write_parquet(written[-1], row_group_size=4096)
        rows += grouped.height
        waiting.clear()

    for each in told:
        waiting.append(each)
        if len(waiting) >= PIECE:
            write()
    if waiting:
        write()
    return written, rows


def _grouped(rows: pl.DataFrame) -> pl.DataFrame:
    """One row an entity and arm."""
    first = pl.col("version").sort_by("asked").first()
    return rows.group_by("epoch", "entity", "arm", "part").agg(first, pl.col("asked").min(), pl.col("answers").sum())


def _merged(pieces: Sequence[Path], rows: int) -> Iterator[pl.DataFrame]:
    """A share of the entities at a time, whole; so few that they take no more room than a piece."""
    turns = min(PARTS, max(1, math.ceil(rows / PIECE)))
    for turn in range(turns):
        low, high = turn * PARTS // turns, (turn + 1) * PARTS // turns
        within = pl.col("part").is_between(low, high, closed="left")
        if pieces:
            yield _grouped(pl.scan_parquet(list(pieces), glob=False).filter(within).collect())


def _judged(rows: pl.DataFrame, stages: Mapping[int, Stage]) -> pl.DataFrame:
    """With `drawn`, the arm by the lot, and `both`: whether the entity saw both in this stage."""
    drawn = [
        CANDIDATE if lot(stages[epoch].candidate, entity) < stages[epoch].share else CHAMPION
        for epoch, entity in rows.select("epoch", "entity").iter_rows()
    ]
    arms = pl.col("arm").is_in([CANDIDATE, CHAMPION])
    both = pl.col("arm").filter(arms).n_unique().over("epoch", "entity") > 1
    return rows.with_columns(pl.Series("drawn", drawn, dtype=pl.String()), both=both).sort("epoch", "asked", "entity")


@dataclass
class _Counted:
    """What is counted of the stages of one model, part after part."""

    of: Mapping[int, Stage]
    counts: dict[int, dict[str, int]] = field(default_factory=dict)
    moved: list[Moved] = field(default_factory=list)

    def add(self, rows: pl.DataFrame) -> None:
        """One part: all rows of its entities."""
        candidate, champion = pl.col("arm") == CANDIDATE, pl.col("arm") == CHAMPION
        counts = rows.group_by("epoch").agg(
            entities=pl.col("entity").n_unique(),
            candidates=candidate.sum(),
            champions=champion.sum(),
            both=(pl.col("both") & candidate).sum(),
            mended=(champion & (pl.col("drawn") == CANDIDATE)).sum(),
            astray=(candidate & (pl.col("drawn") == CHAMPION)).sum(),
        )
        for row in counts.iter_rows(named=True):
            kept = self.counts.setdefault(row.pop("epoch"), {})
            for name, count in row.items():
                kept[name] = kept.get(name, 0) + count
        astray = candidate & (pl.col("drawn") == CHAMPION)
        odd = rows.filter(astray | (pl.col("both") & candidate)).with_columns(astray=astray)
        for epoch, entity, wrong in odd.select("epoch", "entity", "astray").head(SHOWN - len(self.moved)).iter_rows():
            stage, why = self.of[epoch], "answered against its lot" if wrong else "mended: it saw both arms"
            self.moved.append(Moved(entity=entity, candidate=stage.candidate, stage=stage.stage, epoch=epoch, why=why))

    def stages(self) -> list[Stage]:
        """The stages with what was counted."""
        return [msgspec.structs.replace(s, **(c := self.counts.get(e, {})), z=_z(s, c)) for e, s in self.of.items()]


def _z(stage: Stage, counts: Mapping[str, int]) -> float | None:
    n, share = counts.get("entities", 0), stage.share
    if not n or share >= 1.0:
        return None
    return (counts["candidates"] - n * share) / math.sqrt(n * share * (1 - share))


def _shown(rows: pl.DataFrame, stages: Mapping[int, Stage]) -> pl.DataFrame:
    """As they are written."""
    told = pl.DataFrame(
        [(e, s.model, s.candidate, s.stage, s.share) for e, s in stages.items()],
        schema={
            "epoch": pl.Int64(),
            "model": pl.String(),
            "candidate": pl.String(),
            "stage": pl.String(),
            "share": pl.Float64(),
        },
        orient="row",
    )
    first = pl.col("asked").cast(pl.Datetime("us", "UTC")).alias("first")
    return rows.join(told, on="epoch", maintain_order="left").select(
        "model", "candidate", "stage", "epoch", "share", "entity", "arm", "version", first, "answers", "drawn"
    )


def _together(written: Sequence[Path], folder: Path, out: Path) -> None:
    """One file, which appears whole."""
    whole = folder / "whole.parquet"
    if written:
        pl.scan_parquet(list(written), glob=False).sink_parquet(whole)
    else:
        empty = _SCHEMA.to_frame().with_columns(answers=pl.lit(1, pl.Int64()), drawn=pl.lit(""))
        _shown(empty, {}).write_parquet(whole)
    os.replace(whole, out)
