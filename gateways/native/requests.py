"""What the gateway does with each kind of request: one small function each, and the table of them.

Names are made full on the way in and short on the way out; everything else is the Broker facade's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from plait.wire import Buffer, messages
from plait.wire.batch import read_header
from plait.wire.errors import BadRequest, UnsupportedVersion

if TYPE_CHECKING:
    from gateways.native.session import Session
    from node.consumer_groups import GroupAssignment
    from node.readers import Fetched, Located

Handler = Callable[["Session", Any, memoryview], None]


def hello(session: Session, request: messages.Hello, _: memoryview) -> None:
    """Agree on a version and a namespace. Raises UnsupportedVersion, NameInvalid."""
    if session.established:
        raise BadRequest("HELLO was said before on this connection; nothing was changed")
    version = min(request.max_version, messages.VERSION_MAX)
    if version < max(request.min_version, messages.VERSION_MIN):
        raise UnsupportedVersion(
            f"this broker speaks versions {messages.VERSION_MIN} to {messages.VERSION_MAX} of its protocol, "
            f"the client {request.min_version} to {request.max_version}; the connection ends"
        )
    session.establish(request.namespace)
    session.publishing.tells_leaders = request.options.get(messages.OPTION_LEADERS) is True
    broker = session.broker
    limits = {
        "max_frame_bytes": session.max_frame_bytes,
        "max_record_bytes": broker.limits.max_record_bytes,
        "max_batch_bytes": broker.limits.max_batch_bytes,
        "features": [messages.FEATURE_NEAREST, messages.FEATURE_WAIT],
    }
    session.outbox.append(
        messages.welcome(
            request.correlation, version, broker.cluster_id, broker.node_id, broker.incarnation, limits
        )
    )


def ping(session: Session, request: messages.Ping, _: memoryview) -> None:
    """Answer at once."""
    session.outbox.append(messages.ok(request.correlation))


def create(session: Session, request: messages.Create, _: memoryview) -> None:
    """Make a topic or queue."""
    names = session.namespace
    promise = session.broker.create(request.kind, names.full(request.name), names.settings(request.settings))
    session.answer_later(request.correlation, promise, _describes(session, request.correlation))


def describe(session: Session, request: messages.Describe, _: memoryview) -> None:
    """Describe a topic or queue."""
    promise = session.broker.describe(session.namespace.full(request.name))
    session.answer_later(request.correlation, promise, _describes(session, request.correlation))


def delete(session: Session, request: messages.Delete, _: memoryview) -> None:
    """Delete a topic or queue."""
    promise = session.broker.delete(session.namespace.full(request.name))
    session.answer_later(request.correlation, promise, _nothing(request.correlation))


def list_names(session: Session, request: messages.ListNames, _: memoryview) -> None:
    """Describe all topics or queues that the client can see."""
    names = session.namespace

    def listed(found: list[dict[str, Any]]) -> list[Buffer]:
        seen = [names.description(each) for each in found if names.has(str(each.get("name", "")))]
        return messages.ok(request.correlation, seen)

    session.answer_later(request.correlation, session.broker.names(request.kind), listed)


def cluster_status(session: Session, request: messages.ClusterStatus, _: memoryview) -> None:
    """Say how the nodes are. Names of topics in it are full ones: it is for those who operate the broker."""

    def told(status: dict[str, Any]) -> list[Buffer]:
        return messages.ok(request.correlation, status)

    session.answer_later(request.correlation, session.broker.cluster_status(), told)


def resize(session: Session, request: messages.Resize, _: memoryview) -> None:
    """Give a topic or queue more partitions, or another number of replicas."""
    name = session.namespace.full(request.name)
    promise = session.broker.resize(name, request.partitions, request.replicas)
    session.answer_later(request.correlation, promise, _describes(session, request.correlation))


def change_node(session: Session, request: messages.ChangeNode, _: memoryview) -> None:
    """Have a node serve, hand over what it has, or leave."""
    promise = session.broker.change_node(request.node_id, request.state)
    session.answer_later(request.correlation, promise, _nothing(request.correlation))


def subscriptions(session: Session, request: messages.Subscriptions, _: memoryview) -> None:
    """Describe the subscriptions of a topic or queue."""
    names = session.namespace

    def described(found: list[dict[str, Any]]) -> list[Buffer]:
        seen = [{**each, "subscription": names.short(each["subscription"])} for each in found]
        return messages.ok(request.correlation, seen)

    session.answer_later(request.correlation, session.broker.subscriptions(names.full(request.name)), described)


def new_producer(session: Session, request: messages.NewProducer, _: memoryview) -> None:
    """Give out a producer id."""

    def made(value: tuple[int, int]) -> list[Buffer]:
        return messages.ok(request.correlation, *value)

    session.answer_later(request.correlation, session.broker.new_producer(), made)


def publish(session: Session, request: messages.Publish, batch: memoryview) -> None:
    """Store a batch."""
    name = session.namespace.full(request.name)
    session.publishing.publish(request.correlation, name, request.partition, batch, request.wait_ms)


def fetch(session: Session, request: messages.Fetch, _: memoryview) -> None:
    """Read batches, or wait for some. Raises LimitReached."""
    limits = session.limits
    session.check_waiting("fetch")
    most = min(request.max_bytes, limits.fetch_bytes_max, session.broker.limits.max_batch_bytes)
    promise = session.broker.fetch(
        session.namespace.full(request.name),
        request.partition,
        request.offset,
        most,
        min(request.wait_ms, limits.fetch_wait_ms_max),
        request.nearest,
    )
    session.counters.fetches += 1
    room = session.broker.limits.max_batch_bytes

    def fetched(value: Fetched) -> list[Buffer]:
        batches, next_offset = within(value.batches, value.next_offset, room)
        session.counters.records_fetched += max(0, next_offset - request.offset)
        return messages.ok(request.correlation, value.start_offset, value.end_offset, next_offset, payload=batches)

    session.answer_later(request.correlation, promise, fetched, waits=True)


def within(batches: Sequence[Buffer], next_offset: int, room_bytes: int) -> tuple[Sequence[Buffer], int]:
    """The first batches, as many as have room but at least one, and the offset behind them."""
    for number, batch in enumerate(batches):
        room_bytes -= len(batch)
        if room_bytes < 0 and number > 0:
            return batches[:number], read_header(batch).base_offset
    return batches, next_offset


def locate(session: Session, request: messages.Locate, _: memoryview) -> None:
    """Find an offset."""

    def located(value: Located) -> list[Buffer]:
        return messages.ok(request.correlation, value.offset, value.start, value.end)

    name = session.namespace.full(request.name)
    session.answer_later(request.correlation, session.broker.locate(name, request.partition, request.at), located)


def commit(session: Session, request: messages.Commit, _: memoryview) -> None:
    """Store positions of a stream subscription."""
    name = session.namespace.full(request.name)
    promise = session.broker.commit(session.namespace.full(request.subscription), name, list(request.positions))
    session.answer_later(request.correlation, promise, _nothing(request.correlation))


def committed(session: Session, request: messages.Committed, _: memoryview) -> None:
    """Read positions of a stream subscription."""

    def found(positions: list[tuple[int, int]]) -> list[Buffer]:
        return messages.ok(request.correlation, [list(position) for position in positions])

    name = session.namespace.full(request.name)
    session.answer_later(
        request.correlation, session.broker.committed(session.namespace.full(request.subscription), name), found
    )


def consume(session: Session, request: messages.Consume, _: memoryview) -> None:
    """Start a consumer."""
    session.consumers.consume(request)


def settle(session: Session, request: messages.Settle, _: memoryview) -> None:
    """Settle leases."""
    session.consumers.settle(request)


def cancel(session: Session, request: messages.Cancel, _: memoryview) -> None:
    """End a consumer."""
    session.consumers.cancel(request)


def join(session: Session, request: messages.Join, _: memoryview) -> None:
    """Come into a consumer group."""
    names = session.namespace
    promise = session.broker.groups.join(
        names.full(request.subscription),
        request.member,
        request.client,
        [names.full(name) for name in request.topics],
        request.session_ms,
    )
    session.answer_later(request.correlation, promise, _assigns(session, request.correlation))


def heartbeat(session: Session, request: messages.Heartbeat, _: memoryview) -> None:
    """Keep a member's session, and tell it what it may read. Raises LimitReached."""
    session.check_waiting("heartbeat")
    promise = session.broker.groups.heartbeat(
        session.namespace.full(request.subscription),
        request.member,
        request.acknowledged,
        request.known,
        request.wait_ms,
    )
    session.answer_later(request.correlation, promise, _assigns(session, request.correlation), waits=True)


