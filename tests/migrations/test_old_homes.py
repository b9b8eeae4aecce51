"""State that an earlier release wrote opens in this one: every home in `homes/` restores, proves, and answers as it did."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flyball.adapters.embedded import backup as copying
from flyball.adapters.embedded import restore as restoring
from flyball.adapters.embedded.blobs import FileBlobs
from flyball.adapters.embedded.clock import SystemClock
from flyball.adapters.embedded.facts import SqlFacts
from flyball.adapters.embedded.journal import SqliteJournal
from flyball.adapters.embedded.online import SqlOnline
from flyball.adapters.embedded.outcomes import SqliteOutcomes
from flyball.adapters.embedded.tables import DeltaTables
from flyball.learn.encoding import encode
from flyball.learn.export import predictor
from flyball.release import rollout, version
from flyball.runtime import places
from tests.migrations.make_home import HOMES, QUESTIONS, ROWS, write_key


@pytest.mark.parametrize("archive", sorted(HOMES.glob("*.tar.xz")), ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_an_old_home_opens(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "backup", filter="data")
    expected = json.loads((tmp_path / "backup" / "expected.json").read_text())
    signer, clock, home = restoring.key(write_key(tmp_path / "key" / "signing.pem")), SystemClock(), tmp_path / "home"
    found = restoring.choose(tmp_path / "backup", signer)
    assert found.backup.flyball == expected["version"]
    proof = restoring.restore(found, home, signer, clock, places.PROJECTIONS)
    assert (proof.head.hash, proof.versions, proof.rows["Order"]) == (expected["head"], 1, ROWS)
    assert (proof.answers, proof.unknown) == (QUESTIONS, 0)

    facts, blobs = SqlFacts(home / "facts.sqlite", clock, signer, places.PROJECTIONS), FileBlobs(home / "artifacts")
    assert facts.verify().hash == expected["head"]
    champion = rollout.now(facts, "shop", "sent_back").champion
    assert champion == expected["champion"]
    manifest = version.read("shop", version.find(facts, "shop", champion), blobs, signer)
    journal = SqliteJournal(home / "journal", clock)
    for answer in expected["answers"]:
        entry = journal.find(answer["id"])
        assert entry is not None and entry.output == answer["output"] and entry.version == champion
        assert computed(blobs, manifest, dict(entry.features)) == entry.output, "the same model answers the same"
    assert DeltaTables(home / "tables").scan("Order", 1, {"order_id": pl.String()}).collect().height == ROWS
    outcomes = SqliteOutcomes(home / "outcomes.sqlite")
    assert [row.value for row in outcomes.read()] == [1.0]
    outcomes.close()
    SqlOnline(home / "online.sqlite")
    facts.close()


def computed(blobs: FileBlobs, manifest: Any, features: dict[str, Any]) -> float:
    kind: Any = manifest.predictor
    name = predictor.ARTIFACTS[kind]
    model = predictor.load(kind, {name: blobs.get(manifest.artifacts[name])})
    encoder = encode.from_bytes(blobs.get(manifest.artifacts[encode.ARTIFACT]))
    row = encode.compile_row(encoder)(tuple(features.values()))
    return float(model.row(np.asarray(row)))


def test_there_is_a_home_of_the_first_release() -> None:
    assert (HOMES / "0.1.0.tar.xz").stat().st_size < 200_000
    assert copying.FACTS == "facts.sqlite"
