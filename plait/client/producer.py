"""Publishing in a stream: records are buffered, batched and pipelined; answers are waited for together."""

from __future__ import annotations

from types import TracebackType

import anyio
from anyio.lowlevel import checkpoint

from plait.client.messages import Headers, header_pairs
from plait.client.outbox import RECORD_OVERHEAD_BYTES, Outbox
from plait.wire import Buffer
from plait.wire.errors import PlaitError

CLOSE_FLUSH_S = 30.0
"""Longest that leaving a producer's block by an exception waits for what was sent before it."""


class Producer:
    """Sends records to a topic or queue, as fast as it takes them. Made by `Topic.producer`, `Queue.producer`.

        async with topic.producer() as producer:
            for line in lines:
                await producer.send(line)

    Leaving the block flushes. `send` only buffers; an error of a batch is raised by the next `send` or `flush`.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._batch_bytes = outbox.options.batch_bytes
        self._error: PlaitError | None = None
        outbox.on_unwatched = self._failed

    async def send(
        self,
        value: Buffer,
        key: Buffer | None = None,
        headers: Headers | None = None,
        timestamp_ms: int | None = None,
        partition: int | None = None,
    ) -> None:
        """Buffer a record; returns at once unless the buffer is full, and then when there is room.

        `key` chooses the partition (Kafka's rule: the murmur2 hash), `partition` does so by its number; records
        with neither fill one batch of one partition, then one of the next. Without `timestamp_ms` a record has the
        time at which its batch was opened.

        Raises the error of an earlier record that could not be stored (once), RecordTooLarge, Closed.
        """
        batch = self._outbox.sticky
        if (
            batch is not None
            and type(value) is bytes
            and key is None
            and headers is None
            and timestamp_ms is None
            and partition is None
        ):
            size_bytes = batch.size_bytes + len(value) + RECORD_OVERHEAD_BYTES
            if size_bytes <= self._batch_bytes:
                batch.size_bytes = size_bytes
                batch.values.append(value)
                return
        self._raise_error()
        outbox = self._outbox
        before = outbox.buffered_bytes
        outbox.add(value, key, header_pairs(headers), timestamp_ms, partition)
        if outbox.is_full:
            await outbox.space()
        elif outbox.buffered_bytes != before:
            await checkpoint()  # once a batch, so that a tight loop of sends lets the others work

    async def flush(self) -> None:
        """Wait until everything sent so far is stored and synced. Raises the first error there was."""
        batches = self._outbox.unanswered()
        self._outbox.flush()
        for batch in batches:
            await batch.answer.settled()
        await checkpoint()
        self._raise_error()

    async def aclose(self) -> None:
        """Flush and close. Raises as `flush` does; the producer is closed then, too."""
        try:
            await self.flush()
        finally:
            self._outbox.close()

    async def __aenter__(self) -> Producer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.aclose()
            return
        try:
            if isinstance(error, Exception):  # not on cancellation: what is buffered then is dropped
                with anyio.move_on_after(CLOSE_FLUSH_S):
                    await self.flush()
        except PlaitError:
            pass  # the block's own error is on its way and says more
        finally:
            self._outbox.close()

    def _failed(self, error: PlaitError) -> None:
        self._outbox.sticky = None  # the next send takes the slow way, and raises
        if self._error is None:
            self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