def leave(session: Session, request: messages.Leave, _: memoryview) -> None:
    """Go from a consumer group."""
    promise = session.broker.groups.leave(session.namespace.full(request.subscription), request.member)
    session.answer_later(request.correlation, promise, _nothing(request.correlation))


def member_commit(session: Session, request: messages.MemberCommit, _: memoryview) -> None:
    """Store positions of a member of a consumer group."""
    promise = session.broker.groups.commit(
        session.namespace.full(request.subscription),
        request.member,
        request.generation,
        session.namespace.full(request.name),
        list(request.positions),
    )
    session.answer_later(request.correlation, promise, _nothing(request.correlation))


def groups(session: Session, request: messages.Groups, _: memoryview) -> None:
    """List the consumer groups that the client can see."""
    names = session.namespace

    def listed(found: list[dict[str, Any]]) -> list[Buffer]:
        seen = [
            {**each, "name": names.short(each["name"]), "topics": [names.short(one) for one in each["topics"]]}
            for each in found
            if names.has(each["name"])
        ]
        return messages.ok(request.correlation, seen)

    session.answer_later(request.correlation, session.broker.groups.names(), listed)


def describe_group(session: Session, request: messages.DescribeGroup, _: memoryview) -> None:
    """Describe a consumer group."""
    names = session.namespace

    def described(found: dict[str, Any]) -> list[Buffer]:
        topics = [{**each, "name": names.short(each["name"])} for each in found["topics"]]
        return messages.ok(request.correlation, {**names.description(found), "topics": topics})

    promise = session.broker.groups.describe(names.full(request.subscription))
    session.answer_later(request.correlation, promise, described)


