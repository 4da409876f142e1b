"""Reading topics: replay without a subscription, and what subscriptions build on."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import Literal

import anyio
from anyio.lowlevel import checkpoint

from plait.client.connection import Connection, closed_error
from plait.client.fetcher import Chunk, Fetcher
from plait.client.messages import Received
from plait.wire.errors import BadRequest, OffsetOutOfRange
from plait.wire.messages import Locate, Located

Position = int | datetime | Literal["beginning", "end"]
"""Where to begin: an offset, an aware datetime (the first record at or behind it), or an end of the partition."""


class Fetching:
    """The fetchers behind a reader, and their place among the connection's listeners.

    Apart from the reader itself, so that a reader that is dropped without being closed (a `break` out of
    `async for`) stops its fetchers.
    """

    def __init__(self, connection: Connection, nearest: bool, *, endless: bool = False) -> None:
        """`nearest`: any replica may answer. `endless`: without fetchers, there may be some later."""
        self.connection = connection
        self.nearest = nearest
        self.error: Exception | None = None
        """Why nothing more will come."""
        self._endless = endless
        self.fetchers: dict[int, Fetcher] = {}
        self.skipped_records = 0
        self._ready: dict[Fetcher, None] = {}
        self._wake: anyio.Event | None = None
        connection.listeners[self] = None

    def came_up(self) -> None:
        for fetcher in self.fetchers.values():
            fetcher.pump()

    def went_down(self) -> None:
        self._notify()

    def chunk_came(self, fetcher: Fetcher) -> None:
        self._ready[fetcher] = None
        self._notify()

    def trimmed(self, fetcher: Fetcher, error: OffsetOutOfRange) -> int | None:
        """Retention has removed the records at the position: go on at the first that is kept, and count."""
        start = error.details.get("start")
        if type(start) is not int or start <= fetcher.position:
            return None
        self.skipped_records += start - fetcher.position
        return start

    def take(self) -> Chunk | None:
        """A chunk of whichever partition has waited longest. Raises the error of a fetcher that failed."""
        if self.error is not None:
            raise self.error
        while self._ready:
            fetcher = next(iter(self._ready))
            del self._ready[fetcher]
            chunk = fetcher.take()
            if chunk is not None:
                self._ready[fetcher] = None  # behind the others, until it has no more
                return chunk
            if fetcher.error is not None:
                raise fetcher.error
        return None

    @property
    def done(self) -> bool:
        """Whether there is nothing more to come."""
        return not self._endless and all(fetcher.done for fetcher in self.fetchers.values())

    def drop(self, partition: int) -> None:
        """Stop fetching a partition, and forget what was fetched of it."""
        fetcher = self.fetchers.pop(partition, None)
        if fetcher is not None:
            fetcher.closed = True
            self._ready.pop(fetcher, None)

    def fail(self, error: Exception) -> None:
        """Nothing more will come; `take` says why."""
        self.error = error
        self._notify()

    async def wait(self) -> None:
        """Wait until `take` may have something. Raises Unavailable, Closed."""
        error = self.connection.down_too_long
        if error is not None:
            raise error
        self._wake = anyio.Event()
        await self._wake.wait()

    def close(self) -> None:
        self.connection.listeners.pop(self, None)
        for fetcher in self.fetchers.values():
            fetcher.closed = True
        self._notify()

    def _notify(self) -> None:
        if self._wake is not None:
            self._wake.set()


class Reader:
    """Messages of a topic, from a place on: `async for message in topic.read(...)`. Nothing is remembered.

    Messages of one partition come in their order; between partitions there is none. With `to_end` it stops at what
    was the end when reading began. Records that retention removed while reading was slower than writing are
    skipped and counted in `skipped_records`. Close it early with `async with` or by just dropping it.

    With `nearest` the node that the client is connected to gives what its own replica has, if it has one: that may
    come a little later than from the leader, and is never anything that the leader does not have.
    """

    def __init__(
        self,
        connection: Connection,
        name: str,
        partitions: Sequence[int],
        from_: Position | dict[int, Position],
        to_end: bool,
        nearest: bool = False,
    ) -> None:
        self._connection = connection
        self._name = name
        self._partitions = partitions
        self._from = from_
        self._to_end = to_end
        self._nearest = nearest
        self._fetching: Fetching | None = None
        self._current: Iterator[Received] = iter(())
        self._portions: Iterator[Iterator[Received]] = iter(())
        self._stop_at: dict[int, int] = {}
        self._closed = False

    @property
    def skipped_records(self) -> int:
        """Records that retention removed before they were read."""
        return self._fetching.skipped_records if self._fetching is not None else 0

    async def start(self) -> None:
        """Find the positions and begin to fetch; iterating does it by itself."""
        if self._fetching is not None:
            return
        if self._closed:
            raise closed_error()
        positions = await self._positions()
        fetching = self._fetching = Fetching(self._connection, self._nearest)
        weakref.finalize(self, self._connection.orphaned, fetching.close).atexit = False
        for partition, offset in positions.items():
            stop_at = self._stop_at.get(partition)
            fetcher = Fetcher(self._connection, self._name, partition, offset, fetching, stop_at)
            fetching.fetchers[partition] = fetcher
            fetcher.pump()

    async def aclose(self) -> None:
        """Stop fetching."""
        self._closed = True
        self._current, self._portions = iter(()), iter(())
        if self._fetching is not None:
            self._fetching.close()

    def take_ready(self, limit: int) -> list[Received]:
        """Messages that are here already, at most so many, not yet counted as given out: see `gave`."""
        return list(islice(self._current, limit))

    def gave(self, message: Received) -> bool:
        """A message of `take_ready` is to be given out; whether it still may be."""
        return True

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> Received:
        for message in self._current:
            return message
        while True:
            await self._next_portion()
            for message in self._current:
                return message

    async def __aenter__(self) -> Reader:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _next_portion(self) -> None:
        """Make the next portion current. Raises StopAsyncIteration at the end."""
        if self._fetching is None:
            await self.start()
            assert self._fetching is not None, "started"
        await checkpoint()
        while not self._closed:
            for portion in self._portions:
                self._current = portion
                return
            chunk = self._fetching.take()
            if chunk is not None:
                self._chunk_taken(chunk)
                self._portions = chunk.portions(self._stop_at.get(chunk.partition))
            elif self._fetching.done:
                break
            else:
                await self._fetching.wait()
        raise StopAsyncIteration

    def _chunk_taken(self, chunk: Chunk) -> None:
        """For subscriptions."""

    async def _positions(self) -> dict[int, int]:
        """The offset of each partition to begin at; with `to_end`, also those to stop at."""
        found = {}
        for partition in self._partitions:
            wanted = self._from.get(partition, "beginning") if isinstance(self._from, dict) else self._from
            located = await locate(self._connection, self._name, partition, wanted)
            found[partition] = located.offset
            if self._to_end:
                self._stop_at[partition] = located.end
        return found


async def locate(connection: Connection, name: str, partition: int, wanted: Position) -> Located:
    """The offset that a position stands for, with the partition's start and end. Raises PlaitError."""
    at: str | int
    if wanted == "beginning":
        at = "start"
    elif isinstance(wanted, datetime):
        if wanted.tzinfo is None:
            raise BadRequest("A position in time is an aware datetime: say datetime.now(UTC), not datetime.now().")
        at = max(0, int(wanted.timestamp() * 1000))
    elif wanted == "end" or (type(wanted) is int and wanted >= 0):
        at = "end"
    else:
        raise BadRequest(f'A position is an offset, a datetime, "beginning" or "end", not {wanted!r}.')
    located = await connection.request(lambda: Locate(0, name, partition, at), Located)
    if type(wanted) is int:
        return Located(wanted, located.start, located.end)
    return located
