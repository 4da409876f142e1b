"""Reading a write-ahead log file back: what is whole, what is torn, what has rotted. Pure.

    block ✔ │ block ✔ │ bad │ nothing valid behind     ->  torn: a write that was never acknowledged; the log ends
    block ✔ │ bad │ block ✔ (durable_seq >= the bad)   ->  a hole: synced data was lost; never cut, never skipped

A bad block is torn exactly if no later block says that it was synced (S3); the whole rest of the file is searched
before that is decided (S4), and a later file's header is such a word too, for everything before its own beginning.
The last block of all, without a successor, is ambiguous and taken as torn; the seal narrows that window to the
50 ms behind the last commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from replication.crc import crc32c
from replication.machine import Entry, Range
from replication.storage.format import (
    BLOCK_HEADER_BYTES,
    DELETE,
    ECHO_DELETED,
    ENTRY,
    FIRST_BLOCK,
    SECTOR_BYTES,
    BlockHeader,
    Echo,
    FileHeader,
    Note,
    Row,
    decode_block_header,
    decode_echo,
    decode_rows,
    decode_rows_left,
    table_of,
)


@dataclass(slots=True)
class BadPayload:
    """An entry whose payload has rotted. Its record is whole."""

    group: int
    index: int
    term: int
    mark: int
    """The last mark that it covers."""
    position: int


@dataclass(slots=True)
class Block:
    """A block of the log."""

    position: int
    seq: int
    items: list[tuple[int, list[Entry]] | Note | BadPayload]
    """(group, entries), notes and entries that have rotted, in order."""
    echo: Echo
    """Groups of the blocks before."""
    lost_records: int = 0
    """Records whose group is unknown, because table and record are damaged."""

    @property
    def bad_payloads(self) -> list[BadPayload]:
        """Its entries that have rotted."""
        return [item for item in self.items if isinstance(item, BadPayload)]

    @property
    def whole(self) -> bool:
        return not self.lost_records and not self.bad_payloads

    def groups(self) -> tuple[int, ...]:
        """The groups that the block has something of, each once, in order."""
        return tuple(dict.fromkeys(item[0] if isinstance(item, tuple) else item.group for item in self.items))

    def named(self) -> tuple[int, ...] | None:
        """The groups as the next block's echo names them; None: unknown."""
        if self.lost_records:
            return None
        gone = {item.group for item in self.items if isinstance(item, Note) and item.type == DELETE}
        return tuple(group | ECHO_DELETED if group in gone else group for group in self.groups())


@dataclass(slots=True)
class Hole:
    """Blocks `first_seq` to `last_seq` that were synced and are gone, whose groups this place does not tell."""

    position: int
    first_seq: int
    last_seq: int


@dataclass(slots=True)
class Scan:
    """What one file holds."""

    items: list[Block | Hole] = field(default_factory=list)
    end: int = FIRST_BLOCK
    """Where the log ends in this file."""
    last_seq: int = 0
    """The last block of the log up to here."""
    torn: bool = False
    """There was something behind the end, which is no part of the log."""


def scan_file(
    data: memoryview, header: FileHeader, successor: FileHeader | None, unreadable: Sequence[Range] = ()
) -> Scan:
    """All blocks of a file.

    `successor` is the header of the file that continues it: then everything up to where that one says was synced.
    `unreadable` are ranges of bytes that the disk refused to read (they are zeros in `data`): never taken as torn.
    """
    return _Scanner(data, header, successor, unreadable).run()