def _assigns(session: Session, correlation: int) -> Callable[[GroupAssignment], list[Buffer]]:
    def answer(assigned: GroupAssignment) -> list[Buffer]:
        short = session.namespace.short
        shares = {short(name): numbers for name, numbers in assigned.partitions.items()}
        return messages.ok(correlation, assigned.generation, shares)

    return answer


def _nothing(correlation: int) -> Callable[[None], list[Buffer]]:
    return lambda _: messages.ok(correlation)


def _describes(session: Session, correlation: int) -> Callable[[dict[str, Any]], list[Buffer]]:
    return lambda description: messages.ok(correlation, session.namespace.description(description))


HANDLERS: dict[int, Handler] = {
    messages.HELLO: hello,
    messages.PING: ping,
    messages.CREATE: create,
    messages.DESCRIBE: describe,
    messages.DELETE: delete,
    messages.LIST: list_names,
    messages.STATUS: cluster_status,
    messages.RESIZE: resize,
    messages.NODE: change_node,
    messages.PRODUCER: new_producer,
    messages.PUBLISH: publish,
    messages.FETCH: fetch,
    messages.LOCATE: locate,
    messages.COMMIT: commit,
    messages.COMMITTED: committed,
    messages.CONSUME: consume,
    messages.SETTLE: settle,
    messages.CANCEL: cancel,
    messages.SUBSCRIPTIONS: subscriptions,
    messages.JOIN: join,
    messages.HEARTBEAT: heartbeat,
    messages.LEAVE: leave,
    messages.MEMBER_COMMIT: member_commit,
    messages.GROUPS: groups,
    messages.DESCRIBE_GROUP: describe_group,
}
"""Every request of the protocol; only PUBLISH has a payload."""
