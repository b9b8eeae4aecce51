"""Servers that are attacked: after each attack a question is answered as ever, and nobody was surprised."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from flyball.serve import wire
from flyball.serve.guard import Limits
from tests.attacks import hostile
from tests.live import ROW, Live, live


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Exposed, with everything on; a file of tests says in `PATIENCE` how many seconds it has, if that is what it attacks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "SWEEPS_EVERY", 0.05)
        patch.setattr(wire, "LINGERS", 0.2)
        limits = Limits(seconds=getattr(request.module, "PATIENCE", 30.0), rows=50)
        with live(tmp_path_factory.mktemp("shop"), limits=limits, **hostile.exposed()) as found:
            yield found


@pytest.fixture(autouse=True)
def unmoved(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test did: nothing was logged as an error (uvloop logs what a protocol raises), and the server answers."""
    yield
    if "shop" in request.fixturenames:
        shop: Live = request.getfixturevalue("shop")
        reply = shop.send(
            "POST", "/predict", hostile.BODY, {**hostile.bearer("predict"), "Content-Type": "application/json"}
        )
        assert (reply.status, reply.json["output"]) == (200, ROW["price"] / 2)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []
