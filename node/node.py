"""One Plait node, assembled: storage below, groups and partitions on it, the broker facade on top.

Node.open(environment, settings) ──> node.broker ──> gateways
                                     node.close() when the gateways are closed
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from cluster.catalogue import METADATA_GROUP
from cluster.limits import NodePressure
from node.broker import Broker
from node.clock import StampClock
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


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What a node is told at its start."""

    name: str = "plait"
    limits: BatchLimits = field(default_factory=BatchLimits)
    storage: StorageSettings = field(default_factory=StorageSettings)


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
            StampClock(),
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

    def _actor_failed(self, actor: Actor, error: Exception) -> None:
        """An actor's own defect: its group is fenced, everything else goes on (the log has the traceback)."""
        group = actor if isinstance(actor, Group) else getattr(actor, "group", None)
        if isinstance(group, Group):
            group.fence(f"{actor.name} failed: {error!r}")
