"""Segment files go when nothing in them is needed, and are rewritten when little is."""

from __future__ import annotations

from random import Random

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from replication.machine import Range
from replication.storage.ranges import touches
from tests.sim.crash import Survival
from tests.sim.disk import SimDisk
from tests.sim.faults import Operation, OperationKind
from tests.unit.storage.world import (
    Source,
    append,
    batches,
    delete,
    fill_file,
    killed,
    new_disk,
    opened,
    replayed,
)


def segments(disk: SimDisk) -> list[str]:
    return [name for name in disk.names() if name.startswith("segments/")]


async def test_a_file_without_live_entries_is_unlinked(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(source)
        await fill_file(store, log)
        source.index, source.live = log.last_index, [(0, 10_000)]
        await fill_file(store, log)
        covered = log.parts[0].last_index
        assert len(segments(disk)) == 2
        await store.tidy()
        assert len(segments(disk)) == 2
        log.retain([(10 * covered + 10, 10_000)])
        await store.tidy()
        assert len(segments(disk)) == 1
        assert [e.index for e in await log.read_marks(0, 1)] == [covered + 1]


async def test_what_no_snapshot_covers_stays_even_if_no_mark_is_live(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await fill_file(store, log)
        log.retain([])
        await store.tidy()
        assert len(segments(disk)) == 1


async def test_a_mostly_dead_file_is_rewritten_with_what_lives(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(source)
        await append(log, batches(1, 200, 2_000))
        await store.flush()
        source.index, source.live = 200, [(0, 10_000)]
        await fill_file(store, log)
        before = store.statistics().segment_bytes
        log.retain([(505, 505), (2_010, 10_000)])
        await store.tidy()
        assert store.statistics().segment_files_rewritten > 0
        assert store.statistics().segment_bytes < before / 2
        assert [e.index for e in await log.read_marks(0, 1)] == [50]
        assert [e.index for e in await log.read_marks(510, 1)] == [201]
        last = log.last_index
    async with opened(killed(disk)) as store:
        log = store.log(1)
        assert [e.index for e in await log.read_marks(0, 1)] == [50]
        assert (log.last_index, log.damage) == (last, None)


async def test_a_crash_anywhere_in_compaction_loses_nothing(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    moments: list[SimDisk] = []
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(source)
        await append(log, batches(1, 200, 2_000))
        source.index, source.live = 200, [(0, 10_000)]
        await store.flush()
        await fill_file(store, log)
        log.retain([(505, 505), (1_000, 1_009), (2_010, 10_000)])
        changing = {OperationKind.WRITE, OperationKind.SYNC, OperationKind.RENAME, OperationKind.UNLINK}
        changing |= {OperationKind.CREATE, OperationKind.SYNC_FOLDER}

        def before(operation: Operation) -> None:
            if operation.kind in changing and "seg" in operation.name:
                moments.append(disk.copy(Random(0)))

        disk.before = before
        await store.tidy()
        disk.before = lambda operation: None
        last = log.last_index
    assert len(moments) > 5
    for number, moment in enumerate(moments):
        for survival in Survival:
            async with opened(moment.copy(Random(0)).crash(survival, Random(number))) as store:
                log = store.log(1)
                assert (log.damage, log.last_index) == (None, last)
                log.retain([(505, 505), (1_000, 1_009), (2_010, 10_000)])
                for _ in range(2):
                    assert [e.index for e in await log.read_marks(505, 1)] == [50]
                    assert [e.index for e in await log.read_marks(1_005, 1)] == [100]
                    await store.tidy()


async def test_many_small_files_become_one(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log, busy = store.create(1), store.create(2)
        busy.attach(source)
        for _ in range(20):
            await append(log, batches(log.last_index + 1, log.last_index + 1, 200))
            await append(busy, batches(busy.last_index + 1, busy.last_index + 5))
            source.index, source.live = busy.last_index, ()
            await fill_file(store, busy)
            source.index = busy.last_index
        await store.tidy()
        await store.tidy()
        assert len(segments(disk)) < 5
        found = []
        await log.replay(0, found.extend)
        assert [entry.index for entry in found] == list(range(1, 21))
    async with opened(killed(disk)) as store:
        found = []
        await store.log(1).replay(0, found.extend)
        assert [entry.index for entry in found] == list(range(1, 21))


async def test_a_deleted_groups_files_go(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        other = store.create(2)
        await fill_file(store, log)
        await delete(store, 1)
        await store.tidy()
        assert segments(disk) == []
        await append(other, batches(1, 1))
        await fill_file(store, other)
        await fill_file(store, other)
    async with opened(killed(disk)) as store:
        assert store.groups() == [2]


async def test_files_of_a_group_stay_until_its_deletion_is_durable(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await fill_file(store, log)
        last = log.last_index
        disk.latency_ns = lambda operation: 3_600_000_000_000 if operation.kind is OperationKind.SYNC else 0
        store.delete(1, lambda error: None)
        await store.tidy()
        before_sync = disk.copy(Random(0))
    async with opened(before_sync.crash(Survival.NOTHING, Random(0))) as store:
        assert len(await replayed(store.log(1))) == last


async def test_a_file_that_is_being_read_is_unlinked_afterwards(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(source)
        await fill_file(store, log)
        source.index, source.live = log.last_index, [(0, 10_000)]
        await fill_file(store, log)
        async with trio.open_nursery() as nursery:
            read: list[int] = []

            async def reading() -> None:
                read.extend(entry.index for entry in await log.read_marks(0, 1))

            nursery.start_soon(reading)
            await wait_all_tasks_blocked()
            log.retain([(10_000, 10_000)])
            await store.tidy()
        assert read == [1]
        await store.tidy()
        assert len(segments(disk)) == 1


RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=8)


@given(RANGES, st.integers(0, 60), st.integers(0, 20))
def test_touches_is_what_it_says(drawn: list[tuple[int, int]], first: int, length: int) -> None:
    marks = sorted({mark for start, count in drawn for mark in range(start, start + count)})
    ranges: list[Range] = []
    for mark in marks:
        if ranges and ranges[-1][1] == mark - 1:
            ranges[-1] = (ranges[-1][0], mark)
        else:
            ranges.append((mark, mark))
    assert touches(ranges, first, first + length) == any(first <= mark <= first + length for mark in marks)


async def test_a_round_during_a_flush_takes_nothing_that_the_flush_has_just_written(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with opened(disk) as store, trio.open_nursery() as nursery:

        async def tidy_all_the_time() -> None:
            while True:
                await store.tidy()
                await trio.sleep(0.0001)

        nursery.start_soon(tidy_all_the_time)
        logs = [store.create(group) for group in range(1, 4)]
        for _ in range(3):
            for log in logs:
                await append(log, batches(log.last_index + 1, log.last_index + 4, 1_000))
            await fill_file(store, logs[0])
        for log in logs:
            assert len(await replayed(log)) == log.last_index
        nursery.cancel_scope.cancel()
