"""Whoever waits for a group to have a leader is told when it has one, and when it never will here."""

from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import MockClock

from replication.actor import Host
from replication.group import Group
from replication.raft.membership import Membership
from replication.storage.store import Store
from tests.sim.environment import sim_environment
from tests.unit.replication.test_actor import TrioClock
from tests.unit.replication.test_failed_disk import Told
from tests.unit.storage.world import new_disk, opened


def _group(nursery: trio.Nursery, store: Store) -> Group:
    host = Host(TrioClock(), lambda actor, error: None)
    nursery.start_soon(host.run)
    tasks = sim_environment(nursery, 1, new_disk()).environment.tasks
    return Group(host, 1, 1, store.create(1), Told(), tasks, Random(1))


async def test_it_returns_when_there_is_a_leader(autojump_clock: MockClock) -> None:
    async with opened(new_disk()) as store, trio.open_nursery() as nursery:
        group = _group(nursery, store)
        known: list[int] = []

        async def wait() -> None:
            await group.led()
            known.append(group.leader_node)

        async with trio.open_nursery() as waiting:
            waiting.start_soon(wait)
            waiting.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            assert known == []
            await group.open(Membership({1: 1}))
        assert known == [1, 1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["fenced", "stopped"])
async def test_it_returns_when_there_will_be_none(how: str, autojump_clock: MockClock) -> None:
    async with opened(new_disk()) as store, trio.open_nursery() as nursery:
        group = _group(nursery, store)
        await group.open(Membership({1: 1, 2: 2}))
        async with trio.open_nursery() as waiting:
            waiting.start_soon(group.led)
            await trio.testing.wait_all_tasks_blocked()
            assert waiting.child_tasks, "nobody leads: one of two voters is not there"
            if how == "fenced":
                group.fence("as the test wants it")
            else:
                group.stop()
        assert not group.leader_node
        nursery.cancel_scope.cancel()
