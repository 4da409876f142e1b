"""The simulated disk keeps what was synced, and may do anything that a drive may with the rest."""

from __future__ import annotations

import errno
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replication.environment import Disk, File
from tests.sim.crash import Survival
from tests.sim.disk import CrashHere, SimDisk
from tests.sim.faults import Fault, FaultKind, OperationKind, PlannedFaults, SeededFaults

POWER_CUTS = [how for how in Survival if how is not Survival.KILLED]


def disk_with(*plan: Fault, **options: int) -> SimDisk:
    return SimDisk(Random(1), faults=PlannedFaults(plan), **options)


def with_file(disk: SimDisk, content: bytes = b"", name: str = "a") -> File:
    """A file whose name and content are durable."""
    file = disk.create(name)
    file.pwrite([content], 0)
    file.sync()
    disk.sync_folder("")
    return file


def outcomes(disk: SimDisk, survival: Survival, name: str = "a", tries: int = 200) -> set[bytes | None]:
    """What different crashes of one kind leave of a file; None: no such file."""
    found: set[bytes | None] = set()
    for seed in range(tries):
        after = disk.copy(Random(0)).crash(survival, Random(seed))
        found.add(after.content(name) if name in after.names() else None)
    return found


def test_it_is_an_environment_disk() -> None:
    disk: Disk = disk_with()
    file: File = disk.create("a", 10)
    file.pwrite([b"ab", memoryview(b"cd")], 4)
    assert file.pread(100, 2) == b"\0\0abcd\0\0"
    assert file.pread(3, 4) == b"abc"
    assert file.pread(3, 10) == b""
    file.truncate(6)
    file.pwrite([b"x"], 8)
    assert file.pread(100, 0) == b"\0\0\0\0ab\0\0x"
    assert file.size() == 9


def test_names_behave_as_in_a_directory() -> None:
    disk = disk_with()
    disk.make_folder("deep/er")
    with pytest.raises(FileNotFoundError):
        disk.create("nowhere/a")
    disk.create("deep/er/b")
    disk.create("deep/er/a")
    with pytest.raises(FileExistsError):
        disk.create("deep/er/a")
    assert disk.list("deep/er") == ["a", "b"]
    assert disk.list("deep") == disk.list("other") == []
    disk.rename("deep/er/a", "deep/er/b")
    assert disk.list("deep/er") == ["b"]
    disk.unlink("deep/er/b")
    with pytest.raises(FileNotFoundError):
        disk.open("deep/er/b")


@pytest.mark.parametrize("survival", list(Survival))
def test_what_was_synced_survives_every_crash(survival: Survival) -> None:
    disk = disk_with()
    with_file(disk, b"kept")
    assert outcomes(disk, survival) == {b"kept"}


def test_unsynced_bytes_are_kept_lost_or_torn_by_sector() -> None:
    disk = disk_with()
    file = with_file(disk, bytes(1024))
    file.pwrite([b"1" * 512, b"2" * 512], 0)
    old, first, second = bytes(512), b"1" * 512, b"2" * 512
    assert outcomes(disk, Survival.NOTHING) == {old + old}
    assert outcomes(disk, Survival.EVERYTHING) == {first + second}
    assert outcomes(disk, Survival.PREFIX) == {old + old, first + old, first + second}
    assert outcomes(disk, Survival.SUBSET) == {old + old, first + old, old + second, first + second}
    assert outcomes(disk, Survival.KILLED) == {first + second}


def test_large_sectors_are_written_whole_or_not() -> None:
    disk = disk_with(sector_bytes=4096)
    file = with_file(disk, bytes(8192))
    file.pwrite([b"x" * 4096], 2048)
    pieces = {(content[2048:4096], content[4096:6144]) for content in outcomes(disk, Survival.SUBSET) if content}
    old, new = bytes(2048), b"x" * 2048
    assert pieces == {(old, old), (old, new), (new, old), (new, new)}


