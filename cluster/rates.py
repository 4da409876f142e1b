"""Rates, measured and enforced in whole numbers: equal inputs give equal decisions on every machine.

level  (tokens x 1e9)  ── fills by rate x elapsed nanoseconds, up to one burst ──>
       <── a publish takes its size at once, and may leave a debt ──
"""

from __future__ import annotations

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

BURST_MS = 1_000
"""How much unused rate a bucket saves up, as time."""
DRAIN_MEMORY_NS = NS_PER_S
"""Busy time after which a drain meter forgets half of what it has seen."""
DRAIN_KNOWN_NS = 10 * NS_PER_MS
"""Busy time that a drain meter must have seen before it estimates."""


class TokenBucket:
    """A rate limit with debt (as Kafka's, KIP-599): what is taken is taken whole, the next one waits for it.

    A publish is let through while the level is above zero and may push it below; so a batch that is larger
    than the burst passes, and costs its time.
    """

    __slots__ = ("_burst", "_filled_ns", "_level", "rate_per_s")

    def __init__(self, rate_per_s: int, now_ns: int) -> None:
        assert rate_per_s > 0, "a rate of nothing is no rate"
        self.rate_per_s = rate_per_s
        # invariant: _level <= _burst, both in tokens x 1e9
        self._burst = max(rate_per_s * BURST_MS * NS_PER_MS, NS_PER_S)
        self._level = self._burst
        self._filled_ns = now_ns

    def wait_ns(self, now_ns: int) -> int:
        """Nanoseconds until something may be taken; 0: now."""
        self._fill(now_ns)
        return 0 if self._level > 0 else -self._level // self.rate_per_s + 1

    def time_ns(self, tokens: int) -> int:
        """How long that many tokens take to come."""
        return tokens * NS_PER_S // self.rate_per_s

    def take(self, tokens: int, now_ns: int) -> int:
        """Take the tokens; returns the nanoseconds that it takes to pay back the debt, 0 without one."""
        self._fill(now_ns)
        self._level -= tokens * NS_PER_S
        return 0 if self._level >= 0 else -(self._level // self.rate_per_s)

    def _fill(self, now_ns: int) -> None:
        elapsed_ns = now_ns - self._filled_ns
        if elapsed_ns > 0:
            self._filled_ns = now_ns
            self._level = min(self._burst, self._level + elapsed_ns * self.rate_per_s)


class DrainMeter:
    """How fast what was admitted gets committed, seen while there was something to commit."""

    __slots__ = ("_busy", "_busy_ns", "_drained_bytes", "_marked_ns")

    def __init__(self) -> None:
        self._busy = False
        self._busy_ns = 0
        self._drained_bytes = 0
        self._marked_ns = 0

    def admitted(self, now_ns: int) -> None:
        """Something is in flight from now on, if nothing was."""
        if not self._busy:
            self._busy = True
            self._marked_ns = now_ns

    def drained(self, size_bytes: int, now_ns: int, *, busy: bool) -> None:
        """That many bytes were committed; `busy`: others are still in flight."""
        self._busy_ns += now_ns - self._marked_ns
        self._drained_bytes += size_bytes
        self._marked_ns = now_ns
        self._busy = busy
        if self._busy_ns > DRAIN_MEMORY_NS:
            self._busy_ns //= 2
            self._drained_bytes //= 2

    def estimate_ns(self, size_bytes: int, now_ns: int) -> int:
        """How long that many bytes will take; 0 while too little was seen to say."""
        # a stall that is going on counts too, or a stopped disk would look as fast as it was
        busy_ns = self._busy_ns + (now_ns - self._marked_ns if self._busy else 0)
        if busy_ns < DRAIN_KNOWN_NS or self._drained_bytes == 0:
            return 0
        return size_bytes * busy_ns // self._drained_bytes
