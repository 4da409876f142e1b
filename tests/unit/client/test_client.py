"""The client against a scripted broker: what it promises, above all when the connection does not hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import anyio
import pytest
import trio
import trio.testing

import plait
from plait.client.connection import DEAD_S
from plait.client.outside import Outside
from plait.wire.errors import BatchInvalid, Overloaded, PlaitError
from plait.wire.messages import FEATURE_WAIT, Consume, Create, Publish, Request, Settle
from tests.unit.client.peer import Peer, Verdict


@pytest.fixture
def peer() -> Peer:
    return Peer()


def connect(peer: Peer, deadline_s: float = 30.0) -> plait.connect:
    return plait.connect(
        deadline_s=deadline_s, outside=Outside(peer.connect, Random(1), lambda: 1_700_000_000_000)
    )


def first_of(kind: type[Request], verdict: Verdict) -> Callable[[Request], Verdict]:
    """A script with which the first request of a kind meets its fate."""
    fates: Iterator[Verdict] = iter([verdict])
    return lambda request: next(fates, "carry out") if isinstance(request, kind) else "carry out"


async def test_publishes_and_says_where(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        assert (await queue.publish(b"one")).offset == 0
        receipt = await queue.publish(b"two", key=b"k", headers={"a": b"b"})
        assert (receipt.partition, receipt.offset, receipt.duplicate) == (0, 1, False)
    assert peer.values("orders") == [b"one", b"two"]


async def test_publishes_of_one_turn_share_a_batch(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        offsets = []

        async def publish(number: int) -> None:
            offsets.append((await queue.publish(b"%d" % number)).offset)

        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(publish, number)
    assert sorted(offsets) == list(range(50))
    assert peer.count(Publish) < 5


@pytest.mark.parametrize("fate", ["lose", "mute"])
async def test_a_lost_answer_never_doubles(peer: Peer, fate: str, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish(b"zero")
        peer.script = first_of(Publish, fate)
        receipt = await queue.publish(b"one")
        assert receipt.duplicate is (fate == "mute")
        await queue.publish(b"two")
    assert peer.values("orders") == [b"zero", b"one", b"two"]


async def test_a_pipelined_producer_keeps_its_order_through_broken_connections(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    fates = Random(7)
    async with connect(peer) as client:
        topic = await client.topic("events")
        peer.script = lambda request: (
            fates.choice(["lose", "mute", "carry out", "carry out", Overloaded("full", retry_after_ms=20)])
            if isinstance(request, Publish)
            else "carry out"
        )
        async with topic.producer(batch_bytes=200, linger_ms=1) as producer:
            for number in range(300):
                await producer.send(b"%d" % number)
    assert peer.values("events") == [b"%d" % number for number in range(300)]


async def test_without_idempotence_a_lost_answer_is_said_to_be_unknown(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events")
        producer = topic.producer(idempotent=False)
        peer.script = first_of(Publish, "mute")
        await producer.send(b"one")
        with pytest.raises(plait.OutcomeUnknown):
            await producer.flush()
        await producer.send(b"two")
        await producer.aclose()
    assert peer.values("events") == [b"one", b"two"]


async def test_overloaded_is_waited_out(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        peer.script = first_of(Publish, Overloaded("full", retry_after_ms=5000))
        began_s = trio.current_time()
        await queue.publish(b"one")
        assert trio.current_time() - began_s >= 5


async def test_a_broker_that_knows_how_is_told_to_refuse_well_before_the_deadline(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    peer.features = [FEATURE_WAIT]
    async with connect(peer, deadline_s=10) as client:
        queue = await client.queue("orders")
        peer.script = first_of(Publish, Overloaded("full", retry_after_ms=5_000))
        await queue.publish(b"one")
    waits_ms = [request.wait_ms for request in peer.requests if isinstance(request, Publish)]
    assert len(waits_ms) == 2
    assert 7_000 < waits_ms[0] <= 7_500
    assert 3_000 < waits_ms[1] <= 3_750


async def test_a_broker_that_does_not_is_not_told(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        await (await client.queue("orders")).publish(b"one")
    assert [request.wait_ms for request in peer.requests if isinstance(request, Publish)] == [-1]


async def test_overloaded_beyond_the_deadline_is_raised(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer, deadline_s=3) as client:
        queue = await client.queue("orders")
        peer.script = lambda request: Overloaded("full") if isinstance(request, Publish) else "carry out"
        with pytest.raises(plait.Overloaded):
            await queue.publish(b"one")
    assert peer.values("orders") == []


async def test_an_error_of_a_batch_is_raised_by_the_next_flush_and_the_rest_is_stored(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events")
        peer.script = first_of(Publish, BatchInvalid("bad"))
        producer = topic.producer(batch_bytes=1)
        await producer.send(b"bad")
        with pytest.raises(plait.BatchInvalid):
            await producer.flush()
        await producer.send(b"good")
        await producer.aclose()
    assert peer.values("events") == [b"good"]


async def test_publish_many_waits_for_all(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events", partitions=3)
        messages = [b"plain", plait.Message(b"keyed", key=b"k"), *[b"%d" % number for number in range(100)]]
        assert await topic.publish_many(messages) == 102
    stored = [value for partition in range(3) for value in peer.values("events", partition)]
    assert sorted(stored) == sorted([b"plain", b"keyed", *[b"%d" % number for number in range(100)]])


async def test_records_of_a_key_go_to_one_partition(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events", partitions=8)
        receipts = [await topic.publish(b"x", key=b"same") for _ in range(5)]
    assert len({receipt.partition for receipt in receipts}) == 1


async def test_a_record_over_the_limit_is_refused_before_it_is_sent(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        with pytest.raises(plait.RecordTooLarge):
            await queue.publish(bytes((1 << 20) + 1))
        await queue.publish(bytes(1 << 20))


async def test_text_is_refused_with_advice(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        with pytest.raises(TypeError, match="encode"):
            await queue.publish("text")  # type: ignore[arg-type]  # the point


async def test_no_broker_is_an_error_that_says_so(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    peer.unreachable = True
    with pytest.raises(plait.Unavailable, match=r"127\.0\.0\.1:4150.*nobody listens.*plait serve"):
        await connect(peer).__aenter__()


async def test_an_error_in_the_block_comes_out_as_it_is(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with connect(peer):
            raise ZeroDivisionError


async def test_consumes_and_acknowledges(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish_many([b"%d" % number for number in range(250)])
        seen = []
        async with queue.consume(prefetch=20) as consumer:
            async for message in consumer:
                seen.append(message.value)
                message.ack_soon()
                if len(seen) == 250:
                    break
        assert seen == [b"%d" % number for number in range(250)]
        assert (await queue.backlog()).records == 0
    assert peer.count(Settle) < 100


async def test_ack_waits_for_the_broker(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish(b"one")
        async for message in queue.consume():
            await message.ack()
            break
        assert peer.logs["orders"].acked == {0}


async def test_a_returned_message_comes_again(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish(b"one")
        async for message in queue.consume():
            if message.deliveries == 1:
                await message.nack()
            else:
                await message.ack()
                break
        assert message.deliveries == 2


async def test_leaving_the_block_gives_back_what_is_not_settled(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish_many([b"1", b"2", b"3"])
        async with queue.consume() as consumer:
            async for _ in consumer:
                break
        assert peer.logs["orders"].leased == {}
        assert peer.logs["orders"].acked == set()


async def test_a_dropped_consumer_ends_when_the_message_in_hand_is_settled(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish_many([b"1", b"2", b"3"])
        message = await anext(queue.consume())
        await anyio.sleep(1)
        assert len(peer.logs["orders"].leased) == 3
        await message.ack()
        await anyio.sleep(1)
        assert peer.logs["orders"].leased == {}
        assert peer.logs["orders"].acked == {0}


async def test_a_dropped_consumer_ends_when_its_leases_would(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish(b"1")
        async for _message in queue.consume(lease_s=10):
            break
        await anyio.sleep(11)
        assert peer.logs["orders"].leased == {}


async def test_a_consumer_attaches_again_and_old_leases_are_lost(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish_many([b"1", b"2"])
        values = []
        async with queue.consume() as consumer:
            async for message in consumer:
                values.append(message.value)
                if len(values) == 1:
                    peer.break_all()
                    await anyio.sleep(1)
                    with pytest.raises(plait.LeaseLost):
                        await message.ack()
                    continue
                await message.ack()
                if len(values) == 3:
                    break
    assert values == [b"1", b"1", b"2"]
    assert peer.count(Consume) == 2


async def test_an_acknowledgement_whose_answer_is_lost_has_an_unknown_outcome(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish(b"1")
        async with queue.consume() as consumer:
            async for message in consumer:
                peer.script = first_of(Settle, "lose")
                with pytest.raises(plait.OutcomeUnknown):
                    await message.ack()
                break


async def test_flush_tells_of_acknowledgements_that_came_too_late(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish_many([b"1", b"2"])
        async with queue.consume() as consumer:
            async for message in consumer:
                peer.logs["orders"].leased.clear()
                message.ack_soon()
                with pytest.raises(plait.LeaseLost):
                    await consumer.flush()
                await consumer.flush()
                break


async def test_leases_are_extended_while_a_message_is_processed(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish(b"1")
        async with queue.consume(lease_s=3) as consumer:
            async for message in consumer:
                await anyio.sleep(30)
                await message.ack()
                break
    extensions = [each for each in peer.requests if isinstance(each, Settle) and each.action == "extend"]
    assert len(extensions) >= 9
    assert all(each.extend_ms == 3000 for each in extensions)


async def test_replays_to_the_end(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events", partitions=2)
        await topic.publish_many([plait.Message(b"%d" % number, key=b"%d" % number) for number in range(100)])
        seen = [message.value async for message in topic.read(to_end=True)]
        assert sorted(seen) == sorted(b"%d" % number for number in range(100))
        [first] = [message async for message in topic.read(partition=0, from_=3, to_end=True)][:1]
        assert first.offset == 3


async def test_reading_goes_on_where_it_was_after_a_lost_connection(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events")
        for number in range(20):
            await topic.publish(b"%d" % number)
        seen = []
        async for message in topic.read():
            seen.append(message.value)
            if len(seen) % 5 == 0:
                peer.break_all()
            if len(seen) == 20:
                break
    assert seen == [b"%d" % number for number in range(20)]


async def test_a_subscription_goes_on_where_it_was_committed(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events")
        await topic.publish_many([b"%d" % number for number in range(10)])
        async with topic.subscribe("billing", auto_commit_s=None) as subscription:
            async for message in subscription:
                if message.offset == 3:
                    await subscription.commit()
                if message.offset == 6:
                    break
        assert peer.committed["billing", "events"] == {0: 4}
        async with topic.subscribe("billing") as subscription:
            assert await subscription.lag() == {0: 6}
            async for message in subscription:
                assert message.offset == 4
                break
        assert peer.committed["billing", "events"] == {0: 5}


async def test_what_failed_in_the_block_is_not_committed(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events")
        await topic.publish_many([b"0", b"1", b"2"])

        async def fail_at_the_second() -> None:
            async with topic.subscribe("billing") as subscription:
                async for message in subscription:
                    if message.offset == 1:
                        raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail_at_the_second()
        assert peer.committed["billing", "events"] == {0: 1}


async def test_processed_messages_are_committed_now_and_then(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events")
        await topic.publish_many([b"0", b"1", b"2"])
        async with topic.subscribe("billing", auto_commit_s=1) as subscription:
            async for message in subscription:
                await anyio.sleep(1.5)
                if message.offset == 2:
                    break
            assert peer.committed["billing", "events"] == {0: 2}


async def test_what_was_committed_in_hand_is_not_taken_back_by_the_timer(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events")
        await topic.publish_many([b"0", b"1", b"2"])
        async with topic.subscribe("billing", auto_commit_s=1) as subscription:
            async for message in subscription:
                if message.offset == 1:
                    await subscription.commit()
                    await anyio.sleep(1.5)
                    break
            assert peer.committed["billing", "events"] == {0: 2}


async def test_seek_goes_back(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        topic = await client.topic("events")
        await topic.publish_many([b"0", b"1", b"2"])
        offsets = []
        async with topic.subscribe("billing") as subscription:
            async for message in subscription:
                offsets.append(message.offset)
                if offsets == [0, 1, 2]:
                    await subscription.seek(1)
                if len(offsets) == 5:
                    break
    assert offsets == [0, 1, 2, 1, 2]
    assert peer.committed["billing", "events"] == {0: 3}


async def test_requests_wait_for_the_connection_and_then_give_up(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer, deadline_s=10) as client:
        await client.queue("orders")
        peer.unreachable = True
        peer.break_all()
        await anyio.sleep(1)
        with pytest.raises(plait.Unavailable):
            await client.describe("orders")
        peer.unreachable = False
        assert (await client.describe("orders")).name == "orders"


async def test_a_consumer_without_a_connection_gives_up_at_the_deadline(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer, deadline_s=10) as client:
        queue = await client.queue("orders")
        async with queue.consume() as consumer:
            peer.unreachable = True
            peer.break_all()
            began_s = trio.current_time()
            with pytest.raises(plait.Unavailable):
                await anext(consumer)
            assert trio.current_time() - began_s == pytest.approx(10, abs=1)


async def test_a_half_open_connection_is_found_out(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish(b"one")
        first = peer.streams[0]
        peer.script = lambda request: "ignore" if first in peer.streams else "carry out"
        began_s = trio.current_time()
        receipt = await queue.publish(b"two")
        assert receipt.offset == 1
        assert DEAD_S <= trio.current_time() - began_s < DEAD_S + 5


async def test_a_full_buffer_makes_send_wait_and_holds_no_more(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    sent = 0
    async with connect(peer, deadline_s=1000) as client, anyio.create_task_group() as tasks:
        topic = await client.topic("events")
        peer.unreachable = True
        peer.break_all()

        async def produce() -> None:
            nonlocal sent
            async with topic.producer(batch_bytes=1_000, buffer_bytes_max=10_000) as producer:
                for _ in range(1000):
                    await producer.send(bytes(88))
                    sent += 1

        tasks.start_soon(produce)
        await anyio.sleep(60)
        assert 90 <= sent <= 110
        peer.unreachable = False
    assert len(peer.values("events")) == 1000


async def test_a_publish_without_a_connection_gives_up_at_the_deadline(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer, deadline_s=10) as client:
        queue = await client.queue("orders")
        peer.unreachable = True
        peer.break_all()
        began_s = trio.current_time()
        with pytest.raises(plait.TimedOut):
            await queue.publish(b"one")
        assert trio.current_time() - began_s == pytest.approx(10, abs=0.1)
        peer.unreachable = False
        assert (await queue.publish(b"two")).offset == 0


async def test_leaving_a_consumer_does_not_raise_what_comes_again_anyway(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        queue = await client.queue("orders")
        await queue.publish(b"one")
        async with queue.consume() as consumer:
            message = await anext(consumer)
            peer.break_all()
            await anyio.sleep(1)
            message.ack_soon()
    assert peer.logs["orders"].acked == set()


async def test_closing_the_client_ends_its_iterators(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    errors: list[PlaitError] = []

    async def consume(queue: plait.Queue) -> None:
        try:
            await anext(queue.consume())
        except PlaitError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks, connect(peer) as client:
        tasks.start_soon(consume, await client.queue("orders"))
        await anyio.sleep(1)
    assert [type(error) for error in errors] == [plait.Closed]


async def test_cancelling_the_block_is_quick_and_clean(peer: Peer, autojump_clock: trio.testing.MockClock) -> None:
    with anyio.move_on_after(5) as scope:
        async with connect(peer) as client:
            queue = await client.queue("orders")
            async with queue.consume() as consumer:
                await anext(consumer)
    assert scope.cancelled_caught


async def test_creating_is_asked_for_only_when_it_is_missing(
    peer: Peer, autojump_clock: trio.testing.MockClock
) -> None:
    async with connect(peer) as client:
        with pytest.raises(plait.NotFound):
            await client.queue("orders", create=False)
        await client.queue("orders")
        await client.queue("orders")
        assert peer.count(Create) == 1
        with pytest.raises(plait.WrongKind):
            await client.topic("orders")
        await client.delete("orders")
        assert await client.list() == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_works_on_both_event_loops(peer: Peer, backend: str) -> None:
    async def main() -> list[bytes]:
        async with connect(peer) as client:
            queue = await client.queue("orders")
            await queue.publish_many([b"1", b"2"])
            seen = []
            async for message in queue.consume():
                seen.append(message.value)
                await message.ack()
                if len(seen) == 2:
                    return seen
        return []

    assert anyio.run(main, backend=backend) == [b"1", b"2"]
