"""Where leadership should be, and handing over what is elsewhere.

    led here, wanted on node 2, which is up ──(a moment of quiet)──> handed over to its replica on node 2
    this node is short of disk space ──at once──> all that is led here: to nodes that have space, in turn

After a failure each group elects its leader by itself; this brings them back to where they belong, some at a time.
A publish that finds the disk full waits while its partition is about to be handed over (cluster/admission.py): the
new leader takes it, and its producer has seen a delay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.catalogue import METADATA_GROUP, Catalogue
from node.handover import choose_heir
from replication.actor import Actor, Host, Promise
from replication.group import Group

LOOK_AFTER_MS = 500
"""Time between a change of leaders and the look at what it has led to: who has just started is left in peace."""
LOOK_AGAIN_MS = 500
"""Time between two rounds of transfers."""
RELIEF_AGAIN_MS = 50
"""The same, of a node that is short of disk space."""
LOOK_AGAIN_MAX_MS = 16_000
"""The same, after rounds that did not help."""
TRANSFERS = 64
"""Groups handed over in one round."""


class Leading(Actor):
    """One per node. Costs nothing while everything is led where it should be."""

    def __init__(
        self,
        host: Host,
        catalogue: Catalogue,
        node_id: int,
        may_lead: Callable[[int], bool],
        leaving: dict[int, None],
        *,
        spreads: bool,
    ) -> None:
        """`may_lead`: whether another node can take something over now; `leaving`: kept here, the groups that are
        about to be handed over since this node is short; `spreads`: whether the catalogue's preference counts."""
        super().__init__(host, "leading")
        self._catalogue = catalogue
        self._node_id = node_id
        self._may_lead = may_lead
        self._spreads = spreads
        self._leaving = leaving
        self._short = False
        self._given: dict[int, int] = {}  # node: groups that it was offered
        self._wrong = 0  # groups that were to be handed over, at the last look
        self._led: dict[int, Group] = {}
        self._pause_ms = LOOK_AGAIN_MS

    def standing(self, group: Group, leads: bool) -> None:
        """This node leads a group, and serves; or it does not."""
        if leads:
            self._led[group.group] = group
            self.look()
        else:
            self._led.pop(group.group, None)
            self._leaving.pop(group.group, None)

    def look(self) -> None:
        """Something may be led elsewhere now: nodes came, assignments changed."""
        self._note_leaving()
        self._pause_ms = RELIEF_AGAIN_MS if self._short else LOOK_AGAIN_MS
        self._look_in(0 if self._short else LOOK_AFTER_MS)

    def relieve(self, short: bool) -> None:
        """This node is short of disk space, or is not any more; or another one has said so of itself."""
        self._short = short
        self.look()

    def stop(self) -> None:
        """The node ends, and hands over everything in its own way."""
        super().stop()
        self._leaving.clear()

    def handle(self, messages: list[Any]) -> None:
        """Hand over what should be led elsewhere."""
        self._note_leaving()
        wrong = [(group, replica) for group in self._led.values() if (replica := self._heir(group))]
        for group, replica in wrong[:TRANSFERS]:
            group.transfer(replica).then(_ignore)
        if wrong or self._leaving:
            self._look_in(self._pause_ms)
            if not self._short or len(wrong) >= self._wrong:
                self._pause_ms = min(2 * self._pause_ms, LOOK_AGAIN_MAX_MS)
        self._wrong = len(wrong)

    def _note_leaving(self) -> None:
        """Those that another node could lead, though it may have to catch up first."""
        self._leaving.clear()
        if self._short and not self.stopped:
            able = [number for number, group in self._led.items() if self._others(group)]
            self._leaving.update(dict.fromkeys(able))

    def _others(self, group: Group) -> bool:
        """Whether another of its voters lives on a node that may lead."""
        voters = group.membership.voters
        return any(node != self._node_id and self._may_lead(node) for node in voters.values())

    def _heir(self, group: Group) -> int:
        """The replica that should lead a group that is led here; 0: this one, or nobody who could."""
        if self._short:
            heir = choose_heir(group, self._may_lead, self._given)
            if heir is None or not heir.caught_up:
                return 0  # at the next look it may have caught up; what is led on is led here until then
            self._given[heir.node] = self._given.get(heir.node, 0) + 1
            return heir.replica
        return self._preferred(group) if self._spreads else 0

    def _preferred(self, group: Group) -> int:
        """The replica on the first of the nodes that the catalogue names for a group."""
        assignment = self._catalogue.assignment(group.group)
        if group.group == METADATA_GROUP or assignment is None or assignment.preferred in (0, self._node_id):
            return 0
        node = self._catalogue.node(assignment.preferred)
        if node is None or node.state != "active" or not self._may_lead(node.node_id):
            return 0
        replica = next(each.replica for each in assignment.wanted if each.node == node.node_id)
        return replica if replica in group.membership.voters else 0

    def _look_in(self, wait_ms: int) -> None:
        when_ns = self.host.clock.monotonic_ns() + wait_ms * 1_000_000
        sooner = self.alarm_ns is None or (self._short and when_ns < self.alarm_ns)
        if self._led and sooner and not self.stopped:
            self.host.alarm(when_ns, self, None)


def _ignore(_: Promise[None]) -> None:
    """Whether it worked is seen at the next look."""
