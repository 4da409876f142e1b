"""Random histories of a queue, with crashes: nothing acknowledged is lost, nothing settled comes again."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import trio

from node.attachments import Attachment
from node.broker import Broker
from node.node import Node
from node.partition import Partition
from plait.wire.errors import PlaitError
from replication.actor import Promise
from tests.integration.nodes import Inbox, batch_of, consume, crashing_node, running_node

LIVES = 4
STEPS = 80


class History:
    """What was done to a queue, and what must therefore be true of it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.number = 0
        self.stored: dict[bytes, tuple[int, int]] = {}  # value: partition, offset; of publishes that were answered
        self.done: set[bytes] = set()  # acknowledged, and the acknowledgement answered
        self.doubtful: set[bytes] = set()  # acknowledged, without an answer
        self.members: list[tuple[Inbox, Attachment]] = []
        self.deliveries: dict[tuple[int, int], int] = {}

    async def live(self, node: Node) -> None:
        self.members.clear()
        for _ in range(STEPS):
            await self.step(node.broker)
        self.look()

    async def step(self, broker: Broker) -> None:
        match self.random.randrange(8):
            case 0 | 1 | 2:
                await self.publish(broker)
            case 3:
                if len(self.members) < 4:
                    self.members.append(await consume(broker, "jobs", prefetch=self.random.randrange(1, 30)))
            case 4 | 5 | 6:
                await self.settle()
            case _:
                await self.disturb()

    async def publish(self, broker: Broker) -> None:
        values = [b"%d" % (self.number + each) for each in range(self.random.randrange(1, 12))]
        self.number += len(values)
        compression = self.random.choice(["none", "none", "gzip", "lz4"])
        promise = broker.publish("jobs", -1, batch_of(*values, compression=compression), "c")
        if self.random.random() < 0.7:
            published = await promise.wait()
            for place, value in enumerate(values):
                self.stored[value] = (published.partition, published.base_offset + place)

    async def settle(self) -> None:
        self.look()
        full = [member for member in self.members if member[0].items]
        if not full:
            return
        inbox, attachment = self.random.choice(full)
        at = self.random.randrange(len(inbox.items))
        partition, lease, offset, _, value = inbox.items.pop(at)
        action = self.random.choice(["ack", "ack", "ack", "return", "extend"])
        promise = attachment.settle(
            partition, action, self.random.choice([0, 5, 1_000]), [(lease, offset, offset)]
        )
        if action == "ack":
            await self.acknowledged(value, promise)

    async def acknowledged(self, value: bytes, promise: Promise[object]) -> None:
        self.doubtful.add(value)
        if self.random.random() < 0.7:
            settled = await promise.wait()
            if settled.records:  # type: ignore[attr-defined]
                self.done.add(value)

    async def disturb(self) -> None:
        if not self.members:
            return
        inbox, attachment = self.random.choice(self.members)
        match self.random.randrange(3):
            case 0:
                attachment.pause()
            case 1:
                attachment.resume()
            case _:
                self.look()
                self.members.remove((inbox, attachment))
                await attachment.detach().wait()

    def look(self) -> None:
        """Nothing that is done is delivered again, and each delivery of a record has a number of its own."""
        for inbox, _ in self.members:
            for partition, _, offset, deliveries, value in inbox.items:
                where = (partition, offset)
                assert self.stored.get(value, where) == where
                assert deliveries >= self.deliveries.get(where, 0)
                self.deliveries[where] = deliveries

    async def drain(self, broker: Broker) -> set[bytes]:
        """Everything that is left in the queue."""
        left: set[bytes] = set()
        inbox, attachment = await consume(broker, "jobs", prefetch=1_000)
        with trio.fail_after(20):
            while True:
                for partition, lease, offset, _, value in inbox.items:
                    assert value not in left, "doubled"
                    left.add(value)
                    await attachment.settle(partition, "ack", 0, [(lease, offset, offset)]).wait()
                inbox.items.clear()
                description = await broker.describe("jobs").wait()
                if not any(each["backlog_records"] for each in description["partitions_detail"]):
                    return left
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("seed", range(4))
async def test_a_queue_keeps_its_word_through_crashes(tmp_path: Path, seed: int) -> None:
    history = History(seed)
    async with crashing_node(tmp_path) as node:
        await node.broker.create("queue", "jobs", {"partitions": seed % 3 + 1, "lease_ms": 60_000}).wait()
        await history.live(node)
    for _ in range(LIVES - 1):
        async with crashing_node(tmp_path) as node:
            await history.live(node)
    async with running_node(tmp_path) as node:
        left = await history.drain(node.broker)
        for partition in node.replicas.all_partitions():
            assert partition.admission.permits_held == partition.admission.waiting == 0
            assert not partition._proposed
            assert all(shared.promised.count == 0 for shared in partition.state.shared.values())
        assert (node.pressure.in_flight_bytes, node.pressure.room.size_bytes) == (0, 0)
    assert not left & history.done, "what is acknowledged never comes again"
    assert set(history.stored) - history.doubtful <= left, "what was answered is there"


def is_busy(partition: Partition) -> bool:
    """Something is under way, or a queue that somebody consumes has records."""
    admission = partition.admission
    backlog = partition.state.backlog_records() if partition.consumers else 0
    return bool(backlog or admission.waiting or admission.permits_held or partition.state.outbox)


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_held_after_a_history_of_full_queues(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    overflow = ("refuse", "block", "drop-oldest", "dead-letter")[seed % 4]
    limits = {"max_backlog_records": 20, "max_backlog_bytes": 20_000, "overflow": overflow, "dead_letter": "dead"}
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "dead", {}).wait()
        await broker.create("queue", "jobs", limits).wait()
        inbox, attachment = await consume(broker, "jobs", prefetch=7)
        promises: list[Promise[object]] = []
        for number in range(300):
            size = random.choice([10, 500, 3_000])
            values = [b"x" * size] * random.randrange(1, 6)
            promises.append(broker.publish("jobs", 0, batch_of(*values), f"c{number % 5}"))  # type: ignore[arg-type]
            if random.random() < 0.2:
                promises[-1].abandoned = True
            if random.random() < 0.05:
                broker.client_gone(f"c{number % 5}")
            if random.random() < 0.5:
                await trio.lowlevel.checkpoint()
            for partition, lease, offset, *_ in inbox.items:
                attachment.settle(partition, random.choice(["ack", "return"]), 0, [(lease, offset, offset)])
            inbox.items.clear()
        with trio.fail_after(20):
            while any(is_busy(partition) for partition in node.replicas.all_partitions()):
                for partition, lease, offset, *_ in inbox.items:
                    attachment.settle(partition, "ack", 0, [(lease, offset, offset)])
                inbox.items.clear()
                await trio.lowlevel.checkpoint()
        for promise in promises:
            if promise.done and promise.error is not None:
                assert isinstance(promise.error, PlaitError)
        assert (node.pressure.in_flight_bytes, node.pressure.room.size_bytes) == (0, 0)
