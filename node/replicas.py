"""The replicas that this node holds: opened as the catalogue says, closed when it no longer does.

catalogue ──has a topic──> logs, state machines, groups ──ready──> served
          ──deleted it──> closed, answered, and then the data goes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from cluster.catalogue import COORDINATOR_TOPIC, Catalogue, Topic
from node.commanded import CommandedReplica
from node.offsets import CommitPositions, ForgetTopic, StreamPositions, encode_command
from node.partition import Partition, PartitionContext
from plait.wire.errors import NotFound, PlaitError
from replication.actor import Promise, rejected
from replication.group import Group
from replication.raft.membership import Membership
from replication.storage.log import GroupLog
from replication.storage.store import Store

FIRST_REPLICA = 1
"""The replica of a group that has but one."""
OPEN_SLICE_TOPICS = 16
"""Topics opened in a row at start before the loop has a turn for everything else."""


@dataclass(slots=True)
class _Held:
    """A topic's partitions on this node."""

    topic: Topic
    partitions: list[Partition]
    ready: trio.Event


class Replicas:
    """Everything that serves a partition on this node."""

    def __init__(self, store: Store, context: PartitionContext) -> None:
        self._store = store
        self._context = context
        self._held: dict[int, _Held] = {}  # by topic id
        self._streams = StreamPositions()
        self._coordinator = CommandedReplica(context.host, COORDINATOR_TOPIC, self._streams)
        self._known_groups = set(store.groups())
        self._logger = structlog.get_logger("plait.node")

    def log_of(self, group_id: int) -> GroupLog:
        """The group's log; made where there is none (the node may have ended between catalogue and log)."""
        if group_id in self._known_groups:
            return self._store.log(group_id)
        self._known_groups.add(group_id)
        return self._store.create(group_id)

    async def open_group(self, group_id: int, log: GroupLog, actor: CommandedReplica | Partition) -> None:
        """Open one group's replica: its state from its log, then its term."""
        context = self._context
        actor.group = Group(context.host, group_id, FIRST_REPLICA, log, actor, context.tasks, context.random)
        await actor.group.open(Membership({FIRST_REPLICA: context.node_id}))

    async def open_all(self, catalogue: Catalogue) -> None:
        """Open what the catalogue has and drop what it has deleted; returns when all is served or fenced."""
        for number, topic in enumerate(list(catalogue.topics())):
            if topic.name == COORDINATOR_TOPIC:
                await self.open_group(topic.groups[0], self.log_of(topic.groups[0]), self._coordinator)
            else:
                await self._begin(topic)
            if number % OPEN_SLICE_TOPICS == 0:
                await trio.lowlevel.checkpoint()
        for group_id in sorted(self._known_groups):
            if catalogue.group_is_deleted(group_id):
                self._drop(group_id)
            elif group_id and catalogue.partition_of(group_id) is None:
                # never delete for want of metadata: it may be the metadata that is too old
                self._logger.warning("group is in no catalogue, its data is kept", group=group_id)
        for held in list(self._held.values()):  # their terms begin together, with few writes to the disk
            await self._settle(held)
        await self._coordinator.settled.wait()

    def partitions(self, topic_id: int) -> list[Partition] | None:
        """The partitions of a topic; None while it is being opened, and when it is not here."""
        held = self._held.get(topic_id)
        return held.partitions if held is not None and held.ready.is_set() else None

    def all_partitions(self) -> Iterator[list[Partition]]:
        """The partitions of every topic that is here."""
        for held in self._held.values():
            yield held.partitions

    async def opened(self, topic: Topic) -> list[Partition]:
        """The partitions of a topic that was created, when they are served."""
        held = self._held.get(topic.topic_id)
        if held is None:
            held = await self._begin(topic)
            await self._settle(held)
        await held.ready.wait()
        return held.partitions

    async def closed(self, topic: Topic) -> None:
        """Close a topic that was deleted: everyone who waits is answered, then the data goes."""
        held = self._held.get(topic.topic_id)
        if held is not None:
            await held.ready.wait()
            self._held.pop(topic.topic_id, None)
            error = NotFound(f"{topic.name} was deleted; nothing was done")
            for partition in held.partitions:
                partition.close(error)
        for group_id in topic.groups:
            self._drop(group_id)
        await self._coordinator.submit(encode_command(ForgetTopic(topic.topic_id))).wait()

    def commit_positions(
        self, subscription: str, topic_id: int, positions: Sequence[tuple[int, int]]
    ) -> Promise[None]:
        """Store a stream subscription's positions; answered when they are on disk on a majority."""
        command = CommitPositions(subscription, topic_id, tuple(positions), self._context.clock.wall_ms())
        try:
            return self._coordinator.submit(encode_command(command))
        except PlaitError as error:
            return rejected(error)

    def stored_positions(self, subscription: str, topic_id: int) -> list[tuple[int, int]]:
        """(partition, offset) of every partition that the subscription has a position in."""
        return self._streams.positions(subscription, topic_id)

    def stream_positions(self, topic_id: int) -> dict[str, dict[int, int]]:
        """The positions of all stream subscriptions of a topic: partition to offset, by subscription."""
        return self._streams.of_topic(topic_id)

    async def _begin(self, topic: Topic) -> _Held:
        """Rebuild the partitions of a topic and let them begin their terms."""
        logs = [self.log_of(group_id) for group_id in topic.groups]
        partitions = [Partition(self._context, topic, number, log) for number, log in enumerate(logs)]
        held = self._held[topic.topic_id] = _Held(topic, partitions, trio.Event())
        for partition, log, group_id in zip(partitions, logs, topic.groups, strict=True):
            await self.open_group(group_id, log, partition)
        return held

    async def _settle(self, held: _Held) -> None:
        for partition in held.partitions:
            await partition.settled.wait()
        held.ready.set()

    def _drop(self, group_id: int) -> None:
        if group_id in self._known_groups:  # it is not, where a topic was deleted before it was opened
            self._known_groups.remove(group_id)
            self._store.delete(group_id, partial(self._dropped, group_id))

    def _dropped(self, group_id: int, error: Exception | None) -> None:
        if error is not None:
            self._logger.error("group's data could not be deleted", group=group_id, error=str(error))
