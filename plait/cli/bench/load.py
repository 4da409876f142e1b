"""The benchmark's client, in a process of its own: python -m plait.cli.bench.load, one scenario at a time.

Reads its orders as JSON from the command line; writes lines of JSON: {"done": N} as it goes, and the result last.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import anyio
import msgspec

from plait import Client, Consumer, Queue, connect
from plait.cli.bench.broker import cpu_seconds
from plait.cli.bench.plan import WORKLOAD

REPORT_EVERY = 10_000
"""Records between two words about how far it is."""
SYNC_BYTES = 4096
"""One write of the disk probe: what the broker's log writes for one small record."""
CONNECT_TIMEOUT_S = 30.0
"""A broker that was ready takes clients long before."""


class Orders(msgspec.Struct, frozen=True):
    """What to do."""

    scenario: str
    server: str
    name: str
    records: int = 0
    record_bytes: int = 100
    waiting: int = 0
    broker_pid: int = 0
    probe_file: str = ""
    seconds_max: float = 120.0


class Result(msgspec.Struct):
    """What was measured."""

    records: int
    seconds: float
    broker_cpu_s: float = 0.0
    client_cpu_s: float = 0.0
    publish_median_s: float = 0.0
    sync_median_s: float = 0.0

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.records / self.seconds if self.seconds else 0.0


class Stopwatch:
    """Wall time, and processor time of both sides, of one stretch of work."""

    def __init__(self, broker_pid: int) -> None:
        self._pid = broker_pid
        self.begin()

    def begin(self) -> None:
        """Start anew."""
        self._broker_cpu_s = cpu_seconds(self._pid) if self._pid else 0.0
        self._client_cpu_s = time.process_time()
        self._begun = time.perf_counter()

    def end(self, records: int) -> Result:
        """The result so far."""
        seconds = time.perf_counter() - self._begun
        broker = cpu_seconds(self._pid) - self._broker_cpu_s if self._pid else 0.0
        return Result(records, seconds, broker, time.process_time() - self._client_cpu_s)


def values(record_bytes: int) -> list[bytes]:
    """Different payloads of the same size."""
    return [(b"%08d" % number) + b"x" * (record_bytes - 8) for number in range(WORKLOAD.values)]


def progress(done: int) -> None:
    """Tell the parent how far it is."""
    sys.stdout.write(f'{{"done":{done}}}\n')
    sys.stdout.flush()


async def publish(client: Client, orders: Orders) -> Result:
    """One producer, batched and pipelined, to a topic."""
    topic = await client.topic(orders.name)
    return await _produce(topic, orders)


async def fill(client: Client, orders: Orders) -> Result:
    """The same, to a queue."""
    return await _produce(await client.queue(orders.name), orders)


async def _produce(to: Any, orders: Orders) -> Result:
    payloads = values(orders.record_bytes)
    watch = Stopwatch(orders.broker_pid)
    sent = 0
    async with to.producer() as producer:
        while sent < orders.records:
            for value in payloads:
                await producer.send(value)
            sent += len(payloads)
            if sent % REPORT_EVERY == 0:
                progress(sent)
        await producer.flush()
    return watch.end(sent)


async def read(client: Client, orders: Orders) -> Result:
    """One reader, from the beginning to the end of a topic."""
    topic = await client.topic(orders.name)
    watch = Stopwatch(orders.broker_pid)
    count = size_bytes = 0
    async for message in topic.read(to_end=True):
        count += 1
        size_bytes += len(message.value)
        if count % REPORT_EVERY == 0:
            progress(count)
    if size_bytes != count * orders.record_bytes:
        raise RuntimeError(f"read {size_bytes} bytes in {count} records of {orders.record_bytes}")
    return watch.end(count)


