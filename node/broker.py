"""The broker as gateways see it: every call is answered by a promise, every error is a PlaitError.

    gateway ──> Broker ──publish──> the partition's lane ─┬─> its leader, on this node or another ──> answer
                       └─question─> routes ───────────────┘

Any number of gateways share one broker; each speaks its protocol and knows nothing of the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import structlog

from cluster.catalogue import Topic
from cluster.names import check_subscription_name
from cluster.settings import LEASE_MS_MAX, LEASE_MS_MIN, record_limit_bytes
from node.attachments import Attachment, Attachments
from node.attending import Attendance, Attending
from node.consumer_groups import ConsumerGroups
from node.consumers import LeasedRun
from node.coordinators import coordinator_groups, coordinator_of
from node.describe import Figures, describe_subscriptions, describe_topic, figures_of, figures_unknown
from node.group_questions import CommitTo, PositionsOf
from node.lanes import Lanes
from node.metadata import Metadata
from node.outbox import OUTBOX_PRODUCERS
from node.publishing import PUBLISH_WAIT_MS, Published
from node.questions import Describe, FetchFrom, Find, Question
from node.readers import Fetched, Located
from node.replicas import Replicas
from node.router import Router
from node.routes import Routes
from node.source import BATCH_OPEN_BYTES
from node.state import QUEUE_SUBSCRIPTION
from node.status import Status
from plait.wire.batch import BatchLimits, check_records, open_body, read_header, validate
from plait.wire.errors import (
    BatchInvalid,
    InternalError,
    NotFound,
    PlaitError,
    SettingInvalid,
    Unavailable,
    WrongKind,
)
from replication.actor import Promise, rejected
from replication.environment import Buffer, Tasks

T = TypeVar("T")
PREFETCH_RECORDS_MAX = 100_000
"""Records that one consumer may hold unacknowledged."""


class TopicMissing(NotFound):
    """This node's catalogue has no topic or queue of that name."""


@dataclass(frozen=True, slots=True)
class ConsumerOptions:
    """How a consumer wants to be served."""

    prefetch: int
    """Records that it may hold unacknowledged; shared out over a queue's partitions."""
    lease_ms: int
    """0: the queue's own."""
    client: str


