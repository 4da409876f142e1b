"""A named, durable position over a topic: reading goes on where it was committed."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from types import TracebackType

import anyio

from plait.client.connection import Connection
from plait.client.fetcher import Chunk
from plait.client.messages import Received
from plait.client.reader import Position, Reader, locate
from plait.wire.errors import BadRequest, PlaitError
from plait.wire.messages import POSITIONS_MAX, Commit, Committed, Nothing, Positions, Request

AUTO_COMMIT_S = 1.0
"""Default of the time between two commits that the subscription makes by itself."""


class Subscription(Reader):
    """Messages of a topic, each subscription's name with its own position. Made by `Topic.subscribe`.

        async with topic.subscribe("billing") as subscription:
            async for message in subscription:
                ...

    A message counts as processed when the loop asks for the next one. Processed positions are committed every
    `auto_commit_s` seconds and when the block is left, so that after a crash at most that much comes again: at
    least once, never skipped. With `auto_commit_s=None` only `commit` commits. Where nothing was committed yet,
    reading begins at `from_`. Two readers of one name at a time each get all messages.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        name: str,
        partitions: Sequence[int],
        from_: Position | dict[int, Position],
        auto_commit_s: float | None,
        nearest: bool,
    ) -> None:
        super().__init__(connection, topic, partitions, from_, to_end=False, nearest=nearest)
        self.name = name
        self._auto_commit_s = auto_commit_s
        self._next: dict[int, int] = {}
        """Offset behind the last chunk that was wholly given out, by partition."""
        self._given: Received | None = None
        """The last message given out."""
        self._chunk: Chunk | None = None
        self._committed: dict[int, int] = {}

    async def commit(self) -> None:
        """Commit everything given out so far, the message in hand included. Returns once that is on disk."""
        self._leave_chunk()  # it counts as processed: the timer must not commit less meanwhile
        await self._commit(self._positions_now(with_current=True))

    async def lag(self) -> dict[int, int]:
        """Records in each partition that this reader has not given out yet."""
        await self.start()
        positions = self._positions_now(with_current=True)
        lag = {}
        for partition in self._partitions:
            located = await locate(self._connection, self._name, partition, "end")
            lag[partition] = max(0, located.end - max(positions.get(partition, 0), located.start))
        return lag

    async def seek(self, to: Position, partition: int | None = None) -> None:
        """Go on at another place, in one partition or all; committed by the next commit."""
        await self.start()
        assert self._fetching is not None, "started"
        for each in self._partitions if partition is None else [partition]:
            if each not in self._fetching.fetchers:
                raise BadRequest(f"This subscription does not read partition {each} of {self._name!r}.")
            located = await locate(self._connection, self._name, each, to)
            self._next[each] = located.offset
            if self._chunk is not None and self._chunk.partition == each:
                self._current, self._portions = iter(()), iter(())
                self._chunk = self._given = None
            self._fetching.fetchers[each].seek(located.offset)

    async def start(self) -> None:
        """Find the committed positions and begin to fetch; iterating does it by itself."""
        if self._fetching is None:
            await super().start()
            self._begin_auto_commit()

    async def aclose(self) -> None:
        """Commit what was processed (unless `auto_commit_s` is None) and stop fetching."""
        try:
            if self._auto_commit_s is not None and not self._closed:
                await self._commit(self._positions_now(with_current=False))
        finally:
            await self._end()

    def gave(self, message: Received) -> bool:
        """A message of `take_ready` is given out: it is the one in hand."""
        self._given = message
        return True

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Received:
        for message in self._current:
            self._given = message
            return message
        while True:
            await self._next_portion()
            for message in self._current:
                self._given = message
                return message

    async def __aenter__(self) -> Subscription:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            # The block was left in peace: the loop is done with the message in hand, too.
            try:
                if self._auto_commit_s is not None:
                    self._leave_chunk()
                    await self._commit(self._positions_now(with_current=True))
            finally:
                await self._end()
        elif isinstance(error, Exception):
            with contextlib.suppress(PlaitError):  # the block's own error is on its way and says more
                await self.aclose()
        else:
            await self._end()

    async def _end(self) -> None:
        await super().aclose()

    def _begin_auto_commit(self) -> None:
        if self._auto_commit_s is not None:
            _commit_again(weakref.ref(self), self._connection, self._auto_commit_s)

    async def _next_portion(self) -> None:
        self._leave_chunk()  # the loop asks for the next message: all before it are processed
        await super()._next_portion()

    def _chunk_taken(self, chunk: Chunk) -> None:
        self._leave_chunk()
        self._chunk = chunk

    def _leave_chunk(self) -> None:
        """Note how far the chunk in hand was given out."""
        if self._chunk is not None:
            partition = self._chunk.partition
            if self._given is not None:
                self._next[partition] = self._given.offset + 1
            self._given = None

    async def _positions(self) -> dict[int, int]:
        name = self._name
        answer = await self._connection.request(lambda: Committed(0, self.name, name), Positions)
        known = dict(answer.positions)
        self._committed = {partition: known[partition] for partition in self._partitions if partition in known}
        fresh = [partition for partition in self._partitions if partition not in known]
        wanted, self._partitions = self._partitions, fresh
        try:
            found = await super()._positions()
        finally:
            self._partitions = wanted
        self._next = {**found, **self._committed}
        return dict(self._next)

    def _positions_now(self, *, with_current: bool) -> dict[int, int]:
        positions = dict(self._next)
        if self._given is not None:
            positions[self._given.partition] = self._given.offset + (1 if with_current else 0)
        return positions

    async def _commit(self, positions: dict[int, int]) -> None:
        changed = self._changed(positions)
        for at in range(0, len(changed), POSITIONS_MAX):
            part = changed[at : at + POSITIONS_MAX]
            request = self._commit_request(part)
            await self._connection.request(lambda request=request: request, Nothing)  # type: ignore[misc]  # bound now
            self._noted(part)

    def _changed(self, positions: dict[int, int]) -> list[tuple[int, int]]:
        return [(each, offset) for each, offset in positions.items() if self._committed.get(each) != offset]

    def _commit_processed(self) -> None:
        """The timer's commit: no waiting, and whatever goes wrong is mended by the next one."""
        positions = self._positions_now(with_current=False)
        changed = self._changed(positions)[:POSITIONS_MAX]
        if changed and self._connection.up:
            self._connection.post(
                self._commit_request(changed),
                lambda reply: None if isinstance(reply, PlaitError) else self._noted(changed),
            )

    def _commit_request(self, positions: list[tuple[int, int]]) -> Request:
        return Commit(0, self.name, self._name, positions)

    def _noted(self, positions: list[tuple[int, int]]) -> None:
        """These are committed."""
        self._committed.update(positions)


def _commit_again(to: weakref.ref[Subscription], connection: Connection, every_s: float) -> None:
    """Commit every so often, for as long as the subscription is open and anybody has it."""

    def ring() -> None:
        subscription = to()
        if subscription is not None and not subscription._closed:
            subscription._commit_processed()
            connection.timers.call_later(every_s, ring)

    connection.timers.call_at(anyio.current_time() + every_s, ring)
