"""One run of a plan: nodes, the network between them, clients, an operator, and what goes wrong.

safety phase: faults strike, clients work          nothing that was promised may be broken
heal: links, disks and clocks are whole again
liveness phase: it has so many seconds             everything is answered, all replicas are equal, and rest
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import trio

from replication.raft.core import RaftCore
from tests.sim.cluster.checkers import GroupChecker
from tests.sim.cluster.clients import Client
from tests.sim.cluster.ending import Ending
from tests.sim.cluster.events import Events, logs_to
from tests.sim.cluster.members import Members
from tests.sim.cluster.nemesis import Nemesis
from tests.sim.cluster.node import Box
from tests.sim.cluster.plan import Plan
from tests.sim.cluster.settings import PEER_PORT, settings_of
from tests.sim.cluster.weather import FrameWeather
from tests.sim.disk import SimDisk
from tests.sim.environment import EPOCH_MS, SimClock
from tests.sim.faults import Operation, OperationKind
from tests.sim.network import Internet
from tests.sim.pauses import Gate
from tests.sim.run import Deadlock, NeverEnds, Steps, run_sim
from tests.sim.storage_world import small_limits

if TYPE_CHECKING:
    from tests.sim.cluster.member import Member


@dataclass(slots=True)
class Report:
    """What a run came to."""

    seed: int
    digest: str
    broken: list[str]
    faults: Counter[str]
    states: Counter[str]
    simulated_s: float
    steps: int
    acknowledged: int
    lines: Sequence[str] = field(default=())
    """One per event; only where somebody asked for them."""


class World:
    """Everything of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.settings = settings_of(plan.shape)
        self.events = Events()
        self.gate = Gate()
        self.random = Random(f"world {plan.seed}")
        self.internet = Internet(Random(f"internet {plan.seed}"))
        self.weather = FrameWeather(Random(f"weather {plan.seed}"), [PEER_PORT])
        self.healed = trio.Event()
        self.checkers: dict[int, GroupChecker] = {}
        self.cores: dict[int, dict[int, RaftCore]] = {}
        """By group and replica, the core of its newest life."""
        self.boxes: list[Box] = []
        self.members = Members(self)
        self.clients: list[Client] = []
        self.nursery: trio.Nursery
        self._next_node = 1
        self._set_up()

    def _set_up(self) -> None:
        shape = self.plan.shape
        self.internet.weather = self.weather
        self.internet.whole_share = 0.5 if shape.crumbs else 1.0
        self.internet.delay_s = shape.delay_us[0] / 1e6, shape.delay_us[1] / 1e6
        for number in range(shape.nodes):
            rate = shape.clock_rates[number] if number < len(shape.clock_rates) else 1.0
            offset_ns = self.random.randrange(10**12)
            clock = SimClock(rate=rate, offset_ns=offset_ns, wall_ms=EPOCH_MS + self.random.randrange(400))
            self.boxes.append(Box(self, f"n{number + 1}", self.new_node(), self.new_disk(), clock))
        self.founders = {}
        for group in range(1, shape.groups + 1):
            self.checkers[group] = GroupChecker(group, self.events.break_promise)
            self.cores[group] = {}
            self.founders[group] = self.members.found(group, self.boxes[: shape.voters])

    def new_node(self) -> int:
        """A node id that was never given."""
        self._next_node += 1
        return self._next_node - 1

    def new_disk(self) -> SimDisk:
        """An empty one."""
        disk = SimDisk(
            Random(self.random.getrandbits(64)), sector_bytes=self.plan.shape.sector_bytes, traced=False
        )
        disk.latency_ns = self.usual_latency(Random(self.random.getrandbits(64)))
        return disk

    def usual_latency(self, random: Random) -> partial[int]:
        """How long the operations of a healthy disk take."""
        return partial(_latency_ns, random, self.plan.shape.sync_us * 1_000)

    def box_of(self, member: Member) -> Box | None:
        """Where a replica lives, while it does."""
        return next((box for box in self.boxes if member in box.member_of.values()), None)

    async def run(self, _: Random) -> None:
        """The whole plan."""
        self.gate.install()
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self._stop_when_broken)
            for box in self.boxes:
                self.nursery.start_soon(box.run)
            self.nursery.start_soon(self.members.run)
            done = trio.Event()
            self.nursery.start_soon(self._work, done)
            await Nemesis(self).run()
            await Ending(self, done).run()
            for box in self.boxes:
                if box.life is not None:
                    box.life.dead = box.life.disk.dead = True
            self.nursery.cancel_scope.cancel()

    async def _stop_when_broken(self) -> None:
        await self.events.ended.wait()
        self.nursery.cancel_scope.cancel()
        for box in self.boxes:
            self.gate.resume(box.name)
            if box.life is not None:
                box.life.dead = box.life.disk.dead = True

    async def _work(self, done: trio.Event) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(1, self.plan.shape.clients + 1):
                client = Client(self, number)
                self.clients.append(client)
                nursery.start_soon(client.run)
        done.set()


def run_plan(plan: Plan, *, trace: bool = False) -> Report:
    """Run a plan from its start to its end; equal for equal plans, in whatever process."""
    steps = Steps()
    world: World | None = None

    async def inside(random: Random) -> float:
        nonlocal world
        world = World(plan)
        with logs_to(world.events):
            try:
                await world.run(random)
            except BaseExceptionGroup as group:
                _, others = group.split(trio.Cancelled)
                if others is not None and not world.events.broken:
                    raise
        return trio.current_time()

    simulated_s, failure = 0.0, ""
    with small_limits():
        try:
            simulated_s = run_sim(plan.seed, inside, trace=steps)
        except (Deadlock, NeverEnds) as error:
            failure = f"{type(error).__name__}: {error}"
        except Exception as error:  # a defect of the simulation is reported with its seed like any other
            failure = _told(error)
    assert world is not None, "the run began"
    if failure:
        with suppress(RuntimeError):  # outside of a loop there is no time to note it at
            world.events.break_promise(failure)
        if failure not in world.events.broken:
            world.events.broken.append(failure)
    events = world.events
    events.faults.update(world.weather.struck)
    events.states["retry was taken for what it was"] += sum(one.doubled for one in world.checkers.values())
    return Report(
        plan.seed,
        events.digest(steps.steps, simulated_s),
        events.broken,
        events.faults,
        events.states,
        simulated_s,
        steps.steps,
        sum(len(checker.acknowledged) for checker in world.checkers.values()),
        list(events.lines()) if trace or events.broken else (),
    )


def _told(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    trace = error.__traceback__
    places: list[str] = []
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} ({' > '.join(places[-6:])})"


def _latency_ns(random: Random, sync_ns: int, operation: Operation) -> int:
    if operation.kind in (OperationKind.SYNC, OperationKind.SYNC_FOLDER):
        return round(random.uniform(0.5, 1.5) * sync_ns)
    return 20_000
