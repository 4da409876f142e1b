"""The publishes of one connection: handed on unopened, and answered partition by partition in order.

    PUBLISH ──> Broker.publish ──> lane of (name, partition) ──those that nothing earlier holds back──> OK | ERROR

The broker checks batches (all gateways need that, and it knows the topic's limits); here they are only counted.

A refusal must not overtake an earlier success, or a client that sends sequences could not tell what happened. The
lane is that of the partition that was asked for; those that left the choice to the broker (-1) share one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from plait.wire import Buffer, messages
from plait.wire.errors import PlaitError
from replication.actor import Promise, rejected

if TYPE_CHECKING:
    from gateways.native.session import Session
    from node.publishing import Published

LANES_KEPT = 1_024
"""Lanes of one connection above which the idle ones are dropped."""
PINNED_BYTES_FACTOR = 4
"""A batch is copied when the chunk that it arrived in is more than this many times as large: otherwise a small
batch that the broker keeps in memory would keep the whole chunk."""


class _Waiting:
    """A publish that is not answered yet."""

    __slots__ = ("correlation", "promise", "size_bytes")

    def __init__(self, correlation: int, promise: Promise[Published], size_bytes: int) -> None:
        self.correlation = correlation
        self.promise = promise
        self.size_bytes = size_bytes


class _Lane:
    """The publishes to one partition, in the order of the requests."""

    __slots__ = ("_name", "_publishing", "waiting")

    def __init__(self, publishing: Publishing, name: str) -> None:
        self._publishing = publishing
        self._name = name
        self.waiting: deque[_Waiting] = deque()

    def done(self, _: Promise[Published]) -> None:
        """One of them has its answer: send those that nothing earlier holds back."""
        waiting = self.waiting
        while waiting and waiting[0].promise.done:
            self._publishing.answer(waiting.popleft(), self._name)


class Publishing:
    """What one connection has published and was not yet told about."""

    __slots__ = ("_client", "_lanes", "_publish", "_session", "in_flight_bytes", "pending", "tells_leaders")

    def __init__(self, session: Session, client: str) -> None:
        self._session = session
        self._client = client
        self._publish = session.broker.publish
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self.in_flight_bytes = 0
        """Bytes of the batches that are not answered."""
        self.pending = 0
        self.tells_leaders = False
        """The client has asked to be told who leads."""

    def publish(self, correlation: int, name: str, partition: int, batch: memoryview, wait_ms: int) -> None:
        """Hand a batch to the broker; `name` is the full one, the answer is given when its turn comes. `wait_ms`:
        how long it may wait for room, -1: as long as the broker lets it."""
        size_bytes = len(batch)
        if size_bytes * PINNED_BYTES_FACTOR < len(batch.obj):  # type: ignore[arg-type]  # FrameReader's are bytes
            batch = memoryview(bytes(batch))
        try:
            promise = self._publish(name, partition, batch, self._client, wait_ms)
        except PlaitError as error:
            promise = rejected(error)  # answered in its turn
        counters = self._session.counters
        counters.publishes += 1
        counters.publish_bytes += size_bytes
        self.in_flight_bytes += size_bytes
        self.pending += 1
        key = (name, partition)
        lane = self._lanes.get(key) or self._open_lane(key)
        lane.waiting.append(_Waiting(correlation, promise, size_bytes))
        promise.then(lane.done)

    def answer(self, waiting: _Waiting, name: str) -> None:
        """Tell the client what became of a publish to `name`. Called by its lane; raises nothing."""
        self.in_flight_bytes -= waiting.size_bytes
        self.pending -= 1
        session = self._session
        if session.closing:
            return
        promise = waiting.promise
        try:
            if promise.error is not None:
                session.answer_error(waiting.correlation, promise.error)
            else:
                session.outbox.append(self._ok(waiting.correlation, name, promise.result()))
            session.answered()
        except Exception as error:  # it runs in the broker's task, which a defect of ours must not end
            session.fail(error)

    def abandon(self) -> None:
        """The client is gone: nobody waits for the answers."""
        for lane in self._lanes.values():
            for waiting in lane.waiting:
                waiting.promise.abandon()
        self._lanes.clear()

    def _ok(self, correlation: int, name: str, published: Published) -> list[Buffer]:
        if published.throttle_ms > 0:
            self._session.throttle(published.throttle_ms)
        leader: tuple[Any, ...] = ()
        if self.tells_leaders:
            leader = self._session.broker.leader_elsewhere(name, published.partition)
        return messages.ok(
            correlation,
            published.partition,
            published.base_offset,
            published.timestamp_ms,
            published.throttle_ms,
            published.duplicate,
            *leader,
        )

    def _open_lane(self, key: tuple[str, int]) -> _Lane:
        if len(self._lanes) >= LANES_KEPT:
            self._lanes = {key: lane for key, lane in self._lanes.items() if lane.waiting}
        lane = self._lanes[key] = _Lane(self, key[0])
        return lane
