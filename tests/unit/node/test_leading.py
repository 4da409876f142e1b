"""Who should lead: the preferred node; and anybody but a node that is short of disk space."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from cluster.catalogue import METADATA_GROUP, Catalogue
from node.leading import LOOK_AGAIN_MS, RELIEF_AGAIN_MS, TRANSFERS, Leading
from replication.actor import Host, Promise
from replication.group import Group
from replication.raft.followers import Follower
from replication.raft.membership import Membership
from tests.unit.replication.test_actor import TrioClock

ME, OTHER, THIRD = 1, 2, 3


class Led:
    """A group that is led here, with replicas 1, 2, 3 on the nodes of the same numbers."""

    def __init__(self, group: int, caught_up: tuple[int, ...] = (OTHER, THIRD)) -> None:
        self.group = group
        self.membership = Membership({node: node for node in (ME, OTHER, THIRD)})
        self.caught_up = caught_up
        self.asked: list[int] = []

    def followers(self) -> list[Follower]:
        return [Follower(node, node, True, node in self.caught_up, 0) for node in (OTHER, THIRD)]

    def transfer(self, replica: int) -> Promise[None]:
        self.asked.append(replica)
        return Promise()


class House:
    """A node with its Leading; every node may lead unless it is in `closed`."""

    def __init__(self) -> None:
        self.closed: set[int] = set()
        self.leaving: dict[int, None] = {}
        self.host = Host(TrioClock(), self.failed)
        self.leading = Leading(
            self.host, Catalogue(), ME, lambda node: node not in self.closed, self.leaving, spreads=False
        )

    def failed(self, actor: Any, error: Exception) -> None:
        raise error

    def leads(self, *groups: Led) -> None:
        for group in groups:
            self.leading.standing(cast(Group, group), True)

    def lost(self, group: Led) -> None:
        self.leading.standing(cast(Group, group), False)


@pytest.fixture
async def house(nursery: trio.Nursery, autojump_clock: MockClock) -> House:
    found = House()
    nursery.start_soon(found.host.run)
    return found


async def test_a_node_that_is_short_hands_over_all_that_it_leads_the_catalogue_too_in_turns(house: House) -> None:
    groups = [Led(METADATA_GROUP), Led(7), Led(8), Led(9)]
    house.leads(*groups)
    await trio.sleep(2 * LOOK_AGAIN_MS / 1_000)
    assert [group.asked for group in groups] == [[], [], [], []]
    house.leading.relieve(True)
    assert house.leaving.keys() == {METADATA_GROUP, 7, 8, 9}
    await trio.sleep(RELIEF_AGAIN_MS / 2_000)
    assert sorted(group.asked[0] for group in groups) == [OTHER, OTHER, THIRD, THIRD]
    for group in groups:
        house.lost(group)
    assert house.leaving == {}


async def test_it_goes_on_in_rounds_and_with_what_it_comes_to_lead_meanwhile(house: House) -> None:
    groups = [Led(number) for number in range(1, TRANSFERS + 11)]
    house.leads(*groups)
    house.leading.relieve(True)
    await trio.sleep(RELIEF_AGAIN_MS / 2_000)
    asked = [group for group in groups if group.asked]
    assert len(asked) == TRANSFERS
    for group in asked:
        house.lost(group)
    late = Led(1_000)
    house.leads(late)
    await trio.sleep(RELIEF_AGAIN_MS / 1_000)
    assert all(group.asked for group in [*groups, late])


async def test_it_waits_for_somebody_who_is_caught_up_and_publishes_wait_with_it(house: House) -> None:
    group = Led(7, caught_up=())
    house.leads(group)
    house.leading.relieve(True)
    await trio.sleep(10)
    assert (group.asked, house.leaving.keys()) == ([], {7})
    group.caught_up = (THIRD,)
    await trio.sleep(20)
    assert group.asked[0] == THIRD


async def test_nobody_waits_for_what_nobody_else_can_lead(house: House) -> None:
    house.closed |= {OTHER, THIRD}
    group = Led(7)
    house.leads(group)
    house.leading.relieve(True)
    await trio.sleep(10)
    assert (group.asked, house.leaving) == ([], {})
    house.closed.discard(OTHER)
    house.leading.look()
    assert house.leaving.keys() == {7}
    await trio.sleep(0.01)
    assert group.asked == [OTHER]


async def test_with_space_again_nothing_is_handed_over_any_more(house: House) -> None:
    house.leading.relieve(True)
    house.leading.relieve(False)
    group = Led(7)
    house.leads(group)
    await trio.sleep(10)
    assert (group.asked, house.leaving) == ([], {})
