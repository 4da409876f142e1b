"""A week of earthquakes through a cluster of three that loses a node on the way. Run it with scripts/demo.

                       ┌─> topic "quakes" ──> subscription "strongest" (looks for the largest)
    earthquakes.ndjson ┤                 └──> subscription "regions"   (counts by network)
                       └─> queue "alarms" ──> three workers

In the middle the node that leads the busiest partition gets SIGKILL, and is started again on the same data when
the others have taken over, while everybody goes on. At the end every event that was acknowledged has to be there,
once. It uses nothing but Plait's public client.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio

import plait

EVENTS_FILE = Path(__file__).parent / "data" / "earthquakes.ndjson"
CHUNK_EVENTS = 100
"""Events that are published, and waited for, together."""
NODES = 3
PARTITIONS = 3
"""Of the topic; events go by their id."""
WORKERS = 3
GIVE_UP_AFTER_S = 120
"""The demonstration takes a few seconds; after this it has failed."""


class Broker:
    """One node: `plait serve` as a child process that can be killed and started again."""

    def __init__(self, folder: Path, number: int, native: str, peer: str, initial: str) -> None:
        self.native = native
        self._folder = folder / f"node-{number}"
        self._folder.mkdir()
        self._ready = self._folder / "ready.json"
        addresses = ["--native", native, "--peer", peer, "--initial", initial, "--http", "off"]
        places = ["--ready-file", str(self._ready), "--data", str(self._folder / "data")]
        self._command = [sys.executable, "-m", "plait", "serve", *addresses, *places]
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it; it is ready in a while."""
        self._ready.unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stderr=log)

    async def ready(self) -> None:
        """Wait until it serves."""
        while not self._ready.exists():
            if self._process is None or self._process.poll() is not None:
                sys.exit((self._folder / "log").read_text())
            await anyio.sleep(0.005)

    def kill(self) -> None:
        """SIGKILL, and gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self._process is not None, "not started"
        self._process.terminate()
        while self._process.poll() is None:  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(0.005)
        return self._process.returncode


class Cluster:
    """Three of them."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(2 * NODES)
        native, peers = [[f"127.0.0.1:{port}" for port in half] for half in (ports[:NODES], ports[NODES:])]
        self.nodes = {
            number: Broker(folder, number, native[number - 1], peers[number - 1], ",".join(peers))
            for number in range(1, NODES + 1)
        }
        self.addresses = ",".join(native)

    async def start(self) -> None:
        """Start all, and wait until they serve."""
        for node in self.nodes.values():
            node.begin()
        for node in self.nodes.values():
            await node.ready()

    async def stop(self) -> bool:
        """SIGTERM to one after the other; whether all ended well."""
        return [await node.stop() for node in self.nodes.values()] == [0] * NODES

    def kill(self) -> None:
        """Whatever still runs."""
        for node in self.nodes.values():
            node.kill()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


@dataclass
class Ledger:
    """What everybody has seen; the final account is made from it."""

    published: Counter[str] = field(default_factory=Counter)
    """Acknowledged events, by target."""
    seen: dict[str, Counter[str]] = field(default_factory=dict)
    """How often each event came, by subscription; "alarms" is the queue."""
    offsets: dict[int, str] = field(default_factory=dict)
    """Which event stands at which offset of the queue."""
    work: Counter[str] = field(default_factory=Counter)
    """Messages by worker."""
    redelivered: int = 0
    without_service_s: float = 0.0
    """From the kill until everything could be published again."""
    strongest: tuple[float, str] = (0.0, "")
    regions: Counter[str] = field(default_factory=Counter)
    news: anyio.Event = field(default_factory=anyio.Event)

    def note(self, who: str, event_id: str) -> None:
        """`who` has been given an event."""
        self.seen.setdefault(who, Counter())[event_id] += 1
        self.tell()

    def tell(self) -> None:
        """Something has changed: whoever waits may look again."""
        self.news.set()
        self.news = anyio.Event()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Wait until it is so."""
        while not reached():
            await self.news.wait()


class Stopwatch:
    """Where the time went: the stretches between the calls of `lap`."""

    def __init__(self) -> None:
        self.laps: list[tuple[str, float]] = []
        self._last = time.perf_counter()

    def lap(self, what: str) -> None:
        """What was done since the last call."""
        now = time.perf_counter()
        self.laps.append((what, now - self._last))
        self._last = now


def events(rounds: int) -> Iterator[plait.Message]:
    """The week's events, `rounds` times over, each with an id of its own as the key."""
    lines = EVENTS_FILE.read_bytes().splitlines()
    names = [json.loads(line)["id"] for line in lines]
    for number in range(rounds):
        for name, line in zip(names, lines, strict=True):
            yield plait.Message(line, key=f"{name}/{number}".encode())


