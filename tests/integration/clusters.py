"""Three real nodes in the test's own loop, over loopback, each with its own disk; they die and come back."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

import trio

from gateways.native.server import NativeGateway
from node.node import Node, NodeSettings
from node.partition import Partition
from plait.wire.errors import PlaitError
from replication.actor import Promise
from replication.environment import Environment
from replication.group import Group
from replication.real import real_environment
from replication.storage.log import GroupLog
from replication.storage.store import LOCK, StorageSettings

T = TypeVar("T")
NODES = (1, 2, 3)
WAIT_S = 30.0
"""Time for what must come about; no test depends on how long it really takes."""
LOOK_S = 0.01
"""Time between two looks."""
_TAKEN = count()
"""How many ports were given out: two calls never look from the same one on."""


class Member:
    """One node, from its start to its death."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.node_id = node_id
        self._cluster = cluster
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._environment: Environment | None = None
        self.node: Node | None = None
        self.opened = trio.Event()

    async def run(self) -> None:
        """Live until `kill`."""
        folder = self._cluster.folder / f"node-{self.node_id}"
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    environment = real_environment(str(folder), nursery)
                    environment = self._environment = self._cluster.adjust(self.node_id, environment)
                    settings = self._cluster.settings(self.node_id)
                    node = await Node.open(environment, settings)
                    assert settings.native is not None
                    gateway = NativeGateway(environment, node.broker, *settings.native)
                    await gateway.start()
                    nursery.start_soon(gateway.run)
                    self.node = node
                    self.opened.set()
                    await trio.sleep_forever()
        finally:
            if self.node is not None and self.node.peers is not None:
                with trio.CancelScope(shield=True):  # the kernel would do it for a process
                    self.node.routes.stop()
                    await self.node.peers.close()
            self.node = None
            self._ended.set()

    async def kill(self) -> None:
        """End in the middle of what it does, and leave its lock as a dead process does."""
        self._scope.cancel()
        await self._ended.wait()
        if self._environment is not None:
            with suppress(KeyError):  # it was closed, and has given it back
                self._environment.disk.unlock(LOCK)


class Cluster:
    """Its nodes by id; `addresses` is what clients are given."""

    def __init__(
        self, folder: Path, nursery: trio.Nursery, storage: StorageSettings, spread_leaders: bool = False
    ) -> None:
        self.folder = folder
        self.adjust: Callable[[int, Environment], Environment] = lambda node_id, environment: environment
        """What a node's world is to be like, where that is not the machine's."""
        self._spread_leaders = spread_leaders
        self._storage = storage
        self._nursery = nursery
        self._peers = {node_id: ("127.0.0.1", free_port()) for node_id in NODES}
        self._native = {node_id: ("127.0.0.1", free_port()) for node_id in NODES}
        self.members: dict[int, Member] = {}

    @property
    def addresses(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self._native.values())

    def settings(self, node_id: int) -> NodeSettings:
        return NodeSettings(
            name=f"node-{node_id}",
            storage=self._storage,
            node_id=node_id,
            initial=self._peers,
            native=self._native[node_id],
            spread_leaders=self._spread_leaders,
        )

    def begin(self, *node_ids: int) -> None:
        """Start nodes; they are open in a while."""
        for node_id in node_ids:
            member = self.members[node_id] = Member(self, node_id)
            self._nursery.start_soon(member.run)

    async def start(self, *node_ids: int) -> None:
        """Start nodes, and wait until they are open."""
        self.begin(*node_ids)
        with trio.fail_after(WAIT_S):
            for node_id in node_ids:
                await self.members[node_id].opened.wait()

    async def kill(self, node_id: int) -> None:
        """A node dies."""
        await self.members.pop(node_id).kill()

    def node(self, node_id: int) -> Node:
        node = self.members[node_id].node
        assert node is not None
        return node

    @property
    def nodes(self) -> list[Node]:
        return [member.node for member in self.members.values() if member.node is not None]

    async def leader(self, name: str = "", partition: int = 0) -> Node:
        """The node that serves a partition; without a name, the one that serves the catalogue."""
        found: list[Node] = []

        def look() -> bool:
            found[:] = [node for node in self.nodes if _leads(node, name, partition)]
            return bool(found)

        await until(look)
        return found[0]

    async def gathered(self, *names: str) -> Node:
        """The node that serves all partitions of these, however long that takes to be so."""
        found: list[Node] = []

        def look() -> bool:
            found[:] = [node for node in self.nodes if all(_all_led(node, names))]
            return bool(found)

        await until(look)
        return found[0]

    async def gather(self, *names: str) -> Node:
        """Have one node serve all partitions of these: the one that serves the first of them."""
        target = await self.leader(names[0])
        for name in names:
            for number in range(len(target.metadata.catalogue.topic(name).groups)):
                leader = await self.leader(name, number)
                if leader is not target:
                    await self.handed_over(self.replica(leader.node_id, name, number).group, target)
        return await self.gathered(*names)

    async def move(self, name: str, to: int = 0) -> Node:
        """Leadership of a topic's first partition goes to another node, which serves it then."""
        leader = await self.leader(name)
        own = leader.node_id
        target = to or next(node_id for node_id in self.members if node_id != own)
        if target != own:
            await self.handed_over(self.replica(own, name).group, self.node(target))
        await until(lambda: _leads(self.node(target), name, 0))
        return self.node(target)

    async def handed_over(self, group: Group, to: Node) -> None:
        """That node leads the group, as far as this replica knows."""

        def look() -> bool:
            if group.ready:
                replica = next(each for each, node in group.membership.voters.items() if node == to.node_id)
                group.transfer(replica)
            return group.leader_node == to.node_id

        await until(look)

    def has(self, node_id: int, name: str) -> bool:
        """Whether a node has opened its replicas of a topic."""
        return _partitions(self.node(node_id), name) is not None

    def replica(self, node_id: int, name: str, partition: int = 0) -> Partition:
        """A node's replica of a partition."""
        found = _partitions(self.node(node_id), name)
        assert found is not None
        return found[partition]

    def log(self, node_id: int, name: str, partition: int = 0) -> GroupLog:
        """The log of that replica."""
        group = self.replica(node_id, name, partition).group
        return self.node(node_id).groups.log_of(group.group, group.replica)

    async def agreed(self, name: str, partition: int = 0) -> None:
        """Until all nodes that live have applied the same, and it has made the same state of all of them."""

        def look() -> bool:
            replicas = [_partitions(node, name) for node in self.nodes]
            if not all(replicas):
                return False
            members = [replica[partition] for replica in replicas if replica is not None]
            applied = {member.group.applied_index for member in members}
            return len(applied) == 1 and len({member.state.snapshot() for member in members}) == 1

        await until(look)


