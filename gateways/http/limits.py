"""What those who ask over HTTP may take of the broker.

The constants are the defaults; `HttpLimits` is what a gateway is made with, so that tests can set others.
"""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS_MAX = 64
"""Connections held at once; one more pushes the oldest out, so that a health check gets through a crowd."""
TARGET_BYTES_MAX = 1_024
"""Length of a request's target (the path and what follows it); a longer one is answered 414."""
HEAD_BYTES_MAX = 8 * 1024
"""Bytes of a request, from its first to the last of its headers; a longer one is answered 431."""
PIPELINED_MAX = 16
"""Requests of one connection that have arrived and are not answered; with more the connection ends."""
IDLE_S = 60.0
"""Seconds that a connection may wait for its next request."""
REQUEST_S = 5.0
"""Seconds from a request's first byte to its last; a slower one is answered 408."""
ANSWER_S = 10.0
"""Seconds in which an answer must be made, and again in which the client must take it, or it is cut off."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The limits of one gateway; see the constants of this module for what each one bounds."""

    connections_max: int = CONNECTIONS_MAX
    target_bytes_max: int = TARGET_BYTES_MAX
    head_bytes_max: int = HEAD_BYTES_MAX
    pipelined_max: int = PIPELINED_MAX
    idle_s: float = IDLE_S
    request_s: float = REQUEST_S
    answer_s: float = ANSWER_S
