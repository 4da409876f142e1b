"""Where records wait to become batches, and batches to be stored: one lane a partition.

    add() ──> open batch ──(full, or due and there is room)──> Sequencer ──take──> PUBLISH
                  due: flushed, lingered long enough                        <── answer ── stored / failed

While a lane has its full number of batches under way, what comes joins its open batch: the busier, the larger
the batches, without anybody's settings.

A lane publishes by way of the client's own node, or straight to the node that leads (leaders.py). It changes over
only when nothing is under way, so that no batch overtakes another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import anyio

from plait.client.answers import Answer
from plait.client.connection import Connection, Reply, closed_error
from plait.client.leaders import Leaders
from plait.client.sequencer import Batch, Outcome, Sequencer
from plait.wire import Buffer
from plait.wire.batch import HEADER_BYTES, BatchBuilder, encode_batch
from plait.wire.errors import NotFound, NotLeader, PlaitError, RecordTooLarge
from plait.wire.messages import FEATURE_WAIT, NewProducer, Ok, ProducerMade, Publish, Published, read_result
from plait.wire.partitioning import partition_for_key

BATCH_BYTES = 256 * 1024
"""Default of the size at which a batch is closed and sent."""
BUFFER_BYTES_MAX = 32 * 1024 * 1024
"""Default of the bytes that one producer holds, sent or not, before `send` waits."""
RECORD_OVERHEAD_BYTES = 12
"""Reckoned for each record beside its value: lengths and deltas (checked exactly when the batch is made)."""
IDENTITY_RETRY_S = 0.1
"""Wait before a producer id is asked for again, if the broker gave none."""
WAIT_SHARE = 0.75
"""Share of the time until its deadline that a batch may wait for room at the broker: a refusal is an answer, a
deadline that passes while it waits there leaves open whether it is stored."""
WAIT_S_MAX = 3_600.0
"""Seconds of waiting above which the broker is left to decide."""
BATCH_BYTES_MAX = 4 * 1024 * 1024
"""Largest `batch_bytes` that can be asked for."""

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]


@dataclass(frozen=True, slots=True)
class OutboxOptions:
    """What producers differ in."""

    linger_s: float = 0.0
    batch_bytes: int = BATCH_BYTES
    buffer_bytes_max: int = BUFFER_BYTES_MAX
    compression: Compression = "none"
    idempotent: bool = True
    deadline_s: float = 30.0


class OpenBatch:
    """Records of one partition that are not encoded yet; later the answer to them."""

    __slots__ = (
        "answer",
        "builder",
        "lane",
        "opened_s",
        "records",
        "size_bytes",
        "timestamp_ms",
        "values",
        "watched",
    )

    def __init__(self, lane: Lane, opened_s: float, timestamp_ms: int) -> None:
        self.lane = lane
        self.opened_s = opened_s
        self.timestamp_ms = timestamp_ms
        """Of all records that bring none."""
        self.size_bytes = HEADER_BYTES
        self.values: list[bytes] = []
        """Plain values; once a record has more than a value, all are in the builder."""
        self.builder: BatchBuilder | None = None
        self.records = 0
        """How many there were, once it is encoded."""
        self.watched = False
        """Somebody waits for the answer, so that the producer's next call need not raise its error."""
        self.answer: Answer[Published] = Answer()

    @property
    def count(self) -> int:
        """Records so far."""
        return len(self.values) if self.builder is None else self.builder.count

    def append(
        self,
        value: bytes,
        key: bytes | None,
        headers: Sequence[tuple[str, Buffer]],
        timestamp_ms: int | None,
        compression: Compression,
    ) -> None:
        """Add a record that has more than a value."""
        if self.builder is None:
            self.builder = BatchBuilder(self.timestamp_ms, compression)
            for earlier in self.values:
                self.builder.append(earlier, timestamp_ms=self.timestamp_ms)
            self.values = []
        self.builder.append(value, key, headers, self.timestamp_ms if timestamp_ms is None else timestamp_ms)

    def encode(self, compression: Compression) -> bytes:
        """The RecordBatch; the records themselves are let go."""
        self.records = self.count
        if self.builder is not None:
            data = self.builder.build()
        else:
            data = encode_batch(self.values, self.timestamp_ms, compression=compression)
        self.values, self.builder = [], None
        return data


