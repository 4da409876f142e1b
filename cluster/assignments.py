"""The assignments of all groups, and what they add up to for each node."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import cbor2

from cluster.assignment import Assignment, Replica
from cluster.nodes import Node
from cluster.placement import Site


class Assignments:
    """By group. Changed by the catalogue alone."""

    def __init__(self) -> None:
        self._by_group: dict[int, Assignment] = {}
        # an assignment changes rarely, so its part of the snapshot is encoded once
        self._encoded: dict[int, bytes] = {}
        self._replicas: dict[int, int] = {}  # by node, how many it is to have
        self._held: dict[int, int] = {}  # by node, these and those that leave it
        self._preferred: dict[int, int] = {}  # by node, how many it is to lead
        self._unsettled: dict[int, None] = {}

    def get(self, group: int) -> Assignment | None:
        """A group's assignment."""
        return self._by_group.get(group)

    def items(self) -> Iterator[tuple[int, Assignment]]:
        """Every group with its assignment, in the order of their making."""
        return iter(self._by_group.items())

    @property
    def unsettled(self) -> Collection[int]:
        """The groups that are on their way to other members."""
        return self._unsettled.keys()

    def replicas_on(self, node: int) -> int:
        """Replicas that a node has, or is to have, those that leave it included."""
        return self._held.get(node, 0)

    def sites(self, nodes: Sequence[Node]) -> list[Site]:
        """Nodes as places for replicas, with what they have."""
        replicas, preferred, held = self._replicas, self._preferred, self._held
        return [
            Site(node, rack, replicas.get(node, 0), preferred.get(node, 0), held.get(node, 0))
            for node, rack in ((each.node_id, each.rack) for each in nodes)
        ]

    def keep(self, group: int, assignment: Assignment) -> None:
        """The group has this one from now on."""
        self._count(group, -1)
        self._by_group[group] = assignment
        self._count(group, 1)
        if assignment.settled:
            self._unsettled.pop(group, None)
        else:
            self._unsettled[group] = None
        self._encoded[group] = _encode(group, assignment)

    def drop(self, group: int) -> None:
        """The group is gone."""
        self._count(group, -1)
        del self._by_group[group], self._encoded[group]
        self._unsettled.pop(group, None)

    def _count(self, group: int, one: int) -> None:
        assignment = self._by_group.get(group)
        if assignment is None:
            return
        wanted = assignment.nodes
        for node in wanted:
            self._replicas[node] = self._replicas.get(node, 0) + one
        for node in {*wanted, *(each.node for each in assignment.leaving)}:
            self._held[node] = self._held.get(node, 0) + one
        if group:  # the metadata group is led by whoever is elected
            self._preferred[assignment.preferred] = self._preferred.get(assignment.preferred, 0) + one

    def encoded(self) -> list[bytes]:
        """As parts of a snapshot."""
        return list(self._encoded.values())

    def become(self, encoded: Sequence[bytes]) -> None:
        """What `encoded` gave."""
        counts = (self._replicas, self._held, self._preferred)
        for former in (self._by_group, self._encoded, *counts, self._unsettled):
            former.clear()
        for each in encoded:
            self.keep(*_decode(each))


def _encode(group: int, assignment: Assignment) -> bytes:
    lists = (assignment.founders, assignment.wanted, assignment.leaving)
    plain: list[Any] = [group, *([list(replica) for replica in each] for each in lists)]
    return cbor2.dumps([*plain, assignment.next_replica, assignment.epoch, assignment.settled], canonical=True)


def _decode(encoded: bytes) -> tuple[int, Assignment]:
    group, founders, wanted, leaving, following, epoch, settled = cbor2.loads(encoded)
    first, now, former = (tuple(Replica(*replica) for replica in each) for each in (founders, wanted, leaving))
    return group, Assignment(first, now, former, following, epoch, settled)
