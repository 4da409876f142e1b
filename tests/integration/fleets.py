"""Real nodes in the test's own loop that come, join, move what they have, and go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from cluster.catalogue import METADATA_GROUP
from node.controller import ControllerSettings
from node.node import Node, NodeSettings
from replication.environment import Environment
from replication.real import real_environment
from replication.storage.store import LOCK
from tests.integration.clusters import WAIT_S, free_port, until

DEAD_AFTER_MS = 800
"""A node that is silent for so long is dead, in these tests."""


class Machine:
    """A place for a node: its folder, its addresses, and its process."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.number = number
        self.folder = fleet.folder / f"machine-{number}"
        self.peer = ("127.0.0.1", free_port())
        self.native = ("127.0.0.1", free_port())
        self.node: Node | None = None
        self.opened = trio.Event()
        self._fleet = fleet
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._environment: Environment | None = None

    def begin(self) -> None:
        """It is off, and will run."""
        self._scope, self._ended, self.opened = trio.CancelScope(), trio.Event(), trio.Event()

    async def run(self, settings: NodeSettings) -> None:
        """Live until `kill`."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    environment = self._environment = real_environment(str(self.folder), nursery)
                    self.node = await Node.open(environment, settings)
                    self.opened.set()
                    await trio.sleep_forever()
        finally:
            if self.node is not None:
                with trio.CancelScope(shield=True):  # the kernel would do it for a process
                    await self.node.peers.close()
            self.node = None
            self._ended.set()

    async def kill(self) -> None:
        """End in the middle of what it does, and leave its lock as a dead process does."""
        self._scope.cancel()
        await self._ended.wait()
        if self._environment is not None:
            self._environment.disk.unlock(LOCK)


class Fleet:
    """All machines, by number."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self.machines: dict[int, Machine] = {}
        self.secrets: dict[int, bytes] = {}
        """The cluster's secret, as each machine knows it."""
        self._nursery = nursery

    async def start(self, number: int, *, join: int = 0, initial: tuple[int, ...] = (), rack: str = "") -> Node:
        """Start a node on a machine; `join`: a machine whose node it is to join."""
        machine = self.begin(number, join=join, initial=initial, rack=rack)
        with trio.fail_after(WAIT_S):
            await machine.opened.wait()
        return self.node(number)

    def begin(self, number: int, *, join: int = 0, initial: tuple[int, ...] = (), rack: str = "") -> Machine:
        """The same; it is open in a while."""
        machine = self.machine(number)
        machine.begin()
        self._nursery.start_soon(machine.run, self.settings(number, join=join, initial=initial, rack=rack))
        return machine

    def settings(
        self, number: int, *, join: int = 0, initial: tuple[int, ...] = (), rack: str = ""
    ) -> NodeSettings:
        """What a machine's node is told."""
        machine = self.machine(number)
        settings = NodeSettings(
            peer_listen=machine.peer,
            peer=machine.peer,
            native=machine.native,
            rack=rack,
            secret=self.secrets.get(number, b""),
            controller=ControllerSettings(dead_after_ms=DEAD_AFTER_MS),
        )
        if join:
            settings = replace(settings, join=[self.machine(join).peer])
        if initial:
            peers = {at: self.machine(other).peer for at, other in enumerate(initial, start=1)}
            settings = replace(settings, initial=peers, node_id=initial.index(number) + 1)
        return settings

    def machine(self, number: int) -> Machine:
        if number not in self.machines:
            self.machines[number] = Machine(self, number)
        return self.machines[number]

    def node(self, number: int) -> Node:
        node = self.machines[number].node
        assert node is not None
        return node

    async def kill(self, number: int) -> None:
        await self.machines[number].kill()

    @property
    def nodes(self) -> list[Node]:
        return [machine.node for machine in self.machines.values() if machine.node and machine.opened.is_set()]

    # what is so

    def leader(self, group: int) -> Node | None:
        """Who leads a group, and serves."""
        for node in self.nodes:
            found = node.metadata.replica.group if group == METADATA_GROUP else node.replicas.group(group)
            if found is not None and found.ready:
                return node
        return None

    def members(self, group: int) -> tuple[list[int], list[int]]:
        """The nodes of a group's voters and learners, as its leader knows them for certain; else none."""
        leader = self.leader(group)
        if leader is None:
            return [], []
        found = leader.metadata.replica.group if group == METADATA_GROUP else leader.replicas.group(group)
        assert found is not None
        members = found.membership
        if members.joint or not found.members_committed:
            return [], []
        return sorted(members.voters.values()), sorted(members.learners.values())

    async def has_members(self, group: int, voters: list[int], learners: list[int]) -> None:
        """Until the group has exactly these, and the catalogue knows."""
        await until(lambda: self.members(group) == (voters, learners))
        await until(lambda: all(self.settled(node, group) for node in self.nodes))

    @staticmethod
    def settled(node: Node, group: int) -> bool:
        assignment = node.metadata.catalogue.assignment(group)
        return assignment is not None and assignment.settled


@asynccontextmanager
async def running_fleet(folder: Path) -> AsyncIterator[Fleet]:
    """No machine yet; at the end all of them are killed."""
    async with trio.open_nursery() as nursery:
        fleet = Fleet(folder, nursery)
        yield fleet
        for number, machine in fleet.machines.items():
            if machine.node is not None:
                await fleet.kill(number)
        nursery.cancel_scope.cancel()
