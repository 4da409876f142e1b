"""The leader's stamps: milliseconds that agree with wall time in the long run and never jump.

Everything replicated that depends on time (deadlines, delays, retention) is measured in stamps, so stamps must not
go back, must not leap when somebody sets a clock, and must not stand still. A stamp advances by monotonic elapsed
time and is slewed towards wall time, as adjtime(3) does it.
"""

from __future__ import annotations

SLEW_PERCENT = 5
"""How much faster or slower than monotonic time stamps may run while they are being corrected."""

_NS_PER_MS = 1_000_000


class StampClock:
    """One leader's clock. Knows no real clock: every call is told what the clocks say."""

    __slots__ = ("_monotonic_ns", "_stamp_ns", "_started")

    def __init__(self) -> None:
        self._started = False
        self._monotonic_ns = 0
        self._stamp_ns = 0

    def stamp_ms(self, monotonic_ns: int, wall_ms: int, floor_ms: int) -> int:
        """The stamp of now: never below `floor_ms` (the last applied stamp) or an earlier answer.

        The first one after `reset` is wall time, or the floor if that is ahead: a new leader may follow hours of
        nobody leading, which must count. From then on elapsed time counts, and SLEW_PERCENT of it corrects.
        """
        if not self._started:
            self._started = True
            self._stamp_ns = max(wall_ms, floor_ms) * _NS_PER_MS
        else:
            elapsed_ns = max(0, monotonic_ns - self._monotonic_ns)
            error_ns = wall_ms * _NS_PER_MS - (self._stamp_ns + elapsed_ns)
            slew_ns = elapsed_ns * SLEW_PERCENT // 100
            self._stamp_ns += elapsed_ns + max(-slew_ns, min(slew_ns, error_ns))
            self._stamp_ns = max(self._stamp_ns, floor_ms * _NS_PER_MS)
        self._monotonic_ns = max(monotonic_ns, self._monotonic_ns)
        return self._stamp_ns // _NS_PER_MS

    def monotonic_ns_at(self, stamp_ms: int) -> int:
        """When stamps will reach `stamp_ms`, as monotonic time, if they are not slewed until then.

        For timers: while stamps run slow a timer rings early by at most SLEW_PERCENT of its wait; ask again then.
        """
        return self._monotonic_ns + max(0, stamp_ms * _NS_PER_MS - self._stamp_ns)

    def reset(self) -> None:
        """Forget everything: this replica became the leader anew."""
        self.__init__()  # type: ignore[misc]  # one place says what new means
