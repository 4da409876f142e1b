"""Groups are told what happened to nodes: all of them, in order, in slices, and not what was taken back."""

from __future__ import annotations

import pytest

from replication.actor import Actor, Host, MailboxFull
from replication.peers.campaigns import Campaigns
from replication.peers.line import Line
from replication.peers.news import SLICE_GROUPS, GroupMember, News
from replication.raft.messages import Message
from tests.sim.environment import SimClock


class Member:
    def __init__(self, group: int, told: list[tuple[int, str]], *, fails: Exception | None = None) -> None:
        self.group = group
        self._told = told
        self._fails = fails

    def receive(self, node_id: int, message: Message) -> None:
        raise AssertionError("news are no messages")

    def node_down(self, node_id: int) -> None:
        self._tell(f"down {node_id}")

    def node_up(self, node_id: int) -> None:
        self._tell(f"up {node_id}")

    def unreachable(self, node_id: int) -> None:
        self._tell(f"unreachable {node_id}")

    def wake(self) -> None:
        self._tell("wake")

    def _tell(self, what: str) -> None:
        if self._fails is not None:
            raise self._fails
        self._told.append((self.group, what))


class Turns(Host):
    """A host whose turns the test takes."""

    def __init__(self) -> None:
        super().__init__(SimClock(), self._defect)
        self.waiting: list[Actor] = []
        self.alarms: dict[Actor, int] = {}

    def schedule(self, actor: Actor) -> None:
        self.waiting.append(actor)

    def alarm(self, deadline_ns: int, actor: Actor, message: object) -> None:
        self.alarms[actor] = deadline_ns

    def turn(self) -> bool:
        """One turn of everything that waits; False: nothing did."""
        waiting, self.waiting = self.waiting, []
        for actor in waiting:
            actor.drain()
        return bool(waiting)

    def _defect(self, actor: Actor, error: Exception) -> None:
        raise error


def world(groups: int) -> tuple[Turns, News, list[tuple[int, str]]]:
    told: list[tuple[int, str]] = []
    members: dict[int, GroupMember] = {group: Member(group, told) for group in range(groups)}
    host = Turns()
    return host, News(host, members), told


def test_all_groups_are_told_in_order_and_in_slices() -> None:
    host, news, told = world(3 * SLICE_GROUPS)
    news.node_changed(7, up=False)
    news.node_changed(7, up=True)
    sizes = []
    while host.turn():
        sizes.append(len(told))
    assert max(after - before for before, after in zip([0, *sizes], sizes, strict=False)) == SLICE_GROUPS
    groups = range(3 * SLICE_GROUPS)
    assert told == [(group, "down 7") for group in groups] + [(group, "up 7") for group in groups]


def test_what_was_taken_back_before_anybody_heard_of_it_is_not_told() -> None:
    host, news, told = world(1)
    for up in (False, True, False, True, False):
        news.node_changed(7, up)
    news.node_changed(8, up=True)
    while host.turn():
        pass
    assert told == [(0, "down 7"), (0, "up 8")]


def test_single_groups_are_told_too_and_those_that_are_gone_are_left_out() -> None:
    host, news, told = world(5)
    news.wake([3, 99])
    news.unreachable(7, [1, 98])
    while host.turn():
        pass
    assert told == [(3, "wake"), (1, "unreachable 7")]


@pytest.mark.parametrize("error", [MailboxFull("full"), ZeroDivisionError()])
def test_a_group_that_cannot_listen_keeps_nothing_from_the_others(error: Exception) -> None:
    told: list[tuple[int, str]] = []
    members: dict[int, GroupMember] = {1: Member(1, told, fails=error), 2: Member(2, told)}
    host = Turns()
    news = News(host, members)
    news.node_changed(7, up=True)
    while host.turn():
        pass
    assert told == [(2, "up 7")]


async def test_those_in_line_are_called_when_a_place_is_free() -> None:
    host = Turns()
    line = Line(host, Campaigns(2, hold_ns=10**15))
    called: list[int] = []
    asked = [line.may_start(group, lambda group=group: called.append(group)) for group in range(5)]  # type: ignore[misc]  # bound
    assert asked == [True, True, False, False, False]
    assert host.alarms[line] > 0
    line.ended(2)
    line.ended(0)
    while host.turn():
        pass
    assert called == [3]
    line.ended(1)
    line.ended(3)
    while host.turn():
        pass
    assert called == [3, 4]
