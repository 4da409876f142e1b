"""Checking batches: each way of being wrong is refused, limits hold at, below and above."""

from __future__ import annotations

import pytest

from plait.wire.batch import (
    BATCH_RECORDS_MAX,
    CODECS,
    HEADER_BYTES,
    BatchBuilder,
    BatchLimits,
    check_records,
    check_sizes,
    checksum,
    encode_batch,
    open_body,
    read_header,
    validate,
)
from plait.wire.errors import BatchInvalid, RecordTooLarge
from plait.wire.header import COVERED, CRC_START
from plait.wire.varint import varint

LIMITS = BatchLimits(max_record_bytes=1000, max_batch_bytes=5000)


def with_header(batch: bytes, **changes: int) -> bytes:
    """The batch with other header fields and a CRC that is right for them."""
    names = ("attributes", "last_offset_delta", "base_timestamp_ms", "max_timestamp_ms")
    names += ("producer_id", "producer_epoch", "base_sequence", "count")
    header = read_header(batch)
    values = [changes.get(name, getattr(header, name)) for name in names]
    changed = bytearray(batch)
    COVERED.pack_into(changed, CRC_START, *values)
    changed[CRC_START - 4 : CRC_START] = checksum(changed).to_bytes(4, "big")
    return bytes(changed)


def with_records(records: bytes, count: int = 1) -> bytes:
    """A sound batch around records that may be anything."""
    batch = bytearray(encode_batch([b""] * count, 1000)[:HEADER_BYTES] + records)
    batch[8:12] = (len(batch) - 12).to_bytes(4, "big")
    batch[CRC_START - 4 : CRC_START] = checksum(batch).to_bytes(4, "big")
    return bytes(batch)


def record(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return varint(len(body)) + body


def check(batch: bytes) -> None:
    header = validate(batch, LIMITS)
    check_records(open_body(batch, header), header, LIMITS.max_record_bytes)


@pytest.mark.parametrize("codec", CODECS)
def test_a_sound_batch_passes(codec):
    builder = BatchBuilder(compression=codec)
    for n in range(100):
        builder.append(b"v" * n, b"k" if n % 2 else None, [("h", b"x"), ("n", None)] if n % 3 else (), 1000 + n)
    batch = builder.build()
    assert validate(memoryview(batch), BatchLimits()).count == 100
    check_records(open_body(batch, read_header(batch)), read_header(batch))


@pytest.mark.parametrize("flip", range(16, 70))  # the leader epoch before is not covered: the leader writes it
def test_one_flipped_bit_anywhere_is_noticed(flip):
    batch = bytearray(encode_batch([b"12345"], 1000))
    batch[flip] ^= 0x10
    with pytest.raises(BatchInvalid):
        validate(batch, LIMITS)


def test_a_length_that_is_not_the_buffers_is_refused():
    batch = encode_batch([b"one"], 1000)
    for wrong in (batch + b"\0", batch[:-1], batch + batch):
        with pytest.raises(BatchInvalid, match="says"):
            validate(wrong, LIMITS)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"count": 0, "last_offset_delta": -1}, "1 to"),
        ({"count": -1, "last_offset_delta": -2}, "1 to"),
        ({"count": BATCH_RECORDS_MAX + 1, "last_offset_delta": BATCH_RECORDS_MAX, "attributes": 4}, "1 to"),
        ({"count": 3}, "last delta"),
        ({"last_offset_delta": 2}, "last delta"),
        ({"count": 9, "last_offset_delta": 8}, "do not fit"),
        ({"attributes": 5}, "compression 5"),
        ({"producer_id": 1}, "no epoch"),
        ({"producer_id": 1, "producer_epoch": 0}, "no epoch"),
    ],
)
def test_headers_that_do_not_add_up_are_refused(changes, says):
    batch = encode_batch([b"a", b"b"], 1000)
    with pytest.raises(BatchInvalid, match=says):
        validate(with_header(batch, **changes), LIMITS)


def test_a_transaction_marker_has_a_producer_and_no_sequence():
    batch = with_header(encode_batch([b"marker"], 1000), producer_id=1, producer_epoch=0, attributes=0x30)
    assert validate(batch, LIMITS).is_control