class Broker:
    """The facade. One per node; all its methods may be called from any task of the node."""

    def __init__(
        self,
        metadata: Metadata,
        replicas: Replicas,
        routes: Routes,
        lanes: Lanes,
        attendance: Attendance,
        limits: BatchLimits,
        tasks: Tasks,
    ) -> None:
        self.limits = limits
        self.cluster_id = metadata.cluster_id
        self.node_id = metadata.node_id
        self.incarnation = metadata.incarnation
        self._metadata = metadata
        self._replicas = replicas
        self._routes = routes
        self._lanes = lanes
        self._attendance = attendance
        self._router = Router(metadata.node_id)
        self._tasks = tasks
        self._consumer_number = 0
        self._attachments = Attachments(metadata.catalogue)
        self.groups = ConsumerGroups(metadata, routes, self._soon)
        """Consumer groups."""
        self.status: Status | None = None
        """Who knows how the nodes are; None while this node is starting."""

    # administration

    def create(self, kind: str, name: str, settings: dict[str, Any]) -> Promise[dict[str, Any]]:
        """Create a topic or queue; its description. The same again is no error, other settings are."""
        return self._soon("create", self._create(kind, name, settings))

    def describe(self, name: str) -> Promise[dict[str, Any]]:
        """What a topic or queue is, and how it is doing now; only whoever leads it can say so."""
        return self._soon("describe", self._describe(name))

    def resize(self, name: str, partitions: int, replicas: int) -> Promise[dict[str, Any]]:
        """Give a topic or queue more partitions, or another number of replicas (0: as it is); its description.

        Replicas come and go in the background; nobody has to wait for them.
        """
        return self._soon("resize", self._resize(name, partitions, replicas))

    def change_node(self, node_id: int, state: str) -> Promise[None]:
        """Have a node serve ("active"), hand over what it has ("draining"), or go for good, too ("leaving")."""
        return self._soon("change node", self._change_node(node_id, state))

    def cluster_status(self) -> Promise[dict[str, Any]]:
        """How all nodes are, as far as they are heard (node/status.py)."""
        if self.status is None:
            return rejected(Unavailable("this node is starting; nothing was asked; try again"))
        return self._soon("status", self.status.cluster())

    def delete(self, name: str) -> Promise[None]:
        """Delete a topic or queue with everything in it."""
        return self._soon("delete", self._delete(name))

    def names(self, kind: str) -> Promise[list[dict[str, Any]]]:
        """Descriptions of all topics ("topic"), queues ("queue") or both (""); none of the broker's own.

        Which there are is certain; their figures are as this node knows them.
        """
        return self._soon("list", self._names(kind))

    def new_producer(self) -> Promise[tuple[int, int]]:
        """(producer id, epoch) of a new idempotent producer; ids are never used again."""
        return self._soon("producer", self._metadata.new_producer())

    def subscriptions(self, name: str) -> Promise[list[dict[str, Any]]]:
        """The subscriptions of a topic or queue, with their lag or backlog; only whoever leads it can say so."""
        return self._soon("subscriptions", self._subscriptions(name))

    # data

    def publish(
        self, name: str, partition: int, batch: Buffer, client: str, wait_ms: int = -1
    ) -> Promise[Published]:
        """Store one RecordBatch; partition -1 leaves the choice to the broker.

        Answered when a majority has it on disk. `client` is whose fair share it counts to; `wait_ms`
        how long it may wait for room (-1, and at most: PUBLISH_WAIT_MS), before it is refused.
        """
        wait_ms = min(wait_ms, PUBLISH_WAIT_MS) if wait_ms >= 0 else PUBLISH_WAIT_MS
        return self._certain(lambda: self._publish(name, partition, batch, client, wait_ms))

    def _publish(self, name: str, partition: int, batch: Buffer, client: str, wait_ms: int) -> Promise[Published]:
        try:
            topic = self._find(name)
            limits = self._batch_limits(topic)
            header = validate(batch, limits)
            if header.is_control or header.is_transactional:
                raise BatchInvalid("transactions are not served; the batch was not stored: publish without one")
            if header.producer_id >= OUTBOX_PRODUCERS:
                raise BatchInvalid(
                    f"producer id {header.producer_id} was given to nobody; the batch was not stored"
                )
            if topic.kind == "queue" or header.compression == "none":
                check_records(open_body(batch, header, BATCH_OPEN_BYTES), header, limits.max_record_bytes)
            number = self._router.partition_of(topic, partition, header)
        except PlaitError as error:
            return rejected(error)
        return self._lanes.offer(topic.groups[number], f"{name}/{number}", batch, header, client, wait_ms)

    def publish_dead_letters(self, name: str, group: int, batch: bytes) -> Promise[Published]:
        """Store what a group gives up, in the first partition: that is the same however many there come to be, and
        what is sent again must meet what was sent before."""
        try:
            topic = self._find(name)
        except PlaitError as error:
            return rejected(error)
        client = f"dead-letters/{group}"
        return self._lanes.offer(topic.groups[0], f"{name}/0", batch, read_header(batch), client)

    def leader_elsewhere(self, name: str, partition: int) -> tuple[int, str]:
        """Another node that is known to lead a partition, and where clients reach it; else (0, "")."""
        topic = self._metadata.catalogue.topic(name)
        if topic is None or partition >= len(topic.groups) or self._replicas.leads(topic.groups[partition]):
            return 0, ""
        leader = self._routes.leaders.node(topic.groups[partition])
        node = self._metadata.catalogue.node(leader) if leader not in (0, self.node_id) else None
        return (leader, node.native) if node is not None and node.native else (0, "")

    def fetch(
        self, name: str, partition: int, offset: int, max_bytes: int, wait_ms: int, nearest: bool = False
    ) -> Promise[Fetched]:
        """Committed batches from `offset` on; waits up to `wait_ms` for the first.

        `nearest`: as far as this node's own replica knows, where it has one and that has the offset.
        """
        question = FetchFrom(offset, max_bytes, wait_ms)
        if nearest:
            return self._certain(lambda: self._fetch_nearest(name, partition, question))
        return self._certain(lambda: self._ask(name, partition, question, "topic"))

    def _fetch_nearest(self, name: str, partition: int, question: FetchFrom) -> Promise[Fetched]:
        try:
            group = self._group_of(name, partition, "topic")
        except PlaitError as error:
            return rejected(error)
        return self._routes.ask_nearest(group, question)

    def locate(self, name: str, partition: int, at: str | int) -> Promise[Located]:
        """The offset of "start", "end", or of the first record with at least that timestamp in ms."""

        return self._certain(lambda: self._ask(name, partition, Find(at)))

    def commit(self, subscription: str, name: str, positions: Sequence[tuple[int, int]]) -> Promise[None]:
        """Store a stream subscription's position, (partition, offset) each: the next record it wants."""
        return self._certain(lambda: self._commit(subscription, name, positions))

    def _commit(self, subscription: str, name: str, positions: Sequence[tuple[int, int]]) -> Promise[None]:
        try:
            check_subscription_name(subscription)
            topic = self._find(name, kind="topic")
            coordinator = coordinator_of(self._metadata.catalogue, subscription)
            for number, offset in positions:
                if not 0 <= number < len(topic.groups):
                    raise NotFound(f"{name} has no partition {number}; no position was stored")
                if offset < 0:
                    raise NotFound(f"there is no offset {offset}; no position was stored")
        except PlaitError as error:
            return rejected(error)
        return self._routes.ask(coordinator, CommitTo(subscription, topic.topic_id, positions))

    def committed(self, subscription: str, name: str) -> Promise[list[tuple[int, int]]]:
        """The stored position of a stream subscription in each partition that it has one in."""
        return self._soon("committed", self._committed(subscription, name))

    def attach(
        self,
        name: str,
        subscription: str,
        options: ConsumerOptions,
        deliver: Callable[[int, list[LeasedRun]], None],
        gone: Callable[[PlaitError], None],
    ) -> Promise[Attachment]:
        """Consume a queue (subscription ""): `deliver(partition, runs)` is called with what is leased.

        It goes on through changes of leaders. `gone(error)` is called when the queue is deleted, or nobody serves
        it for long; the attachment is then over.
        """
        return self._certain(lambda: self._attach(name, subscription, options, deliver, gone))

    def _attach(
        self,
        name: str,
        subscription: str,
        options: ConsumerOptions,
        deliver: Callable[[int, list[LeasedRun]], None],
        gone: Callable[[PlaitError], None],
    ) -> Promise[Attachment]:
        try:
            _check_lease(options.lease_ms)
            topic = self._find(name, kind="queue")
            if subscription != QUEUE_SUBSCRIPTION:
                raise NotFound(f"queue {name} has no subscription {subscription!r}; nothing was attached")
        except PlaitError as error:
            return rejected(error)
        prefetch = min(options.prefetch, PREFETCH_RECORDS_MAX)

        def consumer(number: int, group: int, count: int) -> Attending:
            return Attending(
                self._attendance,
                group,
                self._new_consumer_id(),
                subscription,
                max(1, prefetch // count),
                options.lease_ms or topic.settings.lease_ms,
                partial(deliver, number),
                attachment.ended,
            )

        attachment = Attachment(self._routes, self._attachments, topic.topic_id, subscription, consumer, gone)
        return self._soon("attach", attachment.attach(topic.groups))

    def catalogue_changed(self) -> None:
        """There may be more partitions: who consumes a queue consumes those, too."""
        self._attachments.look()

    def client_gone(self, client: str) -> None:
        """A connection has ended: what waits for it in any partition is dropped."""
        self._lanes.client_gone(client)

    # inside

    async def _create(self, kind: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
        topic = await self._metadata.create(kind, name, settings, self.limits.max_record_bytes)
        if self._metadata.catalogue.topic_by_id(topic.topic_id) is None:
            raise NotFound(f"{name} was deleted at the same time; it is not there: create it again")
        await self._replicas.opened(topic)
        return describe_topic(topic, self._figures(topic))

    async def _resize(self, name: str, partitions: int, replicas: int) -> dict[str, Any]:
        self._find(name)
        topic = await self._metadata.resize(name, partitions, replicas)
        await self._replicas.opened(topic)
        return describe_topic(topic, self._figures(topic))

    async def _change_node(self, node_id: int, state: str) -> None:
        await self._metadata.change_node(node_id, state)

    async def _delete(self, name: str) -> None:
        topic = await self._metadata.delete(name)
        self._router.forget(topic.topic_id)
        await self._replicas.closed(topic)

    async def _describe(self, name: str) -> dict[str, Any]:
        await self._metadata.confirm()
        topic = self._find(name)
        return describe_topic(topic, await self._asked_of_all(topic))

    async def _names(self, kind: str) -> list[dict[str, Any]]:
        await self._metadata.confirm()
        return [
            describe_topic(topic, self._figures(topic))
            for topic in self._metadata.catalogue.topics()
            if not topic.internal and kind in ("", topic.kind)
        ]

    async def _subscriptions(self, name: str) -> list[dict[str, Any]]:
        await self._metadata.confirm()
        topic = self._find(name)
        figures = await self._asked_of_all(topic)
        stored: dict[str, dict[int, int]] = {}
        question = PositionsOf("", topic.topic_id)
        for asked in [self._routes.ask(each, question) for each in coordinator_groups(self._metadata.catalogue)]:
            stored |= await asked.wait()
        return describe_subscriptions(figures, stored)

    async def _committed(self, subscription: str, name: str) -> list[tuple[int, int]]:
        check_subscription_name(subscription)
        try:
            topic = self._find(name, kind="topic")
        except TopicMissing:
            await self._metadata.confirm()
            topic = self._find(name, kind="topic")
        question = PositionsOf(subscription, topic.topic_id)
        coordinator = coordinator_of(self._metadata.catalogue, subscription)
        stored = await self._routes.ask(coordinator, question).wait()
        return list(stored[subscription].items())

    async def _asked_of_all(self, topic: Topic) -> list[Figures]:
        """Each partition's figures, from whoever leads it: they show everything that was committed before."""
        asked = [self._routes.ask(group, Describe()) for group in topic.groups]
        return [await each.wait() for each in asked]

    def _figures(self, topic: Topic) -> list[Figures]:
        """What this node knows of a topic's partitions, without asking anybody."""
        found = []
        for number, group in enumerate(topic.groups):
            partition = self._replicas.partition_of(group)
            if partition is not None:
                found.append(figures_of(partition))
            else:
                found.append(figures_unknown(number, self._routes.leaders.node(group)))
        return found

    def _certain(self, ask: Callable[[], Promise[T]]) -> Promise[T]:
        """Ask; where there seems to be no such topic, see to it that this node is not behind, and ask again."""
        promise = ask()
        if isinstance(promise.error, TopicMissing):
            return self._soon("look again", self._ask_again(ask))
        return promise

    async def _ask_again(self, ask: Callable[[], Promise[T]]) -> T:
        await self._metadata.confirm()
        return await ask().wait()

    def _find(self, name: str, kind: str = "") -> Topic:
        topic = self._metadata.catalogue.topic(name)
        if topic is None or topic.internal:
            raise TopicMissing(f"there is no topic or queue {name!r}; nothing was done: create it first")
        if kind and topic.kind != kind:
            raise WrongKind(f"{name} is a {topic.kind}; this needs a {kind}; nothing was done")
        return topic

    def _ask(self, name: str, partition: int, question: Question[T], kind: str = "") -> Promise[T]:
        try:
            group = self._group_of(name, partition, kind)
        except PlaitError as error:
            return rejected(error)
        return self._routes.ask(group, question)

    def _group_of(self, name: str, partition: int, kind: str) -> int:
        topic = self._find(name, kind)
        count = len(topic.groups)
        if not 0 <= partition < count:
            raise NotFound(f"{name} has the partitions 0 to {count - 1}, not {partition}; nothing was done")
        return topic.groups[partition]

    def _batch_limits(self, topic: Topic) -> BatchLimits:
        if topic.settings.max_record_bytes is None:
            return self.limits
        return BatchLimits(
            record_limit_bytes(topic.settings, self.limits.max_record_bytes), self.limits.max_batch_bytes
        )

    def _new_consumer_id(self) -> str:
        self._consumer_number += 1
        return f"{self.node_id}.{self.incarnation}.{self._consumer_number}"

    def _soon(self, name: str, work: Awaitable[T]) -> Promise[T]:
        promise: Promise[T] = Promise()
        self._tasks.spawn(f"broker/{name}", _fulfil, promise, work)
        return promise


async def _fulfil(promise: Promise[T], work: Awaitable[T]) -> None:
    try:
        promise.resolve(await work)
    except PlaitError as error:
        promise.reject(error)
    except Exception as error:  # a defect in one request must not end the node, and its asker needs an answer
        structlog.get_logger("plait.node").error("request failed", exc_info=error)
        promise.reject(InternalError("the broker failed at this; its log says more; it may or may not be done"))


def _check_lease(lease_ms: int) -> None:
    if lease_ms and not LEASE_MS_MIN <= lease_ms <= LEASE_MS_MAX:
        raise SettingInvalid(
            f"a lease lasts from {LEASE_MS_MIN:,} to {LEASE_MS_MAX:,} ms, not {lease_ms:,}; nothing was attached"
        )
