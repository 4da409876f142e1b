"""Groups on nodes: replicas with a simple state machine, clients that write and read, an operator.

The real actors, storage, Raft cores and peer links, without the broker on top (tests/sim/cluster/brokers).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from tests.sim.cluster.box import Box
from tests.sim.cluster.checkers import GroupChecker
from tests.sim.cluster.clients import Client
from tests.sim.cluster.cluster import Cluster
from tests.sim.cluster.ending import Ending
from tests.sim.cluster.group_nemesis import GroupNemesis
from tests.sim.cluster.members import Members
from tests.sim.cluster.node import GroupBox, Life
from tests.sim.cluster.plan import Plan

if TYPE_CHECKING:
    from tests.sim.cluster.member import Member


class World(Cluster):
    """Everything of one run."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.boxes: list[GroupBox] = []
        self.members = Members(self)
        self.clients: list[Client] = []
        self._next_node = 1
        for number in range(plan.shape.nodes):
            clock = self.new_clock(number)
            self.boxes.append(GroupBox(self, f"n{number + 1}", self.new_node(), self.new_disk(), clock))
        self.founders = {}
        for group in range(1, plan.shape.groups + 1):
            self.checkers[group] = GroupChecker(group, self.events.break_promise)
            self.cores[group] = {}
            self.founders[group] = self.members.found(group, self.boxes[: plan.shape.voters])

    @property
    def machines(self) -> list[GroupBox]:
        """See Cluster."""
        return self.boxes

    def new_node(self) -> int:
        """A node id that was never given."""
        self._next_node += 1
        return self._next_node - 1

    def process(self, box: Box, seed: int) -> Life:
        """See Cluster."""
        assert isinstance(box, GroupBox), "this world has no others"
        return Life(box, seed)

    def group(self, number: int) -> int:
        """The group of that number, modulo how many there are."""
        groups = sorted(self.checkers)
        return groups[number % len(groups)]

    def leader_box(self, number: int) -> GroupBox | None:
        """See Cluster."""
        leader = self.members.leader(self.group(number))
        return self.box_of(leader) if leader is not None else None

    def may_lose(self, boxes: list[Box]) -> bool:
        """See Cluster."""
        return self.members.may_lose(boxes)

    def box_of(self, member: Member) -> GroupBox | None:
        """Where a replica lives, while it does."""
        return next((box for box in self.boxes if member in box.member_of.values()), None)

    @property
    def acknowledged(self) -> int:
        """See Cluster."""
        return sum(len(checker.acknowledged) for checker in self.checkers.values())

    def other_states(self) -> Counter[str]:
        """See Cluster."""
        doubled = sum(checker.doubled for checker in self.checkers.values())
        return Counter({"retry was taken for what it was": doubled} if doubled else {})

    async def live(self) -> None:
        """See Cluster."""
        self.nursery.start_soon(self.members.run)
        done = trio.Event()
        self.nursery.start_soon(self._work, done)
        await GroupNemesis(self).run()
        await Ending(self, done).run()

    async def _work(self, done: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(1, self.plan.shape.clients + 1):
                client = Client(self, number)
                self.clients.append(client)
                nursery.start_soon(client.run)
        done.set()
