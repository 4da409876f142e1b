"""What the broker says to a client (native protocol, version 1): answers, and deliveries that nobody asked for.

`welcome`, `ok`, `failed`, `deliver` and `consumer_gone` make frames for the gateway; `parse_answer` and
`read_result` take them apart for the client. An answer too long for a head goes as LONG_OK: the same fields,
as CBOR in the payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from plait.wire import Buffer
from plait.wire.errors import BadRequest, PlaitError, from_wire
from plait.wire.fields import (
    I31_MAX,
    I63_MAX,
    U8_MAX,
    U32_MAX,
    Layout,
    boolean,
    integer,
    layout,
    mapping,
    maps,
    ranges,
    shares,
    text,
    tuples,
)
from plait.wire.frames import decode_plain, encode_frame, encode_plain, is_plain
from plait.wire.records import RecordRun

WELCOME = 2
OK = 3
ERROR = 4
LONG_OK = 6
DELIVER = 31
CONSUMER_GONE = 34

DELIVER_RUNS_MAX = 800
"""Runs in one DELIVER: they fit into a head whatever their numbers are."""
MESSAGE_CHARACTERS_MAX = 4000
"""Longest text of an ERROR; a longer one is cut."""
_APPEND_TIME = 1
_DELIVERED = "lease_id base_offset base_timestamp_ms first_delta count deliveries flags body_length"


@dataclass(slots=True)
class Welcome:
    """The broker's half of the handshake."""

    correlation: int
    version: int
    cluster_id: str
    node_id: int
    incarnation: int
    limits: dict[str, Any]
    """max_frame_bytes, max_record_bytes, max_batch_bytes; and `features`: what else the broker understands."""

    def has(self, feature: str) -> bool:
        """Whether the broker names a feature."""
        features = self.limits.get("features")
        return isinstance(features, list) and feature in features


@dataclass(slots=True)
class Ok:
    """A request was carried out; `read_result` makes something typed of its fields."""

    correlation: int
    fields: Sequence[Any]
    payload: memoryview


@dataclass(slots=True)
class Failed:
    """A request was not carried out, or (correlation 0) the connection ends."""

    correlation: int
    code: str
    message: str
    details: dict[str, Any]

    def error(self) -> PlaitError:
        """The exception to raise."""
        return from_wire(self.code, self.message, self.details)


@dataclass(slots=True)
class Delivered:
    """A run of records on loan."""

    lease_id: int
    deliveries: int
    """How often these records were delivered, this time included."""
    run: RecordRun


@dataclass(slots=True)
class Deliver:
    """Records for the consumer with this tag."""

    tag: int
    partition: int
    runs: list[Delivered]


@dataclass(slots=True)
class ConsumerGone:
    """Nothing more will come for this tag, and why."""

    tag: int
    code: str
    message: str

    def error(self) -> PlaitError:
        """The exception to raise."""
        return from_wire(self.code, self.message, {})


Answer = Welcome | Ok | Failed | Deliver | ConsumerGone


class Leased(Protocol):
    """What `deliver` sends: a `Delivered`, or the broker's own class with these fields."""

    @property
    def lease_id(self) -> int: ...
    @property
    def deliveries(self) -> int: ...
    @property
    def run(self) -> RecordRun: ...


# Making answers


def welcome(
    correlation: int, version: int, cluster_id: str, node_id: int, incarnation: int, limits: dict[str, Any]
) -> list[Buffer]:
    """A WELCOME frame."""
    return encode_frame([WELCOME, correlation, version, cluster_id, node_id, incarnation, limits])


def ok(correlation: int, *fields: Any, payload: Sequence[Buffer] = ()) -> list[Buffer]:
    """An OK frame; LONG_OK when there is no payload and the fields are too long for a head."""
    if payload:
        return encode_frame([OK, correlation, *fields], payload)
    try:
        return encode_frame([OK, correlation, *fields])
    except ValueError:
        return encode_frame([LONG_OK, correlation], [encode_plain(list(fields))])


def failed(correlation: int, error: PlaitError) -> list[Buffer]:
    """An ERROR frame; details that cannot be sent are left out, a message that is too long is cut."""
    details = {key: value for key, value in error.details.items() if is_plain(value)}
    head = [ERROR, correlation, error.code, _sendable(error.message), details]
    try:
        return encode_frame(head)
    except ValueError:  # too long, or text that UTF-8 cannot hold
        return encode_frame([*head[:-1], {}])


def consumer_gone(tag: int, error: PlaitError) -> list[Buffer]:
    """A CONSUMER_GONE frame."""
    return encode_frame([CONSUMER_GONE, 0, tag, error.code, _sendable(error.message)])


def deliver(tag: int, partition: int, runs: Sequence[Leased]) -> list[Buffer]:
    """A DELIVER frame of at most DELIVER_RUNS_MAX runs; the bodies are not copied."""
    rows = []
    bodies = []
    for leased in runs:
        run = leased.run
        rows.append(
            [
                leased.lease_id,
                run.base_offset,
                run.base_timestamp_ms,
                run.first_delta,
                run.count,
                leased.deliveries,
                _APPEND_TIME if run.append_time else 0,
                len(run.body),
            ]
        )
        bodies.append(run.body)
    return encode_frame([DELIVER, 0, tag, partition, rows], bodies)


def _sendable(message: str) -> str:
    return message[:MESSAGE_CHARACTERS_MAX].encode("utf-8", "replace").decode()


# Taking answers apart

_ID = integer(0, U32_MAX)
_OFFSET = integer(0, I63_MAX)
_PARTITION = integer(0, I31_MAX)
_MS = integer(0, I31_MAX)

