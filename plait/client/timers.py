"""The client's alarm clock: one task for lingers, retries, deadlines, lease extensions and position commits."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import anyio


class Timers:
    """Calls functions at their time. What is no longer wanted is not taken back: the function ignores it."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._wake: anyio.Event | None = None

    def call_at(self, when_s: float, call: Callable[[], None]) -> None:
        """Call `call()` when the loop's clock (`anyio.current_time`) reaches `when_s`; past times count as now."""
        self._count += 1  # calls of the same time come in the order of asking
        heapq.heappush(self._heap, (when_s, self._count, call))
        if self._wake is not None and self._heap[0][1] == self._count:
            self._wake.set()

    def call_later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call `call()` after `delay_s` seconds."""
        self.call_at(anyio.current_time() + delay_s, call)

    async def run(self) -> None:
        """Ring until cancelled."""
        while True:
            now_s = anyio.current_time()
            while self._heap and self._heap[0][0] <= now_s:
                heapq.heappop(self._heap)[2]()
            self._wake = anyio.Event()
            if self._heap:
                with anyio.move_on_after(self._heap[0][0] - anyio.current_time()):
                    await self._wake.wait()
            else:
                await self._wake.wait()
