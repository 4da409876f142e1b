"""Building batches: the fast ways give what the slow one gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.wire.batch import BATCH_RECORDS_MAX, BatchBuilder, encode_batch, iterate, read_header
from plait.wire.builder import CACHED_LENGTHS_MAX

SIZES = st.integers(0, 300) | st.sampled_from([8000, 8150, 8160, 8170, 8191, 8192, 70_000])


def slowly(values, timestamp_ms):
    """Through the general path of the builder: values that are not bytes take it."""
    builder = BatchBuilder(timestamp_ms)
    for value in values:
        builder.append(memoryview(value), timestamp_ms=timestamp_ms)
    return builder.build()


def one_by_one(values, timestamp_ms):
    builder = BatchBuilder(timestamp_ms)
    for value in values:
        builder.append(value, timestamp_ms=timestamp_ms)
    return builder.build()


@given(st.lists(SIZES, min_size=1, max_size=100))
def test_columns_rows_and_the_general_path_agree(sizes):
    values = [bytes((n & 0xFF,)) * size for n, size in enumerate(sizes)]
    assert encode_batch(values, 1000) == one_by_one(values, 1000) == slowly(values, 1000)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 8191, 8192, 8193, 10_000])
def test_they_agree_where_offset_deltas_grow_by_a_byte(count):
    values = [b"%d" % n for n in range(count)]
    batch = encode_batch(values, 1000)
    assert batch == one_by_one(values, 1000) == slowly(values, 1000)
    assert [each.value for each in iterate(batch)] == values


def test_settings_are_in_the_header():
    header = read_header(
        encode_batch(
            [b"a"],
            5,
            compression="lz4",
            producer_id=1,
            producer_epoch=2,
            base_sequence=3,
            leader_epoch=4,
            base_offset=6,
        )
    )
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (1, 2, 3)
    assert (header.compression, header.leader_epoch, header.base_offset) == ("lz4", 4, 6)


def test_the_producers_fields_may_be_set_until_it_is_built():
    builder = BatchBuilder()
    builder.append(b"a", timestamp_ms=1)
    builder.producer_id, builder.producer_epoch, builder.base_sequence = 7, 0, 100
    assert read_header(builder.build()).base_sequence == 100


def test_timestamps_count_from_the_first_and_know_the_largest():
    builder = BatchBuilder()
    for timestamp_ms in (2000, 1000, 3000, 1500):
        builder.append(b"", timestamp_ms=timestamp_ms)
    header = read_header(batch := builder.build())
    assert (header.base_timestamp_ms, header.max_timestamp_ms) == (2000, 3000)
    assert [each.timestamp_ms for each in iterate(batch)] == [2000, 1000, 3000, 1500]


def test_without_a_timestamp_a_record_has_the_one_before():
    builder = BatchBuilder(1000)
    builder.append(b"a")
    builder.append(b"b", timestamp_ms=2000)
    builder.append(b"c")
    assert [each.timestamp_ms for each in iterate(builder.build())] == [1000, 2000, 2000]
    with pytest.raises(ValueError, match="timestamp"):
        BatchBuilder().append(b"a")


@pytest.mark.parametrize("timestamp_ms", [-2, 1 << 63])
def test_a_timestamp_out_of_range_is_refused_and_nothing_was_added(timestamp_ms):
    builder = BatchBuilder()
    with pytest.raises(ValueError, match="timestamp"):
        builder.append(b"a", timestamp_ms=timestamp_ms)
    assert builder.count == 0


def test_what_the_caller_changes_later_does_not_change_the_batch():
    value, key = bytearray(b"value"), bytearray(b"key")
    builder = BatchBuilder()
    builder.append(value, key, [("h", value)], 1)
    value[:] = b"other"
    key[:] = b"new"
    (record,) = iterate(builder.build())
    assert (record.value, record.key, record.headers) == (b"value", b"key", (("h", b"value"),))


def test_no_records_or_too_many_are_no_batch():
    with pytest.raises(ValueError, match="1 to"):
        BatchBuilder(1000).build()
    with pytest.raises(ValueError, match="1 to"):
        encode_batch([], 1000)
    with pytest.raises(ValueError, match="1 to"):
        encode_batch([b""] * (BATCH_RECORDS_MAX + 1), 1000)


def test_an_unknown_compression_is_refused():
    with pytest.raises(ValueError, match="zip"):
        BatchBuilder(compression="zip")


def test_more_lengths_than_are_remembered_make_no_difference():
    values = [b"x" * size for size in range(CACHED_LENGTHS_MAX + 10)]
    for _ in range(2):
        assert [each.value for each in iterate(encode_batch(values, 1000))] == values
