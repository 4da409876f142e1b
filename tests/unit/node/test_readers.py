"""Fetches and searches whose records have to be read from disk, while other things happen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import pytest
import trio

from node.entries import Command
from node.readers import Fetch, Locate, Readers
from node.state import PartitionState
from plait.wire.errors import OffsetOutOfRange, StorageDamaged
from replication.storage.log import GroupLog
from tests.unit.node.memory_log import MemoryLog, batch_entry, command_entry

T = TypeVar("T")


class NurseryTasks:
    """Tasks in the test's own nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def spawn(self, name: str, run: Callable[..., Awaitable[Any]], *args: Any) -> None:
        self._nursery.start_soon(run, *args, name=name)

    async def offload(self, lane: str, work: Callable[[], T]) -> T:
        return work()


def readers_of(nursery: trio.Nursery) -> tuple[Readers, PartitionState, MemoryLog]:
    """A topic of three batches of two records each, none of them in memory."""
    log = MemoryLog([batch_entry(at + 1, at * 2, b"a", b"b") for at in range(3)])
    log.hot_from = 6
    state = PartitionState(is_queue=False)
    for entry in log.entries:
        state.apply(entry)
    return Readers("events/0", state, cast(GroupLog, log), NurseryTasks(nursery)), state, log


async def test_a_fetch_from_disk_gives_whole_batches_and_says_where_to_go_on(nursery: trio.Nursery) -> None:
    readers, _, log = readers_of(nursery)
    request = Fetch(1, 1, 0)
    readers.fetch(request, 0)
    fetched = await request.promise.wait()
    assert (fetched.next_offset, len(fetched.batches), log.reads) == (2, 1, 1)


async def test_what_is_trimmed_while_it_is_read_is_out_of_range_and_no_silent_gap(nursery: trio.Nursery) -> None:
    readers, state, log = readers_of(nursery)
    request = Fetch(1, 1 << 20, 0)
    readers.fetch(request, 0)
    state.apply(command_entry(4, 1, [Command.TRIM, 4]))
    del log.entries[:2]
    with pytest.raises(OffsetOutOfRange):
        await request.promise.wait()


async def test_what_is_not_committed_is_not_given(nursery: trio.Nursery) -> None:
    readers, _, log = readers_of(nursery)
    log.entries.append(batch_entry(4, 6, b"proposed"))
    for request in (Fetch(4, 1 << 20, 0), Fetch(6, 1 << 20, 0)):
        readers.fetch(request, 0)
        fetched = await request.promise.wait()
        assert (fetched.next_offset, fetched.end_offset) == (6, 6)


async def test_damage_is_told_to_whoever_meets_it(nursery: trio.Nursery) -> None:
    readers, _, log = readers_of(nursery)
    log.damaged = True
    fetch, locate = Fetch(0, 1, 0), Locate(1_000)
    readers.fetch(fetch, 0)
    readers.locate(locate)
    for promise in (fetch.promise, locate.promise):
        with pytest.raises(StorageDamaged):
            await promise.wait()


async def test_a_search_begins_at_the_start_of_what_is_kept(nursery: trio.Nursery) -> None:
    readers, state, _ = readers_of(nursery)
    state.apply(command_entry(4, 1, [Command.TRIM, 3]))
    request = Locate(0)
    readers.locate(request)
    located = await request.promise.wait()
    assert (located.offset, located.start, located.end) == (3, 3, 6)


async def test_fetches_that_wait_end_empty_in_the_order_of_their_deadlines(nursery: trio.Nursery) -> None:
    readers, _, _ = readers_of(nursery)
    late, early = Fetch(6, 1, 20), Fetch(6, 1, 10)
    readers.fetch(late, 0)
    readers.fetch(early, 0)
    assert readers.next_deadline_ns == 10_000_000
    for request in readers.expired(10_000_000):
        readers.give_up(request)
    assert readers.next_deadline_ns == 20_000_000
    assert (early.promise.done, late.promise.done) == (True, False)
    readers.fail(StorageDamaged("gone"))
    assert isinstance(late.promise.error, StorageDamaged)


async def test_only_what_cannot_be_taken_back_is_certain_without_asking_the_group(nursery: trio.Nursery) -> None:
    readers, state, _ = readers_of(nursery)
    state.apply(command_entry(4, 1, [Command.TRIM, 2]))
    assert readers.is_certain(Fetch(2, 1, 0)), "a committed record"
    assert readers.is_certain(Fetch(6, 1, 100)), "it waits, and is told nothing"
    assert not readers.is_certain(Fetch(6, 1, 0)), "that this is the end"
    assert not readers.is_certain(Fetch(7, 1, 100)), "that this is behind the end"
    assert not readers.is_certain(Fetch(1, 1, 100)), "that this is gone"


async def test_what_comes_after_the_time_was_over_is_given_after_all(nursery: trio.Nursery) -> None:
    readers, state, log = readers_of(nursery)
    request = Fetch(6, 1000, 10)
    readers.fetch(request, 0)
    assert readers.expired(10_000_000) == [request]
    log.entries.append(batch_entry(5, 6, b"late"))
    state.apply(log.entries[-1])
    readers.give_up(request)
    assert (await request.promise.wait()).next_offset == 7


async def test_what_was_not_committed_when_the_log_was_read_is_not_given_though_it_is_by_then(
    nursery: trio.Nursery,
) -> None:
    readers, state, log = readers_of(nursery)
    log.entries.append(batch_entry(4, 6, b"of a leader that was"))
    request = Fetch(4, 1 << 20, 0)
    readers.fetch(request, 0)
    state.apply(batch_entry(4, 6, b"of the next leader"))
    fetched = await request.promise.wait()
    assert (fetched.next_offset, len(fetched.batches)) == (6, 1)
