"""The SDK and a real broker: queues."""

from __future__ import annotations

import anyio
import pytest

import plait
from plait.pytest_plugin import PlaitBroker


async def take(queue: plait.Queue, count: int) -> list[bytes]:
    """Consume and acknowledge so many."""
    values = []
    async with queue.consume() as consumer:
        async for message in consumer:
            values.append(message.value)
            message.ack_soon()
            if len(values) == count:
                break
    return values


async def test_a_message_is_gone_when_it_is_acknowledged(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        queue = await client.queue("orders")
        await queue.publish(b"one", key=b"k", headers={"a": b"b"}, timestamp_ms=1234)
        async for message in queue.consume():
            assert (message.value, message.key, message.headers) == (b"one", b"k", {"a": b"b"})
            assert (message.partition, message.offset, message.timestamp_ms) == (0, 0, 1234)
            assert message.deliveries == 1
            await message.ack()
            break
        assert (await queue.backlog()).records == 0


async def test_thousands_of_messages_come_in_order_and_once(plait_broker: PlaitBroker) -> None:
    values = [b"%d" % number for number in range(5000)]
    async with plait_broker.connect() as client:
        queue = await client.queue("orders")
        await queue.publish_many(values)
        assert (await queue.backlog()).records == 5000
        assert await take(queue, 5000) == values
        assert (await queue.backlog()).records == 0


async def test_consumers_share_the_messages(plait_broker: PlaitBroker) -> None:
    seen: list[bytes] = []
    async with plait_broker.connect() as client:
        queue = await client.queue("orders")
        await queue.publish_many([b"%d" % number for number in range(300)])
        async with anyio.create_task_group() as tasks:

            async def work() -> None:
                async with (
                    plait_broker.connect() as own,
                    (await own.queue("orders")).consume(prefetch=10) as consumer,
                ):
                    async for message in consumer:
                        await message.ack()
                        seen.append(message.value)
                        if len(seen) == 300:
                            tasks.cancel_scope.cancel()

            for _ in range(3):
                tasks.start_soon(work)
    assert sorted(seen) == sorted(b"%d" % number for number in range(300))


async def test_a_returned_message_comes_again_in_its_place(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        queue = await client.queue("orders")
        await queue.publish_many([b"one", b"two"])
        async for message in queue.consume(prefetch=1):
            if message.deliveries == 1 and message.value == b"one":
                await message.nack()
                continue
            assert (message.value, message.deliveries) == (b"one", 2)
            await message.ack()
            break


async def test_what_a_closed_consumer_had_goes_to_the_next(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        queue = await client.queue("orders")
        await queue.publish_many([b"one", b"two"])
        async with queue.consume() as consumer:
            assert (await anext(consumer)).value == b"one"
        assert await take(queue, 2) == [b"one", b"two"]


async def test_what_a_closed_client_had_goes_to_the_next(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        queue = await client.queue("orders")
        await queue.publish(b"one")
        async with plait_broker.connect() as other:
            assert (await anext((await other.queue("orders")).consume())).value == b"one"
        assert await take(queue, 1) == [b"one"]


async def test_a_lease_that_is_not_extended_ends(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        queue = await client.queue("orders")
        await queue.publish(b"one")
        async with queue.consume(lease_s=0.05, auto_extend=False) as slow:
            late = await anext(slow)
            again = await anext(slow)  # the broker takes it back, and hands it out anew
            assert (again.value, again.deliveries) == (b"one", 2)
            with pytest.raises(plait.LeaseLost):
                await late.ack()


async def test_a_full_queue_refuses_and_says_so(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect(deadline_s=0.5) as client:
        queue = await client.queue("orders", max_backlog_records=2)
        await queue.publish_many([b"one", b"two"])
        with pytest.raises(plait.Overloaded):
            await queue.publish(b"three")
        assert await take(queue, 2) == [b"one", b"two"]
        await queue.publish(b"four")


async def test_deleting_a_queue_ends_its_consumers(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        queue = await client.queue("orders")
        async with queue.consume() as consumer:
            await queue.publish(b"one")
            await (await anext(consumer)).ack()
            await queue.delete()
            with pytest.raises(plait.NotFound):
                await anext(consumer)
        with pytest.raises(plait.NotFound):
            await queue.publish(b"two")


async def test_who_consumes_already_is_given_what_comes_into_new_partitions(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        queue = await client.queue("orders", partitions=1)
        async with queue.consume(prefetch=4) as consumer:
            await queue.publish(b"before")
            message = await anext(consumer)
            await message.ack()
            await client.resize("orders", partitions=3)
            queue = await client.queue("orders", create=False)
            for partition in range(3):
                await queue.publish(b"%d" % partition, partition=partition)
            seen = []
            for _ in range(3):
                message = await anext(consumer)
                await message.ack()
                seen.append((message.value, message.partition))
            assert sorted(seen) == [(b"0", 0), (b"1", 1), (b"2", 2)]
            assert (await queue.backlog()).records == 0
        await queue.publish(b"later", partition=2)
        assert await take(queue, 1) == [b"later"], "who has left has left the new partitions, too"


async def test_names_and_settings_are_checked(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        await client.queue("orders", lease_ms=5000)
        assert (await client.queue("orders")).settings["lease_ms"] == 5000
        with pytest.raises(plait.AlreadyExists):
            await client.queue("orders", lease_ms=6000)
        with pytest.raises(plait.WrongKind):
            await client.topic("orders")
        with pytest.raises(plait.NameInvalid):
            await client.queue("no/slash")
        with pytest.raises(plait.SettingInvalid, match="lease_ms"):
            await client.queue("other", lease_sm=5000)
        with pytest.raises(plait.NotFound):
            await client.delete("nothing")


async def test_namespaces_do_not_see_each_other(plait_broker: PlaitBroker) -> None:
    async with (
        plait_broker.connect() as client,
        plait.connect(plait_broker.address, namespace=f"{plait_broker.namespace}-other") as other,
    ):
        queue = await client.queue("orders")
        await (await other.queue("orders")).publish(b"theirs")
        assert (await queue.backlog()).records == 0
        assert [each.name for each in await client.list()] == ["orders"]
        await other.delete("orders")
