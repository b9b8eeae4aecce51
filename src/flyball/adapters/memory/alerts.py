"""A channel of alerts in memory, for rehearsals and tests."""

from __future__ import annotations

from flyball.watch.alert import Alert


class MemoryAlerts:
    """See `watch.alert.Alerts`."""

    def __init__(self) -> None:
        self.sent: list[Alert] = []

    def position(self) -> int:
        """The last one's number."""
        return self.sent[-1].seq if self.sent else 0

    def send(self, alert: Alert) -> None:
        """Keep it."""
        if alert.seq > self.position():
            self.sent.append(alert)
