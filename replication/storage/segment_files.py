"""The segment files of a node: which there are, and reading them.

All reading goes through one lane, piece by piece, so that caches and open files have one user at a time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import partial

from replication.environment import Environment, File
from replication.machine import Entry
from replication.storage.directory import Unreadable, read_directory, seed_of
from replication.storage.reading import PartReader, Rotten
from replication.storage.segments import (
    FOLDER,
    MAGIC,
    POINT_BYTES,
    Part,
    SparseIndex,
    decode_parts,
    decode_points,
    file_name,
)

OPEN_FILES_MAX = 64
"""Segment files that are kept open."""
INDEX_POINTS_MAX = 100_000
"""Points of sparse indexes that are kept in memory, 24 bytes each."""
CHECK_BYTES = 1 << 20
"""What is read at a time to see whether damage is still there."""
LANE = "segments"


class SegmentFile:
    """One file and what it has."""

    __slots__ = ("number", "parts", "pins", "salt_seed", "unreadable")

    def __init__(self, number: int, seed: int, parts: list[Part]) -> None:
        self.number = number
        self.salt_seed = seed
        self.parts = parts
        self.pins = 0
        """Reads under way or waiting; a file with any is not unlinked."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its entries."""
        return sum(part.size_bytes for part in self.parts)


class SegmentFiles:
    """All of them."""

    def __init__(self, environment: Environment) -> None:
        self._disk = environment.disk
        self._tasks = environment.tasks
        self.files: dict[int, SegmentFile] = {}
        self.retired: dict[int, SegmentFile] = {}
        """No log has a part in them any more; they go when their last reader has gone."""
        self.fresh: dict[int, None] = {}
        """Files whose parts a flush has not given to all their logs yet: that no log has one says nothing."""
        self.changed = True
        """True when files may have died or shrunk since the janitor last looked."""
        self.last_number = 0
        self._open: OrderedDict[int, File] = OrderedDict()
        self._indexes: OrderedDict[tuple[int, ...], SparseIndex] = OrderedDict()
        self._points = 0

    def load(self, number: int) -> SegmentFile | None:
        """Read a file's directory (blocking); None if that is damaged."""
        self.last_number = max(self.last_number, number)
        file = self._disk.open(file_name(number))
        try:
            header, directory = read_directory(file, MAGIC)
        except Unreadable:
            return None
        finally:
            file.close()
        if header.number != number:
            return None
        parts = decode_parts(directory, header.rows, number)
        self.files[number] = SegmentFile(number, header.seed, parts)
        return self.files[number]

    def add(self, number: int, salt: int, parts: list[Part]) -> None:
        """A new file was written and is durable."""
        self.files[number] = SegmentFile(number, seed_of(salt, number), parts)

    def new_number(self) -> int:
        """A number higher than all so far. On the loop only."""
        self.last_number += 1
        return self.last_number

    def parts_of(self, group: int) -> Iterator[Part]:
        """What a group has in files that are on the disk, also in those that are about to go."""
        for files in (self.files, self.retired):
            for file in files.values():
                yield from (part for part in file.parts if part.group == group)

    async def read_index(self, part: Part, first_index: int, max_bytes: int) -> list[Entry]:
        """See PartReader.from_index. Raises Rotten."""
        return await self._read(part, partial(PartReader.from_index, first_index=first_index, max_bytes=max_bytes))

    async def read_mark(self, part: Part, mark: int, max_bytes: int, first_index: int = 0) -> list[Entry]:
        """See PartReader.from_mark. Raises Rotten."""
        read = partial(PartReader.from_mark, mark=mark, max_bytes=max_bytes, first_index=first_index)
        return await self._read(part, read)

    def reads_whole(self, part: Part, first_index: int, last_index: int) -> bool:
        """True if these entries can be read (blocking; while the store is opened)."""
        file = self.files[part.number]
        index = first_index
        while index <= last_index:
            try:
                read = partial(PartReader.from_index, first_index=index, max_bytes=CHECK_BYTES)
                entries = self._read_part(file, part, read)
            except Rotten as error:
                return error.first_index > last_index
            if not entries:
                break
            index = entries[-1].index + 1
        return True

    def retire(self, number: int) -> None:
        """No log needs the file any more."""
        self.retired[number] = self.files.pop(number)

    async def remove_retired(self) -> int:
        """Unlink what is retired and not being read; how many files went. Raises OSError."""
        gone = [number for number, file in self.retired.items() if not file.pins]
        if gone:
            await self._tasks.offload(LANE, partial(self._remove, gone))
            for number in gone:
                del self.retired[number]
        return len(gone)

    async def close(self) -> None:
        """Close what is open."""
        await self._tasks.offload(LANE, self._close_all)

    # ---- in the lane

    async def _read(self, part: Part, read: partial[list[Entry]]) -> list[Entry]:
        file = self.files.get(part.number) or self.retired[part.number]
        file.pins += 1
        try:
            return await self._tasks.offload(LANE, partial(self._read_part, file, part, read))
        finally:
            file.pins -= 1

    def _read_part(self, file: SegmentFile, part: Part, read: partial[list[Entry]]) -> list[Entry]:
        try:
            handle = self._handle(file.number)
            points = self._index(handle, file, part)
        except OSError as error:
            raise Rotten(part.position, f"the disk refuses: {error}", part.first_index, part.last_index)
        entries: list[Entry] = read(PartReader(handle, file.salt_seed, part, points))
        return entries

    def _handle(self, number: int) -> File:
        handle = self._open.pop(number, None)
        if handle is None:
            handle = self._disk.open(file_name(number))
        self._open[number] = handle
        while len(self._open) > OPEN_FILES_MAX:
            self._open.popitem(last=False)[1].close()
        return handle

    def _index(self, handle: File, file: SegmentFile, part: Part) -> SparseIndex:
        key = (part.number, *part.key)
        points = self._indexes.pop(key, None)
        if points is None:
            try:
                data = handle.pread(part.index_points * POINT_BYTES, part.index_position)
            except OSError:
                data = b""  # the entries may well be readable: without an index they are read from the start
            points = decode_points(data, part, file.salt_seed)
            self._points += len(points)
        self._indexes[key] = points
        while self._points > INDEX_POINTS_MAX and len(self._indexes) > 1:
            self._points -= len(self._indexes.popitem(last=False)[1])
        return points

    def _remove(self, numbers: list[int]) -> None:
        gone = set(numbers)
        for key in [key for key in self._indexes if key[0] in gone]:
            self._points -= len(self._indexes.pop(key))
        for number in numbers:
            handle = self._open.pop(number, None)
            if handle is not None:
                handle.close()
            self._disk.unlink(file_name(number))
        self._disk.sync_folder(FOLDER)

    def _close_all(self) -> None:
        while self._open:
            self._open.popitem()[1].close()
