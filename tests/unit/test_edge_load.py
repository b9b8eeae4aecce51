"""A bundle that somebody made up is refused, whatever its bytes are, and before they are unpacked."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from flyball.edge import Refused, load, model


@pytest.mark.parametrize(
    "manifest", ["[]", "3", '{"files": 3}', '{"files": {"a": 1}}', "[" * 100_000, '{"files": [["a"]]}', "\x00", "{}"]
)
def test_a_manifest_of_any_form_is_refused(tmp_path: Path, manifest: str) -> None:
    path = tmp_path / "a.flyball"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", manifest)
    with pytest.raises(Refused, match="is no bundle"):
        load(str(path))


@pytest.mark.parametrize("says", [None, b"[]", b"{}", b'{"format": 1}', b"[" * 100_000, b"\xff"])
def test_what_its_manifest_says_is_looked_at_as_well(tmp_path: Path, says: bytes | None) -> None:
    path = tmp_path / "a.flyball"
    files = {} if says is None else {"bundle.json": says}
    with zipfile.ZipFile(path, "w") as archive:
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        archive.writestr("manifest.json", json.dumps({"files": sums}))
        for name, data in files.items():
            archive.writestr(name, data)
    with pytest.raises(Refused, match="not what was made"):
        load(str(path))


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "LARGEST", 1_000_000)
    path = tmp_path / "a.flyball"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", '{"files": {}}')
        archive.writestr("signature", b" " * 1_000_000)
    assert path.stat().st_size < 5_000
    with pytest.raises(Refused, match="unpack"):
        load(str(path))
