"""Topics: what is trimmed, what is looked for by time, what is fetched while it goes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import trio

from plait.wire.batch import encode_batch
from plait.wire.errors import OffsetOutOfRange
from replication.crc import crc32c
from tests.integration.nodes import batch_of, running_node
from tests.integration.test_node import read_all

CRC_AT, ATTRIBUTES_AT, MAX_TIMESTAMP_AT, RECORDS_AT = 17, 21, 35, 61
"""Places in a RecordBatch (Kafka protocol guide, "Record Batch")."""


def resealed(batch: bytearray) -> bytes:
    """The batch with the checksum that its bytes have now."""
    struct.pack_into(">I", batch, CRC_AT, crc32c(bytes(batch[ATTRIBUTES_AT:])))
    return bytes(batch)


async def test_a_header_that_lies_about_its_times_misleads_no_search(tmp_path: Path) -> None:
    lying = bytearray(encode_batch([b"a"], 1_000, compression="gzip"))
    struct.pack_into(">q", lying, MAX_TIMESTAMP_AT, 9_000_000)
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {}).wait()
        await broker.publish("events", 0, resealed(lying), "c").wait()
        await broker.publish("events", 0, encode_batch([b"b"], 5_000), "c").wait()
        with trio.fail_after(5):
            assert (await broker.locate("events", 0, 5_000).wait()).offset == 1
            assert (await broker.locate("events", 0, 6_000).wait()).offset == 2


async def test_a_batch_that_cannot_be_opened_stops_no_search(tmp_path: Path) -> None:
    rubbish = bytearray(encode_batch([b"a" * 100], 1_000, compression="gzip"))
    rubbish[RECORDS_AT:] = b"\xff" * (len(rubbish) - RECORDS_AT)
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {}).wait()
        await broker.publish("events", 0, encode_batch([b"a"], 500), "c").wait()
        await broker.publish("events", 0, resealed(rubbish), "c").wait()
        with trio.fail_after(5):
            assert (await broker.locate("events", 0, 900).wait()).offset == 1


async def test_retention_comes_to_a_topic_that_got_one_batch_and_no_more(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {"retention_ms": 50}).wait()
        await broker.publish("events", 0, batch_of(b"a"), "c").wait()
        with trio.fail_after(10):
            while (await broker.describe("events").wait())["partitions_detail"][0]["start"] == 0:
                await trio.lowlevel.checkpoint()
        with pytest.raises(OffsetOutOfRange) as error:
            await broker.fetch("events", 0, 0, 1_000, 0).wait()
        assert (error.value.details["start"], error.value.details["end"]) == (1, 1)
        await broker.publish("events", 0, batch_of(b"b"), "c").wait()
        assert await read_all(broker, "events", 1) == [b"b"]


async def test_retention_by_size_keeps_what_it_must_and_sets_no_alarm_for_nothing(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        settings = {"retention_ms": None, "retention_bytes": 1_000}
        await broker.create("topic", "events", settings).wait()
        await broker.publish("events", 0, batch_of(b"x" * 5_000), "c").wait()
        topic = node.metadata.catalogue.topic("events")
        assert topic is not None
        partitions = node.replicas.partitions(topic.topic_id)
        assert partitions is not None
        assert partitions[0].alarm_ns is None, "the last batch stays, whatever its size"
        await broker.publish("events", 0, batch_of(b"y" * 5_000), "c").wait()
        with trio.fail_after(10):
            while partitions[0].state.start_offset == 0:
                await trio.lowlevel.checkpoint()


async def test_fetches_that_nobody_waits_for_any_more_take_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.readers.WAITING_FETCHES", 3)
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {}).wait()
        gone = [broker.fetch("events", 0, 0, 1_000, 3_600_000) for _ in range(3)]
        await broker.locate("events", 0, "end").wait()
        for promise in gone:
            promise.abandoned = True
        waiting = broker.fetch("events", 0, 0, 1_000, 3_600_000)
        await broker.publish("events", 0, batch_of(b"a"), "c").wait()
        with trio.fail_after(5):
            assert (await waiting.wait()).next_offset == 1