class Drain:
    """Ten consumers on connections of their own, and the count of what they have acknowledged."""

    def __init__(self, orders: Orders, prefetch: int) -> None:
        self.orders = orders
        self.acknowledged = 0
        self.enough = anyio.Event()
        self._prefetch = prefetch
        self._started: Stopwatch | None = None
        self.on_progress: Callable[[], None] = lambda: None

    async def run(self) -> Result:
        """Consume until `orders.records` are acknowledged, or the time is over."""
        result = Result(0, 0.0)
        with anyio.move_on_after(self.orders.seconds_max):
            async with anyio.create_task_group() as group:
                for _ in range(WORKLOAD.consumers):
                    group.start_soon(self._consume)
                await self.enough.wait()
                assert self._started is not None, "something was acknowledged"
                result = self._started.end(self.acknowledged)
                group.cancel_scope.cancel()
        return result

    async def _consume(self) -> None:
        async with connected(self.orders) as client:
            queue = await client.queue(self.orders.name)
            async with queue.consume(prefetch=self._prefetch, auto_extend=False) as consumer:
                await self._acknowledge(consumer)

    async def _acknowledge(self, consumer: Consumer) -> None:
        since_flush = 0
        async for message in consumer:
            if self._started is None:
                self._started = Stopwatch(self.orders.broker_pid)
            message.ack_soon()
            self.acknowledged += 1
            since_flush += 1
            if self.acknowledged % REPORT_EVERY == 0:
                progress(self.acknowledged)
            if self.acknowledged % WORKLOAD.refill == 0:
                self.on_progress()
            if self.acknowledged >= self.orders.records:
                await consumer.flush()
                self.enough.set()


async def drain(client: Client, orders: Orders) -> Result:
    """Ten consumers: lease and acknowledge everything in a queue."""
    return await Drain(orders, WORKLOAD.prefetch).run()


async def hold(client: Client, orders: Orders) -> Result:
    """Ten consumers, and a producer that puts back as much as they take: the backlog stays what it is."""
    queue = await client.queue(orders.name)
    await _top_up(queue, orders)
    wanted = 0
    wake = anyio.Event()

    def more() -> None:
        nonlocal wanted, wake
        wanted += WORKLOAD.refill
        wake.set()
        wake = anyio.Event()

    async def refill() -> None:
        payloads = values(orders.record_bytes)[: WORKLOAD.refill]
        given = 0
        async with queue.producer() as producer:
            while True:
                if given >= wanted:
                    await wake.wait()
                for value in payloads:
                    await producer.send(value)
                given += len(payloads)

    consumers = Drain(orders, WORKLOAD.hold_prefetch)
    consumers.on_progress = more
    async with anyio.create_task_group() as group:
        group.start_soon(refill)
        result = await consumers.run()
        group.cancel_scope.cancel()
    return result


async def _top_up(queue: Queue, orders: Orders) -> None:
    missing = orders.waiting - (await queue.backlog()).records
    if missing > 0:
        await queue.publish_many(values(orders.record_bytes)[:1] * missing)


async def sync(client: Client, orders: Orders) -> Result:
    """Single publishes, each awaited, in turn with single synced writes to a file on the same disk."""
    topic = await client.topic(orders.name)
    value = values(orders.record_bytes)[0]
    descriptor = os.open(orders.probe_file, os.O_RDWR | os.O_CREAT)
    block = os.urandom(SYNC_BYTES)
    published: list[float] = []
    synced: list[float] = []
    try:
        os.posix_fallocate(descriptor, 0, SYNC_BYTES * (orders.records + 1))
        os.fsync(descriptor)
        watch = Stopwatch(orders.broker_pid)
        for number in range(orders.records):
            begun = time.perf_counter()
            await topic.publish(value)
            between = time.perf_counter()
            os.pwrite(descriptor, block, number * SYNC_BYTES)  # as the broker does it: allocated, not yet written
            os.fdatasync(descriptor)
            synced.append(time.perf_counter() - between)
            published.append(between - begun)
            if number % 10 == 0:
                progress(number)
    finally:
        os.close(descriptor)
        os.unlink(orders.probe_file)
    result = watch.end(orders.records)
    result.publish_median_s, result.sync_median_s = median(published), median(synced)
    return result


SCENARIOS: dict[str, Callable[[Client, Orders], Awaitable[Result]]] = {
    "publish": publish,
    "fill": fill,
    "read": read,
    "drain": drain,
    "hold": hold,
    "sync": sync,
}


@asynccontextmanager
async def connected(orders: Orders) -> AsyncIterator[Client]:
    """A connection of its own."""
    async with connect(orders.server, name="plait bench", connect_timeout_s=CONNECT_TIMEOUT_S) as client:
        yield client


async def _main(orders: Orders) -> Result:
    async with connected(orders) as client:
        return await SCENARIOS[orders.scenario](client, orders)


def main() -> None:
    """Carry out the orders of the command line."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    profile_file = sys.argv[2] if len(sys.argv) > 2 else ""
    if profile_file:
        import cProfile

        profile = cProfile.Profile()
        with profile:
            result = anyio.run(_main, orders, backend="trio")
        profile.dump_stats(profile_file)
    else:
        result = anyio.run(_main, orders, backend="trio")
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
