"""The route in memory."""

from __future__ import annotations

from flyball.release.route import Route


class MemoryRoutes:
    """See `release.route.Routes`."""

    def __init__(self) -> None:
        self._route: Route | None = None

    def read(self) -> Route | None:
        """The present route."""
        return self._route

    def proven(self) -> Route | None:
        """The present route: nobody else can have put it there."""
        return self._route

    def publish(self, route: Route) -> None:
        """Replace it."""
        self._route = route
