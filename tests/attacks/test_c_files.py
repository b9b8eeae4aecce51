"""Classes B and C, files of others: a bundle is read in memory and nothing of it is unpacked; a table whose columns say that
they are objects of some library stays a table. What of models and encoders is refused is in
tests/promises/test_12_nothing_read_runs_code.py, of adopted files in tests/unit/test_adopted.py, of backups (links, devices,
names, sizes) in tests/promises/test_11_backup_restores.py.
"""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from flyball.cli import adopt
from flyball.edge import model
from flyball.edge.refused import Refused

LINK = 0o120777 << 16


class Payload:
    """Pickled, it makes a directory when it is read."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


HOSTILE = sorted((Path(__file__).parent / "parquet").glob("*.parquet"))
"""Written with PyArrow: a column of 8 bytes, whose extension type is named as the file is and holds a pickle."""


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: path.stem)
def test_a_column_that_names_a_type_is_not_made_into_it(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray unpickled what a Parquet file said of an Arrow extension type (CVE-2026-41486), PyArrow likewise (CVE-2023-47248)."""
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # polars says that it does not know the type
        for read in (lambda: adopt._rows(path), lambda: pl.scan_parquet(path, glob=False).collect()):
            frame = read()
            assert frame.height == 1 and frame.columns == ["price"]
            assert frame["price"].dtype != pl.Object
    assert not Path("ran").exists()
    pickle.loads(pickle.dumps(Payload(Path("ran")), protocol=0))  # noqa: S301 - what they say is live: only then is this a test
    assert Path("ran").exists()


def test_there_is_a_file_of_each_kind() -> None:
    assert len(HOSTILE) == 5


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..\\evil", "a/../../evil", "evil"])  # noqa: S108
@pytest.mark.parametrize("mode", [0o100644 << 16, LINK])
def test_nothing_in_a_bundle_is_unpacked(tmp_path: Path, name: str, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("manifest.json", b'{"files": {}}')
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode
        archive.writestr(entry, b"/etc/passwd")
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(output.getvalue())
    with pytest.raises(Refused, match="not what was made"):
        model.load(str(bundle))
    assert [each.name for each in tmp_path.iterdir()] in (["inside", "bundle.zip"], ["bundle.zip", "inside"])
    assert not list(inside.iterdir())
