"""The bytes of a write-ahead log file. Pure.

    file   = header sector | its copy | block | block | ... | zeros
    block  = header | table of records | groups of the blocks before ("echo") | payloads | zeros to the next sector

A block is one group commit. It starts on a sector of its own, so that writing it never touches a sector that
holds synced data. Its header and table are checked with a seed from the file's random salt: whatever an older life
of the same disk space left there is never taken for a block. The table has one fixed-size record for each item,
with its own checksum and the payload's: rot in a payload still names the group and index that it hit, rot in one
record spares the others, and the groups of a block that is lost whole are named by the next one's echo.
`durable_seq` says which blocks were synced when this one was written: that tells a torn write from rot.

All numbers are little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct

from replication.crc import crc32c
from replication.environment import Buffer
from replication.machine import Entry

SECTOR_BYTES = 4096
"""Blocks begin at multiples of this: no write touches a sector with synced data."""
FORMAT_VERSION = 1
FILE_MAGIC = b"PLAITWAL"
FILE_HEADER_PLACES = (0, SECTOR_BYTES)
"""Where a file's header sector stands, twice."""
FIRST_BLOCK = 2 * SECTOR_BYTES
"""Where a file's first block begins."""
BLOCK_MAGIC = b"PBLK"
FLAG_SEAL = 1
"""The block has no records: it only says that everything before it is synced."""
ECHO_BLOCKS = 2
"""Blocks whose groups an echo names, the last one first."""
ECHO_GROUPS_MAX = 4096
"""Groups that an echo names; where the blocks before had more, it names none (ECHO_UNKNOWN)."""
ECHO_UNKNOWN = 0xFFFF_FFFF
ECHO_DELETED = 1 << 63
"""Bit that an echo sets in the number of a group that the block deleted."""
_ECHO_NEXT_BLOCK = (1 << 64) - 1

ENTRY = 1
HARD_STATE = 2
TRUNCATE = 3
CREATE = 4
DELETE = 5
DAMAGE = 6
TOUCH = 7  # says nothing: the flush of the file is to take the group's state

Echo = tuple[tuple[int, ...] | None, ...]
"""Groups of each of the blocks before, the last one first; None for a block whose groups are unknown."""

_FILE_HEADER = Struct("<8sHHIQQQQQ")
_BLOCK_HEADER = Struct("<4sHHQQQIIII")
_RECORD = Struct("<BBHIQQQqII")
_CRC = Struct("<I")
_GROUP = Struct("<Q")
_SEED = Struct("<QQ")
_RECORD_WITH_CRC = Struct("<BBHIQQQqIII")
BLOCK_HEADER_BYTES = _BLOCK_HEADER.size + _CRC.size
RECORD_BYTES = _RECORD_WITH_CRC.size
ECHO_GROUP_BYTES = _GROUP.size
_ZEROS = bytes(SECTOR_BYTES)


@dataclass(frozen=True, slots=True)
class HardState:
    """What a Raft replica must not forget: its term, and whom it voted for in it (0: nobody)."""

    term: int = 0
    vote: int = 0


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The first sectors of a write-ahead log file: who it is and where the log comes from."""

    number: int
    salt: int
    previous_number: int
    """The file that the log continues from; 0: none."""
    previous_seq: int
    """The last block of the log before this file; this file's first block has the next number."""
    previous_end: int
    """Where the log ends in that file. Whatever stands behind is no part of it."""

    @property
    def seed(self) -> int:
        """What this file's checksums start from."""
        return crc32c(_SEED.pack(self.salt, self.number))


@dataclass(slots=True)
class BlockHeader:
    """The fixed part of a block."""

    flags: int
    seq: int
    durable_seq: int
    position: int
    records: int
    echo: int
    """Groups in the echo, or ECHO_UNKNOWN."""
    payload_bytes: int
    table_crc: int

    @property
    def table_bytes(self) -> int:
        """Size of table and echo."""
        return self.records * RECORD_BYTES + (0 if self.echo == ECHO_UNKNOWN else self.echo * ECHO_GROUP_BYTES)

    @property
    def end(self) -> int:
        """Where the next block begins."""
        return align(self.position + BLOCK_HEADER_BYTES + self.table_bytes + self.payload_bytes)


