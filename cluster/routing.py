"""Where a publish goes: which partition, and which node leads it. Decisions only; node/router.py acts on them."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from plait.wire.partitioning import partition_for_key
from replication.environment import Buffer

STICKY_BYTES = 65_536
"""Bytes of keyless publishes that go to one partition before the next one has its turn (as KIP-794)."""


class PartitionChooser:
    """Chooses a partition for publishes to one topic that name none.

    A key always goes to the same partition. What has no key stays with one partition for STICKY_BYTES, so that
    batches grow, and then moves on to the next. A publish that is sent again keeps the partition that it was
    given first: it is not chosen anew.
    """

    __slots__ = ("_current", "_sent_bytes", "partitions")

    def __init__(self, partitions: int, start: int = 0) -> None:
        """`start` is where keyless publishes begin; nodes differ in it, so that they spread."""
        assert partitions > 0, "a topic without partitions"
        self.partitions = partitions
        self._current = start % partitions
        self._sent_bytes = 0

    def choose(self, key: Buffer | None, size_bytes: int, without_leader: Container[int] = ()) -> int:
        """The partition, from 0. Keyless ones avoid partitions `without_leader` as long as there are others."""
        if key is not None:
            return partition_for_key(key, self.partitions)
        if self._sent_bytes >= STICKY_BYTES:
            self._move_on()
        for _ in range(self.partitions):
            if self._current not in without_leader:
                break
            self._move_on()
        self._sent_bytes += size_bytes
        return self._current

    def _move_on(self) -> None:
        self._current = (self._current + 1) % self.partitions
        self._sent_bytes = 0


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads a group, as far as this node has heard."""

    node_id: int
    term: int


class LeaderTable:
    """The leaders of all groups that this node has heard of. News of an older term changes nothing."""

    __slots__ = ("_leaders", "_terms")

    def __init__(self) -> None:
        self._leaders: dict[int, Leader] = {}
        # the newest term heard of, also where its leader is lost: its old news must not bring it back
        self._terms: dict[int, int] = {}

    def leader(self, group: int) -> Leader | None:
        """Who leads the group; None if nobody that is known."""
        return self._leaders.get(group)

    def heard(self, group: int, leader: Leader) -> bool:
        """A node leads a group in a term; False if that is old news."""
        if leader.term <= self._terms.get(group, -1):
            return False
        self._leaders[group] = leader
        self._terms[group] = leader.term
        return True

    def lost(self, group: int, term: int) -> None:
        """The leader of that term does not lead (any more); one of a later term stays."""
        if term >= self._terms.get(group, -1):
            self._terms[group] = term
            self._leaders.pop(group, None)

    def forget(self, group: int) -> None:
        """The group is deleted."""
        self._leaders.pop(group, None)
        self._terms.pop(group, None)
