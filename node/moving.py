"""Takes the groups that are led here to the members that the catalogue wants, one step at a time.

    wanted ≠ members:  learners are added ──caught up──> voters change, in a joint step ──committed──> "went over"

Each step is asked of the group, and looked at again: whatever fails half-way, or with a leader that dies, is taken
up by the next one, from what the group itself says. A replica of this node that has lost what it vouched for asks
for another in its place, until the catalogue has given it one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from cluster.assignment import Assignment
from cluster.catalogue import METADATA_GROUP, Catalogue
from cluster.commands import Command, Reassign, WentOver
from replication.actor import Actor, Host, Promise
from replication.group import Group

_logger = structlog.get_logger("plait.node")

LOOK_AGAIN_MS = 100
"""Time between two looks at groups that have not gone over."""
RENEW_AGAIN_MS = 1_000
"""Time between two questions for replicas in the place of lost ones."""
STEPS = 32
"""Groups of which one look takes a step."""


class Moving(Actor):
    """One per node. Costs nothing while everything is where it should be."""

    def __init__(
        self, host: Host, catalogue: Catalogue, node_id: int, submit: Callable[[Command], Promise[Any]]
    ) -> None:
        """`submit`: have a command carried out by the catalogue, wherever it is led."""
        super().__init__(host, "moving")
        self._catalogue = catalogue
        self._node_id = node_id
        self._submit = submit
        self._led: dict[int, Group] = {}
        self._open: dict[int, None] = {}  # led here, and not where they should be
        self._asked: dict[int, None] = {}  # a step of theirs is under way
        self._lost: dict[int, int] = {}  # by group, the replica here that is to be replaced

    def standing(self, group: Group, leads: bool) -> None:
        """This node leads a group, and serves; or it does not."""
        if leads:
            self._led[group.group] = group
            self.placed(group.group)
        else:
            self._led.pop(group.group, None)
            self._open.pop(group.group, None)
        if group.lost and group.group != METADATA_GROUP and self._lost.get(group.group) != group.replica:
            _logger.warning("replica is lost and asks for another in its place", group=group.group)
            self._lost[group.group] = group.replica
            self._look_in(0)

    def placed(self, group: int) -> None:
        """The assignment of a group may be another one now."""
        if group in self._led:
            self._open[group] = None
            self._look_in(0)

    def handle(self, messages: list[Any]) -> None:
        """Take the next steps."""
        for group in [group for group in self._open if group not in self._asked][:STEPS]:
            assignment, led = self._catalogue.assignment(group), self._led.get(group)
            if assignment is None or led is None:
                self._open.pop(group, None)
            elif self._is_there(led, assignment):
                self._open.pop(group, None)
                if not assignment.settled:
                    self._ask(group, self._submit(WentOver(group, assignment.epoch, 0)), again=True)
            else:
                del self._open[group]  # to the end: one that cannot go on keeps no others waiting
                self._open[group] = None
                self._step(led, assignment)
        for group in [group for group in self._lost if group not in self._asked][:STEPS]:
            self._renew(group)
        if self._open:
            self._look_in(LOOK_AGAIN_MS)
        elif self._lost:
            self._look_in(RENEW_AGAIN_MS)

    def _renew(self, group: int) -> None:
        assignment, lost = self._catalogue.assignment(group), self._lost.pop(group)
        own = assignment.replica_on(self._node_id) if assignment is not None else None
        if assignment is None or own is None or own.replica != lost:
            return  # it was replaced, or is not wanted any more
        if len(assignment.wanted) + len(assignment.leaving) == 1:
            return  # nobody has what it lost
        self._lost[group] = lost
        if own in assignment.wanted:
            places = [[node, int(votes)] for node, votes in assignment.places]
            self._ask(group, self._submit(Reassign(group, assignment.epoch, places, [self._node_id], 0)))

    @staticmethod
    def _is_there(group: Group, assignment: Assignment) -> bool:
        """Whether the group has the wanted members, for certain."""
        members = group.membership
        same = members.voters == assignment.voters and members.learners == assignment.learners
        return same and not members.joint and group.members_committed

    def _step(self, group: Group, assignment: Assignment) -> None:
        members = group.membership
        if members.joint or not group.members_committed:
            return
        voters, learners = assignment.voters, assignment.learners
        missing = {
            replica: node for replica, node in {**voters, **learners}.items() if replica not in members.members()
        }
        if missing:  # they learn first
            self._ask(group.group, group.change_membership(members.voters, {**members.learners, **missing}))
        else:  # refused until they have caught up
            self._ask(group.group, group.change_membership(voters, learners))

    def _ask(self, group: int, asked: Promise[Any], *, again: bool = False) -> None:
        self._asked[group] = None

        def done(_: Promise[Any]) -> None:
            self._asked.pop(group, None)
            if again and asked.error is not None and group in self._led:  # nobody heard it: say it again, soon
                self._open[group] = None
                self._look_in(LOOK_AGAIN_MS)

        asked.then(done)

    def _look_in(self, wait_ms: int) -> None:
        when_ns = self.host.clock.monotonic_ns() + wait_ms * 1_000_000
        if (self._open or self._lost) and not self.stopped and (self.alarm_ns is None or when_ns < self.alarm_ns):
            self.host.alarm(when_ns, self, None)
