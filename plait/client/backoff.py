"""How long to wait before trying again: doubling, bounded, and spread by chance. Pure."""

from __future__ import annotations

from random import Random

BACKOFF_FIRST_S = 0.02
"""Longest wait before the second try."""
BACKOFF_MAX_S = 2.0
"""Longest wait before any try."""


class Backoff:
    """The waits of one thing that is tried again and again.

    Each wait lies between half of the current bound and the whole of it, so that a thousand clients of one
    restarted broker do not all come back in the same millisecond.
    """

    __slots__ = ("_bound_s", "_random")

    def __init__(self, random: Random) -> None:
        self._random = random
        self._bound_s = BACKOFF_FIRST_S

    def next_s(self) -> float:
        """Seconds to wait now; the next wait may be twice as long."""
        bound_s = self._bound_s
        self._bound_s = min(2 * bound_s, BACKOFF_MAX_S)
        return bound_s * (0.5 + 0.5 * self._random.random())

    def reset(self) -> None:
        """It worked: begin from the shortest wait again."""
        self._bound_s = BACKOFF_FIRST_S
