"""What a client says to the broker (native protocol, version 1): one class a request, one table of fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar

from plait.wire.errors import BadRequest
from plait.wire.fields import (
    I31_MAX,
    I63_MAX,
    U8_MAX,
    U32_MAX,
    Layout,
    boolean,
    choice,
    integer,
    layout,
    mapping,
    place,
    ranges,
    text,
    texts,
    tuples,
)

HELLO = 1
PING = 5
CREATE = 10
DESCRIBE = 11
DELETE = 12
LIST = 13
STATUS = 14
RESIZE = 15
NODE = 16
PRODUCER = 20
PUBLISH = 21
FETCH = 22
LOCATE = 23
COMMIT = 24
COMMITTED = 25
CONSUME = 30
SETTLE = 32
CANCEL = 33
SUBSCRIPTIONS = 35
JOIN = 40
HEARTBEAT = 41
LEAVE = 42
MEMBER_COMMIT = 43
GROUPS = 44
DESCRIBE_GROUP = 45

VERSION_MIN = 1
"""Oldest protocol version that this code speaks."""
VERSION_MAX = 1
"""Newest protocol version that this code speaks."""

OPTION_LEADERS = "leaders"
"""Option of HELLO: true, if answers to PUBLISH may say who leads."""
FEATURE_NEAREST = "nearest"
"""In a WELCOME's `features`: the broker knows FETCH's `nearest`."""
FEATURE_WAIT = "wait"
"""In a WELCOME's `features`: the broker knows PUBLISH's `wait_ms`."""

SETTLE_RANGES_MAX = 2000
"""Ranges in one SETTLE: they fit into a head whatever their numbers are."""
POSITIONS_MAX = 3000
"""Positions in one COMMIT: they fit into a head whatever their numbers are."""
JOIN_TOPICS_MAX = 100
"""Topics in one JOIN."""


@dataclass(slots=True)
class Request:
    """Base of all of them. `correlation` (1 to 2**32-1) comes back in the answer."""

    KIND: ClassVar[int] = 0
    correlation: int

    def head(self) -> list[Any]:
        """The head to send."""
        return [self.KIND, *_values(self)]


@dataclass(slots=True)
class Hello(Request):
    """Opens a connection: the protocol versions that the client speaks, and the namespace that it lives in."""

    KIND = HELLO
    min_version: int = VERSION_MIN
    max_version: int = VERSION_MAX
    client: str = ""
    """The client's name, for people."""
    namespace: str = ""
    """"" for none."""
    options: dict[str, Any] = field(default_factory=dict)
    """OPTION_LEADERS. What a broker does not know, it leaves aside."""


@dataclass(slots=True)
class Ping(Request):
    """Asks for an OK."""

    KIND = PING


@dataclass(slots=True)
class Create(Request):
    """Makes a topic or queue. The same settings again are fine; others are `already_exists`."""

    KIND = CREATE
    kind: str
    """"topic" or "queue"."""
    name: str
    settings: dict[str, Any]


@dataclass(slots=True)
class Describe(Request):
    """Asks for the description of a topic or queue."""

    KIND = DESCRIBE
    name: str


@dataclass(slots=True)
class Delete(Request):
    """Deletes a topic or queue."""

    KIND = DELETE
    name: str


@dataclass(slots=True)
class ListNames(Request):
    """Asks for the descriptions of all topics, all queues, or (kind "") both."""

    KIND = LIST
    kind: str


@dataclass(slots=True)
class ClusterStatus(Request):
    """Asks how the cluster's nodes are: each as this one's catalogue knows it, and as it says of itself."""

    KIND = STATUS


@dataclass(slots=True)
class Resize(Request):
    """Gives a topic or queue more partitions, or another number of replicas."""

    KIND = RESIZE
    name: str
    partitions: int
    """0: as many as it has."""
    replicas: int
    """0: as it has."""


@dataclass(slots=True)
class ChangeNode(Request):
    """Has a node serve ("active"), hand over what it has ("draining"), or do that and go for good ("leaving")."""

    KIND = NODE
    node_id: int
    state: str


@dataclass(slots=True)
class NewProducer(Request):
    """Asks for a producer id and epoch, with which publishes are idempotent."""

    KIND = PRODUCER


