"""Profiles of tables: one sketch for each batch, made when somebody first asks, and merged to that of a version.

A sketch lies among the artifacts; that it does is a fact of its own, so a crash in between costs a second reading at most.
A batch never changes, so its sketch holds, until the contract's columns or their roles, or the format of sketches, do, or
until rows are taken out of the table: whoever does that calls `forget`, and removes the artifacts that it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
import polars as pl

from flyball._kernel import facts, ids
from flyball._kernel.errors import StateError
from flyball._kernel.facts import Fact, Said
from flyball.cycle import artifacts
from flyball.cycle.session import Event, Session, Tell, silent
from flyball.data import contract, dataset
from flyball.data.contract import Contract, Personal, Protected, Spec
from flyball.data.sketches import bias, sketch
from flyball.data.sketches.bias import Bias
from flyball.data.sketches.sketch import Sketch
from flyball.data.tables import BATCH
from flyball.learn.model import Model

_PURPOSE = "profiles"


class Profiled(Said, frozen=True, kw_only=True, tag="data.profiled"):
    """The sketch of a batch was made.

    Attributes:
        maker: what it depends on beside the rows: columns, which are personal, the format, and the key of the hashes.
        blob: the artifact.
    """

    table: str
    batch: int
    maker: str
    blob: str
    rows: int


class ProfilesForgotten(Said, frozen=True, kw_only=True, tag="data.profiles_forgotten"):
    """Rows were taken out of these batches (of all, where none is named): their sketches hold no longer."""

    table: str
    batches: tuple[int, ...] = ()


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """The sketch of one batch."""

    batch: int
    sketch: Sketch


def parts(session: Session, table: type[Contract], upto: int | None = None, tell: Tell = silent) -> list[Part]:
    """The sketch of each batch up to `upto` (by default all), in order; those that are missing are made and recorded.

    Raises:
        StateError: `no-such-version`, when the table has not come that far.
    """
    spec = contract.spec(table)
    last = session.tables.head(spec.name).batch if upto is None else upto
    version = dataset.Version(table=spec.name, batch=last)
    rows = dataset.read(session.tables, table, version)
    known, made = _recorded(session, spec), []
    for batch, n in _batches(rows).items():
        found = _stored(session, known.get(batch))
        if found is None or found.rows != n:
            tell(Event(step=f"profile {spec.name}", state="run", detail=f"batch {batch}, {n:,} rows"))
            found = _made(session, spec, batch, rows)
        made.append(Part(batch=batch, sketch=found))
    return made


def merged(found: Iterable[Part], table: type[Contract]) -> Sketch:
    """The sketch of a version: of all its batches together."""
    spec = contract.spec(table)
    empty = sketch.of(pl.LazyFrame(schema=spec.dtypes), personal=spec.with_role(Personal))
    return sketch.merge(empty, *(part.sketch for part in found))


def biased(
    session: Session, model: Model, version: str = "", reference: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[Bias, ...]:
    """Bias of the rows that a model is asked about, by each protected column of their contract that is not personal too: of
    the settled ones that a version could learn from or was tested on, or without `version` of all that is known now, one
    row a key.

    Raises:
        StateError: `no-such-version`, `signature-broken`.
    """
    spec = contract.spec(model.question)
    label = model.predicts.name if spec.dtypes[model.predicts.name] == pl.Boolean else ""
    if version:
        taken = artifacts.load_manifest(session, version).snapshot
        whole = dataset.read(
            session.tables, model.question, dataset.Version(table=spec.name, batch=taken.batches[spec.name])
        )
        rows = dataset.as_of(whole, spec, taken.cutoff).filter(pl.col(model.predicts.name).is_not_null())
    else:
        whole = dataset.read(session.tables, model.question, dataset.latest(session.tables, model.question))
        rows = dataset.last(whole, spec)
    groups = [name for name in spec.with_role(Protected) if name not in spec.with_role(Personal)]
    return bias.bias(
        rows.select(list(dict.fromkeys((*groups, *((label,) if label else ()))))), groups, label, reference
    )


def forget(session: Session, table: str, batches: Iterable[int] = ()) -> tuple[str, ...]:
    """Drop the sketches of these batches of `table`, of all where none is named: rows were, or will be, taken out.

    Returns:
        the artifacts that held them, also of earlier contracts, which the caller removes; whatever still reads one makes
        the sketch anew.
    """
    chosen = tuple(sorted(set(batches)))
    kinds = frozenset({facts.kind(Profiled)})
    said = [facts.decode(f, Profiled) for f in session.facts.read(kinds=kinds, app=session.app.name)]
    blobs = [s.blob for s in said if s.table == table and (not chosen or s.batch in chosen)]
    if blobs:
        session.facts.append([Fact(session.app.name, "", ProfilesForgotten(table=table, batches=chosen))])
    return tuple(dict.fromkeys(blobs))


def _batches(rows: pl.LazyFrame) -> dict[int, int]:
    """Batch -> rows that it has now, in order: what a sketch is held against, so that none outlives its rows unseen."""
    counted = rows.group_by(BATCH).agg(pl.len()).sort(BATCH).collect(engine="streaming")
    return {int(batch): int(n) for batch, n in counted.iter_rows()}


def _maker(session: Session, spec: Spec) -> str:
    hidden = spec.with_role(Personal)
    columns = [(c.name, str(c.dtype), c.name in hidden) for c in spec.columns]
    secret = ids.digest(session.signer.secret(_PURPOSE))[:8]
    return ids.digest(repr((columns, sketch.FORMAT, secret)).encode())[:16]


def _recorded(session: Session, spec: Spec) -> Mapping[int, str]:
    """Batch -> artifact, as the facts say."""
    kinds = frozenset({facts.kind(Profiled), facts.kind(ProfilesForgotten)})
    maker, found = _maker(session, spec), dict[int, str]()
    for fact in session.facts.read(kinds=kinds, app=session.app.name):
        if fact.kind == facts.kind(Profiled):
            said = facts.decode(fact, Profiled)
            if said.table == spec.name and said.maker == maker:
                found[said.batch] = said.blob
        else:
            gone = facts.decode(fact, ProfilesForgotten)
            if gone.table == spec.name:
                found = {b: x for b, x in found.items() if gone.batches and b not in gone.batches}
    return found


def _stored(session: Session, blob: str | None) -> Sketch | None:
    if blob is None:
        return None
    try:
        return sketch.decode(session.blobs.get(blob))
    except StateError as problem:
        if problem.code != "no-such-artifact":
            raise
        return None


def _made(session: Session, spec: Spec, batch: int, rows: pl.LazyFrame) -> Sketch:
    own = rows.filter(pl.col(BATCH) == batch).select(spec.names)
    seed = sketch.seed_of(session.signer.secret(_PURPOSE))
    started = session.clock.monotonic()
    found = sketch.of(own, personal=spec.with_role(Personal), seed=seed)
    blob = session.blobs.put(sketch.encode(found))
    said = Profiled(table=spec.name, batch=batch, maker=_maker(session, spec), blob=blob, rows=found.rows)
    seconds = session.clock.monotonic() - started
    session.facts.append([Fact(session.app.name, "", said, {"seconds": seconds})])
    return found
