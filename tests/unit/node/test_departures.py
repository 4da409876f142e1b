"""Consumers that are gone are reported until a leader has said that it is done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from node.departures import DEPARTED_MAX, REPORT_CONSUMERS, Departures
from plait.wire.errors import Unavailable
from replication.actor import Host, Promise
from tests.unit.replication.test_actor import TrioClock


class Leaders:
    """Whoever leads: what they were told, and what they say."""

    def __init__(self) -> None:
        self.told: list[tuple[int, list[str]]] = []
        self.answer: Exception | None = None
        self.deleted: list[int] = []

    def consumers_gone(self, group: int, consumers: list[str]) -> Promise[None]:
        self.told.append((group, consumers))
        promise: Promise[None] = Promise()
        if self.answer is None:
            promise.resolve(None)
        else:
            promise.reject(self.answer)
        return promise


@asynccontextmanager
async def departures() -> AsyncIterator[tuple[Departures, Leaders]]:
    host = Host(TrioClock(), lambda actor, error: None)
    leaders = Leaders()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.run)
        yield Departures(host, leaders.consumers_gone, leaders.deleted.__contains__), leaders
        nursery.cancel_scope.cancel()


async def test_the_leader_is_told_once(autojump_clock: trio.testing.MockClock) -> None:
    async with departures() as (leaving, leaders):
        leaving.departed(7, ["1.1.1", "1.1.2"])
        leaving.departed(7, ["1.1.2"])
        await trio.sleep(10)
        assert leaders.told == [(7, ["1.1.1", "1.1.2"])]


async def test_it_is_told_again_until_it_has_heard(autojump_clock: trio.testing.MockClock) -> None:
    async with departures() as (leaving, leaders):
        leaders.answer = Unavailable("no link")
        leaving.departed(7, ["1.1.1"])
        await trio.sleep(3)
        before = len(leaders.told)
        assert before > 3
        leaders.answer = None
        await trio.sleep(10)
        assert len(leaders.told) == before + 1


async def test_a_group_that_is_gone_is_forgotten_and_reports_are_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with departures() as (leaving, leaders):
        leaders.deleted.append(7)
        leaving.departed(7, ["1.1.1"])
        leaving.departed(8, [f"1.1.{number}" for number in range(DEPARTED_MAX + 10)])
        await trio.sleep(60)
        assert sum(len(consumers) for _, consumers in leaders.told) == DEPARTED_MAX - 1
        assert {len(consumers) for _, consumers in leaders.told} <= {REPORT_CONSUMERS, REPORT_CONSUMERS - 1}
