"""The SDK and a real broker: topics, subscriptions, replay."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
import pytest

import plait
from plait.pytest_plugin import PlaitBroker


def numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
async def test_what_a_producer_sends_is_read_in_order(plait_broker: PlaitBroker, compression: str) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events")
        async with topic.producer(batch_bytes=1000, compression=compression) as producer:  # type: ignore[arg-type]
            for value in numbers(2000):
                await producer.send(value)
        assert [message.value async for message in topic.read(to_end=True)] == numbers(2000)


async def test_every_subscription_gets_everything(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events", partitions=3)
        await topic.publish_many([plait.Message(value, key=value) for value in numbers(300)])
        for name in ("billing", "search"):
            async with topic.subscribe(name) as subscription:
                values = [(await anext(subscription)).value for _ in range(300)]
            assert sorted(values) == sorted(numbers(300))


async def test_a_subscription_goes_on_where_it_was(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events")
        await topic.publish_many(numbers(10))
        async with topic.subscribe("billing") as subscription:
            for _ in range(4):
                await anext(subscription)
    async with plait_broker.connect() as client:
        topic = await client.topic("events")
        async with topic.subscribe("billing") as subscription:
            assert await subscription.lag() == {0: 6}
            assert (await anext(subscription)).offset == 4


async def test_a_reader_waits_for_what_comes(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events")
        await topic.publish(b"before")
        async with topic.read(from_="end") as reader, anyio.create_task_group() as tasks:
            tasks.start_soon(topic.publish, b"after")
            assert (await anext(reader)).value == b"after"


async def test_replays_from_an_offset_and_a_time(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events")
        for number in range(10):
            await topic.publish(b"%d" % number, timestamp_ms=1_700_000_000_000 + 1000 * number)
        assert [message.offset async for message in topic.read(from_=7, to_end=True)] == [7, 8, 9]
        since = datetime.fromtimestamp(1_700_000_004, UTC)
        assert [message.offset async for message in topic.read(from_=since, to_end=True)] == [4, 5, 6, 7, 8, 9]


async def test_keys_headers_and_times_come_back(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events")
        await topic.publish(b"v", key=b"k", headers=[("a", b"1"), ("a", b"2")], timestamp_ms=5)
        await topic.publish(b"plain")
        first, second = [message async for message in topic.read(to_end=True)]
        assert (first.value, first.key, first.header_items) == (b"v", b"k", [("a", b"1"), ("a", b"2")])
        assert first.timestamp == datetime(1970, 1, 1, 0, 0, 0, 5000, UTC)
        assert (second.value, second.key, second.headers) == (b"plain", None, {})


async def test_an_offset_behind_the_end_is_an_error(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events")
        with pytest.raises(plait.OffsetOutOfRange):
            await anext(topic.read(from_=99))


async def test_large_records_pass_and_larger_ones_do_not(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events")
        large = bytes(1 << 20)
        await topic.publish(large)
        with pytest.raises(plait.RecordTooLarge):
            await topic.publish(large + b"x")
        assert [message.value async for message in topic.read(to_end=True)] == [large]


def test_works_on_asyncio_too(plait_broker: PlaitBroker) -> None:
    async def main() -> list[bytes]:
        async with plait_broker.connect() as client:
            topic = await client.topic("events")
            async with topic.producer() as producer:
                for value in numbers(1000):
                    await producer.send(value)
            return [message.value async for message in topic.read(to_end=True)]

    assert anyio.run(main, backend="asyncio") == numbers(1000)


def test_works_without_a_loop(plait_broker: PlaitBroker) -> None:
    with plait_broker.connect_blocking() as client:
        topic = client.topic("events")
        with topic.producer() as producer:
            for value in numbers(1000):
                producer.send(value)
        assert [message.value for message in topic.read(to_end=True)] == numbers(1000)
