"""The whole outside world of one simulated node, out of one seed.

    run_sim's MockClock ── SimClock   a node's own idea of it: drift, offset, wall time that jumps
    SimDisk                            a disk call takes no loop time by itself; its cost is slept by the offload
    SimTasks                           spawn into the node's nursery; "threads" are tasks that hold their lane

Work that is offloaded runs whole at one instant, somewhere between the call and its return, so other lanes
come before or behind it, never into it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeVar

import trio
import trio.abc

from replication.environment import Environment, Network
from tests.sim.disk import CrashHere, SimDisk
from tests.sim.timers import sleep

T = TypeVar("T")
EPOCH_MS = 1_700_000_000_000
"""Wall time at the start of a simulation, milliseconds since 1970."""
THREAD_DELAY_NS_MAX = 200_000
"""Longest wait for a thread to be scheduled, on the way there and again on the way back."""


class SimClock:
    """A node's clock: simulated time, run at a rate of its own and from an offset of its own."""

    def __init__(self, *, rate: float = 1.0, offset_ns: int = 0, wall_ms: int = EPOCH_MS) -> None:
        self.rate = rate
        self.offset_ns = offset_ns
        self._since_s = 0.0  # since when it runs at this rate; the offsets are those of that moment
        self._wall_zero_ms = wall_ms

    def monotonic_ns(self) -> int:
        """See environment.Clock."""
        return round((trio.current_time() - self._since_s) * 1e9 * self.rate) + self.offset_ns

    def wall_ms(self) -> int:
        """See environment.Clock."""
        return self._wall_zero_ms + round((trio.current_time() - self._since_s) * 1e3 * self.rate)

    def step_wall(self, jump_ms: int) -> None:
        """Somebody set the machine's clock."""
        self._wall_zero_ms += jump_ms

    def set_rate(self, rate: float) -> None:
        """From now on the clock runs that much faster than simulated time (or slower), without a jump."""
        self.offset_ns, self._wall_zero_ms = self.monotonic_ns(), self.wall_ms()
        self._since_s = trio.current_time()
        self.rate = rate

    async def sleep_until(self, deadline_ns: int) -> None:
        """See environment.Clock."""
        while (left_ns := deadline_ns - self.monotonic_ns()) > 0:
            await sleep(max(left_ns / self.rate, 1) / 1e9)


class SimTasks:
    """Tasks in one nursery, and threads that are tasks holding their lane for a seeded time.

    All tasks get the context in which this object was made, whoever spawns them: what is in it names their node.
    """

    def __init__(self, nursery: trio.Nursery, random: Random, disk: SimDisk) -> None:
        self._context = copy_context()
        self._nursery = nursery
        self._random = random
        self._disk = disk
        self._lanes: dict[str, trio.Lock] = {}

    def spawn(self, name: str, run: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """See environment.Tasks."""
        self._context.copy().run(partial(self._nursery.start_soon, run, *args, name=name))

    async def offload(self, lane: str, work: Callable[[], T]) -> T:
        """See environment.Tasks. Raises CrashHere instead of returning into a process that is dead."""
        lock = self._lanes.get(lane)
        if lock is None:
            lock = self._lanes[lane] = trio.Lock()
        try:
            lock.acquire_nowait()
        except trio.WouldBlock:
            await lock.acquire()  # in order of arrival
        try:
            late = self._random.random() < 0.5  # the work is done at the end of its time, or at the beginning
            if late:
                await self._delay(0)
            try:
                return work()
            finally:
                cost_ns = self._disk.take_cost_ns()
                if cost_ns or not late:
                    await self._delay(cost_ns)
                if self._disk.dead:
                    raise CrashHere
        finally:
            lock.release()

    async def _delay(self, cost_ns: int) -> None:
        await sleep((cost_ns + self._random.randrange(THREAD_DELAY_NS_MAX)) / 1e9, shielded=True)


class NoNetwork:
    """A node on its own."""

    async def listen(self, host: str, port: int) -> Sequence[trio.abc.Listener[trio.abc.Stream]]:
        """See environment.Network."""
        raise OSError(f"no network: cannot listen on {host}:{port}")

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        """See environment.Network."""
        raise OSError(f"no network: cannot connect to {host}:{port}")

    def address_of(self, listener: trio.abc.Listener[trio.abc.Stream]) -> tuple[str, int]:
        """See environment.Network."""
        raise OSError("no network")


@dataclass(frozen=True, slots=True)
class SimNode:
    """The environment of one life of a node, with the simulation's own handles on it."""

    environment: Environment
    clock: SimClock
    disk: SimDisk


def sim_environment(
    nursery: trio.Nursery,
    seed: int,
    disk: SimDisk,
    *,
    clock: SimClock | None = None,
    network: Network | None = None,
) -> SimNode:
    """The world of one life of a node: what it draws, and how long its threads take, comes from the seed."""
    root = Random(seed)
    clock = clock or SimClock()
    tasks = SimTasks(nursery, Random(root.getrandbits(64)), disk)
    return SimNode(
        Environment(clock, Random(root.getrandbits(64)), disk, network or NoNetwork(), tasks), clock, disk
    )
