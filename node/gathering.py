"""Leads the groups of a cluster from one node: whoever leads the catalogue is handed the others.

    leads group 7 here, the catalogue is led on node 2 ──> transfer group 7 to its replica on node 2

A client is served by the node that it is connected to, and needs all that it uses to be led there. After a failure
each group elects its leader by itself; this brings them together again, some at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from node.members import Members
from replication.actor import Actor, Host, Promise
from replication.group import Group

LOOK_AFTER_MS = 100
"""Time between a change of leaders and the look at what it has led to."""
LOOK_AGAIN_MS = 300
"""Time between two rounds of transfers."""
TRANSFERS = 64
"""Groups handed over in one round."""


class Gathering(Actor):
    """One per node. Costs nothing while everything is where it should be."""

    def __init__(self, host: Host, members: Members, gathering_point: Callable[[], int]) -> None:
        """`gathering_point`: the node where all should be led; 0: not known."""
        super().__init__(host, "gathering")
        self._members = members
        self._gathering_point = gathering_point
        self._led: dict[int, Group] = {}

    def standing(self, group: Group, leads: bool) -> None:
        """This node leads a group, and serves; or it does not."""
        if leads:
            self._led[group.group] = group
            self._look_in(LOOK_AFTER_MS)
        else:
            self._led.pop(group.group, None)

    def look(self) -> None:
        """The gathering point may be another one now."""
        self._look_in(LOOK_AFTER_MS)

    def handle(self, messages: list[Any]) -> None:
        """Hand over what should be led elsewhere."""
        point = self._gathering_point()
        if point == self._members.node_id:
            return
        if point:
            for group in list(self._led.values())[:TRANSFERS]:
                group.transfer(self._members.replica_on(group.group, point)).then(_ignore)
        self._look_in(LOOK_AGAIN_MS)

    def _look_in(self, wait_ms: int) -> None:
        if self._led and self.alarm_ns is None and not self.stopped:
            self.host.alarm(self.host.clock.monotonic_ns() + wait_ms * 1_000_000, self, None)


def _ignore(_: Promise[None]) -> None:
    """Whether it worked is seen at the next look."""
