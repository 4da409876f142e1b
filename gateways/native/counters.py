"""What the native gateway counts, as plain integers that a metrics page may read at any time."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """Totals since the gateway was made, except for the two that say `now`."""

    connections_now: int = 0
    input_bytes_now: int = 0
    """Bytes of unfinished frames of all connections."""
    connections_accepted: int = 0
    connections_refused: int = 0
    handshakes_late: int = 0
    connections_stalled: int = 0
    """Cut off because they took nothing, or sent nothing in the middle of a frame."""
    accept_errors: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    publishes: int = 0
    publish_bytes: int = 0
    fetches: int = 0
    deliveries: int = 0
    """DELIVER frames."""
    records_delivered: int = 0
    settles: int = 0
    records_fetched: int = 0
    errors: int = 0
    """ERROR frames."""
    errors_by_code: dict[str, int] = field(default_factory=dict)
    """The same, by the error's code."""
    defects: int = 0
    """Unexpected exceptions in sessions; each one is in the log."""

    def failed(self, code: str) -> None:
        """An ERROR was sent."""
        self.errors += 1
        self.errors_by_code[code] = self.errors_by_code.get(code, 0) + 1
