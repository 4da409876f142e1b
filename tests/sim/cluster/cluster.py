"""What all simulated clusters have: machines, the network between them, a plan that goes wrong, and an end.

safety phase: faults strike, clients work          nothing that was promised may be broken
heal: links, disks and clocks are whole again
liveness phase: it has so many seconds             everything is answered, all replicas are equal, and rest
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Protocol

import trio

from replication.raft.core import RaftCore
from replication.raft.log import Vote
from replication.storage.log import GroupLog
from tests.sim.cluster.checkers import GroupChecker
from tests.sim.cluster.events import Events
from tests.sim.cluster.plan import Plan
from tests.sim.cluster.settings import PEER_PORT, settings_of
from tests.sim.cluster.weather import FrameWeather
from tests.sim.disk import SimDisk
from tests.sim.environment import EPOCH_MS, SimClock
from tests.sim.faults import Operation, OperationKind
from tests.sim.network import Internet
from tests.sim.pauses import Gate
from tests.sim.reference.judge import Judge

if TYPE_CHECKING:
    from tests.sim.cluster.box import Box


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
    judged: int
    """Steps of cores that the reference model has judged."""
    lines: Sequence[str] = field(default=())
    """One per event; only where somebody asked for them."""


class Process(Protocol):
    """One life of a box."""

    disk: SimDisk
    scope: trio.CancelScope
    dead: bool
    started: bool
    """It serves."""

    async def run(self) -> None:
        """Until it is crashed, or ends by itself."""

    @property
    def leads(self) -> bool:
        """It leads a group, and serves."""


class Cluster:
    """Everything of one run that does not depend on what runs on the machines."""

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
        self.validates = False
        """What the cores of each group do is judged by the reference model."""
        self.judges: dict[int, Judge] = {}
        """By group, where it is."""
        self.nursery: trio.Nursery
        shape = plan.shape
        self.internet.weather = self.weather
        self.internet.whole_share = 0.5 if shape.crumbs else 1.0
        self.internet.delay_s = shape.delay_us[0] / 1e6, shape.delay_us[1] / 1e6

    # what runs on the machines says

    @property
    def machines(self) -> Sequence[Box]:
        """All machines that nodes run on."""
        raise NotImplementedError

    def leader_box(self, number: int) -> Box | None:
        """Where the group of that number (any; taken modulo how many there are) is led."""
        raise NotImplementedError

    def may_lose(self, boxes: list[Box]) -> bool:
        """True if nothing is lost that a majority had when these boxes' disks are worth nothing."""
        raise NotImplementedError

    def process(self, box: Box, seed: int) -> Process:
        """A new life for a box."""
        raise NotImplementedError

    async def live(self) -> None:
        """Whatever goes on besides the machines and their clients, up to the judgement at the end."""
        raise NotImplementedError

    @property
    def acknowledged(self) -> int:
        """Operations that clients were told are done."""
        raise NotImplementedError

    def other_states(self) -> Counter[str]:
        """States that were counted elsewhere."""
        return Counter()

    # what the cores do

    def follow(self, group: int, core: RaftCore, log: GroupLog, life: Process) -> None:
        """A core was made, in this life of a node."""
        if not self.validates:
            return
        if group not in self.judges:
            self.judges[group] = Judge(_now_ns, partial(self._illegal, group), self.in_doubt)
        vote = Vote(log.hard_state.term, log.hard_state.vote)
        self.judges[group].follow(core, vote, lambda: not life.dead)

    def in_doubt(self) -> bool:
        """A disk may have lost what it had synced: the model of Raft has no word for that."""
        return any(box.doubtful for box in self.machines)

    def _illegal(self, group: int, what: str) -> None:
        self.events.break_promise(f"group {group}: {what}")

    # parts of machines

    def new_clock(self, number: int) -> SimClock:
        """The clock of the machine of that number."""
        rates = self.plan.shape.clock_rates
        rate = rates[number] if number < len(rates) else 1.0
        offset_ns = self.random.randrange(10**12)
        return SimClock(rate=rate, offset_ns=offset_ns, wall_ms=EPOCH_MS + self.random.randrange(400))

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

    # the run

    async def run(self) -> None:
        """The whole plan."""
        self.gate.install()
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self._stop_when_broken)
            for box in self.machines:
                self.nursery.start_soon(box.run)
            await self.live()
            for box in self.machines:
                box.cease()
            self.nursery.cancel_scope.cancel()

    async def _stop_when_broken(self) -> None:
        await self.events.ended.wait()
        self.nursery.cancel_scope.cancel()
        self.gate.resume_all()
        for box in self.machines:
            box.cease()

    def heal(self) -> None:
        """From now on nothing goes wrong."""
        self.events.note("heal")
        self.weather.clear()
        self.internet.heal()
        for box in self.machines:
            box.heal()
        self.gate.resume_all()
        self.healed.set()


def _now_ns() -> int:
    return round(trio.current_time() * 1e9)


def _latency_ns(random: Random, sync_ns: int, operation: Operation) -> int:
    if operation.kind in (OperationKind.SYNC, OperationKind.SYNC_FOLDER):
        return round(random.uniform(0.5, 1.5) * sync_ns)
    return 20_000
