"""One node, through the facade that gateways use: publish, keep, deliver."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from plait.wire.batch import iterate
from plait.wire.errors import (
    AlreadyExists,
    BatchInvalid,
    NotFound,
    OffsetOutOfRange,
    Overloaded,
    ProducerFenced,
    RecordTooLarge,
    SequenceOutOfOrder,
    WrongKind,
)
from tests.integration.nodes import batch_of, consume, crashing_node, idempotent, running_node


async def read_all(broker: object, name: str, offset: int = 0) -> list[bytes]:
    values: list[bytes] = []
    while True:
        fetched = await broker.fetch(name, 0, offset, 1 << 20, 0).wait()  # type: ignore[attr-defined]
        for batch in fetched.batches:
            values += [bytes(record.value) for record in iterate(batch) if record.offset >= offset]
        if fetched.next_offset == fetched.end_offset:
            return values
        offset = fetched.next_offset


async def test_what_is_published_to_a_topic_can_be_read_again_and_again(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {}).wait()
        first = await broker.publish("events", 0, batch_of(b"a", b"b"), "c").wait()
        second = await broker.publish("events", -1, batch_of(b"c"), "c").wait()
        assert (first.base_offset, second.base_offset) == (0, 2)
        assert await read_all(broker, "events") == [b"a", b"b", b"c"]
        assert await read_all(broker, "events", 1) == [b"b", b"c"]


@pytest.mark.parametrize("end", [running_node, crashing_node])
async def test_everything_acknowledged_is_there_after_a_restart(tmp_path: Path, end: object) -> None:
    async with end(tmp_path) as node:  # type: ignore[operator]
        await node.broker.create("topic", "events", {}).wait()
        for number in range(50):
            await node.broker.publish("events", 0, batch_of(b"%d" % number), "c").wait()
        cluster_id = node.broker.cluster_id
    async with running_node(tmp_path) as node:
        assert node.broker.cluster_id == cluster_id
        assert node.broker.incarnation == 2
        assert await read_all(node.broker, "events") == [b"%d" % number for number in range(50)]
        published = await node.broker.publish("events", 0, batch_of(b"more"), "c").wait()
        assert published.base_offset == 50


async def test_a_fetch_waits_for_the_first_record(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.broker.create("topic", "events", {}).wait()
        waiting = node.broker.fetch("events", 0, 0, 1000, 10_000)
        assert not waiting.done
        await node.broker.publish("events", 0, batch_of(b"a"), "c").wait()
        with trio.fail_after(5):
            fetched = await waiting.wait()
        assert fetched.next_offset == 1
        empty = await node.broker.fetch("events", 0, 1, 1000, 20).wait()
        assert (empty.next_offset, list(empty.batches)) == (1, [])


async def test_offsets_are_found_by_start_end_and_time(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {}).wait()
        await broker.publish("events", 0, batch_of(b"a", b"b"), "c").wait()  # all at 1,000 ms
        assert (await broker.locate("events", 0, "start").wait()).offset == 0
        assert (await broker.locate("events", 0, "end").wait()).offset == 2
        assert (await broker.locate("events", 0, 1_000).wait()).offset == 0
        assert (await broker.locate("events", 0, 1_001).wait()).offset == 2
        with pytest.raises(OffsetOutOfRange):
            await broker.fetch("events", 0, 3, 1000, 0).wait()


async def test_an_idempotent_batch_that_is_sent_again_is_stored_once(tmp_path: Path) -> None:
    async with crashing_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {}).wait()
        producer = await broker.new_producer().wait()
        first = broker.publish("events", 0, idempotent(producer, 0, b"a", b"b"), "c")
        again = broker.publish("events", 0, idempotent(producer, 0, b"a", b"b"), "c")
        assert (await first.wait()).base_offset == (await again.wait()).base_offset == 0
        assert (await again.wait()).duplicate
    async with running_node(tmp_path) as node:
        broker = node.broker
        late = await broker.publish("events", 0, idempotent(producer, 0, b"a", b"b"), "c").wait()
        assert (late.base_offset, late.duplicate) == (0, True)
        assert (await broker.publish("events", 0, idempotent(producer, 2, b"c"), "c").wait()).base_offset == 2
        with pytest.raises(SequenceOutOfOrder):
            await broker.publish("events", 0, idempotent(producer, 9, b"x"), "c").wait()
        fencing = (producer[0], producer[1] + 1)
        assert not (await broker.publish("events", 0, idempotent(fencing, 0, b"d"), "c").wait()).duplicate
        with pytest.raises(ProducerFenced):
            await broker.publish("events", 0, idempotent(producer, 3, b"x"), "c").wait()
        assert await read_all(broker, "events") == [b"a", b"b", b"c", b"d"]
        assert await broker.new_producer().wait() > producer


async def test_a_queue_gives_each_record_to_one_consumer(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {}).wait()
        one, _ = await consume(broker, "jobs")
        two, _ = await consume(broker, "jobs")
        await broker.publish("jobs", 0, batch_of(*(b"%d" % number for number in range(10))), "c").wait()
        with trio.fail_after(5):
            while len(one.items) + len(two.items) < 10:
                await trio.lowlevel.checkpoint()
        assert sorted(one.values + two.values) == [b"%d" % number for number in range(10)]
        assert one.items, "the work is shared out"
        assert two.items, "the work is shared out"


async def test_what_is_acknowledged_never_comes_again_and_what_is_not_does(tmp_path: Path) -> None:
    async with crashing_node(tmp_path) as node:
        await node.broker.create("queue", "jobs", {}).wait()
        await node.broker.publish("jobs", 0, batch_of(b"a", b"b", b"c"), "c").wait()
        inbox, attachment = await consume(node.broker, "jobs")
        await inbox.wait_for(3)
        lease = inbox.items[0][1]
        settled = await attachment.settle(0, "ack", 0, [(lease, 0, 0), (lease, 2, 2)]).wait()
        assert (settled.records, list(settled.lost)) == (2, [])
    async with running_node(tmp_path) as node:
        inbox, attachment = await consume(node.broker, "jobs")
        await inbox.wait_for(1)
        assert [(item[2], item[3], item[4]) for item in inbox.items] == [(1, 2, b"b")]
        await attachment.settle(0, "ack", 0, [(inbox.items[0][1], 1, 1)]).wait()
        detail = (await node.broker.describe("jobs").wait())["partitions_detail"][0]
        assert (detail["backlog_records"], detail["leased"], detail["start"], detail["end"]) == (0, 0, 3, 3)


async def test_returned_and_expired_records_come_back_in_place(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {}).wait()
        await broker.publish("jobs", 0, batch_of(b"a", b"b", b"c"), "c").wait()
        inbox, attachment = await consume(broker, "jobs", prefetch=2, lease_ms=200)
        await inbox.wait_for(2)
        await attachment.settle(0, "return", 0, [(inbox.items[0][1], 0, 0)]).wait()
        await inbox.wait_for(3)
        assert inbox.items[2][2:] == (0, 2, b"a")
        await inbox.wait_for(5)  # nobody settles: the leases expire and the records are leased again
        assert {item[2] for item in inbox.items[3:]} <= {0, 1}
        late = await attachment.settle(0, "ack", 0, [(inbox.items[0][1], 0, 0)]).wait()
        assert (late.records, list(late.lost)) == (0, [(0, 0)])


async def test_a_consumer_that_leaves_gives_back_what_it_holds(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.broker.create("queue", "jobs", {}).wait()
        await node.broker.publish("jobs", 0, batch_of(b"a", b"b"), "c").wait()
        one, attachment = await consume(node.broker, "jobs")
        await one.wait_for(2)
        await attachment.detach().wait()
        two, _ = await consume(node.broker, "jobs")
        await two.wait_for(2)
        assert [item[3] for item in two.items] == [2, 2]


async def test_prefetch_bounds_what_a_consumer_holds(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.broker.create("queue", "jobs", {}).wait()
        await node.broker.publish("jobs", 0, batch_of(*([b"x"] * 10)), "c").wait()
        inbox, attachment = await consume(node.broker, "jobs", prefetch=3)
        await inbox.wait_for(3)
        assert (await node.broker.describe("jobs").wait())["partitions_detail"][0]["leased"] == 3
        await attachment.settle(0, "ack", 0, [(inbox.items[0][1], 0, 1)]).wait()
        await inbox.wait_for(5)
        assert (await node.broker.describe("jobs").wait())["partitions_detail"][0]["leased"] == 3


async def test_stream_positions_are_kept(tmp_path: Path) -> None:
    async with crashing_node(tmp_path) as node:
        await node.broker.create("topic", "events", {"partitions": 2}).wait()
        await node.broker.commit("billing", "events", [(0, 3), (1, 5)]).wait()
        await node.broker.commit("billing", "events", [(0, 4)]).wait()
    async with running_node(tmp_path) as node:
        assert sorted(await node.broker.committed("billing", "events").wait()) == [(0, 4), (1, 5)]
        assert await node.broker.committed("other", "events").wait() == []
        with pytest.raises(NotFound):
            await node.broker.commit("billing", "events", [(2, 0)]).wait()


async def test_a_full_queue_refuses_or_makes_place_as_its_policy_says(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "strict", {"max_backlog_records": 2}).wait()
        await broker.create("queue", "rolling", {"max_backlog_records": 2, "overflow": "drop-oldest"}).wait()
        for name in ("strict", "rolling"):
            await broker.publish(name, 0, batch_of(b"a", b"b"), "c").wait()
        with pytest.raises(Overloaded) as refused:
            await broker.publish("strict", 0, batch_of(b"c"), "c").wait()
        assert refused.value.retry_after_s > 0
        await broker.publish("rolling", 0, batch_of(b"c"), "c").wait()
        inbox, _ = await consume(broker, "rolling")
        await inbox.wait_for(2)
        assert inbox.values == [b"b", b"c"]


async def test_a_blocking_queue_takes_the_publish_when_there_is_place(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "patient", {"max_backlog_records": 1, "overflow": "block"}).wait()
        await broker.publish("patient", 0, batch_of(b"a"), "c").wait()
        blocked = broker.publish("patient", 0, batch_of(b"b"), "c")
        inbox, attachment = await consume(broker, "patient")
        await inbox.wait_for(1)
        assert not blocked.done
        await attachment.settle(0, "ack", 0, [(inbox.items[0][1], 0, 0)]).wait()
        with trio.fail_after(5):
            assert (await blocked.wait()).base_offset == 1


async def test_what_overflows_goes_to_the_dead_letter_queue_once(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "dead", {}).wait()
        settings = {"max_backlog_records": 2, "overflow": "dead-letter", "dead_letter": "dead"}
        await broker.create("queue", "small", settings).wait()
        for value in (b"a", b"b", b"c", b"d"):
            await broker.publish("small", 0, batch_of(value), "c").wait()
        dead, _ = await consume(broker, "dead")
        await dead.wait_for(2)
        assert dead.values == [b"a", b"b"]
        inbox, _ = await consume(broker, "small")
        await inbox.wait_for(2)
        assert inbox.values == [b"c", b"d"]


async def test_a_deleted_queue_tells_its_consumers_and_is_gone_for_good(tmp_path: Path) -> None:
    async with crashing_node(tmp_path) as node:
        broker = node.broker
        first_id = (await broker.create("queue", "jobs", {}).wait())["id"]
        await broker.publish("jobs", 0, batch_of(b"a"), "c").wait()
        inbox, _ = await consume(broker, "jobs")
        await broker.delete("jobs").wait()
        assert isinstance(inbox.error, NotFound)
        with pytest.raises(NotFound):
            await broker.publish("jobs", 0, batch_of(b"b"), "c").wait()
    async with running_node(tmp_path) as node:
        with pytest.raises(NotFound):
            await node.broker.describe("jobs").wait()
        again = await node.broker.create("queue", "jobs", {}).wait()
        assert again["id"] > first_id
        assert again["partitions_detail"][0]["end"] == 0


async def test_the_same_create_again_is_no_error_and_another_one_is(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        first = await node.broker.create("topic", "events", {"partitions": 2}).wait()
        assert (await node.broker.create("topic", "events", {"partitions": 2}).wait())["id"] == first["id"]
        with pytest.raises(AlreadyExists):
            await node.broker.create("topic", "events", {"partitions": 3}).wait()
        with pytest.raises(AlreadyExists):
            await node.broker.create("queue", "events", {"partitions": 2}).wait()
        assert [found["name"] for found in await node.broker.names("").wait()] == ["events"]


async def test_bad_batches_are_refused_and_harm_nobody(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {"max_record_bytes": 1_000}).wait()
        good = batch_of(b"a")
        damaged = bytearray(good)
        damaged[-1] ^= 1
        for bad in (b"", good[:-1], bytes(damaged)):
            with pytest.raises(BatchInvalid):
                await broker.publish("events", 0, bad, "c").wait()
        await broker.publish("events", 0, batch_of(b"x" * 1_000), "c").wait()
        with pytest.raises(RecordTooLarge):
            await broker.publish("events", 0, batch_of(b"x" * 1_001), "c").wait()
        with pytest.raises(WrongKind):
            await consume(broker, "events")
        with pytest.raises(NotFound):
            await broker.publish("nothing", 0, good, "c").wait()
        with pytest.raises(NotFound):
            await broker.publish("events", 7, good, "c").wait()
        assert len(await read_all(broker, "events")) == 1
