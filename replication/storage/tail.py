"""A group's entries that are in memory: everything of write-ahead log files that are not flushed yet.

    chunk (file 7) │ chunk (file 8) │ chunk (file 9, being written) … entries on their way to the disk

A chunk holds a run of entries without gaps in their indexes, all of one file. Which file an entry goes to is
known when the writer takes it (`placed`), not when it is appended: what is not placed yet stands at the end of the
last chunk and is split off when its place turns out to be another file.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence

from replication.machine import KIND_MEMBERSHIP, Entry

NOT_PLACED = 0
"""File number of a chunk none of whose entries is placed yet."""


class Chunk:
    """A run of entries in one file."""

    __slots__ = ("ends", "entries", "first_index", "memberships", "number", "size_bytes", "spots")

    def __init__(self, number: int, first_index: int) -> None:
        self.number = number
        self.first_index = first_index
        self.entries: list[Entry] = []
        self.ends = array("q")  # last mark of each entry that has a span, in order
        self.spots = array("Q")  # where in `entries` that entry is
        self.memberships: list[int] = []  # indexes of entries of that kind
        self.size_bytes = 0

    @property
    def last_index(self) -> int:
        return self.first_index + len(self.entries) - 1

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries that follow the last one."""
        spot = len(self.entries)
        size_bytes = 0
        for entry in entries:
            size_bytes += len(entry.payload)
            if entry.span:
                self.ends.append(entry.mark + entry.span - 1)
                self.spots.append(spot)
            elif entry.kind == KIND_MEMBERSHIP:
                self.memberships.append(entry.index)
            spot += 1
        self.entries.extend(entries)
        self.size_bytes += size_bytes

    def cut(self, keep: int) -> list[Entry]:
        """Keep the first `keep` entries; the others."""
        gone = self.entries[keep:]
        del self.entries[keep:]
        spanned = bisect_left(self.spots, keep)
        del self.ends[spanned:]
        del self.spots[spanned:]
        self.memberships = [index for index in self.memberships if index < self.first_index + keep]
        self.size_bytes -= sum(len(entry.payload) for entry in gone)
        return gone


class Tail:
    """The chunks of one group, oldest first."""

    __slots__ = ("chunks", "placed_index")

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.placed_index = 0
        """The last entry whose file is known. Entries behind it are all in the last chunk."""

    @property
    def size_bytes(self) -> int:
        """Payload bytes in memory."""
        return sum(chunk.size_bytes for chunk in self.chunks)

    @property
    def entries(self) -> int:
        """How many entries are in memory."""
        return sum(len(chunk.entries) for chunk in self.chunks)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries at the end, not placed yet."""
        chunks = self.chunks
        if not chunks or chunks[-1].last_index + 1 != entries[0].index:
            chunks.append(Chunk(NOT_PLACED, entries[0].index))
        chunks[-1].append(entries)

    def restore(self, number: int, entries: Sequence[Entry]) -> None:
        """Add entries without gaps between them that were read from a file."""
        chunks = self.chunks
        if not chunks or chunks[-1].number != number or chunks[-1].last_index + 1 != entries[0].index:
            chunks.append(Chunk(number, entries[0].index))
        chunks[-1].append(entries)
        self.placed_index = entries[-1].index

    def placed(self, number: int, last_index: int) -> None:
        """Entries up to `last_index` that had no place yet are in that file."""
        if last_index <= self.placed_index or not self.chunks:
            return
        last = self.chunks[-1]
        if last.number == NOT_PLACED:
            last.number = number
        elif last.number != number:
            keep = max(self.placed_index - last.first_index + 1, 0)
            rest = Chunk(number, last.first_index + keep)
            rest.append(last.cut(keep))
            if not last.entries:
                self.chunks.pop()
            self.chunks.append(rest)
        self.placed_index = last_index

    def truncate_after(self, index: int) -> None:
        """Forget the entries behind `index`."""
        while self.chunks and self.chunks[-1].last_index > index:
            keep = index - self.chunks[-1].first_index + 1
            if keep > 0:
                self.chunks[-1].cut(keep)
            else:
                self.chunks.pop()
        self.placed_index = min(self.placed_index, index)

    def replaced(self, index: int) -> None:
        """Everything so far was replaced by something that ends with `index` and is not here."""
        self.chunks = []
        self.placed_index = index

    def captured(self, through: int) -> list[Entry]:
        """The entries in files up to number `through`, as they are now."""
        found: list[Entry] = []
        for chunk in self.chunks:
            if chunk.number == NOT_PLACED or chunk.number > through:
                break
            found += chunk.entries[: max(self.placed_index - chunk.first_index + 1, 0)]
        return found

    def first_behind(self, through: int) -> int | None:
        """The first index that is in a file behind `through` or has no place yet; None: there is none."""
        for chunk in self.chunks:
            if chunk.number == NOT_PLACED or chunk.number > through:
                return chunk.first_index
            if chunk is self.chunks[-1] and chunk.last_index > self.placed_index:
                return max(chunk.first_index, self.placed_index + 1)
        return None

    def release(self, through: int) -> None:
        """Forget the entries in files up to number `through`: they are in segments now, or dead."""
        chunks = self.chunks
        while chunks and NOT_PLACED != chunks[0].number <= through:
            first = chunks.pop(0)
            if self.placed_index < first.last_index:  # the last chunk, with entries that have no place yet
                keep = max(self.placed_index - first.first_index + 1, 0)
                rest = Chunk(NOT_PLACED, first.first_index + keep)
                rest.append(first.cut(keep))
                chunks.insert(0, rest)
                break

    def find(self, index: int) -> Entry | None:
        """The entry of that index, if it is here."""
        for chunk in reversed(self.chunks):
            if index >= chunk.first_index:
                return chunk.entries[index - chunk.first_index] if index <= chunk.last_index else None
        return None

    def memberships(self, first_index: int) -> list[Entry]:
        """The entries of KIND_MEMBERSHIP from `first_index` on."""
        return [
            chunk.entries[index - chunk.first_index]
            for chunk in self.chunks
            for index in chunk.memberships
            if index >= first_index
        ]

    def from_index(self, first_index: int, max_bytes: int) -> list[Entry] | None:
        """Entries without a gap from `first_index` on, up to `max_bytes` but at least one; None: not here."""
        found: list[Entry] = []
        for chunk in self.chunks:
            if chunk.last_index < first_index:
                continue
            if chunk.first_index > first_index:
                break
            for at in range(first_index - chunk.first_index, len(chunk.entries)):
                entry = chunk.entries[at]
                found.append(entry)
                max_bytes -= len(entry.payload)
                if max_bytes <= 0:
                    return found
            first_index = chunk.last_index + 1
        return found or None

    def first_mark(self) -> int | None:
        """The first mark of the first entry here that has a span."""
        for chunk in self.chunks:
            if chunk.spots:
                return chunk.entries[chunk.spots[0]].mark
        return None

    def from_mark(self, mark: int, max_bytes: int) -> list[Entry]:
        """Entries with a span from the one that covers `mark`, or the next behind it, up to `max_bytes`."""
        found: list[Entry] = []
        for chunk in self.chunks:
            if not chunk.ends or chunk.ends[-1] < mark:
                continue
            entries, spots = chunk.entries, chunk.spots
            for at in range(bisect_left(chunk.ends, mark), len(spots)):
                entry = entries[spots[at]]
                found.append(entry)
                max_bytes -= len(entry.payload)
                if max_bytes <= 0:
                    return found
        return found
