"""Whole brokers on nodes, and SDK clients on machines of their own; the faults of a plan strike all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from cluster.catalogue import Catalogue
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
from tests.sim.cluster.settings import PEER_PORT

if TYPE_CHECKING:
    from tests.sim.cluster.box import Box

LETTING_GO = ("drop-oldest", "dead-letter")
"""Ways in which a full queue takes more."""


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
        shape = plan.shape
        self.boxes = [
            BrokerBox(
                self,
                f"n{number}",
                number if number <= shape.nodes else 0,
                self.new_disk(),
                self.new_clock(number - 1),
            )
            for number in range(1, shape.nodes + shape.spares + 1)
        ]
        self.grown = 0
        """How often the topic or the queue got more partitions."""
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

    def newest(self) -> Catalogue | None:
        """The catalogue as the node has it that has applied most of it."""
        found = [life.node.metadata.catalogue for life in self.lives() if life.node is not None]
        return max(found, key=lambda each: each.applied_index, default=None)

    def was_removed(self, node_id: int) -> bool:
        """A node is not of the cluster any more."""
        catalogue = self.newest()
        return node_id > 0 and catalogue is not None and catalogue.node_was_removed(node_id)

    def doors(self, box: BrokerBox) -> list[tuple[str, int]]:
        """Whom a machine asks that wants to join."""
        others = [(one.name, PEER_PORT) for one in self.boxes if one is not box and one.is_on]
        return box.random.sample(others, min(len(others), 2))

    def lets_go(self, partition: str) -> bool:
        """It is one of the queue's, which makes place by letting go of what it has."""
        return self.plan.shape.overflow in LETTING_GO and partition.startswith(f"{self.queue.name}/")

    def joined(self, box: BrokerBox) -> None:
        """A node is of the cluster that was not before."""

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
        await self.nemesis().run()
        await self.ending().run()

    def nemesis(self) -> BrokerNemesis:
        """What goes wrong."""
        return BrokerNemesis(self)

    def ending(self) -> Ending:
        """How it ends."""
        return Ending(self)
