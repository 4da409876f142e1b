"""What clients do, each with one connection's worth of SDK: publish, read, subscribe, consume, administrate.

They tell the books what they do and what they are told, and judge nothing themselves. Those that publish end when
the faults do, the others when everything has arrived.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import trio

from plait.client.client import Client, Queue, Topic
from plait.client.group import GroupSubscription
from plait.client.messages import Leased, Received
from plait.wire.errors import AlreadyExists, LeaseLost, NotFound, PlaitError

if TYPE_CHECKING:
    from plait.client.producer import Producer
    from tests.history.book import Book
    from tests.history.sharing import Sharing

Found = TypeVar("Found")

SUBSCRIPTION = "billing"
GROUP = "shared"
"""The subscription that is read by a group."""
DEAD_LETTERS = "dead"
"""The queue that takes what the queue has no place for, where that is its way."""
SESSIONS_S = (0.6, 2.0, 10.0)
"""Sessions of its members."""
LOOK_S = 0.3
"""Time after which whoever waits for messages looks whether it is over."""
RECENT_RECORDS = 5
"""Records before what is known that a read of the present begins with."""


class Shape(Protocol):
    """Sizes and times of what clients do."""

    @property
    def partitions(self) -> int: ...
    @property
    def payload_bytes(self) -> int: ...
    @property
    def think_ms(self) -> int: ...
    @property
    def lease_ms(self) -> int: ...
    @property
    def backlog_records(self) -> int: ...
    @property
    def overflow(self) -> str: ...
    @property
    def replicas(self) -> int | None: ...


class Plan(Protocol):
    """What was drawn for a run."""

    @property
    def seed(self) -> int: ...
    @property
    def shape(self) -> Shape: ...


class Events(Protocol):
    """Who is told what happens."""

    def note(self, what: str, *about: object) -> None: ...
    def reached(self, state: str) -> None: ...
    def break_promise(self, what: str) -> None: ...


class World(Protocol):
    """Where programs run."""

    topic: Book
    """Of the topic of its name."""
    queue: Book
    """Of the queue of its name."""
    processed: dict[int, int]
    """By partition, the offset behind the last one that the subscription was given."""
    sharing: Sharing
    """What is known of the readers of GROUP."""
    healed: trio.Event
    """The faults are over: whoever publishes ends."""
    emptied: trio.Event
    """Everything has arrived: clients may go."""
    grown: int
    """How often the topic or the queue got more partitions."""

    @property
    def plan(self) -> Plan: ...
    @property
    def events(self) -> Events: ...


class Machine(Protocol):
    """Whose programs they are."""

    name: str
    number: int
    lives: int
    """How often it has begun."""

    @property
    def world(self) -> World: ...


class Program:
    """One of a client's process."""

    name: ClassVar[str] = "program"
    publishes: ClassVar[bool] = False

    def __init__(self, machine: Machine, client: Client) -> None:
        self.world = machine.world
        self.client = client
        self.machine = machine
        self.who = f"{machine.name}.{machine.lives}.{self.name}"
        self.random = Random(f"{machine.world.plan.seed} {self.who}")
        self._number = 0
        self._grown = machine.world.grown

    async def run(self) -> None:
        """Until there is nothing to do any more."""
        raise NotImplementedError

    def new_value(self) -> bytes:
        """One that was never published."""
        self._number += 1
        filling = self.random.randrange(self.world.plan.shape.payload_bytes)
        return f"{self.who}/{self._number} ".encode() + b"." * filling

    async def think(self) -> None:
        """The pause between two things."""
        await trio.sleep(self.random.expovariate(1_000 / self.world.plan.shape.think_ms))

    def reached(self, error: PlaitError) -> None:
        """A refusal, or an outcome that is not known."""
        self.world.events.reached(f"told {error.code}")
        self.world.events.note("told", self.who, error.code)

    async def insist(self, ask: Callable[[], Awaitable[Topic]] | Callable[[], Awaitable[Queue]]) -> Topic | Queue:
        """Ask until it is there."""
        while True:
            try:
                return await ask()
            except PlaitError as error:
                self.reached(error)
                if not error.retriable:
                    raise
            await self.think()

    async def topic(self) -> Topic:
        """The topic, as it is by now."""
        self._grown = self.world.grown
        found = await self.insist(lambda: the_topic(self.world, self.client))
        assert isinstance(found, Topic)
        return found

    async def queue(self) -> Queue:
        """The queue, as it is by now."""
        self._grown = self.world.grown
        shape, make, name = self.world.plan.shape, self.client.queue, self.world.queue.name
        settings: dict[str, Any] = {
            "partitions": shape.partitions,
            "replicas": shape.replicas,
            "lease_ms": shape.lease_ms,
            "max_backlog_records": shape.backlog_records,
            "overflow": shape.overflow,
        }
        if shape.overflow == "dead-letter":
            settings["dead_letter"] = DEAD_LETTERS
        found = await self.insist(lambda: as_it_is(make, name, settings))
        assert isinstance(found, Queue)
        return found

    @property
    def is_behind(self) -> bool:
        """There are more partitions than it knows."""
        return self._grown != self.world.grown