@dataclass(slots=True)
class Note:
    """A record that is no entry."""

    type: int
    group: int
    index: int
    """A hard state's vote; the last index that a truncation keeps; the first one that is damaged."""
    term: int
    """A hard state's; the last index that is damaged."""
    mark: int = 0
    """The segment file in which there is damage; 0: in the snapshot."""


def align(size_bytes: int) -> int:
    """The next multiple of SECTOR_BYTES."""
    return (size_bytes + SECTOR_BYTES - 1) & -SECTOR_BYTES


def encode_file_header(header: FileHeader) -> bytes:
    """The header sector of a file; it is written to both FILE_HEADER_PLACES."""
    body = _FILE_HEADER.pack(
        FILE_MAGIC,
        FORMAT_VERSION,
        0,
        0,
        header.number,
        header.salt,
        header.previous_number,
        header.previous_seq,
        header.previous_end,
    )
    return (body + _CRC.pack(crc32c(body))).ljust(SECTOR_BYTES, b"\0")


def decode_file_header(data: Buffer) -> FileHeader | None:
    """The header of a file from its first sectors, by whichever copy is whole; None if neither is."""
    for at in FILE_HEADER_PLACES:
        end = at + _FILE_HEADER.size
        if len(data) < end + _CRC.size:
            return None
        body = memoryview(data)[at:end]
        if crc32c(body) != _CRC.unpack_from(data, end)[0]:
            continue
        magic, version, _, _, number, salt, previous, seq, previous_end = _FILE_HEADER.unpack(body)
        if magic == FILE_MAGIC and version == FORMAT_VERSION:
            return FileHeader(number, salt, previous, seq, previous_end)
    return None


def encode_entries(group: int, entries: Iterable[Entry], table: list[bytes], payloads: list[Buffer]) -> int:
    """Add the records of entries to a table under construction; the bytes of their payloads."""
    size_bytes = 0
    pack = _RECORD.pack
    pack_crc = _CRC.pack
    for entry in entries:
        payload = entry.payload
        length = len(payload)
        row = pack(
            ENTRY, entry.kind, 0, entry.span, group, entry.index, entry.term, entry.mark, length, crc32c(payload)
        )
        table.append(row)
        table.append(pack_crc(crc32c(row)))
        if length:
            payloads.append(payload)
            size_bytes += length
    return size_bytes


def encode_entry(group: int, entry: Entry, seed: int) -> bytes:
    """The record that stands before an entry's payload in a segment file."""
    payload = entry.payload
    row = _RECORD.pack(
        ENTRY, entry.kind, 0, entry.span, group, entry.index, entry.term, entry.mark, len(payload), crc32c(payload)
    )
    return row + _CRC.pack(crc32c(row, seed))


EntryRow = tuple[int, int, int, int, int, int, int, int]
"""kind, span, group, index, term, mark, length of the payload, its checksum."""


def decode_entry(data: memoryview, at: int, seed: int) -> EntryRow | None:
    """The record at a position of a segment file; None if it is damaged or not whole in `data`."""
    if len(data) - at < RECORD_BYTES:
        return None
    kind_of, kind, _, span, group, index, term, mark, length, payload_crc, crc = _RECORD_WITH_CRC.unpack_from(
        data, at
    )
    if crc32c(data[at : at + _RECORD.size], seed) != crc or kind_of != ENTRY:
        return None
    return kind, span, group, index, term, mark, length, payload_crc


def encode_note(record_type: int, group: int, index: int = 0, term: int = 0, mark: int = 0) -> bytes:
    """A record without payload: a hard state (vote as index), a truncation, a creation, a deletion, damage."""
    row = _RECORD.pack(record_type, 0, 0, 0, group, index, term, mark, 0, 0)
    return row + _CRC.pack(crc32c(row))


