"""The replicas that this node holds: opened as the catalogue says, closed when it no longer does.

catalogue ──assigns a replica to this node──> log, state machine, group ──ready──> served
          ──deleted it, or moved it away──> closed, answered, and then the data goes

Changes of the catalogue arrive as news, in order; after a snapshot of it everything is compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog
import trio

from cluster.catalogue import COORDINATOR_TOPIC, METADATA_GROUP, Catalogue, Result, Topic
from cluster.commands import (
    AddNode,
    CreateTopic,
    Declare,
    DeleteTopic,
    Reassign,
    RegisterNode,
    ResizeTopic,
    WentOver,
)
from cluster.nodes import Node
from node.coordinator import Coordinator
from node.coordinators import Coordinators
from node.groups import FOUNDER, Groups, founding_members
from node.partition import NodeStarted, Partition, PartitionContext
from node.traffic import Traffic
from plait.wire.errors import NotFound, NotLeader, Unavailable
from replication.group import Group

OPEN_SLICE = 16
"""Topics, or partitions of one, that are opened in a row before the loop has a turn for everything else."""
SERVED_WAIT_MS = 5_000
"""How long the creation of a topic waits until it is led by somebody."""
NEWS_MAX = 10_000
"""Changes of the catalogue that wait to be acted upon; with more, everything is compared instead."""


@dataclass(slots=True)
class _Held:
    """A topic's partitions on this node."""

    topic: Topic
    partitions: dict[int, Partition]
    """By number; those that are elsewhere are missing."""
    replicas: dict[int, int]
    """By number, which replica of it this is."""
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
        self.placed: Callable[[int], None] = lambda group: None
        """Called with a group whose assignment is another one now."""
        self.coordinators = Coordinators(
            context.host,
            context.clock,
            catalogue,
            context.whereabouts,
            groups,
            lambda group, leads: self._context.standing(group, leads),
        )
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
        for group_id, _ in self._groups.known():
            if group_id and not self._is_in_catalogue(group_id):
                # never delete for want of metadata: it may be the metadata that is too old
                self._logger.warning("group is in no catalogue, its data is kept", group=group_id)
        if self._context.alone():
            for held in list(self._held.values()):
                await held.ready.wait()
            await self.coordinators.settled()

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
                if count % OPEN_SLICE == 0:
                    await trio.lowlevel.checkpoint()

    async def _act(self, result: Result | None) -> None:
        if result is None:
            await self._compare()
            return
        value = result.value
        match result.command:
            case CreateTopic() | ResizeTopic() if isinstance(value, Topic):
                self._spread()
                await self._open(value)
            case Reassign(group) | WentOver(group):
                if isinstance(value, Topic):
                    await self._open(value)
                self._drop_gone(group)
                self.placed(group)
            case DeleteTopic() if isinstance(value, Topic):
                self._close(value)
            case RegisterNode() | AddNode() | Declare() if isinstance(value, Node):
                self.placed(METADATA_GROUP)
                await self._node_started(value.node_id, value.incarnation + value.dead)

    async def _compare(self) -> None:
        """Open what is missing and close what is too much."""
        for number, topic in enumerate(list(self._catalogue.topics())):
            if self._catalogue.topic_by_id(topic.topic_id) is not None:  # it may have gone meanwhile
                await self._open(topic)
            if number % OPEN_SLICE == 0:
                await trio.lowlevel.checkpoint()
        for held in list(self._held.values()):
            if self._catalogue.topic_is_deleted(held.topic.topic_id):
                self._close(held.topic)
        for group_id, replica in self._groups.known():
            if self._is_gone(group_id, replica):
                self._groups.drop(group_id, replica)
        for node, incarnation in self._context.whereabouts.incarnations().items():
            await self._node_started(node, incarnation)
        for group_id in list(self._catalogue.assignments.unsettled):
            self.placed(group_id)  # who leads it takes it there: what a snapshot has brought was no news

    def _is_in_catalogue(self, group_id: int) -> bool:
        return self._catalogue.partition_of(group_id) is not None

    # topics

    def partitions(self, topic_id: int) -> Mapping[int, Partition] | None:
        """The partitions of a topic that are here, by number; None while it is opened, and when it is gone."""
        held = self._held.get(topic_id)
        return held.partitions if held is not None and held.ready.is_set() else None

    def all_partitions(self) -> Iterator[Partition]:
        """Every partition that is here."""
        return iter(list(self._by_group.values()))

    def by_topic(self) -> Iterator[list[Partition]]:
        """The same, those of one topic together."""
        return iter([list(held.partitions.values()) for held in self._held.values() if held.partitions])

    def partition_of(self, group_id: int) -> Partition | None:
        """This node's replica of a partition; None where it has none, or has not opened it yet."""
        return self._by_group.get(group_id)

    def coordinator(self, group_id: int) -> Coordinator | None:
        """This node's replica of a coordinator partition."""
        return self.coordinators.get(group_id)

    @property
    def past(self) -> Traffic:
        """What went through partitions that are closed by now."""
        return self._context.past

    def group(self, group_id: int) -> Group | None:
        """A group that this node has a replica of, and that is known by its id here."""
        partition = self._by_group.get(group_id)
        if partition is not None:
            return partition.group
        coordinator = self.coordinators.get(group_id)
        return coordinator.group if coordinator is not None else None

    def leads(self, group_id: int) -> bool:
        """This node leads the group, and serves."""
        partition = self._by_group.get(group_id)
        if partition is not None:
            return partition.failure is None
        coordinator = self.coordinators.get(group_id)
        return coordinator is not None and coordinator.replica.ready

    async def opened(self, topic: Topic) -> Mapping[int, Partition]:
        """The partitions of a topic that was created and that are here, when somebody leads them, or nobody can.

        Raises NotFound when it is deleted meanwhile, Unavailable when nobody leads them for too long.
        """
        while (held := self._held.get(topic.topic_id)) is None or not held.ready.is_set():
            if self._catalogue.topic_is_deleted(topic.topic_id):
                raise _deleted(topic)
            await (held.ready.wait() if held is not None else self._changed.wait())
        with trio.move_on_after(SERVED_WAIT_MS / 1_000) as limit:
            for partition in list(held.partitions.values()):
                await partition.group.led()
        if self._held.get(topic.topic_id) is not held:
            raise _deleted(topic)
        if limit.cancelled_caught:
            raise Unavailable(f"{topic.name} is created, but nobody leads all of it yet; try again")
        return held.partitions

    async def closed(self, topic: Topic) -> None:
        """Return when a topic that was deleted is not served here any more."""
        while topic.topic_id in self._held:
            await self._changed.wait()

    async def _open(self, topic: Topic) -> None:
        """Rebuild the partitions of a topic and let them stand for election."""
        if topic.name == COORDINATOR_TOPIC:
            await self.coordinators.fit(topic, self._drop_gone)
            return
        held = self._held.get(topic.topic_id)
        if held is None:
            held = self._held[topic.topic_id] = _Held(topic, {}, {}, trio.Event())
        held.topic = topic
        for number, group_id in enumerate(topic.groups):
            await self._fit(held, number, group_id)
            if number % OPEN_SLICE == OPEN_SLICE - 1:
                await trio.lowlevel.checkpoint()
        if not held.ready.is_set():
            if self._context.alone():  # they are served in a moment: nobody need be told to wait
                self._context.tasks.spawn(f"{topic.name}/settle", self._settle, held)
            else:
                held.ready.set()
        self._tell_change()

    async def _fit(self, held: _Held, number: int, group_id: int) -> None:
        """Have the replica of a partition that this node is to have, and no other."""
        assignment = self._catalogue.assignment(group_id)
        replica = assignment.replica_on(self._groups.node_id) if assignment is not None else None
        former = held.replicas.get(number)
        if former is not None and (replica is None or replica.replica != former):
            self._take_away(held, number, group_id)
        if assignment is None or replica is None or number in held.replicas:
            return
        log = self._groups.log_of(group_id, replica.replica)
        partition = held.partitions[number] = Partition(self._context, held.topic, number, log)
        held.replicas[number] = replica.replica
        self._by_group[group_id] = partition
        eager = assignment.preferred == self._groups.node_id
        members = founding_members(assignment, replica)
        await self._groups.open(group_id, replica.replica, partition, members, eager=eager)

    def _is_gone(self, group_id: int, replica: int) -> bool:
        """The replica that has a log here is neither wanted nor on its way out, for certain."""
        assignment = self._catalogue.assignment(group_id)
        if replica == FOUNDER and assignment is not None:
            replica = assignment.founder_on(self._groups.node_id)
            return replica != 0 and self._catalogue.replica_is_gone(group_id, replica)
        return self._catalogue.replica_is_gone(group_id, replica)

    def _drop_gone(self, group_id: int) -> None:
        """The data of replicas goes that are neither wanted nor on their way out."""
        for replica in self._groups.replicas_of(group_id):
            if self._is_gone(group_id, replica):
                self._groups.drop(group_id, replica)

    def _take_away(self, held: _Held, number: int, group_id: int) -> None:
        """The partition was moved to other nodes, or this one has another replica of it now."""
        del held.replicas[number]
        del self._by_group[group_id]
        self.past.add(held.partitions[number].traffic)
        held.partitions.pop(number).close(
            NotLeader(
                f"{held.topic.name}/{number} was moved to another node; nothing was done; ask again", leader=0
            )
        )
        self._groups.leave(group_id)
        self._drop_gone(group_id)

    async def _settle(self, held: _Held) -> None:
        for partition in list(held.partitions.values()):
            await partition.settled.wait()
        held.ready.set()

    def _close(self, topic: Topic) -> None:
        """Everyone who waits is answered, then the data goes."""
        held = self._held.pop(topic.topic_id, None)
        for partition in list(held.partitions.values()) if held is not None else ():
            self.past.add(partition.traffic)
            partition.close(_deleted(topic))
        for group_id in topic.groups:
            self._by_group.pop(group_id, None)
            self._drop_gone(group_id)
            for told in self.on_closed:
                told(group_id)
        if held is not None:
            held.ready.set()  # whoever waits for it looks again
        self.coordinators.forget_topic(topic.topic_id)
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
        for number, partition in enumerate(self.all_partitions()):
            if partition.holds_leases and not partition.stopped:
                partition.post(NodeStarted(node, incarnation), always=True)
            if number % OPEN_SLICE == 0:
                await trio.lowlevel.checkpoint()


def _deleted(topic: Topic) -> NotFound:
    return NotFound(f"{topic.name} was deleted; nothing was done")
