"""Does what a plan says, when it says so.

What destroys synced data (rot, writes that got lost, disks that are older or empty) strikes only while a minority
of every group's voters has suffered such a thing: with most of the copies gone, nobody could bring them back.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import trio

from tests.sim.cluster.plan import PlannedFault
from tests.sim.cluster.weather import Conditions
from tests.sim.crash import Survival
from tests.sim.disk import CAPACITY_BYTES
from tests.sim.faults import FaultKind, OperationKind

if TYPE_CHECKING:
    from tests.sim.cluster.box import Box
    from tests.sim.cluster.cluster import Cluster


class Nemesis:
    """Of one run."""

    def __init__(self, world: Cluster) -> None:
        self._world = world
        self._kinds: dict[str, Callable[[PlannedFault, Random], bool]] = {
            "lossy": self._lossy,
            "slow links": self._slow_links,
            "cut": self._cut,
            "partition": self._partition,
            "one way": self._one_way,
            "bridge": self._bridge,
            "pause": self._pause,
            "kill": self._kill,
            "power cut": self._power_cut,
            "power cut everywhere": self._power_cut_everywhere,
            "sync error": self._sync_error,
            "write error": self._write_error,
            "no space": self._no_space,
            "full disk": self._full_disk,
            "slow disk": self._slow_disk,
            "clock rate": self._clock_rate,
            "wall jump": self._wall_jump,
            "rot": self._rot,
            "lost write": self._lost_write,
            "misdirected write": self._misdirected_write,
        }

    async def run(self) -> None:
        """All faults of the plan, until its safety phase ends."""
        world = self._world
        for fault in world.plan.faults:
            await trio.sleep_until(fault.at_ms / 1_000)
            if self._kinds[fault.kind](fault, Random(fault.draw)):
                world.events.fault(fault.kind, fault)
        await trio.sleep_until(world.plan.shape.safety_ms / 1_000)

    def _box(self, number: int) -> Box:
        return self._world.machines[number % len(self._world.machines)]

    def _victim(self, fault: PlannedFault) -> Box:
        """Half of the time a leader: there a fault hurts most."""
        if fault.draw % 2:
            box = self._world.leader_box(fault.other)
            if box is not None:
                return box
        return self._box(fault.node)

    def _after(self, fault: PlannedFault, undo: Callable[[], None]) -> None:
        async def later() -> None:
            with trio.move_on_after(fault.for_ms / 1_000):
                await self._world.healed.wait()
                return
            undo()

        self._world.nursery.start_soon(later)

    # ---- network

    def _lossy(self, fault: PlannedFault, random: Random) -> bool:
        conditions = Conditions(
            loss=random.choice((0.0, 0.05, 0.3)),
            double=random.choice((0.0, 0.05, 0.3)),
            late=random.choice((0.0, 0.1, 0.4)),
            late_s=random.choice((0.005, 0.05, 0.4)),
        )
        self._weather(fault, conditions, random)
        return True

    def _slow_links(self, fault: PlannedFault, random: Random) -> bool:
        self._weather(fault, Conditions(delay_s=random.choice((0.02, 0.1, 0.3))), random)
        return True

    def _weather(self, fault: PlannedFault, conditions: Conditions, random: Random) -> None:
        """On all links of a node, or on all there are, in one direction or both."""
        names = [box.name for box in self._world.machines]
        centre, there, back = self._box(fault.node).name, random.random() < 0.8, random.random() < 0.8
        everywhere = random.random() < 0.5
        links = [
            (source, target)
            for source in names
            for target in names
            if source != target and (everywhere or (there and source == centre) or (back and target == centre))
        ]
        for link in links:
            self._world.weather.set(*link, conditions)

        def clear() -> None:
            for link in links:
                self._world.weather.set(*link, Conditions())

        self._after(fault, clear)

    def _cut(self, fault: PlannedFault, random: Random) -> bool:
        """Connections break and are made again."""
        box, other = self._box(fault.node), self._box(fault.other)
        self._world.internet.reset(box.name, between=None if other is box else other.name)
        return True

    def _partition(self, fault: PlannedFault, random: Random) -> bool:
        """Some nodes here, the others there."""
        names = [box.name for box in self._world.machines]
        if random.random() < 0.4:
            here = [self._victim(fault).name]
        else:
            here = [name for name in names if random.random() < 0.5]
        links = [(a, b) for a in here for b in names if b not in here]
        self._break(fault, links + [(b, a) for a, b in links])
        return bool(links)

    def _one_way(self, fault: PlannedFault, random: Random) -> bool:
        """A node can send and not hear, or hear and not send, to one other or to all."""
        box, other = self._victim(fault), self._box(fault.other)
        others = [one.name for one in self._world.machines if one is not box]
        if other is not box and random.random() < 0.5:
            others = [other.name]
        links = [(box.name, name) if fault.draw % 3 else (name, box.name) for name in others]
        self._break(fault, links)
        return True

    def _bridge(self, fault: PlannedFault, random: Random) -> bool:
        """Two sides that hear each other through one node only."""
        names = [box.name for box in self._world.machines]
        middle = self._box(fault.node).name
        others = [name for name in names if name != middle]
        random.shuffle(others)
        half = len(others) // 2
        links = [(a, b) for a in others[:half] for b in others[half:]]
        self._break(fault, links + [(b, a) for a, b in links])
        return bool(links)

    def _break(self, fault: PlannedFault, links: list[tuple[str, str]]) -> None:
        internet = self._world.internet
        for link in links:
            internet.cut(*link)

        def mend() -> None:
            for link in links:
                internet.mend(*link)

        self._after(fault, mend)

    # ---- processes and clocks

    def _pause(self, fault: PlannedFault, random: Random) -> bool:
        box = self._victim(fault)
        if box.life is None or box.life.dead or self._world.gate.is_paused(box.name):
            return False
        if box.life.leads:
            self._world.events.reached("node paused while it led")
        self._world.gate.pause(box.name)
        self._after(fault, lambda: self._world.gate.resume(box.name))
        return True

    def _kill(self, fault: PlannedFault, random: Random) -> bool:
        self._victim(fault).crash(Survival.KILLED, fault.for_ms)
        return True

    def _power_cut(self, fault: PlannedFault, random: Random) -> bool:
        self._victim(fault).crash(random.choice(list(Survival)), fault.for_ms, silent=True)
        return True

    def _power_cut_everywhere(self, fault: PlannedFault, random: Random) -> bool:
        for box in self._world.machines:
            box.crash(random.choice(list(Survival)), round(fault.for_ms * random.random()) + 1, silent=True)
        return True

    def _clock_rate(self, fault: PlannedFault, random: Random) -> bool:
        box = self._box(fault.node)
        usual = box.clock.rate
        box.clock.set_rate(usual * random.choice((0.5, 0.8, 1.25, 2.0)))
        self._after(fault, lambda: box.clock.set_rate(usual))
        return True

    def _wall_jump(self, fault: PlannedFault, random: Random) -> bool:
        self._box(fault.node).clock.step_wall(random.choice((-3_600_000, -1_000, 1_000, 3_600_000)))
        return True

    # ---- disks

    def _sync_error(self, fault: PlannedFault, random: Random) -> bool:
        return self._victim(fault).strike(FaultKind.IO_ERROR, random, only=OperationKind.SYNC)

    def _write_error(self, fault: PlannedFault, random: Random) -> bool:
        return self._victim(fault).strike(FaultKind.IO_ERROR, random, only=OperationKind.WRITE)

    def _no_space(self, fault: PlannedFault, random: Random) -> bool:
        return self._victim(fault).strike(FaultKind.NO_SPACE, random)

    def _full_disk(self, fault: PlannedFault, random: Random) -> bool:
        box = self._victim(fault)
        disk = box.disk
        if disk.capacity_bytes != CAPACITY_BYTES:
            return False
        used = disk.capacity_bytes - disk.free_bytes()
        disk.capacity_bytes = used + random.randrange(2 * self._world.plan.shape.wal_file_bytes)
        self._world.events.reached("disk full")
        self._after(fault, box.make_room)
        return True

    def _slow_disk(self, fault: PlannedFault, random: Random) -> bool:
        box = self._victim(fault)
        slow_ns = random.choice((20, 100, 600)) * 1_000_000
        box.slow_down(slow_ns)
        self._after(fault, box.speed_up)
        return True

    def _rot(self, fault: PlannedFault, random: Random) -> bool:
        box = self._box(fault.node)
        if not self._may_lose(box) or box.life is None:
            return False
        box.crash(Survival.NOTHING if random.random() < 0.5 else Survival.KILLED, fault.for_ms)
        what = box.rot(random)
        self._world.events.note("rot", box.name, what)
        return bool(what)

    def _lost_write(self, fault: PlannedFault, random: Random) -> bool:
        return self._spoil(fault, FaultKind.LOST_WRITE, random)

    def _misdirected_write(self, fault: PlannedFault, random: Random) -> bool:
        return self._spoil(fault, FaultKind.MISDIRECTED_WRITE, random)

    def _spoil(self, fault: PlannedFault, kind: FaultKind, random: Random) -> bool:
        box = self._box(fault.node)
        folder = random.choice(("wal/", "wal/", "segments/", "snapshots/"))
        if not self._may_lose(box) or not box.strike(kind, random, name=folder):
            return False
        box.doubtful = True
        return True

    def _may_lose(self, box: Box) -> bool:
        lost = [one for one in self._world.machines if one is box or one.doubtful]
        return self._world.may_lose(lost)
