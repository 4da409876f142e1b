"""Where the replicas of a group are to be, and the way from one answer to the next.

    wanted {1@n1, 2@n2, 3@n3} ──reassigned: n1, n2, n4──> wanted {1@n1, 2@n2, 4@n4}, leaving {3@n3}
                                                            │ the group's leader takes the steps (node/moving.py)
                              settled <──────────────────── └ the group has exactly these members: 3@n3 may go

A replica's id is given once in a group's life: a node that gets one back after it had lost it gets a new one. One
that is still on its way out stays what it is: it may be a member that the group cannot do without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

FOUNDERS_MAX = 7
"""Replicas that a group can begin with; those that come later have higher ids."""


class Place(NamedTuple):
    """A node that is to have a replica."""

    node: int
    votes: bool


class Replica(NamedTuple):
    """One copy of a group."""

    replica: int
    node: int
    votes: bool
    """It counts for majorities; else it is a learner."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """The replicas of one group."""

    founders: tuple[Replica, ...]
    """The members that the group began with."""
    wanted: tuple[Replica, ...]
    """Those that it is to have, in the order in which they are to lead."""
    leaving: tuple[Replica, ...]
    """Those that it had before, and may still have: their data stays until the group has gone over."""
    next_replica: int
    """The id of the next replica that is given."""
    epoch: int = 1
    """How often this was changed, from 1."""
    settled: bool = True
    """The group is known to have exactly the wanted members."""

    @property
    def voters(self) -> dict[int, int]:
        """Replica to node, of those that are to vote."""
        return {each.replica: each.node for each in self.wanted if each.votes}

    @property
    def learners(self) -> dict[int, int]:
        """Replica to node, of those that are not to."""
        return {each.replica: each.node for each in self.wanted if not each.votes}

    @property
    def preferred(self) -> int:
        """The node that is to lead, if it can."""
        return next((each.node for each in self.wanted if each.votes), 0)

    @property
    def places(self) -> tuple[Place, ...]:
        """The nodes that are to have a replica."""
        return tuple(Place(each.node, each.votes) for each in self.wanted)

    @property
    def nodes(self) -> list[int]:
        """The same, without more."""
        return [each.node for each in self.wanted]

    def replica_on(self, node: int) -> Replica | None:
        """The replica that the node is to have, or keep until the group has gone over; the newest."""
        found = [each for each in (*self.leaving, *self.wanted) if each.node == node]
        return found[-1] if found else None

    def is_founder(self, replica: int) -> bool:
        """Whether the group began with it: only such a one may open an empty log as a member."""
        return any(each.replica == replica for each in self.founders)

    def founder_on(self, node: int) -> int:
        """The replica that the group began with on a node; 0: it had none there."""
        return next((each.replica for each in self.founders if each.node == node), 0)

    def reassigned(
        self, places: Sequence[Place], renew: Sequence[int] = (), *, numbered: bool = False
    ) -> Assignment:
        """Have the replicas at these places, in this order. Nodes keep the replicas that they have, also those
        on their way out, except those in `renew`, which get new ones. `numbered`: a new replica has its node's id
        (the metadata group)."""
        had = {each.node: each for each in (*self.leaving, *self.wanted) if each.node not in renew}
        number = self.next_replica
        wanted: list[Replica] = []
        for node, votes in places:
            known = had.get(node)
            given = node if numbered else number
            wanted.append(Replica(known.replica if known is not None else given, node, votes))
            number += known is None
        kept = {each.replica for each in wanted}
        leaving = [each for each in (*self.leaving, *self.wanted) if each.replica not in kept]
        return replace(
            self,
            wanted=tuple(wanted),
            leaving=tuple(leaving),
            next_replica=number,
            epoch=self.epoch + 1,
            settled=False,
        )

    def went_over(self) -> Assignment:
        """The group has exactly the wanted members."""
        return replace(self, leaving=(), settled=True)


def founded(places: Sequence[Place]) -> Assignment:
    """The assignment of a new group."""
    replicas = tuple(Replica(number, node, votes) for number, (node, votes) in enumerate(places, start=1))
    return Assignment(replicas, replicas, (), FOUNDERS_MAX + 1)


def metadata_founded(nodes: Mapping[int, bool]) -> Assignment:
    """The assignment of the metadata group, in which a node's replica has the node's id, from its founders."""
    replicas = tuple(Replica(node, node, votes) for node, votes in sorted(nodes.items()))
    return Assignment(replicas, replicas, (), max(nodes, default=0) + 1)
