"""Spreads leadership: a group is led by the first of the nodes that the catalogue names for it, if that can be.

    led here, wanted on node 2, which is up ──(a moment of quiet)──> handed over to its replica on node 2

After a failure each group elects its leader by itself; this brings them back to where they belong, some at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.catalogue import METADATA_GROUP, Catalogue
from replication.actor import Actor, Host, Promise
from replication.group import Group

LOOK_AFTER_MS = 500
"""Time between a change of leaders and the look at what it has led to: who has just started is left in peace."""
LOOK_AGAIN_MS = 500
"""Time between two rounds of transfers."""
LOOK_AGAIN_MAX_MS = 16_000
"""The same, after rounds that did not help."""
TRANSFERS = 64
"""Groups handed over in one round."""


class Leading(Actor):
    """One per node. Costs nothing while everything is led where it should be."""

    def __init__(self, host: Host, catalogue: Catalogue, node_id: int, is_up: Callable[[int], bool]) -> None:
        super().__init__(host, "leading")
        self._catalogue = catalogue
        self._node_id = node_id
        self._is_up = is_up
        self._led: dict[int, Group] = {}
        self._pause_ms = LOOK_AGAIN_MS

    def standing(self, group: Group, leads: bool) -> None:
        """This node leads a group, and serves; or it does not."""
        if leads and group.group != METADATA_GROUP:
            self._led[group.group] = group
            self.look()
        else:
            self._led.pop(group.group, None)

    @property
    def led(self) -> list[Group]:
        """The groups that are led here, but for the catalogue's."""
        return list(self._led.values())

    def look(self) -> None:
        """Something may be led elsewhere now: nodes came, assignments changed."""
        self._pause_ms = LOOK_AGAIN_MS
        self._look_in(LOOK_AFTER_MS)

    def handle(self, messages: list[Any]) -> None:
        """Hand over what should be led elsewhere."""
        wrong = [(group, replica) for group in self._led.values() if (replica := self._heir(group))]
        for group, replica in wrong[:TRANSFERS]:
            group.transfer(replica).then(_ignore)
        if wrong:
            self._look_in(self._pause_ms)
            self._pause_ms = min(2 * self._pause_ms, LOOK_AGAIN_MAX_MS)

    def _heir(self, group: Group) -> int:
        """The replica that should lead a group that is led here; 0: this one, or nobody who could."""
        assignment = self._catalogue.assignment(group.group)
        if assignment is None or assignment.preferred in (0, self._node_id):
            return 0
        node = self._catalogue.node(assignment.preferred)
        if node is None or node.state != "active" or not self._is_up(node.node_id):
            return 0
        replica = next(each.replica for each in assignment.wanted if each.node == node.node_id)
        return replica if replica in group.membership.voters else 0

    def _look_in(self, wait_ms: int) -> None:
        if self._led and self.alarm_ns is None and not self.stopped:
            self.host.alarm(self.host.clock.monotonic_ns() + wait_ms * 1_000_000, self, None)


def _ignore(_: Promise[None]) -> None:
    """Whether it worked is seen at the next look."""
