"""Reading one partition ahead of its reader: always one FETCH under way, never more than a bound in memory.

A fetcher has no task: it asks, and the answer's callback asks for more. It goes on at its position after a lost
connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Protocol

from plait.client.backoff import Backoff
from plait.client.connection import Connection, Reply
from plait.client.messages import Received
from plait.wire.batch import Record, iterate, read_header, split
from plait.wire.errors import OffsetOutOfRange, PlaitError
from plait.wire.header import LENGTH_END
from plait.wire.messages import FEATURE_NEAREST, Fetch, Fetched, Ok, read_result

FETCH_BYTES = 1024 * 1024
"""Bytes asked for in one FETCH."""
FETCH_AHEAD_BYTES = 2 * 1024 * 1024
"""Bytes of one partition that are held unread, beyond which nothing more is asked for."""
PORTION_BYTES = 128 * 1024
"""Bytes of batches given out before other tasks have a turn."""
FETCH_WAIT_MS = 5_000
"""How long the broker may wait for a first record before it answers with none."""


@dataclass(slots=True)
class Chunk:
    """One answer to a FETCH: batches of which the records from `first` on are wanted."""

    partition: int
    first: int
    next_offset: int
    batches: memoryview

    def portions(self, stop_at: int | None) -> Iterator[Iterator[Received]]:
        """The records from `first` up to `stop_at` (not included), in portions small enough for one turn of the
        loop. Raises BatchInvalid.
        """
        last = (1 << 63) - 1 if stop_at is None else stop_at - 1
        start = at = 0
        while at < len(self.batches):
            at += LENGTH_END + int.from_bytes(self.batches[at + LENGTH_END - 4 : at + LENGTH_END], "big")
            if at - start >= PORTION_BYTES or at >= len(self.batches):
                yield self._messages(self.batches[start:at], last)
                start = at

    def _messages(self, batches: memoryview, last: int) -> Iterator[Received]:
        records = chain.from_iterable(self._records(batch, last) for batch in split(batches))
        return map(Received, records, repeat(self.partition))  # no Python frame per record but the decoder's own

    def _records(self, batch: memoryview, last: int) -> Iterable[Record]:
        first, header = self.first, read_header(batch)
        if header.base_offset >= first and header.last_offset <= last:
            return iterate(batch)
        return (record for record in iterate(batch) if first <= record.offset <= last)


class ChunkReader(Protocol):
    """Whom a fetcher reads for."""

    @property
    def nearest(self) -> bool:
        """Any replica may answer."""

    def chunk_came(self, fetcher: Fetcher) -> None:
        """There is a chunk to take, or `error` or `done` has changed."""

    def trimmed(self, fetcher: Fetcher, error: OffsetOutOfRange) -> int | None:
        """The position is outside of what is kept: where to go on, or None to fail."""


class Fetcher:
    """One partition's read position, and what was fetched from it ahead of time."""

    def __init__(
        self,
        connection: Connection,
        name: str,
        partition: int,
        offset: int,
        reader: ChunkReader,
        stop_at: int | None,
    ) -> None:
        self.partition = partition
        self.position = offset
        """Offset of the next record to fetch."""
        self.stop_at = stop_at
        self.end_offset = offset
        """The end of the partition as of the last answer."""
        self.error: PlaitError | None = None
        self.closed = False
        self._connection = connection
        self._name = name
        self._reader = reader
        self._chunks: deque[Chunk] = deque()
        self._ahead_bytes = 0
        self._asked = 0
        self._waiting = False
        self._backoff = Backoff(connection.outside.random)

    @property
    def done(self) -> bool:
        """Everything up to `stop_at` was fetched."""
        return self.stop_at is not None and self.position >= self.stop_at

    def pump(self) -> None:
        """Ask for more if there is room for it."""
        if (
            not self._waiting
            and not self.closed
            and not self.done
            and self.error is None
            and self._ahead_bytes < FETCH_AHEAD_BYTES
            and self._connection.ready
        ):
            self._waiting = True
            self._asked += 1
            asked = self._asked
            self._connection.post(
                Fetch(0, self._name, self.partition, self.position, FETCH_BYTES, FETCH_WAIT_MS, self._nearest),
                lambda reply: self._answered(reply, asked),
            )

    @property
    def _nearest(self) -> bool:
        """Whether any replica may answer: if that is wanted, and the broker knows what it means."""
        welcome = self._connection.welcome
        return self._reader.nearest and welcome is not None and welcome.has(FEATURE_NEAREST)

    def take(self) -> Chunk | None:
        """The next chunk, in order, or None."""
        if not self._chunks:
            return None
        chunk = self._chunks.popleft()
        self._ahead_bytes -= len(chunk.batches)
        self.pump()
        return chunk

    def seek(self, offset: int) -> None:
        """Go on at another offset; what was fetched ahead is dropped."""
        self._asked += 1  # the answer under way, if there is one, is to the old question
        self._waiting = False
        self._chunks.clear()
        self._ahead_bytes = 0
        self.position = offset
        self.error = None
        self.pump()

    def _answered(self, reply: Reply, asked: int) -> None:
        if asked != self._asked or self.closed:
            return
        self._waiting = False
        if isinstance(reply, Ok):
            self._backoff.reset()
            self._fetched(read_result(Fetched, reply), reply.payload)
        elif isinstance(reply, OffsetOutOfRange):
            self._out_of_range(reply)
        elif reply.retriable:
            if self._connection.up:  # otherwise the next connection's `pump` is what goes on
                self._connection.timers.call_later(self._backoff.next_s(), self.pump)
        else:
            self.error = reply
            self._reader.chunk_came(self)

    def _fetched(self, fetched: Fetched, batches: memoryview) -> None:
        self.end_offset = fetched.end_offset
        if fetched.next_offset > self.position:
            self._chunks.append(Chunk(self.partition, self.position, fetched.next_offset, batches))
            self._ahead_bytes += len(batches)
            self.position = fetched.next_offset
            self._reader.chunk_came(self)
        self.pump()

    def _out_of_range(self, error: OffsetOutOfRange) -> None:
        go_on_at = self._reader.trimmed(self, error)
        if go_on_at is not None and go_on_at != self.position:
            self.position = go_on_at
            self.pump()
        else:
            self.error = error
            self._reader.chunk_came(self)
