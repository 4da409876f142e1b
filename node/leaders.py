"""Who leads what, as far as this node knows: from its own replicas, from refusals that point on, from answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.routing import Leader, LeaderTable
from plait.wire.errors import NotLeader
from replication.group import Group


class Leaders:
    """Of all groups, whether this node has a replica or not."""

    def __init__(
        self, node_id: int, group_of: Callable[[int], Group | None], replicas_of: Callable[[int], Sequence[int]]
    ) -> None:
        """`group_of`: this node's replica of a group. `replicas_of`: the nodes that hold one, preferred first."""
        self.node_id = node_id
        self._group_of = group_of
        self._replicas_of = replicas_of
        self._table = LeaderTable()

    def leader(self, group: int) -> Leader | None:
        """Who leads, and in which term."""
        own = self._group_of(group)
        if own is not None and own.leader_node:
            self._table.heard(group, Leader(own.leader_node, own.term))
        return self._table.leader(group)

    def node(self, group: int) -> int:
        """The node that leads; 0: not known."""
        leader = self.leader(group)
        return leader.node_id if leader is not None else 0

    def replicas(self, group: int) -> list[int]:
        """The other nodes that may be asked about it, preferred first."""
        return [node for node in self._replicas_of(group) if node != self.node_id]

    def proved(self, group: int, node: int, term: int) -> None:
        """A node has answered as the leader of that term."""
        self._table.proved(group, node, term)

    def refused(self, group: int, node: int, error: NotLeader) -> None:
        """A node does not lead; its refusal may say who does."""
        term, leader = error.details.get("term", 0), error.details.get("leader", 0)
        self.failed(group, node)
        if isinstance(term, int) and isinstance(leader, int) and leader and leader != node:
            self._table.heard(group, Leader(leader, term))
        elif leader == node:
            self._table.proved(group, node, term)  # it leads, in a later term than it was asked for

    def failed(self, group: int, node: int) -> None:
        """A node that was thought to lead could not be asked, or does not."""
        known = self._table.leader(group)
        if known is not None and known.node_id == node:
            self._table.lost(group, known.term)

    def forget(self, group: int) -> None:
        """The group is deleted."""
        self._table.forget(group)
