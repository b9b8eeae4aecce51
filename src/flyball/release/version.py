"""A version: what may answer, with everything that led to it, signed.

The manifest names every artifact by its SHA-256 and every cause by its fingerprint: data (batches and cutoff), code,
chosen knobs, environment. It is stored as an artifact itself, and its signature is checked before anything in it is used.
"""

from __future__ import annotations

from datetime import datetime

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
    knobs: dict[str, float]
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
    """A version exists: trained, evaluated, signed; not judged yet."""

    version: str
    manifest: str


class Judged(Said, frozen=True, kw_only=True, tag="release.judged"):
    """The gates have looked at a version: `decision` is release, held or rejected."""

    version: str
    decision: str
    verdicts: list[Verdict]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One registered version, as state."""

    version: str
    manifest: str
    registered: datetime
    decision: str = ""
    verdicts: list[Verdict] = []


def _fold_version(row: bytes | None, fact: Stored) -> bytes:
    if fact.kind == facts.kind(Registered):
        said = facts.decode(fact, Registered)
        return facts.encode(Row(version=said.version, manifest=said.manifest, registered=fact.at))
    judged = facts.decode(fact, Judged)
    known = msgspec.json.decode(row or b"", type=Row)
    return facts.encode(msgspec.structs.replace(known, decision=judged.decision, verdicts=judged.verdicts))


def _version_of(fact: Stored) -> str:
    registered = fact.kind == facts.kind(Registered)
    return facts.about(
        fact, facts.decode(fact, Registered).version if registered else facts.decode(fact, Judged).version
    )


VERSIONS = Projection(
    "release.versions", frozenset({facts.kind(Registered), facts.kind(Judged)}), _version_of, _fold_version
)


def versions(log: Facts, app: str, model: str) -> list[Row]:
    """All versions of a model, oldest first."""
    rows = [msgspec.json.decode(row, type=Row) for _, row in log.scan(VERSIONS.name, f"{app}/{model}/")]
    return sorted(rows, key=lambda row: number(row.version))


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
    rows = [msgspec.json.decode(row, type=Row) for _, row in log.scan(VERSIONS.name, f"{app}/")]
    for row in rows:
        if row.version == version:
            return row
    raise StateError(
        "no-such-version",
        f"There is no version {version!r} of {app!r}.",
        why=f"Registered: {', '.join(row.version for row in rows) or 'none'}.",
        next="flyball status lists them.",
    )


def _covered(data: bytes) -> bytes:
    return b"flyball/manifest/1:" + data
