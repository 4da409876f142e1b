"""A replica that cannot go on ends alone: what it had is given back, and nothing else on its node ends with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from random import Random

import trio
from trio.testing import MockClock

from replication.actor import Host
from replication.group import Group
from replication.raft.membership import Membership
from replication.raft.messages import Append, Lost, Message, SnapshotOffer
from replication.storage.log import GroupLog
from replication.storage.store import Store
from tests.sim.environment import sim_environment
from tests.unit.replication.test_actor import TrioClock
from tests.unit.replication.test_failed_disk import Told
from tests.unit.storage.world import append, batch, new_disk, opened

THREE = Membership({1: 1, 2: 2, 3: 3})


class Links:
    """Links to nodes that hear nothing, and the places of those that campaign."""

    def __init__(self) -> None:
        self.places: set[int] = set()
        self.campaigned = trio.Event()

    def send(self, group_id: int, node_id: int, message: Message) -> None:
        """See Links."""

    def asleep(self, group: int, term: int, leader_node: int, follower_nodes: Iterable[int]) -> None:
        """See Links."""

    def awake(self, group: int) -> None:
        """See Links."""

    def may_campaign(self, group: int, turn: Callable[[], None]) -> bool:
        self.places.add(group)
        self.campaigned.set()
        return True

    def campaign_over(self, group: int) -> None:
        self.places.discard(group)


class Strange:
    """Snapshots of a version that is not known here."""

    async def fetch(
        self,
        log: GroupLog,
        node_id: int,
        offer: SnapshotOffer,
        agreed_index: int,
        installed: Callable[[int, bytes], None],
    ) -> tuple[int, bytes]:
        state = b"of another version"
        install = log.begin_install(offer.index, offer.index_term, agreed_index)
        await install.commit(state, None, 0, partial(installed, offer.index, state))
        return offer.index, state


@asynccontextmanager
async def replica(links: Links) -> AsyncIterator[tuple[Store, Group, Told]]:
    """Replica 1 of group 1."""
    disk = new_disk()
    async with opened(disk) as store, trio.open_nursery() as nursery:
        host = Host(TrioClock(), lambda actor, error: None)
        nursery.start_soon(host.run)
        machine = Told()
        tasks = sim_environment(nursery, 1, disk).environment.tasks
        group = Group(host, 1, 1, store.create(1), machine, tasks, Random(1), links, Strange())
        await group.open(THREE)
        yield store, group, machine
        nursery.cancel_scope.cancel()


async def test_a_snapshot_that_the_state_machine_cannot_read_ends_its_replica_and_nothing_else(
    autojump_clock: MockClock,
) -> None:
    async with replica(Links()) as (store, group, machine):
        group.receive(2, SnapshotOffer(2, 1, 3, 50, 3, 1))
        await machine.fenced.wait()
        assert "snapshot at 50" in group.failure
        other = store.create(2)
        await append(other, [batch(1)])
        await other.snapshot_now()  # the flushes go on


async def test_a_replica_that_is_told_of_its_loss_says_so_to_those_who_can_replace_it(
    autojump_clock: MockClock,
) -> None:
    async with replica(Links()) as (_, group, machine):
        group.receive(2, Append(2, 1, 3, 1, 1, [], 1, 1))
        group.receive(2, Lost(2, 1, 3, 40))
        await machine.fenced.wait()
        assert group.lost


async def test_a_replica_that_ends_gives_its_place_among_those_that_campaign_back(
    autojump_clock: MockClock,
) -> None:
    links = Links()
    async with replica(links) as (_, group, _machine):
        await links.campaigned.wait()
        assert links.places == {1}
        group.fence("for a test")
        assert links.places == set()
