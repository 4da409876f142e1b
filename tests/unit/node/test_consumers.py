"""Deliveries whose records have to be read from disk first."""

from __future__ import annotations

from typing import cast

import trio
import trio.testing

from node.consumers import Consumer, Consumers, Grant, LeasedRun
from node.entries import Command
from node.source import RecordSource
from node.state import QUEUE_SUBSCRIPTION, PartitionState
from plait.wire.errors import PlaitError, StorageDamaged
from replication.storage.log import GroupLog
from tests.unit.node.memory_log import MemoryLog, batch_entry, command_entry
from tests.unit.node.test_readers import NurseryTasks


class Queue:
    """A queue of six records in three batches, its consumers, and a log that is cold until told otherwise."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.log = MemoryLog([batch_entry(at + 1, at * 2, b"a", b"b") for at in range(3)])
        self.log.hot_from = 6
        self.state = PartitionState(is_queue=True)
        for entry in self.log.entries:
            self.state.apply(entry)
        self.index = 3
        self.consumers = Consumers("jobs/0", RecordSource(cast(GroupLog, self.log)), NurseryTasks(nursery))
        self.got: dict[str, list[int]] = {}
        self.ended: dict[str, PlaitError] = {}

    def consumer(self, name: str, prefetch: int = 10) -> Consumer:
        offsets = self.got.setdefault(name, [])

        def deliver(runs: list[LeasedRun]) -> None:
            for leased in runs:
                offsets.extend(range(leased.run.first_offset, leased.run.last_offset + 1))

        def gone(error: PlaitError) -> None:
            self.ended[name] = error

        consumer = Consumer(name, QUEUE_SUBSCRIPTION, prefetch, 100, deliver, gone)
        self.consumers.add(consumer, self.state.shared[QUEUE_SUBSCRIPTION])
        return consumer

    def command(self, command: list[object], stamp_ms: int = 1) -> object:
        self.index += 1
        return self.state.apply(command_entry(self.index, stamp_ms, command))[0]

    def lease(self, grant: Grant) -> int:
        command = [Command.LEASE, QUEUE_SUBSCRIPTION, grant.consumer.consumer_id, 100, grant.ranges]
        lease_id, runs = cast("tuple[int, list[tuple[int, int, int]]]", self.command(command))
        self.consumers.leased(grant, lease_id, runs)
        return lease_id

    def choose(self) -> list[Grant]:
        return self.consumers.choose(self.state.next_offset, 100)


async def test_cold_records_come_in_order_and_to_whom_they_were_leased(nursery: trio.Nursery) -> None:
    queue = Queue(nursery)
    queue.consumer("1.1.1", prefetch=3)
    queue.consumer("1.1.2", prefetch=3)
    for grant in queue.choose():
        queue.lease(grant)
    assert queue.got == {"1.1.1": [], "1.1.2": []}
    await trio.testing.wait_all_tasks_blocked()
    assert queue.got == {"1.1.1": [0, 1, 2], "1.1.2": [3, 4, 5]}
    assert queue.choose() == [], "both hold as much as they may"


async def test_a_lease_that_ended_before_its_records_were_read_harms_nobody(nursery: trio.Nursery) -> None:
    queue = Queue(nursery)
    queue.consumer("1.1.1")
    (grant,) = queue.choose()
    queue.lease(grant)
    queue.command([Command.DUE], stamp_ms=1_000)
    shared = queue.state.shared[QUEUE_SUBSCRIPTION]
    shared.drop(1_000, 3)
    del queue.log.entries[:2]  # done by somebody else, and deleted from the disk
    await trio.testing.wait_all_tasks_blocked()
    assert queue.ended == {}
    (again,) = queue.choose()
    queue.lease(again)
    await trio.testing.wait_all_tasks_blocked()
    assert queue.got == {"1.1.1": [4, 5]}


async def test_damage_ends_the_consumer_that_meets_it_and_the_others_go_on(nursery: trio.Nursery) -> None:
    queue = Queue(nursery)
    queue.consumer("1.1.1", prefetch=4)
    (grant,) = queue.choose()
    queue.lease(grant)
    queue.log.damaged = True
    queue.log.hot_from = 4
    await trio.testing.wait_all_tasks_blocked()
    assert isinstance(queue.ended["1.1.1"], StorageDamaged)
    queue.consumer("1.1.2", prefetch=4)
    (other,) = queue.choose()
    queue.lease(other)
    await trio.testing.wait_all_tasks_blocked()
    assert queue.got == {"1.1.1": [], "1.1.2": [4, 5]}


async def test_who_leaves_while_records_are_read_gets_none(nursery: trio.Nursery) -> None:
    queue = Queue(nursery)
    consumer = queue.consumer("1.1.1")
    (grant,) = queue.choose()
    queue.lease(grant)
    queue.consumers.remove(consumer)
    await trio.testing.wait_all_tasks_blocked()
    assert (queue.got, queue.ended) == ({"1.1.1": []}, {})
    assert not queue.consumers


async def test_a_grant_that_is_not_proposed_gives_its_credit_and_records_back(nursery: trio.Nursery) -> None:
    queue = Queue(nursery)
    consumer = queue.consumer("1.1.1", prefetch=4)
    (grant,) = queue.choose()
    assert (consumer.reserved, queue.choose()) == (4, [])
    queue.consumers.not_leased(grant)
    assert consumer.reserved == 0
    assert [again.ranges for again in queue.choose()] == [[(0, 3)]]


async def test_records_are_shared_out_and_the_turn_goes_round(nursery: trio.Nursery) -> None:
    queue = Queue(nursery)
    queue.log.hot_from = 0
    for name in ("1.1.1", "1.1.2", "1.1.3"):
        queue.consumer(name)
    for grant in queue.consumers.choose(1, 100):
        queue.lease(grant)
    for grant in queue.consumers.choose(2, 100):
        queue.lease(grant)
    for grant in queue.consumers.choose(6, 100):
        queue.lease(grant)
    assert queue.got["1.1.3"] == [2, 3]
    assert sorted(offset for got in queue.got.values() for offset in got) == [0, 1, 2, 3, 4, 5]
