"""Telling groups about nodes: in order, and in slices, for thousands of groups may be concerned.

node_changed(7, down) ──> queue ──> 256 groups now, 256 in the next turn, ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import structlog

from replication.actor import Actor, Host, MailboxFull
from replication.raft.messages import Message

_logger = structlog.get_logger("plait.peers")

SLICE_GROUPS = 256
"""Groups told in one turn."""


class GroupMember(Protocol):
    """A group's replica, as the links see it. All calls are synchronous, come on the loop, and return at once."""

    group: int

    def receive(self, node_id: int, message: Message) -> None:
        """A message came from a replica on that node. May raise MailboxFull: then it is lost, as messages are."""

    def node_down(self, node_id: int) -> None:
        """Nothing is heard of the node any more."""

    def node_up(self, node_id: int) -> None:
        """The node is there (again); it may have been restarted."""

    def unreachable(self, node_id: int) -> None:
        """Messages to the node were dropped, or may be lost."""

    def wake(self) -> None:
        """It sleeps, and somebody else seems not to: it is to wake up."""


class News(Actor):
    """Tells the groups of a node what happened. Its mailbox only wakes it: what is to be told waits in here."""

    def __init__(self, host: Host, members: dict[int, GroupMember]) -> None:
        super().__init__(host, "peers/news")
        self._members = members
        self._changes: deque[tuple[int, bool]] = deque()
        self._telling: deque[tuple[int, Callable[[GroupMember], None]]] = deque()
        self.missed = 0
        """Words that a group had no room for."""

    def node_changed(self, node: int, up: bool) -> None:
        """To be told to every group. What was taken back before anybody heard of it is not told."""
        waiting = [found for found in self._changes if found[0] == node]
        if len(waiting) >= 2 and waiting[0][1] == up:
            for found in waiting[1:]:
                self._changes.remove(found)
        else:
            self._changes.append((node, up))
        self._go_on()

    def unreachable(self, node: int, groups: Iterable[int]) -> None:
        """To be told to these groups."""
        self._tell(groups, lambda member: member.unreachable(node))

    def wake(self, groups: Iterable[int]) -> None:
        """To be told to these groups."""
        self._tell(groups, _wake)

    def handle(self, messages: list[Any]) -> None:
        """Tell the next slice."""
        for _ in range(SLICE_GROUPS):
            if not self._telling and not self._next_change():
                return
            group, tell = self._telling.popleft()
            member = self._members.get(group)
            if member is not None:
                try:
                    tell(member)
                except MailboxFull:
                    self.missed += 1
                except Exception as error:  # a defect of one group must not keep the news from the others
                    _logger.error("group failed at news of a node", group=group, exc_info=error)
        self._go_on()

    def _tell(self, groups: Iterable[int], tell: Callable[[GroupMember], None]) -> None:
        self._telling.extend((group, tell) for group in groups)
        self._go_on()

    def _next_change(self) -> bool:
        while self._changes and not self._telling:
            node, up = self._changes.popleft()
            tell = _up(node) if up else _down(node)
            self._telling.extend((group, tell) for group in self._members)
        return bool(self._telling)

    def _go_on(self) -> None:
        if not self._scheduled and (self._telling or self._changes):
            self.post(None)


def _wake(member: GroupMember) -> None:
    member.wake()


def _up(node: int) -> Callable[[GroupMember], None]:
    return lambda member: member.node_up(node)


def _down(node: int) -> Callable[[GroupMember], None]:
    return lambda member: member.node_down(node)
