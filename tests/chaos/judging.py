"""How a round ends: everything is healed, and then all that was promised must come true within so many seconds.

heal ──> publishers end ──> everything arrives ──> clients leave
and at the very end: nodes end in good order ──> opened in this process ──> replicas are equal
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from functools import partial

import structlog
import trio

import plait
from node.commanded import CommandedReplica
from node.node import Node, NodeSettings
from node.partition import Partition
from plait.client.client import Client
from plait.settings import parse_address
from plait.wire.errors import PlaitError
from replication.real import real_environment
from replication.storage.settings import StorageSettings
from replication.storage.store import LOCK
from tests.chaos.boxes import Box
from tests.chaos.events import Events
from tests.chaos.fleet import Fleet
from tests.chaos.load import Round
from tests.history.programs import GROUP, SUBSCRIPTION

LIVE_S = 120.0
"""Within so long after everything was healed, all must have come right."""
LOOK_S = 0.1
"""Time between two looks whether it has."""
SAME_S = 60.0
"""Within so long after the nodes were opened, their replicas must be equal."""


class Judge:
    """Of one round."""

    def __init__(self, world: Round, addresses: Sequence[str], events: Events) -> None:
        self._world = world
        self._addresses = list(addresses)
        self._events = events
        self._stage = ""
        self._told = ""

    async def run(self) -> None:
        """Wait, and hold what is there against what was promised."""
        world = self._world
        world.healed.set()
        with trio.move_on_after(LIVE_S) as limit:
            await self._come_right()
        if limit.cancelled_caught:
            self._events.break_promise(
                f"not alive {LIVE_S:g} s after everything was healed: {self._stage} {self._told}"
            )

    async def _come_right(self) -> None:
        world = self._world
        while True:
            self._stage, self._told = "nobody serves all of it", ""
            try:
                async with plait.connect(self._addresses, name="judge") as client:
                    await self._audit(client)
                break
            except PlaitError as error:
                self._told = f"{error.code}: {error.message}"
                self._events.note("judge", self._stage, self._told)
                await trio.sleep(LOOK_S)
        world.emptied.set()
        self._stage = "clients do not leave"
        for machine in world.machines:
            await machine.over.wait()

    async def _audit(self, client: Client) -> None:
        world = self._world
        topic = await client.topic(world.topic.name, create=False)
        queue = await client.queue(world.queue.name, create=False)
        self._stage = "publishers do not end:"
        while world.publishing:
            self._told = ", ".join(world.publishing)
            await trio.sleep(LOOK_S)
        self._stage = "not everything arrives:"
        while True:
            backlog = await queue.backlog()
            left = world.queue.left()
            if not backlog.records and not backlog.leased and not left:
                break
            self._told = f"{backlog}, {len(left)} left, of them {left[:3]}"
            await trio.sleep(LOOK_S)
        self._stage = "the topic cannot be read"
        content: dict[int, list[tuple[int, bytes]]] = {partition: [] for partition in range(topic.partitions)}
        async for message in topic.read(to_end=True):
            content[message.partition].append((message.offset, message.value))
        world.topic.finish(content)
        world.queue.finish_queue()
        self._stage = "the subscription is not given everything"
        values = [value for records in content.values() for _, value in records]
        for subscription in (SUBSCRIPTION, GROUP):
            given = world.topic.delivered.setdefault(subscription, {})
            while missing := [value for value in values if value not in given]:
                self._told = f"({len(missing)} are missing from {subscription}, of them {missing[:3]})"
                await trio.sleep(LOOK_S)


async def remove(world: Round, addresses: Sequence[str], events: Events) -> None:
    """A judged round's topic and queue are deleted."""
    try:
        async with plait.connect(list(addresses), name="judge") as client:
            await client.delete(world.topic.name)
            await client.delete(world.queue.name)
    except PlaitError as error:
        events.note("delete", error.code, error.message)


async def replicas_are_equal(fleet: Fleet) -> None:
    """End all nodes, open them here, and compare what their replicas hold."""
    with _logging_only_what_is_critical():
        await _compare(fleet)


@contextmanager
def _logging_only_what_is_critical() -> Iterator[None]:
    """The nodes that run in this process write no log into the report; other tests' loggers are as before."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


async def _compare(fleet: Fleet) -> None:
    events = fleet.events
    boxes = fleet.members
    for box in boxes:
        box.in_fleet = False
    async with trio.open_nursery() as nursery:
        for box in boxes:
            nursery.start_soon(box.stop)
    async with trio.open_nursery() as nursery:
        nodes: dict[str, Node] = {}
        async with AsyncExitStack() as stack:
            async with trio.open_nursery() as opening:
                for box in boxes:
                    opening.start_soon(_open, fleet, box, nodes, nursery, stack)
            with trio.move_on_after(SAME_S) as limit:
                await _until(lambda: not any(_unequal(nodes)))
            if limit.cancelled_caught:
                events.break_promise(f"replicas differ: {'; '.join(_unequal(nodes))}")
            groups = {group for node in nodes.values() for group in node.replicas._by_group}
            events.say(f"replicas of {len(groups)} partitions are equal on {len(nodes)} nodes")
        nursery.cancel_scope.cancel()


async def _open(
    fleet: Fleet, box: Box, nodes: dict[str, Node], nursery: trio.Nursery, stack: AsyncExitStack
) -> None:
    doors = [parse_address(each.door) for each in fleet.founders]
    settings = NodeSettings(
        name=box.name,
        storage=StorageSettings(low_space_bytes=0, critical_space_bytes=0),
        peer_listen=parse_address(box.peer),
        peer=parse_address(box.door),
        native=parse_address(box.native),
    )
    if box in fleet.founders:
        settings = replace(settings, node_id=box.node_id, initial=dict(enumerate(doors, start=1)))
    else:
        settings = replace(settings, join=doors)
    environment = real_environment(str(box.disk.folder / "data"), nursery)
    node = nodes[box.name] = await Node.open(environment, settings)
    stack.push_async_callback(partial(_close, node))
    stack.callback(environment.disk.unlock, LOCK)


async def _close(node: Node) -> None:
    with trio.CancelScope(shield=True):
        await node.peers.close()


def _unequal(nodes: dict[str, Node]) -> Iterator[str]:
    """What is not as it should be yet."""
    catalogues = {name: node.metadata.snapshot() for name, node in nodes.items()}
    if len(set(catalogues.values())) > 1:
        yield "the catalogue differs"
    numbers = {node.node_id: name for name, node in nodes.items()}
    catalogue = next(iter(nodes.values())).metadata.catalogue
    for group, assignment in catalogue.assignments.items():
        if catalogue.partition_of(group) is None:
            continue
        found: dict[str, tuple[int, bytes]] = {}
        for number in assignment.nodes:
            if number not in numbers:
                continue  # it was lost, and is to be replaced
            replica = _replica(nodes[numbers[number]], group)
            if replica is None or replica.group is None or replica.group.core is None:
                yield f"{numbers[number]} does not have group {group}"
                continue
            state = replica.state if isinstance(replica, Partition) else replica
            found[numbers[number]] = replica.group.applied_index, bytes(state.snapshot())
        if len(set(found.values())) > 1:
            yield f"group {group} differs: { ({name: end for name, (end, _) in found.items()}) }"


def _replica(node: Node, group: int) -> Partition | CommandedReplica | None:
    coordinator = node.replicas.coordinator(group)
    return node.replicas.partition_of(group) if coordinator is None else coordinator.replica


async def _until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - many things must be so at once, and none of them tells
        await trio.sleep(LOOK_S)
