"""Publishes that wait, repeat themselves or meet a full queue."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from node.partition import Partition
from plait.wire.errors import NotFound, PlaitError, SequenceOutOfOrder
from replication.actor import Promise
from tests.integration.nodes import batch_of, consume, crashing_node, idempotent, running_node
from tests.integration.test_node import read_all


async def test_publishes_that_are_stored_together_are_not_counted_twice(tmp_path: Path) -> None:
    mebibyte = batch_of(b"x" * 1_000_000)
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {"max_backlog_records": 12, "overflow": "refuse"}).wait()
        promises = [broker.publish("jobs", 0, mebibyte, f"c{number}") for number in range(12)]
        with trio.fail_after(10):
            for promise in promises:  # more than may be in flight at once, and not more than the queue takes
                await promise.wait()


async def test_what_is_dropped_for_a_record_is_never_the_record_itself(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "rolling", {"max_backlog_records": 2, "overflow": "drop-oldest"}).wait()
        await broker.publish("rolling", 0, batch_of(b"a", b"b"), "c").wait()
        holder, attachment = await consume(broker, "rolling")
        await holder.wait_for(2)
        attachment.pause()
        await broker.publish("rolling", 0, batch_of(b"c"), "c").wait()
        await broker.publish("rolling", 0, batch_of(b"d"), "c").wait()
        other, _ = await consume(broker, "rolling")
        await other.wait_for(1)
        assert other.values == [b"d"]


async def test_a_batch_that_is_refused_makes_no_place_for_itself(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "rolling", {"max_backlog_records": 2, "overflow": "drop-oldest"}).wait()
        producer = await broker.new_producer().wait()
        await broker.publish("rolling", 0, idempotent(producer, 0, b"a", b"b"), "c").wait()
        with pytest.raises(SequenceOutOfOrder):
            await broker.publish("rolling", 0, idempotent(producer, 7, b"x"), "c").wait()
        inbox, _ = await consume(broker, "rolling")
        await inbox.wait_for(2)
        assert inbox.values == [b"a", b"b"]


async def test_a_batch_that_waits_and_is_sent_again_is_stored_once_and_answered_twice(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "patient", {"max_backlog_records": 1, "overflow": "block"}).wait()
        producer = await broker.new_producer().wait()
        await broker.publish("patient", 0, idempotent(producer, 0, b"a"), "c").wait()
        first = broker.publish("patient", 0, idempotent(producer, 1, b"b"), "c")
        again = broker.publish("patient", 0, idempotent(producer, 1, b"b"), "c")
        inbox, attachment = await consume(broker, "patient")
        await inbox.wait_for(1)
        await attachment.settle(0, "ack", 0, [(inbox.items[0][1], 0, 0)]).wait()
        await inbox.wait_for(2)
        with trio.fail_after(5):
            assert ((await first.wait()).base_offset, (await first.wait()).duplicate) == (1, False)
            await attachment.settle(0, "ack", 0, [(inbox.items[1][1], 1, 1)]).wait()
            assert ((await again.wait()).base_offset, (await again.wait()).duplicate) == (1, True)
        assert inbox.values == [b"a", b"b"]


async def test_publishes_nobody_waits_for_any_more_are_passed_over(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "patient", {"max_backlog_records": 1, "overflow": "block"}).wait()
        await broker.publish("patient", 0, batch_of(b"a"), "c").wait()
        gone = [broker.publish("patient", 0, batch_of(b"x"), f"gone{number % 40}") for number in range(1_000)]
        last = broker.publish("patient", 0, batch_of(b"b"), "c")
        inbox, attachment = await consume(broker, "patient")
        await inbox.wait_for(1)
        for promise in gone:
            promise.abandoned = True
        await attachment.settle(0, "ack", 0, [(inbox.items[0][1], 0, 0)]).wait()
        with trio.fail_after(5):
            assert (await last.wait()).base_offset == 1


async def test_an_idempotent_producer_that_leaves_the_partition_to_the_broker_keeps_one(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {"partitions": 4}).wait()
        producer = await broker.new_producer().wait()
        stored = [
            await broker.publish("events", -1, idempotent(producer, number, b"x" * 20_000), "c").wait()
            for number in range(10)
        ]
        again = await broker.publish("events", -1, idempotent(producer, 9, b"x" * 20_000), "c").wait()
        assert len({each.partition for each in stored}) == 1
        assert (again.duplicate, again.base_offset) == (True, stored[9].base_offset)


async def test_large_dead_letters_move_in_batches_that_stay_small(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "dead", {}).wait()
        settings = {"max_backlog_records": 1, "overflow": "dead-letter", "dead_letter": "dead"}
        await broker.create("queue", "small", settings).wait()
        big = b"x" * 700_000
        for number in range(6):
            await broker.publish("small", 0, batch_of(b"%d" % number + big), "c").wait()
        dead, _ = await consume(broker, "dead")
        await dead.wait_for(5)
        assert [value[:1] for value in dead.values] == [b"0", b"1", b"2", b"3", b"4"]


async def test_dead_letters_arrive_once_though_the_node_ends_before_it_can_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_backlog_records": 2, "overflow": "dead-letter", "dead_letter": "dead"}
    with monkeypatch.context() as patch:
        patch.setattr(Partition, "_dead_lettered", lambda self, moved: Promise())
        async with crashing_node(tmp_path) as node:
            await node.broker.create("queue", "dead", {}).wait()
            await node.broker.create("queue", "small", settings).wait()
            for value in (b"a", b"b", b"c", b"d", b"e"):
                await node.broker.publish("small", 0, batch_of(value), "c").wait()
            dead, _ = await consume(node.broker, "dead")
            await dead.wait_for(1)
    async with running_node(tmp_path) as node:
        await node.broker.publish("small", 0, batch_of(b"f"), "c").wait()
        dead, _ = await consume(node.broker, "dead")
        await dead.wait_for(4)
        assert sorted(dead.values) == [b"a", b"b", b"c", b"d"]
        rest, _ = await consume(node.broker, "small")
        await rest.wait_for(2)
        assert rest.values == [b"e", b"f"]
        detail = (await node.broker.describe("dead").wait())["partitions_detail"][0]
        assert detail["end"] == 4


async def test_dead_letters_arrive_once_and_all_though_their_queue_gets_more_partitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"max_backlog_records": 1, "overflow": "dead-letter", "dead_letter": "dead"}
    with monkeypatch.context() as patch:
        patch.setattr(Partition, "_dead_lettered", lambda self, moved: Promise())
        async with crashing_node(tmp_path) as node:
            await node.broker.create("queue", "dead", {}).wait()
            await node.broker.create("queue", "small", settings).wait()
            for value in (b"a", b"b"):
                await node.broker.publish("small", 0, batch_of(value), "c").wait()
            dead, _ = await consume(node.broker, "dead")
            await dead.wait_for(1)
            await node.broker.resize("dead", 3, 0).wait()
    async with running_node(tmp_path) as node:
        dead, _ = await consume(node.broker, "dead")
        await node.broker.publish("small", 0, batch_of(b"c"), "c").wait()
        await dead.wait_for(2)
        await node.broker.resize("dead", 5, 0).wait()
        await node.broker.publish("small", 0, batch_of(b"d"), "c").wait()
        await dead.wait_for(3)
        assert sorted(dead.values) == [b"a", b"b", b"c"]


async def test_dead_letters_wait_for_their_queue(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        settings = {"max_backlog_records": 1, "overflow": "dead-letter", "dead_letter": "later"}
        await broker.create("queue", "small", settings).wait()
        for value in (b"a", b"b", b"c"):
            await broker.publish("small", 0, batch_of(value), "c").wait()
        await broker.create("queue", "later", {}).wait()
        dead, _ = await consume(broker, "later")
        await dead.wait_for(2)
        assert dead.values == [b"a", b"b"]


async def test_publishes_under_way_are_answered_when_their_queue_is_deleted(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "patient", {"max_backlog_records": 1, "overflow": "block"}).wait()
        await broker.publish("patient", 0, batch_of(b"a"), "c").wait()
        waiting = broker.publish("patient", 0, batch_of(b"b"), "c")
        deleted = broker.delete("patient")
        with trio.fail_after(5):
            await deleted.wait()
            with pytest.raises(PlaitError):
                await waiting.wait()
        assert (node.pressure.room.size_bytes, node.pressure.in_flight_bytes) == (0, 0)


async def test_a_topic_that_is_created_and_deleted_at_once_answers_both(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        for _ in range(5):
            created = broker.create("topic", "events", {"partitions": 8})
            deleted = broker.delete("events")
            again = broker.create("topic", "events", {"partitions": 8})
            with trio.fail_after(10):
                for promise in (created, deleted, again):
                    try:
                        await promise.wait()
                    except NotFound:
                        continue
                await broker.create("topic", "events", {"partitions": 8}).wait()
                await broker.publish("events", 3, batch_of(b"a"), "c").wait()
                await broker.delete("events").wait()
        assert list(node.replicas.all_partitions()) == []


async def test_many_partitions_are_served_again_after_a_restart(tmp_path: Path) -> None:
    async with crashing_node(tmp_path) as node:
        await node.broker.create("topic", "events", {"partitions": 50}).wait()
        for number in range(50):
            await node.broker.publish("events", number, batch_of(b"a"), "c").wait()
    async with running_node(tmp_path) as node:
        assert await read_all(node.broker, "events") == [b"a"]
        found = await node.broker.describe("events").wait()
        assert [each["end"] for each in found["partitions_detail"]] == [1] * 50
