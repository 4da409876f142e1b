"""The client: one connection, and the queues and topics behind it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import anyio
from anyio.lowlevel import checkpoint

from plait.client.address import parse_addresses
from plait.client.connection import Connection, closed_error
from plait.client.consumer import PREFETCH_RECORDS, Attachment, Consumer
from plait.client.group import HANDOVER_S, SESSION_S, GroupSubscription, PartitionsHook
from plait.client.leaders import Leaders
from plait.client.messages import Headers, Message, Received, header_pairs
from plait.client.outbox import (
    BATCH_BYTES,
    BATCH_BYTES_MAX,
    BUFFER_BYTES_MAX,
    Compression,
    OpenBatch,
    Outbox,
    OutboxOptions,
)
from plait.client.outside import Outside
from plait.client.producer import Producer
from plait.client.reader import Position, Reader, locate
from plait.client.subscription import AUTO_COMMIT_S, Subscription
from plait.wire import Buffer
from plait.wire.errors import NotFound, PlaitError, SettingInvalid, WrongKind
from plait.wire.messages import (
    ChangeNode,
    ClusterStatus,
    Create,
    Delete,
    Describe,
    Described,
    DescribeGroup,
    Groups,
    Listed,
    ListNames,
    Nothing,
    Resize,
    Subscriptions,
)

DEADLINE_S = 30.0
"""Default of the time within which a request is carried out, connecting and trying again if need be."""
CONNECT_TIMEOUT_S = 5.0
"""Default of the time within which the first connection must be there."""
CLOSE_S = 10.0
"""Longest that closing a client waits for publishes under way."""

Kind = Literal["topic", "queue"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a published message is stored: partition, offset, the broker's time in ms since 1970 (-1: unknown).

    `duplicate`: it had been stored by an earlier try of the same publish; this is its place from then.
    """

    partition: int
    offset: int
    timestamp_ms: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """What the broker says of a topic or queue, as of now."""

    name: str
    kind: Kind
    partitions: int
    settings: dict[str, Any]
    details: dict[str, Any]
    """Everything, as it came: `partitions_detail` has start, end, backlog and leases of each partition."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in a queue: records not yet acknowledged, their bytes, and how many of them are on lease."""

    records: int
    size_bytes: int
    leased: int


