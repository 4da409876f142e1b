"""Nodes that have nothing but their peer links, in one seeded loop: what the tests of the links are played in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from random import Random
from typing import Any

import trio

from replication.actor import Actor, Host
from replication.peers.peers import Peers
from replication.peers.proof import key_of
from replication.peers.protocol import Identity
from replication.peers.settings import PeerSettings
from replication.raft.messages import Message
from tests.sim.disk import SimDisk
from tests.sim.environment import SimClock, sim_environment
from tests.sim.network import Internet
from tests.sim.pauses import NODE
from tests.sim.run import Trace, run_sim

PORT = 7_000
CLUSTER = "tested"
LIMIT_S = 60.0
"""Simulated seconds in which anything must have happened that a test waits for."""


class Member:
    """A group's replica that keeps what it is told."""

    def __init__(self, group: int) -> None:
        self.group = group
        self.received: list[tuple[int, Message]] = []
        self.told: list[tuple[str, int]] = []

    def receive(self, node_id: int, message: Message) -> None:
        self.received.append((node_id, message))

    def node_down(self, node_id: int) -> None:
        self.told.append(("down", node_id))

    def node_up(self, node_id: int) -> None:
        self.told.append(("up", node_id))

    def unreachable(self, node_id: int) -> None:
        self.told.append(("unreachable", node_id))

    def wake(self) -> None:
        self.told.append(("wake", 0))


class Process:
    """One life of a node."""

    def __init__(
        self, world: PeerWorld, node: int, life: int, cluster: str, clock: SimClock | None, secret: bytes
    ) -> None:
        self.world = world
        self.node = node
        self.host_name = f"n{node}"
        self.scope = trio.CancelScope()
        self.ready = trio.Event()
        self.members: dict[int, Member] = {}
        self.peers: Peers
        self.host: Host
        self._identity = Identity(cluster, node, life)
        self._clock = clock
        self._secret = secret

    async def run(self) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                disk = SimDisk(Random(1))
                network = self.world.internet.network(self.host_name)
                seed = self.world.random.getrandbits(64)
                environment = sim_environment(nursery, seed, disk, clock=self._clock, network=network).environment
                self.host = Host(environment.clock, self._failed)
                environment.tasks.spawn("actors", self.host.run)
                self.peers = Peers(
                    environment, self.host, self._identity, self.world.settings, key_of(self._secret)
                )
                await self.peers.listen(self.host_name, PORT)
                self.ready.set()

    def member(self, group: int) -> Member:
        member = self.members[group] = Member(group)
        self.peers.add(member)
        return member

    def connect(self, *nodes: int) -> None:
        for node in nodes:
            self.peers.connect_to(node, f"n{node}", PORT)

    def _failed(self, actor: Actor, error: Exception) -> None:
        raise error


class PeerWorld:
    """The nodes of a test."""

    def __init__(self, random: Random, nursery: trio.Nursery, settings: PeerSettings | None) -> None:
        self.random = random
        self.internet = Internet(Random(random.getrandbits(64)))
        self.settings = settings
        self._nursery = nursery
        self._lives: dict[int, int] = {}

    async def start(
        self,
        node: int,
        *,
        life: int | None = None,
        cluster: str = CLUSTER,
        clock: SimClock | None = None,
        secret: bytes = b"",
    ) -> Process:
        """A process of that node; a life later than the last one, unless told."""
        life = self._lives.get(node, 0) + 1 if life is None else life
        self._lives[node] = life
        self.internet.heal()
        process = Process(self, node, life, cluster, clock, secret)
        context = copy_context()
        context.run(NODE.set, process.host_name)
        context.run(self._nursery.start_soon, process.run)
        await process.ready.wait()
        return process

    async def pair(self) -> tuple[Process, Process]:
        """Nodes 1 and 2, which dial each other and are up."""
        a, b = await self.start(1), await self.start(2)
        a.connect(2)
        b.connect(1)
        await until(lambda: linked(a, b))
        return a, b

    def kill(self, process: Process, *, silent: bool = False) -> None:
        """End it: its connections are reset; `silent`: its machine answers nothing any more, until it starts."""
        if silent:
            for node in self._lives:
                self.internet.cut(process.host_name, f"n{node}")
                self.internet.cut(f"n{node}", process.host_name)
        process.scope.cancel()
        self.internet.crash(process.host_name, silent=silent)


def linked(a: Process, b: Process) -> bool:
    """Both connections stand, and each believes that the other is up."""
    return all(
        one.peers.is_up(other.node) and None not in one.peers.link(other.node).connections.values()
        for one, other in ((a, b), (b, a))
    )


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something is so; fails after LIMIT_S simulated seconds."""
    with trio.fail_after(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - simulated time costs nothing
            await trio.sleep(0.003)


def play(
    story: Callable[[PeerWorld], Awaitable[Any]],
    seed: int = 1,
    *,
    settings: PeerSettings | None = None,
    trace: Trace | None = None,
) -> Any:
    """Run a story in a world of its own; what it returns."""

    async def world(random: Random) -> Any:
        async with trio.open_nursery() as nursery:
            result = await story(PeerWorld(random, nursery, settings))
            nursery.cancel_scope.cancel()
        return result

    return run_sim(seed, world, trace=trace)
