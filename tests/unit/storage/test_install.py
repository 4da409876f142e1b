"""A snapshot from elsewhere replaces the beginning of a log: at one moment, whatever happens around it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
import trio
from trio.testing import MockClock

from plait.wire.errors import StorageDamaged, StorageFull
from replication.machine import Entry
from replication.storage import install as install_module
from replication.storage.damage import InstallRefused, StorageFailed
from replication.storage.format import HardState
from replication.storage.log import GroupLog
from replication.storage.store import Store
from tests.sim.crash import Survival
from tests.sim.environment import sim_environment
from tests.sim.faults import Fault, FaultKind, OperationKind, PlannedFaults
from tests.unit.storage.test_damage import SEALED_S, rot
from tests.unit.storage.world import (
    TINY,
    Source,
    append,
    batch,
    batches,
    delete,
    fill_file,
    killed,
    kind,
    new_disk,
    opened,
    plain,
    replayed,
    truncate,
)


async def install(
    log: GroupLog, index: int, entries: Sequence[Entry], *, term: int = 5, agreed: int = 0, live: bool = True
) -> None:
    """All of one install."""
    one = log.begin_install(index, term, agreed)
    await one.add(entries)
    await one.commit(b"from the leader", [(0, 100_000)] if live else None, 10 * index + 9)


async def by_mark(log: GroupLog) -> list[tuple[int, int, int, int, int, bytes]]:
    """Everything with a span."""
    found: list[Entry] = []
    mark = 0
    while entries := await log.read_marks(mark, 700):
        found += entries
        mark = entries[-1].mark + entries[-1].span
    return plain(found)


async def test_a_log_that_lags_far_behind_becomes_the_snapshot(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 20), HardState(3, 2))
        brought = [batch(index, term=4) for index in (15, 40, 41, 60)]
        await install(log, 70, brought, agreed=10)
        for _ in range(2):
            assert (log.snapshot_index, log.snapshot_term) == (70, 5)
            assert (log.last_index, log.last_term, log.last_mark) == (70, 5, 709)
            assert log.hard_state == HardState(3, 2)
            assert await log.load_snapshot() == (70, 5, b"from the leader")
            assert await by_mark(log) == plain([*batches(1, 10), *brought])
            assert await log.read(16, 1 << 20) == []
            assert log.term_at(69) is None
        await append(log, [batch(71, term=5)], HardState(5, 1))
    for _ in range(2):
        async with opened(killed(disk)) as store:
            log = store.log(1)
            assert (log.snapshot_index, log.last_index, log.last_term, log.damage) == (70, 71, 5, None)
            assert log.hard_state == HardState(5, 1)
            assert await log.load_snapshot() == (70, 5, b"from the leader")
            assert await by_mark(log) == plain([*batches(1, 10), *brought, batch(71, term=5)])
            await fill_file(store, log)
            await store.tidy()
            assert await by_mark(log) != []
        disk = killed(disk)


async def test_what_follows_stays_where_the_log_has_the_snapshots_last_entry(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await fill_file(store, log)
        await append(log, batches(log.last_index + 1, log.last_index + 5))
        last, before = log.last_index, await by_mark(log)
        one = log.begin_install(20, 1, 5)
        assert one.keeps_rest
        assert [one.has(index) for index in (1, 20, 21)] == [True, True, False]
        await one.commit(b"state", None, 209)
        assert (log.snapshot_index, log.last_index) == (20, last)
        assert await by_mark(log) == before
    async with opened(killed(disk)) as store:
        log = store.log(1)
        assert (log.snapshot_index, log.last_index, log.damage) == (20, last, None)
        assert await by_mark(log) == before
        assert [row[0] for row in await replayed(log, 20)] == list(range(21, last + 1))


async def test_entries_in_segments_that_the_leader_does_not_have_are_hidden(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await fill_file(store, log)
        assert log.last_index > 30
        brought = batches(21, 29, 1_000, term=2)
        await install(log, 30, brought, agreed=20)
        expected = plain(batches(1, 20, 1_000) + brought)
        assert await by_mark(log) == expected
    async with opened(killed(disk)) as store:
        log = store.log(1)
        assert log.last_index == 30
        assert await by_mark(log) == expected
        await append(log, batches(31, 33, term=5))
        for _ in range(3):
            await fill_file(store, log)
            await store.tidy()
        assert (await by_mark(log))[:32] == expected + plain(batches(31, 33, term=5))


async def test_an_install_goes_on_where_a_former_one_stopped(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 5))
        one = log.begin_install(50, 5, 5)
        await one.add(batches(10, 20))
        again = log.begin_install(60, 5, 5)
        assert (again.last_staged, again.next_mark) == (20, 210)
        assert again.has(15)
        with pytest.raises(InstallRefused):
            await one.add(batches(21, 22))
        await again.add(batches(18, 30))
        await again.commit(b"state", None, 609)
        assert await by_mark(log) == plain(batches(1, 5) + batches(10, 30))
    async with opened(killed(disk)) as store:
        assert await by_mark(store.log(1)) == plain(batches(1, 5) + batches(10, 30))


async def test_what_a_former_one_staged_beyond_the_snapshot_is_given_up(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await log.begin_install(50, 5, 0).add(batches(10, 40))
        again = log.begin_install(30, 5, 0)
        assert again.last_staged == 0
        await again.add(batches(10, 20))
        await again.commit(b"state", None, 309)
        assert await by_mark(log) == plain(batches(10, 20))
        assert not [name for name in disk.names() if name.startswith("segments") and name.endswith(".tmp")]


async def test_an_abandoned_install_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 5))
        before = disk.names()
        one = log.begin_install(50, 5, 5)
        await one.add(batches(10, 20))
        assert disk.names() != before
        await one.abandon()
        assert disk.names() == before
        with pytest.raises(InstallRefused):
            await one.commit(b"state", None, 0)
        assert await replayed(log) == plain(batches(1, 5))


async def test_a_crash_leaves_no_staged_file(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 5))
        await log.begin_install(50, 5, 5).add(batches(10, 20))
    disk = killed(disk)
    assert [name for name in disk.names() if name.startswith("segments")]
    async with opened(disk) as store:
        assert not [name for name in disk.names() if name.startswith("segments")]
        assert await by_mark(store.log(1)) == plain(batches(1, 5))


async def test_many_staged_files_are_one_log(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_module, "STAGE_FILE_BYTES", 3_000)
    monkeypatch.setattr(install_module, "STAGE_PIECE_BYTES", 1_000)
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 5))
        await install(log, 200, batches(10, 150), agreed=5)
        expected = plain(batches(1, 5) + batches(10, 150))
        assert await by_mark(log) == expected
        assert len([name for name in disk.names() if name.endswith(".seg")]) > 4
    async with opened(killed(disk)) as store:
        log = store.log(1)
        assert await by_mark(log) == expected
        log.retain([(0, 30), (140, 155), (900, 1_200)])
        await trio.sleep(10)
        kept = [row for row in expected if row[0] in (*range(1, 4), 14, 15, *range(90, 121))]
        assert [row for row in await by_mark(log) if row in kept] == kept


@pytest.mark.parametrize("where", ["wal", "segments"])
async def test_an_install_repairs_what_has_rotted_and_brings_nothing_else(
    where: str, autojump_clock: MockClock
) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 30, 300), HardState(4, 3))
        if where == "segments":
            log.attach(source)
            source.index, source.live = 15, [(0, 10_000)]
            await fill_file(store, log)
        await trio.sleep(SEALED_S)
        last, before = log.last_index, await by_mark(log)
    disk = killed(disk)
    rot(disk, bytes(batch(12, 300).payload), where)
    async with opened(disk) as store:
        log = store.log(1)
        with pytest.raises(StorageDamaged):
            await by_mark(log)
        assert kind(log) == "repairable"
        assert (log.last_index, log.last_term, log.hard_state) == (last, 1, HardState(4, 3))
        one = log.begin_install(20, 1, 20)
        assert one.keeps_rest
        assert [one.has(index) for index in (11, 12, 13)] == [True, False, True]
        await one.add(batches(1, 20, 300))
        assert one.staged_bytes == 300
        await one.commit(b"state", [(0, 10_000)], 209)
        assert kind(log) == "none"
        assert await by_mark(log) == before
        assert [row[0] for row in await replayed(log, 20)] == list(range(21, last + 1))
    for _ in range(2):
        disk = killed(disk)
        async with opened(disk) as store:
            log = store.log(1)
            assert kind(log) == "none"
            assert await by_mark(log) == before
            for _ in range(2):
                await fill_file(store, log)
                await store.tidy()
            assert (await by_mark(log))[: len(before)] == before
            before = await by_mark(log)


async def test_damage_behind_the_snapshot_stays(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        await append(store.create(1), batches(1, 30))
        await trio.sleep(SEALED_S)
    disk = killed(disk)
    rot(disk, bytes(batch(25).payload), "wal")
    for index, left in ((20, "repairable"), (27, "none")):
        async with opened(disk) as store:
            log = store.log(1)
            assert kind(log) == "repairable"
            await install(log, index, [batch(25)] if index > 25 else [], term=1, agreed=index)
            assert kind(log) == left
            assert log.last_index == 30
        disk = killed(disk)
    async with opened(disk) as store:
        assert await by_mark(store.log(1)) == plain(batches(1, 30))


async def test_a_rotten_snapshot_is_replaced_by_one_of_the_same_index(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(source)
        await append(log, batches(1, 20))
        source.index, source.live, source.state = 20, [(0, 50)], b"the state of group 1"
        await fill_file(store, log)
        live = await log.live_below(0, 1 << 20)
    disk = killed(disk)
    rot(disk, b"the state of group 1", "snapshots")
    async with opened(disk) as store:
        log = store.log(1)
        with pytest.raises(StorageDamaged):
            await log.load_snapshot()
        assert kind(log) == "repairable"
        one = log.begin_install(20, 1, 20)
        assert all(one.has(entry.index) for entry in live)
        await one.commit(b"the state of group 1", [(0, 50)], 209)
        assert kind(log) == "none"
        assert await log.load_snapshot() == (20, 1, b"the state of group 1")


async def test_what_is_older_than_the_log_is_refused(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await install(log, 20, [])
        for index in (19, 20):
            with pytest.raises(InstallRefused):
                log.begin_install(index, 5, 0)
        await install(log, 21, [])
        assert log.last_index == 21


async def test_a_later_snapshot_of_its_own_wins_over_an_install(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(source)
        await append(log, batches(1, 30))
        one = log.begin_install(10, 1, 10)
        source.index = 20
        await log.snapshot_now()
        with pytest.raises(InstallRefused):
            await one.commit(b"older", None, 109)
        assert log.snapshot_index == 20
    async with opened(killed(disk)) as store:
        assert store.log(1).snapshot_index == 20
        assert [row[0] for row in await replayed(store.log(1), 20)] == list(range(21, 31))


async def test_hard_states_may_be_appended_during_an_install(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 5))
        async with trio.open_nursery() as nursery:
            one = log.begin_install(50, 5, 5)
            nursery.start_soon(one.commit, b"state", None, 509)
            for term in range(1, 60):
                await append(log, [], HardState(term, 1))
            assert log.snapshot_index == 50
    async with opened(killed(disk)) as store:
        assert (store.log(1).hard_state, store.log(1).last_index) == (HardState(59, 1), 50)


async def test_a_group_that_is_deleted_meanwhile_refuses_its_install(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        other = store.create(2)
        await append(other, batches(1, 5))
        one = log.begin_install(50, 5, 0)
        await one.add(batches(10, 20))
        failed: list[Exception] = []

        async def commit() -> None:
            try:
                await one.commit(b"state", None, 509)
            except InstallRefused as error:
                failed.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            await trio.lowlevel.checkpoint()
            await delete(store, 1)
        assert failed
        await trio.sleep(5)
        assert not [name for name in disk.names() if name.startswith("segments") and name.endswith(".tmp")]
    async with opened(killed(disk)) as store:
        assert store.groups() == [2]


async def test_a_full_disk_refuses_and_the_log_is_what_it_was(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 5))
        names = disk.names()
        disk.faults = PlannedFaults([Fault(0, FaultKind.NO_SPACE, name="segments", only=OperationKind.CREATE)])
        one = log.begin_install(50, 5, 5)
        with pytest.raises(StorageFull):
            await one.add(batches(10, 20))
        await one.abandon()
        assert disk.names() == names
        disk.faults = PlannedFaults([Fault(0, FaultKind.NO_SPACE, name="snapshots", only=OperationKind.CREATE)])
        one = log.begin_install(50, 5, 5)
        await one.add(batches(10, 20))
        with pytest.raises(StorageFull):
            await one.commit(b"state", None, 509)
        await trio.sleep(3)
        assert not [name for name in disk.names() if name.startswith("segments") and name.endswith(".tmp")]
        assert await replayed(log) == plain(batches(1, 5))
        await install(log, 50, batches(10, 20), agreed=5)
        assert await by_mark(log) == plain(batches(1, 5) + batches(10, 20))
    async with opened(killed(disk)) as store:
        assert await by_mark(store.log(1)) == plain(batches(1, 5) + batches(10, 20))


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("where", ["segments", "snapshots"])
async def test_a_failing_disk_ends_the_node_and_the_log_is_the_old_one_or_the_new_one(
    where: str, number: int, autojump_clock: MockClock
) -> None:
    disk = new_disk()
    errors: list[Exception] = []

    async def life() -> None:
        async with trio.open_nursery() as nursery:
            store = await Store.open(sim_environment(nursery, 1, disk).environment, TINY)
            nursery.start_soon(store.run)
            log = store.create(1)
            await append(log, batches(1, 5))
            disk.faults = PlannedFaults([Fault(disk.operations + number, FaultKind.IO_ERROR, name=where)])
            try:
                await install(log, 50, batches(10, 20), agreed=5)
            except StorageFailed as error:
                errors.append(error)
            await trio.sleep(60)
            raise AssertionError("the node goes on")

    with pytest.RaisesGroup(StorageFailed):
        await life()
    assert errors
    for survival in (Survival.NOTHING, Survival.EVERYTHING):
        async with opened(disk.copy(Random(0)).crash(survival, Random(1))) as store:
            log = store.log(1)
            old, new = plain(batches(1, 5)), plain(batches(1, 5) + batches(10, 20))
            assert (log.last_index, await by_mark(log)) in [(5, old), (50, new)]
            assert log.damage is None


async def test_what_follows_an_install_before_the_logs_former_end_is_flushed_in_its_time(
    autojump_clock: MockClock,
) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 30))
        await install(log, 10, [batch(10, term=5)], agreed=9)
        log.attach(source)
        await append(log, batches(11, 14, term=5))
        await log.snapshot_now()
        await append(log, batches(15, 16, term=5))
        await append(log, batches(17, 18, term=5))
    async with opened(killed(disk)) as store:
        assert store.log(1).damage is None
        assert await by_mark(store.log(1)) == plain(batches(1, 9) + batches(10, 18, term=5))


async def test_a_truncated_tail_does_not_come_back_behind_an_install(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await fill_file(store, log)
        await append(log, batches(log.last_index + 1, log.last_index + 10))
        await truncate(log, 8)
        await append(log, batches(9, 12, term=2))
        await install(log, 40, [batch(20, term=3)], agreed=10)
        await append(log, batches(41, 60, term=5))
        expected = plain([*batches(1, 8, 1_000), *batches(9, 10, term=2), batch(20, term=3)])
        expected += plain(batches(41, 60, term=5))
        assert await by_mark(log) == expected
    async with opened(killed(disk)) as store:
        assert await by_mark(store.log(1)) == expected


async def test_installs_of_many_groups_share_flushes(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        logs = [store.create(group) for group in range(1, 21)]
        before = store.statistics().flushes
        async with trio.open_nursery() as nursery:
            for log in logs:
                nursery.start_soon(install, log, 50, batches(10, 20))
        assert store.statistics().flushes - before <= 5
    async with opened(killed(disk)) as store:
        for group in range(1, 21):
            assert await by_mark(store.log(group)) == plain(batches(10, 20))


async def test_closing_ends_an_install_that_waits(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 5))
        failed: list[Exception] = []

        async def commit() -> None:
            try:
                await log.begin_install(50, 5, 5).commit(b"state", None, 509)
            except StorageFailed as error:
                failed.append(error)

        disk.latency_ns = lambda operation: 10**9 if operation.name.startswith("snapshots") else 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            await trio.sleep(0.1)
            await store.close()
        assert len(failed) + (log.snapshot_index == 50) == 1
    async with opened(killed(disk)) as store:
        assert store.log(1).last_index in (5, 50)


async def test_a_snapshot_can_be_asked_for(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(source)
        await append(log, batches(1, 20))
        source.index, source.live = 18, [(0, 1_000)]
        await log.snapshot_now()
        assert log.snapshot_index == 18
        source.index = 20
        log.held += 1
        await log.snapshot_now()
        assert log.snapshot_index == 18
        log.held -= 1
        await log.snapshot_now()
        assert log.snapshot_index == 20
    async with opened(killed(disk)) as store:
        assert await by_mark(store.log(1)) == plain(batches(1, 20))


async def test_a_sender_reads_what_is_live_below_its_snapshot(autojump_clock: MockClock) -> None:
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(source)
        await append(log, batches(1, 30))
        source.index, source.live = 20, [(0, 59), (100, 5_000)]
        await log.snapshot_now()
        await append(log, batches(31, 40))
        assert [e.index for e in await log.live_below(0, 250)] == [1, 2, 3]
        found, mark = [], 40
        while entries := await log.live_below(mark, 1 << 20):
            found += [entry.index for entry in entries]
            mark = entries[-1].mark + entries[-1].span
        assert found == [4, 5, *range(10, 21)]
        assert [e.index for e in await log.live_below(0, 1 << 20, [(1, 12), (14, 19)])] == [13, 20]
        assert await log.live_below(210, 1 << 20) == []
        row, piece = await log.read_snapshot(1, 3) or (None, b"")
        assert row is not None
        assert (row.index, row.state_bytes, piece) == (20, 5, b"tat")
