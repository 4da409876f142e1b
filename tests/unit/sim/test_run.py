"""A simulated world is the same every time, knows when it stands still, and keeps time of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import trio

from tests.sim.crash import Survival
from tests.sim.disk import CrashHere, SimDisk
from tests.sim.environment import SimClock, sim_environment
from tests.sim.faults import Fault, FaultKind, OperationKind, PlannedFaults
from tests.sim.run import Deadlock, Trace, run_sim

ROOT = Path(__file__).parents[3]


async def gossip(random: Random) -> list[tuple[int, int]]:
    """Seven tasks, one lock, equal deadlines: whoever comes first is trio's draw."""
    order: list[tuple[int, int]] = []
    lock = trio.Lock()

    async def talk(who: int) -> None:
        for turn in range(10):
            await trio.sleep(random.choice((0, 0.01)))
            async with lock:
                order.append((who, turn))
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for who in range(7):
            nursery.start_soon(talk, who)
    return order


def digest_of(seed: int) -> str:
    """The schedule's fingerprint."""
    trace = Trace()
    run_sim(seed, gossip, trace=trace)
    return trace.digest()


def test_equal_seeds_give_equal_schedules_and_others_give_others() -> None:
    digests = [digest_of(seed) for seed in range(20)]
    assert digests == [digest_of(seed) for seed in range(20)]
    assert len(set(digests)) == 20


def test_a_schedule_is_the_same_in_another_process_with_another_hash_seed() -> None:
    code = "from tests.unit.sim.test_run import digest_of; print(digest_of(5))"
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True, cwd=ROOT
        )
        assert ran.stdout.strip() == digest_of(5)


def test_a_world_in_which_all_wait_is_a_deadlock() -> None:
    async def stuck(_: Random) -> None:
        await trio.Event().wait()

    with pytest.raises(Deadlock):
        run_sim(1, stuck)


def test_a_world_that_takes_its_cancellation_for_an_end_is_a_deadlock_all_the_same() -> None:
    async def stuck(_: Random) -> None:
        with suppress(trio.Cancelled):
            await trio.Event().wait()

    with pytest.raises(Deadlock):
        run_sim(1, stuck)


def test_simulated_days_pass_at_once_and_clocks_drift() -> None:
    async def world(_: Random) -> tuple[int, int, int]:
        fast = SimClock(rate=1.5, offset_ns=7)
        start_wall = fast.wall_ms()
        await fast.sleep_until(150 * 10**9 + 7)
        fast.step_wall(-5_000)
        return round(trio.current_time()), fast.monotonic_ns(), fast.wall_ms() - start_wall

    assert run_sim(1, world) == (100, 150 * 10**9 + 7, 150_000 - 5_000)


def test_offloaded_work_of_a_lane_runs_in_order_of_arrival() -> None:
    async def world(random: Random) -> list[str]:
        order: list[str] = []
        async with trio.open_nursery() as nursery:
            tasks = sim_environment(nursery, random.getrandbits(32), SimDisk(random)).environment.tasks

            async def ask(lane: str, number: int) -> None:
                await tasks.offload(lane, lambda: order.append(f"{lane}{number}"))

            for number in range(5):
                for lane in "ab":
                    tasks.spawn(lane, ask, lane, number)
                await trio.testing.wait_all_tasks_blocked()
        return order

    runs = [run_sim(seed, world) for seed in range(20)]
    for order in runs:
        for lane in "ab":
            assert [done for done in order if done[0] == lane] == [f"{lane}{number}" for number in range(5)]
    assert len({tuple(order) for order in runs}) > 1, "lanes overtake each other"


def test_offload_takes_as_long_as_the_disk_does_and_is_not_abandoned() -> None:
    async def world(random: Random) -> tuple[float, bytes]:
        disk = SimDisk(random)
        disk.latency_ns = lambda operation: 10**9 if operation.kind is OperationKind.WRITE else 0
        async with trio.open_nursery() as nursery:
            tasks = sim_environment(nursery, 1, disk).environment.tasks
            with trio.move_on_after(0.5):
                await tasks.offload("wal", lambda: disk.create("a").pwrite([b"x"], 0))
        return trio.current_time(), disk.content("a")

    took_s, content = run_sim(1, world)
    assert 1 <= took_s < 1.001
    assert content == b"x"


def test_a_dead_process_hears_of_nothing_any_more() -> None:
    async def world(random: Random) -> list[str]:
        heard: list[str] = []
        disk = SimDisk(random, faults=PlannedFaults([Fault(1, FaultKind.CRASH_AFTER)]))

        async def use(nursery: trio.Nursery, lane: str) -> None:
            tasks = sim_environment(nursery, 1, disk).environment.tasks
            await tasks.offload(lane, lambda: disk.make_folder(lane))
            heard.append(lane)

        with pytest.RaisesGroup(CrashHere, CrashHere):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use, nursery, "a")
                nursery.start_soon(use, nursery, "b")
        disk.crash(Survival.KILLED, random).make_folder("c")
        return heard

    assert run_sim(1, world) == []
