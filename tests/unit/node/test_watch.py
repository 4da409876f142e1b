"""What a node notices about itself: stalls, short space, refusals; each is a line, and no flood."""

from __future__ import annotations

from typing import Any, cast

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from cluster.limits import NodePressure
from node.standings import Standings
from node.watch import REFUSALS_MS, STALL_MS, WATCH_INTERVAL_MS, Watch
from replication.environment import Environment, Memory
from replication.storage.store import Store
from tests.unit.replication.test_actor import TrioClock


class Disk:
    pressure = "none"


class LateClock(TrioClock):
    late_s = 0.0

    async def sleep_until(self, deadline_ns: int) -> None:
        await super().sleep_until(deadline_ns + round(self.late_s * 1e9))


class World:
    def __init__(self) -> None:
        self.clock = LateClock()
        self.used = 0

    def memory(self) -> Memory:
        return Memory(self.used, 1_000)


def watch(world: World, disk: Disk, pressure: NodePressure) -> Watch:
    standings = Standings(alone=lambda: True)
    return Watch(cast(Environment, world), cast(Store, disk), pressure, standings, None)


async def test_the_disk_and_the_memory_are_what_admission_is_told(autojump_clock: MockClock) -> None:
    world, disk, pressure = World(), Disk(), NodePressure()
    world.used = 300
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch(world, disk, pressure).run)
            await trio.sleep(1)
            assert (pressure.storage, pressure.memory_percent) == ("none", 50)
            disk.pressure = "low"
            await trio.sleep(1)
            assert pressure.storage == "low"
            disk.pressure = "none"
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines] == [
        "disk space is short, this node takes no more publishes",
        "there is disk space again",
    ]


async def test_a_loop_that_stands_still_is_noticed(autojump_clock: MockClock) -> None:
    world = World()
    looking = watch(world, Disk(), NodePressure())
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(looking.run)
            await trio.sleep(1)
            assert looking.lag_ms < WATCH_INTERVAL_MS
            world.clock.late_s = 2 * STALL_MS / 1_000
            await trio.sleep(1.15)
            world.clock.late_s = 0.0
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
    assert looking.stalls == 1
    assert looking.lag_ms >= STALL_MS
    assert [line["event"] for line in lines] == ["loop stalled"]


async def test_refusals_are_told_in_sums(autojump_clock: MockClock) -> None:
    pressure = NodePressure()
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch(World(), Disk(), pressure).run)
            await trio.sleep(REFUSALS_MS / 1_000)
            for _ in range(1_000):
                pressure.refused["backlog"] = pressure.refused.get("backlog", 0) + 1
                await trio.sleep(REFUSALS_MS / 1_000 / 500)
            await trio.sleep(2 * REFUSALS_MS / 1_000)
            nursery.cancel_scope.cancel()
    told: list[Any] = [line["backlog"] for line in lines if line["event"] == "publishes refused"]
    assert sum(told) == 1_000
    assert len(told) <= 4
