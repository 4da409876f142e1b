"""Snapshot files: what has to outlive the write-ahead log, of many groups in one file.

    header │ state of group 7 │ state of group 9 │ ... │ directory, twice │ header

The row of a group in the directory holds its term and vote, the place of its state, the entry that its log ended
with, what of its segments is no part of the log any more, and what is damaged. File N says that everything in
write-ahead log files up to N is in segments and snapshots: writing it is the one moment at which a flush counts.
Of several rows of a group the newest file's counts. A file goes when it has none that counts; few that are left
are carried over into the next file. A deleted group leaves a row behind for as long as any file has something of
it: group ids are never used again, and nothing is deleted for want of metadata.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from struct import Struct

from replication.crc import crc32c
from replication.environment import Buffer, Environment, File
from replication.storage.damage import INDEX_UNKNOWN, Damage
from replication.storage.directory import CONTENT_START, Unreadable, read_directory, write_directory
from replication.storage.format import HardState

FOLDER = "snapshots"
MAGIC = b"PLAITSNP"
CARRY_BYTES_MAX = 4 << 20
"""Bytes of old snapshots that one flush carries over into its own file."""
CARRY_BELOW_BYTES = 64 * 1024
"""Old files whose rows that count take less than this are given up, whatever their share."""
CARRY_BELOW_PERCENT = 25
"""So are those in which they take less than this share."""
READ_TRIES = 2
"""How often the disk is asked for a state: to give one up is to give up its group."""

DELETED = 1
HAS_STATE = 2
KNOWS_LAST = 4
DAMAGE_LOST = 1
DAMAGE_HIDDEN = 2

_ROW = Struct("<QIQQQQqQQIII")
_OLD_CUT = Struct("<QQ")
_MORE = Struct("<QQIII")
_CUT = Struct("<QQQ")
_NUMBER = Struct("<Q")
_DAMAGE = Struct("<QQQQQIII")


@dataclass(frozen=True, slots=True)
class Cut:
    """Entries behind `index`, up to `last`, in segments of flushes up to `through` are no part of the log: they
    were truncated, or a snapshot that was installed has replaced them."""

    through: int
    index: int
    last: int = INDEX_UNKNOWN


@dataclass(slots=True)
class SnapshotRow:
    """What a snapshot file knows of one group."""

    group: int
    hard_state: HardState
    deleted: bool = False
    has_state: bool = False
    index: int = 0
    term: int = 0
    last_mark: int = 0
    last_index: int = 0
    """The last entry of the log behind that flush; 0: not known."""
    last_term: int = 0
    cuts: tuple[Cut, ...] = ()
    damages: tuple[Damage, ...] = ()
    """What is damaged; such a group stays out of service over restarts."""
    repaired: tuple[int, ...] = ()
    """See GroupLog."""
    state_position: int = 0
    state_bytes: int = 0
    state_crc: int = 0
    number: int = 0
    """The file that it is in."""

    @property
    def size_bytes(self) -> int:
        """About what it takes in its file."""
        more = len(self.cuts) * _CUT.size + len(self.damages) * 2 * _DAMAGE.size
        more += len(self.repaired) * _NUMBER.size
        return self.state_bytes + 2 * (_ROW.size + _MORE.size + more)


class SnapshotFiles:
    """All snapshot files of a node."""

    def __init__(self, environment: Environment) -> None:
        self._disk = environment.disk
        self._tasks = environment.tasks
        self.files: dict[int, dict[int, SnapshotRow]] = {}
        """By number, by group."""
        self.newest: dict[int, SnapshotRow] = {}
        self.sizes: dict[int, int] = {}
        self.unreadable: dict[int, None] = {}
        """Files whose directory is damaged. They are kept."""

    @property
    def covered(self) -> int:
        """Write-ahead log files up to this number are not needed any more."""
        return max(self.files, default=0)

    def load(self, number: int) -> None:
        """Read a file's directory (blocking); files in rising order. Raises OSError."""
        file = self._disk.open(file_name(number))
        try:
            header, directory = read_directory(file, MAGIC)
            size_bytes = file.size()
        except Unreadable:
            self._take(number, [], 0)  # its number alone says that the log up to there was given up
            self.unreadable[number] = None
            return
        finally:
            file.close()
        self._take(number, decode_rows(directory, header.rows, number), size_bytes)

    async def read(self, row: SnapshotRow) -> bytes | None:
        """A group's state; None if it is damaged."""
        return await self._tasks.offload("segments", partial(self.read_state, row))

    def carried(self) -> tuple[list[SnapshotRow], list[int]]:
        """Rows to carry over into the next file, and the files that can go when that is durable."""
        rows: list[SnapshotRow] = []
        files: list[int] = []
        left = 0 if self.unreadable else CARRY_BYTES_MAX  # a row must not look younger than what puts it in doubt
        for number, found in self.files.items():
            if number in self.unreadable:
                continue
            counting = [row for row in found.values() if self.newest[row.group] is row]
            size_bytes = sum(row.size_bytes for row in counting)
            share = size_bytes * 100 < CARRY_BELOW_PERCENT * self.sizes[number]
            if size_bytes <= left and (share or size_bytes < CARRY_BELOW_BYTES):
                left -= size_bytes
                rows += counting
                files.append(number)
        return rows, files

    def has_other(self, row: SnapshotRow) -> bool:
        """True if another file has a row of the same group."""
        return any(row.group in rows for number, rows in self.files.items() if number != row.number)

    def write(self, number: int, salt: int, rows: Sequence[tuple[SnapshotRow, Buffer]]) -> list[SnapshotRow]:
        """Write file `number` and make it durable (blocking); the rows as they are in it. Raises OSError."""
        name = f"{FOLDER}/{number:012d}.tmp"
        file = self._disk.create(name)
        try:
            written = _write(file, number, salt, rows)
            file.sync()
        except OSError:
            self._disk.unlink(name)
            raise
        finally:
            file.close()
        try:
            self._disk.rename(name, file_name(number))
            self._disk.sync_folder(FOLDER)
        except OSError as error:  # whether the flush counts is unknown now: nobody may take it back and try again
            raise OSError(errno.EIO, f"{name} may or may not have its name: {error}")
        return written

    def added(self, number: int, rows: list[SnapshotRow]) -> None:
        """A file was written and is durable."""
        self._take(number, rows, sum(row.size_bytes for row in rows))

    def forgotten(self, numbers: Sequence[int]) -> None:
        """Files were unlinked."""
        for number in numbers:
            for row in self.files.pop(number).values():
                if self.newest.get(row.group) is row:
                    del self.newest[row.group]
            del self.sizes[number]

    def unlink(self, numbers: Sequence[int]) -> None:
        """Remove files (blocking). Raises OSError."""
        for number in numbers:
            self._disk.unlink(file_name(number))
        self._disk.sync_folder(FOLDER)

    def _take(self, number: int, rows: list[SnapshotRow], size_bytes: int) -> None:
        self.files[number] = {row.group: row for row in rows}
        self.newest.update(self.files[number])
        self.sizes[number] = size_bytes

    def read_state(self, row: SnapshotRow) -> bytes | None:
        """A group's state (blocking); None if it is damaged, or the disk refuses to read it more than once."""
        for _ in range(READ_TRIES):
            try:
                state = self._read_state(row, 0, row.state_bytes)
            except OSError:
                continue
            return state if len(state) == row.state_bytes and crc32c(state) == row.state_crc else None
        return None

    async def read_piece(self, row: SnapshotRow, position: int, size_bytes: int) -> bytes | None:
        """Some bytes of a group's state, not checked; None where the disk refuses."""
        size_bytes = max(min(size_bytes, row.state_bytes - position), 0)
        try:
            return await self._tasks.offload("segments", partial(self._read_state, row, position, size_bytes))
        except OSError:
            return None

    def _read_state(self, row: SnapshotRow, position: int, size_bytes: int) -> bytes:
        if not size_bytes:
            return b""  # what stands there is somebody else's
        file = self._disk.open(file_name(row.number))
        try:
            return file.pread(size_bytes, row.state_position + position)
        finally:
            file.close()