def test_writes_reach_the_platter_in_any_order() -> None:
    disk = disk_with()
    file = with_file(disk, bytes(1024))
    file.pwrite([b"1" * 512], 0)
    file.pwrite([b"2" * 512], 512)
    assert bytes(512) + b"2" * 512 in outcomes(disk, Survival.SUFFIX)


def test_a_write_in_between_may_be_the_one_that_survives() -> None:
    disk = disk_with()
    file = with_file(disk, b"0")
    file.pwrite([b"1"], 0)
    file.pwrite([b"2"], 0)
    assert outcomes(disk, Survival.SUBSET) == {b"0", b"1", b"2"}


def test_garbage_is_left_only_in_sectors_that_were_being_written() -> None:
    disk = disk_with()
    file = with_file(disk, b"0" * 1536)
    file.pwrite([b"1" * 100], 512)
    found = [content for content in outcomes(disk, Survival.GARBAGE) if content is not None]
    assert all(content[:512] == content[1024:] == b"0" * 512 for content in found)
    assert any(content[612:1024] != b"0" * 412 for content in found), "synced bytes of a dirty sector can rot"


def test_a_grown_file_may_come_back_short_or_as_zeros() -> None:
    disk = disk_with()
    file = with_file(disk)
    file.pwrite([b"1" * 1000], 0)
    sizes = {len(content or b"") for content in outcomes(disk, Survival.SUBSET)}
    assert sizes == {0, 512, 1000}
    assert bytes(1000) in outcomes(disk, Survival.SUBSET)


@pytest.mark.parametrize("survival", [Survival.SUBSET, Survival.PREFIX, Survival.GARBAGE])
def test_a_new_name_may_be_lost_until_its_folder_is_synced(survival: Survival) -> None:
    disk = disk_with()
    disk.create("a").sync()
    assert outcomes(disk, survival) == {None, b""}
    disk.sync_folder("")
    assert outcomes(disk, survival) == {b""}


def test_a_rename_may_be_lost_until_its_folder_is_synced() -> None:
    disk = disk_with()
    with_file(disk, b"old")
    with_file(disk, b"new", "a.tmp")
    disk.rename("a.tmp", "a")
    assert outcomes(disk, Survival.SUBSET) == {b"old", b"new"}
    assert outcomes(disk, Survival.SUBSET, "a.tmp") == {b"new", None}
    disk.sync_folder("")
    assert outcomes(disk, Survival.SUBSET) == {b"new"}


def test_a_renamed_file_that_was_never_synced_is_there_without_its_bytes() -> None:
    disk = disk_with()
    disk.create("a.tmp").pwrite([b"new"], 0)
    disk.rename("a.tmp", "a")
    disk.sync_folder("")
    assert outcomes(disk, Survival.NOTHING) == {b""}


def test_an_unlinked_file_may_come_back() -> None:
    disk = disk_with()
    with_file(disk, b"old")
    disk.unlink("a")
    assert outcomes(disk, Survival.SUBSET) == {b"old", None}


def test_a_folder_is_lost_with_all_in_it_until_the_one_around_it_is_synced() -> None:
    disk = disk_with()
    disk.make_folder("log")
    disk.create("log/1").sync()
    disk.sync_folder("log")
    assert outcomes(disk, Survival.NOTHING, "log/1") == {None}
    disk.sync_folder("")
    assert outcomes(disk, Survival.NOTHING, "log/1") == {b""}


def test_a_killed_process_leaves_its_writes_in_a_cache_that_power_still_takes_away() -> None:
    disk = disk_with()
    with_file(disk, b"old").pwrite([b"new"], 0)
    after = disk.crash(Survival.KILLED, Random(1))
    assert after.content("a") == b"new"
    assert outcomes(after, Survival.NOTHING) == {b"old"}
    after.open("a").sync()
    assert outcomes(after, Survival.NOTHING) == {b"new"}


