"""What is done to a fleet besides what goes wrong with any brokers: machines come and go, the operator is busy."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from tests.history.programs import DEAD_LETTERS
from tests.sim.cluster.brokers.nemesis import BrokerNemesis
from tests.sim.crash import Survival

if TYPE_CHECKING:
    from tests.sim.cluster.brokers.fleet import FleetWorld
    from tests.sim.cluster.brokers.life import BrokerBox
    from tests.sim.cluster.plan import PlannedFault

REPLICAS = (1, 2, 3, 3, 4, 5)
"""Numbers of replicas that the operator asks for."""
PARTITIONS_MAX = 4
"""Partitions that a topic or queue gets."""
FOUNDERS_LEAST = 3
"""Nodes that founded a cluster in which a wrong disk can be told: one that founded alone asks nobody."""


class FleetNemesis(BrokerNemesis):
    """Of one run."""

    _world: FleetWorld

    def __init__(self, world: FleetWorld) -> None:
        super().__init__(world)
        self._kinds |= {
            "join": self._join,
            "node dead": self._node_dead,
            "machine lost": self._machine_lost,
            "drain": self._drain,
            "activate": self._activate,
            "remove": self._remove,
            "more partitions": self._more_partitions,
            "other replicas": self._other_replicas,
        }

    def _member(self, fault: PlannedFault) -> BrokerBox | None:
        boxes = self._world.member_boxes()
        return boxes[fault.node % len(boxes)] if boxes else None

    def _join(self, fault: PlannedFault, random: Random) -> bool:
        """A machine that is not of the cluster joins it."""
        spare = next((box for box in self._world.boxes if not box.is_on), None)
        if spare is None:
            return False
        spare.switch_on()
        return True

    def _node_dead(self, fault: PlannedFault, random: Random) -> bool:
        """It is away for longer than the others wait for it."""
        box = self._member(fault)
        if box is None:
            return False
        survival = random.choice((Survival.KILLED, Survival.KILLED, *Survival))
        box.crash(survival, self._world.plan.shape.dead_after_ms + fault.for_ms, silent=random.random() < 0.5)
        return True

    def _machine_lost(self, fault: PlannedFault, random: Random) -> bool:
        """It burns down with its disk; another machine of its name takes its place, as another node."""
        box = self._member(fault)
        if box is None or not self._may_lose(box) or box.own_disk is not None:
            return False
        self._world.lost[box.node_id] = box.name
        self._world.operator.replace(box, fault.for_ms, comes_first=random.random() < 0.5)
        return True

    # ---- what the operator asks for

    def _takes_voters(self) -> bool:
        """One node less may leave a group with too few voters, for which no disk may fail; True if it may not."""
        world, catalogue = self._world, self._world.newest()
        serving = [node for node in catalogue.nodes() if node.state == "active"] if catalogue is not None else []
        if len(serving) - world.operator.busy > FOUNDERS_LEAST:
            return False
        if world.loses():
            return True
        world.thin = True
        return False

    def _drain(self, fault: PlannedFault, random: Random) -> bool:
        box = self._member(fault)
        if box is None or self._takes_voters():
            return False
        self._world.operator.change(box.node_id, "draining")
        return True

    def _activate(self, fault: PlannedFault, random: Random) -> bool:
        catalogue = self._world.newest()
        drained = [node for node in catalogue.nodes() if node.state != "active"] if catalogue is not None else []
        if not drained:
            return False
        self._world.operator.change(drained[fault.node % len(drained)].node_id, "active")
        return True

    def _remove(self, fault: PlannedFault, random: Random) -> bool:
        box = self._member(fault)
        if box is None or len(self._world.member_boxes()) < 2 or self._takes_voters():
            return False
        self._world.operator.change(box.node_id, "leaving")
        return True

    def _more_partitions(self, fault: PlannedFault, random: Random) -> bool:
        names = [self._world.topic.name, self._world.queue.name]
        if self._world.plan.shape.overflow == "dead-letter":
            names += [DEAD_LETTERS, DEAD_LETTERS]
        name = random.choice(names)
        catalogue = self._world.newest()
        topic = catalogue.topic(name) if catalogue is not None else None
        if topic is None or len(topic.groups) >= PARTITIONS_MAX:
            return False
        self._world.operator.resize(name, partitions=len(topic.groups) + 1)
        return True

    def _other_replicas(self, fault: PlannedFault, random: Random) -> bool:
        world, replicas = self._world, random.choice(REPLICAS)
        if replicas < FOUNDERS_LEAST:
            if world.loses():
                return False
            world.thin = True
        world.operator.resize(random.choice((world.topic.name, world.queue.name)), replicas=replicas)
        return True

    # ---- wrong disks

    def _old_disk(self, fault: PlannedFault, random: Random) -> bool:
        box = self._broker_box(fault)
        return self._founds_with_others(box) and super()._old_disk(fault, random)

    def _empty_disk(self, fault: PlannedFault, random: Random) -> bool:
        box = self._broker_box(fault)
        return self._founds_with_others(box) and super()._empty_disk(fault, random)

    def _founds_with_others(self, box: BrokerBox) -> bool:
        return box.founds and self._world.plan.shape.nodes >= FOUNDERS_LEAST
