"""How a run of brokers ends: everything is healed, and then all must come right within so many simulated seconds.

    heal ──> publishers end ──> everything arrives ──> clients leave ──> replicas are equal, sleep, hold nothing

What does not come is a violation, told with how things stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import trio

from node.partition import Partition
from plait.client.client import Client
from plait.wire.errors import PlaitError
from replication.machine import Role
from replication.raft.core import RaftCore
from tests.history.programs import DEAD_LETTERS, GROUP, SUBSCRIPTION, the_topic
from tests.sim.cluster.brokers.machines import ClientMachine

if TYPE_CHECKING:
    from tests.sim.cluster.brokers.life import BrokerLife
    from tests.sim.cluster.brokers.world import BrokerWorld

LOOK_S = 0.05
"""Time between two looks whether it has come."""
AGAIN_S = 0.2
"""Time between two questions to the brokers."""
LIVE_ELECTIONS = 40
"""Elections' times within which everything must come right."""
LIVE_S = 45.0
"""Seconds on top: the deadlines of clients and leases, restarts, and what a full disk held up."""
REST_S = 10.0
"""Seconds within which idle groups must sleep and nothing must be held."""


class Ending:
    """Of one run."""

    def __init__(self, world: BrokerWorld) -> None:
        self._world = world
        self._stage = "before"
        self._told = ""
        self._auditor = ClientMachine(world, 0)

    async def run(self) -> None:
        """Heal, wait, judge."""
        world = self._world
        world.heal()
        live_s = LIVE_S + LIVE_ELECTIONS * world.plan.shape.election_ms / 1_000
        with trio.move_on_after(live_s) as limit:
            await self._come_right()
        if limit.cancelled_caught:
            world.events.break_promise(f"not alive {live_s:.0f} s after everything was healed: {self._why()}")
            return
        world.events.note("alive")
        with trio.move_on_after(REST_S) as limit:
            await self._until(lambda: not any(self._restless()))
        if limit.cancelled_caught:
            world.events.break_promise(f"no rest: {'; '.join(self._restless())}")
            return
        for group, checker in world.checkers.items():
            for life in world.lives():
                core = life.core(group)
                if core is not None and core.role is not Role.FENCED:
                    log = life.logs[group]
                    first = log.snapshot_index + 1
                    entries = log.cached(first, 1 << 30) if first <= log.last_index else []
                    checker.stands(entries or [], log.term_at(first - 1))

    async def _come_right(self) -> None:
        world = self._world
        self._stage = "nobody serves all of it"
        while True:
            try:
                async with self._auditor.connect() as client:
                    await self._audit(client)
                break
            except PlaitError as error:
                self._told = f"{error.code}: {error.message}"
                await trio.sleep(AGAIN_S)
        world.emptied.set()
        self._stage = "clients do not leave"
        for machine in world.clients:
            await machine.over.wait()
        self._stage = "replicas differ"
        await self._until(lambda: not any(self._unequal()))

    async def _audit(self, client: Client) -> None:
        """Everything that was acknowledged is read, and has arrived."""
        world = self._world
        topic = await the_topic(world, client)
        queue = await client.queue(world.queue.name, create=False)
        self._stage = "not everything arrives"
        await self._until(lambda: not world.publishing)
        while True:
            backlog = await queue.backlog()
            if not backlog.records and not backlog.leased and not world.queue.left():
                break
            self._told = f"{backlog}, {len(world.queue.left())} left"
            await trio.sleep(AGAIN_S)
        content: dict[int, list[tuple[int, bytes]]] = {partition: [] for partition in range(topic.partitions)}
        async for message in topic.read(to_end=True):
            content[message.partition].append((message.offset, message.value))
        world.topic.finish(content)
        world.queue.finish_queue()
        if world.queue.given_up:
            self._stage = "dead letters do not arrive"
            await self._read_dead(client)
        self._stage = "the subscription is not given everything"
        values = [value for records in content.values() for _, value in records]
        for subscription in (SUBSCRIPTION, GROUP):
            given = world.topic.delivered.setdefault(subscription, {})
            await self._until(lambda given=given: all(value in given for value in values))  # type: ignore[misc]  # bound now

    async def _read_dead(self, client: Client) -> None:
        """What the queue gave up is all there, once."""
        world, values = self._world, list[bytes]()
        dead = await client.queue(DEAD_LETTERS)
        async with dead.consume() as consumer:
            while len(values) < len(world.queue.given_up) or (await dead.backlog()).records:
                with trio.move_on_after(AGAIN_S):
                    message = await anext(consumer)
                    if message.deliveries == 1:
                        values.append(message.value)
                    await message.ack()
        world.queue.finish_dead(values)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():  # noqa: ASYNC110 - many things must have come true at once, and none of them tells
            await trio.sleep(LOOK_S)

    def _whole(self) -> list[BrokerLife]:
        """The processes that must be up and equal."""
        return [life for life in self._world.lives() if not life.dead]

    def _unequal(self) -> Iterator[str]:
        world = self._world
        for box in world.boxes:
            if box.is_on and (box.life is None or not box.life.started) and not box.doubtful:
                yield f"{box.name} is not up"
        for group in sorted({group for life in self._whole() for group in life.replicas}):
            states = {}
            for life in self._whole():
                replica = life.replicas.get(group)
                found = replica.group if replica is not None else None
                if replica is None or found is None or found.core is None:
                    if not life.box.doubtful and life.is_to_have(group):
                        yield f"{life.box.name} has no group {group}"
                elif found.role is Role.FENCED:
                    if not life.box.doubtful:
                        yield f"{life.box.name} has fenced group {group}: {found.failure}"
                else:
                    state = replica.state if isinstance(replica, Partition) else replica
                    states[life.box.name] = found.applied_index, state.snapshot()
            if len(set(states.values())) != 1:
                at = {name: index for name, (index, _) in states.items()}
                yield f"group {group} differs: {at}"

    def _restless(self) -> Iterator[str]:
        """Not a group with a fenced replica: that never agrees to sleep, and the leader is right to go on."""
        whole = self._whole()
        fenced = {group for life in whole for group in life.replicas if _is_fenced(life.core(group))}
        for life in whole:
            held = life.holds()
            if held:
                yield f"{life.box.name} holds {held}"
            for group in life.replicas:
                core = life.core(group)
                if core is None or group in fenced:
                    continue
                sleeps = core.asleep or core.next_deadline_ns() is None
                if not sleeps and self._world.plan.shape.sleeps:
                    yield f"{life.box.name} is awake in group {group}"

    def _why(self) -> str:
        """How things stand, for people."""
        world = self._world
        told = f" ({self._told})" if self._told else ""
        busy = ", ".join(machine.name for machine in world.clients if not machine.over.is_set())
        standings = [
            f"{life.box.name} group {group} {core.role.value} term={core.term} commit={core.commit}"
            for life in self._whole()
            for group in life.replicas
            if (core := life.core(group)) is not None
        ]
        return "; ".join([f"{self._stage}{told}", f"still there: {busy}", *self._unequal(), *standings])


def _is_fenced(core: RaftCore | None) -> bool:
    """Or never opened, for what its disk has."""
    return core is None or core.role is Role.FENCED
