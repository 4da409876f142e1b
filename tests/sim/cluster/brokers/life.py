"""One process of a simulated broker: the whole node and its gateway, the real ones."""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from gateways.native.server import NativeGateway
from node.commanded import CommandedReplica
from node.controller import ControllerSettings
from node.node import Node, NodeSettings
from node.partition import Partition
from plait.wire.errors import AlreadyExists, PlaitError, StorageDamaged
from replication.machine import Role
from replication.raft.core import RaftCore
from replication.raft.invariants import check
from replication.storage.damage import StorageFailed
from replication.storage.log import GroupLog
from tests.sim.cluster.box import Box
from tests.sim.cluster.brokers.watching import LIFE
from tests.sim.cluster.checkers import Watch
from tests.sim.cluster.settings import PEER_PORT
from tests.sim.crash import Survival
from tests.sim.disk import CrashHere, SimDisk
from tests.sim.environment import SimClock, sim_environment
from tests.sim.pauses import NODE

if TYPE_CHECKING:
    from tests.sim.cluster.brokers.world import BrokerWorld

NATIVE_PORT = 4_150
"""Where clients are served."""
WRONG_DISK_S = 0.8
"""How long a wrong disk is in a machine."""
LOW_SPACE_BYTES = 60_000
"""Free bytes below which publishes are refused."""
CRITICAL_SPACE_BYTES = 25_000
"""Free bytes below which all but consuming stops."""


class BrokerBox(Box):
    """A machine of a broker; its node id is that of its disk."""

    world: BrokerWorld
    life: BrokerLife | None

    def __init__(self, world: BrokerWorld, name: str, node_id: int, disk: SimDisk, clock: SimClock) -> None:
        """`node_id`: of one that founds the cluster; 0: it is off, and joins when it is switched on."""
        super().__init__(world, name, node_id, disk, clock)
        self.founds = node_id > 0
        self.own_disk: SimDisk | None = None
        """Lies beside the machine while a wrong one is in it."""
        self._power = trio.Event()
        if self.founds:
            self._power.set()

    @property
    def is_on(self) -> bool:
        """It is running, or will be in a moment."""
        return self._power.is_set()

    def switch_on(self) -> None:
        """It starts, with the disk that is in it."""
        self._power.set()

    def clear(self) -> None:
        """It is switched off, and has a new disk: if it is switched on again it is another node."""
        self.crash(Survival.KILLED, 0)
        self._power = trio.Event()
        self.founds, self.node_id = False, 0
        self.disk, self.own_disk, self.images, self.doubtful = self.world.new_disk(), None, [], False

    async def run(self) -> None:
        """See Box."""
        if not self.is_on:
            await self._power.wait()
        await super().run()

    async def rest(self) -> None:
        """See Box."""
        await super().rest()
        while not self.is_on:
            await self._power.wait()

    def put_in(self, disk: SimDisk, down_ms: int) -> None:
        """It is started again with another disk, an older state of its own or an empty one."""
        self.crash(Survival.KILLED, down_ms)
        self.own_disk, self.disk = self.disk, disk
        self.speed_up()
        self.world.nursery.start_soon(self._take_out)

    async def _take_out(self) -> None:
        with trio.move_on_after(WRONG_DISK_S):
            await self.world.healed.wait()
        own, images = self.own_disk, list(self.images)
        if own is None:
            return  # the machine was cleared meanwhile
        self.crash(Survival.KILLED, 50)
        self.own_disk, self.disk, self.images = None, own, images
        self.heal()
        self.world.events.note("own disk", self.name)


