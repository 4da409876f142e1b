"""A cluster whose nodes come and go: machines that join, nodes that are drained, removed, dead, or lost for good.

plan ──> fleet_nemesis.py ──> operator.py ── SDK ──> any node        the catalogue moves replicas
               └──> machines are switched off, cleared, switched on as other nodes
at rest: placing.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.catalogue import METADATA_GROUP
from node.partition import Partition
from tests.sim.cluster.brokers.fleet_ending import FleetEnding
from tests.sim.cluster.brokers.fleet_nemesis import FleetNemesis
from tests.sim.cluster.brokers.operator import Operator
from tests.sim.cluster.brokers.world import BrokerWorld

if TYPE_CHECKING:
    from tests.sim.cluster.box import Box
    from tests.sim.cluster.brokers.life import BrokerBox
    from tests.sim.cluster.plan import Plan

SAFE_VOTERS = 3
"""Voters of a group that can lose one without harm."""


class FleetWorld(BrokerWorld):
    """Everything of one run."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.operator = Operator(self)
        self.lost: dict[int, str] = {}
        """Nodes whose disks are gone for good, with their machines."""
        self.thin = plan.shape.replicas is not None and plan.shape.replicas < SAFE_VOTERS
        """Groups have, or may come to have, so few voters that none of them may lose what it has."""

    def member_boxes(self) -> list[BrokerBox]:
        """The machines whose nodes are of the cluster and serve."""
        return [life.box for life in self.lives() if not life.dead and not self.was_removed(life.box.node_id)]

    def joined(self, box: BrokerBox) -> None:
        """See BrokerWorld."""
        self.events.reached("node joined")
        if any(self.internet.is_cut(box.name, one.name) for one in self.boxes):
            self.events.reached("node joined while links were cut")
        if self.weather.on(box.name, self.boxes[0].name) is not None:
            self.events.reached("node joined in bad weather")

    def may_lose(self, boxes: list[Box]) -> bool:
        """See Cluster. Only where every group has come to three voters, and for one machine at a time."""
        catalogue = self.newest()
        if self.thin or catalogue is None or catalogue.assignments.unsettled:
            return False
        if any(len(assignment.voters) < SAFE_VOTERS for _, assignment in catalogue.assignments.items()):
            return False
        return len({box.name for box in boxes} | self._worthless()) <= 1

    def loses(self) -> bool:
        """A machine has lost what it had, or may have."""
        return bool(self._worthless())

    def _worthless(self) -> set[str]:
        """The machines whose disks cannot be counted upon."""
        doubtful = {box.name for box in self.boxes if box.doubtful or box.own_disk is not None}
        return doubtful | {machine for node, machine in self.lost.items() if not self._is_settled_without(node)}

    def _is_settled_without(self, node: int) -> bool:
        catalogue = self.newest()
        return catalogue is not None and catalogue.node_was_removed(node) and not catalogue.assignments.unsettled

    def leads_partition(self, box: BrokerBox) -> bool:
        """A topic's or queue's partition is led there."""
        life = box.life
        return life is not None and any(
            group != METADATA_GROUP and isinstance(replica, Partition) and life.leads_group(group)
            for group, replica in life.replicas.items()
        )

    async def live(self) -> None:
        """See Cluster."""
        self.operator.begin()
        self.nursery.start_soon(self.operator.watch)
        await super().live()

    def nemesis(self) -> FleetNemesis:
        """See BrokerWorld."""
        return FleetNemesis(self)

    def ending(self) -> FleetEnding:
        """See BrokerWorld."""
        return FleetEnding(self)
