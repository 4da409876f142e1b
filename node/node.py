"""One Plait node, assembled: storage below, groups and partitions on it, the broker facade on top.

Node.open(environment, settings) ──> node.broker ──> gateways
                                     node.close() when the gateways are closed
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from cluster.catalogue import METADATA_GROUP
from cluster.limits import NodePressure
from cluster.rates import NS_PER_MS
from node.broker import Broker
from node.metadata import Metadata
from node.partition import PartitionContext
from node.replicas import Replicas
from plait.wire.batch import BatchLimits
from plait.wire.errors import Closed
from replication.actor import Actor, Host
from replication.environment import Environment
from replication.group import Group
from replication.storage.store import StorageSettings, Store

NODE_ID = 1
"""The id of a node that founds a cluster; those that join it are given theirs."""

WATCH_INTERVAL_MS = 100
"""How often the node looks at its disk and memory for admission's sake."""
MEMORY_PERCENT = 60
"""Share of the machine's memory that the node may use before it refuses publishes, unless it is told a size."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node is told at its start."""

    name: str = "plait"
    limits: BatchLimits = field(default_factory=BatchLimits)
    storage: StorageSettings = field(default_factory=StorageSettings)
    memory_bytes_max: int | None = None
    """Memory from which publishes are refused; None: MEMORY_PERCENT of the machine's."""


class Node:
    """Opened once; `broker` is there from then on."""

    broker: Broker

    def __init__(self, environment: Environment, settings: NodeSettings) -> None:
        self._environment = environment
        self._settings = settings
        self._logger = structlog.get_logger("plait.node")
        self.pressure = NodePressure()
        self.host = Host(environment.clock, self._actor_failed)

    @classmethod
    async def open(cls, environment: Environment, settings: NodeSettings | None = None) -> Node:
        """Recover the data directory and serve what is in it.

        Raises OSError for a directory that cannot be used, StorageDamaged for a catalogue that cannot be read.
        """
        node = cls(environment, settings or NodeSettings())
        await node._open()
        return node

    async def close(self) -> None:
        """End in an orderly way: everyone who waits is answered, the log is sealed."""
        for partitions in self.replicas.all_partitions():
            for partition in partitions:
                partition.close(Closed("the broker is shutting down; nothing was done; connect again"))
        await self.store.close()

    async def _open(self) -> None:
        environment, settings = self._environment, self._settings
        self.store = await Store.open(environment, settings.storage)
        environment.tasks.spawn("storage", self.store.run)
        environment.tasks.spawn("host", self.host.run)
        self.metadata = Metadata(self.host, environment, NODE_ID)
        context = PartitionContext(
            self.host,
            environment.clock,
            environment.tasks,
            environment.random,
            self.pressure,
            NODE_ID,
            incarnation=0,  # known when the catalogue is open
            send_dead_letters=lambda queue, group, batch: self.broker.publish_dead_letters(queue, group, batch),
        )
        self.replicas = Replicas(self.store, context)
        log = self.replicas.log_of(METADATA_GROUP)
        await self.replicas.open_group(METADATA_GROUP, log, self.metadata.replica)
        await self.metadata.replica.settled.wait()
        await self.metadata.join(settings.name)
        context.incarnation = self.metadata.incarnation
        self.broker = Broker(self.metadata, self.replicas, settings.limits, environment.tasks)
        await self.replicas.open_all(self.metadata.catalogue)
        environment.tasks.spawn("watch", self._watch)

    async def _watch(self) -> None:
        """Keep admission informed of what the disk and the memory can take."""
        clock, pressure = self._environment.clock, self.pressure
        while True:
            memory = self._environment.memory()
            most = self._settings.memory_bytes_max or memory.machine_bytes * MEMORY_PERCENT // 100
            pressure.storage = self.store.pressure
            pressure.memory_percent = memory.used_bytes * 100 // most if most else 0
            await clock.sleep_until(clock.monotonic_ns() + WATCH_INTERVAL_MS * NS_PER_MS)

    def _actor_failed(self, actor: Actor, error: Exception) -> None:
        """An actor's own defect: its group is fenced, everything else goes on (the log has the traceback)."""
        group = actor if isinstance(actor, Group) else getattr(actor, "group", None)
        if isinstance(group, Group):
            group.fence(f"{actor.name} failed: {error!r}")