@dataclass(slots=True)
class Publish(Request):
    """Stores one record batch, which is the frame's payload."""

    KIND = PUBLISH
    name: str
    partition: int
    """-1: the broker chooses."""
    wait_ms: int = -1
    """How long it may wait for room before it is refused; -1: as long as the broker lets it. Only for brokers that
    name FEATURE_WAIT; left out when -1, so that others understand the rest."""

    def head(self) -> list[Any]:
        """The head to send."""
        head = Request.head(self)
        return head if self.wait_ms >= 0 else head[:-1]


@dataclass(slots=True)
class Fetch(Request):
    """Reads batches from an offset on; waits up to `wait_ms` for a first record."""

    KIND = FETCH
    name: str
    partition: int
    offset: int
    max_bytes: int
    wait_ms: int
    nearest: bool = False
    """Whatever replica the broker itself has may answer. Only for brokers that name FEATURE_NEAREST; left out
    when false, so that others understand the rest."""

    def head(self) -> list[Any]:
        """The head to send."""
        head = Request.head(self)
        return head if self.nearest else head[:-1]


@dataclass(slots=True)
class Locate(Request):
    """Asks for the offset at "start", at "end", or of the first record at or behind a time (ms since 1970)."""

    KIND = LOCATE
    name: str
    partition: int
    at: str | int


@dataclass(slots=True)
class Commit(Request):
    """Stores positions of a stream subscription: (partition, offset of the next record to read)."""

    KIND = COMMIT
    subscription: str
    name: str
    positions: Sequence[tuple[int, int]]


@dataclass(slots=True)
class Committed(Request):
    """Asks for a stream subscription's positions."""

    KIND = COMMITTED
    subscription: str
    name: str


@dataclass(slots=True)
class Consume(Request):
    """Starts deliveries under a tag of the client's choice, unique on its connection."""

    KIND = CONSUME
    tag: int
    name: str
    subscription: str
    """"" for a queue."""
    prefetch: int
    """Records that may be out unsettled."""
    lease_ms: int
    """0: the queue's default."""


@dataclass(slots=True)
class Settle(Request):
    """Acknowledges, returns or extends leases; a range is (lease id, first offset, last offset), both included."""

    KIND = SETTLE
    tag: int
    partition: int
    action: str
    """"ack", "return" or "extend"."""
    extend_ms: int
    ranges: Sequence[tuple[int, int, int]]


@dataclass(slots=True)
class Cancel(Request):
    """Ends the deliveries of a tag; its leases are returned."""

    KIND = CANCEL
    tag: int


@dataclass(slots=True)
class Subscriptions(Request):
    """Asks for a topic's or queue's subscriptions, with their lag or backlog."""

    KIND = SUBSCRIPTIONS
    name: str


@dataclass(slots=True)
class Join(Request):
    """Comes into the consumer group of a subscription, or comes again."""

    KIND = JOIN
    subscription: str
    member: str
    """An id that the client has drawn."""
    client: str
    """The client's name, for people."""
    topics: Sequence[str]
    session_ms: int
    """How long the member may be silent."""


@dataclass(slots=True)
class Heartbeat(Request):
    """Keeps a member's session, and asks what it may read; waits up to `wait_ms` for something new."""

    KIND = HEARTBEAT
    subscription: str
    member: str
    acknowledged: int
    """The last generation to whose partitions the member has confined itself."""
    known: int
    """The last generation that it was told."""
    wait_ms: int


@dataclass(slots=True)
class Leave(Request):
    """Goes from a consumer group."""

    KIND = LEAVE
    subscription: str
    member: str


@dataclass(slots=True)
class MemberCommit(Request):
    """Stores positions of a member, which count if it holds those partitions since that generation."""

    KIND = MEMBER_COMMIT
    subscription: str
    member: str
    generation: int
    name: str
    positions: Sequence[tuple[int, int]]


@dataclass(slots=True)
class Groups(Request):
    """Asks for the consumer groups that have members."""

    KIND = GROUPS


@dataclass(slots=True)
class DescribeGroup(Request):
    """Asks for the description of a consumer group."""

    KIND = DESCRIBE_GROUP
    subscription: str


_CORRELATION = integer(1, U32_MAX)
_NAME = text()
_PARTITION = integer(0, I31_MAX)
_MS = integer(0, I31_MAX)
_TAG = integer(0, U32_MAX)