def _partitions(node: Node, name: str) -> Mapping[int, Partition] | None:
    topic = node.metadata.catalogue.topic(name)
    return node.replicas.partitions(topic.topic_id) if topic is not None else None


def _all_led(node: Node, names: tuple[str, ...]) -> Iterator[bool]:
    for name in names:
        partitions = _partitions(node, name)
        yield partitions is not None and all(partition.failure is None for partition in partitions.values())


def _leads(node: Node, name: str, partition: int) -> bool:
    if not name:
        return node.metadata.replica.ready
    partitions = _partitions(node, name)
    return partitions is not None and partitions[partition].failure is None


@asynccontextmanager
async def running_cluster(
    folder: Path,
    storage: StorageSettings | None = None,
    *,
    spread_leaders: bool = False,
    adjust: Callable[[int, Environment], Environment] | None = None,
) -> AsyncIterator[Cluster]:
    """A cluster of three, open."""
    async with trio.open_nursery() as nursery:
        cluster = Cluster(folder, nursery, storage or StorageSettings(), spread_leaders)
        cluster.adjust = adjust or cluster.adjust
        await cluster.start(*NODES)
        yield cluster
        for node_id in list(cluster.members):
            await cluster.kill(node_id)
        nursery.cancel_scope.cancel()


async def until(look: Callable[[], bool]) -> None:
    """Until it is so."""
    with trio.fail_after(WAIT_S):
        while not look():  # noqa: ASYNC110 - nothing would set an event
            await trio.sleep(LOOK_S)


async def patiently(ask: Callable[[], Promise[T]]) -> T:
    """As a client does: again, as long as the answer is that it may work later and nothing was done."""
    with trio.fail_after(WAIT_S):
        while True:
            try:
                return await ask().wait()
            except PlaitError as error:
                if not error.retriable or error.unknown:
                    raise
            await trio.sleep(LOOK_S)


def free_port() -> int:
    """A port that nobody listens on, and that the kernel gives to no outgoing connection in the meantime."""
    ports = range(10_000, 32_000)
    begin = os.getpid() * 97 + next(_TAKEN) * 13
    for step in range(len(ports)):
        port = ports[(begin + step) % len(ports)]
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError(f"nothing is free on 127.0.0.1 among the ports {ports.start} to {ports.stop - 1}")
