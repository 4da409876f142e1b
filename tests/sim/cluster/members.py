"""Who is to be a member of which group, and the operator who sees to it.

    wanted {n1,n2,n4} ──> replica ids ──> learners first ──(caught up)──> voters ──> the rest is removed

Plays the part that the metadata of a real cluster has: it gives out replica ids, never one twice, and knows which
replicas are gone. It only asks; whatever it asks for may fail half-way and is asked for again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from plait.wire.errors import PlaitError
from replication.machine import Role
from replication.raft.membership import Membership
from tests.sim.cluster.member import Member

if TYPE_CHECKING:
    from tests.sim.cluster.box import Box
    from tests.sim.cluster.node import GroupBox
    from tests.sim.cluster.world import World

LOOK_S = 0.15
"""Time between two looks at all groups."""
CHANGE_S = 1.5
"""Time after which the operator does not wait for a change any more."""


class Members:
    """Of all groups."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.wanted: dict[int, list[GroupBox]] = {}
        """By group, the boxes that are to have a voter."""
        self.gone: dict[tuple[int, int], None] = {}
        """(group, replica) that must not come back: removed, or its disk is lost."""
        self.seen: dict[tuple[int, int], None] = {}
        """(group, replica) that have been on their nodes."""
        self.alone_once: dict[str, None] = {}
        """Boxes with a replica that is, or once was, the only voter of its group."""
        self._next: dict[int, int] = {}
        self._ids: dict[tuple[int, str, int], int] = {}  # (group, box, node id): the replica that is to be there

    def found(self, group: int, boxes: list[GroupBox]) -> Membership:
        """The first members of a group."""
        self.wanted[group] = boxes
        self._note_alone(boxes)
        self._next[group] = len(boxes) + 1
        voters = {replica: box.node_id for replica, box in enumerate(boxes, 1)}
        for replica, box in enumerate(boxes, 1):
            self._ids[group, box.name, box.node_id] = replica
        return Membership(voters)

    def _note_alone(self, boxes: list[GroupBox]) -> None:
        if len(boxes) == 1:
            self.alone_once[boxes[0].name] = None

    def is_settled(self, group: int) -> bool:
        """The members are those that are wanted, and everybody who leads knows."""
        leader = self.leader(group)
        if leader is None or leader.group.core is None:
            return False
        core = leader.group.core
        voters = {self._id(group, box): box.node_id for box in self.wanted[group]}
        done = core.membership_index <= core.commit and not core.membership.joint
        return done and core.membership.voters == voters and not core.membership.learners

    def leader(self, group: int) -> Member | None:
        """The replica that leads and serves; of several, the one of the highest term."""
        found = [box.member_of[group] for box in self._world.boxes if group in box.member_of]
        leading = [member for member in found if member.leads]
        return max(leading, key=lambda member: member.group.term, default=None)

    async def run(self) -> None:
        """Look after all groups until cancelled."""
        async with trio.open_nursery() as nursery:
            for group in self.wanted:
                nursery.start_soon(self._look_after, group)

    async def _look_after(self, group: int) -> None:
        while True:
            await trio.sleep(LOOK_S)
            self._note_alone(self.wanted[group])  # before anybody is asked to make it so
            leader = self.leader(group)
            if leader is None or leader.group.core is None or self.is_settled(group):
                if leader is not None:
                    self._clean(group, leader)
                continue
            node = self._world.box_of(leader)
            if node is not None and not self._world.gate.is_paused(node.name):
                await self._step(group, leader)

    async def _step(self, group: int, leader: Member) -> None:
        core = leader.group.core
        assert core is not None, "a leader has a core"
        membership = core.membership
        if membership.joint or core.membership_index > core.commit:
            return
        wanted = {self._id(group, box): box.node_id for box in self.wanted[group]}
        for box in self.wanted[group]:
            if not await self._install(group, self._id(group, box), box):
                return
        missing = {replica: node for replica, node in wanted.items() if replica not in membership}
        if missing:
            await self._ask(group, leader, membership.voters, {**membership.learners, **missing})
        elif dict(membership.voters) != wanted or membership.learners:
            await self._ask(group, leader, wanted, {})

    async def _ask(self, group: int, leader: Member, voters: object, learners: object) -> None:
        events = self._world.events
        promise = leader.group.change_membership(voters, learners)  # type: ignore[arg-type]  # both are mappings
        outcome = "not yet"
        with trio.move_on_after(CHANGE_S):
            try:
                await promise.wait()
                outcome = "done"
                events.reached("membership changed")
            except PlaitError as error:
                outcome = error.code
        if outcome != "unavailable":
            events.note("members", f"group={group}", f"voters={voters}", f"learners={learners}", outcome)

    async def _install(self, group: int, replica: int, box: GroupBox) -> bool:
        """See that a replica is on its node; False: not now."""
        life = box.life
        if life is None or not life.started or self._world.gate.is_paused(box.name):
            return False
        there = life.members.get(group)
        if there is not None and there.replica != replica:
            if not there.group.failure and there.replica in self._members_of(group):
                return False
            life.remove(group)
            there = None
        if there is None:
            if life.may_begin(group, replica):
                life.add(group, replica)
            return False
        return True

    def _clean(self, group: int, leader: Member) -> None:
        """What is no member any more is taken away, as far as its node can be reached."""
        members = leader.group.membership
        for box in self._world.boxes:
            member = box.member_of.get(group)
            if member is not None and member.replica not in members and not self._world.gate.is_paused(box.name):
                assert box.life is not None, "it has members"
                box.life.remove(group)

    def _members_of(self, group: int) -> dict[int, int]:
        leader = self.leader(group)
        return leader.group.membership.members() if leader is not None else {}

    def _id(self, group: int, box: GroupBox) -> int:
        """The replica of a group that is to be on a box: a new one for a box that lost what it had."""
        key = group, box.name, box.node_id
        replica = self._ids.get(key)
        there = box.member_of.get(group)
        if there is not None and there.replica == replica and there.group.lost:
            self.gone[group, replica] = None  # what it had is lost: it must not come back under its id
            self._world.events.reached("replica replaced")
        if replica is None or (group, replica) in self.gone:
            replica = self._ids[key] = self._next[group]
            self._next[group] += 1
        return replica

    def lose(self, box: GroupBox) -> None:
        """The replicas of a box are gone with its disk."""
        for (group, name, _), replica in list(self._ids.items()):
            if name == box.name:
                self.gone[group, replica] = None

    def may_lose(self, boxes: list[Box]) -> bool:
        """True if no group can lose anything that a majority had when these boxes' disks are worth nothing."""
        whole = {box.node_id: None for box in self._world.boxes if box not in boxes}
        for group, cores in self._world.cores.items():
            memberships = [core.membership for core in cores.values() if core.role is not Role.FENCED]
            wanted = {replica: box.node_id for replica, box in enumerate(self.wanted[group])}
            for membership in [*memberships, Membership(wanted)]:
                for voters in membership.voter_sets():
                    lost = sum(node not in whole for node in voters.values())
                    if 2 * lost >= len(voters):
                        return False
        return True