@pytest.mark.parametrize(("value_bytes", "passes"), [(999, True), (1000, True), (1001, False)])
def test_a_record_may_be_as_large_as_its_limit(value_bytes, passes):
    batch = encode_batch([b"x" * value_bytes, b"small"], 1000)
    if passes:
        check(batch)
        return
    with pytest.raises(RecordTooLarge) as caught:
        validate(batch, LIMITS)
    assert caught.value.details == {"limit_bytes": 1000, "size_bytes": 1001}
    assert "1001" in str(caught.value)


def test_key_and_headers_count_too():
    builder = BatchBuilder()
    builder.append(b"x" * 500, b"k" * 300, [("name", b"v" * 197)], 1000)
    with pytest.raises(RecordTooLarge) as caught:
        validate(builder.build(), LIMITS)
    assert caught.value.details["size_bytes"] == 1001


def test_a_compressed_record_is_measured_when_it_is_opened():
    batch = encode_batch([b"x" * 1001], 1000, compression="zstd")
    header = validate(batch, LIMITS)
    with pytest.raises(RecordTooLarge):
        check_records(open_body(batch, header), header, LIMITS.max_record_bytes)


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_a_batch_may_be_as_large_as_its_limit(over):
    batch = encode_batch([b"x" * 500] * 4, 1000)
    limits = BatchLimits(max_record_bytes=1000, max_batch_bytes=len(batch) - over)
    if over <= 0:
        validate(batch, limits)
        return
    with pytest.raises(RecordTooLarge, match="batch"):
        validate(batch, limits)


ATTRIBUTES = TIME = DELTA = b"\0"
NO_KEY = b"\1"
VALUE = b"\x06abc"
NO_HEADERS = b"\0"
SOUND = (ATTRIBUTES, TIME, DELTA, NO_KEY, VALUE, NO_HEADERS)


def test_the_sound_record_of_these_tests_passes():
    check(with_records(record(*SOUND)))


@pytest.mark.parametrize(
    "records",
    [
        record(*SOUND) + b"\0",
        record(*SOUND)[:-1],
        record(*SOUND, b"\0"),
        record(ATTRIBUTES, TIME, b"\2", NO_KEY, VALUE, NO_HEADERS),
        record(ATTRIBUTES, TIME, b"\1", NO_KEY, VALUE, NO_HEADERS),
        record(ATTRIBUTES, TIME, varint(-65), NO_KEY, VALUE, NO_HEADERS),
        record(ATTRIBUTES, varint(-1002), DELTA, NO_KEY, VALUE, NO_HEADERS),
        record(ATTRIBUTES, varint((1 << 63) - 1), DELTA, NO_KEY, VALUE, NO_HEADERS),
        record(ATTRIBUTES, TIME, DELTA, varint(-2), VALUE, NO_HEADERS),
        record(ATTRIBUTES, TIME, DELTA, varint(100), VALUE, NO_HEADERS),
        record(ATTRIBUTES, TIME, DELTA, NO_KEY, varint(-2) + b"abc", NO_HEADERS),
        record(ATTRIBUTES, TIME, DELTA, NO_KEY, varint(-70) + b"abc", NO_HEADERS),
        record(ATTRIBUTES, TIME, DELTA, NO_KEY, varint(1 << 40), NO_HEADERS),
        record(ATTRIBUTES, TIME, DELTA, NO_KEY, VALUE, varint(1)),
        record(ATTRIBUTES, TIME, DELTA, NO_KEY, VALUE, varint(-1)),
        record(ATTRIBUTES, TIME, DELTA, NO_KEY, VALUE, varint(1), varint(-1), varint(-1)),
        record(ATTRIBUTES, TIME, DELTA, NO_KEY, VALUE, varint(1), b"\x02\xff", varint(-1)),
        record(ATTRIBUTES, TIME, DELTA, NO_KEY, VALUE, varint(1 << 30), b"\x02a\x02b"),
        record(ATTRIBUTES, TIME, DELTA, NO_KEY, VALUE, varint(1), b"\x02a\x02b\x00"),
        varint(-5) + b"abcdefgh",
        varint(0) + b"abcdefgh",
        varint(1 << 40) + b"abcdefgh",
        b"\xff" * 12,
        b"\x80" * 12,
    ],
)
def test_a_record_that_does_not_add_up_is_refused(records):
    with pytest.raises(BatchInvalid):
        check(with_records(records))


def test_sizes_are_checked_on_damaged_records_without_another_error():
    with pytest.raises(BatchInvalid):
        check_sizes(b"\xfe\x7f" + b"\xff" * 8191, 10)
