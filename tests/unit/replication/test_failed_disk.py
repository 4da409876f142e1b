"""A group whose disk has failed ends, and whoever was about to write hears of it behind what they wrote."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
import trio
from trio.testing import MockClock

from replication.actor import Host
from replication.group import Group
from replication.machine import Entry, Proposal, Range, Role, RoleChange
from replication.raft.membership import Membership
from replication.storage.damage import StorageFailed
from replication.storage.store import Store
from tests.sim.environment import sim_environment
from tests.sim.faults import Fault, FaultKind, OperationKind, PlannedFaults
from tests.unit.replication.test_actor import TrioClock
from tests.unit.storage.world import batch, new_disk, opened


class Told:
    """A state machine that keeps what it is told of its role."""

    def __init__(self) -> None:
        self.changes: list[RoleChange] = []
        self.ready = trio.Event()
        self.fenced = trio.Event()

    def apply(self, entries: Sequence[Entry]) -> None:
        """See StateMachine."""

    def snapshot(self) -> bytes:
        return b""

    def restore(self, state: bytes) -> None:
        """See StateMachine."""

    def live_entries(self) -> Sequence[Range]:
        return ()

    def role_changed(self, change: RoleChange) -> None:
        self.changes.append(change)
        if change.ready:
            self.ready.set()
        if change.role is Role.FENCED:
            self.fenced.set()


async def test_a_write_behind_a_failure_of_the_disk_is_finished_before_the_replica_ends(
    autojump_clock: MockClock,
) -> None:
    disk = new_disk()
    seen: list[tuple[int, Role]] = []
    ended = trio.Event()

    async def run(store: Store) -> None:
        with pytest.raises(StorageFailed):
            await store.run()
        ended.set()

    async with opened(disk, run=False) as store, trio.open_nursery() as nursery:
        nursery.start_soon(run, store)
        host = Host(TrioClock(), lambda actor, error: None)
        nursery.start_soon(host.run)
        machine = Told()
        tasks = sim_environment(nursery, 1, disk).environment.tasks
        group = Group(host, 1, 1, store.create(1), machine, tasks, Random(1))
        await group.open(Membership({1: 1}))
        await machine.ready.wait()

        def other_write_failed(error: Exception | None) -> None:
            index = group.propose([Proposal(1, 1, 1, b"late")], group.term)
            seen.append((index, machine.changes[-1].role))

        disk.faults = PlannedFaults([Fault(0, FaultKind.IO_ERROR, only=OperationKind.SYNC, name="wal")])
        store.create(2).append([batch(1)], None, other_write_failed)
        await ended.wait()
        await machine.fenced.wait()
        assert seen == [(3, Role.LEADER)], "it heard nothing of its end while it still wrote"
        assert group.failure.startswith("the log could not be written")
        nursery.cancel_scope.cancel()
