"""Simulated time that costs little: a heap of what is due, beside trio's own deadlines.

    call_at, sleep_until ──> heap ──┐
    trio's cancel scopes ──────────┴──(nothing is runnable)──> the clock jumps to the earliest

trio's MockClock does the same for trio's deadlines alone, and every sleep of trio is two cancel scopes. A run of
tests/sim/run.py has a `Timers`; elsewhere there is none, and whoever wants to sleep sleeps by trio.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from functools import partial

import trio
import trio._core._run as trio_run
import trio.testing

INFINITY = float("inf")


class Due:
    """Something that is due at a time."""

    __slots__ = ("action",)

    def __init__(self, action: Callable[[], None]) -> None:
        self.action: Callable[[], None] | None = action
        """None: it was called off."""


# The private names that jumping hangs on (trio 0.35): fail here, not in a clock that stands still.
assert hasattr(trio.testing.MockClock, "_autojump")
assert hasattr(trio_run.Deadlines, "next_deadline")


class Timers:
    """Takes over the jumps of a MockClock."""

    def __init__(self, clock: trio.testing.MockClock, on_standstill: Callable[[], None]) -> None:
        """`on_standstill` is called when every task waits and nothing will ever be due."""
        self.now = 0.0
        """Simulated seconds since the run began."""
        self._clock = clock
        self._on_standstill = on_standstill
        self._heap: list[tuple[float, int, Due]] = []
        self._number = 0
        clock.timers = self  # type: ignore[attr-defined]  # read by `running_timers`
        clock._autojump = self._jump  # type: ignore[method-assign]  # see above
        clock.current_time = lambda: self.now  # type: ignore[method-assign]  # a tenth of the time it took

    def call_at(self, at_s: float, action: Callable[[], None]) -> Due:
        """Call when simulated time has come to `at_s`, unless it is called off before."""
        self._number += 1
        due = Due(action)
        heapq.heappush(self._heap, (at_s, self._number, due))
        return due

    async def sleep_until(self, at_s: float, *, shielded: bool = False) -> None:
        """Return at that time; `shielded`: a cancellation has to wait for it."""
        due = self.call_at(at_s, partial(trio.lowlevel.reschedule, trio.lowlevel.current_task()))

        def abort(_: object) -> trio.lowlevel.Abort:
            if shielded:
                return trio.lowlevel.Abort.FAILED
            due.action = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _jump(self) -> None:
        heap = self._heap
        while heap and heap[0][2].action is None:
            heapq.heappop(heap)
        at_s = min(heap[0][0] if heap else INFINITY, trio_run.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline())
        if at_s == INFINITY:
            self._on_standstill()
            return
        if at_s > self.now:
            self.now = at_s
        while heap and heap[0][0] <= self.now:
            action = heapq.heappop(heap)[2].action
            if action is not None:
                action()


def running_timers() -> Timers | None:
    """Those of the run that this is called in; None: it is none of tests/sim/run.py."""
    return getattr(trio_run.GLOBAL_RUN_CONTEXT.runner.clock, "timers", None)


async def sleep(seconds: float, *, shielded: bool = False) -> None:
    """trio.sleep, in whatever run."""
    timers = running_timers()
    if timers is not None:
        await timers.sleep_until(timers.now + seconds, shielded=shielded)
        return
    with trio.CancelScope(shield=shielded):
        await trio.sleep(seconds)