def _write(file: File, number: int, salt: int, rows: Sequence[tuple[SnapshotRow, Buffer]]) -> list[SnapshotRow]:
    written: list[SnapshotRow] = []
    states: list[Buffer] = []
    position = CONTENT_START
    for row, state in rows:
        size_bytes = len(state)
        written.append(
            replace(row, number=number, state_position=position, state_bytes=size_bytes, state_crc=crc32c(state))
        )
        if size_bytes:
            states.append(state)
            position += size_bytes
    if states:
        file.pwrite(states, CONTENT_START)
    write_directory(file, MAGIC, number, salt, position, len(written), b"".join(map(encode_row, written)))
    return written


def encode_row(row: SnapshotRow) -> bytes:
    """A row of the directory."""
    fixed = _ROW.pack(
        row.group,
        (DELETED if row.deleted else 0) | (HAS_STATE if row.has_state else 0) | KNOWS_LAST,
        row.hard_state.term,
        row.hard_state.vote,
        row.index,
        row.term,
        row.last_mark,
        row.state_position,
        row.state_bytes,
        row.state_crc,
        0,
        0,
    )
    counts = len(row.cuts), len(row.damages), len(row.repaired)
    more = _MORE.pack(row.last_index, row.last_term, *counts)
    cuts = (_CUT.pack(cut.through, cut.index, cut.last) for cut in row.cuts)
    repaired = map(_NUMBER.pack, row.repaired)
    return b"".join((fixed, more, *cuts, *map(_encode_damage, row.damages), *repaired))


