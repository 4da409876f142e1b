"""A data directory counts its openings: the number never falls, whatever crashes or rots."""

from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import MockClock

from replication.storage.store import Store
from tests.sim.crash import Survival
from tests.sim.disk import CrashHere, SimDisk
from tests.sim.environment import sim_environment
from tests.sim.faults import CHANGES, Operation
from tests.unit.storage.world import TINY, append, batch, killed, new_disk, opened


async def test_it_is_one_in_an_empty_directory_and_rises_by_one(autojump_clock: MockClock) -> None:
    disk = new_disk()
    for life in (1, 2, 3):
        async with opened(disk) as store:
            assert (store.life, store.empty_at_open) == (life, True)
        disk = killed(disk)
    async with opened(disk) as store:
        await append(store.create(1), [batch(1)])
    async with opened(killed(disk)) as store:
        assert (store.life, store.empty_at_open) == (5, False)


async def test_a_deleted_group_is_something_too(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        await append(store.create(1), [batch(1)])
        store.delete(1, lambda error: None)
        await trio.sleep(1)
    async with opened(killed(disk)) as store:
        assert not store.empty_at_open


async def test_a_directory_from_which_something_was_taken_is_not_empty(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        await append(store.create(1), [batch(1)])
    disk = killed(disk)
    for name in disk.names():
        if name.startswith("wal"):
            disk.unlink(name)
    async with opened(disk) as store:
        assert store.groups() == []
        assert not store.empty_at_open


@pytest.mark.parametrize("copies", [(0,), (4_096,), (0, 4_096)])
async def test_rot_does_not_let_it_fall(copies: tuple[int, ...], autojump_clock: MockClock) -> None:
    disk = new_disk()
    for _ in range(4):
        async with opened(disk) as store:
            before = store.life
        disk = killed(disk)
    for position in copies:
        disk.flip("life", position + 9)
    async with opened(disk) as store:
        assert store.life > before
    async with opened(killed(disk)) as store:
        assert store.life > before + 1


async def test_a_full_disk_has_lives_too(autojump_clock: MockClock) -> None:
    disk = new_disk()
    async with opened(disk) as store:
        await append(store.create(1), [batch(1)])
    disk = killed(disk)
    disk.unlink("life")
    async with opened(disk) as store:
        assert store.life > 1


async def life_of(disk: SimDisk) -> int | None:
    """What the next process is told; None: it died before."""
    async with trio.open_nursery() as nursery:
        try:
            return (await Store.open(sim_environment(nursery, 1, disk).environment, TINY)).life
        except CrashHere:
            return None


def die_at(disk: SimDisk, number: int) -> None:
    """Crash the disk before that change of it."""
    changes = 0

    def before(operation: Operation) -> None:
        nonlocal changes
        changes += operation.kind in CHANGES
        if changes == number:
            disk.dead = True
            raise CrashHere

    disk.before = before


@pytest.mark.parametrize("survival", list(Survival))
async def test_wherever_an_opening_is_cut_short_no_number_comes_twice(
    survival: Survival, autojump_clock: MockClock
) -> None:
    disk = new_disk()
    told = [await life_of(disk) or 0]
    for crash in range(1, 40):
        disk = disk.crash(survival, Random(crash))
        die_at(disk, crash)
        life = await life_of(disk)
        if life is None:
            disk = disk.crash(survival, Random(crash))
            life = await life_of(disk)
        assert life is not None
        told.append(life)
    assert told == sorted(set(told))
