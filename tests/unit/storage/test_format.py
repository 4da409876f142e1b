"""Blocks and file headers: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replication.machine import Entry
from replication.storage.format import (
    BLOCK_HEADER_BYTES,
    ECHO_DELETED,
    ECHO_GROUPS_MAX,
    FIRST_BLOCK,
    HARD_STATE,
    RECORD_BYTES,
    SECTOR_BYTES,
    BlockHeader,
    FileHeader,
    decode_block_header,
    decode_echo,
    decode_entry,
    decode_file_header,
    decode_rows,
    decode_rows_left,
    encode_block,
    encode_echo,
    encode_entries,
    encode_entry,
    encode_file_header,
    encode_note,
    table_of,
)

HEADER = FileHeader(7, salt=0xABCDEF, previous_number=6, previous_seq=41, previous_end=8192)
ENTRIES = st.lists(
    st.builds(
        Entry,
        st.integers(1, 2**63),
        st.integers(0, 2**63),
        st.integers(0, 255),
        st.integers(-(2**63), 2**63 - 1),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=6_000),
    ),
    min_size=1,
    max_size=20,
)


def block_of(entries: list[Entry], *, seq: int = 42, position: int = FIRST_BLOCK) -> bytes:
    table, payloads = [], []
    payload_bytes = encode_entries(9, entries, table, payloads)
    count, echo = encode_echo(((1, 2),))
    header = BlockHeader(0, seq, seq - 1, position, len(entries), count, payload_bytes, 0)
    return b"".join(encode_block(header, HEADER.seed, table, echo, payloads))


def test_a_file_header_survives_in_either_copy() -> None:
    sector = encode_file_header(HEADER)
    assert len(sector) == SECTOR_BYTES
    assert decode_file_header(sector + bytes(SECTOR_BYTES)) == HEADER
    assert decode_file_header(bytes(SECTOR_BYTES) + sector) == HEADER
    assert decode_file_header(bytes(2 * SECTOR_BYTES)) is None
    assert decode_file_header(b"short") is None


@given(ENTRIES)
def test_a_block_gives_back_its_entries(entries: list[Entry]) -> None:
    data = memoryview(bytes(FIRST_BLOCK) + block_of(entries))
    assert len(data) % SECTOR_BYTES == 0
    header = decode_block_header(data, FIRST_BLOCK, HEADER.seed)
    assert header is not None
    assert header.end == len(data)
    table = table_of(data, header, HEADER.seed)
    assert table is not None
    assert decode_echo(table, header) == ((1, 2),)
    rows = decode_rows(table, header.records)
    assert [row[4:8] for row in rows] == [(9, e.index, e.term, e.mark) for e in entries]
    assert [(row[1], row[3], row[8]) for row in rows] == [(e.kind, e.span, len(e.payload)) for e in entries]


def test_a_block_is_none_under_another_salt_or_at_another_place() -> None:
    data = bytes(FIRST_BLOCK) + block_of([Entry(1, 1, 1, 0, 1, b"x")])
    assert decode_block_header(data, FIRST_BLOCK, HEADER.seed) is not None
    assert decode_block_header(data, FIRST_BLOCK, FileHeader(7, 1, 6, 41, 8192).seed) is None
    moved = bytes(SECTOR_BYTES) + data
    assert decode_block_header(moved, FIRST_BLOCK + SECTOR_BYTES, HEADER.seed) is None


@given(st.integers(0, 8 * (BLOCK_HEADER_BYTES + 2 * RECORD_BYTES) - 1))
def test_any_flipped_bit_of_header_or_table_is_noticed(bit: int) -> None:
    block = bytearray(block_of([Entry(1, 1, 1, 0, 1, b""), Entry(2, 1, 1, 1, 1, b"")]))
    block[bit // 8] ^= 1 << bit % 8
    data = memoryview(bytes(FIRST_BLOCK) + block)
    header = decode_block_header(data, FIRST_BLOCK, HEADER.seed)
    assert header is None or table_of(data, header, HEADER.seed) is None


def test_a_damaged_record_spares_the_others() -> None:
    block = bytearray(block_of([Entry(index, 1, 1, 0, 1, b"") for index in (1, 2, 3)]))
    header = decode_block_header(bytes(FIRST_BLOCK) + block, FIRST_BLOCK, HEADER.seed)
    assert header is not None
    block[BLOCK_HEADER_BYTES + RECORD_BYTES + 10] ^= 1
    left = decode_rows_left(memoryview(bytes(FIRST_BLOCK) + block), header)
    assert [row and row[5] for row in left] == [1, None, 3]


def test_an_echo_names_the_groups_of_the_last_blocks() -> None:
    count, echo = encode_echo(((1, 2 | ECHO_DELETED), (), (3,)))
    header = BlockHeader(0, 1, 0, FIRST_BLOCK, 0, count, 0, 0)
    assert decode_echo(memoryview(echo), header) == ((1, 2 | ECHO_DELETED), (), (3,))


@pytest.mark.parametrize("blocks", [(None, (1,)), (tuple(range(ECHO_GROUPS_MAX + 1)),)])
def test_an_echo_that_cannot_name_the_last_block_names_nothing(blocks: tuple[tuple[int, ...] | None, ...]) -> None:
    count, echo = encode_echo(blocks)
    assert decode_echo(memoryview(echo), BlockHeader(0, 1, 0, FIRST_BLOCK, 0, count, 0, 0)) == ()


def test_notes_carry_group_index_and_term() -> None:
    (row,) = decode_rows(memoryview(encode_note(HARD_STATE, 5, 3, 9)), 1)
    assert (row[0], row[4], row[5], row[6]) == (HARD_STATE, 5, 3, 9)


@given(ENTRIES)
def test_a_segment_entry_is_none_under_another_seed(entries: list[Entry]) -> None:
    for entry in entries:
        record = memoryview(encode_entry(9, entry, seed=5))
        row = decode_entry(record, 0, seed=5)
        assert row is not None
        assert row[:7] == (entry.kind, entry.span, 9, entry.index, entry.term, entry.mark, len(entry.payload))
        assert decode_entry(record, 0, seed=6) is None
        assert decode_entry(record[:-1], 0, seed=5) is None
