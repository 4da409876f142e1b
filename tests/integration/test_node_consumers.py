"""Consumers that misbehave, leave, or come at a bad moment; what they do stays their own affair."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from node.broker import Broker, ConsumerOptions
from node.consumers import LeasedRun
from node.partition import Partition
from node.state import QUEUE_SUBSCRIPTION
from plait.wire.errors import InternalError, NotFound, PlaitError, SettingInvalid
from tests.integration.nodes import Inbox, batch_of, consume, crashing_node, running_node


def partition_of(node: object, name: str, number: int = 0) -> Partition:
    topic = node.metadata.catalogue.topic(name)  # type: ignore[attr-defined]
    return node.replicas.partitions(topic.topic_id)[number]  # type: ignore[attr-defined, no-any-return]


async def detail(broker: Broker, name: str) -> dict[str, int]:
    return (await broker.describe(name).wait())["partitions_detail"][0]  # type: ignore[no-any-return]


async def test_a_consumer_whose_callbacks_fail_harms_no_other_and_not_the_queue(tmp_path: Path) -> None:
    def fails(*_: object) -> None:
        raise ValueError("a gateway's defect")

    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {}).wait()
        bad = await broker.attach("jobs", "", ConsumerOptions(1, 0, "bad"), fails, fails).wait()
        await broker.publish("jobs", 0, batch_of(b"a"), "c").wait()
        with trio.fail_after(5):
            while (await detail(broker, "jobs"))["leased"] == 0:
                await trio.lowlevel.checkpoint()
        good, _ = await consume(broker, "jobs")
        await broker.publish("jobs", 0, batch_of(b"b"), "c").wait()
        await good.wait_for(1)
        await bad.detach().wait()
        await good.wait_for(2)
        assert good.values == [b"b", b"a"]
        await broker.attach("jobs", "", ConsumerOptions(1, 0, "bad"), fails, fails).wait()
        await broker.delete("jobs").wait()
        assert isinstance(good.error, NotFound)


async def test_a_publisher_whose_callback_fails_is_the_only_one_that_notices(tmp_path: Path) -> None:
    def fails(_: object) -> None:
        raise ValueError("a gateway's defect")

    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("topic", "events", {}).wait()
        waiting = [broker.fetch("events", 0, 0, 1000, 10_000) for _ in range(3)]
        waiting[0].then(fails)
        bad = broker.publish("events", 0, batch_of(b"a"), "c")
        bad.then(fails)
        with trio.fail_after(5):
            for each in waiting:
                assert (await each.wait()).next_offset == 1
            assert (await broker.publish("events", 0, batch_of(b"b"), "c").wait()).base_offset == 1
        assert partition_of(node, "events").admission.permits_held == 0


async def test_a_consumer_of_many_partitions_is_told_once_that_it_is_over(tmp_path: Path) -> None:
    ends: list[PlaitError] = []
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {"partitions": 3}).wait()
        await broker.attach("jobs", "", ConsumerOptions(9, 0, "c"), lambda *_: None, ends.append).wait()
        partition_of(node, "jobs", 1).group.fence("for the test")
        assert len(ends) == 1
        with trio.fail_after(5):  # it has left the partitions that go on, too
            while partition_of(node, "jobs", 0).consumers or partition_of(node, "jobs", 2).consumers:
                await trio.lowlevel.checkpoint()
        await broker.delete("jobs").wait()
        assert len(ends) == 1


async def test_a_consumer_that_cannot_have_every_partition_has_none(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {"partitions": 3}).wait()
        partition_of(node, "jobs", 2).group.fence("for the test")
        with pytest.raises(PlaitError):
            await consume(broker, "jobs")
        with trio.fail_after(5):
            while partition_of(node, "jobs", 0).consumers:
                await trio.lowlevel.checkpoint()


async def test_who_detaches_when_told_of_the_end_is_answered(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {}).wait()
        answers = []
        attachment = await broker.attach(
            "jobs", "", ConsumerOptions(9, 0, "c"), lambda *_: None, lambda _: answers.append(attachment.detach())
        ).wait()
        await broker.delete("jobs").wait()
        with trio.fail_after(5):
            await answers[0].wait()


async def test_leases_have_a_shortest_and_a_longest_time(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.broker.create("queue", "jobs", {}).wait()
        for lease_ms in (-1, 1, 1 << 40):
            with pytest.raises(SettingInvalid):
                await consume(node.broker, "jobs", lease_ms=lease_ms)


async def test_delayed_records_come_back_one_after_the_other_though_nobody_consumes(tmp_path: Path) -> None:
    async with crashing_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {}).wait()
        await broker.publish("jobs", 0, batch_of(b"a", b"b", b"c"), "c").wait()
        inbox, attachment = await consume(broker, "jobs")
        await inbox.wait_for(3)
        attachment.pause()
        lease = inbox.items[0][1]
        for offset in range(3):
            await attachment.settle(0, "return", 200 * (offset + 1), [(lease, offset, offset)]).wait()
    async with running_node(tmp_path) as node:
        shared = partition_of(node, "jobs").state.shared[QUEUE_SUBSCRIPTION]
        with trio.fail_after(5):
            while shared.returned_count < 3:
                await trio.lowlevel.checkpoint()


async def test_a_turn_that_fails_in_the_middle_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {}).wait()
        partition = partition_of(node, "jobs")

        def fails(_: object) -> None:
            raise ValueError("a defect of ours")

        monkeypatch.setattr(partition, "_attach", fails)
        promises = [broker.publish("jobs", 0, batch_of(b"a"), "c"), broker.locate("jobs", 0, "end")]
        broken = broker.attach("jobs", "", ConsumerOptions(1, 0, "c"), lambda *_: None, lambda _: None)
        with pytest.raises(InternalError), trio.fail_after(5):
            await broken.wait()
        late = [broker.publish("jobs", 0, batch_of(b"a"), "c"), broker.locate("jobs", 0, "end")]
        with trio.fail_after(5):
            for promise in (*promises, *late):
                try:
                    await promise.wait()
                except PlaitError:
                    continue


async def test_what_a_queue_has_delivered_keeps_no_memory(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {}).wait()
        inbox, attachment = await consume(broker, "jobs")
        await broker.publish("jobs", 0, batch_of(b"a" * 10_000), "c").wait()
        await inbox.wait_for(1)
        consumers = partition_of(node, "jobs").consumers
        assert consumers._source._open
        await attachment.settle(0, "ack", 0, [(inbox.items[0][1], 0, 0)]).wait()
        with trio.fail_after(10):
            while consumers._source._open:
                await trio.lowlevel.checkpoint()


async def test_a_consumer_that_is_paused_gets_nothing_and_starves_nobody(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {}).wait()
        paused, attachment = await consume(broker, "jobs")
        attachment.pause()
        active, _ = await consume(broker, "jobs")
        await broker.publish("jobs", 0, batch_of(*(b"%d" % number for number in range(10))), "c").wait()
        await active.wait_for(10)
        assert paused.items == []
        await broker.publish("jobs", 0, batch_of(*([b"x"] * 90)), "c").wait()
        await active.wait_for(100)
        await broker.publish("jobs", 0, batch_of(b"more"), "c").wait()
        attachment.resume()
        await paused.wait_for(1)
        assert paused.values == [b"more"]


async def test_no_consumer_ever_holds_more_than_its_prefetch(tmp_path: Path) -> None:
    class Counting(Inbox):
        held = most = 0

        def deliver(self, partition: int, runs: list[LeasedRun]) -> None:
            self.held += sum(leased.run.count for leased in runs)
            self.most = max(self.most, self.held)
            super().deliver(partition, runs)

    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "jobs", {}).wait()
        members = []
        for _ in range(3):
            inbox = Counting()
            options = ConsumerOptions(7, 0, "test")
            members.append((inbox, await broker.attach("jobs", "", options, inbox.deliver, inbox.gone).wait()))
        for _ in range(20):
            broker.publish("jobs", 0, batch_of(*([b"x"] * 10)), "c")
        done = 0
        with trio.fail_after(10):
            while done < 200:
                for inbox, attachment in members:
                    for _, lease, offset, *_ in inbox.items:
                        await attachment.settle(0, "ack", 0, [(lease, offset, offset)]).wait()
                        inbox.held -= 1
                        done += 1
                    inbox.items.clear()
                await trio.lowlevel.checkpoint()
        assert max(inbox.most for inbox, _ in members) <= 7
        assert (await detail(broker, "jobs"))["backlog_records"] == 0
