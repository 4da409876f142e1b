"""The replicas that this node holds: opened as the catalogue says, closed when it no longer does.

catalogue ──has a topic──> logs, state machines, groups ──ready──> served
          ──deleted it──> closed, answered, and then the data goes

Changes of the catalogue arrive as news, in order; after a snapshot of it everything is compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog
import trio

from cluster.catalogue import COORDINATOR_TOPIC, Catalogue, Node, Result, Topic
from cluster.commands import CreateTopic, DeleteTopic, RegisterNode
from node.commanded import CommandedReplica
from node.groups import Groups
from node.offsets import CommitPositions, ForgetTopic, StreamPositions, encode_command
from node.partition import NodeStarted, Partition, PartitionContext
from plait.wire.errors import NotFound, PlaitError, Unavailable
from replication.actor import Promise, rejected
from replication.environment import Clock
from replication.group import Group

OPEN_SLICE_TOPICS = 16
"""Topics opened in a row before the loop has a turn for everything else."""
SERVED_WAIT_MS = 5_000
"""How long the creation of a topic waits until it is led by somebody."""
SERVED_LOOK_MS = 10
"""Time between two looks whether it is."""
NEWS_MAX = 10_000
"""Changes of the catalogue that wait to be acted upon; with more, everything is compared instead."""


@dataclass(slots=True)
class _Held:
    """A topic's partitions on this node."""

    topic: Topic
    partitions: list[Partition]
    ready: trio.Event


