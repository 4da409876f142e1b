"""Record batches against independent implementations, in both directions: what one writes, the other reads."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import DefaultRecordBatch as AioBatch
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AioBuilder
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as kafka_murmur2
from kafka.record.default_records import DefaultRecordBatch as KafkaBatch
from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaBuilder

from plait.wire.batch import CODECS, BatchBuilder, BatchLimits, check_records, iterate, open_body, validate
from plait.wire.partitioning import murmur2

CONTENT = st.none() | st.binary(max_size=300)
HEADERS = st.lists(st.tuples(st.text(max_size=10), CONTENT), max_size=3)
RECORDS = st.lists(st.tuples(CONTENT, CONTENT, HEADERS, st.integers(0, 1 << 42)), min_size=1, max_size=70)
MANY = [(b"value %d" % n * 20, b"key", [("n", b"%d" % n)], 1_700_000_000_000 + n) for n in range(5000)]
BATCH_BYTES = 1 << 24

PEERS = [
    (AioBuilder, AioBatch, CODECS),
    (KafkaBuilder, KafkaBatch, ("none", "gzip", "lz4", "zstd")),  # its snappy needs a library that we do not use
]
CASES = [(builder, reader, codec) for builder, reader, codecs in PEERS for codec in codecs]
cases = pytest.mark.parametrize(("builder", "reader", "codec"), CASES)


def ours(records, codec: str) -> bytes:
    builder = BatchBuilder(None, codec, producer_id=77, producer_epoch=3, base_sequence=12)
    for value, key, headers, timestamp_ms in records:
        builder.append(value, key, headers, timestamp_ms)
    return builder.build()


def theirs(kind, records, codec: str) -> bytes:
    builder = kind(
        magic=2,
        compression_type=CODECS.index(codec),
        is_transactional=0,
        producer_id=77,
        producer_epoch=3,
        base_sequence=12,
        batch_size=BATCH_BYTES,
    )
    for offset, (value, key, headers, timestamp_ms) in enumerate(records):
        builder.append(offset, timestamp_ms, key, value, headers)
    return bytes(builder.build())


def they_read(kind, batch: bytes):
    read = kind(batch)
    assert read.validate_crc()
    fields = (read.producer_id, read.producer_epoch, read.base_sequence)
    assert fields == (77, 3, 12)
    return [(each.value, each.key, list(each.headers), each.timestamp) for each in read]


def we_read(batch: bytes):
    header = validate(batch, BatchLimits())
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (77, 3, 12)
    check_records(open_body(batch, header), header)
    return [(each.value, each.key, list(each.headers), each.timestamp_ms) for each in iterate(batch)]


@cases
@given(RECORDS)
@settings(max_examples=30)
def test_they_read_what_we_write(builder, reader, codec, records):
    assert they_read(reader, ours(records, codec)) == records


@cases
@given(RECORDS)
@settings(max_examples=30)
def test_we_read_what_they_write(builder, reader, codec, records):
    assert we_read(theirs(builder, records, codec)) == records


@cases
def test_large_batches_go_both_ways(builder, reader, codec):
    assert they_read(reader, ours(MANY, codec)) == MANY
    assert we_read(theirs(builder, MANY, codec)) == MANY


@pytest.mark.parametrize("builder", [AioBuilder, KafkaBuilder])
@given(RECORDS)
@settings(max_examples=50)
def test_uncompressed_batches_are_equal_to_the_byte(builder, records):
    assert ours(records, "none")[16:] == theirs(builder, records, "none")[16:]


@given(st.binary(max_size=100))
def test_keys_hash_alike(key):
    assert murmur2(key) == kafka_murmur2(key) & 0xFFFFFFFF
