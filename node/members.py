"""Who belongs to which group.

The members of a cluster are fixed at its founding: every group has a replica on each of its nodes, and the replica
has the node's id. This module is the one place that knows it.
"""

from __future__ import annotations

from collections.abc import Sequence

from replication.raft.membership import Membership


class Members:
    """The members of every group of this node's cluster."""

    def __init__(self, node_id: int, nodes: Sequence[int]) -> None:
        assert node_id in nodes, "a node is one of its cluster's"
        self.node_id = node_id
        self.nodes = tuple(sorted(nodes))
        self._founders = Membership({node: node for node in self.nodes})

    @property
    def alone(self) -> bool:
        """A cluster of one."""
        return len(self.nodes) == 1

    @property
    def others(self) -> list[int]:
        """The other nodes."""
        return [node for node in self.nodes if node != self.node_id]

    def founders_of(self, group: int) -> Membership:
        """The members with which a group begins."""
        return self._founders

    def nodes_of(self, group: int) -> Sequence[int]:
        """The nodes that hold a replica of a group, in the order in which they should be asked."""
        return self.nodes

    def replica_on(self, group: int, node: int) -> int:
        """The id of the group's replica on a node."""
        return node