class _Scanner:
    def __init__(
        self, data: memoryview, header: FileHeader, successor: FileHeader | None, unreadable: Sequence[Range]
    ) -> None:
        self._data = data
        self._seed = header.seed
        self._successor = successor
        self._unreadable = unreadable
        self._limit = successor.previous_end if successor is not None else len(data)
        self._scan = Scan(last_seq=header.previous_seq)

    def run(self) -> Scan:
        scan = self._scan
        while scan.end < self._limit and self._step():
            pass
        if self._successor is not None:
            if scan.last_seq < self._successor.previous_seq:
                self._hole(self._successor.previous_seq, self._limit)
            scan.end = self._limit
        return scan

    def _step(self) -> bool:
        """Take what is at the end of what was read so far. False: the log ends there."""
        scan = self._scan
        position, expected = scan.end, scan.last_seq + 1
        header = self._header(position)
        if header is None or header.seq < expected:
            return self._skip(position, expected)
        if header.seq > expected:
            self._hole(header.seq - 1, position)
        block = self._block(header)
        if not block.whole and not self._was_synced(header):
            if self._refused(position, header.end):
                return self._lose_rest(expected)
            scan.torn = True
            return False
        scan.items.append(block)
        scan.end, scan.last_seq = min(header.end, self._limit), header.seq
        return True

    def _skip(self, position: int, expected: int) -> bool:
        """There is no block where one is due."""
        later = self._find(position + SECTOR_BYTES, expected)
        if later is not None:
            self._hole(later.seq - 1, later.position)
            return True
        if self._successor is not None:
            return False
        if self._refused(position, position + SECTOR_BYTES):
            return self._lose_rest(expected)
        self._scan.torn = any(self._data[position : position + SECTOR_BYTES])
        return False

    def _hole(self, last_seq: int, end: int) -> None:
        scan = self._scan
        if last_seq > scan.last_seq:
            scan.items.append(Hole(scan.end, scan.last_seq + 1, last_seq))
        scan.end, scan.last_seq = end, max(last_seq, scan.last_seq)

    def _lose_rest(self, expected: int) -> bool:
        """The disk refuses what may be the last blocks: nobody can say that they were torn."""
        end = len(self._data)
        self._hole(expected + (end - self._scan.end) // SECTOR_BYTES, end)
        return False

    def _was_synced(self, header: BlockHeader) -> bool:
        if self._successor is not None and header.seq <= self._successor.previous_seq:
            return True
        return self._find(header.position + SECTOR_BYTES, header.seq) is not None

    def _find(self, position: int, seq: int) -> BlockHeader | None:
        """The first later block that says that block `seq` was synced."""
        while position < self._limit:
            header = self._header(position)
            if header is not None and header.seq > seq and header.durable_seq >= seq:
                return header
            position += SECTOR_BYTES
        return None

    def _header(self, position: int) -> BlockHeader | None:
        return decode_block_header(self._data, position, self._seed)

    def _refused(self, first: int, end: int) -> bool:
        return any(low < end and high >= first for low, high in self._unreadable)

    def _block(self, header: BlockHeader) -> Block:
        table = table_of(self._data, header, self._seed)
        echo: Echo
        rows: Sequence[Row | None]
        if table is not None:
            echo, rows, lost = decode_echo(table, header), decode_rows(table, header.records), 0
        else:
            echo, rows = (), decode_rows_left(self._data, header)
            lost = rows.count(None)
        block = Block(header.position, header.seq, [], echo)
        start = header.position + BLOCK_HEADER_BYTES + header.table_bytes
        _read_payloads(self._data, start, start + header.payload_bytes, rows, lost, block)
        if table is None and not block.lost_records:
            block.lost_records = 1  # the echo alone is damaged, or the table's checksum: not whole either
        return block


def _read_payloads(
    data: memoryview, position: int, end: int, rows: Sequence[Row | None], lost: int, block: Block
) -> None:
    """Check and slice the payloads that stand one behind the other, as far as their places are known."""
    items, run, of_group = block.items, list[Entry](), -1
    block.lost_records = lost
    for at, row in enumerate(rows):
        if row is None:
            if lost > 1:  # everything behind is at an unknown place
                _bad_rest(rows[at:], position, block)
                return
            position += end - position - sum(later[8] for later in rows[at:] if later is not None)
            of_group = -1
            continue
        kind_of, kind, _, span, group, index, term, mark, length, payload_crc, _ = row
        if kind_of != ENTRY:
            items.append(Note(kind_of, group, index, term, mark))
            of_group = -1
            continue
        payload = data[position : position + length]
        if crc32c(payload) != payload_crc or len(payload) != length:
            items.append(BadPayload(group, index, term, mark + max(span - 1, 0), position))
            of_group = -1
        else:
            if group != of_group:
                run, of_group = [], group
                items.append((group, run))
            run.append(Entry(index, term, kind, mark, span, payload))
        position += length


def _bad_rest(rows: Sequence[Row | None], position: int, block: Block) -> None:
    for row in rows:
        if row is not None and row[0] == ENTRY:
            block.items.append(BadPayload(row[4], row[5], row[6], row[7] + max(row[3] - 1, 0), position))
        elif row is not None:
            block.items.append(Note(row[0], row[4], row[5], row[6], row[7]))