def _encode_damage(damage: Damage) -> bytes:
    flags = (DAMAGE_LOST if damage.lost else 0) | (DAMAGE_HIDDEN if damage.hidden else 0)
    file, what = damage.file.encode(), damage.what.encode()
    ends = damage.first_index, damage.last_index
    return (
        _DAMAGE.pack(*ends, damage.position, damage.term, damage.segment, flags, len(file), len(what))
        + file
        + what
    )


def decode_rows(directory: memoryview, count: int, number: int) -> list[SnapshotRow]:
    """All rows of a directory that is whole."""
    rows: list[SnapshotRow] = []
    at = 0
    for _ in range(count):
        row, at = _decode_row(directory, at, number)
        rows.append(row)
    return rows


def _decode_row(directory: memoryview, at: int, number: int) -> tuple[SnapshotRow, int]:
    """The row that begins there, and where the next one does."""
    group, flags, term, vote, index, snapshot_term, mark, position, size, crc, cuts, damage = _ROW.unpack_from(
        directory, at
    )
    row = SnapshotRow(
        group,
        HardState(term, vote),
        bool(flags & DELETED),
        bool(flags & HAS_STATE),
        index,
        snapshot_term,
        mark,
        state_position=position,
        state_bytes=size,
        state_crc=crc,
        number=number,
    )
    at += _ROW.size
    row.cuts = tuple(Cut(*_OLD_CUT.unpack_from(directory, at + n * _OLD_CUT.size)) for n in range(cuts))
    at += cuts * _OLD_CUT.size
    if damage:
        what = bytes(directory[at : at + damage]).decode()
        row.damages = (Damage(file_name(number), 0, what),)
        at += damage
    return (row, _decode_more(row, directory, at)) if flags & KNOWS_LAST else (row, at)


def _decode_more(row: SnapshotRow, directory: memoryview, at: int) -> int:
    """What later versions added; where the next row begins."""
    row.last_index, row.last_term, cuts, damages, repaired = _MORE.unpack_from(directory, at)
    at += _MORE.size
    row.cuts = tuple(Cut(*_CUT.unpack_from(directory, at + n * _CUT.size)) for n in range(cuts))
    at += cuts * _CUT.size
    found: list[Damage] = []
    for _ in range(damages):
        first, last, position, term, segment, flags, file_bytes, what_bytes = _DAMAGE.unpack_from(directory, at)
        at += _DAMAGE.size
        texts = bytes(directory[at : at + file_bytes + what_bytes])
        at += len(texts)
        file, what = texts[:file_bytes].decode(), texts[file_bytes:].decode()
        lost, hidden = bool(flags & DAMAGE_LOST), bool(flags & DAMAGE_HIDDEN)
        found.append(Damage(file, position, what, first, last, lost, hidden, term, segment))
    row.damages = tuple(found)
    row.repaired = tuple(_NUMBER.unpack_from(directory, at + n * _NUMBER.size)[0] for n in range(repaired))
    at += repaired * _NUMBER.size
    return at


def file_name(number: int) -> str:
    """Name of a snapshot file."""
    return f"{FOLDER}/{number:012d}.snap"