async def feed(to: plait.Topic | plait.Queue, feed_events: list[plait.Message], ledger: Ledger) -> None:
    """Publish everything; a chunk counts when the broker has acknowledged it."""
    for at in range(0, len(feed_events), CHUNK_EVENTS):
        chunk = feed_events[at : at + CHUNK_EVENTS]
        ledger.published[to.name] += await to.publish_many(chunk)
        ledger.tell()


async def find_strongest(topic: plait.Topic, ledger: Ledger) -> None:
    """The first subscription."""
    async for message in topic.subscribe("strongest"):
        found = json.loads(message.value)["properties"]
        ledger.strongest = max(ledger.strongest, (found["mag"] or 0.0, found["place"]))
        ledger.note("strongest", (message.key or b"").decode())


async def count_regions(topic: plait.Topic, ledger: Ledger) -> None:
    """The second subscription."""
    async for message in topic.subscribe("regions"):
        ledger.regions[json.loads(message.value)["properties"]["net"]] += 1
        ledger.note("regions", (message.key or b"").decode())


async def work(address: str, name: str, ledger: Ledger) -> None:
    """One of the three workers, on a connection of its own."""
    async with plait.connect(address, name=name) as client:
        queue = await client.queue("alarms")
        async with queue.consume() as consumer:
            async for message in consumer:
                json.loads(message.value)
                event_id = (message.key or b"").decode()
                ledger.work[name] += 1
                ledger.redelivered += message.deliveries > 1
                ledger.offsets[message.offset] = event_id
                ledger.note("alarms", event_id)
                message.ack_soon()


async def settled(queue: plait.Queue) -> None:
    """Wait until every message of the queue is acknowledged."""
    while (await queue.backlog()).records:  # noqa: ASYNC110 - the broker is asked, and does not tell by itself
        await anyio.sleep(0.02)


async def stored_twice(topic: plait.Topic) -> int:
    """Events that the topic holds more than once."""
    found: Counter[str] = Counter()
    async for message in topic.read(to_end=True):
        found[(message.key or b"").decode()] += 1
    return sum(count - 1 for count in found.values())


