"""This node's share of the metadata group: the catalogue, and what the node itself is in it.

create, delete, ... ──leads here──> replica ──────────────> Result
                    └─leads there─> forwarding ──> there ──> Result ──> (applied here, too) ──> answer
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog
import trio

from cluster.catalogue import Catalogue, ProducerBlock, Result, Topic, Value
from cluster.commands import (
    AddNode,
    AllocateProducers,
    Bootstrap,
    ChangeNode,
    Command,
    CreateTopic,
    DeleteTopic,
    RegisterNode,
    ResizeTopic,
    encode_command,
)
from cluster.nodes import Node
from cluster.settings import settings_from
from node.commanded import CommandedReplica
from node.forwarding import Forwarding
from node.whereabouts import Whereabouts
from plait.wire.errors import OutcomeUnknown, PlaitError, StorageDamaged, Unavailable
from replication.actor import Host, Promise
from replication.environment import Environment
from replication.peers.joining import Join
from replication.peers.peers import Peers

_logger = structlog.get_logger("plait.node")

PRODUCER_EPOCH = 0
"""The epoch of a new producer id."""
JOIN_AGAIN_MS = 100
"""Wait before a node that could not register itself tries again."""
JOIN_COMPLAIN_MS = 5_000
"""How often a node that cannot register says why."""
CATCH_UP_MS = 5_000
"""How long this node may take to apply what the leader has applied already."""


class Metadata:
    """Group 0 as the rest of the node sees it."""

    def __init__(
        self, host: Host, environment: Environment, node_id: int, founding: Bootstrap | None, peers: Peers
    ) -> None:
        """`founding`: what founds the cluster, if nobody has; None: it is founded, or not by this node."""
        self.catalogue = Catalogue()
        self.whereabouts = Whereabouts(self.catalogue)
        self.replica = CommandedReplica(
            host, "metadata", self, self.whereabouts.refusal, lambda: self.on_standing()
        )
        self.node_id = node_id
        self.incarnation = 0
        self.on_change: Callable[[Result | None], None] = lambda result: None
        """Called when a command has changed the catalogue, or (None) a snapshot has replaced it."""
        self.on_standing: Callable[[], None] = lambda: None
        """Called when this node may lead the catalogue, or does not any more."""
        self._founding = founding
        self._clock = environment.clock
        self._tasks = environment.tasks
        self._peers = peers
        self._forwarding = Forwarding(peers, self.replica.submit, self._confirmed_version)
        self._behind: list[tuple[int, int, trio.Event]] = []  # heap of (version, number, ...) that are waited for
        self._waits = 0
        self._block = ProducerBlock(1, 0)  # producer ids that this node may still give out
        self._block_lock = trio.Lock()

    @property
    def cluster_id(self) -> str:
        """The cluster's id, from its founding on."""
        return self.catalogue.cluster_id

    # what the node asks

    async def join(self, registration: RegisterNode) -> None:
        """Found the cluster if that was not done, and register this start of the node; returns when this node's
        own catalogue has it, however long that takes.

        Raises StorageDamaged, AlreadyExists when a later start is known, or the node was removed.
        """
        complain_ns = self._clock.monotonic_ns() + JOIN_COMPLAIN_MS * 1_000_000
        while True:
            if self.replica.failure:
                # a disk that failed ends the node with an error of its own, which says more: let that come first
                await self._clock.sleep_until(self._clock.monotonic_ns() + JOIN_AGAIN_MS * 1_000_000)
                raise StorageDamaged(f"the catalogue cannot be served: {self.replica.failure}")
            try:
                await self._found()
                node = await self.submit(replace(registration, stamp_ms=self._clock.wall_ms()))
            except PlaitError as error:
                if not error.retriable:
                    raise
                now_ns = self._clock.monotonic_ns()
                if now_ns >= complain_ns:
                    complain_ns = now_ns + JOIN_COMPLAIN_MS * 1_000_000
                    _logger.warning("waiting for a majority of the nodes", why=error.message)
                await self._clock.sleep_until(now_ns + JOIN_AGAIN_MS * 1_000_000)
            else:
                assert isinstance(node, Node)
                self.incarnation = node.incarnation
                return

    async def create(self, kind: str, name: str, settings: dict[str, Any], record_limit_bytes: int) -> Topic:
        """Create a topic or queue. Raises PlaitError."""
        settings_from(kind, settings, record_limit_bytes)
        topic = await self.submit(CreateTopic(kind, name, settings, self._clock.wall_ms(), self.down()))
        assert isinstance(topic, Topic)
        return topic

    async def resize(self, name: str, partitions: int, replicas: int) -> Topic:
        """Give a topic or queue more partitions, or another number of replicas; 0 leaves it. Raises PlaitError."""
        topic = await self.submit(ResizeTopic(name, partitions, replicas, self._clock.wall_ms(), self.down()))
        assert isinstance(topic, Topic)
        return topic

    async def delete(self, name: str) -> Topic:
        """Delete a topic or queue from the catalogue. Raises PlaitError."""
        topic = await self.submit(DeleteTopic(name, 0, self._clock.wall_ms()))
        assert isinstance(topic, Topic)
        return topic

    def ask(self, command: Command) -> Promise[Value]:
        """`submit`, for those who cannot wait; stamped with this node's time."""
        promise: Promise[Value] = Promise()
        self._tasks.spawn("catalogue/ask", self._fulfil, promise, replace(command, stamp_ms=self._clock.wall_ms()))
        return promise

    async def _fulfil(self, promise: Promise[Value], command: Command) -> None:
        try:
            promise.resolve(await self.submit(command))
        except PlaitError as error:
            promise.reject(error)

    async def add_node(self, join: Join) -> Node:
        """Give a newcomer its id. Raises PlaitError."""
        command = AddNode(
            join.disk, join.name, join.peer, join.native, join.rack, join.features, self._clock.wall_ms()
        )
        node = await self.submit(command)
        assert isinstance(node, Node)
        return node

    async def change_node(self, node_id: int, state: str) -> Node:
        """Have a node serve, drain, or leave. Raises PlaitError."""
        node = await self.submit(ChangeNode(node_id, state, self._clock.wall_ms()))
        assert isinstance(node, Node)
        return node

    def down(self) -> list[int]:
        """The nodes that are not heard of here."""
        return [node.node_id for node in self.catalogue.nodes() if not self._peers.is_up(node.node_id)]

    async def new_producer(self) -> tuple[int, int]:
        """(id, epoch) of a producer that never was before."""
        async with self._block_lock:
            if self._block.first > self._block.last:
                command = AllocateProducers(self.node_id, self.incarnation, self._clock.wall_ms())
                block = await self.submit(command)
                assert isinstance(block, ProducerBlock)
                self._block = block
            given = self._block.first
            self._block = ProducerBlock(given + 1, self._block.last)
        return given, PRODUCER_EPOCH

    async def confirm(self) -> None:
        """Return when this node's catalogue shows everything that was done before this was called.

        Raises NotLeader, Unavailable: it may be old.
        """
        leader = self._leader_elsewhere()
        if not leader:
            await self.replica.confirmed().wait()
            return
        try:
            await self._reach(await self._forwarding.read(leader))
        except OutcomeUnknown as error:  # it is only a question: whatever became of it, nothing was done
            raise Unavailable(f"the catalogue's leader, node {leader}, did not answer; nothing was done: {error}")

    def spread(self) -> None:
        """Let the other nodes hear at once of what was committed, and not with the next beat: a round of reads
        tells them. They are to have a new topic's groups when those elect their leaders."""
        group = self.replica.group
        if self.replica.ready and group is not None:
            group.read_index().then(_ignore)

    # what the group drives (node.commanded.Commanded)

    def apply_command(self, index: int, command: bytes) -> Result:
        """See Commanded."""
        result = self.catalogue.apply_command(index, command)
        if result.changed:
            self._reached()
            self.on_change(result)
        return result

    def snapshot(self) -> bytes:
        """See Commanded."""
        return self.catalogue.snapshot()

    def restore(self, state: bytes) -> None:
        """See Commanded."""
        self.catalogue.restore(state)
        self._reached()
        self.on_change(None)

    # inside

    async def _found(self) -> None:
        """Whoever leads first founds; the id is the same whoever that is."""
        if self.replica.ready and not self.catalogue.cluster_id and self._founding is not None:
            await self.submit(replace(self._founding, stamp_ms=self._clock.wall_ms()))

    async def submit(self, command: Command) -> Value:
        """Have a command carried out, and seen by this node. Raises its error."""
        leader = self._leader_elsewhere()
        payload = encode_command(command)
        if leader:
            version, value, error = await self._forwarding.submit(leader, payload)
            await self._reach(version)
        else:
            result: Result = await self.replica.submit(payload).wait()
            value, error = result.value, result.error
        if error is not None:
            raise error
        return value

    def _leader_elsewhere(self) -> int:
        """The other node that leads; 0: this one does, or nobody is known to."""
        group = self.replica.group
        leader = group.leader_node if group is not None else 0
        return leader if leader != self.node_id else 0

    def _confirmed_version(self) -> Promise[int]:
        """The version that a read which begins now must see."""
        answer: Promise[int] = Promise()

        def confirmed(done: Promise[int]) -> None:
            if done.error is not None:
                answer.reject(done.error)
            else:
                answer.resolve(self.catalogue.version)

        self.replica.confirmed().then(confirmed)
        return answer

    async def _reach(self, version: int) -> None:
        """Wait until this node's catalogue is as new as that."""
        if self.catalogue.version >= version:
            return
        self._waits += 1
        event = trio.Event()
        heapq.heappush(self._behind, (version, self._waits, event))
        with trio.move_on_after(CATCH_UP_MS / 1_000):
            await event.wait()
        if self.catalogue.version < version:
            raise OutcomeUnknown(
                f"node {self.node_id} is behind the leader of the catalogue: what was asked may be done, and is "
                "not seen here yet; ask again"
            )

    def _reached(self) -> None:
        while self._behind and self._behind[0][0] <= self.catalogue.version:
            heapq.heappop(self._behind)[2].set()


def _ignore(_: Promise[int]) -> None:
    """Nobody reads."""
