"""Reading entries out of a segment file, checked. Blocking, and nothing but that."""

from __future__ import annotations

from replication.crc import crc32c
from replication.environment import File
from replication.machine import Entry
from replication.storage.format import RECORD_BYTES, SECTOR_BYTES, EntryRow, decode_entry
from replication.storage.segments import Part, SparseIndex

READ_BYTES_MIN = 64 * 1024
"""Bytes that one read asks of the disk at the least: the next entries are likely wanted too."""
READ_BYTES_MAX = 1 << 20
"""Bytes that one read asks of the disk; an entry larger than that is read at once."""


class Rotten(Exception):
    """Entries `first_index` to `last_index` cannot be read back as they were written."""

    def __init__(self, position: int, what: str, first_index: int, last_index: int) -> None:
        super().__init__(what)
        self.position = position
        self.what = what
        self.first_index = first_index
        self.last_index = last_index


class PartReader:
    """Reads one part of an open segment file."""

    def __init__(self, file: File, seed: int, part: Part, points: SparseIndex) -> None:
        self._file = file
        self._seed = seed
        self._part = part
        self._points = points
        self._window = memoryview(b"")
        self._window_start = 0
        self._ahead = READ_BYTES_MIN

    def from_index(self, first_index: int, max_bytes: int) -> list[Entry]:
        """Entries from `first_index` on, up to `max_bytes` of payload but at least one if there is one.

        Stops before a rotten one; raises Rotten if that is the first.
        """
        return self._collect(self._points.before_index(first_index), max_bytes, first_index, None)

    def from_mark(self, mark: int, max_bytes: int, first_index: int = 0) -> list[Entry]:
        """Entries with a span, from the one that covers `mark` or the next behind it; as `from_index`.

        None before `first_index`, which may be what lies behind a damaged place: that one is not read then.
        """
        points = self._points
        position = max(points.before_mark(mark), points.before_index(first_index))
        return self._collect(position, max_bytes, first_index, mark)

    def _collect(self, position: int, max_bytes: int, first_index: int, mark: int | None) -> list[Entry]:
        self._ahead = min(max(max_bytes, READ_BYTES_MIN), READ_BYTES_MAX)
        found: list[Entry] = []
        seen = self._index_before(position)
        end = self._part.end
        try:
            while position < end and max_bytes > 0:
                row = self._row(position, seen)
                kind, span, _, index, term, entry_mark, length, payload_crc = row
                if index >= first_index and (mark is None or (span and entry_mark + span > mark)):
                    payload = self._bytes(position + RECORD_BYTES, length, index - 1)
                    if crc32c(payload) != payload_crc:
                        raise Rotten(position, f"the payload of entry {index} has rotted", index, index)
                    found.append(Entry(index, term, kind, entry_mark, span, payload))
                    max_bytes -= length
                position += RECORD_BYTES + length
                seen = index
        except Rotten:
            if not found:
                raise
        return found

    def _row(self, position: int, seen: int) -> EntryRow:
        row = decode_entry(self._bytes(position, RECORD_BYTES, seen), 0, self._seed)
        if row is None or row[2] != self._part.group or row[3] <= seen:
            raise self._rot(position, "an entry is damaged", seen)
        return row

    def _bytes(self, position: int, size_bytes: int, seen: int) -> memoryview:
        """Bytes of the file; read ahead of what is asked for."""
        at = position - self._window_start
        if not 0 <= at <= len(self._window) - size_bytes:
            self._fill(position, size_bytes, seen)
            at = 0
        return self._window[at : at + size_bytes]

    def _fill(self, position: int, size_bytes: int, seen: int) -> None:
        size = max(min(self._ahead, self._part.end - position), size_bytes)
        while True:
            try:
                self._window = memoryview(self._file.pread(size, position))
                break
            except OSError as error:
                if size == size_bytes:
                    raise self._rot(position, f"the disk refuses to read ({error})", seen)
            # A bad sector lies ahead: go on in small steps, so that what stands before it can be served.
            self._ahead = SECTOR_BYTES
            size = size_bytes if size <= SECTOR_BYTES else max(SECTOR_BYTES, size_bytes)
        self._window_start = position
        if len(self._window) < size_bytes:
            raise self._rot(position, "the file is cut short", seen)

    def _rot(self, position: int, what: str, seen: int) -> Rotten:
        """From the entry behind `seen` on, up to where the sparse index knows its way again."""
        last = self._points.last_index_around(position)
        return Rotten(position, what, seen + 1, max(last or self._part.last_index, seen + 1))

    def _index_before(self, position: int) -> int:
        """An index that is smaller than that of the entry at one of the index's points."""
        points = self._points
        return points.indexes[points.positions.index(position)] - 1