async def the_topic(world: World, client: Client) -> Topic:
    """The topic, made if there is none, as it is by now."""
    shape = world.plan.shape
    settings = {"partitions": shape.partitions, "replicas": shape.replicas}
    return await as_it_is(client.topic, world.topic.name, settings)


async def as_it_is(make: Callable[..., Awaitable[Found]], name: str, settings: dict[str, Any]) -> Found:
    """Made so, or what is there by now."""
    try:
        return await make(name, **settings)
    except AlreadyExists:
        return await make(name, create=False)


class Publisher(Program):
    """One value at a time, now here, now there; each is waited for."""

    name = "publisher"
    publishes = True

    async def run(self) -> None:
        """Until the faults are over."""
        named = await self._named()
        while not self.world.healed.is_set():
            await self.think()
            if self.is_behind:
                named = await self._named()
            where, book = self.random.choice(named)
            await self._publish(where, book)

    async def _named(self) -> list[tuple[Topic | Queue, Book]]:
        return [(await self.topic(), self.world.topic), (await self.queue(), self.world.queue)]

    async def _publish(self, where: Topic | Queue, book: Book) -> None:
        value, random = self.new_value(), self.random
        partition = random.randrange(where.partitions) if random.random() < 0.5 else None
        key = b"key %d" % random.randrange(4) if random.random() < 0.5 else None
        book.begin(value, self.who, self._number)
        try:
            receipt = await where.publish(value, partition=partition, key=key)
        except PlaitError as error:
            self.reached(error)
            if not error.unknown:
                book.refused(value)
            return
        book.stored(value, (receipt.partition, receipt.offset))
        if receipt.duplicate:
            self.world.events.reached("retry was taken for what it was")
        self.world.events.note(
            "stored", book.name, f"{self.who}/{self._number}", receipt.partition, receipt.offset
        )


class Streamer(Program):
    """Many values on the way at once, flushed from time to time."""

    name = "streamer"
    publishes = True

    async def run(self) -> None:
        """Until the faults are over."""
        while not self.world.healed.is_set():
            where: Topic | Queue
            if self.machine.number % 2:
                where, book = await self.topic(), self.world.topic
            else:
                where, book = await self.queue(), self.world.queue
            producer = self.producer(where, self.random.choice((0, 5, 30)), self.random.choice((200, 2_000)))
            try:
                while not self.world.healed.is_set() and not self.is_behind:
                    await self.think()
                    await self._stream(producer, where.partitions, book)
            finally:
                with trio.move_on_after(0):  # what nobody flushed may be lost: nobody was told that it is not
                    try:
                        await producer.aclose()
                    except PlaitError as error:
                        self.reached(error)

    async def _stream(self, producer: Producer, partitions: int, book: Book) -> None:
        random, values = self.random, list[bytes]()
        try:
            for _ in range(random.randrange(1, 12)):
                values.append(self.new_value())
                book.begin(values[-1], self.stream, self._number)
                await producer.send(values[-1], partition=random.randrange(partitions))
            await producer.flush()
        except PlaitError as error:
            self.reached(error)
            return
        for value in values:
            book.stored(value)
        self.world.events.note("flushed", book.name, self.who, self._number)

    def producer(self, where: Topic | Queue, linger_ms: int, batch_bytes: int) -> Producer:
        """Who sends the values."""
        return where.producer(linger_ms=linger_ms, batch_bytes=batch_bytes)

    @property
    def stream(self) -> str:
        """What the next value belongs to; see Published."""
        return self.who


