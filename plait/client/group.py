"""A subscription that shares its partitions with others of its name: `topic.subscribe(name, group=True)`.

told more   ──> positions are looked up ──> fetching begins ──> on_assigned
told less   ──> nothing more is given out ──the message in hand is processed──> on_revoked ──> commit ──>
                acknowledged: only now somebody else may have it
session over ─> everything stops at once, nothing is committed ──> on_revoked
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import anyio

from plait.client.connection import Connection, closed_error
from plait.client.fetcher import Fetcher
from plait.client.membership import Membership
from plait.client.messages import Received
from plait.client.reader import Fetching, Position, locate
from plait.client.subscription import Subscription
from plait.wire.errors import PlaitError, StaleGeneration
from plait.wire.messages import Committed, MemberCommit, Positions, Request

SESSION_S = 10.0
"""Default of the time after which a member that is not heard of is taken for dead."""
HANDOVER_S = 30.0
"""Default of the time that the message in hand has to be processed before its partition is handed over."""

PartitionsHook = Callable[[list[int]], Awaitable[None] | None]
"""Called with partitions; may be a coroutine function."""


class GroupSubscription(Subscription):
    """Messages of a topic, shared out among all readers of the subscription. Made by
    `Topic.subscribe(group=True)`.

        async with topic.subscribe("billing", group=True) as subscription:
            async for message in subscription:
                ...

    Each partition is read by one of them at a time. Start one more, and it takes over its share; end one, and the
    others take over what it had: at once when it was closed, after `session_s` when it died. A partition moves
    when
    the message in hand is processed (or `handover_s` is over) and its position is committed, so nothing is
    skipped, and nothing comes twice unless somebody died or was too slow.

    Everything else is as with `Subscription`: a message counts as processed when the loop asks for the next one.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        name: str,
        from_: Position | dict[int, Position],
        auto_commit_s: float | None,
        session_s: float,
        handover_s: float,
        on_assigned: PartitionsHook | None,
        on_revoked: PartitionsHook | None,
        nearest: bool,
    ) -> None:
        super().__init__(connection, topic, name, (), from_, auto_commit_s, nearest)
        self._session_s = session_s
        self._handover_s = handover_s
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._membership: Membership | None = None
        self._active: set[int] = set()
        self._losses = 0
        """How often everything was lost."""
        self._lost: set[int] = set()
        """What was lost and not reported yet."""
        self._handing_over: anyio.Event | None = None
        """Somebody waits for the message in hand to be processed."""
        self._ready_losses = 0
        self._missed = False
        """Something was lost that was given out and not committed."""

    @property
    def assigned(self) -> list[int]:
        """The partitions that this reader has now."""
        return sorted(self._active)

    @property
    def generation(self) -> int:
        """The number of the last change that this reader was told of."""
        return self._membership.generation if self._membership is not None else 0

    @property
    def member(self) -> str:
        """The id of this reader in its group; "" before it joins."""
        return self._membership.member if self._membership is not None else ""

    def holds(self, partition: int) -> bool:
        """Whether this reader has a partition at this moment: its session is not over, and it has not let go."""
        alive = self._membership is not None and anyio.current_time() < self._membership.deadline_s
        return alive and partition in self._active

    async def start(self) -> None:
        """Join the group; iterating does it by itself. Raises PlaitError."""
        if self._fetching is None:
            if self._closed:
                raise closed_error()
            connection = self._connection
            fetching = self._fetching = Fetching(connection, self._nearest, endless=True)
            weakref.finalize(self, connection.orphaned, fetching.close).atexit = False
            membership = Membership(connection, self._name, self.name, self._session_s)
            self._membership = membership
            membership.subscription = weakref.ref(self)
            weakref.finalize(self, connection.orphaned, membership.abandon).atexit = False
            connection.spawn(membership.run)
            self._begin_auto_commit()
        assert self._membership is not None, "made with the fetchers"
        await self._membership.joined()

    def take_ready(self, limit: int) -> list[Received]:
        """See Reader."""
        self._ready_losses = self._losses
        return super().take_ready(limit)

    def gave(self, message: Received) -> bool:
        """See Reader."""
        if self._ready_losses != self._losses:
            return False  # others may have it
        return super().gave(message)

    async def __anext__(self) -> Received:
        if self._handing_over is not None:
            self._came_back()
        if self._membership is None:
            await self.start()
            assert self._membership is not None, "started"
        if anyio.current_time() >= self._membership.deadline_s:
            self._membership.look()
        return await super().__anext__()

    async def commit(self) -> None:
        """As Subscription's. Raises StaleGeneration when its session ended meanwhile: what was not committed
        before is given to others, even what was processed here.
        """
        missed, self._missed = self._missed, False
        await super().commit()
        if missed:
            raise StaleGeneration(
                f"This reader was taken for dead, and others have the partitions that it had of {self._name!r}: "
                "what it did not commit before is read by them again. Let the event loop run, so that heartbeats "
                "are sent, or allow a longer session (session_s)."
            )

    # what its membership says

    async def reconcile(self) -> None:
        """Read what the membership says, and say so. Raises PlaitError, and what a callback raises."""
        membership = self._membership
        assert membership is not None, "started"
        while not self._closed:
            if self._lost:
                gone, self._lost = self._lost, set()
                await _call(self._on_revoked, gone)
            if not membership.alive:
                return
            generation, told = membership.generation, membership.partitions
            new, gone = told - self._active, self._active - told
            if new:
                await self._take_up(new)
            if gone:
                await self._let_go(gone)
            if generation != membership.generation or not membership.alive:
                continue
            if gone:
                await membership.acknowledge(generation)
            elif not new:
                membership.acknowledged = generation
                return

    def lost(self) -> None:
        """Others may have what this one had: it stops, and commits nothing."""
        self._losses += 1
        self._lost |= self._active
        for partition in self._active:
            self._stop(partition)
        self._missed = self._missed or bool(self._changed(self._positions_now(with_current=True)))
        self._next.clear()
        self._committed.clear()
        self._active.clear()
        self._partitions = []
        self._current, self._portions = iter(()), iter(())
        self._chunk = self._given = None
        if self._handing_over is not None:
            self._handing_over.set()
            self._handing_over = None

    def failed(self, error: Exception) -> None:
        """It cannot go on: whoever iterates is told."""
        if self._fetching is not None:
            self._fetching.fail(error)

    # inside

    async def _take_up(self, new: Iterable[int]) -> None:
        losses = self._losses
        positions = await self._begin_at(sorted(new))
        if losses != self._losses or self._closed:
            return
        assert self._fetching is not None, "started"
        for partition, offset in positions.items():
            self._next[partition] = offset
            fetcher = Fetcher(self._connection, self._name, partition, offset, self._fetching, None)
            self._fetching.fetchers[partition] = fetcher
            fetcher.pump()
        self._active.update(positions)
        self._partitions = self.assigned
        await _call(self._on_assigned, positions)

    async def _begin_at(self, partitions: list[int]) -> dict[int, int]:
        """Where to go on. A place that may be another one the next time (an end, a time) is committed at once, so
        that whoever has the partition next does not skip what comes in between."""
        losses = self._losses
        answer = await self._connection.request(lambda: Committed(0, self.name, self._name), Positions)
        known = dict(answer.positions)
        found, movable = {}, {}
        for partition in partitions:
            if partition in known:
                found[partition] = known[partition]
                continue
            wanted = self._from.get(partition, "beginning") if isinstance(self._from, dict) else self._from
            found[partition] = (await locate(self._connection, self._name, partition, wanted)).offset
            if wanted != "beginning":
                movable[partition] = found[partition]
        if losses == self._losses:
            await self._commit(movable)
            for partition in partitions:
                if partition in known and losses == self._losses:
                    self._committed[partition] = known[partition]
        return found

    async def _let_go(self, gone: Iterable[int]) -> None:
        losses = self._losses
        for partition in gone:
            self._stop(partition)
        if self._chunk is not None and self._chunk.partition in gone:
            self._current, self._portions = iter(()), iter(())
            if self._given is not None:
                waiting = self._handing_over = anyio.Event()
                with anyio.move_on_after(self._handover_s):
                    await waiting.wait()
                if not waiting.is_set():  # it takes too long: it comes again, with whoever has it next
                    self._chunk = self._given = self._handing_over = None
        await _call(self._on_revoked, gone)
        if losses != self._losses:
            self._lost -= set(gone)  # reported
            return
        if self._auto_commit_s is not None:
            with suppress(PlaitError):  # what could not be committed comes again, with whoever has it next
                await self._commit({each: self._next[each] for each in gone if each in self._next})
        for partition in gone:
            self._next.pop(partition, None)
            self._committed.pop(partition, None)
            self._active.discard(partition)
        self._partitions = self.assigned

    def _came_back(self) -> None:
        """The loop asks for the next message: the one in hand is processed."""
        self._leave_chunk()
        if self._handing_over is not None:
            self._handing_over.set()
            self._handing_over = None

    def _stop(self, partition: int) -> None:
        assert self._fetching is not None, "started"
        self._fetching.drop(partition)

    async def _end(self) -> None:
        if self._membership is not None:
            self._closed = True
            self._fetching_closed()
            for positions in (self._next, self._committed):
                positions.clear()  # there is nothing that it could commit any more
            self._active.clear()
            self._chunk = self._given = None
            await self._membership.leave()
        await super()._end()

    def _fetching_closed(self) -> None:
        self._current, self._portions = iter(()), iter(())
        if self._fetching is not None:
            self._fetching.close()

    def _commit_request(self, positions: list[tuple[int, int]]) -> Request:
        assert self._membership is not None, "started"
        membership = self._membership
        return MemberCommit(0, self.name, membership.member, membership.generation, self._name, positions)

    def _noted(self, positions: list[tuple[int, int]]) -> None:
        """Only of what it has: an answer may come when everything was lost."""
        super()._noted([(partition, offset) for partition, offset in positions if partition in self._active])


async def _call(hook: PartitionsHook | None, partitions: Iterable[int]) -> None:
    if hook is not None:
        waiting = hook(sorted(partitions))
        if waiting is not None:
            await waiting
