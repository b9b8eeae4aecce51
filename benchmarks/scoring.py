"""The work that servers are compared on: made-up rows, the app that learns from them, and its model as plain files.

`build` uses flyball itself (`plan`, `apply`), and then lays the released version's own artifacts beside it, so that every
server that predicts answers with the same trees.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flyball import runtime
from flyball.release import version

CATEGORIES = (("c0", "abcd"), ("c1", "pqrstu"), ("c2", "vwxyz"))
NUMBERS = tuple(f"n{i}" for i in range(12))
ROWS = 6000


@dataclass(frozen=True)
class Built:
    """An app that has a champion.

    Attributes:
        app: its folder.
        model: a folder with encoder.json, model.txt and model.onnx of the champion.
        environment: what its processes need to know.
        rows: requests, as JSON values.
    """

    app: Path
    model: Path
    environment: dict[str, str]
    rows: list[dict[str, Any]]


def build(folder: Path) -> Built:
    """Make the rows, train, release, and lay the artifacts out."""
    app = folder / "scoring"
    (app / "data").mkdir(parents=True)
    (app / "__init__.py").write_text("")
    shutil.copy(Path(__file__).with_name("scoring_app.py"), app / "app.py")
    rows, lines = _rows()
    (app / "data" / "rows.csv").write_text("\n".join(lines) + "\n")
    environment = {**os.environ, "FLYBALL_KEY": str(folder / "keys" / "signing.pem")}
    subprocess.run(
        [sys.executable, "-m", "flyball", "apply", str(app), "--json"], check=True, capture_output=True, env=environment
    )
    return Built(app, _artifacts(app, folder), environment, rows)


def _rows() -> tuple[list[dict[str, Any]], list[str]]:
    chance = random.Random(1788)
    names = ["row_id", "at", *(name for name, _ in CATEGORIES), *NUMBERS]
    start = datetime(2025, 1, 1, tzinfo=UTC)
    rows, lines = [], [",".join([*names, "settled", "hit"])]
    for n in range(ROWS):
        at = start + timedelta(minutes=30 * n)
        row: dict[str, Any] = {"row_id": f"r{n:06d}", "at": at.isoformat()}
        row |= {name: chance.choice(letters) for name, letters in CATEGORIES}
        row |= {name: round(chance.gauss(0, 2), 4) for name in NUMBERS}
        lean = row["n0"] - row["n1"] * 0.5 + (row["c0"] == "a") + math.sin(row["n2"]) - (row["c2"] in "vw") * row["n3"]
        hit = chance.random() < 1 / (1 + math.exp(-lean))
        lines.append(",".join([*(str(row[x]) for x in names), (at + timedelta(days=1)).isoformat(), str(hit).lower()]))
        rows.append(row)
    return rows[:64], lines


def _artifacts(app: Path, folder: Path) -> Path:
    before = os.environ.get("FLYBALL_KEY")
    os.environ["FLYBALL_KEY"] = str(folder / "keys" / "signing.pem")
    try:
        loaded = runtime.load(str(app))
        session = runtime.open(loaded.app, runtime.Placement(root=loaded.root, create=False))
    finally:
        os.environ.pop("FLYBALL_KEY")
        if before is not None:
            os.environ["FLYBALL_KEY"] = before
    (champion,) = {answering.champion for answering in session.routes.read().models.values()}  # type: ignore[union-attr]
    row = version.find(session.facts, loaded.app.name, champion)
    manifest = version.read(loaded.app.name, row, session.blobs, session.signer)
    place = folder / "model"
    place.mkdir()
    for name in ("encoder.json", "model.txt", "model.onnx"):
        (place / name).write_bytes(session.blobs.get(manifest.artifacts[name]))
    return place


def bodies(rows: list[dict[str, Any]]) -> list[bytes]:
    """Each row as one request."""
    return [json.dumps(row).encode() for row in rows]
