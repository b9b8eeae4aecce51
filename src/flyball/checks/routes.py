"""What every place of a route does. Subclass `RoutesSuite`, supply the fixture `routes`, and run it with pytest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from flyball.release.route import Answering, Route, Routes


def route(epoch: int) -> Route:
    """A route whose parts all tell its epoch, so that a torn one would show."""
    answering = Answering(epoch=epoch, champion=f"m-{epoch}", manifest=f"{epoch:064x}", previous=f"m-{epoch - 1}")
    return Route(app="a", models={f"m{n}": answering for n in range(50)})


class RoutesSuite:
    """The behaviour of a route's place."""

    @pytest.fixture
    def routes(self) -> Routes:
        """An empty place."""
        raise NotImplementedError

    def test_nothing_was_ever_released(self, routes: Routes) -> None:
        """An empty place says so."""
        assert routes.read() is None

    def test_what_is_published_is_read(self, routes: Routes) -> None:
        """The last one counts, whatever its epoch: which one is right is what the facts say."""
        for epoch in (1, 7, 3):
            routes.publish(route(epoch))
            assert routes.read() == route(epoch)

    def test_what_is_published_is_proven(self, routes: Routes) -> None:
        """So that it may be answered by while the facts are away; nothing is before anything was."""
        assert routes.proven() is None
        routes.publish(route(2))
        assert routes.proven() == routes.read() == route(2)

    def test_a_reader_never_sees_half(self, routes: Routes) -> None:
        """Readers beside a writer see the route before, or the one after."""
        routes.publish(route(0))

        def read(_: int) -> bool:
            seen = routes.read()
            return seen is not None and seen == route(seen.models["m0"].epoch)

        with ThreadPoolExecutor(4) as pool:
            whole = pool.map(read, range(200))
            for epoch in range(1, 100):
                routes.publish(route(epoch))
            assert all(whole)