_WELCOME = layout(
    "WELCOME", Welcome, _ID, integer(0, U8_MAX), text(), integer(0, I63_MAX), integer(0, I63_MAX), mapping()
)
_ERROR = layout("ERROR", Failed, _ID, text(), text(MESSAGE_CHARACTERS_MAX), mapping())
_GONE = layout("CONSUMER_GONE", ConsumerGone, integer(0, U32_MAX), text(), text(MESSAGE_CHARACTERS_MAX))


def parse_answer(head: Sequence[Any], payload: memoryview) -> Answer:
    """What a frame from the broker is. Raises BadRequest."""
    kind = head[0] if head else None
    if kind == DELIVER:
        return _read_deliver(head, payload)
    if kind in (OK, LONG_OK):
        return _read_ok(head, payload)
    if kind == ERROR:
        return _ERROR.read(head[1:])
    if kind == WELCOME:
        return _WELCOME.read(head[1:])
    if kind == CONSUMER_GONE:
        return _GONE.read(head[2:])
    raise BadRequest(f"there is no answer of kind {kind!r:.40}")


def _read_ok(head: Sequence[Any], payload: memoryview) -> Ok:
    if len(head) < 2 or type(head[1]) is not int:
        raise BadRequest("an answer has no correlation")
    if head[0] == OK:
        return Ok(head[1], head[2:], payload)
    values = decode_plain(bytes(payload))
    if type(values) is not list:
        raise BadRequest("a long answer is not a list")
    return Ok(head[1], values, memoryview(b""))


_read_rows = tuples(_DELIVERED, DELIVER_RUNS_MAX, low=~I63_MAX)  # a timestamp may be negative


def _read_deliver(head: Sequence[Any], payload: memoryview) -> Deliver:
    runs = []
    at = 0
    try:
        _, _, tag, partition, rows = head
        for lease_id, base, base_ms, first, count, deliveries, flags, length in _read_rows(rows):
            if min(base, first, count, length) < 0:
                raise ValueError("a run has a negative number")
            run = RecordRun(base, base_ms, bool(flags & _APPEND_TIME), first, count, payload[at : at + length])
            runs.append(Delivered(lease_id, deliveries, run))
            at += length
        deliver = Deliver(_ID(tag), _PARTITION(partition), runs)
    except ValueError as error:
        raise BadRequest(f"DELIVER: {error}") from None
    if at != len(payload):
        raise BadRequest(f"DELIVER: its runs have {at} bytes, its payload {len(payload)}")
    return deliver


# What the fields of an OK are


@dataclass(slots=True)
class Nothing:
    """Answer to PING, DELETE, COMMIT, CONSUME, CANCEL, LEAVE, MEMBER_COMMIT."""


@dataclass(slots=True)
class Described:
    """Answer to CREATE, DESCRIBE, STATUS and DESCRIBE_GROUP."""

    description: dict[str, Any]


@dataclass(slots=True)
class Listed:
    """Answer to LIST, SUBSCRIPTIONS and GROUPS."""

    items: list[dict[str, Any]]


@dataclass(slots=True)
class ProducerMade:
    """Answer to PRODUCER."""

    producer_id: int
    epoch: int


@dataclass(slots=True)
class Published:
    """Answer to PUBLISH."""

    partition: int
    base_offset: int
    timestamp_ms: int
    throttle_ms: int
    """How long the client should wait with its next publish."""
    duplicate: bool
    """The batch had been stored before; the offset is that of then."""
    leader: int = 0
    """The node that leads the partition, if it is another one than was asked, and the client wants to know."""
    address: str = ""
    """Where clients reach it."""


@dataclass(slots=True)
class Fetched:
    """Answer to FETCH; the batches are the payload, and the first may begin before the offset asked for."""

    start_offset: int
    end_offset: int
    next_offset: int


@dataclass(slots=True)
class Located:
    """Answer to LOCATE."""

    offset: int
    start: int
    end: int


@dataclass(slots=True)
class Positions:
    """Answer to COMMITTED: (partition, offset)."""

    positions: list[tuple[int, int]]


@dataclass(slots=True)
class Settled:
    """Answer to SETTLE."""

    count: int
    lost: list[tuple[int, int]]
    """Offsets (first, last), both included, whose lease had ended before."""


@dataclass(slots=True)
class Assigned:
    """Answer to JOIN and HEARTBEAT."""

    generation: int
    partitions: dict[str, list[int]]
    """What the member may read, by topic."""


_RESULTS: dict[type[Any], Layout[Any]] = {
    each.kind: each
    for each in (
        layout("the answer", Nothing),
        layout("the description", Described, mapping(I31_MAX)),
        layout("the list", Listed, maps),
        layout("the answer to PRODUCER", ProducerMade, _OFFSET, integer(0, I31_MAX)),
        layout(
            "the answer to PUBLISH",
            Published,
            _PARTITION,
            _OFFSET,
            integer(-1, I63_MAX),
            _MS,
            boolean,
            _OFFSET,
            text(),
            optional=2,
        ),
        layout("the answer to FETCH", Fetched, _OFFSET, _OFFSET, _OFFSET),
        layout("the answer to LOCATE", Located, _OFFSET, _OFFSET, _OFFSET),
        layout("the answer to COMMITTED", Positions, tuples("partition offset", I31_MAX)),
        layout("the answer to a member", Assigned, _OFFSET, shares),
        layout("the answer to SETTLE", Settled, _OFFSET, ranges("first last", I31_MAX)),
    )
}

R = TypeVar(
    "R", Nothing, Described, Listed, ProducerMade, Published, Fetched, Located, Positions, Assigned, Settled
)


def read_result(kind: type[R], answer: Ok) -> R:
    """The fields of an OK as the class that belongs to its request. Raises BadRequest."""
    result: R = _RESULTS[kind].read(answer.fields)
    return result
