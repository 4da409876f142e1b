"""Who belongs to a group: a value, its bytes in the log, and the way from one membership to the next.

    members {a,b,c} ──> joint {a,b,c} and {b,c,d} ──(committed: the leader goes on by itself)──> {b,c,d}

While two sets of voters stand, everything needs a majority of each (dissertation 4.3). Learners get the log and
count for nothing. A replica's id is given once in a group's life; the node that it lives on is said beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cbor2

MEMBERS_MAX = 16
"""Replicas of one group, learners included."""


@dataclass(frozen=True, slots=True)
class Membership:
    """Replica ids, each with the node that it lives on. Compares by value."""

    voters: Mapping[int, int]
    learners: Mapping[int, int] = field(default_factory=dict)
    outgoing: Mapping[int, int] = field(default_factory=dict)
    """The former voters while two sets stand; else empty."""

    @property
    def joint(self) -> bool:
        """Two sets of voters stand."""
        return bool(self.outgoing)

    def voter_sets(self) -> tuple[Mapping[int, int], ...]:
        """A majority of each is a quorum."""
        return (self.voters, self.outgoing) if self.outgoing else (self.voters,)

    def is_voter(self, replica: int) -> bool:
        """It votes in one of the sets."""
        return replica in self.voters or replica in self.outgoing

    def members(self) -> dict[int, int]:
        """Replica to node, of all who get the log, in order of replica id."""
        return dict(sorted({**self.learners, **self.outgoing, **self.voters}.items()))

    def __contains__(self, replica: int) -> bool:
        return replica in self.voters or replica in self.outgoing or replica in self.learners

    def entering(self, voters: Mapping[int, int], learners: Mapping[int, int]) -> Membership:
        """The first step towards these members: joint where the voters differ, else done at once."""
        if dict(voters) == dict(self.voters):
            return Membership(dict(voters), dict(learners))
        return Membership(dict(voters), dict(learners), dict(self.voters))

    def left(self) -> Membership:
        """The second step: the outgoing voters are gone, as far as they do not stay on as learners."""
        return Membership(dict(self.voters), dict(self.learners))

    def encode(self) -> bytes:
        """As the payload of an entry; equal memberships give equal bytes."""
        parts = (self.voters, self.learners, self.outgoing)
        return cbor2.dumps([1, *(sorted(part.items()) for part in parts)])


def decode_membership(payload: bytes | bytearray | memoryview) -> Membership:
    """What `Membership.encode` gave. Raises ValueError for anything else."""
    found = cbor2.loads(bytes(payload))
    if not isinstance(found, list) or len(found) != 4 or found[0] != 1:
        raise ValueError("a membership of a version that this node does not know")
    voters, learners, outgoing = (dict(part) for part in found[1:])
    return Membership(voters, learners, outgoing)
