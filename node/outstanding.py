"""Indexes over a shared subscription's exceptions: who holds what, and what is due when.

Both are derived from the runs and rebuilt from them; nothing here is replicated or in a snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush, heapreplace

from node.ranges import Range, tidy

DEADLINES_SLACK = 1_024
"""Entries that the heap of deadlines may hold beyond twice what it held when it was last rebuilt."""


class Lease:
    """What one lease id still holds."""

    __slots__ = ("consumer", "ranges", "records")

    def __init__(self, consumer: str, ranges: list[Range], records: int) -> None:
        self.consumer = consumer
        self.ranges = ranges  # tidy; every record that it holds lies in them, and others may too
        self.records = records  # > 0


class LeaseIndex:
    """Leases by id and by consumer."""

    __slots__ = ("_by_consumer", "_records", "by_id")

    def __init__(self) -> None:
        self.by_id: dict[int, Lease] = {}
        self._by_consumer: dict[str, dict[int, None]] = {}
        self._records: dict[str, int] = {}  # by consumer, > 0

    def add(self, lease_id: int, consumer: str, ranges: list[Range], records: int) -> None:
        """A new lease of at least one record."""
        self.by_id[lease_id] = Lease(consumer, ranges, records)
        self._by_consumer.setdefault(consumer, {})[lease_id] = None
        self._records[consumer] = self._records.get(consumer, 0) + records

    def settle(self, lease_id: int, records: int) -> None:
        """A lease lost some of its records; without any it ends."""
        lease = self.by_id[lease_id]
        consumer = lease.consumer
        lease.records -= records
        self._records[consumer] -= records
        if lease.records == 0:
            del self.by_id[lease_id]
            leases = self._by_consumer[consumer]
            del leases[lease_id]
            if not leases:
                del self._by_consumer[consumer]
                del self._records[consumer]

    def of(self, consumer: str) -> list[int]:
        """A consumer's lease ids, ascending."""
        return sorted(self._by_consumer.get(consumer, ()))

    def records(self, consumer: str) -> int:
        """How many records a consumer holds."""
        return self._records.get(consumer, 0)

    def consumers(self) -> list[str]:
        """Who holds at least one record, sorted."""
        return sorted(self._by_consumer)

    @classmethod
    def of_runs(cls, runs: Iterable[tuple[int, int, int, str]]) -> LeaseIndex:
        """From the leased runs: (first, last, lease id, consumer)."""
        held: dict[int, tuple[str, list[Range]]] = {}
        for first, last, lease_id, consumer in runs:
            held.setdefault(lease_id, (consumer, []))[1].append((first, last))
        index = cls()
        for lease_id, (consumer, ranges) in held.items():
            index.add(lease_id, consumer, tidy(ranges), sum(last - first + 1 for first, last in ranges))
        return index


Deadline = tuple[int, int, int, int]
"""(when in stamp ms, first, last, lease id): something in first..last may be due then, of that lease."""


class Deadlines:
    """A heap that is allowed to remember too much: who takes an entry out looks whether it still holds.

    What does hold is complete: every run that has a deadline is covered by an entry of that time.
    """

    __slots__ = ("_heap", "_room")

    def __init__(self, entries: Iterable[Deadline] = ()) -> None:
        self.rebuild(entries)

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def full(self) -> bool:
        """So much of it may be outdated that it should be rebuilt."""
        return len(self._heap) > self._room

    def rebuild(self, entries: Iterable[Deadline]) -> None:
        """Start again from what really holds."""
        self._heap = list(entries)
        heapify(self._heap)
        self._room = 2 * len(self._heap) + DEADLINES_SLACK

    def push(self, when_ms: int, first: int, last: int, lease_id: int) -> None:
        """Remember one."""
        heappush(self._heap, (when_ms, first, last, lease_id))

    def peek(self) -> Deadline | None:
        """The earliest entry; of one time, the one with the lowest first offset."""
        return self._heap[0] if self._heap else None

    def pop(self) -> None:
        """Forget the earliest entry."""
        heappop(self._heap)

    def narrow(self, first: int) -> None:
        """The earliest entry holds from `first` on only."""
        when_ms, _, last, lease_id = self._heap[0]
        heapreplace(self._heap, (when_ms, first, last, lease_id))
