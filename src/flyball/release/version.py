"""A version: what may answer, with everything that led to it, signed.

The manifest names every artifact by its SHA-256 and every cause by its fingerprint: data (batches and cutoff), code,
chosen knobs, environment. It is stored as an artifact itself, and its signature is checked before anything in it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

import msgspec

from flyball._kernel import facts
from flyball._kernel.conditions import Verdict
from flyball._kernel.errors import StateError
from flyball._kernel.facts import Anchor, Projection, Said, Stored
from flyball._kernel.ports import Blobs, Facts, Signer


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The pinned data that a training read: the last batch of each table, and the moment as of which it looked."""

    batches: dict[str, int]
    cutoff: datetime


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A version as it is signed.

    Attributes:
        version: `model-number`, unique within the app.
        tested_from: questions asked from then on, until `tested_until`, were held out; it learned from earlier ones.
        steps: step -> the key under which it ran.
        causes: step -> cause -> fingerprint; what `plan` compares and `reproduce` checks.
        artifacts: name -> SHA-256; what answering loads and `reproduce` must make again.
        predictor: the artifact kind that answers, chosen by measurement among the exact ones.
        head: the end of the facts when it was registered, so that a shortened history shows.
        commit: the git commit of the app file, if it lies in a repository; with a + when there were changes.
    """

    app: str
    model: str
    version: str
    created: datetime
    snapshot: Snapshot
    tested_from: datetime
    tested_until: datetime
    knobs: dict[str, float | str]
    steps: dict[str, str]
    causes: dict[str, dict[str, str]]
    artifacts: dict[str, str]
    predictor: str
    head: Anchor
    environment: dict[str, str]
    commit: str = ""


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest's exact bytes, and the signature over them."""

    manifest: msgspec.Raw
    signature: str


class Registered(Said, frozen=True, kw_only=True, tag="release.registered"):
    """A version exists: trained, evaluated, signed; not judged yet.

    Attributes:
        search: the key of the search that chose its knobs.
        metrics: what was estimated on held-out rows, by name; the evaluation holds the intervals.
    """

    version: str
    manifest: str
    search: str = ""
    knobs: dict[str, float | str] = msgspec.field(default_factory=dict)
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


class Judged(Said, frozen=True, kw_only=True, tag="release.judged"):
    """The gates have looked at a version: `decision` is release, held or rejected.

    Attributes:
        rival: who answered then; "" if nobody, or if it could not be asked about the same rows.
        compared: the artifact that compares the two on them.
    """

    version: str
    decision: str
    verdicts: list[Verdict]
    rival: str = ""
    compared: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One registered version, as state: short, because thousands are listed at once. `verdicts` has what its gates said."""

    version: str
    manifest: str
    registered: datetime
    decision: str = ""
    search: str = ""


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """A hundred versions, oldest first; and what they are worth in columns, name -> one value each, None where it has none.

    So ten thousand are read as a hundred rows, and are a table without being taken apart.
    """

    rows: list[Row] = []
    knobs: dict[str, list[float | str | None]] = {}
    metrics: dict[str, list[float | None]] = {}


class _Rows(msgspec.Struct):
    """What most readers want of a shelf."""

    rows: list[Row]


SHELF = 100
"""Versions on one shelf."""

_shelf, _rows = msgspec.json.Decoder(Shelf), msgspec.json.Decoder(_Rows)
V = TypeVar("V")


def _fold_version(stored: bytes | None, fact: Stored) -> bytes:
    shelf = _shelf.decode(stored) if stored is not None else Shelf()
    if fact.kind == facts.kind(Registered):
        said = facts.decode(fact, Registered)
        row = Row(version=said.version, manifest=said.manifest, registered=fact.at, search=said.search)
        count = len(shelf.rows)
        made = Shelf(
            rows=[*shelf.rows, row],
            knobs=_longer(shelf.knobs, said.knobs, count),
            metrics=_longer(shelf.metrics, said.metrics, count),
        )
        return facts.encode(made)
    judged = facts.decode(fact, Judged)
    rows = [
        msgspec.structs.replace(row, decision=judged.decision) if row.version == judged.version else row
        for row in shelf.rows
    ]
    return facts.encode(msgspec.structs.replace(shelf, rows=rows))


def _longer(columns: Mapping[str, list[V | None]], row: Mapping[str, V], count: int) -> dict[str, list[V | None]]:
    """Columns of `count` values, with one more."""
    return {name: [*columns.get(name, [None] * count), row.get(name)] for name in dict.fromkeys((*columns, *row))}


def _shelf_of(fact: Stored) -> str:
    registered = fact.kind == facts.kind(Registered)
    name = facts.decode(fact, Registered).version if registered else facts.decode(fact, Judged).version
    return facts.about(fact, _place(name))


def _place(version: str) -> str:
    return f"{number(version) // SHELF:06}"


VERSIONS = Projection(
    "release.shelves", frozenset({facts.kind(Registered), facts.kind(Judged)}), _shelf_of, _fold_version
)
"""(app, model, a hundred) -> `Shelf`."""

SHOWN = 20
"""Versions that a message names."""


def versions(log: Facts, app: str, model: str) -> list[Row]:
    """All versions of a model, oldest first."""
    return _all(log, f"{app}/{model}/")


def _all(log: Facts, prefix: str) -> list[Row]:
    return [row for _, shelf in log.scan(VERSIONS.name, prefix) for row in _rows.decode(shelf).rows]


def shelves(log: Facts, app: str, model: str) -> list[Shelf]:
    """The same as a table wants them."""
    return [_shelf.decode(shelf) for _, shelf in log.scan(VERSIONS.name, f"{app}/{model}/")]


def worth(log: Facts, app: str, version: str) -> tuple[dict[str, float | str], dict[str, float]]:
    """The knobs of a version, and what its evaluation estimated.

    Raises:
        StateError: `no-such-version`.
    """
    find(log, app, version)
    shelf = _shelf.decode(log.get(VERSIONS.name, _key(app, version)) or b"{}")
    at = [row.version for row in shelf.rows].index(version)
    knobs = {name: value for name, values in shelf.knobs.items() if (value := values[at]) is not None}
    return knobs, {name: value for name, values in shelf.metrics.items() if (value := values[at]) is not None}


def _key(app: str, version: str) -> str:
    return f"{app}/{version.rpartition('-')[0]}/{_place(version)}"


def verdicts(log: Facts, app: str, version: str) -> list[Verdict]:
    """What the gates said when they last looked at a version; walks all that they ever said."""
    said: list[Verdict] = []
    for fact in log.read(kinds=frozenset({facts.kind(Judged)}), app=app):
        judged = facts.decode(fact, Judged)
        said = judged.verdicts if judged.version == version else said
    return said


def number(version: str) -> int:
    """The running number at the end of a version's name."""
    return int(version.rpartition("-")[2])


