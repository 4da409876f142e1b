"""The permits of one partition: which publishes are proposed and not committed, and whose they are."""

from __future__ import annotations

from cluster.limits import NodePressure, PartitionLimits
from cluster.outcomes import Permit, Reason


class InFlight:
    """Permits given and not given back, with their sums.

    Invariants: every sum is the sum over `_permits`; 0 <= charged_bytes <= limits.in_flight_bytes, because a
    publish larger than the limit is charged the limit and let in alone.
    """

    __slots__ = (
        "_limits",
        "_next_number",
        "_node",
        "_permits",
        "charged_bytes",
        "pending_bytes",
        "pending_records",
    )

    def __init__(self, limits: PartitionLimits, node: NodePressure) -> None:
        self._limits = limits
        self._node = node
        # by number, so in the order of admission
        self._permits: dict[int, Permit] = {}
        self._next_number = 1
        self.charged_bytes = 0
        self.pending_records = 0
        """What the permits' publishes will add to the backlog, less what their evictions will take off it."""
        self.pending_bytes = 0

    def __len__(self) -> int:
        return len(self._permits)

    def blocks(self, size_bytes: int) -> Reason | None:
        """Why a publish of that size has no room now; None if it has."""
        node, limits = self._node, self._limits
        cap = node.tightened(limits.in_flight_bytes)
        if self.charged_bytes + min(size_bytes, cap) > cap or len(self._permits) >= limits.in_flight_publishes:
            return "in_flight"
        node_cap = node.tightened(node.in_flight_bytes_max)
        if node.in_flight_bytes + min(size_bytes, node_cap) > node_cap:
            return "node_in_flight"
        return None

    def admit(self, owner: str, records: int, size_bytes: int, evict_records: int, evict_bytes: int) -> Permit:
        """A permit for a publish that nothing `blocks`."""
        charged_bytes = min(size_bytes, self._limits.in_flight_bytes)
        node_bytes = min(size_bytes, self._node.in_flight_bytes_max)
        permit = Permit(
            owner, self._next_number, records, size_bytes, charged_bytes, node_bytes, evict_records, evict_bytes
        )
        self._permits[self._next_number] = permit
        self._next_number += 1
        self.charged_bytes += charged_bytes
        self._node.in_flight_bytes += node_bytes
        self.pending_records += records - evict_records
        self.pending_bytes += size_bytes - evict_bytes
        assert self.charged_bytes <= self._limits.in_flight_bytes, "more in flight than the partition takes"
        assert self._node.in_flight_bytes <= self._node.in_flight_bytes_max, "more in flight than the node takes"
        return permit

    def give_back(self, permit: Permit) -> None:
        """The permit ends; it must be held."""
        assert permit.held, "a permit given back twice"
        permit.held = False
        del self._permits[permit.number]
        self.charged_bytes -= permit.charged_bytes
        self._node.in_flight_bytes -= permit.node_bytes
        self.pending_records -= permit.records - permit.evict_records
        self.pending_bytes -= permit.size_bytes - permit.evict_bytes
        assert self.charged_bytes >= 0, "more given back than taken"
        assert self._node.in_flight_bytes >= 0, "more given back than the node's partitions took"

    def of_owner(self, owner: str) -> list[Permit]:
        """The owner's permits, oldest first."""
        return [permit for permit in self._permits.values() if permit.owner == owner]

    def all(self) -> list[Permit]:
        """Every permit, oldest first."""
        return list(self._permits.values())
