"""The places of a route of the house, and the file's own duties."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import msgspec
import pytest

from flyball._kernel.errors import AdapterError
from flyball.adapters.embedded.routes import FileRoutes
from flyball.adapters.memory.keys import MemorySigner
from flyball.adapters.memory.routes import MemoryRoutes
from flyball.checks.routes import RoutesSuite, route
from flyball.release.route import Beside, Route, Routes


class TestFileRoutes(RoutesSuite):
    @pytest.fixture
    def routes(self, tmp_path: Path) -> Routes:
        return FileRoutes(tmp_path / "home" / "route.json", MemorySigner(1))


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


@pytest.mark.parametrize("change", ["champion", "share", "epoch", "app", "signature", "none", "other key"])
def test_only_what_our_key_signed_is_proven(tmp_path: Path, change: str) -> None:
    """Whoever can write the file can say anything in it; `read` only tells that something changed."""
    place = tmp_path / "route.json"
    routes = FileRoutes(place, MemorySigner(1))
    told = route(3)
    one = msgspec.structs.replace(told.models["m0"], shadows=(Beside(version="m-9", manifest="9" * 64, share=0.5),))
    routes.publish(Route(app="a", models={"m0": one}))
    assert routes.proven() == Route(app="a", models={"m0": one})
    said = json.loads(place.read_text())
    match change:
        case "champion":
            said["models"]["m0"]["champion"] = "m-2"
        case "share":
            said["models"]["m0"]["shadows"][0]["share"] = 0.6
        case "epoch":
            said["models"]["m0"]["epoch"] = 4
        case "app":
            said["app"] = "b"
        case "signature":
            said["signature"] = said["signature"][:-1] + ("0" if said["signature"][-1] != "0" else "1")
        case "none":
            del said["signature"]
        case _:
            routes = FileRoutes(place, MemorySigner(2))
    place.write_text(json.dumps(said))
    assert routes.read() is not None and routes.proven() is None
    assert FileRoutes(place).proven() is None, "who has no key proves nothing"


def test_a_route_of_before_it_was_signed_is_read_and_not_proven(tmp_path: Path) -> None:
    (tmp_path / "route.json").write_bytes(msgspec.json.encode(route(1)))
    routes = FileRoutes(tmp_path / "route.json", MemorySigner(1))
    assert routes.read() == route(1) and routes.proven() is None
