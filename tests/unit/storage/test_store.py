"""A store keeps what it has confirmed: over restarts, flushes, deletions and failing disks."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from replication.machine import KIND_MEMBERSHIP, Checkpoint, Entry
from replication.real import real_environment
from replication.run import Run
from replication.storage.damage import Damage, StorageFailed, StorageLocked
from replication.storage.format import HardState
from replication.storage.store import Store
from tests.sim.crash import Survival
from tests.sim.disk import SimDisk
from tests.sim.environment import sim_environment
from tests.sim.faults import Fault, FaultKind, Operation, OperationKind, PlannedFaults
from tests.sim.run import run_sim
from tests.unit.storage.world import (
    TINY,
    Source,
    append,
    batch,
    batches,
    delete,
    fill_file,
    killed,
    new_disk,
    opened,
    plain,
    replayed,
    truncate,
)


async def test_what_was_confirmed_is_there_after_the_power_went(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(5)
        await append(log, batches(1, 20), HardState(3, 1))
    async with opened(disk.crash(Survival.NOTHING, Random(0))) as store:
        log = store.log(5)
        assert store.groups() == [5]
        assert (log.hard_state, log.last_index, log.last_term, log.damage) == (HardState(3, 1), 20, 1, None)
        assert await replayed(log) == plain(batches(1, 20))


async def test_reads_see_an_append_at_once_and_its_confirmation_comes_when_it_is_synced(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        order: list[int] = []
        for index in (1, 2, 3):
            log.append([batch(index)], None, lambda error, index=index: order.append(index))
        assert log.last_index == 3
        assert plain(log.cached(2, 10_000)) == plain(batches(2, 3))
        assert order == []
        await append(log, [])
        assert order == [1, 2, 3]


async def test_what_was_appended_last_is_given_as_it_came_until_the_writer_takes_it(
    autojump_clock: MockClock,
) -> None:
    async with opened(new_disk()) as store:
        log = store.create(1)
        first, second = Run(batches(1, 2)), Run(batches(3, 4))
        log.append(first, None, lambda error: None)
        assert log.cached(1, 10_000) is first
        log.append(second, None, lambda error: None)
        assert log.cached(3, 10_000) is second
        assert plain(log.cached(1, 10_000)) == plain(batches(1, 4))
        assert plain(log.cached(4, 10_000)) == plain([batch(4)])
        assert plain(log.cached(3, 1)) == plain([batch(3)])
        log.append(batches(5, 5), None, lambda error: None)
        assert plain(log.cached(3, 10_000)) == plain(batches(3, 5))
        await append(log, Run(batches(6, 6)))
        assert plain(log.cached(6, 10_000)) == plain([batch(6)])


async def test_what_was_cut_off_is_not_given_as_what_was_appended_last(autojump_clock: MockClock) -> None:
    async with opened(new_disk()) as store:
        log = store.create(1)
        log.append(Run(batches(1, 3)), None, lambda error: None)
        log.truncate_after(1, lambda error: None)
        assert plain(log.cached(1, 10_000)) == plain([batch(1)])
        log.append(Run([batch(2, term=2)]), None, lambda error: None)
        assert plain(log.cached(1, 10_000)) == plain([batch(1), batch(2, term=2)])


async def test_many_appends_share_one_sync(autojump_clock: MockClock) -> None:
    async with opened(new_disk()) as store:
        log = store.create(1)
        await append(log, [batch(1)])
        before = store.statistics().wal_syncs
        for index in range(2, 102):
            log.append([batch(index)], None, lambda error: None)
        await append(log, [])
        assert store.statistics().wal_syncs <= before + 2


async def test_what_a_checkpoint_makes_needless_is_not_written_again(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(source)
        await append(log, batches(1, 10))
        source.index, source.live = 10, [(35, 35), (80, 95)]
        await fill_file(store, log)
        assert log.snapshot_index == 10
        assert [e.index for e in await log.read_marks(0, 1)] == [3]
        assert [e.index for e in await log.read_marks(40, 150)] == [8, 9]
        assert await log.read(1, 100) == []
        last = log.last_index
    async with opened(killed(disk)) as store:
        log = store.log(1)
        assert await log.load_snapshot() == (10, 1, b"state")
        assert (log.first_index, log.last_index) == (11, last)
        assert [row[0] for row in await replayed(log, 10)] == list(range(11, last + 1))
        assert [e.index for e in await log.read_marks(0, 1)] == [3]
        assert log.term_at(10) == 1
        assert log.term_at(9) is None


async def test_groups_without_a_source_keep_everything_over_a_flush(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, [], HardState(2, 2))
        await fill_file(store, log)
        await fill_file(store, log)
        last = log.last_index
    async with opened(killed(disk)) as store:
        log = store.log(1)
        assert log.hard_state == HardState(2, 2)
        assert [row[0] for row in await replayed(log)] == list(range(1, last + 1))


async def test_a_truncated_suffix_does_not_come_back(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await fill_file(store, log)
        flushed = log.last_index
        await truncate(log, 5)
        await append(log, batches(6, 8, term=2))
        expected = plain(batches(1, 5, 1_000) + batches(6, 8, term=2))
        assert flushed > 8
        assert await replayed(log) == expected
    disk = killed(disk)
    async with opened(disk) as store:
        log = store.log(1)
        assert await replayed(log) == expected
        assert [log.term_at(index) for index in (5, 6, 8, 9)] == [1, 2, 2, None]
        await fill_file(store, log)
        last = log.last_index
    async with opened(killed(disk)) as store:
        log = store.log(1)
        assert (await replayed(log))[:8] == expected
        assert log.last_index == last
        assert plain(await log.read_marks(75, 1)) == expected[6:7]


async def test_a_deleted_group_stays_deleted_whatever_files_still_have_of_it(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        gone, stays = store.create(1), store.create(2)
        await append(gone, batches(1, 10))
        await fill_file(store, stays)
        await append(gone, batches(11, 12))
        await delete(store, 1)
        assert store.groups() == [2]
        with pytest.raises(KeyError):
            store.log(1)
    disk = killed(disk)
    async with opened(disk) as store:
        assert store.groups() == [2]
        for _ in range(3):
            await fill_file(store, store.log(2))
            await store.tidy()
    async with opened(killed(disk)) as store:
        assert store.groups() == [2]
        assert store.log(2).damage is None


async def run_into(disk: SimDisk, fault: Fault) -> list[Exception | None]:
    """Append until the disk fails; all the answers."""
    answers: list[Exception | None] = []

    async def life() -> None:
        async with trio.open_nursery() as nursery:
            store = await Store.open(sim_environment(nursery, 1, disk).environment, TINY)
            nursery.start_soon(store.run)
            log = store.create(1)
            await append(log, [batch(1)])
            disk.faults = PlannedFaults([fault])
            try:
                while True:
                    log.append(batches(log.last_index + 1, log.last_index + 5, 1_000), None, answers.append)
                    await append(log, [])
            except StorageFailed:
                operations = disk.operations
                log.append([batch(log.last_index + 1)], None, answers.append)
                assert disk.operations == operations
                await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await life()
    (failed,) = caught.value.exceptions
    assert isinstance(failed, StorageFailed)
    assert isinstance(failed.__cause__, OSError)
    assert failed.__cause__.errno == errno.EIO
    return answers


async def test_a_failed_sync_ends_everything_and_is_never_tried_again(autojump_clock: MockClock) -> None:
    answers = await run_into(new_disk(), Fault(0, FaultKind.IO_ERROR, only=OperationKind.SYNC, name="wal"))
    refused = [answer for answer in answers if answer is not None]
    assert len(refused) >= 2
    assert answers[-len(refused) :] == refused


@pytest.mark.parametrize("fault", [OperationKind.SYNC, OperationKind.WRITE])
async def test_a_failed_sync_fences_every_group(fault: OperationKind, autojump_clock: MockClock) -> None:
    disk = new_disk()
    answers: dict[int, list[Exception | None]] = {group: [] for group in range(1, 6)}
    ended = trio.Event()

    async def run(store: Store) -> None:
        with pytest.raises(StorageFailed):
            await store.run()
        ended.set()

    async with opened(disk, run=False) as store, trio.open_nursery() as nursery:
        nursery.start_soon(run, store)
        for group in answers:
            await append(store.create(group), [batch(1)])
        disk.faults = PlannedFaults([Fault(0, FaultKind.IO_ERROR, only=fault, name="wal/0000")])
        for group, heard in answers.items():  # group 1 is on its way to the disk, the others wait behind it
            store.log(group).append([batch(2)], None, heard.append)
            await trio.lowlevel.checkpoint()
        await ended.wait()
        operations = disk.operations
        for group, heard in answers.items():
            store.log(group).append([batch(3)], HardState(9, 9), heard.append)
            store.log(group).truncate_after(1, heard.append)
        store.delete(5, answers[5].append)
        assert disk.operations == operations
    for group, heard in answers.items():
        assert len(heard) == (4 if group == 5 else 3)
        assert all(isinstance(error, StorageFailed) for error in heard)
    async with opened(killed(disk)) as store:
        for group in answers:
            assert store.log(group).last_index in (1, 2)
            assert store.log(group).damage is None


async def test_memberships_are_found_in_segments_and_memory(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        kinds = {4: KIND_MEMBERSHIP, 9: 7, 20: KIND_MEMBERSHIP, 33: KIND_MEMBERSHIP, 34: 7}

        async def found() -> list[int]:
            return [entry.index for entry in await log.memberships()]

        def entry(index: int) -> Entry:
            return Entry(index, 1, kinds[index], 10 * index, 0, b"x") if index in kinds else batch(index)

        await append(log, [entry(index) for index in range(1, 31)])
        await log.snapshot_now()
        await append(log, [entry(index) for index in range(31, 41)])
        assert await found() == [4, 20, 33]
        log.attach(source)
        source.index, source.live = 10, [(0, 10_000)]
        await log.snapshot_now()
        assert await found() == [20, 33]
        log.damaged(Damage("a segment", 0, "rot", 12, 33, lost=False))
        assert await found() == []
        log.damages[:] = [Damage("a segment", 0, "rot", 12, 19, lost=False)]
        assert await found() == [20, 33], "what lies behind the damage is still read"


@pytest.mark.parametrize("where", ["wal", "segments", "snapshots"])
async def test_any_other_write_error_ends_the_node_too(where: str, autojump_clock: MockClock) -> None:
    disk = new_disk()
    await run_into(disk, Fault(0, FaultKind.IO_ERROR, only=OperationKind.WRITE, name=where))
    async with opened(killed(disk)) as store:
        assert store.log(1).damage is None


async def test_a_flush_waits_for_space_and_appends_go_on(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        full = [Fault(0, FaultKind.NO_SPACE, name="segments", only=OperationKind.CREATE) for _ in range(4)]
        disk.faults = PlannedFaults(full)
        while not store.statistics().wal_files_waiting:
            await append(log, batches(log.last_index + 1, log.last_index + 4, 1_000))
        await trio.sleep(0.1)
        assert store.pressure == "critical"
        await append(log, [batch(log.last_index + 1)])
        await store.flush()
        await wait_all_tasks_blocked()
        assert store.pressure == "none"
        assert len(disk.struck) == 4
        last = log.last_index
    async with opened(killed(disk)) as store:
        assert len(await replayed(store.log(1))) == last


async def test_a_disk_that_is_nearly_full_is_told_before_it_is_full(autojump_clock: MockClock) -> None:
    disk = SimDisk(Random(1), capacity_bytes=1_000_000)
    settings = replace(TINY, ballast_bytes=0, low_space_bytes=900_000)
    async with opened(disk, settings) as store:
        await trio.sleep(5)
        assert store.pressure == "low"
    async with opened(killed(disk), replace(settings, critical_space_bytes=880_000)) as store:
        await trio.sleep(5)
        assert store.pressure == "critical"


async def test_a_directory_belongs_to_one_process(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        with pytest.raises(StorageLocked):
            await Store.open(sim_environment(None, 2, disk).environment, TINY)  # type: ignore[arg-type]
        await store.close()
    async with opened(disk) as store:
        assert store.groups() == []


async def test_a_disk_that_cannot_be_read_is_an_error_of_opening(autojump_clock: MockClock) -> None:
    disk = new_disk()
    disk.faults = PlannedFaults([Fault(0, FaultKind.IO_ERROR, only=OperationKind.SYNC_FOLDER)])
    with pytest.raises(StorageFailed):
        await Store.open(sim_environment(None, 2, disk).environment, TINY)  # type: ignore[arg-type]


async def test_closing_writes_what_waits_and_seals(autojump_clock: MockClock) -> None:
    disk = new_disk()
    answers: list[Exception | None] = []
    async with opened(disk) as store:
        log = store.create(1)
        log.append(batches(1, 3), None, answers.append)
        await store.close()
        assert answers == [None]
        log.append([batch(4)], None, answers.append)
        assert isinstance(answers[1], StorageFailed)
    async with opened(disk) as store:
        assert store.log(1).last_index == 3


async def test_what_is_appended_while_the_last_seal_is_written_is_kept(autojump_clock: MockClock) -> None:
    disk = new_disk()
    answers: list[Exception | None] = []
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, [batch(1)])
        appended = False

        def late(operation: Operation) -> None:
            nonlocal appended
            if operation.kind is OperationKind.WRITE and not appended:
                appended = True
                log.append([batch(2)], None, answers.append)

        disk.before = late
        await store.close()
        assert answers == [None]
    async with opened(disk) as store:
        assert store.log(1).last_index == 2


def test_closing_during_a_flush_is_no_failure() -> None:
    """The flush waits for the log's word in the moment in which the log ends."""

    async def world(_: Random, turns: int) -> None:
        disk = new_disk()
        async with opened(disk) as store:
            await append(store.create(1), batches(1, 10))
            await append(store.log(1), batches(11, 20))
        async with opened(killed(disk)) as store:
            assert store.statistics().wal_files_waiting == 1
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.flush)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                await store.close()
                nursery.cancel_scope.cancel()

    for seed in range(40):
        run_sim(seed, world, seed % 5)


