"""A reader's membership of a consumer group: comes in, keeps its session, and knows what it may read.

    JOIN ──> HEARTBEAT ──known already: answered when there is news──> HEARTBEAT ──> ...      LEAVE
                 └──"stale_generation": it was taken for dead──> everything is lost, JOIN

The broker gives nobody a partition that another member may still be reading. For that it must be sure when a
member
that it cannot reach has stopped: when the member's session is over, which the member measures from when it sent
the last heartbeat that was answered, and the broker from when that arrived, which is later.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import anyio

from plait.client.connection import Connection, closed_error
from plait.wire.errors import PlaitError, StaleGeneration
from plait.wire.messages import Assigned, Heartbeat, Join, Leave, Nothing

if TYPE_CHECKING:
    from plait.client.group import GroupSubscription

HEARTBEAT_WAIT_S = 5.0
"""Longest that a heartbeat waits at the broker for news."""
LEAVE_S = 5.0
"""Longest that a member which goes waits for the broker to know."""
MEMBER_ID_BITS = 64
"""Random bits of a member's id."""
DRIFT_SHARE = 0.05
"""Of its session a member stops so much earlier than its brokers do: their clocks may run faster by as much."""


class Membership:
    """One member. Holds its subscription weakly: one that is dropped without being closed leaves."""

    def __init__(self, connection: Connection, topic: str, group: str, session_s: float) -> None:
        self.member = f"{connection.outside.random.getrandbits(MEMBER_ID_BITS):016x}"
        self.generation = 0
        """The last one that was told."""
        self.partitions: frozenset[int] = frozenset()
        """What it may read; nothing once its session is over."""
        self.acknowledged = 0
        self.deadline_s = 0.0
        """When its session is over (loop's clock), unless a heartbeat is answered before."""
        self.alive = False
        """Its session is not over."""
        self.error: Exception | None = None
        """Why it is none any more."""
        self.subscription: weakref.ref[GroupSubscription] | None = None
        self._connection = connection
        self._topic = topic
        self._group = group
        self._session_s = session_s
        self._closed = False
        self._news = anyio.Event()
        self._joined = anyio.Event()
        self._scope = anyio.CancelScope()
        connection.memberships[self] = None

    async def run(self) -> None:
        """Be a member until `leave`, or until something fails; to be spawned."""
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._follow, name="plait group member")
                    await self._keep()
        finally:
            self.abandon()  # if it is cancelled and nobody has done so
            self._connection.memberships.pop(self, None)
            self._joined.set()

    async def joined(self) -> None:
        """Wait until it was let in. Raises PlaitError."""
        await self._joined.wait()
        if self.error is not None:
            raise self.error
        if not self.generation:
            raise closed_error()

    async def acknowledge(self, generation: int) -> None:
        """Tell the broker at once that nothing is read any more but what was told with that generation."""
        self.acknowledged = generation
        await self._beat(wait_s=0)

    async def leave(self) -> None:
        """Be no member any more; what it had goes to others at once, or at the end of its session."""
        if self._closed:
            return
        self._closed = True
        self._scope.cancel()
        if self.generation and self._connection.up:
            with anyio.move_on_after(LEAVE_S):
                try:
                    await self._connection.request(lambda: Leave(0, self._group, self.member), Nothing)
                except PlaitError:
                    return  # its session will end

    def abandon(self) -> None:
        """As `leave`, without waiting: for a subscription that was dropped."""
        if not self._closed:
            self._closed = True
            self._scope.cancel()
            if self._connection.up:
                self._connection.post(Leave(0, self._group, self.member), lambda reply: None)

    def fail(self, error: Exception) -> None:
        """It ends with this error, which the subscription raises."""
        if not self._closed:
            self.error = error
            if (subscription := self._subscription()) is not None:
                subscription.failed(error)
            self.abandon()

    def look(self) -> None:
        """See whether the session is over: then nothing may be read any more."""
        if self.alive and anyio.current_time() >= self.deadline_s:
            self._lose()

    # inside

    def _subscription(self) -> GroupSubscription | None:
        return self.subscription() if self.subscription is not None else None

    async def _keep(self) -> None:
        """Join and keep the session, again and again."""
        try:
            while True:
                sent_s = anyio.current_time()
                self._heard(sent_s, await self._connection.request(self._join, Assigned))
                self._joined.set()
                while True:
                    try:
                        await self._beat(self._wait_s)
                    except StaleGeneration:
                        self._lose()
                        break
        except PlaitError as error:
            self._lose()
            self.fail(error)

    @property
    def _wait_s(self) -> float:
        return min(HEARTBEAT_WAIT_S, self._session_s / 3, self._connection.deadline_s / 2)

    async def _beat(self, wait_s: float) -> None:
        sent_s = anyio.current_time()
        wait_ms = int(wait_s * 1000)
        told = await self._connection.request(lambda: self._heartbeat(wait_ms), Assigned)
        self._heard(sent_s, told)

    def _join(self) -> Join:
        return Join(0, self._group, self.member, self._connection.name, [self._topic], self._session_ms)

    def _heartbeat(self, wait_ms: int) -> Heartbeat:
        known = self.generation if self.alive else 0  # it is to be told again what it may read
        return Heartbeat(0, self._group, self.member, self.acknowledged, known, wait_ms)

    @property
    def _session_ms(self) -> int:
        return round(self._session_s * 1000)

    def _heard(self, sent_s: float, told: Assigned) -> None:
        """The broker has answered to what was sent at that time."""
        deadline_s = sent_s + self._session_s * (1 - DRIFT_SHARE)
        if deadline_s <= anyio.current_time() or told.generation < self.generation:
            return  # too late, or overtaken by a later answer
        self.deadline_s = max(self.deadline_s, deadline_s)
        self._connection.timers.call_at(self.deadline_s, self.look)
        self.alive = True
        self.generation = told.generation
        partitions = frozenset(told.partitions.get(self._topic, ()))
        if partitions != self.partitions or self.acknowledged != told.generation:
            self.partitions = partitions
            self._news.set()

    def _lose(self) -> None:
        """The session is over: others may have what it had."""
        self.alive = False
        self.partitions = frozenset()
        if (subscription := self._subscription()) is not None:
            subscription.lost()
        self._news.set()

    async def _follow(self) -> None:
        """Have the subscription read what it may."""
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            subscription = self._subscription()
            if subscription is None:
                self.abandon()
                return
            try:
                await subscription.reconcile()
            except StaleGeneration:
                self._lose()  # the heartbeats will be told, and join again
            except Exception as error:  # of the program's own callbacks, or final: the program gets to see it
                self.fail(error)
                return
            del subscription
