"""Who consumes a partition's shared subscriptions, and what they are given.

    credit and records ──choose──> lease commands ──(committed)──> leased ──> the consumer's `deliver`

Soft state of the leader: a new leader starts with no consumers, and they attach again. What a consumer holds is
the replicated lease alone. One that attaches again under its id says how far it was delivered to: what it holds
beyond that is delivered again, under the same lease.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from node.leases import LeaseChooser
from node.shared import SharedSubscription
from node.source import RecordSource
from plait.wire.batch import RecordRun
from plait.wire.errors import PlaitError
from replication.environment import Tasks
from replication.machine import Range

_logger = structlog.get_logger("plait.partition")

GRANT_BYTES = 1 << 20
"""What one lease command grants one consumer at the most, by the mean size of the backlog's records."""


@dataclass(frozen=True, slots=True)
class LeasedRun:
    """Records leased to a consumer: delivery number `deliveries`, settled by this lease id."""

    lease_id: int
    deliveries: int
    run: RecordRun


@dataclass(slots=True)
class Consumer:
    """One consumer of one subscription, at one partition."""

    consumer_id: str
    """node.incarnation.number: unique for ever."""
    subscription: str
    prefetch: int
    """Records that it may hold unacknowledged."""
    lease_ms: int
    deliver: Callable[[list[LeasedRun]], None]
    gone: Callable[[PlaitError], None]
    reserved: int = 0
    """Records in lease commands that are proposed and not applied."""
    paused: bool = False
    detached: bool = False


Delivered = tuple[int, int]
"""(lease id, offset) of the last record that a consumer was delivered."""
NOTHING_DELIVERED: Delivered = (-1, -1)


@dataclass(slots=True)
class Grant:
    """A choice of the leader: these records for this consumer."""

    consumer: Consumer
    ranges: list[Range]
    records: int


@dataclass(slots=True)
class _Line:
    """The consumers of one subscription, in turn."""

    shared: SharedSubscription
    chooser: LeaseChooser
    consumers: dict[str, Consumer] = field(default_factory=dict)


@dataclass(slots=True)
class _Parcel:
    """Leased records on their way to a consumer; `first` moves on as they are read."""

    consumer_id: str
    subscription: str
    lease_id: int
    first: int
    last: int
    deliveries: int


