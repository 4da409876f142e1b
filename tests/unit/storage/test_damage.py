"""Rot: what is damaged is named and not served, what is whole stays, nothing is cut."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from plait.wire.errors import StorageDamaged
from replication.machine import Entry
from replication.storage.format import HardState
from tests.sim.disk import SimDisk
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
)

SEALED_S = 1


def place_of(disk: SimDisk, content: bytes, folder: str) -> tuple[str, int]:
    """Where something stands on the disk."""
    for name in disk.names():
        if name.startswith(folder) and content in disk.content(name):
            return name, disk.content(name).index(content)
    raise AssertionError(f"{content!r} is not in {folder}")


def rot(disk: SimDisk, content: bytes, folder: str) -> None:
    name, position = place_of(disk, content, folder)
    disk.flip(name, position + 1)


async def three_groups() -> SimDisk:
    """Groups 1 to 3 with ten entries each, one group's entry a block, sealed."""
    disk = new_disk()
    async with opened(disk, replace(TINY, wal_file_bytes=1 << 20)) as store:
        for group in (1, 2, 3):
            store.create(group)
        for index in range(1, 11):
            for group in (1, 2, 3):
                await append(store.log(group), [batch(index, 60 + group)], HardState(index, group))
        await trio.sleep(SEALED_S)
    return killed(disk)


async def test_a_rotten_payload_damages_its_group_alone(autojump_clock: MockClock) -> None:
    disk = await three_groups()
    rot(disk, bytes(batch(5, 62).payload), "wal")
    for _ in range(2):  # and so it stays over a restart
        async with opened(disk) as store:
            assert [store.log(group).damage is None for group in (1, 2, 3)] == [True, False, True]
            log = store.log(2)
            with pytest.raises(StorageDamaged) as caught:
                await log.read(5, 1)
            assert caught.value.details["group"] == 2
            assert caught.value.details["file"].startswith("wal/")
            with pytest.raises(StorageDamaged):
                await replayed(log)
            assert plain(await log.read(4, 1)) == plain([batch(4, 62)])
            assert log.hard_state == HardState(10, 2)
            assert await replayed(store.log(1)) == plain(batches(1, 10, 61))
            await trio.sleep(SEALED_S)
        disk = killed(disk)


async def test_a_lost_block_damages_the_groups_that_the_next_one_names(autojump_clock: MockClock) -> None:
    disk = await three_groups()
    name, position = place_of(disk, bytes(batch(5, 62).payload), "wal")
    disk.spoil(name, position - position % 4096, bytes(4096))
    async with opened(disk) as store:
        assert [store.log(group).damage is None for group in (1, 2, 3)] == [True, False, True]
        with pytest.raises(StorageDamaged):
            await store.log(2).read_marks(0, 1)


async def test_where_nobody_names_what_was_lost_every_group_is_damaged(autojump_clock: MockClock) -> None:
    disk = await three_groups()
    name, position = place_of(disk, bytes(batch(5, 61).payload), "wal")
    disk.spoil(name, position - position % 4096, bytes(5 * 4096))
    async with opened(disk) as store:
        assert [store.log(group).damage is None for group in (1, 2, 3)] == [False, False, False]


async def test_a_sector_that_cannot_be_read_is_damage_and_not_an_end(autojump_clock: MockClock) -> None:
    disk = await three_groups()
    name, position = place_of(disk, bytes(batch(5, 63).payload), "wal")
    disk.make_unreadable(name, position, position)
    async with opened(disk) as store:
        assert [store.log(group).damage is None for group in (1, 2, 3)] == [True, True, False]


async def test_damage_outlives_the_flush_of_its_file_and_the_file_is_kept(autojump_clock: MockClock) -> None:
    disk = await three_groups()
    rot(disk, bytes(batch(5, 62).payload), "wal")
    async with opened(disk) as store:
        await fill_file(store, store.log(1))
        await fill_file(store, store.log(3))
        await store.flush()
    assert any(name.endswith(".damaged") for name in disk.names())
    async with opened(killed(disk)) as store:
        assert [store.log(group).damage is None for group in (1, 2, 3)] == [True, False, True]
        assert (await replayed(store.log(3)))[:10] == plain(batches(1, 10, 63))