@asynccontextmanager
async def in_background(*tasks: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run these beside the block, and end them with it."""
    async with anyio.create_task_group() as group:
        for task in tasks:
            group.start_soon(task)
        yield
        group.cancel_scope.cancel()


async def busiest_leader(topic: plait.Topic) -> int:
    """The node that leads the partition with the most events."""
    details = (await topic.describe()).details["partitions_detail"]
    return int(max(details, key=lambda each: each["end"] - each["start"])["leader"])


async def run(folder: Path, rounds: int) -> bool:
    """The whole demonstration. Returns whether nothing was lost or doubled."""
    watch, ledger, cluster = Stopwatch(), Ledger(), Cluster(folder)
    stream = list(events(rounds))
    watch.lap("read the file")
    try:
        await cluster.start()
        watch.lap("start three nodes")
        with anyio.fail_after(GIVE_UP_AFTER_S):
            async with plait.connect(cluster.addresses, name="demo") as client:
                topic, queue = await client.topic("quakes", partitions=PARTITIONS), await client.queue("alarms")
                async with in_background(
                    partial(find_strongest, topic, ledger),
                    partial(count_regions, topic, ledger),
                    *(partial(work, cluster.addresses, f"worker {n + 1}", ledger) for n in range(WORKERS)),
                ):
                    await publish_through_a_kill(cluster, topic, queue, stream, ledger, watch)
                    names = ("strongest", "regions", "alarms")
                    await ledger.until(lambda: all(len(ledger.seen.get(n, ())) >= len(stream) for n in names))
                    await settled(queue)
                    watch.lap("deliver and acknowledge the rest")
                doubled = await stored_twice(topic) + len(ledger.offsets) - len(set(ledger.offsets.values()))
                watch.lap("read the topic again to check")
        ended_well = await cluster.stop()
        watch.lap("stop the nodes")
    finally:
        cluster.kill()
    return report(len(stream), ledger, doubled, watch) and ended_well


async def publish_through_a_kill(
    cluster: Cluster,
    topic: plait.Topic,
    queue: plait.Queue,
    stream: list[plait.Message],
    ledger: Ledger,
    watch: Stopwatch,
) -> None:
    """Publish to both; when half is acknowledged, kill a node, and start it again when the others lead."""
    async with anyio.create_task_group() as group:
        group.start_soon(feed, topic, stream, ledger)
        group.start_soon(feed, queue, stream, ledger)
        await ledger.until(lambda: ledger.published.total() >= len(stream))
        watch.lap("publish the first half")
        number = await busiest_leader(topic)
        cluster.nodes[number].kill()
        killed, before = time.perf_counter(), Counter(ledger.published)
        print(
            f"node {number}, which leads the busiest partition, is killed (SIGKILL) "
            f"with {before.total():,} of {2 * len(stream):,} publishes acknowledged"
        )
        # of what was under way at the kill all may be acknowledged already: the chunk behind it counts
        after = {name: min(before[name] + CHUNK_EVENTS, len(stream) - 1) for name in (topic.name, queue.name)}
        await ledger.until(lambda: all(ledger.published[name] > count for name, count in after.items()))
        ledger.without_service_s = time.perf_counter() - killed
        watch.lap("the others take over")
        cluster.nodes[number].begin()
        await cluster.nodes[number].ready()
        watch.lap("the node is back")
    watch.lap("publish the second half")


def report(total: int, ledger: Ledger, doubled: int, watch: Stopwatch) -> bool:
    """Print the account. Returns whether nothing was lost or doubled."""
    lost = sum(ledger.published[name] - total for name in ("quakes", "alarms"))
    print()
    line("published to topic", ledger.published["quakes"])
    line("published to queue", ledger.published["alarms"])
    for name in ("strongest", "regions"):
        lost += total - len(ledger.seen[name])
        again = ledger.seen[name].total() - len(ledger.seen[name])
        line(
            f"delivered to subscription {name}",
            len(ledger.seen[name]),
            f"and {again:,} of them again" * bool(again),
        )
    done = ledger.seen["alarms"]
    lost += total - len(done)
    shares = ", ".join(f"{name}: {count:,}" for name, count in sorted(ledger.work.items()))
    line("processed from the queue", len(done), shares)
    line("redelivered by the queue", ledger.redelivered)
    line("lost", lost)
    line("doubled", doubled)
    print(f"{'seconds without service':<42}{ledger.without_service_s:>8.2f}")
    print(f"\nstrongest: magnitude {ledger.strongest[0]}, {ledger.strongest[1]}")
    print("busiest networks:", ", ".join(f"{name} {count:,}" for name, count in ledger.regions.most_common(3)))
    print("\nwhere the time went")
    for what, seconds in watch.laps:
        print(f"  {what:<34}{seconds:>8.2f} s")
    print(f"  {'altogether':<34}{sum(seconds for _, seconds in watch.laps):>8.2f} s")
    return lost == 0 and doubled == 0


def line(what: str, count: int, more: str = "") -> None:
    """One line of the account."""
    print(f"{what:<42}{count:>8,}   {more}".rstrip())


def main() -> int:
    """Run the demonstration. Returns 0 when nothing was lost or doubled."""
    parser = argparse.ArgumentParser(
        description="Stream earthquakes through three nodes, one of which is killed on the way."
    )
    parser.add_argument("--rounds", type=int, default=12, help="how often the week is streamed (default 12)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="plait-demo-") as folder:
        print(f"streaming {EVENTS_FILE.name}, {rounds} times over, to a topic and a queue on three nodes")
        good = anyio.run(run, Path(folder), rounds, backend="trio")
    print("\nnothing was lost, nothing was doubled" if good else "\nFAILED: see above")
    return 0 if good else 1


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
