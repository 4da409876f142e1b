"""A client of the cluster benchmark, in a process of its own: python -m plait.cli.bench.cluster_load ORDERS.

    {"ready":1} ──>  <── a line: go  ──> ticks ...  (<── the end of its input: enough) ──> a span, or ticks only

Times are time.perf_counter, which all processes of a Linux machine share.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import msgspec

from plait import Client, Topic, connect
from plait.cli.bench.cluster_plan import CLUSTER_WORKLOAD, Orders, Span, Tick
from plait.cli.bench.load import CONNECT_TIMEOUT_S, values

TICK_S = 0.25
"""Time between two words about how far it is."""
DEADLINE_S = 120.0
"""A request that has no answer by then ends the measurement: a slow answer is slow here, and no failure."""
CHECK_RECORDS = 100
"""Records between two looks at the clock."""
BUFFER_BYTES_MAX = 2 * 1024 * 1024
"""Of a producer whose speed is watched: what it has sent and what is stored differ by no more."""


async def publish(client: Client, orders: Orders) -> Span:
    """One producer to all partitions; it has warmed up before it says that it is ready."""
    topic = await client.topic(orders.name, create=False)
    payloads = values(orders.record_bytes)
    async with topic.producer() as producer:
        for number in range(orders.records // 20):
            await producer.send(payloads[number % len(payloads)])
        await producer.flush()
        await told_to_go()
        begun_s, cpu_s = time.perf_counter(), time.process_time()
        for number in range(orders.records):
            await producer.send(payloads[number % len(payloads)])
        await producer.flush()
    return Span(orders.records, begun_s, time.perf_counter(), time.process_time() - cpu_s)


async def stream(client: Client, orders: Orders) -> Span:
    """One producer that publishes until it is told that it is enough, and says how far it is."""
    topic = await client.topic(orders.name, create=False)
    payloads = values(orders.record_bytes)[:CHECK_RECORDS]
    await told_to_go()
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    done, told_s = 0, begun_s
    enough = anyio.Event()

    async def wait_for_the_end() -> None:
        await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
        enough.set()

    async with anyio.create_task_group() as group, topic.producer(buffer_bytes_max=BUFFER_BYTES_MAX) as producer:
        group.start_soon(wait_for_the_end)
        while not enough.is_set():
            for value in payloads:
                await producer.send(value)
            done += len(payloads)
            if time.perf_counter() - told_s >= TICK_S:
                told_s = time.perf_counter()
                say(Tick(done, told_s))
        await producer.flush()
    return Span(done, begun_s, time.perf_counter(), time.process_time() - cpu_s)


async def outlive(client: Client, orders: Orders) -> Span:
    """Kill a node, and publish to every partition; until that has succeeded on all of them."""
    topic = await client.topic(orders.name, create=False)
    for partition in range(orders.partitions):
        await topic.publish(b"before", partition=partition)
    await told_to_go()
    if orders.busy_s:
        with anyio.move_on_after(orders.busy_s):
            async with anyio.create_task_group() as group:
                for partition in range(orders.partitions):
                    group.start_soon(_trickle, topic, partition)
    begun_s = time.perf_counter()
    os.kill(orders.kill_pid, signal.SIGKILL)
    async with anyio.create_task_group() as group:
        for partition in range(orders.partitions):
            group.start_soon(partial(topic.publish, b"behind", partition=partition))
    return Span(orders.partitions, begun_s, time.perf_counter())


async def _trickle(topic: Topic, partition: int) -> None:
    while True:
        await topic.publish(b"trickle", partition=partition)
        await anyio.sleep(CLUSTER_WORKLOAD.trickle_ms / 1000)


async def create(client: Client, orders: Orders) -> Span:
    """Make queues, many of them under way at any time."""
    await told_to_go()
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    left = iter(range(orders.records))
    done, told_s = 0, begun_s

    async def some() -> None:
        nonlocal done, told_s
        for number in left:
            await client.queue(f"{orders.name}-{number}", partitions=1)
            done += 1
            if time.perf_counter() - told_s >= TICK_S:
                told_s = time.perf_counter()
                say(Tick(done, told_s))

    async with anyio.create_task_group() as group:
        for _ in range(CLUSTER_WORKLOAD.creating):
            group.start_soon(some)
    return Span(done, begun_s, time.perf_counter(), time.process_time() - cpu_s)


SCENARIOS: dict[str, Callable[[Client, Orders], Awaitable[Span]]] = {
    "publish": publish,
    "stream": stream,
    "outlive": outlive,
    "create": create,
}


async def told_to_go() -> None:
    """Say that everything is prepared, and wait for the word."""
    say({"ready": 1})
    await anyio.to_thread.run_sync(sys.stdin.readline)


def say(word: Any) -> None:
    """A line of JSON to the parent."""
    sys.stdout.write(msgspec.json.encode(word).decode() + "\n")
    sys.stdout.flush()


async def _main(orders: Orders) -> Span:
    name, deadline_s, connect_s = "plait bench", DEADLINE_S, CONNECT_TIMEOUT_S
    async with connect(orders.servers, name=name, deadline_s=deadline_s, connect_timeout_s=connect_s) as client:
        return await SCENARIOS[orders.scenario](client, orders)


def main() -> None:
    """Carry out the orders of the command line."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    profile_file = sys.argv[2] if len(sys.argv) > 2 else ""
    if not profile_file:
        say(anyio.run(_main, orders, backend="trio"))
        return
    import cProfile

    profile = cProfile.Profile()
    with profile:
        span = anyio.run(_main, orders, backend="trio")
    profile.dump_stats(profile_file)
    say(span)


if __name__ == "__main__":
    main()