def write(manifest: Manifest, blobs: Blobs, signer: Signer) -> str:
    """Sign and store a manifest; returns the digest under which it lies."""
    data = facts.encode(manifest)
    signed = Signed(manifest=msgspec.Raw(data), signature=signer.sign(_covered(data)))
    return blobs.put(msgspec.json.encode(signed))


def read(app: str, row: Row, blobs: Blobs, signer: Signer) -> Manifest:
    """Load the manifest of a version and check its signature, and that it is the manifest of *this* version.

    Raises:
        StateError: `signature-broken`, when it was not signed by the key of this home, was changed, or was put in the place
            of another version's.
    """
    digest = row.manifest
    try:
        signed = msgspec.json.decode(blobs.get(digest), type=Signed)
        trusted = signer.verify(_covered(bytes(signed.manifest)), signed.signature)
        manifest = msgspec.json.decode(signed.manifest, type=Manifest) if trusted else None
    except msgspec.DecodeError:
        manifest = None
    if manifest is None or (manifest.app, manifest.version) != (app, row.version):
        raise StateError(
            "signature-broken",
            f"The manifest {digest[:12]} is not the one that the key in use signed for {row.version} of {app!r}.",
            why="What is not signed, or signed for another version, could have been put there by anybody, and is not used.",
            next="Use the key that signed it (FLYBALL_KEY), restore the store from a backup, or register the version anew.",
        )
    return manifest


def find(log: Facts, app: str, version: str) -> Row:
    """The row of a version, by its name alone.

    Raises:
        StateError: `no-such-version`, naming those that exist.
    """
    shelf = log.get(VERSIONS.name, _key(app, version)) if version.rpartition("-")[2].isdecimal() else None
    for row in _rows.decode(shelf).rows if shelf is not None else ():
        if row.version == version:
            return row
    last = [row.version for row in _all(log, f"{app}/")][-SHOWN:]
    raise StateError(
        "no-such-version",
        f"There is no version {version!r} of {app!r}.",
        why=f"Registered{' among others' if len(last) == SHOWN else ''}: {', '.join(last) or 'none'}.",
        next="flyball status lists them.",
    )


def _covered(data: bytes) -> bytes:
    return b"flyball/manifest/1:" + data
