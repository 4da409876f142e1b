"""What goes wrong in clusters of brokers besides what can in any: clients, wrong disks, offices handed over."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

from node.identity import read_identity
from plait.wire.errors import PlaitError
from tests.sim.cluster.nemesis import Nemesis
from tests.sim.cluster.plan import PlannedFault

if TYPE_CHECKING:
    from tests.sim.cluster.brokers.life import BrokerBox
    from tests.sim.cluster.brokers.machines import ClientMachine
    from tests.sim.cluster.brokers.world import BrokerWorld

BURST_RECORDS = 40
"""Values that come at once in a burst."""


class BrokerNemesis(Nemesis):
    """Of one run."""

    _world: BrokerWorld

    def __init__(self, world: BrokerWorld) -> None:
        super().__init__(world)
        self._kinds |= {
            "old disk": self._old_disk,
            "empty disk": self._empty_disk,
            "transfer": self._transfer,
            "client killed": self._client_killed,
            "client paused": self._client_paused,
            "client cut off": self._client_cut_off,
        }

    def _clock_rate(self, fault: PlannedFault, random: Random) -> bool:
        self._world.sharing.clocks_agree = False
        return super()._clock_rate(fault, random)

    def _broker_box(self, fault: PlannedFault) -> BrokerBox:
        return self._world.boxes[fault.node % len(self._world.boxes)]

    def _client(self, fault: PlannedFault) -> ClientMachine:
        return self._world.clients[fault.node % len(self._world.clients)]

    def _client_killed(self, fault: PlannedFault, random: Random) -> bool:
        return self._client(fault).kill(fault.for_ms)

    def _client_paused(self, fault: PlannedFault, random: Random) -> bool:
        gate, name = self._world.gate, self._client(fault).name
        if gate.is_paused(name):
            return False
        gate.pause(name)
        self._after(fault, lambda: gate.resume(name))
        return True

    def _client_cut_off(self, fault: PlannedFault, random: Random) -> bool:
        """From one broker or all, in one direction or both."""
        name = self._client(fault).name
        boxes = [self._victim(fault).name] if random.random() < 0.5 else [box.name for box in self._world.boxes]
        there, back = random.choice(((True, True), (True, False), (False, True)))
        links = [(name, box) for box in boxes if there] + [(box, name) for box in boxes if back]
        self._break(fault, links)
        return True

    def _transfer(self, fault: PlannedFault, random: Random) -> bool:
        world = self._world
        box = world.leader_box(fault.other)
        life = box.life if box is not None else None
        groups = [group for group in life.replicas if life.leads_group(group)] if life is not None else []
        if life is None or not groups:
            return False
        group = life.replicas[random.choice(groups)].group
        assert group is not None, "it leads"
        others = [replica for replica in group.membership.voters if replica != group.replica]
        if not others:
            return False

        async def hand_over() -> None:
            with trio.move_on_after(3):
                try:
                    await group.transfer(random.choice(others)).wait()
                    world.events.reached("leadership transferred")
                except PlaitError as error:
                    world.events.note("transfer", group.name, error.code)

        world.nursery.start_soon(hand_over)
        return True

    # ---- wrong disks

    def _old_disk(self, fault: PlannedFault, random: Random) -> bool:
        """One of an earlier life; it is started again and again, and so comes to the number of the present one."""
        box = self._broker_box(fault)
        life = box.life
        if not self._may_lose(box) or box.own_disk is not None or life is None or not life.started:
            return False
        assert life.node is not None, "it has started"
        older = []
        for image in box.images:
            found = read_identity(image)
            if found is not None and found.founders and found.starts < life.node.metadata.incarnation:
                older.append(image)
        if not older:
            return False
        box.put_in(random.choice(older).copy(box.random), fault.for_ms)
        return True

    def _empty_disk(self, fault: PlannedFault, random: Random) -> bool:
        box = self._broker_box(fault)
        life = box.life
        if not self._may_lose(box) or box.own_disk is not None or life is None or not life.started:
            return False
        if len(self._world.boxes) == 1:
            return False
        box.put_in(self._world.new_disk(), fault.for_ms)
        return True