class Consumers:
    """The consumers of one partition."""

    def __init__(self, name: str, source: RecordSource, tasks: Tasks) -> None:
        self._name = name
        self._source = source
        self._tasks = tasks
        self._lines: dict[str, _Line] = {}
        self._parcels: deque[_Parcel] = deque()  # waiting for a read from disk; bounded by the consumers' credit
        self._reading = False
        self.redelivered_records = 0
        """Records that were handed out not for the first time."""

    def __bool__(self) -> bool:
        return any(line.consumers for line in self._lines.values())

    def add(
        self, consumer: Consumer, shared: SharedSubscription, delivered: Delivered = NOTHING_DELIVERED
    ) -> None:
        """A consumer has attached, perhaps again; it had what was leased to it up to `delivered`."""
        line = self._lines.get(consumer.subscription)
        if line is None:
            line = self._lines[consumer.subscription] = _Line(shared, LeaseChooser(shared))
        name = consumer.consumer_id
        before = line.consumers.get(name)
        if before is not None:
            before.detached = True
        line.consumers[name] = consumer
        self._parcels = deque(parcel for parcel in self._parcels if parcel.consumer_id != name)
        held = shared.held_by(name, *delivered)
        self._parcels.extend(_Parcel(name, consumer.subscription, *run) for run in held)
        if held:
            self._deliver_soon()

    def remove(self, consumer: Consumer) -> None:
        """A consumer is none here any more; what it holds comes back by a command, or is its own elsewhere."""
        consumer.detached = True
        line = self._lines.get(consumer.subscription)
        if line is not None and line.consumers.get(consumer.consumer_id) is consumer:
            del line.consumers[consumer.consumer_id]

    def find(self, consumer_id: str) -> Consumer | None:
        """The consumer of that id that is attached here."""
        found = (line.consumers.get(consumer_id) for line in self._lines.values())
        return next((consumer for consumer in found if consumer is not None), None)

    def ids(self) -> list[str]:
        """Who consumes here now."""
        return [consumer_id for line in self._lines.values() for consumer_id in line.consumers]

    def rest(self) -> None:
        """Give up the memory that deliveries have left behind, unless one is under way."""
        if not self._parcels:
            self._source.forget()

    def choose(self, proposed_next: int, mean_record_bytes: int) -> list[Grant]:
        """What to lease to whom now, with the records up to `proposed_next` (some may not be committed yet)."""
        grants: list[Grant] = []
        most = max(1, GRANT_BYTES // max(1, mean_record_bytes))
        for line in self._lines.values():
            if line.consumers:
                self._choose_line(line, proposed_next, most, grants)
        return grants

    def leased(self, grant: Grant, lease_id: int, runs: list[tuple[int, int, int]]) -> None:
        """A lease command was applied: deliver what it leased, (first, last, deliveries) each."""
        self._unreserve(grant)
        consumer = grant.consumer
        for first, last, deliveries in runs:
            name, subscription = consumer.consumer_id, consumer.subscription
            self._parcels.append(_Parcel(name, subscription, lease_id, first, last, deliveries))
            if deliveries > 1:
                self.redelivered_records += last - first + 1
        self._deliver_soon()

    def _deliver_soon(self) -> None:
        if not self._reading and not self._deliver():
            self._reading = True
            self._tasks.spawn(f"{self._name}/deliver", self._deliver_cold)

    def not_leased(self, grant: Grant) -> None:
        """A lease command was not proposed after all."""
        self._unreserve(grant)

    def fail(self, error: PlaitError) -> None:
        """This replica serves no more: tell every consumer, and forget them."""
        lines, self._lines = self._lines, {}
        self._parcels.clear()
        self._source.forget()
        for line in lines.values():
            for consumer in line.consumers.values():
                self._end(consumer, error)

    def attached(self, subscription: str) -> int:
        """How many consumers a subscription has."""
        line = self._lines.get(subscription)
        return len(line.consumers) if line is not None else 0

    def _choose_line(self, line: _Line, proposed_next: int, most: int, grants: list[Grant]) -> None:
        available = line.chooser.available(proposed_next)
        if available <= 0:
            return
        ready = [
            (consumer, credit)
            for consumer in line.consumers.values()
            if not consumer.paused and (credit := self._credit(line, consumer)) > 0
        ]
        for place, (consumer, credit) in enumerate(ready):
            share = -(-available // (len(ready) - place))
            ranges = line.chooser.choose(min(credit, share, most), proposed_next)
            records = sum(last - first + 1 for first, last in ranges)
            if records == 0:
                break
            available -= records
            consumer.reserved += records
            grants.append(Grant(consumer, ranges, records))
            # whoever was given something goes to the end of the line
            del line.consumers[consumer.consumer_id]
            line.consumers[consumer.consumer_id] = consumer

    def _credit(self, line: _Line, consumer: Consumer) -> int:
        return consumer.prefetch - consumer.reserved - line.shared.leased_by(consumer.consumer_id)

    def _unreserve(self, grant: Grant) -> None:
        grant.consumer.reserved -= grant.records
        line = self._lines.get(grant.consumer.subscription)
        if line is not None:
            line.chooser.release(grant.ranges)

    def _deliver(self) -> bool:
        """Deliver parcels, in order, as far as their records are at hand; whether that was all."""
        while self._parcels:
            consumer = self._consumer_of(self._parcels[0])
            if consumer is None:  # it left: somebody else gets them, or it itself where it attaches again
                self._parcels.popleft()
                continue
            ready: list[LeasedRun] = []
            try:
                whole = self._open(consumer, ready)
            except PlaitError as error:  # its records cannot be opened, and would be first in line for ever
                self._end(consumer, error)
                continue
            if ready:
                try:
                    consumer.deliver(ready)
                except Exception as error:  # a gateway's defect: the others' records are still to be delivered
                    _logger.error("delivery not taken", partition=self._name, exc_info=error)
            if not whole:
                return False
        return True

    def _open(self, consumer: Consumer, ready: list[LeasedRun]) -> bool:
        """Take the consumer's parcels from the front, as far as they are at hand; whether they are all taken."""
        while self._parcels and (parcel := self._parcels[0]).consumer_id == consumer.consumer_id:
            runs, parcel.first = self._source.runs(parcel.first, parcel.last)
            ready.extend(LeasedRun(parcel.lease_id, parcel.deliveries, run) for run in runs)
            if parcel.first <= parcel.last:
                return False
            self._parcels.popleft()
        return True

    def _consumer_of(self, parcel: _Parcel) -> Consumer | None:
        line = self._lines.get(parcel.subscription)
        return line.consumers.get(parcel.consumer_id) if line is not None else None

    async def _deliver_cold(self) -> None:
        """Deliver parcels whose records are on disk only, in order, until none is left."""
        try:
            while not self._deliver():
                parcel = self._parcels[0]
                if self._still_leased(parcel):
                    await self._load(parcel)
                else:
                    self._parcels.popleft()
        finally:
            self._reading = False

    def _still_leased(self, parcel: _Parcel) -> bool:
        """Move `first` on to what the lease still holds: the rest is somebody else's now, or done and deleted."""
        line = self._lines.get(parcel.subscription)
        for first, _, state in line.shared.runs(parcel.first, parcel.last) if line is not None else ():
            if state.lease_id == parcel.lease_id:
                parcel.first = first
                return True
        return False

    async def _load(self, parcel: _Parcel) -> None:
        try:
            await self._source.load(parcel.first)
        except PlaitError as error:
            consumer = self._consumer_of(parcel)
            if consumer is not None and self._still_leased(parcel):
                self._end(consumer, error)

    def _end(self, consumer: Consumer, error: PlaitError) -> None:
        self.remove(consumer)
        try:
            consumer.gone(error)
        except Exception as defect:  # a gateway's defect: the other consumers are still to be told
            _logger.error("end not taken", partition=self._name, exc_info=defect)