class Client:
    """A connection to a broker. Made by `connect`; everything else is reached from here.

    It connects again by itself, waiting a little longer after each failure. What is asked meanwhile waits, until
    `deadline_s` is over: then it raises Unavailable. Many tasks may use one client at once.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._leaders = Leaders(connection)
        self._outboxes: dict[str, Outbox] = {}

    @property
    def cluster_id(self) -> str:
        """The id of the cluster that the client is connected to."""
        welcome = self._connection.welcome
        return welcome.cluster_id if welcome is not None else ""

    async def queue(self, /, name: str, *, create: bool = True, **settings: Any) -> Queue:
        """The queue of that name, made with these settings if there is none.

        With `create=False`: NotFound if there is none. Settings are those of docs/limits.md, for example
        `lease_ms`, `max_backlog_records`, `overflow`, `partitions`.
        Raises AlreadyExists when it has other settings, WrongKind for a topic, NameInvalid, SettingInvalid.
        """
        return Queue(self, await self._get_or_create("queue", name, create, settings))

    async def topic(self, /, name: str, *, create: bool = True, **settings: Any) -> Topic:
        """The topic of that name, made with these settings if there is none (`partitions`, `retention_ms`, ...).

        Raises as `queue` does.
        """
        return Topic(self, await self._get_or_create("topic", name, create, settings))

    async def describe(self, name: str) -> Description:
        """What the broker knows of a topic or queue. Raises NotFound."""
        found = await self._connection.request(lambda: Describe(0, name), Described)
        return _description(found.description)

    async def list(self, kind: Kind | None = None) -> Sequence[Description]:
        """All topics and queues of the namespace, or those of one kind, by name."""
        found = await self._connection.request(lambda: ListNames(0, kind or ""), Listed)
        return sorted((_description(item) for item in found.items), key=lambda each: each.name)

    async def cluster_status(self) -> dict[str, Any]:
        """How the cluster's nodes are: a map with `nodes`, each with what the catalogue knows of it and, if it was
        heard, what it says of itself."""
        return (await self._connection.request(lambda: ClusterStatus(0), Described)).description

    async def resize(self, name: str, *, partitions: int = 0, replicas: int = 0) -> Description:
        """Give a topic or queue more partitions (never fewer), or another number of replicas; 0 leaves it.

        Keys may go to other partitions from then on. Raises NotFound, SettingInvalid, LimitReached.
        """
        found = await self._connection.request(lambda: Resize(0, name, partitions, replicas), Described)
        return _description(found.description)

    async def change_node(self, node_id: int, state: Literal["active", "draining", "leaving"]) -> None:
        """Have a node serve, hand over what it has, or do that and leave the cluster for good; `cluster_status`
        shows how far it is. Raises NotFound, and Unavailable for the last node that serves."""
        await self._connection.request(lambda: ChangeNode(0, node_id, state), Nothing)

    async def delete(self, name: str) -> None:
        """Delete a topic or queue with everything in it. Raises NotFound."""
        life = self._connection.life
        try:
            await self._connection.request(lambda: Delete(0, name), Nothing)
        except NotFound:
            if self._connection.life == life:
                raise  # otherwise an earlier try, whose answer was lost, has done it
        finally:
            if (outbox := self._outboxes.pop(name, None)) is not None:
                outbox.close()

    async def groups(self) -> Sequence[dict[str, Any]]:
        """The consumer groups that have members: name, members (how many) and topics of each."""
        return (await self._connection.request(lambda: Groups(0), Listed)).items

    async def describe_group(self, subscription: str) -> dict[str, Any]:
        """A consumer group: its `members`, and of each of its `topics` the `partitions` with their holder, whom
        they are meant for, the committed position (-1: none) and the `lag`.

        Raises NotFound if it has no members.
        """
        found = await self._connection.request(lambda: DescribeGroup(0, subscription), Described)
        for topic in found.description["topics"]:
            for each in topic["partitions"]:
                located = await locate(self._connection, topic["name"], each["partition"], "end")
                each["lag"] = max(0, located.end - max(each["position"], located.start))
        return found.description

    async def aclose(self) -> None:
        """Flush what is being published, end consumers and subscriptions, close the connection."""
        with anyio.move_on_after(CLOSE_S):
            for outbox in self._outboxes.values():
                batches = outbox.unanswered()
                outbox.flush()
                for batch in batches:
                    await batch.answer.settled()
            for receiver in list(self._connection.receivers.values()):
                await receiver.cancel()
            for member in list(self._connection.memberships):
                await member.leave()
        for outbox in self._outboxes.values():
            outbox.close()
        self._connection.closed = True

    async def _get_or_create(self, kind: Kind, name: str, create: bool, settings: dict[str, Any]) -> Description:
        if not create and settings:
            raise SettingInvalid("Settings are for creating: leave out `create=False`, or the settings.")
        try:
            if not create or not settings:
                return self._of_kind(kind, await self.describe(name))
        except NotFound:
            if not create:
                raise
        made = await self._connection.request(lambda: Create(0, kind, name, settings), Described)
        return _description(made.description)

    def _of_kind(self, kind: Kind, found: Description) -> Description:
        if found.kind != kind:
            raise WrongKind(f"{found.name!r} is a {found.kind}; ask for it with client.{found.kind}(...).")
        return found

    def _outbox(self, name: str, partitions: int) -> Outbox:
        """The outbox of publishes that wait for their answers, one a topic."""
        outbox = self._outboxes.get(name)
        if outbox is None or outbox.partitions != partitions:
            options = OutboxOptions(deadline_s=self._connection.deadline_s)
            outbox = self._outboxes[name] = Outbox(self._connection, self._leaders, name, partitions, options)
        return outbox


class _Named:
    """What queues and topics share: publishing."""

    def __init__(self, client: Client, description: Description) -> None:
        self.name = description.name
        self.partitions = description.partitions
        self.settings = description.settings
        self._client = client
        self._connection = client._connection

    async def publish(
        self,
        value: Buffer,
        *,
        key: Buffer | None = None,
        headers: Headers | None = None,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> Receipt:
        """Publish one message; returns once it is stored and synced.

        Publishes of many tasks share batches, so many at once are fast; for a stream of them see `producer`.
        A publish whose answer was lost is sent again and not stored twice. Cancelled while it waits, it may be
        stored all the same.

        Raises Overloaded when the broker refused it until the deadline, RecordTooLarge, StorageFull, TimedOut
        (not stored), OutcomeUnknown (it may be stored: no answer came until the deadline).
        """
        outbox = self._client._outbox(self.name, self.partitions)
        await outbox.space()
        batch, place = outbox.add(value, key, header_pairs(headers), timestamp_ms, partition)
        batch.watched = True
        outbox.send_soon(batch)
        stored = await batch.answer.wait()
        return Receipt(stored.partition, stored.base_offset + place, stored.timestamp_ms, stored.duplicate)

    async def publish_many(self, messages: Iterable[Buffer | Message | Received]) -> int:
        """Publish all of them, batched; returns their number once all are stored and synced.

        Raises as `publish` does, for the first that failed; `details["stored"]` says how many were stored.
        """
        outbox = self._client._outbox(self.name, self.partitions)
        batches: dict[OpenBatch, None] = {}
        count = 0
        for message in messages:
            if outbox.is_full:
                await outbox.space()
            if isinstance(message, Message):
                pairs = header_pairs(message.headers)
                batch, _ = outbox.add(message.value, message.key, pairs, message.timestamp_ms, None)
            elif isinstance(message, Received):
                items = [(name, value or b"") for name, value in message.header_items]
                batch, _ = outbox.add(message.value, message.key, items, message.timestamp_ms, None)
            else:
                batch, _ = outbox.add(message, None, (), None, None)
            count += 1
            if batch not in batches:
                batch.watched = True
                batches[batch] = None
                await checkpoint()  # once a batch, so that a long list lets the others work
        for batch in batches:
            outbox.send_soon(batch)
        for batch in batches:
            await batch.answer.settled()
        failed = [batch for batch in batches if batch.answer.error is not None]
        if failed:
            error = failed[0].answer.error
            if isinstance(error, PlaitError):
                error.details["stored"] = count - sum(batch.records for batch in failed)
            raise error or closed_error()
        return count

    def producer(
        self,
        *,
        linger_ms: float = 5,
        batch_bytes: int = BATCH_BYTES,
        buffer_bytes_max: int = BUFFER_BYTES_MAX,
        compression: Compression = "none",
        idempotent: bool = True,
        deadline_s: float | None = None,
    ) -> Producer:
        """A buffered, pipelined producer: `async with topic.producer() as producer: await producer.send(b"...")`.

        A batch goes when it has `batch_bytes`, or when its first record has waited for `linger_ms`; while five are
        under way to a partition, the next one grows. `buffer_bytes_max` bounds what waits, then `send` suspends.
        `deadline_s`: how long one record is tried (default: the client's). `idempotent=False` saves nothing but
        the producer's entry in the broker's tables, and a lost answer is OutcomeUnknown then.
        """
        if not 1 <= batch_bytes <= BATCH_BYTES_MAX:
            raise SettingInvalid(f"batch_bytes is 1 to {BATCH_BYTES_MAX}, not {batch_bytes}.")
        options = OutboxOptions(
            linger_s=linger_ms / 1000,
            batch_bytes=batch_bytes,
            buffer_bytes_max=max(buffer_bytes_max, batch_bytes),
            compression=compression,
            idempotent=idempotent,
            deadline_s=self._connection.deadline_s if deadline_s is None else deadline_s,
        )
        leaders = self._client._leaders
        return Producer(Outbox(self._connection, leaders, self.name, self.partitions, options))

    async def describe(self) -> Description:
        """What the broker knows of it now."""
        return await self._client.describe(self.name)

    async def delete(self) -> None:
        """Delete it with everything in it."""
        await self._client.delete(self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, partitions={self.partitions})"


class Queue(_Named):
    """A queue: each message is processed by one consumer, then gone. Made by `Client.queue`."""

    def consume(
        self, *, prefetch: int = PREFETCH_RECORDS, lease_s: float | None = None, auto_extend: bool = True
    ) -> Consumer:
        """Messages on lease: `async for message in queue.consume(): ...; await message.ack()`.

        `prefetch`: how many may be on lease and not settled; more is faster, fewer share better between consumers.
        `lease_s`: how long a message is yours before others get it (default: the queue's `lease_ms`); with
        `auto_extend` that time is extended as long as this program's event loop runs and the consumer is open.
        """
        if prefetch < 1:
            raise SettingInvalid(f"prefetch is at least 1, not {prefetch}.")
        lease_ms = int(self.settings["lease_ms"]) if lease_s is None else max(1, round(lease_s * 1000))
        return Consumer(lambda: Attachment(self._connection, self.name, prefetch, lease_ms, auto_extend), prefetch)

    async def backlog(self) -> Backlog:
        """How much waits in the queue, as of now."""
        details = (await self.describe()).details.get("partitions_detail", [])
        return Backlog(
            records=sum(each["backlog_records"] for each in details),
            size_bytes=sum(each["backlog_bytes"] for each in details),
            leased=sum(each["leased"] for each in details),
        )


class Topic(_Named):
    """A topic: every subscription gets every message, and can replay. Made by `Client.topic`."""

    def subscribe(
        self,
        name: str,
        *,
        from_: Position | dict[int, Position] = "beginning",
        partitions: Sequence[int] | None = None,
        auto_commit_s: float | None = AUTO_COMMIT_S,
        nearest: bool = False,
        group: bool = False,
        session_s: float = SESSION_S,
        handover_s: float = HANDOVER_S,
        on_assigned: PartitionsHook | None = None,
        on_revoked: PartitionsHook | None = None,
    ) -> Subscription:
        """The subscription of that name: messages from where it was last committed, else from `from_`.

        `nearest`: see `Reader`.
        `group`: share the partitions with all others that read this subscription so, see `GroupSubscription`; the
        parameters behind it are for that. `session_s`: a member that the broker has not heard of for so long is
        taken for dead. `handover_s`: how long a partition that goes to another member waits for the message in
        hand. `on_assigned`, `on_revoked`: called with partitions when they come and before they go.
        `partitions`: only these (default: all), for programs that share them out by themselves.
        See `Subscription` for what is committed when.
        """
        if group:
            if partitions is not None:
                raise SettingInvalid(
                    "A group shares out the partitions itself: leave out `partitions`, or `group`."
                )
            return GroupSubscription(
                self._connection,
                self.name,
                name,
                from_,
                auto_commit_s,
                session_s,
                handover_s,
                on_assigned,
                on_revoked,
                nearest,
            )
        chosen = list(range(self.partitions)) if partitions is None else list(partitions)
        return Subscription(self._connection, self.name, name, chosen, from_, auto_commit_s, nearest)

    def read(
        self,
        *,
        partition: int | None = None,
        from_: Position | dict[int, Position] = "beginning",
        to_end: bool = False,
        nearest: bool = False,
    ) -> Reader:
        """Messages without a subscription, for replay: of one partition or all, from an offset, time or end.

        With `to_end` the iteration ends at what is the end now; otherwise it waits for what comes. `nearest`: see
        `Reader`.
        """
        chosen = list(range(self.partitions)) if partition is None else [partition]
        return Reader(self._connection, self.name, chosen, from_, to_end, nearest)

    async def subscriptions(self) -> Sequence[dict[str, Any]]:
        """The subscriptions of the topic, with their lag, as the broker describes them."""
        found = await self._connection.request(lambda: Subscriptions(0, self.name), Listed)
        return found.items


class connect:  # noqa: N801 - used like a function: `async with plait.connect(...) as client`
    """Connect to a broker: `async with plait.connect("127.0.0.1:4150") as client:`. On asyncio and on trio.

    `address`: "host:port", or several separated by commas, which are tried in turn. `namespace`: a world of its
    own inside the broker, where names mean other topics and queues. `name`: who this is, for the broker's logs.
    `deadline_s`: how long requests are tried before they raise (`math.inf`: for ever); a consumer that has had
    no connection for that long raises Unavailable. `connect_timeout_s`: the same for the first connection.
    `outside`: another network, for simulations.

    Raises Unavailable when no broker answers, UnsupportedVersion, BadRequest for an address that is none.
    Leaving the block flushes, ends the consumers and closes.
    """

    def __init__(
        self,
        address: str | Sequence[str] = "127.0.0.1:4150",
        *,
        namespace: str = "",
        name: str = "",
        deadline_s: float = DEADLINE_S,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        outside: Outside | None = None,
    ) -> None:
        self._addresses = parse_addresses(address)
        self._namespace = namespace
        self._name = name
        self._deadline_s = deadline_s
        self._connect_timeout_s = connect_timeout_s
        self._outside = outside if outside is not None else Outside()
        self._client: Client | None = None

    async def __aenter__(self) -> Client:
        connection = Connection(self._addresses, self._name, self._namespace, self._deadline_s, self._outside)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        connection.spawn = self._spawn
        try:
            self._group.start_soon(connection.timers.run, name="plait client timers")
            self._group.start_soon(connection.run, name="plait client connection")
            await connection.wait_until_up(self._connect_timeout_s)
        except BaseException as error:
            await self._end(error)
            raise
        self._client = Client(connection)
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._client is not None, "left without being entered"
        try:
            if error is None or isinstance(error, Exception):
                await self._client.aclose()
        except BaseException as closing:
            await self._end(closing)
            raise
        await self._end(error)

    def _spawn(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._group.start_soon(run)

    async def _end(self, error: BaseException | None) -> None:
        """End the tasks. An ordinary error of the block goes its way as it is, not wrapped into a group."""
        self._group.cancel_scope.cancel()
        if isinstance(error, anyio.get_cancelled_exc_class()):
            await self._group.__aexit__(type(error), error, error.__traceback__)
        else:
            await self._group.__aexit__(None, None, None)


def _description(found: dict[str, Any]) -> Description:
    return Description(found["name"], found["kind"], found["partitions"], found.get("settings", {}), found)
