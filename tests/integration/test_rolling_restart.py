"""Three processes restarted one after the other under load, and all at once: nobody notices, nothing is lost."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

import plait
from plait.wire.errors import LeaseLost, OutcomeUnknown
from tests.integration.brokers import NODES, READY_LIMIT_S, Brokers

PARTITIONS = 6


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    brokers = Brokers(tmp_path)
    yield brokers
    brokers.kill_all()


class Load:
    """Publishes to a queue and a topic, and consumes from the queue, until it is told to end."""

    def __init__(self) -> None:
        self.sent = 0
        self.queued = 0
        self.seen: set[bytes] = set()
        self._over = False

    def end(self) -> None:
        self._over = True

    async def send(self, topic: plait.Topic) -> None:
        async with topic.producer(batch_bytes=2_000, linger_ms=1) as producer:
            while not self._over:
                await producer.send(b"%d" % self.sent, key=b"%d" % (self.sent % 50))
                self.sent += 1
                if self.sent % 20 == 0:
                    await anyio.sleep(0.005)

    async def publish(self, queue: plait.Queue) -> None:
        while not self._over:
            await queue.publish(b"%d" % self.queued)
            self.queued += 1

    async def consume(self, queue: plait.Queue) -> None:
        async with queue.consume(prefetch=20) as consumer:
            async for message in consumer:
                assert message.value is not None
                self.seen.add(bytes(message.value))
                with suppress(
                    OutcomeUnknown, LeaseLost
                ):  # then it comes once more, which is what a queue promises
                    await message.ack()

    async def moves(self) -> None:
        """Until something more of each kind was done."""
        sent, queued, seen = self.sent, self.queued, len(self.seen)
        with anyio.fail_after(READY_LIMIT_S):
            while self.sent < sent + 200 or self.queued < queued + 20 or len(self.seen) < seen + 10:  # noqa: ASYNC110
                await anyio.sleep(0.01)


@asynccontextmanager
async def load_on(client: plait.Client) -> AsyncIterator[Load]:
    """Ends when all that was published is stored; an error of any publish fails the test."""
    topic = await client.topic("events", partitions=PARTITIONS)
    queue = await client.queue("orders")
    load = Load()
    async with anyio.create_task_group() as consuming:
        consuming.start_soon(load.consume, queue)
        async with anyio.create_task_group() as producing:
            producing.start_soon(load.send, topic)
            producing.start_soon(load.publish, queue)
            await load.moves()
            yield load
            load.end()
        with anyio.fail_after(READY_LIMIT_S):
            while len(load.seen) < load.queued:  # noqa: ASYNC110 - the consumer sets no event
                await anyio.sleep(0.01)
        consuming.cancel_scope.cancel()


async def stored(client: plait.Client) -> list[int]:
    topic = await client.topic("events", create=False)
    return sorted([int(message.value or b"") async for message in topic.read(to_end=True)])


async def until_ready(brokers: Brokers) -> None:
    with anyio.fail_after(READY_LIMIT_S):
        for node in NODES:
            while (await brokers.page(node, "/readyz"))[0] != 200:  # noqa: ASYNC110 - a process sets no event
                await anyio.sleep(0.01)


async def until_spread(brokers: Brokers) -> None:
    """Until each node leads some of the partitions, so that each has something to hand over."""
    with anyio.fail_after(READY_LIMIT_S):
        for node in NODES:
            while "plait_partitions_led 0" in (await brokers.page(node, "/metrics"))[1]:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.05)


def left(log: str) -> list[int]:
    """Of how many groups each of the node's lives had the leadership left when it had handed over the others."""
    return [int(found) for found in re.findall(r"leadership handed over .*left=(\d+)", log)]


@pytest.mark.slow
async def test_a_rolling_restart_under_load(brokers: Brokers) -> None:
    await brokers.start(*NODES)
    async with plait.connect(brokers.addresses) as client:
        async with load_on(client) as load:
            for node in NODES:
                await until_spread(brokers)
                log = await brokers.stop(node)
                assert left(log) == [0], log
                await load.moves()
                await brokers.start(node)
                await until_ready(brokers)
                await load.moves()
        assert await stored(client) == list(range(load.sent))
        assert load.seen == {b"%d" % number for number in range(load.queued)}


async def test_all_may_be_restarted_at_once(brokers: Brokers) -> None:
    await brokers.start(*NODES)
    async with plait.connect(brokers.addresses) as client:
        topic = await client.topic("events", partitions=PARTITIONS)
        await topic.publish_many([b"%d" % number for number in range(1_000)])
    async with anyio.create_task_group() as tasks:
        for node in NODES:
            tasks.start_soon(brokers.stop, node)
    await brokers.start(*NODES)
    await until_ready(brokers)
    async with plait.connect(brokers.addresses) as client:
        assert await stored(client) == list(range(1_000))
        await client.queue("orders")
