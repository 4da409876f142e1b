"""What goes wrong in clusters of groups besides what can in any: members change, nodes are replaced, bursts."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import trio

from plait.wire.errors import NotLeader, Overloaded, PlaitError
from replication.actor import Promise
from tests.sim.cluster.checkers import GroupChecker, Operation
from tests.sim.cluster.nemesis import Nemesis
from tests.sim.cluster.plan import PlannedFault

if TYPE_CHECKING:
    from tests.sim.cluster.node import GroupBox
    from tests.sim.cluster.world import World

BURST = 25
"""Operations that come at once in a burst."""
BURST_CLIENT = 1_000
"""Number of the first client of a burst; each has one operation."""


class GroupNemesis(Nemesis):
    """Of one run."""

    _world: World

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._bursts = 0
        self._kinds |= {
            "old disk": self._old_disk,
            "empty disk": self._empty_disk,
            "move": self._move,
            "grow": self._grow,
            "shrink": self._shrink,
            "transfer": self._transfer,
            "burst": self._burst,
        }

    def _group_box(self, fault: PlannedFault) -> GroupBox:
        return self._world.boxes[fault.node % len(self._world.boxes)]

    def _old_disk(self, fault: PlannedFault, random: Random) -> bool:
        box = self._group_box(fault)
        return self._may_lose(box) and box.go_back(fault.for_ms, random)

    def _empty_disk(self, fault: PlannedFault, random: Random) -> bool:
        box = self._group_box(fault)
        if not self._may_lose(box) or box.life is None:
            return False
        box.replace(fault.for_ms)
        return True

    # ---- members

    def _move(self, fault: PlannedFault, random: Random) -> bool:
        wanted = self._world.members.wanted[self._world.group(fault.other)]
        others = [box for box in self._world.boxes if box not in wanted]
        if not others or self._any_doubtful():
            return False
        wanted.remove(random.choice(wanted))
        wanted.append(random.choice(others))
        return True

    def _grow(self, fault: PlannedFault, random: Random) -> bool:
        wanted = self._world.members.wanted[self._world.group(fault.other)]
        others = [box for box in self._world.boxes if box not in wanted]
        if not others or self._any_doubtful():
            return False
        wanted.append(random.choice(others))
        return True

    def _shrink(self, fault: PlannedFault, random: Random) -> bool:
        wanted = self._world.members.wanted[self._world.group(fault.other)]
        if len(wanted) < 2 or self._any_doubtful():
            return False
        wanted.remove(random.choice(wanted))
        return True

    def _any_doubtful(self) -> bool:
        return any(box.doubtful for box in self._world.boxes)

    def _transfer(self, fault: PlannedFault, random: Random) -> bool:
        leader = self._world.members.leader(self._world.group(fault.other))
        if leader is None:
            return False
        others = [replica for replica in leader.group.membership.voters if replica != leader.replica]
        if not others:
            return False
        events = self._world.events

        async def hand_over() -> None:
            with trio.move_on_after(3):
                try:
                    await leader.group.transfer(random.choice(others)).wait()
                    events.reached("leadership transferred")
                except PlaitError as error:
                    events.note("transfer", leader.group.name, error.code)

        self._world.nursery.start_soon(hand_over)
        return True

    # ---- load

    def _burst(self, fault: PlannedFault, random: Random) -> bool:
        """Many operations at once on one leader, each of a client of its own; none is tried again."""
        group = self._world.group(fault.other)
        leader, checker = self._world.members.leader(group), self._world.checkers[group]
        if leader is None:
            return False
        for _ in range(BURST):
            self._bursts += 1
            operation = checker.begin(BURST_CLIENT + self._bursts, 1)
            attempt = checker.attempt(operation)
            filling = random.randbytes(random.randrange(4_000))
            try:
                promise = leader.submit(operation.client, 1, attempt, filling, 1, 0)
            except (NotLeader, Overloaded):
                checker.refused(operation, attempt)
                self._world.events.reached("refused for overload")
                continue
            self._world.nursery.start_soon(self._await_one, checker, operation, promise)
        return True

    async def _await_one(self, checker: GroupChecker, operation: Operation, promise: Promise[int]) -> None:
        try:
            checker.acknowledge(operation, await promise.wait())
        except PlaitError:
            self._world.events.reached("outcome unknown")
