"""A simulated machine and the processes that live on it, one behind the other.

    Box   ── hardware: a disk, a clock, a place in the network; crashes and is started again
     └ Life ── one process: store, actors, peer links, replicas; all of them the real ones

A crash marks the life's world as dead first and cancels its tasks then: what they do in their `finally:` blocks
reaches neither disk nor network, as after a real kill.
"""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import trio

from replication.actor import Actor, Host
from replication.environment import Environment
from replication.group import Group
from replication.machine import Role, RoleChange
from replication.peers import lives
from replication.peers.peers import Peers
from replication.peers.protocol import Identity
from replication.raft.invariants import check
from replication.raft.membership import Membership
from replication.storage.damage import StorageFailed
from replication.storage.log import GroupLog
from replication.storage.store import Store
from replication.transfer import Transfers
from tests.sim.cluster.box import Box
from tests.sim.cluster.checkers import Watch
from tests.sim.cluster.member import Member
from tests.sim.cluster.settings import CLUSTER_ID, PEER_PORT
from tests.sim.crash import Survival
from tests.sim.disk import CrashHere, SimDisk
from tests.sim.environment import SimClock, sim_environment
from tests.sim.pauses import NODE

if TYPE_CHECKING:
    from tests.sim.cluster.world import World

OLD_DISK_S = 0.8
"""How long a node lives with an older disk before it is replaced."""
REPLICAS_OF_GROUP = 1_000
"""A replica's log has the number group * this + replica, so that a node can have several of a group, one behind
the other."""


class GroupBox(Box):
    """One machine. Its node id changes when it comes back with a disk that knows nothing of the former one."""

    world: World
    life: Life | None

    def __init__(self, world: World, name: str, node_id: int, disk: SimDisk, clock: SimClock) -> None:
        super().__init__(world, name, node_id, disk, clock)
        self.lives_seen: dict[int, lives.Life] = {}
        """Lives of other nodes that this one has seen; it does not forget them."""
        self.must_go = False
        """It came back with an older disk: it is to be replaced."""

    @property
    def member_of(self) -> dict[int, Member]:
        """By group, the replicas that live here now."""
        return self.life.members if self.life is not None and self.life.started else {}

    def go_back(self, down_ms: int, random: Random) -> bool:
        """Come back with the disk as it was at the end of an earlier life.

        Not where a replica here has ever been the only voter: on such a disk it needs nobody's consent to lead.
        And not before all others have met this life: whoever has not cannot know what the disk has forgotten.
        """
        if self.name in self.world.members.alone_once:
            return False
        life = self.life
        if life is None or life.dead or not life.started or not self.images:
            return False
        others = [box.lives_seen.get(self.node_id) for box in self.world.boxes if box is not self]
        if not all(seen is not None and seen.number >= life.store.life for seen in others):
            return False
        image = random.choice(self.images).copy(self.random)
        self.crash(Survival.NOTHING, down_ms)
        self.disk = image
        self.speed_up()
        self.doubtful = self.must_go = True
        self.world.members.lose(self)
        self.world.nursery.start_soon(self._replace_later)
        return True

    async def _replace_later(self) -> None:
        await trio.sleep(OLD_DISK_S)
        self.replace(50)

    def replace(self, down_ms: int) -> None:
        """It comes back with an empty disk, as another node."""
        self.crash(Survival.NOTHING, down_ms)
        self.world.members.lose(self)
        former = self.node_id
        self.disk = self.world.new_disk()
        self.node_id = self.world.new_node()
        self.images.clear()
        self.lives_seen.clear()
        self.doubtful = self.must_go = False
        for box in self.world.boxes:
            if box is not self and box.life is not None and box.life.started:
                box.life.meet()
                box.life.peers.forget(former)
        self.world.events.note("replaced", self.name, f"node={former}", f"by={self.node_id}")
        self.world.events.reached("replica replaced")