class Tailer(Program):
    """Reads the topic from its beginning, and goes on where it was when that fails."""

    name = "tailer"

    async def run(self) -> None:
        """Until everything has arrived."""
        topic = await self.topic()
        at = dict.fromkeys(range(topic.partitions), 0)
        while not self.world.emptied.is_set():
            if self.is_behind:
                topic = await self.topic()
                at = dict.fromkeys(range(topic.partitions), 0) | at
            try:
                async with topic.read(from_=dict(at)) as reader:
                    while not self.world.emptied.is_set() and not self.is_behind:
                        with trio.move_on_after(LOOK_S):
                            message = await anext(reader)
                            if message.offset != at[message.partition]:
                                self.world.events.break_promise(
                                    f"{self.who} reads {message.offset} of partition {message.partition} behind"
                                    f" {at[message.partition] - 1}"
                                )
                            at[message.partition] = message.offset + 1
                            self.world.topic.seen(message.value, (message.partition, message.offset))
            except PlaitError as error:
                self.reached(error)
                await self.think()


class Looker(Program):
    """Reads what is new up to the present, again and again: it must see all that was known before."""

    name = "looker"

    async def run(self) -> None:
        """Until the faults are over."""
        topic, book = await self.topic(), self.world.topic
        while not self.world.healed.is_set():
            await self.think()
            if self.is_behind:
                topic = await self.topic()
            floors = {one: floor for one, floor in book.floors.items() if one < topic.partitions}
            begin = {one: max(0, floors.get(one, 0) - RECENT_RECORDS) for one in range(topic.partitions)}
            ends = dict(begin)
            try:
                async with topic.read(from_=dict(begin), to_end=True) as reader:
                    async for message in reader:
                        book.seen(message.value, (message.partition, message.offset))
                        ends[message.partition] = message.offset + 1
            except PlaitError as error:
                self.reached(error)
                continue
            book.read_to(floors, ends)
            self.world.events.reached("read answered")


class Subscriber(Program):
    """A subscription that goes on where it was committed, and skips nothing."""

    name = "subscriber"

    async def run(self) -> None:
        """Until everything has arrived."""
        topic, book, reached = await self.topic(), self.world.topic, self.world.processed
        while not self.world.emptied.is_set():
            if self.is_behind:
                topic = await self.topic()
            try:
                async with topic.subscribe(SUBSCRIPTION, auto_commit_s=0.3) as subscription:
                    while not self.world.emptied.is_set() and not self.is_behind:
                        with trio.move_on_after(LOOK_S):
                            message = await anext(subscription)
                            partition, offset = message.partition, message.offset
                            if offset > reached.get(partition, 0):
                                self.world.events.break_promise(
                                    f"{SUBSCRIPTION} is given {offset} of partition {partition}, and had nothing"
                                    f" from {reached.get(partition, 0)} on"
                                )
                            reached[partition] = max(reached.get(partition, 0), offset + 1)
                            book.seen(message.value, (partition, offset))
                            book.given(SUBSCRIPTION, message.value)
                        if self.random.random() < 0.02:
                            await subscription.commit()
                            self.world.events.reached("position committed")
            except PlaitError as error:
                self.reached(error)
                await self.think()


class Sharer(Program):
    """One of a group that shares a subscription; it comes and goes, and is slow at times."""

    name = "sharer"

    async def run(self) -> None:
        """Until everything has arrived."""
        topic = await self.topic()
        while not self.world.emptied.is_set():
            subscription = topic.subscribe(
                GROUP,
                group=True,
                auto_commit_s=self.random.choice((0.1, 0.5)),
                session_s=self.random.choice(SESSIONS_S),
                handover_s=self.random.choice((0.5, 5.0)),
            )
            assert isinstance(subscription, GroupSubscription)
            self.world.sharing.begin(subscription, self.who)
            try:
                async with subscription:
                    for _ in range(self.random.choice((5, 50, 1_000))):
                        if self.world.emptied.is_set():
                            break
                        with trio.move_on_after(LOOK_S):
                            await self._take(await anext(subscription), subscription)
            except PlaitError as error:
                self.reached(error)
                await self.think()
            finally:
                self.world.sharing.end(subscription)

    async def _take(self, message: Received, subscription: GroupSubscription) -> None:
        world, partition, offset = self.world, message.partition, message.offset
        world.sharing.given(subscription, partition, offset)
        world.topic.seen(message.value, (partition, offset))
        world.topic.given(GROUP, message.value)
        world.events.reached("message given to a group")
        if self.random.random() < 0.02 and not self.world.healed.is_set():
            await trio.sleep(self.random.uniform(0, 1.5))


