"""What a node knows of itself survives crashes and rot, and never goes back."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import cbor2
import pytest

from node.identity import COPY_BYTES, FILES, NodeIdentity, read_identity, write_identity
from plait.wire.errors import StorageDamaged
from replication.crc import crc32c
from replication.peers.lives import PAST_LIVES_MAX, Life
from tests.sim.crash import Survival
from tests.sim.disk import CrashHere, SimDisk
from tests.sim.faults import Fault, FaultKind, OperationKind, PlannedFaults

FIRST = NodeIdentity(2, 12345, 1)
FOUNDED = replace(FIRST, starts=2, founders={1: 11, 2: 12345, 3: 33}, past={1: 7, 2: 8}).having_met(3, Life(5, 9))


def test_an_empty_disk_belongs_to_nobody() -> None:
    assert read_identity(SimDisk(Random(1))) is None


@pytest.mark.parametrize("identity", [FIRST, FOUNDED])
@pytest.mark.parametrize("survival", list(Survival))
def test_what_was_written_is_there_after_any_crash(identity: NodeIdentity, survival: Survival) -> None:
    disk = SimDisk(Random(1))
    write_identity(disk, FIRST)
    write_identity(disk, identity)
    assert read_identity(disk.crash(survival, Random(2))) == identity


@pytest.mark.parametrize("name", FILES)
def test_one_rotten_copy_is_no_harm(name: str) -> None:
    disk = SimDisk(Random(1))
    write_identity(disk, FOUNDED)
    disk.flip(name, 3)
    assert read_identity(disk) == FOUNDED


@pytest.mark.parametrize("name", FILES)
def test_a_crash_while_writing_beside_a_rotten_copy_leaves_the_good_one(name: str) -> None:
    for argument in range(0, COPY_BYTES, 997):
        disk = SimDisk(Random(1))
        write_identity(disk, FIRST)
        disk.flip(name, 3)
        disk.faults = PlannedFaults(
            [Fault(disk.operations, FaultKind.CRASH_DURING, argument, only=OperationKind.WRITE)]
        )
        with pytest.raises(CrashHere):
            write_identity(disk, FOUNDED)
        assert read_identity(disk.crash(Survival.KILLED, Random(2))) in (FIRST, FOUNDED)


def test_a_full_disk_still_takes_the_next_start() -> None:
    disk = SimDisk(Random(1))
    write_identity(disk, FIRST)
    disk.capacity_bytes = 0
    write_identity(disk, FOUNDED)
    assert read_identity(disk) == FOUNDED


def test_facts_outgrow_their_room_and_shrink_again() -> None:
    many = replace(FOUNDED, founders={node: 1 << 60 | node for node in range(1, 2_000)})
    disk = SimDisk(Random(1))
    for identity in (FIRST, many, FOUNDED):
        write_identity(disk, identity)
        assert read_identity(disk) == identity


def test_two_rotten_copies_end_the_node() -> None:
    disk = SimDisk(Random(1))
    write_identity(disk, FOUNDED)
    for name in FILES:
        disk.flip(name, 3)
    with pytest.raises(StorageDamaged):
        read_identity(disk)


def test_of_two_copies_the_later_start_counts() -> None:
    disk = SimDisk(Random(1))
    write_identity(disk, FIRST)
    old = disk.content(FILES[0])
    write_identity(disk, FOUNDED)
    disk.unlink(FILES[0])
    disk.create(FILES[0]).pwrite([old], 0)
    assert read_identity(disk) == FOUNDED


def test_all_founders_find_the_same_id_and_other_disks_another() -> None:
    mine = FOUNDED.cluster_id
    assert replace(FOUNDED, node_id=3, disk=33, founders={3: 33, 1: 11, 2: 12345}).cluster_id == mine
    assert replace(FOUNDED, founders={1: 11, 2: 12345, 3: 34}).cluster_id != mine


def test_a_file_of_the_first_format_is_read() -> None:
    disk = SimDisk(Random(1))
    body = cbor2.dumps([1, 2, 12345, 4, [[1, 11], [2, 12345]]])
    disk.create(FILES[0]).pwrite([body + crc32c(body).to_bytes(4, "big")], 0)
    assert read_identity(disk) == NodeIdentity(2, 12345, 4, {1: 11, 2: 12345})


def test_the_latest_starts_are_remembered_and_those_in_which_another_node_was_met() -> None:
    identity = FIRST
    for mark in range(1, 3 * PAST_LIVES_MAX):
        identity = identity.started(mark)
        if mark == 5:
            identity = identity.having_met(3, Life(1, 1))
    latest = identity.starts
    assert sorted(identity.past) == [6, *range(latest - PAST_LIVES_MAX + 1, latest + 1)]
    assert identity.past[6] == 5
