"""A partition's log in memory, part of which can be made to need a read from disk."""

from __future__ import annotations

from node.entries import KIND_BATCH, KIND_COMMANDS, encode_batch, encode_commands
from plait.wire.batch import assigned, read_header
from plait.wire.batch import encode_batch as encode_records
from plait.wire.errors import StorageDamaged
from replication.machine import Entry


def batch_entry(index: int, offset: int, *values: bytes, stamp_ms: int = 1, compression: str = "none") -> Entry:
    """An entry with a batch of these values."""
    return entry_with(index, offset, encode_records(values, 1_000, compression=compression), stamp_ms)


def entry_with(index: int, offset: int, batch: bytes, stamp_ms: int = 1) -> Entry:
    """An entry with that batch."""
    payload = encode_batch(stamp_ms, (0, 0), assigned(batch, offset, 0))
    return Entry(index, 1, KIND_BATCH, offset, read_header(batch).count, payload)


def command_entry(index: int, stamp_ms: int, *commands: list[object]) -> Entry:
    """An entry with commands."""
    return Entry(index, 1, KIND_COMMANDS, 0, 0, encode_commands(stamp_ms, commands))


class MemoryLog:
    """What readers and deliveries need of a GroupLog."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.hot_from = 0  # what lies below this offset must be read
        self.reads = 0
        self.damaged = False

    def cached_marks(self, mark: int, max_bytes: int) -> list[Entry] | None:
        return None if mark < self.hot_from else self._from(mark, max_bytes)

    async def read_marks(self, mark: int, max_bytes: int) -> list[Entry]:
        self.reads += 1
        if self.damaged:
            raise StorageDamaged("the disk has lost it")
        return self._from(mark, max_bytes)

    def _from(self, mark: int, max_bytes: int) -> list[Entry]:
        found: list[Entry] = []
        for entry in self.entries:
            if entry.span and entry.mark + entry.span > mark:
                found.append(entry)
                max_bytes -= len(entry.payload)
                if max_bytes <= 0:
                    break
        return found
