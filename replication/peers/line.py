"""Groups that want to campaign, with the clock beside: gives free places to those in line (campaigns.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replication.actor import Actor, Host, MailboxFull
from replication.peers.campaigns import Campaigns


class Line(Actor):
    """Its mailbox only wakes it: who waits is in `Campaigns`."""

    def __init__(self, host: Host, campaigns: Campaigns) -> None:
        super().__init__(host, "peers/campaigns")
        self._campaigns = campaigns
        self._turns: dict[int, Callable[[], None]] = {}

    def may_start(self, group: int, turn: Callable[[], None]) -> bool:
        """Whether it may; else `turn` is called when it may."""
        may = self._campaigns.may_start(group, self.host.clock.monotonic_ns())
        if may:
            self._turns.pop(group, None)
        else:
            self._turns[group] = turn
            self._wait()
        return may

    def ended(self, group: int) -> None:
        """It has no place any more, and does not stand in line."""
        self._turns.pop(group, None)
        self._campaigns.ended(group)
        if self._campaigns.waiting and not self._scheduled:
            self.post(None)

    def handle(self, messages: list[Any]) -> None:
        """Give free places to those in line."""
        while (group := self._campaigns.next(self.host.clock.monotonic_ns())) is not None:
            try:
                self._turns.pop(group)()
            except MailboxFull:  # it has more urgent things to do
                self._campaigns.ended(group)
        self._wait()

    def _wait(self) -> None:
        deadline_ns = self._campaigns.next_deadline_ns()
        if deadline_ns is not None and deadline_ns != self.alarm_ns and not self.stopped:
            self.host.alarm(deadline_ns, self, None)
