"""Which groups this node begins and ceases to lead: counted, and told to the log in sums.

After a failure thousands of groups change their leader within a second: each is a line for those who debug, the
others get one line about all of them.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from replication.group import Group
from replication.machine import Role, RoleChange

REPORT_MS = 1_000
"""Shortest time between two lines about changes of leadership."""
NS_PER_MS = 1_000_000

_logger = structlog.get_logger("plait.node")


class Standings:
    """One per node."""

    def __init__(self, alone: Callable[[], bool]) -> None:
        """`alone`: nobody else could lead, so there is nothing to tell."""
        self._alone = alone
        self.gained = 0
        """How often a group began to be led and served here."""
        self.lost = 0
        """How often one ceased to be."""
        self.fenced = 0
        """How often a replica was taken out of service for good."""
        self._leads: dict[int, None] = {}
        self._told = (0, 0)
        self._told_ns = 0

    @property
    def leads(self) -> int:
        """Groups that are led and served here now."""
        return len(self._leads)

    def changed(self, group: Group, change: RoleChange) -> None:
        """A replica's role has changed."""
        led, leads = group.group in self._leads, change.role is Role.LEADER and change.ready
        if change.role is Role.FENCED:
            self.fenced += 1
        if leads and not led:
            self._leads[group.group] = None
            self.gained += 1
            _logger.debug("group is led here", group=group.group, term=change.term)
        elif led and not leads:
            del self._leads[group.group]
            self.lost += 1
            _logger.debug("group is not led here any more", group=group.group, term=change.term)

    def forget(self, group_id: int) -> None:
        """The group has no replica here any more."""
        self._leads.pop(group_id, None)

    def report(self, now_ns: int) -> None:
        """Tell the log what has changed, if that is due. Called often."""
        told = (self.gained, self.lost)
        if self._alone() or told == self._told or now_ns - self._told_ns < REPORT_MS * NS_PER_MS:
            return
        gained, lost = self.gained - self._told[0], self.lost - self._told[1]
        self._told, self._told_ns = told, now_ns
        _logger.info("leaderships changed", gained=gained, lost=lost, leads=self.leads)
