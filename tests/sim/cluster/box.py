"""A simulated machine: a disk, a clock, a place in the network; processes live on it, one behind the other.

A crash marks the process's world as dead first and cancels its tasks then: what they do in their `finally:` blocks
reaches neither disk nor network, as after a real kill.
"""

from __future__ import annotations

from random import Random

import trio

from tests.sim.cluster.cluster import Cluster, Process
from tests.sim.crash import Survival
from tests.sim.disk import CAPACITY_BYTES, SimDisk
from tests.sim.environment import SimClock
from tests.sim.faults import Fault, FaultKind, OperationKind, PlannedFaults

LAST_BLOCKS_BYTES = 40_960
"""What rot spares at the end of the newest log file: blocks for which no later one may vouch."""


class Box:
    """One machine."""

    def __init__(self, world: Cluster, name: str, node_id: int, disk: SimDisk, clock: SimClock) -> None:
        self.world = world
        self.name = name
        self.node_id = node_id
        self.disk = disk
        self.clock = clock
        self.life: Process | None = None
        self.lives = 0
        self.down_ms = 0
        self.doubtful = False
        """Something of its synced data may be lost: it counts as worth nothing until it is replaced."""
        self.images: list[SimDisk] = []
        """Its disk at the ends of its lives."""
        self.random = Random(f"{world.plan.seed} {name}")

    def __str__(self) -> str:
        return self.name

    async def run(self) -> None:
        """Live, die, and live again."""
        while True:
            self.lives += 1
            life = self.life = self.world.process(self, self.random.getrandbits(64))
            self.world.events.note("start", self.name, f"node={self.node_id}", f"life={self.lives}")
            await life.run()
            if not life.dead:
                self._ended_by_itself(life)
            self.life = None
            await self.rest()

    async def rest(self) -> None:
        """Between two lives."""
        await trio.sleep(self.down_ms / 1_000)

    def crash(self, survival: Survival, down_ms: int, *, silent: bool = False) -> None:
        """The process ends here and now; what its disk keeps is drawn. It is started again `down_ms` later."""
        life = self.life
        if life is None or life.dead:
            return
        self._die(life, survival, down_ms, silent)
        self.world.gate.resume(self.name)
        life.scope.cancel()

    def cease(self) -> None:
        """Nothing that its process still does has any effect: the run is over."""
        if self.life is not None:
            self.life.dead = self.life.disk.dead = True

    def strike(
        self, kind: FaultKind, random: Random, *, name: str = "", only: OperationKind | None = None
    ) -> bool:
        """One of the next operations on the disk goes wrong."""
        if self.life is None or self.life.dead:
            return False
        at = self.disk.operations + random.randrange(1, 30)
        self.disk.faults = PlannedFaults([Fault(at, kind, random.getrandbits(16), name, only)])
        return True

    def slow_down(self, sync_ns: int) -> None:
        """Its disk takes that long for a sync."""
        self.disk.latency_ns = lambda operation: sync_ns if operation.kind is OperationKind.SYNC else sync_ns // 20

    def speed_up(self) -> None:
        """Its disk is as fast as usual."""
        self.disk.latency_ns = self.world.usual_latency(self.random)

    def make_room(self) -> None:
        """Its disk is as large as usual."""
        self.disk.capacity_bytes = CAPACITY_BYTES

    def heal(self) -> None:
        """Nothing goes wrong any more."""
        self.disk.faults = PlannedFaults()
        self.make_room()
        self.speed_up()
        self.world.gate.resume(self.name)

    def rot(self, random: Random) -> str:
        """Something of the disk goes bad that can be known to have been whole; what was done."""
        disk = self.disk
        logs = [name for name in disk.names() if name.startswith("wal/") and disk.content(name).strip(b"\0")]
        names = [*logs, *(name for name in disk.names() if name.startswith(("segments/", "snapshots/")))]
        names = [name for name in names if disk.content(name).strip(b"\0")]
        if not names:
            return ""
        name = random.choice(names)
        used = len(disk.content(name).rstrip(b"\0"))
        if name == max(logs, default=""):
            used -= LAST_BLOCKS_BYTES
        if used <= 0:
            return ""
        self.doubtful = True
        position = random.randrange(used)
        if random.random() < 0.7:
            disk.flip(name, position, random.randrange(8))
            return f"{name} flip {position}"
        sector = position - position % disk.sector_bytes
        disk.spoil(name, sector, random.randbytes(disk.sector_bytes))
        return f"{name} spoil {sector}"

    def _ended_by_itself(self, life: Process) -> None:
        """Its disk has failed it. Whether the machine goes down with it is drawn."""
        survival = Survival.KILLED if self.random.random() < 0.5 else self.random.choice(list(Survival))
        self._die(life, survival, self.random.randrange(10, 500), silent=False)

    def _die(self, life: Process, survival: Survival, down_ms: int, silent: bool) -> None:
        life.dead = True
        life.disk.mend_last_writes()
        self.images.append(life.disk.copy(self.random).crash(Survival.NOTHING, self.random))
        self.disk = life.disk.crash(survival, self.random)
        self.disk.latency_ns = life.disk.latency_ns
        self.disk.faults = PlannedFaults()
        self.down_ms = down_ms
        self.world.internet.crash(self.name, silent=silent)
