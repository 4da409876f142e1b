"""The bytes of a segment file: entries that left the write-ahead log, grouped by group, with a sparse index.

    header │ part: entry entry entry ... │ part ... │ index points of all parts │ directory, twice │ header

An entry is its record (checked with the file's seed) and its payload. A *part* is what one group has in one file;
its row in the directory has everything that opening a store needs, so files are not read until somebody asks.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct

from replication.crc import crc32c
from replication.environment import Buffer, File
from replication.machine import Entry, Range
from replication.storage.directory import CONTENT_START, seed_of, write_directory
from replication.storage.format import RECORD_BYTES, encode_entry
from replication.storage.ranges import without

FOLDER = "segments"
MAGIC = b"PLAITSEG"
WRITE_BYTES = 1 << 20
"""Bytes collected before they are handed to the kernel."""
JOIN_BELOW_BYTES = 4096
"""Average size of buffers below which a write joins them."""

_PART = Struct("<QQQQqqIIQQQQIII")
_TERM = Struct("<QQ")
_POINT = Struct("<QqQ")
POINT_BYTES = _POINT.size


class SparseIndex:
    """Where to begin to read: for some entries their index, the first mark at or behind them, their position."""

    __slots__ = ("indexes", "marks", "positions")

    def __init__(self) -> None:
        self.indexes = array("q")
        self.marks = array("q")
        self.positions = array("q")

    def __len__(self) -> int:
        return len(self.positions)

    def add(self, index: int, mark: int, position: int) -> None:
        """Add a point behind the others."""
        self.indexes.append(index)
        self.marks.append(mark)
        self.positions.append(position)

    def before_index(self, index: int) -> int:
        """The position from which to look for an index."""
        return self.positions[max(bisect_right(self.indexes, index) - 1, 0)]

    def before_mark(self, mark: int) -> int:
        """The position from which to look for the entry that covers a mark."""
        return self.positions[max(bisect_right(self.marks, mark) - 1, 0)]

    def last_index_around(self, position: int) -> int | None:
        """The last index that may stand between this position and the next point; None: up to the end."""
        at = bisect_right(self.positions, position)
        return self.indexes[at] - 1 if at < len(self.positions) else None


@dataclass(slots=True)
class Part:
    """What one group has in one segment file."""

    group: int
    origin: int
    """The last write-ahead log file of the flush that its entries come from; kept by compaction, as is `piece`."""
    first_index: int
    last_index: int
    first_mark: int = 0
    last_mark: int = -1
    entries: int = 0
    piece: int = 0
    """Tells parts of one group and origin from each other: an installed snapshot brings several."""
    marks: int = 0
    """Sum of the spans."""
    position: int = 0
    size_bytes: int = 0
    """Of records and payloads."""
    index_position: int = 0
    index_points: int = 0
    index_crc: int = 0
    terms: list[tuple[int, int]] = field(default_factory=list)
    """(first index, term) for each change of the term."""
    number: int = 0
    """The segment file it is in."""
    shown: list[Range] = field(default_factory=list)
    """Indexes that are part of the log; others in the file were truncated later, or replaced by another part."""

    @property
    def key(self) -> tuple[int, int, int]:
        """What it stays when it is rewritten into another file."""
        return self.group, self.origin, self.piece

    @property
    def valid_last(self) -> int:
        """The last index that is part of the log; 0: none is."""
        return self.shown[-1][1] if self.shown else 0

    def hide(self, first_index: int, last_index: int) -> None:
        """These indexes are no part of the log any more, whatever the file has there."""
        self.shown = without(self.shown, first_index, last_index)

    @property
    def end(self) -> int:
        """Behind its last entry."""
        return self.position + self.size_bytes

    def term_at(self, index: int) -> int:
        """The term of the entry of that index."""
        return self.terms[bisect_right(self.terms, index, key=lambda change: change[0]) - 1][1]


class SegmentWriter:
    """Writes one segment file, entries of one group after the other. Blocking; every call may raise OSError."""

    def __init__(self, file: File, number: int, salt: int, index_bytes: int) -> None:
        self._file = file
        self._number = number
        self._salt = salt
        self._seed = seed_of(salt, number)
        self._index_bytes = index_bytes
        self._position = CONTENT_START
        self._written = CONTENT_START
        self._buffers: list[Buffer] = []
        self._parts: list[Part] = []
        self._points: list[SparseIndex] = []
        self._unmarked = 0  # points at the end of the part whose mark is not known yet

    def begin(self, group: int, origin: int, piece: int = 0) -> None:
        """The entries that follow belong to this group."""
        self._end_part()
        self._parts.append(Part(group, origin, 0, 0, piece=piece, position=self._position, number=self._number))
        self._points.append(SparseIndex())

    def add(self, entries: Sequence[Entry]) -> None:
        """Add entries, by rising index."""
        part, points, seed = self._parts[-1], self._points[-1], self._seed
        for entry in entries:
            if not points or self._position - points.positions[-1] >= self._index_bytes:
                points.add(entry.index, 0, self._position)
                self._unmarked += 1
            if entry.span:
                if self._unmarked:
                    self._mark_points(entry.mark)
                if not part.marks:
                    part.first_mark = entry.mark
                part.last_mark = entry.mark + entry.span - 1
                part.marks += entry.span
            if not part.terms or part.terms[-1][1] != entry.term:
                part.terms.append((entry.index, entry.term))
            self._buffers.append(encode_entry(part.group, entry, seed))
            self._buffers.append(entry.payload)
            self._position += RECORD_BYTES + len(entry.payload)
            if self._position - self._written >= WRITE_BYTES:
                self._flush()
        if entries:
            part.first_index = part.first_index or entries[0].index
            part.last_index = entries[-1].index
            part.entries += len(entries)

    @property
    def size_bytes(self) -> int:
        """Of the file so far."""
        return self._position

    def save(self) -> None:
        """Sync what was added so far."""
        self._flush()
        self._file.sync()

    def finish(self, origin: int | None = None) -> list[Part]:
        """Write what is left, index and directory, and sync; the parts as a reader needs them.

        `origin`: of all parts, where it was not known before.
        """
        self._end_part()
        for part in self._parts:
            part.origin = part.origin if origin is None else origin
        self._flush()
        self._write_points()
        directory = b"".join(map(encode_part, self._parts))
        write_directory(self._file, MAGIC, self._number, self._salt, self._written, len(self._parts), directory)
        self._file.sync()
        return self._parts

    def _end_part(self) -> None:
        if self._parts:
            part = self._parts[-1]
            self._mark_points(part.last_mark + 1)
            part.size_bytes = self._position - part.position
            part.shown = [(part.first_index, part.last_index)]

    def _mark_points(self, mark: int) -> None:
        points = self._points[-1]
        for at in range(len(points) - self._unmarked, len(points)):
            points.marks[at] = mark
        self._unmarked = 0

    def _write_points(self) -> None:
        for part, points in zip(self._parts, self._points, strict=True):
            encoded = b"".join(map(_POINT.pack, points.indexes, points.marks, points.positions))
            part.index_position, part.index_points = self._position, len(points)
            part.index_crc = crc32c(encoded, self._seed)
            self._buffers.append(encoded)
            self._position += len(encoded)
        self._flush()

    def _flush(self) -> None:
        buffers, self._buffers = self._buffers, []
        if buffers:
            if self._position - self._written < JOIN_BELOW_BYTES * len(buffers):
                buffers = [b"".join(buffers)]
            self._file.pwrite(buffers, self._written)
            self._written = self._position


def encode_part(part: Part) -> bytes:
    """A row of the directory."""
    fixed = _PART.pack(
        part.group,
        part.origin,
        part.first_index,
        part.last_index,
        part.first_mark,
        part.last_mark,
        part.entries,
        part.piece,
        part.marks,
        part.position,
        part.size_bytes,
        part.index_position,
        part.index_points,
        part.index_crc,
        len(part.terms),
    )
    return fixed + b"".join(_TERM.pack(*change) for change in part.terms)


def decode_parts(directory: memoryview, rows: int, number: int) -> list[Part]:
    """All rows of a directory that is whole."""
    parts: list[Part] = []
    at = 0
    for _ in range(rows):
        row = _PART.unpack_from(directory, at)
        at += _PART.size
        terms = [_TERM.unpack_from(directory, at + n * _TERM.size) for n in range(row[14])]
        at += len(terms) * _TERM.size
        part = Part(*row[:14])
        part.terms = [(int(index), int(term)) for index, term in terms]
        part.number, part.shown = number, [(part.first_index, part.last_index)]
        parts.append(part)
    return parts


def decode_points(data: Buffer, part: Part, seed: int) -> SparseIndex:
    """A part's sparse index. Where it is damaged, the one that has a single point: slow, and as right."""
    points = SparseIndex()
    if len(data) != part.index_points * POINT_BYTES or crc32c(data, seed) != part.index_crc:
        points.add(part.first_index, part.first_mark, part.position)
        return points
    for index, mark, position in _POINT.iter_unpack(data):
        points.add(index, mark, position)
    return points


def file_name(number: int) -> str:
    """Name of a segment file."""
    return f"{FOLDER}/{number:012d}.seg"
