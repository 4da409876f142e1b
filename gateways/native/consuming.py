"""The consumers of one connection: attached to the broker by tag, fed with DELIVER, settled, cancelled.

    CONSUME ──> attaching ──(attached)──> attached ──CANCEL | gone | disconnect──> over
                    └──(refused)──> over

While the outbox is crowded all of them are paused. Whatever ends a consumer returns its leases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from gateways.native.limits import FRAME_BYTES_MARGIN
from node.broker import ConsumerOptions
from plait.wire import Buffer, messages
from plait.wire.batch import RecordRun, positions
from plait.wire.errors import BadRequest, LimitReached, NotFound, PlaitError
from plait.wire.messages import DELIVER_RUNS_MAX, Delivered, Leased
from replication.actor import Promise

if TYPE_CHECKING:
    from gateways.native.session import Session
    from node.attachments import Attachment
    from node.shared import Settled

DELIVER_BYTES = 1024 * 1024
"""Bytes of records from which a DELIVER frame is not filled up any more; one large run may exceed it."""


class _Consumer:
    """One tag: attaching as long as `attachment` is None and it is not `over`."""

    __slots__ = ("_consumers", "attachment", "over", "promise", "tag")

    def __init__(self, consumers: Consumers, tag: int) -> None:
        self._consumers = consumers
        self.tag = tag
        self.promise: Promise[Attachment] | None = None
        self.attachment: Attachment | None = None
        self.over = False

    def attached(self, promise: Promise[Attachment]) -> None:
        """The broker has decided."""
        attachment = promise.value
        if attachment is None:
            self.over = True
            self._consumers.forget(self)
        elif self.over:
            attachment.detach()
        else:
            self.attachment = attachment
            if self._consumers.paused:
                attachment.pause()

    def deliver(self, partition: int, runs: Sequence[Leased]) -> None:
        """The broker has leased records to this consumer; raises nothing."""
        if not self.over:
            self._consumers.deliver(self.tag, partition, runs)

    def gone(self, error: PlaitError) -> None:
        """The broker has ended this consumer; raises nothing."""
        if not self.over:
            self._consumers.gone(self, error)

    def detach(self) -> Promise[None] | None:
        """End it; None where it is not attached yet (it will be detached as soon as it is)."""
        self.over = True
        if self.attachment is not None:
            return self.attachment.detach()
        if self.promise is not None:
            self.promise.abandon()
        return None


class Consumers:
    """All consumers of one connection."""

    __slots__ = ("_by_tag", "_client", "_deliver_bytes_max", "_session", "paused")

    def __init__(self, session: Session, client: str, max_frame_bytes: int) -> None:
        self._session = session
        self._client = client
        self._deliver_bytes_max = max_frame_bytes - FRAME_BYTES_MARGIN
        self._by_tag: dict[int, _Consumer] = {}
        self.paused = False

    def consume(self, request: messages.Consume) -> None:
        """Attach a new consumer and answer when that is done. Raises BadRequest or LimitReached."""
        limits = self._session.limits
        if request.tag in self._by_tag:
            raise BadRequest(f"tag {request.tag} is in use on this connection; choose another one")
        if len(self._by_tag) >= limits.consumers_max:
            raise LimitReached(
                f"this connection has {limits.consumers_max} consumers, which is its limit; nothing was done: "
                f"cancel one or open another connection"
            )
        if request.prefetch > limits.prefetch_records_max:
            raise BadRequest(f"CONSUME: prefetch must be at most {limits.prefetch_records_max}; nothing was done")
        session = self._session
        consumer = _Consumer(self, request.tag)
        promise = session.broker.attach(
            session.namespace.full(request.name),
            request.subscription,
            ConsumerOptions(prefetch=request.prefetch, lease_ms=request.lease_ms, client=self._client),
            consumer.deliver,
            consumer.gone,
        )
        self._by_tag[request.tag] = consumer
        consumer.promise = promise
        promise.then(consumer.attached)
        session.answer_later(request.correlation, promise, lambda _: messages.ok(request.correlation))

    def settle(self, request: messages.Settle) -> None:
        """Acknowledge, return or extend leases. Raises NotFound for a tag without a consumer."""
        attachment = self._find(request.tag).attachment
        if attachment is None:
            raise NotFound(f"the consumer with tag {request.tag} is not attached yet; nothing was settled")
        correlation = request.correlation

        def settled(value: Settled) -> list[Buffer]:
            return messages.ok(correlation, value.records, [list(lost) for lost in value.lost])

        self._session.counters.settles += 1
        items = list(request.ranges)
        promise = attachment.settle(request.partition, request.action, request.extend_ms, items)
        self._session.answer_later(correlation, promise, settled)

    def cancel(self, request: messages.Cancel) -> None:
        """End a consumer, and answer when its leases are returned. Raises NotFound."""
        consumer = self._find(request.tag)
        self.forget(consumer)
        promise = consumer.detach()
        if promise is None:
            self._session.outbox.append(messages.ok(request.correlation))
        else:
            self._session.answer_later(request.correlation, promise, lambda _: messages.ok(request.correlation))

    def deliver(self, tag: int, partition: int, runs: Sequence[Leased]) -> None:
        """Put leased records into the outbox, not copied; raises nothing."""
        session = self._session
        try:
            for some in self._parcels(runs):
                session.counters.deliveries += 1
                session.outbox.append(messages.deliver(tag, partition, some))
            session.counters.records_delivered += sum(leased.run.count for leased in runs)
        except Exception as error:  # it runs in the partition's turn, which a defect of ours must not end
            session.fail(error)

    def gone(self, consumer: _Consumer, error: PlaitError) -> None:
        """Tell the client that nothing more comes for a tag; raises nothing."""
        consumer.over = True
        self.forget(consumer)
        try:
            self._session.outbox.append(messages.consumer_gone(consumer.tag, self._session.namespace.error(error)))
        except Exception as defect:  # as in `deliver`
            self._session.fail(defect)

    def forget(self, consumer: _Consumer) -> None:
        """The tag is free again."""
        if self._by_tag.get(consumer.tag) is consumer:
            del self._by_tag[consumer.tag]

    def pause(self) -> None:
        """The client does not keep up: no more deliveries."""
        self.paused = True
        for consumer in self._by_tag.values():
            if consumer.attachment is not None:
                consumer.attachment.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self.paused = False
        for consumer in list(self._by_tag.values()):  # a delivery may come at once, and end a consumer
            if consumer.attachment is not None:
                consumer.attachment.resume()

    def detach_all(self) -> None:
        """The client is gone: return what it holds."""
        consumers, self._by_tag = self._by_tag, {}
        for consumer in consumers.values():
            consumer.detach()

    def _find(self, tag: int) -> _Consumer:
        consumer = self._by_tag.get(tag)
        if consumer is None:
            raise NotFound(f"there is no consumer with tag {tag} on this connection; nothing was done")
        return consumer

    def _parcels(self, runs: Sequence[Leased]) -> Iterator[Sequence[Leased]]:
        """The runs in portions that fit into one frame each."""
        most = min(DELIVER_BYTES, self._deliver_bytes_max)
        portion: list[Leased] = []
        size_bytes = 0
        for leased in self._that_fit(runs):
            length = len(leased.run.body)
            if portion and (size_bytes + length > most or len(portion) == DELIVER_RUNS_MAX):
                yield portion
                portion, size_bytes = [], 0
            portion.append(leased)
            size_bytes += length
        if portion:
            yield portion

    def _that_fit(self, runs: Sequence[Leased]) -> Iterator[Leased]:
        for leased in runs:
            if len(leased.run.body) <= self._deliver_bytes_max:
                yield leased
            else:
                yield from split_run(leased, self._deliver_bytes_max)


def split_run(leased: Leased, max_bytes: int) -> Iterator[Leased]:
    """A run in pieces of at most `max_bytes` (or of one record), under the same lease. Raises BatchInvalid."""
    run = leased.run
    starts = positions(run.body)
    body = memoryview(run.body)
    first = 0
    while first < run.count:
        last = first
        while last + 1 < run.count and starts[last + 2] - starts[first] <= max_bytes:
            last += 1
        piece = RecordRun(
            run.base_offset,
            run.base_timestamp_ms,
            run.append_time,
            run.first_delta + first,
            last - first + 1,
            body[starts[first] : starts[last + 1]],
        )
        yield Delivered(leased.lease_id, leased.deliveries, piece)
        first = last + 1
