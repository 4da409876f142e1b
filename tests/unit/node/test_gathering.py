"""All is led where the catalogue is led."""

from __future__ import annotations

from typing import cast

import trio
import trio.testing

from node.gathering import TRANSFERS, Gathering
from node.members import Members
from plait.wire.errors import Unavailable
from replication.actor import Host, Promise, rejected
from replication.group import Group
from tests.unit.replication.test_actor import TrioClock


class Led:
    """A group that this node leads until it has handed it over."""

    def __init__(self, number: int, gathering: Gathering, refusals: int = 0) -> None:
        self.group = number
        self.given_to: list[int] = []
        self._gathering = gathering
        self._refusals = refusals

    def transfer(self, replica: int) -> Promise[None]:
        self.given_to.append(replica)
        if len(self.given_to) <= self._refusals:
            return rejected(Unavailable("not now"))
        self._gathering.standing(cast(Group, self), False)
        promise: Promise[None] = Promise()
        promise.resolve(None)
        return promise


async def test_what_this_node_leads_goes_where_the_catalogue_is_led(
    autojump_clock: trio.testing.MockClock,
) -> None:
    point = 1
    host = Host(TrioClock(), lambda actor, error: None)
    gathering = Gathering(host, Members(1, [1, 2, 3]), lambda: point)
    groups = [Led(number, gathering, refusals=number % 2) for number in range(3 * TRANSFERS)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.run)
        for group in groups:
            gathering.standing(cast(Group, group), True)
        await trio.sleep(10)
        assert not any(group.given_to for group in groups), "they are where they should be"
        assert gathering.alarm_ns is None, "and that costs nothing"
        point = 0
        gathering.look()
        await trio.sleep(5)
        assert not any(group.given_to for group in groups), "nobody knows where to"
        point = 3
        await trio.sleep(10)
        assert [group.given_to for group in groups] == [[3] * (1 + group.group % 2) for group in groups]
        assert gathering.alarm_ns is None
        nursery.cancel_scope.cancel()
