"""SIGKILL at random moments during load, again and again: what was acknowledged must be there, once.

    two idempotent producers ──> topic ──────────────> read again at the end: all there, once, in order
    one idempotent producer  ──> queue ──> 3 workers ─> all processed; nothing comes again after its confirmed ack

`scripts/kill-soak` runs it; tests/chaos/test_kill.py has a short form.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from array import array
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from statistics import median

import trio

from plait import Client, Leased, LeaseLost, OutcomeUnknown, Queue, Topic, connect
from plait.cli.bench.broker import BrokerProcess
from plait.cli.output import Progress

TOPIC_PRODUCERS = 2
WORKERS = 3
PREFETCH_RECORDS = 64
TOPIC_ROUND_RECORDS = 250
"""Records that a producer of the topic sends before it lets the others work."""
QUEUE_ROUND_RECORDS = 40
"""The same for the producer of the queue, whose messages are acknowledged one by one."""
ROUNDS_PER_FLUSH = 8
"""Rounds that are under way together when the answers are waited for."""
WAL_FILE_SIZE = "1MiB"
"""Small, so that flushes to segments, compaction and their crashes happen all the time."""
PACE_S = 0.003
"""Pause of a producer after each round: the load, not the check, should be what is limited."""
LIFE_S_MAX = 0.6
"""A broker is killed at a random moment within so long after it was ready."""
EARLY_KILLS_PERCENT = 15
"""Share of the kills that come while the broker is still starting."""
EARLY_S_MAX = 0.25
DRAIN_S_MAX = 120.0
"""After the last start, the workers must be done with the queue within this time."""


@dataclass
class Account:
    """What one producer has sent: numbers from 0, without gaps."""

    sent: int = 0
    acknowledged: int = 0


@dataclass
class Processed:
    """What the workers know of the messages of the queue, by number."""

    offsets: array[int] = field(default_factory=lambda: array("q"))
    """Offset of each number; -1: not seen."""
    confirmed: bytearray = field(default_factory=bytearray)
    """1: the broker has confirmed the acknowledgement."""
    deliveries: int = 0
    redelivered: int = 0
    doubled: int = 0
    after_ack: int = 0

    def delivered(self, message: Leased) -> int:
        """Note a delivery; the message's number."""
        number = number_of(message.value)[1]
        missing = number + 1 - len(self.offsets)
        if missing > 0:
            self.offsets.extend([-1] * missing)
            self.confirmed.extend(bytes(missing))
        self.deliveries += 1
        self.redelivered += message.deliveries > 1
        self.after_ack += self.confirmed[number]
        known = self.offsets[number]
        self.doubled += known not in (-1, message.offset)
        self.offsets[number] = message.offset
        return number


@dataclass
class Report:
    """The outcome."""

    kills: int = 0
    early_kills: int = 0
    published: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    deliveries: int = 0
    redelivered: int = 0
    after_ack: int = 0
    recoveries_s: list[float] = field(default_factory=list)
    """From the launch to ready."""

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.doubled or self.out_of_order or self.after_ack)

    def text(self) -> str:
        """For people."""
        rows = [
            ("kills", self.kills),
            ("of them while starting", self.early_kills),
            ("published", self.published),
            ("acknowledged", self.acknowledged),
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("out of order", self.out_of_order),
            ("queue deliveries", self.deliveries),
            ("redelivered", self.redelivered),
            ("redelivered after a confirmed ack", self.after_ack),
        ]
        lines = [f"{what:<36}{count:>12,}" for what, count in rows]
        lines.append(f"{'recovery, median':<36}{median(self.recoveries_s):>12.3f} s")
        lines.append(f"{'recovery, longest':<36}{max(self.recoveries_s):>12.3f} s")
        return "\n".join(lines)


def value_of(producer: int, number: int) -> bytes:
    """100 bytes that say who sent them, and which they are."""
    return b"%d:%d:" % (producer, number) + b"x" * 80


def number_of(value: bytes) -> tuple[int, int]:
    """(producer, number) of a payload."""
    producer, number, _ = value.split(b":", 2)
    return int(producer), int(number)