class Consumer(Program):
    """Takes messages from the queue and does with them what consumers do."""

    name = "consumer"

    async def run(self) -> None:
        """Until everything has arrived."""
        queue = await self.queue()
        random = self.random
        while not self.world.emptied.is_set():
            lease_s = random.choice((None, None, 0.3, 1.0))
            try:
                async with queue.consume(
                    prefetch=random.choice((1, 3, 20)), lease_s=lease_s, auto_extend=random.random() < 0.7
                ) as consumer:
                    for _ in range(random.choice((5, 50, 1_000))):
                        if self.world.emptied.is_set():
                            break
                        message: Leased | None = None
                        with trio.move_on_after(LOOK_S):
                            message = await anext(consumer)
                        if message is not None:
                            await self._take(message, lease_s or self.world.plan.shape.lease_ms / 1_000)
            except PlaitError as error:
                self.reached(error)
                await self.think()

    async def _take(self, message: Leased, lease_s: float) -> None:
        book, place = self.world.queue, (message.partition, message.offset)
        book.seen(message.value, place)
        book.handed(place, message.deliveries, self.who)
        draw = self.random.random()
        try:
            if draw < 0.1 and not self.world.healed.is_set():
                await self._give_back(message)
                return
            if draw < 0.2 and not self.world.healed.is_set():
                await trio.sleep(self.random.uniform(0, 1.5) * lease_s)
            elif draw < 0.25:
                await message.extend(lease_s)
        except PlaitError as error:
            self.reached(error)
        await self._acknowledge(message)

    async def _give_back(self, message: Leased) -> None:
        """Once it was tried the message is settled, for this consumer: it comes again or does not."""
        try:
            await message.nack()
            self.world.events.reached("message returned")
        except PlaitError as error:
            self.reached(error)

    async def _acknowledge(self, message: Leased) -> None:
        book, place = self.world.queue, (message.partition, message.offset)
        book.acknowledging(place)
        try:
            await message.ack()
        except LeaseLost as error:
            book.not_done(place)
            self.reached(error)
        except PlaitError as error:
            self.reached(error)
            if not error.unknown:
                book.not_done(place)
        else:
            book.done(place, message.deliveries)


class Clerk(Program):
    """Makes topics, looks whether they are there, and deletes them."""

    name = "clerk"

    async def run(self) -> None:
        """Until the faults are over."""
        number = 0
        while not self.world.healed.is_set():
            await trio.sleep(self.random.expovariate(1 / 1.5))
            number += 1
            await self._make_and_delete(f"scratch-{self.who}-{number}")

    async def _make_and_delete(self, name: str) -> None:
        events = self.world.events
        try:
            topic = await self.client.topic(name, partitions=1)
            try:
                await self.client.describe(name)
            except NotFound:
                events.break_promise(f"{name} was made, and is not there")
            await topic.publish(b"something")
            listed = [one.name for one in await self.client.list("topic")]
            if name not in listed:
                events.break_promise(f"{name} was made, and is not listed")
            await self.client.delete(name)
            events.reached("topic made and deleted")
        except PlaitError as error:
            self.reached(error)
            return
        try:
            await self.client.describe(name)
            events.break_promise(f"{name} was deleted, and is there")
        except NotFound:
            pass
        except PlaitError as error:
            self.reached(error)


def programs_of(machine: Machine, client: Client) -> list[Program]:
    """What runs on a machine: the first has the subscription, of the others each has its own mix."""
    kinds: list[type[Program]] = [Publisher, Consumer, Sharer]
    if machine.number == 1:
        kinds += [Subscriber, Looker]
    elif machine.number == 2:
        kinds += [Streamer, Tailer, Clerk]
    else:
        kinds += [Streamer, Consumer, Looker]
    return [_numbered(kind, machine, client, number) for number, kind in enumerate(kinds)]


def _numbered(kind: type[Program], machine: Machine, client: Client, number: int) -> Program:
    program = kind(machine, client)
    program.who += f".{number}"
    return program
