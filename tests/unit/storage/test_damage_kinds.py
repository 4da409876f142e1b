"""What damage means for a replica: it is repaired from the leader, or goes on as another; nothing forgets it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from plait.wire.errors import StorageDamaged
from replication.storage.damage import INDEX_UNKNOWN, InstallRefused
from replication.storage.format import HardState
from tests.sim.disk import SimDisk
from tests.sim.faults import Fault, FaultKind, OperationKind, PlannedFaults
from tests.unit.storage.test_damage import SEALED_S, flushed, place_of, rot
from tests.unit.storage.test_install import by_mark, install
from tests.unit.storage.world import (
    TINY,
    Source,
    append,
    batch,
    batches,
    fill_file,
    killed,
    kind,
    new_disk,
    opened,
    plain,
)

LARGE = replace(TINY, wal_file_bytes=1 << 20)


def lose(disk: SimDisk, content: bytes, blocks: int = 1) -> None:
    """The block of the log that has this, and those behind it, are gone."""
    name, position = place_of(disk, content, "wal")
    disk.spoil(name, position - position % 4096, bytes(blocks * 4096))


async def written(*, later_entry: bool, later_vote: bool) -> SimDisk:
    """Group 1: a block with entry 3 and a vote, and perhaps something behind it. Group 2 has the last word."""
    disk = new_disk()
    async with opened(disk, LARGE) as store:
        log, other = store.create(1), store.create(2)
        await append(log, batches(1, 2), HardState(1, 1))
        await append(log, [batch(3, 77)], HardState(2, 3))
        if later_entry:
            await append(log, [batch(4, term=2)])
        if later_vote:
            await append(log, [], HardState(3, 1))
        await append(other, [batch(1)])
        await trio.sleep(SEALED_S)
    return killed(disk)


@pytest.mark.parametrize(("later_entry", "later_vote"), [(False, False), (True, False), (False, True)])
async def test_a_vote_or_an_end_that_nothing_names_is_lost_for_good(
    later_entry: bool, later_vote: bool, autojump_clock: MockClock
) -> None:
    disk = await written(later_entry=later_entry, later_vote=later_vote)
    lose(disk, bytes(batch(3, 77).payload))
    for _ in range(2):
        async with opened(disk) as store:
            assert kind(store.log(1)) == "lost"
            assert kind(store.log(2)) == "none"
            assert not store.forgot
            await fill_file(store, store.log(2))
            await fill_file(store, store.log(2))
            assert kind(store.log(1)) == "lost"
        disk = killed(disk)


async def test_what_a_later_vote_and_a_later_entry_replace_is_merely_missing(autojump_clock: MockClock) -> None:
    disk = await written(later_entry=True, later_vote=True)
    lose(disk, bytes(batch(3, 77).payload))
    for _ in range(2):
        async with opened(disk) as store:
            log = store.log(1)
            assert kind(log) == "repairable"
            assert (log.hard_state, log.last_index, log.last_term) == (HardState(3, 1), 4, 2)
            in_doubt = [(damage.first_index, damage.last_index) for damage in log.damages]
            assert (1, 3) in in_doubt, "a truncation may be among the lost"
            assert log.cached(2, 1) is None
            assert [log.term_at(index) for index in range(1, 5)] == [None, None, None, 2]
            with pytest.raises(StorageDamaged):
                await log.read(2, 1)
            await fill_file(store, store.log(2))
        disk = killed(disk)
    async with opened(disk) as store:
        log = store.log(1)
        with pytest.raises(InstallRefused):
            log.begin_install(3, 1, 2)  # whether entry 4, which was acknowledged, follows it is not known
        one = log.begin_install(3, 1, 4)
        assert one.keeps_rest
        assert not any(one.has(index) for index in (1, 2, 3))
        await one.add(batches(1, 3))
        await one.commit(b"state", None, 39)
        assert kind(log) == "none"
    async with opened(killed(disk)) as store:
        log = store.log(1)
        assert (kind(log), log.hard_state, log.last_index) == ("none", HardState(3, 1), 4)
        assert await by_mark(log) == plain([*batches(1, 3), batch(4, term=2)])


async def test_a_loss_that_nobody_names_puts_all_in_doubt_and_later_words_settle_it(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with opened(disk, LARGE) as store:
        for group in (1, 2, 3):
            await append(store.create(group), [batch(1)], HardState(1, group))
        for index in (2, 3, 4):
            await append(store.log(1), [batch(index, 70 + index)])
        await append(store.log(2), [batch(2)], HardState(4, 4))
        await append(store.log(3), [batch(2)])
        await trio.sleep(SEALED_S)
    disk = killed(disk)
    lose(disk, bytes(batch(2, 72).payload), 3)
    for _ in range(2):
        async with opened(disk) as store:
            assert [kind(store.log(group)) for group in (1, 2, 3)] == ["lost", "repairable", "lost"]
        disk = killed(disk)


async def test_a_lost_replica_becomes_another_one_by_a_snapshot_from_the_leader(autojump_clock: MockClock) -> None:
    disk = await written(later_entry=False, later_vote=False)
    lose(disk, bytes(batch(3, 77).payload))
    async with opened(disk) as store:
        log = store.log(1)
        assert log.damage is not None
        assert log.damage.last_index == INDEX_UNKNOWN
        one = log.begin_install(2, 1, 2)
        assert (one.keeps_rest, one.present) == (False, [])
        await one.add(batches(1, 2))
        await one.commit(b"state", None, 29)
        assert (kind(log), log.last_index) == ("none", 2)
        await append(log, [batch(3, term=5)], HardState(5, 9))
    async with opened(killed(disk)) as store:
        log = store.log(1)
        assert (kind(log), log.hard_state) == ("none", HardState(5, 9))
        assert await by_mark(log) == plain([*batches(1, 2), batch(3, term=5)])


async def test_the_last_entrys_term_is_known_though_its_payload_has_rotted(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        await append(log, batches(1, 2), HardState(7, 1))
        await append(log, [batch(3, 77, term=7), batch(4, 78, term=7)])
        await trio.sleep(SEALED_S)
    disk = killed(disk)
    rot(disk, bytes(batch(3, 77, term=7).payload), "wal")
    rot(disk, bytes(batch(4, 78, term=7).payload), "wal")
    for _ in range(3):
        async with opened(disk) as store:
            log = store.log(1)
            assert kind(log) == "repairable"
            assert (log.last_index, log.last_term, log.last_mark) == (4, 7, 49)
            assert [log.term_at(index) for index in range(1, 6)] == [1, 1, 7, 7, None]
            store.create(2 + _)
            await fill_file(store, store.log(2 + _))
        disk = killed(disk)


@pytest.mark.parametrize("restart", [False, True])
async def test_the_scrub_tells_of_rot_and_a_restart_knows_it_at_once(
    restart: bool, autojump_clock: MockClock
) -> None:
    disk = await flushed()
    rot(disk, bytes(batch(12, 300).payload), "segments")
    settings = replace(TINY, scrub_bytes_per_s=1 << 20, janitor_interval_ms=600_000)
    async with opened(disk, settings) as store:
        log = store.log(1)
        told: list[object] = []
        log.on_damage = told.append
        assert kind(log) == "none"
        await trio.sleep(2 * 3_600)
        assert told == [log.damage]
        assert kind(log) == "repairable"
        if restart:
            await fill_file(store, store.log(2))
    disk = killed(disk)
    async with opened(disk) as store:
        log = store.log(1)
        assert kind(log) == "repairable"
        assert log.damage is not None
        assert (log.damage.first_index, log.damage.last_index) == (12, 12)
        assert [e.index for e in await log.read_marks(130, 1)] == [13]
        await install(log, 20, batches(1, 20, 300), term=1, agreed=20)
        assert kind(log) == "none"
    async with opened(killed(disk)) as store:
        assert kind(store.log(1)) == "none"
        assert (await by_mark(store.log(1)))[:20] == plain(batches(1, 20, 300))


async def test_a_rotten_snapshot_stays_damage_when_a_flush_has_nothing_to_copy(autojump_clock: MockClock) -> None:
    disk = await flushed()
    rot(disk, b"the state of group 1", "snapshots")
    for _ in range(3):
        async with opened(disk) as store:
            log = store.log(1)
            for _ in range(2):
                await append(log, [batch(log.last_index + 1)])
                await fill_file(store, store.log(2))
            assert kind(log) == "repairable"
            with pytest.raises(StorageDamaged):
                await log.load_snapshot()
        disk = killed(disk)


async def test_a_read_that_the_disk_refused_once_is_no_damage_for_ever(autojump_clock: MockClock) -> None:
    disk = await flushed()
    async with opened(disk) as store:
        disk.faults = PlannedFaults(
            [Fault(0, FaultKind.IO_ERROR, only=OperationKind.READ, name="segments") for _ in range(40)]
        )
        with pytest.raises(StorageDamaged):
            await by_mark(store.log(1))
        assert kind(store.log(1)) == "repairable"
        await trio.sleep(SEALED_S)
    async with opened(killed(disk)) as store:
        assert kind(store.log(1)) == "none"
        assert (await by_mark(store.log(1)))[:20] == plain(batches(1, 20, 300))


async def test_nobody_stumbles_over_rot_that_was_repaired(autojump_clock: MockClock) -> None:
    """Also where the entry before the rotten one was dead when its file was written."""
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log = store.create(1)
        log.attach(source)
        await append(log, batches(1, 30, 300))
        source.index, source.live = 20, [(0, 109), (120, 1_000)]
        await log.snapshot_now()
    disk = killed(disk)
    rot(disk, bytes(batch(12, 300).payload), "segments")
    async with opened(disk, replace(TINY, scrub_bytes_per_s=1 << 20)) as store:
        log = store.log(1)
        with pytest.raises(StorageDamaged):
            await log.read_marks(120, 1)
        await install(log, 20, [batch(12, 300)], term=1, agreed=20)
        expected = [*batches(1, 10, 300), *batches(12, 30, 300)]
        assert await log.read(11, 1) == []
        assert [entry.index for entry in await log.read(10, 10_000)] == [10]
        assert await by_mark(log) == plain(expected)
        await store.scrub(1)
        assert kind(log) == "none"
        log.retain([(100, 109), (120, 125)])
        await store.tidy()
        assert next(entry.index for entry in await log.read_marks(110, 1_000)) == 12
        assert kind(log) == "none"


async def test_segments_that_cannot_be_read_at_all_are_repaired_and_set_aside(autojump_clock: MockClock) -> None:
    disk = await flushed()
    async with opened(disk) as store:
        last = [store.log(group).last_index for group in (1, 2)]
        before = [await by_mark(store.log(group)) for group in (1, 2)]
        bad = [f"segments/{part.number:012d}.seg" for part in store.log(1).parts]
    disk = killed(disk)
    for name in bad:
        disk.spoil(name, 0, bytes(len(disk.content(name))))
    for attempt in range(3):
        async with opened(disk) as store:
            log = store.log(1)
            if attempt < 2:
                assert kind(log) == ("repairable" if attempt == 0 else "none")
                assert log.last_index == last[0]
            if attempt == 0:
                entries = [batch(row[0], len(row[5])) for row in before[0]]
                await install(log, last[0], entries, term=1, agreed=last[0])
                assert kind(log) == "none"
            else:
                await trio.sleep(5)
                assert await by_mark(log) == before[0]
        disk = killed(disk)
    assert [name for name in disk.names() if name.endswith(".seg.damaged")] == [f"{bad[0]}.damaged"]


async def test_a_snapshot_file_that_cannot_be_read_is_a_loss_that_later_flushes_do_not_hide(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    async with opened(disk, LARGE) as store:
        for group in (1, 2, 3):
            await append(store.create(group), batches(1, 3), HardState(1, 1))
        await store.log(1).snapshot_now()
        await append(store.log(2), [batch(4)], HardState(2, 2))
        await store.log(2).snapshot_now()
        await append(store.log(3), [batch(4)], HardState(3, 3))
        await trio.sleep(SEALED_S)
    disk = killed(disk)
    newest = max(name for name in disk.names() if name.endswith(".snap"))
    disk.spoil(newest, 0, bytes(len(disk.content(newest))))
    for _ in range(3):
        async with opened(disk) as store:
            kinds = [kind(store.log(group)) for group in store.groups()]
            assert "lost" in kinds
            new = max(store.groups()) + 1
            await fill_file(store, store.create(new))
            await fill_file(store, store.log(new))
            await trio.sleep(5)
            assert [kind(store.log(group)) for group in store.groups() if group != new] == kinds
        disk = killed(disk)
        if _ == 0:
            lost = kinds.count("lost")
        async with opened(disk) as store:
            assert [kind(store.log(group)) for group in store.groups()].count("lost") == lost
        disk = killed(disk)
