"""Whole brokers on nodes, and SDK clients on machines of their own; the faults of a plan strike all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from cluster.placement import REPLICAS_DEFAULT
from tests.history.book import Book
from tests.history.sharing import Sharing
from tests.sim.cluster.brokers.ending import Ending
from tests.sim.cluster.brokers.leases import LeaseChecker
from tests.sim.cluster.brokers.life import BrokerBox, BrokerLife
from tests.sim.cluster.brokers.machines import ClientMachine
from tests.sim.cluster.brokers.nemesis import BrokerNemesis
from tests.sim.cluster.brokers.watching import ReplicaChecker
from tests.sim.cluster.cluster import Cluster
from tests.sim.cluster.plan import Plan

if TYPE_CHECKING:
    from tests.sim.cluster.box import Box


class BrokerWorld(Cluster):
    """Everything of one run."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.topic = Book("events", self.events.break_promise)
        self.queue = Book("jobs", self.events.break_promise)
        self.leases = LeaseChecker(self.events.break_promise)
        self.processed: dict[int, int] = {}
        """By partition, the offset behind the last one that the subscription was given."""
        self.sharing = Sharing(self.events.break_promise)
        self.publishing: dict[str, None] = {}
        """Programs that publish."""
        self.emptied = trio.Event()
        """Everything has arrived: clients may go."""
        self.boxes = [
            BrokerBox(self, f"n{number}", number, self.new_disk(), self.new_clock(number - 1))
            for number in range(1, plan.shape.nodes + 1)
        ]
        self.clients = [ClientMachine(self, number) for number in range(1, plan.shape.clients + 1)]
        self._groups: dict[int, ReplicaChecker] = {}

    @property
    def machines(self) -> list[BrokerBox]:
        """See Cluster."""
        return self.boxes

    def process(self, box: Box, seed: int) -> BrokerLife:
        """See Cluster."""
        assert isinstance(box, BrokerBox), "this world has no others"
        return BrokerLife(box, seed)

    def checker(self, group: int) -> ReplicaChecker:
        """What is known of a group."""
        if group not in self._groups:
            self.checkers[group] = self._groups[group] = ReplicaChecker(group, self.events.break_promise)
        return self._groups[group]

    def lives(self) -> list[BrokerLife]:
        """Of all nodes that serve."""
        return [box.life for box in self.boxes if box.life is not None and box.life.started]

    def leader_box(self, number: int) -> BrokerBox | None:
        """See Cluster."""
        groups = sorted({group for life in self.lives() for group in life.replicas})
        if not groups:
            return None
        group = groups[number % len(groups)]
        return next((life.box for life in self.lives() if life.leads_group(group)), None)

    def may_lose(self, boxes: list[Box]) -> bool:
        """See Cluster."""
        lost = {box.name for box in boxes} | {box.name for box in self.boxes if box.own_disk is not None}
        return 2 * len(lost) < min(len(self.boxes), REPLICAS_DEFAULT)

    def in_doubt(self) -> bool:
        """See Cluster."""
        return super().in_doubt() or any(box.own_disk is not None for box in self.boxes)

    @property
    def acknowledged(self) -> int:
        """See Cluster."""
        return self.topic.acknowledged + self.queue.acknowledged

    async def live(self) -> None:
        """See Cluster."""
        for client in self.clients:
            client.start()
        await BrokerNemesis(self).run()
        await Ending(self).run()
