"""Walking records, and runs of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.wire.batch import (
    CODECS,
    BatchBuilder,
    Record,
    encode_batch,
    iterate,
    iterate_run,
    open_body,
    positions,
    read_header,
    records_of,
    run_of,
)
from plait.wire.errors import BatchInvalid
from plait.wire.header import COVERED, CRC_START, checksum
from plait.wire.records import RecordRun

CONTENT = st.none() | st.binary(max_size=200)
HEADERS = st.lists(st.tuples(st.text(max_size=10), CONTENT), max_size=3)
RECORDS = st.lists(st.tuples(CONTENT, CONTENT, HEADERS, st.integers(0, 1 << 45)), min_size=1, max_size=80)


def build(records, compression="none", base_offset=0) -> bytes:
    builder = BatchBuilder(compression=compression)
    for value, key, headers, timestamp_ms in records:
        builder.append(value, key, headers, timestamp_ms)
    batch = builder.build(base_offset)
    if compression == "none":
        assert builder.size_bytes == len(batch)
    return batch


@given(RECORDS, st.sampled_from(CODECS), st.integers(0, 1 << 60))
def test_what_was_built_comes_back(records, compression, base_offset):
    found = list(iterate(build(records, compression, base_offset)))
    assert [(each.value, each.key, list(each.headers), each.timestamp_ms) for each in found] == records
    assert [each.offset for each in found] == list(range(base_offset, base_offset + len(records)))


@given(RECORDS, st.data())
def test_a_run_holds_exactly_its_records(records, data):
    batch = build(records, base_offset=1000)
    first = data.draw(st.integers(0, len(records) - 1))
    last = data.draw(st.integers(first, len(records) - 1))
    header = read_header(batch)
    body = open_body(batch, header)
    run = run_of(header, body, positions(body), first, last)
    assert (run.first_offset, run.last_offset, run.count) == (1000 + first, 1000 + last, last - first + 1)
    assert list(iterate_run(run)) == list(iterate(batch))[first : last + 1]


def test_positions_end_where_the_body_ends():
    body = open_body(batch := encode_batch([b"", b"x" * 100, b"y" * 9000], 5), read_header(batch))
    found = positions(body)
    assert found == [0, 7, 7 + 109, len(body)]
    assert positions(b"") == [0]


@pytest.mark.parametrize("body", [b"\x0c", b"\x0c12345", b"\x80", b"\x80\x80", b"\x01", b"\xff" * 11])
def test_positions_of_damaged_bodies_are_refused(body):
    with pytest.raises(BatchInvalid):
        positions(body)


def with_attributes(batch: bytes, attributes: int, max_timestamp_ms: int) -> bytes:
    changed = bytearray(batch)
    fields = list(COVERED.unpack_from(batch, CRC_START))
    fields[0] = attributes
    fields[3] = max_timestamp_ms
    COVERED.pack_into(changed, CRC_START, *fields)
    changed[CRC_START - 4 : CRC_START] = checksum(changed).to_bytes(4, "big")
    return bytes(changed)


def test_append_time_is_the_timestamp_of_every_record():
    batch = with_attributes(build([(b"a", None, [], 1000), (b"b", None, [], 1001)]), 0x08, 5000)
    assert [each.timestamp_ms for each in iterate(batch)] == [5000, 5000]
    body = open_body(batch, header := read_header(batch))
    run = run_of(header, body, positions(body), 1, 1)
    assert run.append_time
    assert [each.timestamp_ms for each in iterate_run(run)] == [5000]


def test_control_batches_are_left_out():
    marker = with_attributes(encode_batch([b"marker"], 1000, base_offset=1), 0x20, 1000)
    batches = encode_batch([b"a"], 1000) + marker + encode_batch([b"b"], 1000, base_offset=2)
    assert [(each.offset, each.value) for each in iterate(batches)] == [(0, b"a"), (2, b"b")]
    assert [each.value for each in records_of(marker[61:], read_header(marker))] == [b"marker"]


def test_a_damaged_batch_is_noticed_unless_asked_not_to_look():
    batch = bytearray(encode_batch([b"abc"], 1000))
    batch[-2] ^= 1
    with pytest.raises(BatchInvalid, match="CRC"):
        list(iterate(batch))
    assert [each.value for each in iterate(batch, verify=False)] == [b"abb"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_run_with_another_count_than_its_body_is_refused(count):
    batch = encode_batch([b"a", b"b"], 1000)
    body = open_body(batch, read_header(batch))
    with pytest.raises(BatchInvalid):
        list(iterate_run(RecordRun(0, 1000, False, 0, count, body)))


def test_values_are_bytes_whatever_the_batch_lies_in():
    batch = encode_batch([b"abc"], 1000)
    for buffer in (batch, bytearray(batch), memoryview(batch), memoryview(bytearray(batch))):
        assert [type(each.value) for each in iterate(buffer)] == [bytes]


def test_a_record_shows_what_it_is():
    record = Record(7, 1000, b"k", b"v", b"\x02\x02a\x02b")
    assert record.headers == (("a", b"b"),)
    assert eval(repr(record)) == record
    assert record != Record(7, 1000, b"k", b"v")
    assert record != 7
    with pytest.raises(TypeError):
        hash(record)
