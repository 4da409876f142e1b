"""From offsets to record bytes: where a partition's deliveries get what they deliver.

    hot    entries that the log holds in memory
    warm   the last stretch read from disk
    cold   to be read: `load`, then ask again

A batch is opened once (decompressed if need be, record positions found) and then gives any run of its records as a
slice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from node.entries import batch_of
from plait.wire.batch import BatchHeader, RecordRun, open_body, positions, read_header, run_of
from plait.wire.errors import StorageDamaged
from replication.machine import Entry
from replication.storage.log import GroupLog

OPEN_BATCHES = 64
"""Opened batches kept per partition."""
OPEN_BATCHES_BYTES = 8 << 20
"""Bytes of record bodies in one partition's opened batches; the newest one stays whatever its size."""
BATCH_OPEN_BYTES = 16 << 20
"""The largest batch that is opened, uncompressed; admission refuses larger ones for queues."""
COLD_READ_BYTES = 1 << 20
"""What one read from disk asks for."""


class OpenBatch:
    """A batch whose records can be sliced."""

    __slots__ = ("body", "first", "header", "last", "starts")

    def __init__(self, entry: Entry) -> None:
        batch = batch_of(entry.payload)
        self.header: BatchHeader = read_header(batch)
        self.first = entry.mark
        self.last = entry.mark + entry.span - 1
        self.body = open_body(batch, self.header, BATCH_OPEN_BYTES)
        self.starts = positions(self.body)

    def run(self, first: int, last: int) -> RecordRun:
        """The records of offsets first to last, which this batch must hold."""
        return run_of(self.header, self.body, self.starts, first - self.first, last - self.first)


class RecordSource:
    """Gives the records of one partition's log as runs."""

    def __init__(self, log: GroupLog) -> None:
        self._log = log
        self._open: dict[int, OpenBatch] = {}  # by base offset, oldest use first
        self._open_bytes = 0
        self._current: OpenBatch | None = None  # the batch that was asked for last
        self._warm: list[Entry] = []
        self._warm_marks: list[int] = []

    def runs(self, first: int, last: int) -> tuple[list[RecordRun], int]:
        """The records of offsets first to last as far as they are at hand, and the first offset that is not.

        One run a batch. A second value of `last + 1` says that all are there; otherwise `load` that offset.
        """
        found: list[RecordRun] = []
        while first <= last:
            batch = self._batch(first)
            if batch is None:
                break
            until = min(last, batch.last)
            found.append(batch.run(first, until))
            first = until + 1
        return found, first

    async def load(self, first: int) -> None:
        """Read from disk the stretch that begins with the batch of offset `first`. Raises StorageDamaged."""
        entries = await self._log.read_marks(first, COLD_READ_BYTES)
        if not entries or not entries[0].mark <= first < entries[0].mark + entries[0].span:
            raise StorageDamaged(f"the record at offset {first} is not on disk any more; it was not delivered")
        self._warm = entries
        self._warm_marks = [entry.mark for entry in entries]

    def forget(self) -> None:
        """Drop what is kept; it can be had again."""
        self._open.clear()
        self._open_bytes, self._current = 0, None
        self._warm, self._warm_marks = [], []

    def _batch(self, offset: int) -> OpenBatch | None:
        current = self._current
        if current is not None and current.first <= offset <= current.last:
            return current
        entry = self._hot(offset) or self._from_warm(offset)
        if entry is None:
            return None
        batch = self._open.pop(entry.mark, None)
        if batch is None:
            batch = OpenBatch(entry)
            self._open_bytes += len(batch.body)
        self._open[entry.mark] = self._current = batch
        while len(self._open) > 1 and (len(self._open) > OPEN_BATCHES or self._open_bytes > OPEN_BATCHES_BYTES):
            self._open_bytes -= len(self._open.pop(next(iter(self._open))).body)
        return batch

    def _hot(self, offset: int) -> Entry | None:
        entries: Sequence[Entry] | None = self._log.cached_marks(offset, 1)
        if entries and entries[0].mark <= offset < entries[0].mark + entries[0].span:
            return entries[0]
        return None

    def _from_warm(self, offset: int) -> Entry | None:
        at = bisect_right(self._warm_marks, offset) - 1
        if at >= 0 and offset < self._warm[at].mark + self._warm[at].span:
            return self._warm[at]
        return None
