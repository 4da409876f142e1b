"""Torn or rotten: what a scan of a write-ahead log file decides."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.machine import Entry, Range
from replication.storage.format import (
    BLOCK_HEADER_BYTES,
    FIRST_BLOCK,
    FLAG_SEAL,
    RECORD_BYTES,
    SECTOR_BYTES,
    BlockHeader,
    FileHeader,
    encode_block,
    encode_echo,
    encode_entries,
    encode_file_header,
)
from replication.storage.scan import Block, Hole, Scan, scan_file

HEADER = FileHeader(3, salt=99, previous_number=2, previous_seq=10, previous_end=20_480)
FILE_BYTES = 262_144


class Builder:
    """A file of blocks with seqs from 11 on; block N has the entries (N, 1), (N, 2) of group N."""

    def __init__(self) -> None:
        sector = encode_file_header(HEADER)
        self.data = bytearray(sector + sector)
        self.starts: list[int] = []
        self.seq = HEADER.previous_seq

    def block(self, size_bytes: int = 100, flags: int = 0, *, synced: int | None = None) -> Builder:
        """`synced`: the last block that is synced by now, where that is not the one before."""
        self.seq += 1
        self.starts.append(len(self.data))
        table: list[bytes] = []
        payloads: list[bytes | bytearray | memoryview] = []
        entries = [] if flags else [Entry(i, 1, 1, i, 1, bytes([self.seq]) * size_bytes) for i in (1, 2)]
        payload_bytes = encode_entries(self.seq, entries, table, payloads)
        count, echo = encode_echo(((self.seq - 1,), (self.seq - 2,)))
        header = BlockHeader(
            flags,
            self.seq,
            self.seq - 1 if synced is None else synced,
            len(self.data),
            len(entries),
            count,
            payload_bytes,
            table_crc=0,
        )
        self.data += b"".join(encode_block(header, HEADER.seed, table, echo, payloads))
        return self

    def scan(self, successor: FileHeader | None = None, unreadable: Sequence[Range] = ()) -> Scan:
        data = self.data + bytes(FILE_BYTES - len(self.data))
        return scan_file(memoryview(bytes(data)), HEADER, successor, unreadable)

    def successor(self) -> FileHeader:
        """The header of a file that was begun behind the last block."""
        return FileHeader(4, 7, 3, self.seq, len(self.data))


def blocks(count: int, size_bytes: int = 100) -> Builder:
    builder = Builder()
    for _ in range(count):
        builder.block(size_bytes)
    return builder


def seqs(scan: Scan) -> list[int | tuple[int, int]]:
    """Blocks as their seq, holes as (first, last)."""
    return [item.seq if isinstance(item, Block) else (item.first_seq, item.last_seq) for item in scan.items]


def test_whole_blocks_are_read_up_to_the_zeros() -> None:
    builder = blocks(3)
    scan = builder.scan()
    assert seqs(scan) == [11, 12, 13]
    assert (scan.end, scan.last_seq, scan.torn) == (len(builder.data), 13, False)
    first = scan.items[0]
    assert isinstance(first, Block)
    assert first.groups() == (11,)
    ((group, entries),) = first.items
    assert (group, [bytes(entry.payload) for entry in entries]) == (11, [bytes([11]) * 100] * 2)


def test_an_empty_file_is_a_clean_end() -> None:
    scan = Builder().scan()
    assert (scan.items, scan.end, scan.last_seq, scan.torn) == ([], FIRST_BLOCK, 10, False)


@given(st.integers(0, 2), st.integers(0, 3 * SECTOR_BYTES - 1), st.binary(min_size=1, max_size=64))
def test_a_damaged_last_block_is_torn_and_the_others_stay(keep: int, at: int, garbage: bytes) -> None:
    builder = blocks(3, 4_500)
    start = builder.starts[2]
    at = min(at, BLOCK_HEADER_BYTES + 2 * RECORD_BYTES + 32 + 2 * 4_500 - len(garbage))
    if bytes(builder.data[start + at : start + at + len(garbage)]) == garbage:
        return
    builder.data[start + at : start + at + len(garbage)] = garbage
    scan = builder.scan()
    assert seqs(scan) == [11, 12]
    assert scan.torn
    assert scan.end == start


@pytest.mark.parametrize("offset", [0, BLOCK_HEADER_BYTES + 5, BLOCK_HEADER_BYTES + 2 * RECORD_BYTES + 3, 5_000])
def test_damage_before_a_later_block_is_a_hole_and_never_cut(offset: int) -> None:
    builder = blocks(4, 4_500)
    builder.data[builder.starts[1] + offset] ^= 0x55
    scan = builder.scan()
    assert (scan.end, scan.last_seq, scan.torn) == (len(builder.data), 14, False)
    second = scan.items[1]
    assert isinstance(second, Hole) or not second.whole
    assert [item.seq for item in (scan.items[0], *scan.items[2:]) if isinstance(item, Block)] == [11, 13, 14]


@pytest.mark.parametrize("offset", [0, BLOCK_HEADER_BYTES + 5, 5_000])
def test_a_later_block_vouches_for_no_more_than_was_synced_when_it_was_written(offset: int) -> None:
    builder = blocks(2, 4_500).block(4_500, synced=11)
    builder.data[builder.starts[1] + offset] ^= 0x55
    scan = builder.scan()
    assert (seqs(scan), scan.torn, scan.end) == ([11], True, builder.starts[1])


def test_a_rotten_payload_names_its_entry_and_spares_its_neighbours() -> None:
    builder = blocks(3)
    builder.data[builder.data.index(bytes([12]) * 100) + 4] ^= 1
    block = builder.scan().items[1]
    assert isinstance(block, Block)
    assert [(bad.group, bad.index) for bad in block.bad_payloads] == [(12, 1)]
    whole = [item for item in block.items if isinstance(item, tuple)]
    assert [(group, [entry.index for entry in entries]) for group, entries in whole] == [(12, [2])]


def test_a_rotten_record_still_leaves_the_payload_places_of_the_others() -> None:
    builder = blocks(3)
    builder.data[builder.starts[1] + BLOCK_HEADER_BYTES + 8] ^= 1
    block = builder.scan().items[1]
    assert isinstance(block, Block)
    assert (block.lost_records, block.bad_payloads) == (1, [])
    assert [(group, [bytes(e.payload) for e in entries]) for group, entries in block.items] == [
        (12, [bytes([12]) * 100])
    ]


def test_a_seal_turns_a_bad_last_block_into_a_hole() -> None:
    builder = blocks(2).block(flags=FLAG_SEAL)
    builder.data[builder.starts[1]] ^= 0xFF
    assert seqs(builder.scan()) == [11, (12, 12), 13]


def test_a_torn_seal_takes_nothing_with_it() -> None:
    builder = blocks(2).block(flags=FLAG_SEAL)
    builder.data[builder.starts[2]] ^= 0xFF
    scan = builder.scan()
    assert seqs(scan) == [11, 12]
    assert scan.torn


def test_a_successor_vouches_for_everything_before_it() -> None:
    builder = blocks(3)
    successor = builder.successor()
    builder.data[builder.starts[2]] ^= 0xFF
    assert seqs(builder.scan(successor)) == [11, 12, (13, 13)]
    builder.data[builder.starts[1] :] = bytes(len(builder.data) - builder.starts[1])
    assert seqs(builder.scan(successor)) == [11, (12, 13)]


def test_what_stands_behind_the_end_that_a_successor_names_is_no_part_of_the_log() -> None:
    builder = blocks(2)
    successor = builder.successor()
    builder.block()
    scan = builder.scan(successor)
    assert seqs(scan) == [11, 12]
    assert scan.end == successor.previous_end


def test_blocks_of_an_older_life_of_the_file_are_never_taken() -> None:
    builder = blocks(1)
    stale = FileHeader(2, salt=5, previous_number=1, previous_seq=11, previous_end=8192)
    header = BlockHeader(0, 12, 11, len(builder.data), 0, 0, 0, table_crc=0)
    builder.data += b"".join(encode_block(header, stale.seed, [], b"", []))
    scan = builder.scan()
    assert seqs(scan) == [11]
    assert scan.torn


def test_sectors_that_cannot_be_read_are_never_called_torn() -> None:
    builder = blocks(2)
    start = builder.starts[1]
    builder.data[start:] = bytes(len(builder.data) - start)
    scan = builder.scan(unreadable=[(start, start + SECTOR_BYTES - 1)])
    assert not scan.torn
    assert isinstance(scan.items[-1], Hole)
    assert scan.end == FILE_BYTES


def test_two_holes_are_two() -> None:
    builder = blocks(5)
    builder.data[builder.starts[1]] ^= 1
    builder.data[builder.starts[3]] ^= 1
    assert seqs(builder.scan()) == [11, (12, 12), 13, (14, 14), 15]