def test_a_failed_sync_drops_its_pages_and_the_next_one_succeeds_without_them() -> None:
    disk = disk_with(Fault(1, FaultKind.IO_ERROR, only=OperationKind.SYNC))
    file = disk.create("a")
    disk.sync_folder("")
    file.pwrite([b"x" * 4096], 0)
    with pytest.raises(OSError, match="sync failed") as raised:
        file.sync()
    assert raised.value.errno == errno.EIO
    assert file.pread(4096, 0) == b"x" * 4096, "reads still see the page"
    file.sync()
    (after,) = outcomes(disk, Survival.EVERYTHING)
    assert after != b"x" * 4096


def test_a_failed_sync_may_show_the_old_bytes_at_once() -> None:
    disk = disk_with(Fault(4, FaultKind.IO_ERROR, argument=1, only=OperationKind.SYNC), sector_bytes=4096)
    file = with_file(disk, b"0" * 8192)
    file.pwrite([b"1" * 8192], 0)
    with pytest.raises(OSError, match="sync failed"):
        file.sync()
    assert file.pread(8192, 0) == next(iter(outcomes(disk, Survival.NOTHING)))


@pytest.mark.parametrize("room", [0, 1, 511, 512, 999])
def test_a_full_disk_takes_what_fits_and_refuses(room: int) -> None:
    disk = disk_with(capacity_bytes=room)
    file = disk.create("a")
    with pytest.raises(OSError, match="no space") as raised:
        file.pwrite([b"x" * 1000], 0)
    assert raised.value.errno == errno.ENOSPC
    assert file.size() == room
    assert disk.free_bytes() == 0
    with pytest.raises(OSError, match="no space"):
        disk.create("b", 1)
    disk.unlink("a")
    assert disk.free_bytes() == room


def test_allocated_bytes_can_be_written_on_a_full_disk() -> None:
    disk = disk_with(capacity_bytes=1000)
    disk.create("a", 1000).pwrite([b"x" * 1000], 0)


def test_a_planned_write_error_leaves_a_prefix() -> None:
    disk = disk_with(Fault(1, FaultKind.IO_ERROR, 3), Fault(1, FaultKind.NO_SPACE, 2, only=OperationKind.WRITE))
    with pytest.raises(OSError, match="input/output"):
        disk.create("a")
    file = disk.create("a")
    with pytest.raises(OSError, match="write failed"):
        file.pwrite([b"abcdef"], 0)
    assert file.pread(9, 0) == b"ab"


def test_reads_can_fail_until_the_sector_is_written_again() -> None:
    disk = disk_with()
    file = with_file(disk, b"x" * 2048)
    disk.make_unreadable("a", 512, 1023)
    assert file.pread(512, 0) == b"x" * 512
    with pytest.raises(OSError, match="unreadable"):
        file.pread(2, 511)
    file.pwrite([b"y" * 512], 512)
    assert file.pread(2, 511) == b"xy"


def test_a_lost_write_looks_done_until_the_cache_is_gone() -> None:
    disk = disk_with(Fault(1, FaultKind.LOST_WRITE, name="b"))
    with_file(disk, b"there", "a")
    with_file(disk, b"gone", "b")
    assert disk.content("b") == b"gone"
    assert outcomes(disk, Survival.EVERYTHING, "a") == {b"there"}
    assert outcomes(disk, Survival.EVERYTHING, "b") == {b""}


def test_a_misdirected_write_lands_on_other_sectors() -> None:
    disk = disk_with(Fault(4, FaultKind.MISDIRECTED_WRITE, 1))
    file = with_file(disk, b"0" * 2048)
    file.pwrite([b"1" * 512], 0)
    file.sync()
    assert file.pread(2048, 0) == b"1" * 512 + b"0" * 1536
    assert outcomes(disk, Survival.EVERYTHING) == {b"0" * 1024 + b"1" * 512 + b"0" * 512}


def test_bits_flip_on_the_platter() -> None:
    disk = disk_with(Fault(5, FaultKind.BIT_FLIP, 8 * 2 + 1))
    file = with_file(disk, b"\0\0\0")
    assert file.pread(3, 0) == b"\0\0\0"
    assert file.pread(3, 0) == b"\0\0\0", "the page cache hides it"
    assert outcomes(disk, Survival.EVERYTHING) == {b"\0\0\x02"}
    disk.flip("a", 0, 7)
    assert file.pread(3, 0) == b"\x80\0\0"


