"""How a run of a fleet ends: as any run of brokers, and its placement comes to rest.

heal ──> machines come back; whoever cannot is replaced; drained nodes are taken back or left ──> as ending.py
                                                                                and placing.py says nothing more
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

import trio

from cluster.assignment import FOUNDERS_MAX
from cluster.catalogue import METADATA_GROUP
from replication.machine import Role
from tests.sim.cluster.brokers.ending import LOOK_S, Ending
from tests.sim.cluster.brokers.placing import Standing, unrest

if TYPE_CHECKING:
    from tests.sim.cluster.brokers.fleet import FleetWorld
    from tests.sim.cluster.brokers.life import BrokerBox, BrokerLife

PATIENCE_S = 4.0
"""Seconds that the operator gives a machine whose disk is doubtful to come back by itself."""


class FleetEnding(Ending):
    """Of one run."""

    _world: FleetWorld

    async def run(self) -> None:
        """See Ending."""
        world = self._world
        world.nursery.start_soon(self._tidy)
        await super().run()

    async def _come_right(self) -> None:
        await super()._come_right()
        self._stage = "placement does not come to rest"
        await self._until(lambda: not any(self.unrest()))
        self._stage = "replicas differ after the last move"
        await self._until(lambda: not any(self._unequal()) and not any(self.unrest()))
        self._count()

    def _why(self) -> str:
        """See Ending."""
        return "; ".join([super()._why(), *self.unrest()])

    def _count(self) -> None:
        """What the run came to, besides."""
        events, catalogue = self._world.events, self._world.newest()
        assert catalogue is not None, "it came right"
        if len(catalogue.nodes()) > 1 and self._world.plan.shape.nodes == 1:
            events.reached("lone broker has grown")
        if any(node.state == "draining" for node in catalogue.nodes()):
            events.reached("at rest with a drained node")
        for _, assignment in catalogue.assignments.items():
            if assignment.next_replica > FOUNDERS_MAX + 1:
                events.reached("replicas that came later")

    async def _tidy(self) -> None:
        """What an operator does when the worst is over."""
        world = self._world
        random = Random(f"tidy {world.plan.seed}")
        await world.healed.wait()
        await trio.sleep(PATIENCE_S)
        while world.operator.busy or not all(self._serves(box) for box in world.boxes if box.is_on):
            for box in world.boxes:
                if box.is_on and box.doubtful and not self._serves(box):
                    world.events.reached("machine with a damaged disk replaced")
                    world.lost[box.node_id] = box.name
                    world.operator.replace(box)
            await trio.sleep(LOOK_S)
        catalogue = world.newest()
        assert catalogue is not None, "somebody serves"
        here = {box.node_id for box in world.boxes}
        for node in catalogue.nodes():
            if node.node_id not in here and node.state != "leaving":
                world.events.reached("node removed that nobody is")
                world.operator.change(node.node_id, "leaving")
            elif node.state == "draining" and random.random() < 0.5:
                world.operator.change(node.node_id, "active")

    def _serves(self, box: BrokerBox) -> bool:
        """Its node is up, and has the catalogue."""
        life = box.life
        core = life.core(METADATA_GROUP) if life is not None and life.started else None
        return core is not None and core.role is not Role.FENCED

    def unrest(self) -> Iterator[str]:
        """What is not as it should be in the end."""
        world = self._world
        catalogue = world.newest()
        if catalogue is None:
            yield "nobody serves"
            return
        if world.operator.busy:
            yield "the operator is busy"
        for box in world.boxes:
            if box.is_on and not self._serves(box):
                yield f"{box.name} does not serve"
        leaders: dict[int, Standing] = {}
        disks: dict[int, list[tuple[int, int]]] = {}
        for life in self._whole():
            assert life.node is not None, "it serves"
            disks[life.node.node_id] = life.node.groups.known()
            leaders |= dict(_led(life))
            for group in life.replicas:
                core = life.core(group)
                if core is None or core.role is Role.FENCED:
                    yield f"{life.box.name} has fenced group {group}"
        yield from unrest(catalogue, leaders, disks, racks=world.plan.shape.racks > 0)


def _led(life: BrokerLife) -> Iterator[tuple[int, Standing]]:
    assert life.node is not None, "it serves"
    for group, replica in life.replicas.items():
        if life.leads_group(group):
            found = replica.group
            assert found is not None, "it leads"
            yield group, Standing(life.node.node_id, found.membership, found.members_committed)
