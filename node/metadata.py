"""This node's share of the metadata group: the catalogue, and what the node itself is in it."""

from __future__ import annotations

from typing import Any

import trio

from cluster.catalogue import Catalogue, Node, ProducerBlock, Result, Topic
from cluster.commands import (
    AllocateProducers,
    Bootstrap,
    Command,
    CreateTopic,
    DeleteTopic,
    RegisterNode,
    encode_command,
)
from cluster.settings import settings_from
from node.commanded import CommandedReplica
from plait.wire.errors import StorageDamaged
from replication.actor import Host
from replication.environment import Environment

PRODUCER_EPOCH = 0
"""The epoch of a new producer id."""


class Metadata:
    """Group 0 as the rest of the node sees it."""

    def __init__(self, host: Host, environment: Environment, node_id: int) -> None:
        self.catalogue = Catalogue()
        self.replica = CommandedReplica(host, "metadata", self.catalogue)
        self.node_id = node_id
        self.incarnation = 0
        self._clock = environment.clock
        self._random = environment.random
        self._block = ProducerBlock(1, 0)  # producer ids that this node may still give out
        self._block_lock = trio.Lock()

    @property
    def cluster_id(self) -> str:
        """The cluster's id, from its founding on."""
        return self.catalogue.cluster_id

    async def join(self, name: str) -> None:
        """Found the cluster if this is its first start, and register this start of the node."""
        if self.replica.failure:
            raise StorageDamaged(f"the catalogue cannot be served: {self.replica.failure}")
        if not self.catalogue.cluster_id:
            await self._submit(Bootstrap(f"{self._random.getrandbits(64):016x}", self._clock.wall_ms()))
        node = await self._submit(RegisterNode(self.node_id, name, self._clock.wall_ms()))
        assert isinstance(node, Node)
        self.incarnation = node.incarnation

    async def create(self, kind: str, name: str, settings: dict[str, Any], record_limit_bytes: int) -> Topic:
        """Create a topic or queue. Raises PlaitError."""
        settings_from(kind, settings, record_limit_bytes)
        topic = await self._submit(CreateTopic(kind, name, settings, self._clock.wall_ms()))
        assert isinstance(topic, Topic)
        return topic

    async def delete(self, name: str) -> Topic:
        """Delete a topic or queue from the catalogue. Raises PlaitError."""
        topic = await self._submit(DeleteTopic(name, 0, self._clock.wall_ms()))
        assert isinstance(topic, Topic)
        return topic

    async def new_producer(self) -> tuple[int, int]:
        """(id, epoch) of a producer that never was before."""
        async with self._block_lock:
            if self._block.first > self._block.last:
                command = AllocateProducers(self.node_id, self.incarnation, self._clock.wall_ms())
                block = await self._submit(command)
                assert isinstance(block, ProducerBlock)
                self._block = block
            given = self._block.first
            self._block = ProducerBlock(given + 1, self._block.last)
        return given, PRODUCER_EPOCH

    async def _submit(self, command: Command) -> str | Node | Topic | ProducerBlock | None:
        result: Result = await self.replica.submit(encode_command(command)).wait()
        if result.error is not None:
            raise result.error
        return result.value