def encode_echo(blocks: Echo) -> tuple[int, bytes]:
    """Count and bytes of the echo that names the groups of the blocks before."""
    numbers: list[int] = []
    for groups in blocks:
        if groups is None or len(numbers) + len(groups) > ECHO_GROUPS_MAX:
            break
        numbers += (*groups, _ECHO_NEXT_BLOCK)
    if blocks and not numbers:
        return ECHO_UNKNOWN, b""
    return len(numbers), b"".join(map(_GROUP.pack, numbers))


def encode_block(
    header: BlockHeader, seed: int, table: Sequence[bytes], echo: bytes, payloads: Sequence[Buffer]
) -> list[Buffer]:
    """All parts of a block, to be written at its position; fills in the header's `table_crc`.

    The payloads are not copied.
    """
    rows = b"".join((*table, echo))
    header.table_crc = crc32c(rows, seed)
    body = _BLOCK_HEADER.pack(
        BLOCK_MAGIC,
        FORMAT_VERSION,
        header.flags,
        header.seq,
        header.durable_seq,
        header.position,
        header.records,
        header.echo,
        header.payload_bytes,
        header.table_crc,
    )
    front = body + _CRC.pack(crc32c(body, seed)) + rows
    padding = header.end - header.position - len(front) - header.payload_bytes
    return [front, *payloads, _ZEROS[:padding]] if padding else [front, *payloads]


def decode_block_header(data: Buffer, position: int, seed: int) -> BlockHeader | None:
    """The header of the block that begins at `position`; None if there is none."""
    end = position + _BLOCK_HEADER.size
    if data[position : position + 4] != BLOCK_MAGIC or len(data) < end + _CRC.size:
        return None
    view = memoryview(data)[position:end]
    if crc32c(view, seed) != _CRC.unpack_from(data, end)[0]:
        return None
    _, version, flags, seq, durable, place, records, echo, size_bytes, table_crc = _BLOCK_HEADER.unpack(view)
    if version != FORMAT_VERSION or place != position:
        return None
    return BlockHeader(flags, seq, durable, place, records, echo, size_bytes, table_crc)


def table_of(data: memoryview, header: BlockHeader, seed: int) -> memoryview | None:
    """A block's table and echo; None if they are damaged."""
    start = header.position + BLOCK_HEADER_BYTES
    table = data[start : start + header.table_bytes]
    if len(table) != header.table_bytes or crc32c(table, seed) != header.table_crc:
        return None
    return table


def decode_echo(table: memoryview, header: BlockHeader) -> Echo:
    """The groups of the blocks before, as far as they are named, from a table that is whole."""
    blocks: list[tuple[int, ...]] = []
    groups: list[int] = []
    if header.echo != ECHO_UNKNOWN:
        for (number,) in _GROUP.iter_unpack(table[header.records * RECORD_BYTES :]):
            if number == _ECHO_NEXT_BLOCK:
                blocks.append(tuple(groups))
                groups = []
            else:
                groups.append(number)
    return tuple(blocks)


Row = tuple[int, int, int, int, int, int, int, int, int, int, int]
"""A record as it stands in a table: type, kind, flags, span, group, index, term, mark, length and checksum of the
payload, own checksum."""


def decode_rows(table: memoryview, count: int) -> list[Row]:
    """The records of a table that is whole."""
    return list(_RECORD_WITH_CRC.iter_unpack(table[: count * RECORD_BYTES]))


def decode_rows_left(data: memoryview, header: BlockHeader) -> list[Row | None]:
    """The records of a damaged table, None for each that is damaged itself."""
    found: list[Row | None] = []
    start = header.position + BLOCK_HEADER_BYTES
    for at in range(start, start + header.records * RECORD_BYTES, RECORD_BYTES):
        row = data[at : at + RECORD_BYTES]
        whole = len(row) == RECORD_BYTES and crc32c(row[: _RECORD.size]) == _CRC.unpack_from(row, _RECORD.size)[0]
        found.append(_RECORD_WITH_CRC.unpack(row) if whole else None)
    return found
