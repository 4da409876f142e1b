"""What one client, and all clients together, may ask of the native gateway.

The constants are the defaults; `GatewayLimits` is what a gateway is made with, so that tests and operators can
set others.
"""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS_MAX = 20_000
"""Connections held at once; one more is told `limit_reached` and closed."""
HANDSHAKE_TIMEOUT_S = 10.0
"""Seconds within which a connection must have said HELLO, or it is told `timed_out` and closed."""
FRAME_STALL_S = 30.0
"""Seconds without a byte in the middle of a frame, after which the connection is told `timed_out` and closed."""
FRAME_BYTES_MARGIN = 65_536
"""Bytes that a frame may have beyond the largest batch: its head."""
PUBLISH_IN_FLIGHT_BYTES = 8 * 1024 * 1024
"""Bytes of unanswered publishes of one connection, above which no more of its requests are read."""
REQUESTS_PENDING_MAX = 1_024
"""Unanswered requests of one connection (waiting fetches aside), above which no more of them are read."""
FETCHES_WAITING_MAX = 256
"""Unanswered FETCH and HEARTBEAT requests of one connection; one more is answered `limit_reached`."""
FETCH_BYTES_MAX = 4 * 1024 * 1024
"""Bytes that one FETCH may ask for; more is taken as this."""
FETCH_WAIT_MS_MAX = 60_000
"""Milliseconds that one FETCH may wait; more is taken as this."""
CONSUMERS_MAX = 1_024
"""Consumers of one connection; one more is answered `limit_reached`."""
PREFETCH_RECORDS_MAX = 100_000
"""Records that one consumer may have on lease; more is answered `bad_request`."""
OUTBOX_BYTES_HIGH = 4 * 1024 * 1024
"""Bytes waiting to be sent to one client, above which its consumers pause and its requests are not read."""
OUTBOX_BYTES_LOW = 1 * 1024 * 1024
"""Bytes waiting to be sent to one client, below which they go on."""
INPUT_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of unfinished frames of all connections together; who goes beyond is told `limit_reached` and closed."""
SEND_STALL_S = 30.0
"""Seconds in which a client must take SEND_BYTES of what waits for it, or it is cut off."""
SHUTDOWN_FLUSH_S = 5.0
"""Seconds that a stopping gateway gives its clients to take what waits for them."""


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """The limits of one gateway; see the constants of this module for what each one bounds."""

    connections_max: int = CONNECTIONS_MAX
    handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S
    frame_stall_s: float = FRAME_STALL_S
    publish_in_flight_bytes: int = PUBLISH_IN_FLIGHT_BYTES
    requests_pending_max: int = REQUESTS_PENDING_MAX
    fetches_waiting_max: int = FETCHES_WAITING_MAX
    fetch_bytes_max: int = FETCH_BYTES_MAX
    fetch_wait_ms_max: int = FETCH_WAIT_MS_MAX
    consumers_max: int = CONSUMERS_MAX
    prefetch_records_max: int = PREFETCH_RECORDS_MAX
    outbox_bytes_high: int = OUTBOX_BYTES_HIGH
    outbox_bytes_low: int = OUTBOX_BYTES_LOW
    input_bytes_max: int = INPUT_BYTES_MAX
    send_stall_s: float = SEND_STALL_S
    shutdown_flush_s: float = SHUTDOWN_FLUSH_S
