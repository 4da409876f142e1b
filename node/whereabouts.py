"""Who leads, and where clients find it: what a refusal says of it."""

from __future__ import annotations

from cluster.catalogue import Catalogue
from plait.wire.errors import NotLeader, PlaitError, StorageDamaged
from replication.group import Group


class Whereabouts:
    """Looks up nodes in the catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def not_leader(self, name: str, group: Group | None) -> NotLeader:
        """The refusal of a replica that does not serve, with the leader as far as it is known here."""
        leader = group.leader_node if group is not None else 0
        if not leader:
            return NotLeader(f"{name}: no leader is known here yet; nothing was done; try again", leader=0)
        node = self._catalogue.node(leader)
        message = f"{name} is led by node {leader}; nothing was done; ask there"
        if node is None or not node.native:
            return NotLeader(message, leader=leader)
        return NotLeader(message, leader=leader, address=node.native)

    def refusal(self, name: str, group: Group | None) -> PlaitError:
        """The same, or that nobody can serve: this replica has failed, and there is no other."""
        if group is None or not group.failure:
            return self.not_leader(name, group)
        if len(self.nodes_of(group.group)) <= 1:
            return StorageDamaged(f"{name} cannot serve: {group.failure}; nothing was done")
        return NotLeader(
            f"{name} is not served by this node: {group.failure}; nothing was done; ask another", leader=0
        )

    def nodes_of(self, group: int) -> list[int]:
        """The nodes that hold replicas of a group, or are about to, the one first that is to lead."""
        assignment = self._catalogue.assignment(group)
        if assignment is None:
            return []
        voters = [each.node for each in assignment.wanted if each.votes]
        return list(dict.fromkeys([*voters, *(each.node for each in assignment.leaving)]))

    def incarnations(self) -> dict[int, int]:
        """The newest start of every node; of a dead one, the one that will come next."""
        return {node.node_id: node.incarnation + node.dead for node in self._catalogue.nodes()}
