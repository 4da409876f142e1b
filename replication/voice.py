"""How one replica speaks to the others: where they live, who is told that it sleeps, and its turn to campaign.

message ──(node of its target)──> links          core sleeps, wakes ──> links
an election is due ──may I?──> links ──its turn──> the core campaigns ──over──> links
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from replication.machine import Role
from replication.raft.core import RaftCore
from replication.raft.elections import may_campaign
from replication.raft.membership import Membership
from replication.raft.messages import Message


class Links(Protocol):
    """What a group needs of the links between nodes (replication/peers/peers.py)."""

    def send(self, group_id: int, node_id: int, message: Message) -> None:
        """Never blocks; the message may be lost."""

    def asleep(self, group: int, term: int, leader_node: int, follower_nodes: Iterable[int]) -> None:
        """The replica fell asleep; for a leader: with those on these nodes."""

    def awake(self, group: int) -> None:
        """It sleeps no more."""

    def may_campaign(self, group: int, turn: Callable[[], None]) -> bool:
        """Whether it may campaign now, with a place of its own; else `turn` is called when it may."""

    def campaign_over(self, group: int) -> None:
        """It needs neither its place nor its turn any more."""


class Voice:
    """Of one replica of a group; without links there is nobody to speak to."""

    __slots__ = ("_campaigns", "_group", "_links", "_nodes", "_slept", "_turn", "in_line")

    def __init__(self, group: int, links: Links | None, turn: Callable[[], None]) -> None:
        """`turn`: called when the replica, which stood in line, may campaign."""
        self.in_line = False
        """It stands in line to campaign; time does nothing to it meanwhile."""
        self._group = group
        self._links = links
        self._turn = turn
        self._nodes: dict[int, int] = {}  # by replica
        self._slept = False  # as the links were told
        self._campaigns = False  # it has a place among those that campaign, or stands in line for one

    # where the others are

    def node(self, replica: int) -> int:
        """The node where a replica lives; 0: not known."""
        return self._nodes.get(replica, 0)

    def replicas_on(self, node: int) -> Iterator[int]:
        """The replicas that are known to live there."""
        return (replica for replica, place in list(self._nodes.items()) if place == node)

    def heard(self, replica: int, node: int) -> None:
        """A replica has spoken from there."""
        self._nodes[replica] = node

    def learn(self, membership: Membership) -> None:
        """Former members are remembered until the next change: they may still have to be told something."""
        self._nodes.update(membership.members())

    # what they are told

    def send(self, message: Message) -> None:
        """On its way, or lost."""
        node = self._nodes.get(message.target)
        if node is not None and self._links is not None:
            self._links.send(self._group, node, message)

    def tell(self, core: RaftCore, failed: bool) -> None:
        """Have the links know what has become of the replica: campaigning no more, asleep, awake."""
        links = self._links
        if links is None:
            return
        if self._campaigns and (core.leader or failed or not may_campaign(core)):
            self._campaigns = self.in_line = False
            links.campaign_over(self._group)
        if core.asleep is self._slept:
            return
        self._slept = core.asleep
        if not core.asleep:
            links.awake(self._group)
        elif core.role is Role.LEADER:
            nodes = [progress.node for progress in core.progress.values() if progress.asleep]
            links.asleep(self._group, core.term, core.membership.members()[core.replica], nodes)
        else:
            links.asleep(self._group, core.term, self.node(core.leader), ())

    # its turn

    def may_campaign(self, core: RaftCore) -> bool:
        """Whether what is due now may be done; an election waits for its turn among the node's groups."""
        if self._links is not None and core.role is Role.FOLLOWER and may_campaign(core):
            self._campaigns = True
            self.in_line = not self._links.may_campaign(self._group, self._its_turn)
        return not self.in_line

    def _its_turn(self) -> None:
        self.in_line = False
        self._turn()