class Lane:
    """One partition's open batch and its batches on their way."""

    __slots__ = ("due", "goal", "identity", "open", "partition", "sequencer", "timer_s", "via")

    def __init__(self, partition: int, idempotent: bool, via: Connection) -> None:
        self.partition = partition
        self.via = via
        """What is under way was sent on this connection."""
        self.goal = via
        """What comes is to be sent on this one."""
        self.open: OpenBatch | None = None
        self.due = False
        """The open batch goes as soon as there is room for it."""
        self.sequencer = Sequencer(idempotent)
        self.identity: tuple[int, int] | None = None
        """The last producer id and epoch that the sequencer was given."""
        self.timer_s: float | None = None


class Outbox:
    """All lanes of one producer. `add` is synchronous; whoever must wait, waits for answers or for `space`."""

    def __init__(
        self, connection: Connection, leaders: Leaders, name: str, partitions: int, options: OutboxOptions
    ) -> None:
        self.name = name
        self.partitions = partitions
        self.options = options
        self.sticky: OpenBatch | None = None
        """The open batch that records without a key join, as long as it holds values only: the fast way in."""
        self.buffered_bytes = 0
        """Encoded and not answered; open batches come on top."""
        self.closed = False
        self.on_unwatched: Callable[[PlaitError], None] | None = None
        self._connection = connection
        self._leaders = leaders
        self._others: dict[Connection, None] = {}
        """Connections to leaders that tell this outbox when they go down."""
        self._lanes: dict[int, Lane] = {}
        self._turn = 0
        self._owners: dict[Batch, OpenBatch] = {}
        self._space: Answer[None] | None = None
        self._identity: tuple[int, int] | None = None
        self._asking_identity = False
        self._due: dict[Lane, None] = {}
        self._linger_armed = False
        connection.listeners[self] = None

    # records in

    def add(
        self,
        value: Buffer,
        key: Buffer | None,
        headers: Sequence[tuple[str, Buffer]],
        timestamp_ms: int | None,
        partition: int | None,
    ) -> tuple[OpenBatch, int]:
        """Put a record into its partition's open batch; the batch, and the record's place in it.

        Raises RecordTooLarge, NotFound for a partition that there is not, TypeError.
        """
        if self.closed:
            raise self._connection.fatal or closed_error()
        value, key = _plain(value, "value"), None if key is None else _plain(key, "key")
        size_bytes = len(value) + RECORD_OVERHEAD_BYTES + (len(key) if key else 0)
        size_bytes += sum(len(name) + len(content) + 4 for name, content in headers)
        self._check_size(size_bytes)
        lane = self._lane(key, partition)
        batch = lane.open
        if batch is not None and batch.size_bytes + size_bytes > self.options.batch_bytes:
            self._close(lane, batch)
            self._pump(lane)
            lane = self._lane(key, partition)  # records without a key go on in the next partition
            batch = lane.open
        if batch is None:
            batch = lane.open = self._open_batch(lane)
        plain = key is None and not headers and timestamp_ms is None
        if plain and batch.builder is None:
            batch.values.append(value)
        else:
            batch.append(value, key, headers, timestamp_ms, self.options.compression)
        batch.size_bytes += size_bytes
        if lane.partition == self._turn:
            self.sticky = batch if batch.builder is None else None
        return batch, batch.count - 1

    def send_soon(self, batch: OpenBatch) -> None:
        """An open batch is due: it goes at the next write."""
        if batch.lane.open is batch:
            batch.lane.due = True
            self._due[batch.lane] = None
            self._connection.soon(self._pump_due)

    def flush(self) -> None:
        """All open batches are due."""
        for lane in self._lanes.values():
            if lane.open is not None:
                self.send_soon(lane.open)

    def unanswered(self) -> list[OpenBatch]:
        """All batches without an answer, open ones too."""
        open_ones = [lane.open for lane in self._lanes.values() if lane.open is not None]
        return [*self._owners.values(), *open_ones]

    @property
    def is_full(self) -> bool:
        """Whether `space` would wait."""
        return self.buffered_bytes >= self.options.buffer_bytes_max

    async def space(self) -> None:
        """Wait while the buffer is full."""
        while self.is_full and not self.closed:
            if self._space is None:
                self._space = Answer()
            await self._space.settled()

    def close(self) -> None:
        """Take nothing more; what is buffered and was not sent is dropped."""
        if not self.closed:
            self.closed = True
            self.sticky = None
            for connection in (self._connection, *self._others):
                connection.listeners.pop(self, None)
            self._others.clear()
            for batch in self.unanswered():
                batch.answer.reject(closed_error())
            self._make_space()

    # the connection's word

    def came_up(self) -> None:
        """Send again what is to be sent again, and whatever waited."""
        self.pump()

    def went_down(self) -> None:
        """The callbacks of what was under way have run already; the rest waits for the next connection."""
        self._others = {other: None for other in self._others if other.up}
        for lane in self._lanes.values():
            if not lane.via.up:
                self._settle(lane.sequencer.lost())
                lane.via = lane.goal = self._connection
            self._pump(lane)

    # batches out

    def pump(self) -> None:
        """Send whatever can be sent."""
        for lane in self._lanes.values():
            self._pump(lane)

    def _pump_due(self) -> None:
        due, self._due = self._due, {}
        for lane in due:
            self._pump(lane)

    def _pump(self, lane: Lane) -> None:
        now_s = anyio.current_time()
        sequencer = lane.sequencer
        self._settle(sequencer.expire(now_s))
        self._send(lane, now_s)
        if lane.due and lane.open is not None and sequencer.has_room:
            self._close(lane, lane.open)
            self._send(lane, now_s)
        when_s = sequencer.next_time_s(now_s)
        if when_s is not None and math.isfinite(when_s) and (lane.timer_s is None or when_s < lane.timer_s):
            lane.timer_s = when_s
            self._connection.timers.call_at(when_s, lambda: self._timer(lane, when_s))

    def _send(self, lane: Lane, now_s: float) -> None:
        if self.closed or not self._change_over(lane):
            return
        for batch in lane.sequencer.take(now_s):
            self._post(lane, batch)
        if lane.sequencer.needs_identity and self._identify(lane):
            for batch in lane.sequencer.take(now_s):
                self._post(lane, batch)

    def _change_over(self, lane: Lane) -> bool:
        """Whether something may be sent now; before that, go over to another connection if it is time to."""
        if not lane.goal.ready:
            lane.goal = self._connection
        if lane.goal is not lane.via and lane.sequencer.idle:
            lane.via = lane.goal
        return lane.via is lane.goal and lane.via.ready

    def _timer(self, lane: Lane, when_s: float) -> None:
        if lane.timer_s == when_s:  # an earlier one has not taken its place
            lane.timer_s = None
            self._pump(lane)

    def _post(self, lane: Lane, batch: Batch) -> None:
        via = lane.via
        via.post(
            Publish(0, self.name, lane.partition, _wait_ms(via, batch)),
            lambda reply: self._answered(lane, batch, via, reply),
            (batch.data,),
        )

    def _answered(self, lane: Lane, batch: Batch, via: Connection, reply: Reply) -> None:
        if not via.up:
            return  # `went_down` takes care of all that was under way at once
        now_s = anyio.current_time()
        if isinstance(reply, Ok):
            stored = read_result(Published, reply)
            self._settle(lane.sequencer.answered(batch, stored, now_s))
            self._aim(lane, stored)
        else:
            self._settle(lane.sequencer.refused(batch, reply, now_s))
            if isinstance(reply, NotLeader) and via is not self._connection:
                self._leaders.refused(via)
                lane.goal = self._connection
        self._pump(lane)

    def _aim(self, lane: Lane, stored: Published) -> None:
        """See from an answer where the lane should publish from now on."""
        if not stored.leader:  # it was led where it was asked, or nobody knows better
            lane.goal = lane.via
            return
        lane.goal = self._leaders.to(stored.leader, stored.address) or self._connection
        if lane.goal is not self._connection and lane.goal not in self._others:
            self._others[lane.goal] = lane.goal.listeners[self] = None

    def _identify(self, lane: Lane) -> bool:
        """Give the lane a producer id that is new to it; if there is none, ask the broker for one."""
        if self._identity is not None and self._identity != lane.identity:
            lane.identity = self._identity
            lane.sequencer.identify(*self._identity)
            return True
        if not self._asking_identity and self._connection.ready:
            self._asking_identity = True
            self._connection.post(NewProducer(0), self._identity_came)
        return False

    def _identity_came(self, reply: Reply) -> None:
        self._asking_identity = False
        if isinstance(reply, Ok):
            made = read_result(ProducerMade, reply)
            self._identity = (made.producer_id, made.epoch)
            self.pump()
        elif self._connection.up:
            self._connection.timers.call_later(IDENTITY_RETRY_S, self.pump)

    def _settle(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            owner = self._owners.pop(outcome.batch)
            self.buffered_bytes -= outcome.batch.size_bytes
            if outcome.stored is not None:
                owner.answer.resolve(outcome.stored)
            elif outcome.error is not None:
                owner.answer.reject(outcome.error)
                if not owner.watched and self.on_unwatched is not None:
                    self.on_unwatched(outcome.error)
        if outcomes:
            self._make_space()

    def _make_space(self) -> None:
        if self._space is not None and (self.closed or not self.is_full):
            space, self._space = self._space, None
            space.resolve(None)

    # batches in the making

    def _lane(self, key: bytes | None, partition: int | None) -> Lane:
        if partition is None:
            partition = self._turn if key is None else partition_for_key(key, self.partitions)
        lane = self._lanes.get(partition)
        if lane is None:
            if not 0 <= partition < self.partitions:
                raise NotFound(
                    f"{self.name!r} has partitions 0 to {self.partitions - 1}, no {partition}; nothing was stored."
                )
            lane = self._lanes[partition] = Lane(partition, self.options.idempotent, self._connection)
        return lane

    def _open_batch(self, lane: Lane) -> OpenBatch:
        now_s = anyio.current_time()
        if self.options.linger_s > 0 and not self._linger_armed:
            self._linger_armed = True
            self._connection.timers.call_at(now_s + self.options.linger_s, self._lingered)
        return OpenBatch(lane, now_s, self._connection.outside.wall_ms())

    def _lingered(self) -> None:
        """Batches that have been open for the linger time are due; look again when the next one will be."""
        now_s = anyio.current_time()
        oldest_s = None
        for lane in self._lanes.values():
            if lane.open is None or lane.due:
                continue
            if lane.open.opened_s + self.options.linger_s <= now_s:  # the very sum that the timer was set to
                lane.due = True
                self._pump(lane)
            elif oldest_s is None or lane.open.opened_s < oldest_s:
                oldest_s = lane.open.opened_s
        self._linger_armed = oldest_s is not None
        if oldest_s is not None:
            self._connection.timers.call_at(oldest_s + self.options.linger_s, self._lingered)

    def _close(self, lane: Lane, opened: OpenBatch) -> None:
        """Encode the open batch and line it up; the next record without a key opens one in the next partition."""
        if self.sticky is opened:
            self.sticky = None
        if lane.partition == self._turn:
            self._turn = (self._turn + 1) % self.partitions
        lane.open = None
        lane.due = False
        deadline_s = opened.opened_s + self.options.deadline_s
        batch = Batch(opened.encode(self.options.compression), opened.records, deadline_s)
        self._owners[batch] = opened
        self.buffered_bytes += batch.size_bytes
        lane.sequencer.add(batch)

    def _check_size(self, size_bytes: int) -> None:
        welcome = self._connection.welcome
        limit = welcome.limits.get("max_record_bytes") if welcome is not None else None
        size_bytes -= RECORD_OVERHEAD_BYTES
        if type(limit) is int and size_bytes > limit:
            raise RecordTooLarge(
                f"A record of {size_bytes} bytes is over the broker's limit of {limit} bytes; it was not sent. "
                "Send it in parts, or keep it elsewhere and send where.",
                limit_bytes=limit,
                size_bytes=size_bytes,
            )


def _wait_ms(via: Connection, batch: Batch) -> int:
    """How long a batch may wait for room at the broker: short enough to hear of it before the deadline."""
    left_s = (batch.deadline_s - anyio.current_time()) * WAIT_SHARE
    if via.welcome is None or not via.welcome.has(FEATURE_WAIT) or not left_s < WAIT_S_MAX:
        return -1
    return max(0, int(left_s * 1_000))


def _plain(content: Buffer, what: str) -> bytes:
    if type(content) is bytes:
        return content
    if isinstance(content, bytes | bytearray | memoryview):
        return bytes(content)  # the caller may change its buffer before the batch is made
    raise TypeError(f"a {what} is bytes, not {type(content).__name__}: encode it first, for example text.encode()")
