"""Where a request goes: which partition, and which node leads it. Decisions only.

    publish ──> PartitionChooser ──partition──> LeaderTable ──leader──> asked there
                                                     ^                     │ does not lead: perhaps a hint
                                                     └────── Search <──────┘ whom to ask next, or how long to rest

node/router.py, node/routes.py and node/lanes.py act on them.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
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

    def proved(self, group: int, node_id: int, term: int) -> None:
        """A node has just answered as the leader of that term: better than anything that was heard."""
        if term >= self._terms.get(group, -1):
            self._leaders[group] = Leader(node_id, term)
            self._terms[group] = term

    def lost(self, group: int, term: int) -> None:
        """The leader of that term does not lead (any more); one of a later term stays."""
        if term >= self._terms.get(group, -1):
            self._terms[group] = term
            self._leaders.pop(group, None)

    def forget(self, group: int) -> None:
        """The group is deleted."""
        self._leaders.pop(group, None)
        self._terms.pop(group, None)


REST_MS_MIN = 10
"""First wait after everybody was asked and nobody led; each further one is twice as long."""
REST_MS_MAX = 200
"""Longest such wait."""
SEARCH_MS = 5_000
"""How long a leader is looked for before a client is told that there is none."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask that node next."""

    node: int


@dataclass(frozen=True, slots=True)
class Rest:
    """Everybody was asked: wait for so long, then ask again."""

    rest_ms: int


class Search:
    """Whom to ask until somebody is found who leads a group.

    In each round every node is asked once at most: first who is said to lead, then the replicas in their order.
    Hints that point in a circle end there. Between rounds it rests, longer each time.
    """

    __slots__ = ("_asked", "_rest_ms")

    def __init__(self) -> None:
        self._asked: dict[int, None] = {}
        self._rest_ms = REST_MS_MIN

    def next(self, leader: int, replicas: Sequence[int]) -> Ask | Rest:
        """What to do now, with what is known now: who is said to lead (0: nobody), and who has replicas."""
        for node in (leader, *replicas):
            if node and node not in self._asked:
                self._asked[node] = None
                return Ask(node)
        self._asked.clear()
        rest_ms, self._rest_ms = self._rest_ms, min(2 * self._rest_ms, REST_MS_MAX)
        return Rest(rest_ms)

    def retract(self, node: int) -> None:
        """That node was asked for something older than what it has said since: it may be asked once more."""
        self._asked.pop(node, None)
