"""Diff: causes by name, and quality on rows that neither version learned from."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from flyball import cli
from flyball._kernel.errors import StateError
from flyball.cli import opening
from flyball.cycle import artifacts, diff, tested
from flyball.cycle.diff import Difference
from flyball.cycle.session import Session
from flyball.learn.fit import fitting
from tests import lending


@pytest.fixture(scope="module")
def session() -> Session:
    return lending.two_versions()


@pytest.fixture(scope="module")
def found(session: Session) -> Difference:
    return diff.diff(session, "lend-1", "lend-2")


def test_causes_are_named_and_nothing_else(found: Difference) -> None:
    """The same code learned from more rows, and its search chose anew."""
    assert [(c.of, c.name) for c in found.causes] in ([("data", "data")], [("data", "data"), ("knobs", "knobs")])
    assert "Loan batch 1 to 2" in found.causes[0].what and "+292 rows that train, -20 held out" in found.causes[0].what
    assert found.rows is not None and (found.rows.fit, found.rows.test, found.rows.common) == (
        (908, 1200),
        (280, 260),
        0,
    )


def test_both_are_measured_on_rows_that_neither_learned_from(session: Session, found: Difference) -> None:
    """The first was not tested on them: it is asked now, and says what it would have said to each row alone."""
    assert found.paired.n == 260 and found.paired.difference is not None
    manifest = artifacts.load_manifest(session, "lend-2")
    learned = tested.learned(session, manifest)
    assert learned is not None
    examples, held = learned
    p = fitting.read_scores(session.blobs.get(manifest.artifacts[fitting.SCORES]))[0]
    first = artifacts.load_manifest(session, "lend-1")
    answers = artifacts.load_predictor(session, first)
    frame = examples.frame.filter(held.test)
    q = artifacts.load_encoder(session, first).answers(frame, answers.batch)
    y = examples.labels[held.test]
    loss = [-np.log(np.where(y, each, 1 - each)) for each in (p, q)]
    assert found.paired.difference.estimate == pytest.approx(float((loss[0] - loss[1]).mean()))
    assert found.paired.decisions is not None and found.paired.decisions.n == 260
    assert found.says.startswith("lend-2 ") and "260 rows that neither learned from" in found.says


def test_the_other_way_round_there_is_nothing_to_compare(session: Session) -> None:
    back = diff.diff(session, "lend-2", "lend-1")
    assert back.paired.difference is None and "lend-2 learned from all rows" in back.paired.why
    assert "cannot be compared" in back.says


def test_a_version_and_itself(session: Session) -> None:
    same = diff.diff(session, "lend-1", "lend-1")
    assert same.causes == () and same.other == () and same.only == ()
    assert same.paired.difference is not None and same.paired.n == 280
    assert (same.paired.difference.low, same.paired.difference.high) == (0, 0)
    assert "answers 280 rows that neither learned from as lend-1 does; no recorded cause differs" in same.says


def test_features_decisions_sizes_and_artifacts(session: Session, found: Difference) -> None:
    assert set(found.worth) == {"region", "purpose", "income", "hour"}
    assert {"threshold", "region: north", "region: south"} == set(found.thresholds)
    size = len(session.blobs.get(artifacts.load_manifest(session, "lend-2").artifacts["model.txt"]))
    assert found.sizes["bytes of what answers"].now == size
    assert "examples" in found.other and "encoder.json" in found.same
    assert set(found.same).isdisjoint(found.other)


def test_a_feature_that_changed_is_told_and_keeps_the_version_from_being_asked(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its column has the same name and type, and means something else."""
    read = artifacts.load_manifest

    def other(session: Session, name: str) -> object:
        manifest = read(session, name)
        if name != "lend-1":
            return manifest
        causes = {step: dict(named) for step, named in manifest.causes.items()}
        causes["examples"] |= {"feature hour": "0" * 64, "environment: polars": "1" * 64}
        return msgspec.structs.replace(manifest, causes=causes)

    monkeypatch.setattr(diff.artifacts, "load_manifest", other)
    found = diff.diff(session, "lend-1", "lend-2")
    assert ("features", "feature hour", "changed") in [(c.of, c.name, c.what) for c in found.causes]
    assert ("environment", "polars", "changed") in [(c.of, c.name, c.what) for c in found.causes]
    assert found.paired.difference is None and "cannot be asked" in found.paired.why


def test_a_version_that_nobody_registered_is_refused(session: Session) -> None:
    with pytest.raises(StateError) as refused:
        diff.diff(session, "lend-1", "lend-3")
    assert refused.value.code == "no-such-version"


def test_the_verb(
    session: Session, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], found: Difference
) -> None:
    monkeypatch.setattr(opening, "session", lambda *_, **__: session)
    assert cli.call(["diff", "lending", "lend-1", "lend-2", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["says"] == found.says and said["paired"]["n"] == 260
    assert cli.call(["diff", "lending", "lend-1", "lend-2"]) == 0
    shown = capfd.readouterr().out
    assert "on the same 260 rows" in shown and "same bytes: " in shown