async def test_an_entry_larger_than_a_log_file_is_kept(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, [batch(1)])
        await append(log, [batch(2, 3 * TINY.wal_file_bytes)])
        await append(log, [batch(3)])
    async with opened(killed(disk)) as store:
        log = store.log(1)
        assert await replayed(log) == plain([batch(1), batch(2, 3 * TINY.wal_file_bytes), batch(3)])


async def test_restarting_again_and_again_leaves_few_files(autojump_clock: MockClock) -> None:
    disk = new_disk()
    for life in range(10):
        async with opened(disk) as store:
            log = store.log(1) if life else store.create(1)
            assert log.last_index == life
            await append(log, [batch(life + 1)])
        disk = killed(disk)
    for _ in range(10):
        async with opened(disk) as store:
            assert store.log(1).last_index == 10
            await trio.sleep(5)
        disk = killed(disk)
    assert len([name for name in disk.names() if name.startswith("wal/")]) <= 4


async def test_busy_is_said_while_flushes_fall_behind(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        disk.latency_ns = lambda operation: 10_000_000_000 if "segments" in operation.name else 0
        while store.pressure == "none":
            await append(log, batches(log.last_index + 1, log.last_index + 8, 1_000))
        assert store.pressure == "busy"
        assert store.statistics().wal_files_waiting == TINY.wal_files_waiting_max + 1
        disk.latency_ns = lambda operation: 0
        await store.flush()
        assert store.pressure == "none"


async def test_on_a_real_disk(tmp_path: Path) -> None:
    memory = memoryview(bytearray(b"from a network buffer"))
    async with trio.open_nursery() as nursery:
        store = await Store.open(real_environment(str(tmp_path), nursery), TINY)
        with pytest.raises(StorageLocked):
            await Store.open(real_environment(str(tmp_path), nursery), TINY)
        nursery.start_soon(store.run)
        log = store.create(1)
        await append(log, [Entry(1, 1, 1, 0, 1, memory), *batches(2, 400, 500)], HardState(1, 1))
        await store.flush()
        await store.close()
    async with trio.open_nursery() as nursery:
        store = await Store.open(real_environment(str(tmp_path), nursery), TINY)
        nursery.start_soon(store.run)
        rows = await replayed(store.log(1))
        assert rows[0][5] == bytes(memory)
        assert rows[1:] == plain(batches(2, 400, 500))
        await store.close()


async def test_a_full_disk_can_be_opened_and_written_to_in_small_steps(autojump_clock: MockClock) -> None:
    disk = SimDisk(Random(1), capacity_bytes=4_000_000)
    settings = replace(TINY, wal_file_bytes=1_500_000)
    async with opened(disk) as store:
        await append(store.create(1), batches(1, 20))
        await store.close()
    disk.create("foreign", disk.free_bytes() - 1_200_000).close()
    disk.sync_folder("")
    async with opened(disk, settings) as store:
        log = store.log(1)
        assert await replayed(log) == plain(batches(1, 20))
        await append(log, batches(21, 30))
        await trio.sleep(1)
        assert store.pressure == "critical"


async def test_a_source_that_fails_costs_nothing_but_its_checkpoint(autojump_clock: MockClock) -> None:
    class Defect:
        def checkpoint(self) -> Checkpoint | None:
            raise ValueError("a defect")

    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(Defect())
        await fill_file(store, log)
        last = log.last_index
    async with opened(killed(disk)) as store:
        assert len(await replayed(store.log(1))) == last
