"""The SDK and a real broker: consumers of one subscription share its partitions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice

import anyio
import anyio.abc
import pytest

import plait
from plait.client.group import GroupSubscription
from plait.client.messages import Received
from plait.pytest_plugin import PlaitBroker

PARTITIONS = 6
WAIT_S = 30.0
Place = tuple[int, int]


class Reader:
    """One consumer in a task of its own, that notes what it is given."""

    def __init__(self) -> None:
        self.given: list[Place] = []
        self.subscription: GroupSubscription | None = None
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self.stopping = False

    async def run(self, topic: plait.Topic, everything: list[Received], *, session_s: float = 10) -> None:
        """Read until the scope is cancelled, or until the next message when it is told to stop."""
        try:
            with self.scope:
                subscription = topic.subscribe("billing", group=True, auto_commit_s=0.05, session_s=session_s)
                assert isinstance(subscription, GroupSubscription)
                async with subscription:
                    self.subscription = subscription
                    async for message in subscription:
                        self.given.append((message.partition, message.offset))
                        everything.append(message)
                        if self.stopping:
                            break
        finally:
            self.ended.set()

    @property
    def assigned(self) -> list[int]:
        return self.subscription.assigned if self.subscription is not None else []


async def until(look: Callable[[], bool]) -> None:
    with anyio.fail_after(WAIT_S):
        while not look():  # noqa: ASYNC110 - nothing would set an event
            await anyio.sleep(0.01)


def shared_out(*readers: Reader) -> bool:
    """Whether all partitions are given, and evenly."""
    counts = [len(each.assigned) for each in readers]
    return sum(counts) == PARTITIONS and max(counts) - min(counts) <= 1


@asynccontextmanager
async def publishing(topic: plait.Topic) -> AsyncIterator[list[int]]:
    """Publish all the time, to all partitions; how many of each there are so far."""
    stored = [0] * PARTITIONS

    ending = anyio.Event()

    async def publish() -> None:
        while not ending.is_set():
            for partition in range(PARTITIONS):
                receipt = await topic.publish(b"x", partition=partition)
                stored[partition] = receipt.offset + 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publish)
        yield stored
        ending.set()


async def settle(topic: plait.Topic) -> set[Place]:
    """All places of the topic, now that nobody publishes."""
    ends = (await topic.describe()).details["partitions_detail"]
    return {(each["partition"], offset) for each in ends for offset in range(each["end"])}


async def test_scaling_out_to_three_and_back_skips_nothing_and_doubles_nothing(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as one, plait_broker.connect() as two, anyio.create_task_group() as tasks:
        topic = await one.topic("events", partitions=PARTITIONS)
        again = await two.topic("events", create=False)
        everything: list[Received] = []
        readers = [Reader() for _ in range(3)]
        async with publishing(topic):
            tasks.start_soon(readers[0].run, topic, everything)
            await until(lambda: shared_out(readers[0]))
            tasks.start_soon(readers[1].run, again, everything)
            await until(lambda: shared_out(*readers[:2]))
            tasks.start_soon(readers[2].run, again, everything)
            await until(lambda: shared_out(*readers))
            given = len(everything)
            await until(lambda: len(everything) > given + 100 and all(each.given for each in readers))
            for reader, left in ((readers[0], readers[1:]), (readers[1], readers[2:])):
                reader.stopping = True
                await until(reader.ended.is_set)
                await until(lambda left=left: shared_out(*left))
        whole = await settle(topic)
        await until(lambda: len(everything) >= len(whole))
        await close(readers[2])
        places = [(message.partition, message.offset) for message in everything]
        assert set(places) == whole
        assert len(places) == len(whole)
        for partition in range(PARTITIONS):
            offsets = [offset for number, offset in places if number == partition]
            assert offsets == sorted(offsets)
        tasks.cancel_scope.cancel()


async def close(reader: Reader) -> None:
    """End one that waits."""
    assert reader.subscription is not None
    await reader.subscription.aclose()
    with anyio.fail_after(WAIT_S):
        await reader.ended.wait()


async def test_what_a_member_had_that_died_goes_to_others_after_its_session(plait_broker: PlaitBroker) -> None:
    async with anyio.create_task_group() as tasks, plait_broker.connect() as client:
        topic = await client.topic("events", partitions=PARTITIONS)
        await topic.publish_many([plait.Message(b"%d" % n, key=b"%d" % n) for n in range(500)])
        everything: list[Received] = []
        dying, living = Reader(), Reader()

        async def die(scope: anyio.CancelScope) -> None:
            with scope:
                async with plait_broker.connect() as own:
                    await dying.run(await own.topic("events", create=False), everything, session_s=0.5)

        scope = anyio.CancelScope()
        tasks.start_soon(die, scope)
        await until(lambda: shared_out(dying))
        tasks.start_soon(living.run, topic, everything)
        await until(lambda: shared_out(dying, living))
        assert dying.subscription is not None
        membership = dying.subscription._membership
        assert membership is not None
        membership._closed = True  # it says no last word
        scope.cancel()
        await until(lambda: shared_out(living))
        whole = await settle(topic)
        await until(lambda: {(message.partition, message.offset) for message in everything} >= whole)
        await close(living)
        tasks.cancel_scope.cancel()


async def _leaves_when_it_is_cancelled(plait_broker: PlaitBroker) -> None:
    """`session_s` is far longer than the test waits."""
    async with anyio.create_task_group() as tasks, plait_broker.connect() as client:
        topic = await client.topic("events", partitions=PARTITIONS)
        await topic.publish(b"x")
        cancelled, other = Reader(), Reader()
        scope = anyio.CancelScope()

        async def consume() -> None:
            with scope:
                async with plait_broker.connect() as own:
                    await cancelled.run(await own.topic("events", create=False), [], session_s=300)

        tasks.start_soon(consume)
        await until(lambda: shared_out(cancelled))
        tasks.start_soon(other.run, topic, [])
        await until(lambda: shared_out(cancelled, other))
        scope.cancel()
        await until(lambda: shared_out(other))
        await close(other)


async def test_a_member_that_is_cancelled_leaves(plait_broker: PlaitBroker) -> None:
    await _leaves_when_it_is_cancelled(plait_broker)


def test_a_member_that_is_cancelled_leaves_on_asyncio_too(plait_broker: PlaitBroker) -> None:
    anyio.run(_leaves_when_it_is_cancelled, plait_broker)


async def test_a_partition_is_handed_over_when_the_message_in_hand_is_processed(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events", partitions=2)
        for partition in (0, 1):
            for _ in range(20):
                await topic.publish(b"x", partition=partition)
        calls: list[tuple[str, str, list[int]]] = []

        def hooks(name: str) -> dict[str, object]:
            return {
                "on_assigned": lambda partitions: calls.append((name, "assigned", partitions)),
                "on_revoked": lambda partitions: calls.append((name, "revoked", partitions)),
            }

        first = topic.subscribe("billing", group=True, **hooks("first"))  # type: ignore[arg-type]
        second = topic.subscribe("billing", group=True, **hooks("second"))  # type: ignore[arg-type]
        assert isinstance(first, GroupSubscription)
        assert isinstance(second, GroupSubscription)
        async with first:
            await until(lambda: first.assigned == [0, 1])
            seen = [await anext(first) for _ in range(3)]
            async with second:
                if first._membership is not None:
                    await until(lambda: len(first._membership.partitions) == 1)  # type: ignore[union-attr]
                (kept,) = first._membership.partitions  # type: ignore[union-attr]
                moving = 1 - kept
                while seen[-1].partition == moving:
                    assert second.assigned == []
                    seen.append(await anext(first))
                mine = [message.offset for message in seen if message.partition == moving]
                await until(lambda: second.assigned == [moving])
                await topic.publish(b"more", partition=moving)
                message = await anext(second)
                assert message.partition == moving
                assert message.offset == (mine[-1] + 1 if mine else 0)
                alone = topic.subscribe("billing", auto_commit_s=None)
                with anyio.fail_after(WAIT_S):
                    await anext(alone)
                with pytest.raises(plait.StaleGeneration):  # it is read by a group
                    await alone.commit()
                await alone.aclose()
        assert calls[:3] == [
            ("first", "assigned", [0, 1]),
            ("first", "revoked", [moving]),
            ("second", "assigned", [moving]),
        ]


async def test_a_slow_consumer_gives_up_its_partition_after_a_while(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events", partitions=1)
        await topic.publish_many([b"a", b"b"])
        revoked = anyio.Event()

        def note(partitions: list[int]) -> None:
            revoked.set()

        first = topic.subscribe("billing", group=True, handover_s=0.05, on_revoked=note)
        assert isinstance(first, GroupSubscription)
        async with first:
            assert (await anext(first)).value == b"a"
            assert first._membership is not None
            first._membership.partitions = frozenset()  # as if it had been meant for somebody else
            first._membership._news.set()
            with anyio.fail_after(WAIT_S):
                await revoked.wait()
            assert [(await anext(first)).value for _ in range(2)] == [b"a", b"b"]


async def test_members_come_back_after_a_session_that_was_lost(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events", partitions=2)
        await topic.publish(b"a", partition=0)
        subscription = topic.subscribe("billing", group=True, auto_commit_s=None)
        assert isinstance(subscription, GroupSubscription)
        async with subscription:
            assert (await anext(subscription)).value == b"a"
            assert subscription._membership is not None
            subscription._membership.deadline_s = 0  # its session is over, as far as it knows
            subscription._membership.look()
            assert subscription.assigned == []
            with pytest.raises(plait.StaleGeneration):
                await subscription.commit()
            await until(lambda: subscription.assigned == [0, 1])
            assert (await anext(subscription)).value == b"a"
            await subscription.commit()


async def test_a_group_that_begins_at_the_end_skips_nothing_when_it_changes(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events", partitions=1)
        await topic.publish(b"before")
        async with topic.subscribe("billing", group=True, from_="end", auto_commit_s=None) as first:
            assert isinstance(first, GroupSubscription)
            await until(lambda: first.assigned == [0])
        await topic.publish(b"between")
        async with topic.subscribe("billing", group=True, from_="end", auto_commit_s=None) as second:
            assert (await anext(second)).value == b"between"


async def test_what_cannot_be_joined_says_so(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events")
        with pytest.raises(plait.SettingInvalid):
            topic.subscribe("billing", group=True, partitions=[0])
        with pytest.raises(plait.NameInvalid):
            await anext(topic.subscribe("bad name", group=True))
        with pytest.raises(plait.SettingInvalid):
            await anext(topic.subscribe("billing", group=True, session_s=0.001))
        await topic.delete()
        with pytest.raises(plait.NotFound):
            await anext(topic.subscribe("billing", group=True))


async def test_a_callback_that_fails_is_seen_by_the_loop(plait_broker: PlaitBroker) -> None:
    async def fail(partitions: list[int]) -> None:
        raise RuntimeError("no room")

    async with plait_broker.connect() as client:
        topic = await client.topic("events")
        with pytest.raises(RuntimeError, match="no room"):
            await anext(topic.subscribe("billing", group=True, on_assigned=fail))


async def test_a_subscription_that_is_dropped_leaves(plait_broker: PlaitBroker) -> None:
    async with plait_broker.connect() as client:
        topic = await client.topic("events", partitions=2)
        await topic.publish(b"x")
        async for _ in topic.subscribe("billing", group=True):
            break
        second = topic.subscribe("billing", group=True)
        assert isinstance(second, GroupSubscription)
        async with second:
            await until(lambda: second.assigned == [0, 1])


def test_works_without_a_loop(plait_broker: PlaitBroker) -> None:
    with plait_broker.connect_blocking() as one, plait_broker.connect_blocking() as two:
        topic = one.topic("events", partitions=2)
        again = two.topic("events", create=False)
        topic.publish_many([plait.Message(b"%d" % n, key=b"%d" % n) for n in range(400)])
        with topic.subscribe("billing", group=True) as first:
            places = [(message.partition, message.offset) for message in islice(first, 100)]
        with again.subscribe("billing", group=True) as second:
            places += [(message.partition, message.offset) for message in islice(second, 300)]
        assert len(set(places)) == 400


def test_works_on_asyncio_too(plait_broker: PlaitBroker) -> None:
    async def main() -> list[bytes]:
        async with plait_broker.connect() as client:
            topic = await client.topic("events", partitions=2)
            await topic.publish_many([b"a", b"b"])
            async with topic.subscribe("billing", group=True) as subscription:
                return [(await anext(subscription)).value for _ in range(2)]

    assert sorted(anyio.run(main, backend="asyncio")) == [b"a", b"b"]
