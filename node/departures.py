"""Consumers of this node that are gone while another node leads: their leases are to be returned there.

    leadership goes ──> consumers are told, and noted here ──> the new leader: CONSUMER_GONE ──> forgotten here

Only the node that a consumer was attached at knows that it is gone, so its word is what returns the leases; if the
node ends before it could say so, its next start says it, or the leases' deadlines pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from plait.wire.errors import BadRequest
from replication.actor import Actor, Host, Promise
from replication.group import Group
from replication.peers.channels import Answer
from replication.peers.peers import Peers

CHANNEL = "consumers"
"""The channel on which nodes say it."""
DEPARTED_MAX = 100_000
"""Consumers that wait to be reported; of more, the leases run to their deadlines."""
REPORT_CONSUMERS = 1_000
"""Consumers in one report."""
REPORT_MS = 5_000
"""How long a leader may take to answer a report."""
FIRST_MS = 20
"""Wait before the first report: a new leader is not known at once."""
AGAIN_MS = 250
"""Wait before a report is tried again."""


class Departures(Actor):
    """One per node. Reports until the leader has said that it is done."""

    def __init__(
        self,
        host: Host,
        peers: Peers,
        node_id: int,
        group_of: Callable[[int], Group | None],
        consumers_gone: Callable[[int, list[str]], Promise[None]],
    ) -> None:
        """`consumers_gone`: have the partition of a group that is led here return the leases."""
        super().__init__(host, "departures")
        self._peers = peers
        self._node_id = node_id
        self._group_of = group_of
        self._consumers_gone = consumers_gone
        self._waiting: dict[int, dict[str, None]] = {}  # by group, in order of departure
        self._count = 0
        self._reporting: dict[int, None] = {}
        peers.serve(CHANNEL, self._serve)

    def departed(self, group: int, consumers: Iterable[str]) -> None:
        """These consumers of a group that this node leads no more are gone."""
        waiting = self._waiting.setdefault(group, {})
        for consumer in consumers:
            if consumer not in waiting and self._count < DEPARTED_MAX:
                waiting[consumer] = None
                self._count += 1
        self._look_in(FIRST_MS)

    def handle(self, messages: list[Any]) -> None:
        """Report what can be reported."""
        for group in [group for group in self._waiting if group not in self._reporting]:
            self._report(group)
        if self._waiting:
            self._look_in(AGAIN_MS)

    def _report(self, number: int) -> None:
        group, waiting = self._group_of(number), self._waiting[number]
        if group is None or not waiting:  # deleted
            self._count -= len(self._waiting.pop(number))
            return
        consumers = list(waiting)[:REPORT_CONSUMERS]
        leader = group.leader_node
        if leader == self._node_id:
            done: Promise[Any] = self._consumers_gone(number, consumers)
        elif leader:
            done = self._peers.ask(leader, CHANNEL, ["gone", number, consumers], timeout_ms=REPORT_MS)
        else:
            return
        self._reporting[number] = None
        done.then(partial(self._reported, number, consumers))

    def _reported(self, number: int, consumers: list[str], done: Promise[Any]) -> None:
        del self._reporting[number]
        if done.error is not None:
            return  # tried again at the next look; a leader that has done it already does no harm
        waiting = self._waiting.get(number, {})
        for consumer in consumers:
            if consumer in waiting:
                del waiting[consumer]
                self._count -= 1
        if not waiting:
            self._waiting.pop(number, None)
        self._look_in(FIRST_MS)

    def _look_in(self, wait_ms: int) -> None:
        when_ns = self.host.clock.monotonic_ns() + wait_ms * 1_000_000
        if self._waiting and not self.stopped and (self.alarm_ns is None or when_ns < self.alarm_ns):
            self.host.alarm(when_ns, self, None)

    def _serve(self, node: int, head: list[Any], payload: memoryview) -> Promise[Answer]:
        match head:
            case ["gone", int(group), list(consumers)]:
                answer: Promise[Answer] = Promise()
                self._consumers_gone(group, [str(each) for each in consumers]).then(partial(_pass_on, answer))
                return answer
        raise BadRequest(f"channel {CHANNEL} has no question {head!r:.60}; nothing was done")


def _pass_on(answer: Promise[Answer], done: Promise[None]) -> None:
    if done.error is not None:
        answer.reject(done.error)
    else:
        answer.resolve(([], []))
