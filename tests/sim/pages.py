"""The bytes of one simulated file, twice: as reads see them, and as the platter holds them.

    write ──> seen (page cache)                         a crash keeps `kept`, and of `pending`
         └──> pending ──(sync)──> kept (platter)         whatever tests/sim/crash.py lets survive

Pages are immutable `bytes`, so a copy of a whole disk at every operation of a history costs only dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PAGE_BYTES = 4096
"""Size of the pages that files are kept in; a page that was never written is not kept at all."""
ZERO_PAGE = bytes(PAGE_BYTES)


class Pages:
    """A sparse run of bytes with a size."""

    __slots__ = ("pages", "size")

    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}
        self.size = 0

    def copy(self) -> Pages:
        """An independent copy that shares the page bytes."""
        other = Pages()
        other.pages = dict(self.pages)
        other.size = self.size
        return other

    def read(self, size_bytes: int, position: int) -> bytes:
        """At most `size_bytes` from `position`; shorter at the end, empty behind it."""
        end = min(position + size_bytes, self.size)
        if end <= position:
            return b""
        first, last = position // PAGE_BYTES, (end - 1) // PAGE_BYTES
        get = self.pages.get
        joined = b"".join([get(page, ZERO_PAGE) for page in range(first, last + 1)])
        start = position - first * PAGE_BYTES
        return joined[start : start + end - position]

    def write(self, data: bytes, position: int) -> None:
        """Replace bytes, growing the file; a gap between its old end and `position` reads as zeros."""
        at = 0
        while at < len(data):
            page, inside = divmod(position + at, PAGE_BYTES)
            piece = data[at : at + PAGE_BYTES - inside]
            if len(piece) < PAGE_BYTES:
                old = self.pages.get(page, ZERO_PAGE)
                self.pages[page] = old[:inside] + piece + old[inside + len(piece) :]
            else:
                self.pages[page] = piece
            at += len(piece)
        if data:
            self.size = max(self.size, position + len(data))

    def resize(self, size_bytes: int) -> None:
        """Cut or grow with zeros."""
        if size_bytes < self.size:
            whole, inside = divmod(size_bytes, PAGE_BYTES)
            for page in [page for page in self.pages if page > whole or (page == whole and not inside)]:
                del self.pages[page]
            if inside and whole in self.pages:
                self.pages[whole] = self.pages[whole][:inside] + bytes(PAGE_BYTES - inside)
        self.size = size_bytes

    def flip(self, position: int, bit: int) -> None:
        """Turn one bit round, if the file reaches that far."""
        if position < self.size:
            self.write(bytes([self.read(1, position)[0] ^ (1 << bit)]), position)


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """Bytes in the page cache that no sync has covered."""

    sequence: int
    """Order among all changes of the disk, of files and of folders."""
    position: int
    data: bytes

    def pieces(self, sector_bytes: int) -> Iterator[tuple[int, bytes]]:
        """(position, bytes) of the write's part of each sector that it touches."""
        at = 0
        while at < len(self.data):
            room = sector_bytes - (self.position + at) % sector_bytes
            yield self.position + at, self.data[at : at + room]
            at += room


@dataclass(frozen=True, slots=True)
class PendingResize:
    """A change of a file's size that no sync has covered."""

    sequence: int
    size_bytes: int


class Inode:
    """One file, whatever its names are."""

    __slots__ = ("kept", "number", "pending", "seen", "unreadable")

    def __init__(self, number: int) -> None:
        self.number = number
        self.seen = Pages()
        self.kept = Pages()
        self.pending: list[PendingWrite | PendingResize] = []
        self.unreadable: list[tuple[int, int]] = []
        """Ranges of bytes, (first, last), whose reading fails until they are written again."""

    def copy(self) -> Inode:
        """An independent copy."""
        other = Inode(self.number)
        other.seen = self.seen.copy()
        other.kept = self.kept.copy()
        other.pending = list(self.pending)
        other.unreadable = list(self.unreadable)
        return other

    def write(self, sequence: int, data: bytes, position: int) -> None:
        """Into the cache, to be made durable by the next sync."""
        if data:
            self.seen.write(data, position)
            self.pending.append(PendingWrite(sequence, position, data))
            self._repair(position, position + len(data) - 1)

    def resize(self, sequence: int, size_bytes: int) -> None:
        """Into the cache, to be made durable by the next sync."""
        self.seen.resize(size_bytes)
        self.pending.append(PendingResize(sequence, size_bytes))

    def sync(self) -> None:
        """Make everything pending durable. What was dropped or lost on its way stays lost."""
        for change in self.pending:
            self.settle(change)
        self.pending.clear()

    def settle(self, change: PendingWrite | PendingResize) -> None:
        """Put one change onto the platter."""
        if isinstance(change, PendingWrite):
            self.kept.write(change.data, change.position)
        else:
            self.kept.resize(change.size_bytes)

    def evict(self) -> None:
        """Forget the page cache: reads see the platter from now on. Nothing may be pending."""
        assert not self.pending, "dirty pages are not evicted"
        self.seen = self.kept.copy()

    def fails_reading(self, size_bytes: int, position: int) -> bool:
        """True if a read of that range meets an unreadable sector."""
        return any(first < position + size_bytes and position <= last for first, last in self.unreadable)

    def _repair(self, first: int, last: int) -> None:
        left: list[tuple[int, int]] = []
        for bad_first, bad_last in self.unreadable:
            if bad_first < first:
                left.append((bad_first, min(bad_last, first - 1)))
            if bad_last > last:
                left.append((max(bad_first, last + 1), bad_last))
        self.unreadable = left
