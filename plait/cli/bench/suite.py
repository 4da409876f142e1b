"""The measurements, one after the other: each starts what it needs and gives its figures."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec

from plait.cli.bench.broker import BrokerProcess, memory_bytes
from plait.cli.bench.figures import Figure
from plait.cli.bench.load import Orders, Result
from plait.cli.bench.plan import TARGETS, WORKLOAD
from plait.cli.output import Progress

SETTLE_S = 1.0
"""After that an idle broker has done what it does once."""
MB = 10**6


class LoadFailed(Exception):
    """The client process ended with an error; the text is what it said."""


class Suite:
    """Measurements against one broker: a child of this process, or one that runs already."""

    def __init__(self, folder: Path, server: str = "", profiles: Path | None = None, scale: float = 1.0) -> None:
        self._folder = folder
        self._server = server
        self._profiles = profiles
        self._scale = scale
        self._broker: BrokerProcess | None = None
        self._number = 0

    def stream(self) -> Iterator[Figure]:
        """Publishing to a topic and reading it."""
        name = self._name("stream")
        records = self._records(WORKLOAD.stream)
        self._load("publish", "warming up", name=self._name("warm"), records=records // 20)
        done = self._load("publish", "publishing", name=name, records=records)
        yield Figure(
            what="publish, one producer",
            measured=done.rate,
            unit="records/s",
            target=TARGETS.publish_rate,
            note=_cpu(done),
        )
        done = self._load("read", "reading", name=name, records=records)
        yield Figure(
            what="read a stream", measured=done.rate, unit="records/s", target=TARGETS.read_rate, note=_cpu(done)
        )

    def queue(self) -> Iterator[Figure]:
        """Ten consumers that lease and acknowledge."""
        name = self._name("queue")
        records = self._records(WORKLOAD.queue)
        self._load("fill", "filling a queue", name=name, records=records)
        done = self._load("drain", "ten consumers", name=name, records=records)
        yield Figure(
            what="queue, 10 consumers",
            measured=done.rate,
            unit="lease+ack/s",
            target=TARGETS.queue_rate,
            note=_cpu(done),
        )

    def sync(self) -> Iterator[Figure]:
        """A publish that waits for its answer, beside a bare synced write."""
        done = self._load(
            "sync",
            "single publishes",
            name=self._name("sync"),
            records=WORKLOAD.publishes,
            probe_file=str(self._folder / "probe"),
        )
        yield Figure(what="fdatasync of the disk, median", measured=done.sync_median_s * 1000, unit="ms")
        yield Figure(
            what="single publish, median",
            measured=done.publish_median_s * 1000,
            unit="ms",
            target=(TARGETS.publish_in_syncs * done.sync_median_s + TARGETS.publish_extra_s) * 1000,
            at_most=True,
        )

    def start(self) -> Iterator[Figure]:
        """From `plait serve` to ready, on an empty folder; memory when nothing goes on."""
        self.close()
        seconds = []
        for number in range(WORKLOAD.starts + 1):
            broker = BrokerProcess(self._folder / f"start-{number}")
            seconds.append(broker.start())
            if number == WORKLOAD.starts:
                time.sleep(SETTLE_S)
                idle_bytes = memory_bytes(broker.pid)
            broker.stop()
        del seconds[0]  # the one in which Python may have had to compile
        yield Figure(
            what="ready after, median of 5",
            measured=median(seconds),
            unit="s",
            target=TARGETS.ready_s,
            at_most=True,
        )
        yield Figure(what="idle memory", measured=idle_bytes / MB, unit="MB", target=TARGETS.idle_mb, at_most=True)

    def backlog(self, waiting: int) -> Iterator[Figure]:
        """Memory, speed and start-up with a long backlog."""
        self.close()
        filled = self._load("fill", f"{waiting:,} waiting", name="long", records=waiting)
        yield Figure(what=f"fill a queue, {waiting:,}", measured=filled.rate, unit="records/s", note=_cpu(filled))
        time.sleep(SETTLE_S)
        yield Figure(
            what=f"memory, {waiting:,} waiting",
            measured=self._memory_mb(),
            unit="MB",
            target=TARGETS.backlog_mb,
            at_most=True,
        )
        yield from self._speeds(waiting)
        yield from self._restarts(waiting)

    def _speeds(self, waiting: int) -> Iterator[Figure]:
        """The same work on a short and on the long backlog, in turn; medians, as no machine is quite still."""
        done: dict[int, list[Result]] = {WORKLOAD.short_backlog: [], waiting: []}
        records = self._records(WORKLOAD.hold)
        for _ in range(WORKLOAD.hold_rounds):
            for length, results in done.items():
                name = "long" if length == waiting else "short"
                results.append(
                    self._load("hold", f"{length:,} waiting", name=name, records=records, waiting=length)
                )
        middle = {length: sorted(results, key=_rate)[len(results) // 2] for length, results in done.items()}
        for length, result in middle.items():
            yield Figure(
                what=f"queue held at {length:,}", measured=result.rate, unit="lease+ack/s", note=_cpu(result)
            )
        yield Figure(
            what="speed with the long backlog / the short",
            measured=middle[waiting].rate / middle[WORKLOAD.short_backlog].rate,
            unit="",
            target=TARGETS.backlog_speed,
        )

    def _restarts(self, waiting: int) -> Iterator[Figure]:
        broker = self._running()
        for how, end in (("a clean stop", broker.stop), ("SIGKILL", broker.kill)):
            end()
            yield Figure(
                what=f"start, {waiting:,} waiting, after {how}",
                measured=broker.start(),
                unit="s",
                target=TARGETS.backlog_ready_s,
                at_most=True,
            )
        time.sleep(SETTLE_S)
        yield Figure(
            what="memory after that start",
            measured=self._memory_mb(),
            unit="MB",
            target=TARGETS.backlog_mb,
            at_most=True,
        )

    def close(self) -> None:
        """Stop the broker, if one is running."""
        if self._broker is not None:
            broker, self._broker = self._broker, None
            broker.stop()

    def broker_said(self) -> str:
        """The end of the broker's log, for when something has failed."""
        return "" if self._broker is None else self._broker.said()

    def kill(self) -> None:
        """End the broker at once: the measurement has failed."""
        if self._broker is not None:
            self._broker.kill()

    def _running(self) -> BrokerProcess:
        if self._broker is None:
            self._number += 1
            variables = {}
            if self._profiles is not None:
                variables["PLAIT_PROFILE"] = str(self._profiles / f"broker-{self._number}.prof")
            self._broker = BrokerProcess(self._folder / f"broker-{self._number}", (), variables)
            self._broker.start()
        return self._broker

    def _memory_mb(self) -> float:
        return memory_bytes(self._running().pid) / MB

    def _records(self, records: int) -> int:
        return max(WORKLOAD.values, round(records * self._scale / WORKLOAD.values) * WORKLOAD.values)

    def _name(self, what: str) -> str:
        return f"bench-{what}-{time.time_ns()}"

    def _load(
        self, scenario: str, label: str, *, name: str, records: int, waiting: int = 0, probe_file: str = ""
    ) -> Result:
        server, pid = self._server, 0
        if not server:
            broker = self._running()
            server, pid = broker.address, broker.pid
        orders = Orders(scenario, server, name, records, waiting=waiting, broker_pid=pid, probe_file=probe_file)
        command = [sys.executable, "-m", "plait.cli.bench.load", msgspec.json.encode(orders).decode()]
        if self._profiles is not None:
            command.append(str(self._profiles / f"client-{scenario}-{name}.prof"))
        with Progress(label, records) as bar:
            return _watched(command, bar)


def _watched(command: list[str], bar: Progress) -> Result:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said)
        try:
            last = _followed(process, bar)
            if process.wait() == 0 and last:
                return msgspec.json.decode(last, type=Result)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        raise LoadFailed(said.read().decode(errors="replace")[-4000:])


def _followed(process: subprocess.Popen[bytes], bar: Progress) -> bytes:
    """The last line that the process writes; moves the bar along on the way."""
    assert process.stdout is not None, "a pipe was asked for"
    done = 0
    last = b""
    for line in process.stdout:
        if line.startswith(b'{"done"'):
            now = msgspec.json.decode(line)["done"]
            bar.advance(now - done)
            done = now
        else:
            last = line
    return last


def _rate(done: Result) -> float:
    return done.rate


def _cpu(done: Result) -> str:
    """Where the time went: how busy each side's core was."""
    if not done.seconds or not done.broker_cpu_s:
        return ""
    broker, client = done.broker_cpu_s, done.client_cpu_s
    return (
        f"broker {broker / done.records * 1e6:.2f} us a record ({broker / done.seconds:.0%} of a core), "
        f"client {client / done.records * 1e6:.2f} us ({client / done.seconds:.0%})"
    )
