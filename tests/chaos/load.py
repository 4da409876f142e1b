"""The load of one round: SDK clients that publish, read, subscribe and consume, each first at another node.

    c1 c2 c3      the programs of tests/history: the same that the simulator runs, judged by the same books
    probes        publish to every partition all the time, so that outages can be measured

A round has a topic and a queue of its own, so that what it is judged by does not grow for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import trio

import plait
from plait.client.client import Client, Queue, Topic
from plait.client.producer import Producer
from plait.wire.errors import PlaitError
from tests.chaos.events import Events
from tests.history.book import Book
from tests.history.programs import Consumer, Program, Streamer, programs_of
from tests.history.sharing import Sharing

CLIENTS = 3
"""With a mix of programs each."""
WORKERS = 3
"""Consumers of the queue in each of them, besides: they acknowledge one message after the other."""
PROBES = 2
"""Clients whose publishes measure outages."""
PROBE_PAUSE_S = 0.2
"""Between two publishes of a probe to a partition."""
DEADLINE_S = 8.0
"""How long a client tries."""
CONNECT_S = 4.0
"""How long it tries to connect before its programs try anew."""
AGAIN_S = 0.2
"""Pause before they do."""


@dataclass(frozen=True, slots=True)
class Shape:
    """See tests.history.programs.Shape."""

    partitions: int = 3
    payload_bytes: int = 300
    think_ms: int = 60
    lease_ms: int = 2_000
    backlog_records: int = 20_000
    overflow: str = "refuse"
    replicas: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """See tests.history.programs.Plan."""

    seed: int
    shape: Shape


class Plain(Streamer):
    """A producer that is not idempotent: what has no answer is not sent again, and may overtake."""

    name = "plain"

    def producer(self, where: Topic | Queue, linger_ms: int, batch_bytes: int) -> Producer:
        """See Streamer."""
        return where.producer(linger_ms=linger_ms, batch_bytes=batch_bytes, idempotent=False)

    @property
    def stream(self) -> str:
        """Each value is its own: nothing is promised of their order."""
        return f"{self.who}/{self._number}"


class Prober(Program):
    """Publishes to one partition, again and again."""

    name = "prober"
    publishes = True

    def __init__(self, machine: ClientMachine, client: Client, where: Topic | Queue, partition: int) -> None:
        super().__init__(machine, client)
        self.who += f".{where.name}.{partition}"
        self._where = where
        self._partition = partition

    async def run(self) -> None:
        """Until the faults are over."""
        world = self.world
        assert isinstance(world, Round)
        book = world.topic if isinstance(self._where, Topic) else world.queue
        while not world.healed.is_set():
            value = self.new_value()
            book.begin(value, self.who, self._number)
            try:
                receipt = await self._where.publish(value, partition=self._partition)
            except PlaitError as error:
                self.reached(error)
                if not error.unknown:
                    book.refused(value)
            else:
                book.stored(value, (receipt.partition, receipt.offset))
                world.succeeded((self._where.name, self._partition))
            await trio.sleep(PROBE_PAUSE_S)


class Round:
    """What clients do between two judgements: see tests.history.programs.World."""

    def __init__(
        self, number: int, seed: int, events: Events, succeeded: Callable[[tuple[str, int]], None]
    ) -> None:
        self.number = number
        self.plan = Plan(seed, Shape())
        self.events = events
        self.topic = Book(f"events-{number}", events.break_promise)
        self.queue = Book(f"jobs-{number}", events.break_promise)
        self.processed: dict[int, int] = {}
        self.grown = 0
        self.sharing = Sharing(events.break_promise)
        self.healed = trio.Event()
        self.emptied = trio.Event()
        self.publishing: dict[str, None] = {}
        self.succeeded = succeeded
        """Told (topic, partition) for each publish of a probe."""
        self.machines: list[ClientMachine] = []

    @property
    def partitions(self) -> list[tuple[str, int]]:
        """All that is published to."""
        names = (self.topic.name, self.queue.name)
        return [(name, number) for name in names for number in range(self.plan.shape.partitions)]

    def start(self, nursery: trio.Nursery, addresses: Sequence[str]) -> None:
        """All clients, each with another node to go to first."""
        for number in range(1, CLIENTS + PROBES + 1):
            first = number % len(addresses)
            turned = [*addresses[first:], *addresses[:first]]
            self.machines.append(ClientMachine(self, number, turned, probes=number > CLIENTS))
        for machine in self.machines:
            nursery.start_soon(machine.run)


class ClientMachine:
    """One client; its programs share a connection."""

    def __init__(self, world: Round, number: int, addresses: Sequence[str], *, probes: bool) -> None:
        self.world = world
        self.number = number
        self.name = f"c{number}"
        self.lives = 0
        self.over = trio.Event()
        """It has done all that it wanted, and left."""
        self.random = Random(f"{world.plan.seed} {world.number} {self.name}")
        self._addresses = list(addresses)
        self._probes = probes

    async def run(self) -> None:
        """Until everything has arrived; connects again when the connection cannot be had."""
        while not self.over.is_set():
            self.lives += 1
            try:
                async with plait.connect(
                    self._addresses, name=self.name, deadline_s=DEADLINE_S, connect_timeout_s=CONNECT_S
                ) as client:
                    await self._work(client)
                if self.world.emptied.is_set():
                    self.over.set()
            except PlaitError as error:
                self.world.events.note("client", self.name, error.code, error.message)
                await trio.sleep(AGAIN_S)

    async def _work(self, client: Client) -> None:
        programs = await self._probers(client) if self._probes else self._programs(client)
        async with trio.open_nursery() as nursery:
            for program in programs:
                nursery.start_soon(self._until_emptied, program)

    def _programs(self, client: Client) -> list[Program]:
        programs = programs_of(self, client)
        workers = [Consumer(self, client) for _ in range(WORKERS)]
        for number, worker in enumerate(workers):
            worker.who += f".more.{number}"
        return [*programs, *workers, Plain(self, client)]

    async def _probers(self, client: Client) -> list[Program]:
        program = Program(self, client)
        found: list[Program] = []
        for where in (await program.topic(), await program.queue()):
            found += [Prober(self, client, where, number) for number in range(where.partitions)]
        return found

    async def _until_emptied(self, program: Program) -> None:
        publishing = self.world.publishing
        if program.publishes:
            publishing[program.who] = None
        try:
            await program.run()
        finally:
            publishing.pop(program.who, None)
        await self.world.emptied.wait()