class Replicas:
    """Everything that serves a partition on this node."""

    def __init__(
        self, groups: Groups, context: PartitionContext, catalogue: Catalogue, spread: Callable[[], None]
    ) -> None:
        """`spread`: have the other nodes hear of the catalogue's change at once, if this one leads."""
        self._groups = groups
        self._spread = spread
        self._context = context
        self._catalogue = catalogue
        self._held: dict[int, _Held] = {}  # by topic id
        self._by_group: dict[int, Partition] = {}
        self._streams = StreamPositions()
        self._coordinator = CommandedReplica(
            context.host,
            COORDINATOR_TOPIC,
            self._streams,
            context.whereabouts.not_leader,
            self._coordinator_stands,
        )
        self._coordinator_opened = False
        self.on_closed: Sequence[Callable[[int], None]] = ()
        """Called with each group whose topic is deleted."""
        self._news: deque[Result | None] = deque()
        self._has_news = trio.Event()
        self._changed = trio.Event()
        """Set, and replaced, when a topic was opened or closed."""
        self._logger = structlog.get_logger("plait.node")

    # what the catalogue says

    async def open_all(self) -> None:
        """Open what the catalogue has and drop what it has deleted. A node that is alone serves all of it, or has
        fenced it, when this returns."""
        await self._compare()
        for group_id in self._groups.known():
            if group_id and not self._is_in_catalogue(group_id):
                # never delete for want of metadata: it may be the metadata that is too old
                self._logger.warning("group is in no catalogue, its data is kept", group=group_id)
        if self._context.alone:
            for held in list(self._held.values()):
                await held.ready.wait()
            await self._coordinator.settled.wait()

    def changed(self, result: Result | None) -> None:
        """A command has changed the catalogue, or (None) a snapshot has replaced it: to be acted upon soon."""
        if result is None or len(self._news) >= NEWS_MAX:
            self._news.clear()
            result = None
        self._news.append(result)
        self._has_news.set()

    async def follow(self) -> None:
        """Act on the news, for ever."""
        while True:
            await self._has_news.wait()
            self._has_news = trio.Event()
            count = 0
            while self._news:
                await self._act(self._news.popleft())
                count += 1
                if count % OPEN_SLICE_TOPICS == 0:
                    await trio.lowlevel.checkpoint()

    async def _act(self, result: Result | None) -> None:
        if result is None:
            await self._compare()
            return
        value = result.value
        if isinstance(result.command, CreateTopic) and isinstance(value, Topic):
            self._spread()
            await self._open(value)
        elif isinstance(result.command, DeleteTopic) and isinstance(value, Topic):
            self._close(value)
        elif isinstance(result.command, RegisterNode) and isinstance(value, Node):
            await self._node_started(value.node_id, value.incarnation)

    async def _compare(self) -> None:
        """Open what is missing and close what is too much."""
        for number, topic in enumerate(list(self._catalogue.topics())):
            if self._catalogue.topic_by_id(topic.topic_id) is not None:  # it may have gone meanwhile
                await self._open(topic)
            if number % OPEN_SLICE_TOPICS == 0:
                await trio.lowlevel.checkpoint()
        for held in list(self._held.values()):
            if self._catalogue.topic_is_deleted(held.topic.topic_id):
                self._close(held.topic)
        for group_id in self._groups.known():
            if self._catalogue.group_is_deleted(group_id):
                self._groups.drop(group_id)
        for node, incarnation in self._context.whereabouts.incarnations().items():
            await self._node_started(node, incarnation)

    def _is_in_catalogue(self, group_id: int) -> bool:
        return self._catalogue.partition_of(group_id) is not None

    # topics

    def partitions(self, topic_id: int) -> list[Partition] | None:
        """The partitions of a topic; None while it is being opened, and when it is not here."""
        held = self._held.get(topic_id)
        return held.partitions if held is not None and held.ready.is_set() else None

    def all_partitions(self) -> Iterator[list[Partition]]:
        """The partitions of every topic that is here."""
        for held in self._held.values():
            yield held.partitions

    def partition_of(self, group_id: int) -> Partition | None:
        """This node's replica of a partition; None where it has none, or has not opened it yet."""
        return self._by_group.get(group_id)

    def group(self, group_id: int) -> Group | None:
        """A group that this node has a replica of, and that is known by its id here."""
        partition = self._by_group.get(group_id)
        if partition is not None:
            return partition.group
        coordinator = self._coordinator.group
        return coordinator if coordinator is not None and coordinator.group == group_id else None

    def leads(self, group_id: int) -> bool:
        """This node leads the group, and serves."""
        partition = self._by_group.get(group_id)
        if partition is not None:
            return partition.failure is None
        group = self._coordinator.group
        return group is not None and group.group == group_id and self._coordinator.ready

    async def opened(self, topic: Topic, clock: Clock) -> list[Partition]:
        """The partitions of a topic that was created, when somebody serves it.

        Raises NotFound when it is deleted meanwhile, Unavailable when nobody leads it for too long.
        """
        while (held := self._held.get(topic.topic_id)) is None or not held.ready.is_set():
            if self._catalogue.topic_is_deleted(topic.topic_id):
                raise _deleted(topic)
            await (held.ready.wait() if held is not None else self._changed.wait())
        deadline_ns = clock.monotonic_ns() + SERVED_WAIT_MS * 1_000_000
        while not all(partition.group.leader_node for partition in held.partitions):
            now_ns = clock.monotonic_ns()
            if held.partitions[0].stopped:
                raise _deleted(topic)
            if all(partition.settled.is_set() for partition in held.partitions) or now_ns >= deadline_ns:
                break  # those without a leader are fenced, or it takes too long
            await clock.sleep_until(now_ns + SERVED_LOOK_MS * 1_000_000)
        if clock.monotonic_ns() >= deadline_ns:
            raise Unavailable(f"{topic.name} is created, but nobody leads all of it yet; try again")
        return held.partitions

    async def closed(self, topic: Topic) -> None:
        """Return when a topic that was deleted is not served here any more."""
        while topic.topic_id in self._held:
            await self._changed.wait()

    async def _open(self, topic: Topic) -> None:
        """Rebuild the partitions of a topic and let them stand for election."""
        if topic.name == COORDINATOR_TOPIC:
            if not self._coordinator_opened:
                self._coordinator_opened = True
                await self._groups.open(topic.groups[0], self._coordinator)
            return
        if topic.topic_id in self._held:
            return
        logs = [self._groups.log_of(group_id) for group_id in topic.groups]
        partitions = [Partition(self._context, topic, number, log) for number, log in enumerate(logs)]
        held = self._held[topic.topic_id] = _Held(topic, partitions, trio.Event())
        for partition, group_id in zip(partitions, topic.groups, strict=True):
            self._by_group[group_id] = partition
            await self._groups.open(group_id, partition)
        if self._context.alone:  # they are served in a moment: nobody need be told to wait
            self._context.tasks.spawn(f"{topic.name}/settle", self._settle, held)
        else:
            held.ready.set()
        self._tell_change()

    async def _settle(self, held: _Held) -> None:
        for partition in held.partitions:
            await partition.settled.wait()
        held.ready.set()

    def _close(self, topic: Topic) -> None:
        """Everyone who waits is answered, then the data goes."""
        held = self._held.pop(topic.topic_id, None)
        for partition in held.partitions if held is not None else ():
            partition.close(_deleted(topic))
        for group_id in topic.groups:
            self._by_group.pop(group_id, None)
            self._groups.drop(group_id)
            for told in self.on_closed:
                told(group_id)
        if held is not None:
            held.ready.set()  # whoever waits for it looks again
        self._forget_positions(topic.topic_id)
        self._tell_change()

    def _tell_change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    # consumers of other nodes, and of other lives of this one

    async def node_gone(self, node: int) -> None:
        """A node is gone for good: what its consumers hold in partitions that are led here comes back."""
        incarnation = self._context.whereabouts.incarnations().get(node, 0)
        await self._node_started(node, incarnation + 1)

    async def _node_started(self, node: int, incarnation: int) -> None:
        for number, held in enumerate(list(self._held.values())):
            for partition in held.partitions:
                if partition.holds_leases:
                    partition.post(NodeStarted(node, incarnation), always=True)
            if number % OPEN_SLICE_TOPICS == 0:
                await trio.lowlevel.checkpoint()

    # stream positions

    def commit_positions(
        self, subscription: str, topic_id: int, positions: Sequence[tuple[int, int]]
    ) -> Promise[None]:
        """Store a stream subscription's positions; answered when they are on disk on a majority."""
        command = CommitPositions(subscription, topic_id, tuple(positions), self._context.clock.wall_ms())
        try:
            return self._coordinator.submit(encode_command(command))
        except PlaitError as error:
            return rejected(error)

    def positions_confirmed(self) -> Promise[int]:
        """Resolves when the positions here are not older than this call. Rejects with NotLeader."""
        return self._coordinator.confirmed()

    def stored_positions(self, subscription: str, topic_id: int) -> list[tuple[int, int]]:
        """(partition, offset) of every partition that the subscription has a position in."""
        return self._streams.positions(subscription, topic_id)

    def stream_positions(self, topic_id: int) -> dict[str, dict[int, int]]:
        """The positions of all stream subscriptions of a topic: partition to offset, by subscription."""
        return self._streams.of_topic(topic_id)

    def _forget_positions(self, topic_id: int) -> None:
        """Whoever leads the positions forgets those of a topic that is gone; the next leader looks, too."""
        if self._coordinator.ready:
            self._coordinator.submit(encode_command(ForgetTopic(topic_id))).then(_ignore)

    def _coordinator_stands(self) -> None:
        if self._coordinator.group is not None:
            self._context.standing(self._coordinator.group, self._coordinator.ready)
        if self._coordinator.ready:
            for topic_id in self._streams.topics():
                if self._catalogue.topic_is_deleted(topic_id):
                    self._forget_positions(topic_id)


def _deleted(topic: Topic) -> NotFound:
    return NotFound(f"{topic.name} was deleted; nothing was done")


def _ignore(_: Promise[None]) -> None:
    """What was not done now is done by the next leader."""
