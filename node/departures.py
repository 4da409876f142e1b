"""Consumers of this node that are gone while nobody could be told: their leases are to be returned.

    a consumer is gone, and no leader answers ──> noted here ──> told to whoever leads by then ──> forgotten here

Only the node whose client a consumer was knows that it is gone, so its word is what returns the leases; if the
node ends before it could say so, its next start says it, or the leases' deadlines pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from replication.actor import Actor, Host, Promise

DEPARTED_MAX = 100_000
"""Consumers that wait to be reported; of more, the leases run to their deadlines."""
REPORT_CONSUMERS = 1_000
"""Consumers in one report."""
FIRST_MS = 20
"""Wait before the first report: a new leader is not known at once."""
AGAIN_MS = 250
"""Wait before a report is tried again."""


class Departures(Actor):
    """One per node. Reports until the leader has said that it is done."""

    def __init__(
        self,
        host: Host,
        consumers_gone: Callable[[int, list[str]], Promise[None]],
        is_deleted: Callable[[int], bool],
    ) -> None:
        """`consumers_gone`: have whoever leads a group return what consumers of it hold."""
        super().__init__(host, "departures")
        self._consumers_gone = consumers_gone
        self._is_deleted = is_deleted
        self._waiting: dict[int, dict[str, None]] = {}  # by group, in order of departure
        self._count = 0
        self._reporting: dict[int, None] = {}

    def departed(self, group: int, consumers: Iterable[str]) -> None:
        """These consumers of a group are gone, and its leader was not found."""
        waiting = self._waiting.setdefault(group, {})
        for consumer in consumers:
            if consumer not in waiting and self._count < DEPARTED_MAX:
                waiting[consumer] = None
                self._count += 1
        self._look_in(FIRST_MS)

    def handle(self, messages: list[Any]) -> None:
        """Report what can be reported."""
        for group in [group for group in self._waiting if group not in self._reporting]:
            self._report(group)
        if self._waiting:
            self._look_in(AGAIN_MS)

    def _report(self, number: int) -> None:
        waiting = self._waiting[number]
        if self._is_deleted(number) or not waiting:
            self._count -= len(self._waiting.pop(number))
            return
        consumers = list(waiting)[:REPORT_CONSUMERS]
        self._reporting[number] = None
        self._consumers_gone(number, consumers).then(partial(self._reported, number, consumers))

    def _reported(self, number: int, consumers: list[str], done: Promise[Any]) -> None:
        del self._reporting[number]
        if done.error is not None:
            return  # tried again at the next look; a leader that has done it already does no harm
        waiting = self._waiting.get(number, {})
        for consumer in consumers:
            if consumer in waiting:
                del waiting[consumer]
                self._count -= 1
        if not waiting:
            self._waiting.pop(number, None)
        self._look_in(FIRST_MS)

    def _look_in(self, wait_ms: int) -> None:
        when_ns = self.host.clock.monotonic_ns() + wait_ms * 1_000_000
        if self._waiting and not self.stopped and (self.alarm_ns is None or when_ns < self.alarm_ns):
            self.host.alarm(when_ns, self, None)
