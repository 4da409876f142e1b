"""Batch headers: reading, splitting, and giving a batch its place without touching its CRC."""

from __future__ import annotations

import pytest

from plait.wire.batch import (
    CODECS,
    HEADER_BYTES,
    BatchBuilder,
    BatchLimits,
    assign,
    assigned,
    encode_batch,
    read_header,
    split,
    validate,
)
from plait.wire.errors import BatchInvalid

# "value" with the key "key" at 1_500_000_000_000 ms, producer 7, epoch 1, sequence 9, as aiokafka writes it.
GOLDEN = bytes.fromhex(
    "0000000000000000 00000040 ffffffff 02 dae0e7f8 0000 00000000 0000015d3ef79800 0000015d3ef79800"
    "0000000000000007 0001 00000009 00000001"
    "1c 00 00 00 06 6b6579 0a 76616c7565 00".replace(" ", "")
)


def golden() -> bytes:
    builder = BatchBuilder(producer_id=7, producer_epoch=1, base_sequence=9)
    builder.append(b"value", b"key", timestamp_ms=1_500_000_000_000)
    return builder.build()


def test_a_batch_has_its_known_bytes():
    assert golden().hex() == GOLDEN.hex()


def test_the_header_has_its_fields():
    header = read_header(golden())
    assert (header.base_offset, header.last_offset, header.count, header.size_bytes) == (0, 0, 1, len(golden()))
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, 9)
    assert header.base_timestamp_ms == header.max_timestamp_ms == 1_500_000_000_000
    assert (header.compression, header.timestamp_type) == ("none", "create")
    assert not header.is_control
    assert not header.is_transactional


@pytest.mark.parametrize(("number", "name"), list(enumerate(CODECS)))
def test_attributes_name_the_compression(number, name):
    header = read_header(golden())
    header.attributes = number | 0x38
    assert (header.compression, header.timestamp_type) == (name, "append")
    assert header.is_control
    assert header.is_transactional


@pytest.mark.parametrize("number", [5, 6, 7])
def test_an_unknown_compression_is_refused(number):
    header = read_header(golden())
    header.attributes = number
    with pytest.raises(BatchInvalid, match=f"compression {number}"):
        _ = header.compression


def test_assigning_writes_offset_and_epoch_and_keeps_the_crc():
    batch = bytearray(golden())
    assign(batch, 1 << 40, 3)
    header = validate(batch, BatchLimits())
    assert (header.base_offset, header.leader_epoch) == (1 << 40, 3)
    assert batch[16:] == golden()[16:]


def test_assigned_is_the_same_without_a_copy_of_the_body():
    batch = bytearray(golden())
    parts = assigned(golden(), 1 << 40, 3)
    assign(batch, 1 << 40, 3)
    assert b"".join(parts) == batch
    assert isinstance(parts[1], memoryview)


def test_consecutive_batches_are_split_without_copies():
    first, second = golden(), encode_batch([b"a", b"b"], 1)
    views = split(first + second)
    assert [bytes(view) for view in views] == [first, second]
    assert split(b"") == []


@pytest.mark.parametrize("cut", [1, 5, HEADER_BYTES, HEADER_BYTES + 1])
def test_a_batch_cut_short_is_refused_by_splitting(cut):
    with pytest.raises(BatchInvalid):
        split(golden() + golden()[:-cut])


def test_a_negative_length_ends_splitting():
    batch = bytearray(golden())
    batch[8:12] = b"\xff\xff\xff\xf4"  # -12: the batch would have no bytes at all
    with pytest.raises(BatchInvalid):
        split(batch)


def test_another_format_is_named():
    batch = bytearray(golden())
    batch[16] = 1
    with pytest.raises(BatchInvalid, match="record format 1"):
        read_header(batch)


def test_too_few_bytes_are_no_header():
    with pytest.raises(BatchInvalid, match="at least 61"):
        read_header(golden()[:60])