class Soak:
    """One run."""

    def __init__(self, folder: Path, kills: int, seed: int, quiet: bool = False) -> None:
        self._broker = BrokerProcess(folder, ["--storage-wal-file-bytes", WAL_FILE_SIZE])
        self._kills = kills
        self._random = random.Random(seed)
        self._quiet = quiet
        self._accounts = [Account() for _ in range(TOPIC_PRODUCERS + 1)]
        """One a producer; the last one is the queue's."""
        self._processed = Processed()
        self._report = Report()
        self._over = False

    async def run(self) -> Report:
        """Everything, to the final check. Raises trio.TooSlowError if the queue does not drain."""
        self._report.recoveries_s.append(await trio.to_thread.run_sync(self._broker.start))
        try:
            async with connect(self._broker.address, name="soak", deadline_s=inf) as client:
                topic, queue = await client.topic("soak-topic"), await client.queue("soak-queue")
                async with trio.open_nursery() as workers:
                    for _ in range(WORKERS):
                        workers.start_soon(self._work, queue)
                    async with trio.open_nursery() as producers:
                        for number in range(TOPIC_PRODUCERS):
                            producers.start_soon(self._produce, topic, number)
                        producers.start_soon(self._produce, queue, TOPIC_PRODUCERS)
                        await self._kill_again_and_again()
                        self._over = True
                    with trio.fail_after(DRAIN_S_MAX):
                        await self._drained(queue)
                    workers.cancel_scope.cancel()
                await self._check(client)
            await trio.to_thread.run_sync(self._broker.stop)
        except BaseException:
            print(self._broker.said(), file=sys.stderr)
            raise
        finally:
            self._broker.kill()
        return self._report

    async def _kill_again_and_again(self) -> None:
        report = self._report
        with Progress("killing", self._kills, quiet=self._quiet) as bar:
            while report.kills < self._kills:
                await trio.sleep(self._random.uniform(0, LIFE_S_MAX))
                self._kill()
                bar.advance(1)
                while report.kills < self._kills and self._random.randrange(100) < EARLY_KILLS_PERCENT:
                    self._broker.launch()
                    await trio.sleep(self._random.uniform(0, EARLY_S_MAX))
                    self._kill()
                    report.early_kills += 1
                    bar.advance(1)
                report.recoveries_s.append(await trio.to_thread.run_sync(self._broker.start))

    def _kill(self) -> None:
        self._broker.kill()
        self._report.kills += 1

    async def _produce(self, to: Topic | Queue, producer_number: int) -> None:
        account = self._accounts[producer_number]
        records = QUEUE_ROUND_RECORDS if producer_number == TOPIC_PRODUCERS else TOPIC_ROUND_RECORDS
        async with to.producer(deadline_s=inf, linger_ms=1) as producer:
            while not self._over:
                for _ in range(ROUNDS_PER_FLUSH):
                    for number in range(account.sent, account.sent + records):
                        await producer.send(value_of(producer_number, number))
                    account.sent += records
                    await trio.sleep(PACE_S)
                await producer.flush()
                account.acknowledged = account.sent

    async def _work(self, queue: Queue) -> None:
        async with trio.open_nursery() as acks:
            async for message in queue.consume(prefetch=PREFETCH_RECORDS):
                number = self._processed.delivered(message)
                acks.start_soon(self._acknowledge, message, number)

    async def _acknowledge(self, message: Leased, number: int) -> None:
        try:
            await message.ack()
        except (LeaseLost, OutcomeUnknown):
            return  # it comes again
        self._processed.confirmed[number] = 1

    async def _drained(self, queue: Queue) -> None:
        while (await queue.backlog()).records:  # noqa: ASYNC110 - the broker is asked, it does not tell by itself
            await trio.sleep(PACE_S)

    async def _check(self, client: Client) -> None:
        report, processed = self._report, self._processed
        report.published = sum(account.sent for account in self._accounts)
        report.acknowledged = sum(account.acknowledged for account in self._accounts)
        await self._check_topic(await client.topic("soak-topic"))
        in_queue = self._accounts[-1].acknowledged
        report.lost += processed.offsets[:in_queue].count(-1) + max(0, in_queue - len(processed.offsets))
        report.doubled += processed.doubled
        report.deliveries = processed.deliveries
        report.redelivered = processed.redelivered
        report.after_ack = processed.after_ack

    async def _check_topic(self, topic: Topic) -> None:
        report = self._report
        seen = [bytearray(account.sent) for account in self._accounts[:-1]]
        highest = [-1] * TOPIC_PRODUCERS
        async for message in topic.read(to_end=True):
            producer, number = number_of(message.value)
            report.doubled += seen[producer][number]
            report.out_of_order += number < highest[producer]
            seen[producer][number] = 1
            highest[producer] = max(highest[producer], number)
        for account, flags in zip(self._accounts, seen, strict=False):
            report.lost += flags[: account.acknowledged].count(0)


def main() -> int:
    """Run it from the command line. Returns 0 when every promise was kept."""
    parser = argparse.ArgumentParser(
        description="Kill a broker at random moments and count what is lost: nothing."
    )
    parser.add_argument("--kills", type=int, default=200, help="how often (default 200)")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments (default: a new one)")
    given = parser.parse_args()
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="plait-soak-", dir=".") as folder:
        report = trio.run(Soak(Path(folder), given.kills, seed).run)
    print(report.text())
    print(f"{'took':<36}{time.perf_counter() - begun:>12.1f} s   (seed {seed})")
    print("\nevery promise was kept" if report.good else "\nFAILED: see above")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
