"""Class F, missing authentication: the whole route table of an exposed server, walked as the server has it. Each path has a
policy that is said; nothing but what probes need is answered without a key, and no method does what its policy does not say.
"""

from __future__ import annotations

import pytest

from flyball.serve.http import Server
from tests.attacks.hostile import METHODS, UNKNOWN_PATHS, bearer, kept, say, table
from tests.live import Live

FREE = {"/healthz", "/readyz", "/ping", "/health", "/v2/health/live", "/v2/health/ready"} | {
    f"/v2/models/orders{version}/ready" for version in ("", "/versions/orders-1")
}
"""What needs no key anywhere. A path that is added here is a decision."""


def test_the_table_is_the_servers_own(shop: Live) -> None:
    found = table(shop.server)
    assert {path for path, way in found.items() if not way.scope} == FREE
    assert {"/predict", "/invocations/orders", "/v2/models/orders/infer", "/outcomes", "/ingest/clicks"} <= set(found)
    assert {"/docs", "/metrics", "/openapi.json", "/predictions/x"} <= set(found)


@pytest.mark.parametrize("key", ["", "another scope", "its scope"])
def test_every_route_has_its_policy_for_every_method(shop: Live, key: str) -> None:
    with kept(shop) as connection:
        for path, way in table(shop.server).items():
            other = "admin" if way.scope != "admin" else "read"
            headers = {"": {}, "another scope": bearer(other), "its scope": bearer(way.scope or "read")}[key]
            for method in METHODS:
                reply = say(connection, method, path, headers)
                where = f"{method} {path}"
                if method not in way.methods:
                    assert (reply.status, reply.headers["allow"]) == (405, ", ".join(way.methods)), where
                elif not way.scope or key == "its scope":
                    assert reply.status in (200, 202, 404, 422), where
                    assert reply.status != 404 or path == "/predictions/x", where
                else:
                    status, code = (403, b"scope-missing") if key else (401, b"key-needed")
                    assert reply.status == status and (method == "HEAD" or code in reply.body), where
                    assert reply.headers["www-authenticate"].startswith("Bearer "), where


def test_what_is_not_there_is_there_for_nobody(shop: Live) -> None:
    with kept(shop) as connection:
        for path in UNKNOWN_PATHS:
            for method in METHODS:
                assert say(connection, method, path, bearer("admin")).status == 404, (method, path)


def test_nothing_is_made_for_those_who_may_not_read_it(shop: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a stranger has the server work: the description takes longer to make than many answers."""

    def never(_: Server) -> None:
        raise AssertionError("made before the key was looked at")

    monkeypatch.setattr(Server, "_described", never)
    for path in ("/openapi.json", "/docs"):
        assert shop.send("GET", path).code == "key-needed"