class BrokerLife:
    """One process, from its start to its end."""

    def __init__(self, box: BrokerBox, seed: int) -> None:
        self.box = box
        self.world = box.world
        self.disk = box.disk
        self.scope = trio.CancelScope()
        self.dead = False
        self.started = False
        self.node: Node | None = None
        self.gateway: NativeGateway | None = None
        self.replicas: dict[int, Partition | CommandedReplica] = {}
        """By group."""
        self.logs: dict[int, GroupLog] = {}
        """By group."""
        self._wrong = box.own_disk is not None
        self._seed = seed

    @property
    def leads(self) -> bool:
        """It leads a group, and serves."""
        return any(self.leads_group(group) for group in self.replicas)

    def leads_group(self, group: int) -> bool:
        """It leads this one, and serves."""
        replica = self.replicas.get(group)
        found = replica.group if replica is not None else None
        return found is not None and found.role is Role.LEADER and found.ready

    def is_to_have(self, group: int) -> bool:
        """A replica of the group is to be here."""
        assert self.node is not None, "it serves"
        assignment = self.node.metadata.catalogue.assignment(group)
        return assignment is not None and self.node.node_id in assignment.nodes

    def core(self, group: int) -> RaftCore | None:
        """The core of a group's replica here."""
        replica = self.replicas.get(group)
        found = replica.group if replica is not None else None
        return found.core if found is not None else None

    def opened(self, group: int, replica: Partition | CommandedReplica, log: GroupLog) -> None:
        """A replica is open."""
        self.replicas[group], self.logs[group] = replica, log
        core = self.core(group)
        if core is None:
            return
        world = self.world
        cores = world.cores.setdefault(group, {})
        cores[core.replica] = core
        core.observer = Watch(core, world.checker(group), cores, check, world.events.reached)
        world.follow(group, core, log, self)

    async def run(self) -> None:
        """Until it is crashed, or ends by itself."""
        context = copy_context()
        context.run(NODE.set, self.box.name)
        context.run(LIFE.set, self)
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    context.run(nursery.start_soon, self._main, nursery)
        except BaseExceptionGroup as group:
            self._judge(group)
        if self.node is not None and hasattr(self.node, "metadata"):
            self.world.leases.died(self.node.node_id, self.node.metadata.incarnation)

    def _judge(self, group: BaseExceptionGroup) -> None:
        events = self.world.events
        _, others = group.split(
            lambda error: (
                isinstance(error, trio.Cancelled)
                or (self.dead and isinstance(error, CrashHere | trio.ClosedResourceError))
            )  # its listeners are gone
        )
        failed, others = others.split(StorageFailed) if others is not None else (None, None)
        if failed is not None and not self.dead:
            events.reached("node stopped by its disk")
            events.note("stopped", self.box.name, _first(failed))
        if others is None:
            return
        error = _first(others)
        if self._wrong and isinstance(error, AlreadyExists | StorageDamaged):
            events.reached("wrong disk refused")
        elif isinstance(error, AlreadyExists | StorageDamaged) and self.world.was_removed(self.box.node_id):
            events.reached("removed node refused")
        elif isinstance(error, PlaitError | OSError) and self.box.doubtful:
            events.reached("node ended with its damaged disk")
        else:
            events.break_promise(f"{self.box.name} ended with {error!r}")
        events.note("ended", self.box.name, repr(error))

    async def _main(self, nursery: trio.Nursery) -> None:
        world, box = self.world, self.box
        network = world.internet.network(box.name)
        made = sim_environment(nursery, self._seed, self.disk, clock=box.clock, network=network)
        node = self.node = await Node.open(made.environment, self._settings())
        if self._wrong and not self.dead:
            world.events.break_promise(f"{box.name} serves with a disk that is not its own, or older")
        gateway = self.gateway = NativeGateway(made.environment, node.broker, box.name, NATIVE_PORT)
        await gateway.start()
        made.environment.tasks.spawn("gateway", gateway.run)
        if box.node_id != node.node_id:
            box.node_id = node.node_id
            world.joined(box)
        self.started = True
        world.events.note("serves", box.name, f"node={node.node_id}", f"start={node.metadata.incarnation}")
        await node.removed.wait()
        if not world.was_removed(node.node_id):
            world.events.break_promise(f"{box.name} takes itself for removed, and was not")
        world.events.reached("removed node ended by itself")
        self.scope.cancel()

    def _settings(self) -> NodeSettings:
        world, box = self.world, self.box
        shape = world.plan.shape
        storage = replace(
            world.settings.storage, low_space_bytes=LOW_SPACE_BYTES, critical_space_bytes=CRITICAL_SPACE_BYTES
        )
        founders = world.boxes[: shape.nodes] if box.founds and shape.nodes > 1 else []
        number = world.boxes.index(box)
        return NodeSettings(
            name=box.name,
            storage=storage,
            node_id=box.node_id if box.founds else 1,
            initial={each: (one.name, PEER_PORT) for each, one in enumerate(founders, start=1)} or None,
            join=() if box.founds else world.doors(box),
            peer_listen=(box.name, PEER_PORT) if shape.nodes + shape.spares > 1 else None,
            peer=(box.name, PEER_PORT) if shape.nodes + shape.spares > 1 else None,
            native=(box.name, NATIVE_PORT),
            rack=f"rack {number % shape.racks}" if shape.racks else "",
            raft=world.settings.raft,
            peers=world.settings.peers,
            controller=ControllerSettings(shape.dead_after_ms),
        )

    def holds(self) -> dict[str, int]:
        """What it has promised and not done: nothing, at rest."""
        found: dict[str, int] = {}
        for group, replica in self.replicas.items():
            core = self.core(group)
            held = _held_by(replica) if isinstance(replica, Partition) else {}
            if core is not None:
                held |= {
                    "reads": len(core.reads),
                    "uncommitted bytes": core.uncommitted_bytes,
                    "messages held": len(core.held),
                }
            found |= {f"group {group} {what}": count for what, count in held.items() if count}
        if self.node is not None and self.node.lanes.under_way:
            found["publishes of clients"] = self.node.lanes.under_way
        if self.gateway is not None and self.gateway.counters.connections_now:
            found["connections"] = self.gateway.counters.connections_now
        return found


def _held_by(partition: Partition) -> dict[str, int]:
    publishing, readers = partition.publishing, partition.readers
    return {
        "permits": partition.admission.permits_held,
        "in-flight bytes": partition.admission.in_flight_bytes,
        "waiting publishes": partition.admission.waiting + len(publishing._waiting),
        "publishes under way": len(publishing._in_flight) + len(publishing.proposals),
        "proposals": len(partition._proposed) + len(partition._commands),
        "waiting reads": sum(not each[2].promise.abandoned for each in readers._waiting),
        "consumers": len(partition.consumers.ids()),
        "leases": sum(shared.leased_count for shared in partition.state.shared.values()),
    }


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
