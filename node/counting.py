"""Sums over a node's partitions and replicas, for metrics and status: what waits, who follows, what went by.

Counting takes microseconds a partition, so whoever counts all of them does it in slices.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from node.partition import Partition
from node.traffic import Traffic
from replication.environment import Clock
from replication.group import Group
from replication.machine import Role

T = TypeVar("T")
SLICE_NS = 2_000_000
"""Time after which the counting lets others have a turn."""
SLICE_PARTITIONS = 32
"""Partitions, or groups, that are counted before the time is looked at."""


@dataclass(slots=True)
class PartitionSum:
    """What some partitions have together."""

    partitions: int = 0
    led: int = 0
    backlog_records: int = 0
    backlog_bytes: int = 0
    leased: int = 0
    consumers: int = 0
    waiting: int = 0
    waiting_max: int = 0
    traffic: Traffic = field(default_factory=Traffic)

    def count(self, partition: Partition) -> None:
        """One more; what waits and what is held counts where it is led, so that nodes can be summed up."""
        self.partitions += 1
        self.traffic.add(partition.traffic)
        self.waiting += partition.waiting
        self.waiting_max = max(self.waiting_max, partition.waiting)
        if not partition.group.ready:
            return
        state = partition.state
        self.led += 1
        self.backlog_records += state.backlog_records()
        self.backlog_bytes += state.backlog_bytes()
        for name, shared in state.shared.items():
            self.leased += shared.leased_count
            self.consumers += partition.consumers.attached(name)

    def add(self, other: PartitionSum) -> None:
        """Those as well."""
        self.partitions += other.partitions
        self.led += other.led
        self.backlog_records += other.backlog_records
        self.backlog_bytes += other.backlog_bytes
        self.leased += other.leased
        self.consumers += other.consumers
        self.waiting += other.waiting
        self.waiting_max = max(self.waiting_max, other.waiting_max)
        self.traffic.add(other.traffic)


@dataclass(slots=True)
class ReplicaSum:
    """What some groups' replicas on this node are."""

    replicas: int = 0
    leaders: int = 0
    asleep: int = 0
    fenced: int = 0
    lagging: int = 0
    under_replicated: int = 0
    apply_lag: int = 0
    waiting: int = 0
    waiting_max: int = 0

    def count(self, group: Group, now_ns: int) -> int:
        """One more; how many of its followers are not caught up."""
        self.replicas += 1
        self.leaders += group.ready
        self.asleep += group.asleep
        self.fenced += group.role is Role.FENCED
        lagging = group.lagging(now_ns)
        self.lagging += lagging
        self.under_replicated += lagging > 0
        self.apply_lag += group.apply_lag
        self.waiting += group.waiting
        self.waiting_max = max(self.waiting_max, group.waiting)
        return lagging


async def in_slices(clock: Clock, items: Iterable[T]) -> AsyncIterator[T]:
    """The items, with a turn for everybody else in between where that takes long."""
    since_ns = clock.monotonic_ns()
    for number, item in enumerate(items):
        yield item
        if number % SLICE_PARTITIONS == 0 and clock.monotonic_ns() - since_ns > SLICE_NS:
            await trio.lowlevel.checkpoint()
            since_ns = clock.monotonic_ns()