async def test_a_deletion_in_a_lost_block_is_remembered(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        log = store.create(1)
        store.create(2)
        await append(log, [batch(1)])
        await delete(store, 1)
        name = max(name for name in disk.names() if name.endswith(".wal"))
        at = len(disk.content(name).rstrip(b"\0"))
        await append(store.log(2), [batch(1)])
        await trio.sleep(SEALED_S)
    disk.spoil(name, at - at % 4096, bytes(4096))
    async with opened(killed(disk)) as store:
        assert store.groups() == [2]
        assert store.log(2).damage is None


async def flushed() -> SimDisk:
    """Group 1 with a snapshot and a segment, group 2 with some entries in the same file."""
    disk, source = new_disk(), Source()
    async with opened(disk) as store:
        log, other = store.create(1), store.create(2)
        log.attach(source)
        await append(other, batches(1, 5, 77))
        await append(log, batches(1, 30, 300))
        source.index, source.live, source.state = 20, [(0, 10_000)], b"the state of group 1"
        await fill_file(store, log)
        await trio.sleep(SEALED_S)
    return killed(disk)


async def test_rot_in_a_segment_is_found_when_it_is_read_and_the_rest_is_served(autojump_clock: MockClock) -> None:
    disk = await flushed()
    rot(disk, bytes(batch(12, 300).payload), "segments")
    async with opened(disk) as store:
        log = store.log(1)
        assert log.damage is None
        noticed: list[object] = []
        log.on_damage = noticed.append
        assert [e.index for e in await log.read_marks(0, 1 << 20)] == list(range(1, 12))
        with pytest.raises(StorageDamaged) as caught:
            await log.read_marks(125, 1)
        assert caught.value.details["file"].startswith("segments/")
        assert noticed == [log.damage]
        assert [e.index for e in await log.read_marks(130, 1)] == [13]
        assert await replayed(store.log(2)) == plain(batches(1, 5, 77))


async def test_a_sector_of_a_segment_that_cannot_be_read_is_damage_of_what_is_in_it(
    autojump_clock: MockClock,
) -> None:
    disk = await flushed()
    name, position = place_of(disk, bytes(batch(12, 300).payload), "segments")
    disk.make_unreadable(name, position, position + 10)
    async with opened(disk) as store:
        log = store.log(1)
        with pytest.raises(StorageDamaged):
            await replayed(log)
        assert log.damage is not None
        assert log.damage.first_index <= 12 <= log.damage.last_index
        assert [e.index for e in await log.read_marks(10, 1)] == [1]


async def test_a_segment_without_its_sparse_index_is_read_from_its_start(autojump_clock: MockClock) -> None:
    disk = await flushed()
    async with opened(disk) as store:
        part = store.log(1).parts[0]
    name = f"segments/{part.number:012d}.seg"
    disk = killed(disk)
    disk.flip(name, part.index_position)
    async with opened(disk) as store:
        assert [e.index for e in await store.log(1).read_marks(155, 1)] == [15]
        assert store.log(1).damage is None


@pytest.mark.parametrize("folder", ["segments", "snapshots"])
@pytest.mark.parametrize("end", ["head", "foot"])
async def test_a_directory_has_a_second_copy(folder: str, end: str, autojump_clock: MockClock) -> None:
    disk = await flushed()
    for name in [name for name in disk.names() if name.startswith(folder)]:
        content = disk.content(name)
        at = 0 if end == "head" else (len(content) - 1) // 4096 * 4096
        disk.spoil(name, at, bytes(min(64, len(content) - at)))
    async with opened(disk) as store:
        assert [store.log(group).damage for group in (1, 2)] == [None, None]
        assert await store.log(1).load_snapshot() == (20, 1, b"the state of group 1")


async def test_a_rotten_snapshot_fences_its_group_alone(autojump_clock: MockClock) -> None:
    disk = await flushed()
    rot(disk, b"the state of group 1", "snapshots")
    async with opened(disk) as store:
        with pytest.raises(StorageDamaged):
            await store.log(1).load_snapshot()
        assert store.log(1).damage is not None
        assert await store.log(2).load_snapshot() is None
        assert store.log(2).damage is None


@pytest.mark.parametrize("folder", ["segments", "snapshots"])
async def test_a_file_whose_directory_is_gone_is_kept_and_damages_who_may_be_in_it(
    folder: str, autojump_clock: MockClock
) -> None:
    disk = await flushed()
    names = [name for name in disk.names() if name.startswith(folder)]
    for name in names:
        disk.spoil(name, 0, bytes(len(disk.content(name))))
    async with opened(disk) as store:
        assert store.groups()
        assert all(store.log(group).damage is not None for group in store.groups())
        await trio.sleep(10)
    assert set(names) <= set(disk.names())


async def test_scrubbing_finds_rot_before_anybody_reads_it(autojump_clock: MockClock) -> None:
    disk = await flushed()
    rot(disk, bytes(batch(12, 300).payload), "segments")
    async with opened(disk, replace(TINY, scrub_bytes_per_s=1 << 20, janitor_interval_ms=600_000)) as store:
        await trio.sleep(2 * 3_600)
        damage = store.log(1).damage
        assert damage is not None
        assert (damage.first_index, damage.last_index) == (12, 12)
        assert store.log(2).damage is None


async def test_rot_in_what_is_cut_off_while_it_is_read_is_no_damage(autojump_clock: MockClock) -> None:
    disk = await flushed()
    for index in (22, 25):
        rot(disk, bytes(batch(index, 300).payload), "segments")
    async with opened(disk) as store:
        log = store.log(1)
        found: list[list[Entry]] = []

        async def read(mark: int | None, index: int) -> None:
            found.append(await (log.read(index, 1) if mark is None else log.read_marks(mark, 1)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, None, 22)
            nursery.start_soon(read, 225, 22)
            await trio.testing.wait_all_tasks_blocked()
            log.truncate_after(21, lambda _: None)
        assert (found, log.damages) == ([[], []], [])
