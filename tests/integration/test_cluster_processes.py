"""Three brokers, three processes: the one that leads is killed, and what was promised holds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import plait
from tests.integration.brokers import NODES, Brokers, ended


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    brokers = Brokers(tmp_path)
    yield brokers
    brokers.kill_all()


async def test_publishing_goes_on_when_the_leader_is_killed_and_nothing_is_lost_or_doubled(
    brokers: Brokers,
) -> None:
    await brokers.start(*NODES)
    values = [b"%d" % number for number in range(15_000)]
    async with plait.connect(brokers.addresses) as client, anyio.create_task_group() as tasks:
        topic = await client.topic("events")
        await client.queue("orders")
        sent = anyio.Event()

        async def produce() -> None:
            async with topic.producer(batch_bytes=2_000, linger_ms=1) as producer:
                for number, value in enumerate(values):
                    await producer.send(value)
                    if number % 5_000 == 2_500:
                        sent.set()
                        await anyio.sleep(0.05)

        tasks.start_soon(produce)
        await sent.wait()
        for _ in range(2):
            leader = await brokers.leader()
            brokers.kill(leader)
            await topic.publish(b"x", partition=0, headers={"extra": b""})
            await brokers.start(leader)
    async with plait.connect(brokers.addresses) as client:
        topic = await client.topic("events")
        found = [message.value async for message in topic.read(to_end=True)]
    assert [value for value in found if value != b"x"] == values
    assert found.count(b"x") == 2


async def test_what_was_acknowledged_is_there_when_all_were_killed_at_once(brokers: Brokers) -> None:
    await brokers.start(*NODES)
    async with plait.connect(brokers.addresses) as client:
        queue = await client.queue("orders")
        await queue.publish_many([b"%d" % number for number in range(100)])
        async with queue.consume(prefetch=10) as consumer:
            for _ in range(10):
                await (await anext(consumer)).ack()
    brokers.kill_all()
    await brokers.start(*NODES)
    async with plait.connect(brokers.addresses) as client:
        queue = await client.queue("orders")
        seen = set()
        async with queue.consume() as consumer:
            async for message in consumer:
                seen.add(message.value)
                await message.ack()
                if not (await queue.backlog()).records:
                    break
    assert seen == {b"%d" % number for number in range(10, 100)}


async def test_a_node_that_lost_its_disk_is_not_let_in_under_its_id(brokers: Brokers, tmp_path: Path) -> None:
    await brokers.start(*NODES)
    brokers.kill(3)
    (tmp_path / "data-3").rename(tmp_path / "lost")
    assert await ended(brokers.spawn(3)) != 0
    assert "older than what it was, or another one" in (tmp_path / "log-3").read_text()


async def test_an_older_copy_of_a_disk_is_not_let_in_however_often_it_is_tried(
    brokers: Brokers, tmp_path: Path
) -> None:
    await brokers.start(*NODES)
    data, copy = tmp_path / "data-1", tmp_path / "copy"
    brokers.kill(1)
    shutil.copytree(data, copy)
    for _ in range(2):
        await brokers.start(1)
        async with plait.connect(brokers.addresses) as client:
            await (await client.queue("orders")).publish_many([b"%d" % number for number in range(50)])
        brokers.kill(1)
    data.rename(tmp_path / "later")
    copy.rename(data)
    for node in (2, 3):  # what they know of node 1 outlives them
        brokers.kill(node)
    await brokers.start(2, 3)
    for _ in range(5):
        assert await ended(brokers.spawn(1)) != 0
    assert "this node's disk is older than what it was" in (tmp_path / "log-1").read_text()
    data.rename(tmp_path / "earlier")
    (tmp_path / "later").rename(data)
    await brokers.start(1)
    async with plait.connect(brokers.addresses) as client:
        assert (await (await client.queue("orders")).backlog()).records == 100
