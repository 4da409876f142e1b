"""Consumers that are gone are reported until the leader has said that it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import trio
import trio.testing

from node.departures import DEPARTED_MAX, REPORT_CONSUMERS, Departures
from plait.wire.errors import Unavailable
from replication.actor import Host, Promise
from replication.group import Group
from replication.peers.peers import Peers
from tests.unit.replication.test_actor import TrioClock


class Leader:
    """A group whose leader is said to be somewhere."""

    def __init__(self, node: int) -> None:
        self.leader_node = node


class Wire:
    """The links: what was asked, and answers that are given when told."""

    def __init__(self) -> None:
        self.handler: Any = None
        self.asked: list[tuple[int, int, list[str]]] = []
        self.answer: Exception | None = None

    def serve(self, channel: str, handler: Any) -> None:
        self.handler = handler

    def ask(self, node: int, channel: str, head: list[Any], timeout_ms: int) -> Promise[Any]:
        word, group, consumers = head
        assert word == "gone"
        self.asked.append((node, group, consumers))
        promise: Promise[Any] = Promise()
        if self.answer is None:
            promise.resolve(([], memoryview(b"")))
        else:
            promise.reject(self.answer)
        return promise


@asynccontextmanager
async def departures(groups: dict[int, Leader]) -> AsyncIterator[tuple[Departures, Wire, list[Any]]]:
    host = Host(TrioClock(), lambda actor, error: None)
    wire = Wire()
    here: list[Any] = []

    def gone_here(group: int, consumers: list[str]) -> Promise[None]:
        here.append((group, consumers))
        promise: Promise[None] = Promise()
        promise.resolve(None)
        return promise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.run)
        made = Departures(
            host, cast(Peers, wire), 1, lambda group: cast("Group | None", groups.get(group)), gone_here
        )
        yield made, wire, here
        nursery.cancel_scope.cancel()


async def test_the_leader_is_told_once(autojump_clock: trio.testing.MockClock) -> None:
    async with departures({7: Leader(2)}) as (leaving, wire, _):
        leaving.departed(7, ["1.1.1", "1.1.2"])
        leaving.departed(7, ["1.1.2"])
        await trio.sleep(10)
        assert wire.asked == [(2, 7, ["1.1.1", "1.1.2"])]


async def test_it_is_told_again_until_it_has_heard(autojump_clock: trio.testing.MockClock) -> None:
    async with departures({7: Leader(2)}) as (leaving, wire, _):
        wire.answer = Unavailable("no link")
        leaving.departed(7, ["1.1.1"])
        await trio.sleep(3)
        before = len(wire.asked)
        assert before > 3
        wire.answer = None
        await trio.sleep(10)
        assert len(wire.asked) == before + 1


async def test_an_election_is_waited_for_and_this_node_may_win_it(autojump_clock: trio.testing.MockClock) -> None:
    leader = Leader(0)
    async with departures({7: leader}) as (leaving, wire, here):
        leaving.departed(7, ["1.1.1"])
        await trio.sleep(3)
        assert (wire.asked, here) == ([], [])
        leader.leader_node = 1
        await trio.sleep(3)
        assert (wire.asked, here) == ([], [(7, ["1.1.1"])])


async def test_a_group_that_is_gone_is_forgotten_and_reports_are_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with departures({8: Leader(2)}) as (leaving, wire, _):
        leaving.departed(7, ["1.1.1"])
        leaving.departed(8, [f"1.1.{number}" for number in range(DEPARTED_MAX + 10)])
        await trio.sleep(60)
        assert sum(len(consumers) for _, _, consumers in wire.asked) == DEPARTED_MAX - 1
        assert {len(consumers) for _, _, consumers in wire.asked} <= {REPORT_CONSUMERS, REPORT_CONSUMERS - 1}


async def test_reports_of_other_nodes_are_passed_on(autojump_clock: trio.testing.MockClock) -> None:
    async with departures({}) as (_, wire, here):
        answer = wire.handler(2, ["gone", 9, ["2.1.1"]], memoryview(b""))
        assert (await answer.wait()) == ([], [])
        assert here == [(9, ["2.1.1"])]
