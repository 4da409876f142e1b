"""How a node leaves in order: what it leads is handed to others first, and nobody hands it anything any more.

    ending ──tells the others──> they give it no leadership
       └──some groups at a time──> transfer to a follower that is caught up ──> none left, or the time is over

What cannot be handed over in time is led again by others as soon as this node is gone: it costs them an election.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import structlog
import trio

from plait.wire.errors import PlaitError
from replication.actor import Promise
from replication.environment import Clock
from replication.group import Group
from replication.machine import Role
from replication.peers.channels import Answer
from replication.peers.peers import Peers
from replication.raft.followers import Follower

CHANNEL = "ending"
"""The channel on which a node says that it is about to end."""
HANDOVER_MS = 5_000
"""Longest that a node which ends takes to hand over what it leads."""
TELL_MS = 500
"""Longest that it waits for the others to know."""
TRANSFERS = 64
"""Groups that are handed over at a time."""
AGAIN_MS = 50
"""Wait after a round in which no group was taken over."""
NS_PER_MS = 1_000_000

_logger = structlog.get_logger("plait.node")


class Handover:
    """One per node: knows which others are about to end, and hands over when this one is."""

    def __init__(self, clock: Clock, peers: Peers, groups: Callable[[], Iterable[Group]]) -> None:
        """`groups`: the replicas that are open on this node."""
        self._clock = clock
        self._peers = peers
        self._groups = groups
        self._ending: dict[int, None] = {}
        self._given: dict[int, int] = {}  # node: groups that it was offered
        self._tries: dict[int, int] = {}  # group: how often it was offered
        peers.serve(CHANNEL, self._told)

    # what others do

    def may_lead(self, node: int) -> bool:
        """Whether leadership may be handed to that node: it is heard, and is not about to end."""
        return node not in self._ending and self._peers.is_up(node)

    def node_changed(self, node: int) -> None:
        """A node was heard again, or is silent: either way it is not about to end any more."""
        self._ending.pop(node, None)

    def _told(self, node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
        _logger.info("node is about to end", node=node)
        self._ending[node] = None
        answer: Promise[Answer] = Promise()
        answer.resolve(([], []))
        return answer

    # what this node does

    async def run(self) -> None:
        """Hand over what is led here, as far as that is possible within HANDOVER_MS."""
        for group in self._groups():
            group.retire()
        led = len(self._led())
        if not led:
            return
        began_ns = self._clock.monotonic_ns()
        with trio.move_on_after(HANDOVER_MS / 1_000):
            await self._tell()
            while await self._hand_over_some():
                pass
        took_ms = (self._clock.monotonic_ns() - began_ns) // NS_PER_MS
        _logger.info("leadership handed over", groups=led, left=len(self._led()), ms=took_ms)

    async def _tell(self) -> None:
        told = [self._peers.ask(node, CHANNEL, [], timeout_ms=TELL_MS) for node in self._peers.nodes_up()]
        await _settled(told)

    async def _hand_over_some(self) -> bool:
        """A round; whether another one may help."""
        heirs = [
            (group, heir)
            for group in self._led()
            if (heir := choose_heir(group, self.may_lead, self._given)) is not None
        ]
        if not heirs:
            return False
        heirs.sort(key=lambda pair: self._tries.get(pair[0].group, 0))
        asked: list[Promise[None]] = []
        for group, heir in heirs[:TRANSFERS]:
            self._tries[group.group] = self._tries.get(group.group, 0) + 1
            self._given[heir.node] = self._given.get(heir.node, 0) + 1
            asked.append(group.transfer(heir.replica))
        await _settled(asked)
        if all(promise.error is not None for promise in asked):
            await self._clock.sleep_until(self._clock.monotonic_ns() + AGAIN_MS * NS_PER_MS)
        return True

    def _led(self) -> list[Group]:
        """The groups that are led here and have another voter."""
        return [
            group for group in self._groups() if group.role is Role.LEADER and len(group.membership.voters) > 1
        ]


def choose_heir(group: Group, may_lead: Callable[[int], bool], given: Mapping[int, int]) -> Follower | None:
    """Who is to lead a group that is led here: a voter that is caught up before one that is not; nodes take turns,
    as `given` says how many groups each was offered."""
    able = [each for each in group.followers() if each.voter and may_lead(each.node)]
    return min(able, key=lambda each: (not each.caught_up, given.get(each.node, 0), each.node), default=None)


async def _settled(promises: Iterable[Promise[Any]]) -> None:
    for promise in promises:
        with suppress(PlaitError):
            await promise.wait()