_LAYOUTS: tuple[Layout[Any], ...] = (
    layout("HELLO", Hello, _CORRELATION, integer(0, U8_MAX), integer(0, U8_MAX), text(), text(), mapping()),
    layout("PING", Ping, _CORRELATION),
    layout("CREATE", Create, _CORRELATION, choice("topic", "queue"), _NAME, mapping()),
    layout("DESCRIBE", Describe, _CORRELATION, _NAME),
    layout("DELETE", Delete, _CORRELATION, _NAME),
    layout("LIST", ListNames, _CORRELATION, choice("topic", "queue", "")),
    layout("STATUS", ClusterStatus, _CORRELATION),
    layout("RESIZE", Resize, _CORRELATION, _NAME, integer(0, I31_MAX), integer(0, I31_MAX)),
    layout("NODE", ChangeNode, _CORRELATION, integer(1, I31_MAX), choice("active", "draining", "leaving")),
    layout("PRODUCER", NewProducer, _CORRELATION),
    layout("PUBLISH", Publish, _CORRELATION, _NAME, integer(-1, I31_MAX), _MS, optional=1),
    layout(
        "FETCH",
        Fetch,
        _CORRELATION,
        _NAME,
        _PARTITION,
        integer(0, I63_MAX),
        integer(0, I31_MAX),
        _MS,
        boolean,
        optional=1,
    ),
    layout("LOCATE", Locate, _CORRELATION, _NAME, _PARTITION, place),
    layout("COMMIT", Commit, _CORRELATION, _NAME, _NAME, tuples("partition offset", POSITIONS_MAX)),
    layout("COMMITTED", Committed, _CORRELATION, _NAME, _NAME),
    layout("CONSUME", Consume, _CORRELATION, _TAG, _NAME, _NAME, integer(1, I31_MAX), _MS),
    layout(
        "SETTLE",
        Settle,
        _CORRELATION,
        _TAG,
        _PARTITION,
        choice("ack", "return", "extend"),
        _MS,
        ranges("lease_id first_offset last_offset", SETTLE_RANGES_MAX),
    ),
    layout("CANCEL", Cancel, _CORRELATION, _TAG),
    layout("SUBSCRIPTIONS", Subscriptions, _CORRELATION, _NAME),
    layout("JOIN", Join, _CORRELATION, _NAME, _NAME, _NAME, texts(JOIN_TOPICS_MAX), _MS),
    layout("HEARTBEAT", Heartbeat, _CORRELATION, _NAME, _NAME, integer(0, I63_MAX), integer(0, I63_MAX), _MS),
    layout("LEAVE", Leave, _CORRELATION, _NAME, _NAME),
    layout(
        "MEMBER_COMMIT",
        MemberCommit,
        _CORRELATION,
        _NAME,
        _NAME,
        integer(0, I63_MAX),
        _NAME,
        tuples("partition offset", POSITIONS_MAX),
    ),
    layout("GROUPS", Groups, _CORRELATION),
    layout("DESCRIBE_GROUP", DescribeGroup, _CORRELATION, _NAME),
)

REQUESTS: dict[int, Layout[Any]] = {each.kind.KIND: each for each in _LAYOUTS}
"""Every request by its kind: its class, and what each of its fields may be."""

_GETTERS: dict[int, Any] = {
    kind: attrgetter(*(name for name, _ in each.checks)) for kind, each in REQUESTS.items()
}


def _values(request: Request) -> Sequence[Any]:
    values = _GETTERS[request.KIND](request)
    return values if type(values) is tuple else (values,)


def parse_request(head: Sequence[Any]) -> Request:
    """The request that a head is. Raises BadRequest naming the field; `correlation_of` says whom to answer."""
    kind = head[0] if head else None
    each = REQUESTS.get(kind) if type(kind) is int else None
    if each is None:
        raise BadRequest(f"there is no request of kind {kind!r:.40}; nothing was done")
    request: Request = each.read(head[1:])
    return request


def correlation_of(head: Sequence[Any]) -> int:
    """The correlation of a head that may be malformed otherwise; 0 when there is none to be found."""
    if len(head) > 1 and type(head[1]) is int and 0 < head[1] <= U32_MAX:
        return head[1]
    return 0
