"""What a consumer holds on lease and what it has settled: ranges in, frames out. Pure but for the answers' waits.

    deliveries ──> Lease ... Lease     settle(offset) ──> Settling: [lease, first, last] ...  ──collect──> SETTLE

Settlements of one turn of the loop share a frame, neighbouring offsets share a range, and nothing is made per
message but an addition.
"""

from __future__ import annotations

from collections.abc import Callable

from plait.client.answers import Answer
from plait.wire.errors import LeaseLost, PlaitError

SETTLE_FRAME_RANGES_MAX = 2_000
"""Ranges in one SETTLE; a consumer that settled more since the last turn sends several."""

Range = tuple[int, int]
"""(first, last) offset, both included."""


class Lease:
    """One run of consecutive records on lease."""

    __slots__ = (
        "book",
        "deliveries",
        "first",
        "last",
        "lease_id",
        "life",
        "open_records",
        "partition",
        "renewed_s",
    )

    def __init__(
        self, book: LeaseBook, partition: int, lease_id: int, first: int, count: int, deliveries: int, now_s: float
    ) -> None:
        self.book = book
        self.partition = partition
        self.lease_id = lease_id
        self.first = first
        self.last = first + count - 1
        self.deliveries = deliveries
        self.open_records = count
        """Records not settled."""
        self.renewed_s = now_s
        self.life = book.life


class Settling:
    """Settlements of one kind that travel together, and the broker's answer to them."""

    __slots__ = ("_frames_open", "_items", "action", "answer", "extend_ms", "lost", "partition", "unwatched")

    def __init__(self, partition: int, action: str, extend_ms: int = 0) -> None:
        self.partition = partition
        self.action = action
        self.extend_ms = extend_ms
        self.unwatched = False
        """Somebody settled without waiting: what goes wrong is reported by the consumer's `flush`."""
        self.lost: list[Range] = []
        self.answer: Answer[None] = Answer()
        self._items: list[list[int]] = []
        self._frames_open = 0

    def add(self, lease_id: int, first: int, last: int) -> None:
        """Take in a range."""
        items = self._items
        if items:
            item = items[-1]
            if item[2] + 1 == first and item[0] == lease_id:
                item[2] = last
                return
        items.append([lease_id, first, last])

    def frames(self) -> list[list[list[int]]]:
        """All ranges, sorted and joined where they touch, in portions that fit into a frame each."""
        self._items.sort()
        joined: list[list[int]] = []
        for item in self._items:
            if joined and joined[-1][0] == item[0] and joined[-1][2] + 1 >= item[1]:
                joined[-1][2] = max(joined[-1][2], item[2])
            else:
                joined.append(item)
        self._items = []
        portions = [
            joined[at : at + SETTLE_FRAME_RANGES_MAX] for at in range(0, len(joined), SETTLE_FRAME_RANGES_MAX)
        ]
        self._frames_open = len(portions)
        return portions

    def answered(self, lost: list[Range]) -> None:
        """One frame's answer: all of it is settled but the ranges whose lease was lost."""
        self.lost += lost
        self._frames_open -= 1
        if not self._frames_open:
            self.answer.resolve(None)

    async def confirmed(self, offset: int) -> None:
        """Wait for the answer. Raises LeaseLost when it says so of this offset, or the error that came instead."""
        await self.answer.wait()
        if any(first <= offset <= last for first, last in self.lost):
            raise lease_lost(self.partition, offset, self.action)


class LeaseBook:
    """All leases of one consumer. `dirty` is called when there is something to collect.

    `life` counts the connections: leases of an earlier one are lost, as the broker returned them.
    """

    def __init__(self, dirty: Callable[[], None]) -> None:
        self.life = 0
        self.open_records = 0
        """Records on lease and not settled."""
        self.lost_records = 0
        """Settled without waiting, and too late."""
        self._dirty = dirty
        self._leases: dict[Lease, None] = {}
        self._settlings: dict[tuple[int, str, int], Settling] = {}

    def grant(self, partition: int, lease_id: int, first: int, count: int, deliveries: int, now_s: float) -> Lease:
        """Note a run that the broker has leased to this consumer."""
        lease = Lease(self, partition, lease_id, first, count, deliveries, now_s)
        self._leases[lease] = None
        self.open_records += count
        return lease

    def settle(self, lease: Lease, offset: int, action: str) -> Settling:
        """Note that a record is acknowledged ("ack") or given back ("return")."""
        if lease.life != self.life:
            return _stale(lease, offset, action)
        lease.open_records -= 1
        self.open_records -= 1
        if not lease.open_records:
            del self._leases[lease]
        settling = self._settlings.get((lease.partition, action, 0))
        if settling is None:
            settling = self._open(lease.partition, action, 0)
        settling.add(lease.lease_id, offset, offset)
        return settling

    def settle_soon(self, lease: Lease, offset: int, action: str) -> None:
        """As `settle`, for somebody who does not wait: `lost_records` and `flush` tell what went wrong."""
        settling = self.settle(lease, offset, action)
        settling.unwatched = True
        if settling.answer.done:
            self.lost_records += 1

    def release(self, lease: Lease, count: int) -> None:
        """Forget records that nobody was given."""
        if lease.life == self.life:
            lease.open_records -= count
            self.open_records -= count
            if not lease.open_records:
                del self._leases[lease]

    async def extend(self, lease: Lease, offset: int, extend_ms: int) -> None:
        """Keep one record longer. Raises LeaseLost."""
        if lease.life != self.life:
            raise lease_lost(lease.partition, offset, "extend")
        settling = self._open(lease.partition, "extend", extend_ms)
        settling.add(lease.lease_id, offset, offset)
        await settling.confirmed(offset)

    def renew(self, now_s: float, older_s: float, extend_ms: int) -> None:
        """Extend every lease that was given or extended more than `older_s` seconds ago."""
        for lease in self._leases:
            if now_s - lease.renewed_s >= older_s:
                lease.renewed_s = now_s
                settling = self._open(lease.partition, "extend", extend_ms)
                settling.add(lease.lease_id, lease.first, lease.last)

    def collect(self) -> list[Settling]:
        """What is to be sent now."""
        settlings = list(self._settlings.values())
        self._settlings.clear()
        return settlings

    def forget(self) -> list[Settling]:
        """The connection is gone, and all leases with it; what was not sent yet is returned to be failed."""
        self.life += 1
        self._leases.clear()
        self.open_records = 0
        return self.collect()

    def _open(self, partition: int, action: str, extend_ms: int) -> Settling:
        key = (partition, action, extend_ms)
        settling = self._settlings.get(key)
        if settling is None:
            settling = self._settlings[key] = Settling(partition, action, extend_ms)
            self._dirty()
        return settling


def lease_lost(partition: int, offset: int, action: str) -> LeaseLost:
    """The error of a settlement that came too late."""
    return LeaseLost(
        f"The lease of offset {offset} in partition {partition} had ended before this {action}: the message is or "
        "was handed out again. Make its processing idempotent, or lease for longer (lease_s, auto_extend).",
        partition=partition,
        offset=offset,
    )


def _stale(lease: Lease, offset: int, action: str) -> Settling:
    settling = Settling(lease.partition, action)
    error: PlaitError = lease_lost(lease.partition, offset, action)
    settling.answer.reject(error)
    return settling
