"""The places of a route of the house, and the file's own duties."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from flyball._kernel.errors import AdapterError
from flyball.adapters.embedded.routes import FileRoutes
from flyball.adapters.memory.routes import MemoryRoutes
from flyball.checks.routes import RoutesSuite, route
from flyball.release.route import Routes


class TestFileRoutes(RoutesSuite):
    @pytest.fixture
    def routes(self, tmp_path: Path) -> Routes:
        return FileRoutes(tmp_path / "home" / "route.json")


class TestMemoryRoutes(RoutesSuite):
    @pytest.fixture
    def routes(self) -> Routes:
        return MemoryRoutes()


def test_another_process_reads_the_same(tmp_path: Path) -> None:
    FileRoutes(tmp_path / "route.json").publish(route(1))
    assert FileRoutes(tmp_path / "route.json").read() == route(1)


def test_only_the_route_lies_there_and_it_is_its_owners(tmp_path: Path) -> None:
    for epoch in range(3):
        FileRoutes(tmp_path / "route.json").publish(route(epoch))
    assert os.listdir(tmp_path) == ["route.json"]
    assert stat.S_IMODE((tmp_path / "route.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"app": 1, "models": {}}', b"\xff\xfe"])
def test_a_damaged_file_is_no_route_and_is_made_anew(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "route.json").write_bytes(junk)
    routes = FileRoutes(tmp_path / "route.json")
    assert routes.read() is None
    routes.publish(route(2))
    assert routes.read() == route(2)


def test_a_place_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AdapterError, match="route-unwritable") as raised:
        FileRoutes(tmp_path / "file" / "route.json").publish(route(1))
    assert str(tmp_path) in str(raised.value)