def test_an_older_image_can_be_put_back() -> None:
    disk = disk_with()
    file = with_file(disk, b"1")
    image = disk.copy(Random(1))
    file.pwrite([b"2"], 0)
    file.sync()
    assert image.content("a") == b"1"
    assert disk.content("a") == b"2"


@pytest.mark.parametrize(
    ("kind", "left"),
    [(FaultKind.CRASH_BEFORE, b"old"), (FaultKind.CRASH_DURING, b"nld"), (FaultKind.CRASH_AFTER, b"new")],
)
def test_a_run_can_be_crashed_at_one_operation(kind: FaultKind, left: bytes) -> None:
    disk = disk_with(Fault(5, kind, 1))
    file = with_file(disk, b"old")
    with pytest.raises(CrashHere):
        file.pwrite([b"new"], 0)
    for call in (file.sync, file.close, lambda: disk.open("a"), lambda: disk.list("")):
        with pytest.raises(CrashHere):
            call()
    after = disk.crash(Survival.KILLED, Random(1))
    assert after.content("a") == left


def test_a_lock_is_given_back_by_the_end_of_the_process_only() -> None:
    disk = disk_with()
    disk.lock("lock")
    with pytest.raises(BlockingIOError):
        disk.lock("lock")
    disk.crash(Survival.KILLED, Random(1)).lock("lock")


def busy(seed: int) -> SimDisk:
    """A disk after a random history under random faults, crashed."""
    random = Random(seed)
    rates = {FaultKind.IO_ERROR: 0.05, FaultKind.LOST_WRITE: 0.05, FaultKind.MISDIRECTED_WRITE: 0.05}
    disk = SimDisk(random, faults=SeededFaults(random, rates), capacity_bytes=60_000)
    for _ in range(60):
        name = random.choice("abc")
        try:
            file = disk.open(name) if name in disk.names() else disk.create(name, random.randrange(3000))
            file.pwrite([random.randbytes(random.randrange(2000))], random.randrange(9000))
            if random.random() < 0.3:
                file.sync()
            if random.random() < 0.2:
                disk.rename(name, random.choice("abc"))
            if random.random() < 0.2:
                disk.sync_folder("")
        except OSError:
            continue
    return disk.crash(random.choice(list(Survival)), random)


def test_equal_seeds_give_equal_disks() -> None:
    digests = [busy(seed).digest() for seed in range(30)]
    assert digests == [busy(seed).digest() for seed in range(30)]
    assert len(set(digests)) == 30


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "truncate", "sync"]), st.integers(0, 9000), st.binary(max_size=2000)),
        max_size=12,
    ),
    st.sampled_from(POWER_CUTS),
    st.integers(0, 1000),
)
def test_reads_follow_writes_and_a_crash_leaves_only_bytes_that_some_write_put_there(
    steps: list[tuple[str, int, bytes]], survival: Survival, seed: int
) -> None:
    disk = disk_with()
    file = with_file(disk)
    model = bytearray()
    possible: list[set[int]] = [{0} for _ in range(12_000)]
    for step, position, data in steps:
        if step == "write":
            file.pwrite([data], position)
            if data:
                model.extend(bytes(max(position + len(data) - len(model), 0)))
                model[position : position + len(data)] = data
            for at, byte in enumerate(data, position):
                possible[at].add(byte)
        elif step == "truncate":
            file.truncate(position)
            model[:] = model[:position].ljust(position, b"\0")
        else:
            file.sync()
            possible = [{byte} for byte in model.ljust(len(possible), b"\0")]
        assert file.pread(20_000, 0) == model
    if survival is Survival.GARBAGE:
        return
    after = disk.crash(survival, Random(seed)).content("a")
    assert all(byte in possible[at] or byte == 0 for at, byte in enumerate(after))