class Life:
    """One process, from its start to its end."""

    def __init__(self, box: GroupBox, seed: int) -> None:
        self.box = box
        self.world = box.world
        self.disk = box.disk
        self.scope = trio.CancelScope()
        self.dead = False
        self.started = False
        """Its links are up and its replicas open."""
        self.members: dict[int, Member] = {}
        self.store: Store
        self.host: Host
        self.peers: Peers
        self._adding: dict[tuple[int, int], None] = {}
        self._seed = seed
        self._environment: Environment

    @property
    def leads(self) -> bool:
        """It leads a group, and serves."""
        return any(member.leads for member in self.members.values())

    async def run(self) -> None:
        """Until it is crashed, or ends by itself."""
        context = copy_context()
        context.run(NODE.set, self.box.name)
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    context.run(nursery.start_soon, self._main, nursery)
        except BaseExceptionGroup as group:
            self._judge(group)

    def _judge(self, group: BaseExceptionGroup) -> None:
        _, others = group.split(
            lambda error: isinstance(error, trio.Cancelled) or (isinstance(error, CrashHere) and self.dead)
        )
        failed, others = others.split(StorageFailed) if others is not None else (None, None)
        if failed is not None and not self.dead:
            self.world.events.reached("node stopped by its disk")
            self.world.events.note("stopped", self.box.name, _first(failed))
        if others is not None:
            self.world.events.break_promise(f"{self.box.name} ended with {_first(others)!r}")

    async def _main(self, nursery: trio.Nursery) -> None:
        network = self.world.internet.network(self.box.name)
        made = sim_environment(nursery, self._seed, self.disk, clock=self.box.clock, network=network)
        environment = self._environment = made.environment
        world = self.world
        self.store = await Store.open(environment, world.settings.storage)
        environment.tasks.spawn("store", self.store.run)
        self.host = Host(environment.clock, self._actor_failed)
        environment.tasks.spawn("actors", self.host.run)
        identity = Identity(CLUSTER_ID, self.box.node_id, self.store.life)
        self.peers = Peers(environment, self.host, identity, world.settings.peers)
        self.peers.lives = self.box.lives_seen
        self.transfers = Transfers(
            environment,
            self.peers,
            self._log_of,
            lambda log: log.group // REPLICAS_OF_GROUP,
            world.settings.transfers,
        )
        await self.peers.listen(self.box.name, PEER_PORT)
        for log_number in sorted(self.store.groups()):
            await self._open(*divmod(log_number, REPLICAS_OF_GROUP), None)
        await self._found()
        self.meet()
        self.started = True

    def meet(self) -> None:
        """Keep links to all other nodes of the cluster, and to no others."""
        for box in self.world.boxes:
            if box is not self.box:
                self.peers.connect_to(box.node_id, box.name, PEER_PORT)

    async def _found(self) -> None:
        """The first members of each group begin; again, if they died before anything of it was durable."""
        for group, membership in self.world.founders.items():
            for replica, node_id in membership.voters.items():
                if node_id == self.box.node_id and group not in self.members and self.may_begin(group, replica):
                    await self._open(group, replica, membership)

    def may_begin(self, group: int, replica: int) -> bool:
        """A replica of which nothing is here may begin from nothing: it has never promised anything.

        Where the store has lost records of which nobody knows whose they were, that is not so for a replica that
        was here before.
        """
        members = self.world.members
        if self.store.forgot and (group, replica) in members.seen:
            members.gone[group, replica] = None
        return (group, replica) not in members.gone

    def add(self, group: int, replica: int) -> None:
        """A new replica, without anything; it is there in a moment."""
        if (group, replica) not in self._adding:
            self._adding[group, replica] = None
            self._environment.tasks.spawn("add replica", self._open, group, replica, None)

    def holds(self) -> dict[str, int]:
        """What it has promised and not done: nothing, at rest."""
        return {}

    def remove(self, group: int) -> None:
        """A replica is no member any more: its data goes."""
        member = self.members.pop(group)
        member.group.stop()
        self.peers.remove(group)
        self.store.delete(group * REPLICAS_OF_GROUP + member.replica, lambda _: None)
        self.world.members.gone[group, member.replica] = None
        self.world.events.note("removed", self.box.name, f"group={group}", f"replica={member.replica}")

    async def _open(self, number: int, replica: int, founders: Membership | None) -> None:
        """Bring a replica to life, from its log or without one."""
        world = self.world
        log_number = number * REPLICAS_OF_GROUP + replica
        known = log_number in self.store.groups()
        log = self.store.log(log_number) if known else self.store.create(log_number)
        checker = world.checkers[number]
        member = Member(checker, replica, log)
        member.on_standing = partial(self._standing, member)
        environment = self._environment
        group = member.group = Group(
            self.host,
            number,
            replica,
            log,
            member.machine,
            environment.tasks,
            environment.random,
            self.peers,
            self.transfers,
            world.settings.raft,
        )
        self.members[number] = member
        world.members.seen[number, replica] = None
        await group.open(founders)
        if group.core is None:
            return
        world.cores[number][replica] = group.core
        group.core.observer = Watch(group.core, checker, world.cores[number], check, world.events.reached)
        world.follow(number, group.core, log, self)
        self.peers.add(group)

    def _log_of(self, group: int) -> GroupLog | None:
        member = self.members.get(group)
        return member.log if member is not None else None

    def _standing(self, member: Member, change: RoleChange) -> None:
        if not self.dead:
            about = f"term={change.term} {change.role.value}" + (" ready" if change.ready else "")
            self.world.events.note("standing", self.box.name, member.group.name, about, change.reason)
            if change.role is Role.FENCED:
                self._fenced(member, change.reason)

    def _fenced(self, member: Member, reason: str) -> None:
        """Replicas end only with their disks: one that failed, or one that lost something."""
        if reason.startswith("the log could not be written"):
            return
        lost = "were acknowledged and are not here" in reason
        self.world.events.reached("older disk found by its leader" if lost else "damage without remedy")
        if not self.box.doubtful:
            self.world.events.break_promise(f"{self.box.name} {member.group.name} was fenced: {reason}")

    def _actor_failed(self, actor: Actor, error: Exception) -> None:
        if not self.dead:
            self.world.events.break_promise(f"{self.box.name}: actor {actor.name} failed with {error!r}")


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
