"""The brokers of the cluster benchmark: `plait serve` three times on loopback, and what their pages say.

Brokers ──> plait serve --initial  × 3        add() ──> plait serve --join
   └──────> /metrics of each: replicas, what is led, what sleeps
"""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import randrange

from plait import blocking
from plait.cli.bench.broker import BrokerFailed, BrokerProcess, cpu_seconds, memory_bytes

PAGE_S = 30.0
"""Longest that a node's page may take."""
CALM_S = 120.0
"""A cluster in which something is not as it should be by then never will be."""
LOOK_S = 0.1
"""Time between two looks at the nodes' pages, or at who leads."""


class Brokers:
    """The nodes; each may be killed and started again on the same addresses and data."""

    def __init__(self, folder: Path, size: int, profiles: Path | None = None) -> None:
        self._folder = folder
        self._profiles = profiles
        self._peers = [f"127.0.0.1:{port}" for port in _free_ports(size)]
        self.nodes: list[BrokerProcess] = []
        for peer in self._peers:
            self._make(peer, ["--initial", ",".join(self._peers)])

    @property
    def addresses(self) -> str:
        """Of all nodes, for clients."""
        return ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        """Found the cluster. Raises BrokerFailed."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()

    def add(self) -> BrokerProcess:
        """One more node, which joins when it is launched."""
        (port,) = _free_ports(1)
        return self._make(f"127.0.0.1:{port}", ["--join", ",".join(self._peers)])

    def kill(self) -> None:
        """End all at once."""
        for node in self.nodes:
            node.kill()

    def stop(self) -> None:
        """End all in an orderly way. Raises BrokerFailed."""
        for node in self.nodes:
            node.stop()

    def said(self) -> str:
        """The ends of their logs."""
        return "\n".join(f"node {node.node_id}: {node.said()}" for node in self.nodes)

    def with_id(self, node_id: int) -> BrokerProcess:
        """The node that the cluster knows by this number."""
        return next(node for node in self.nodes if node.node_id == node_id)

    def create(self, name: str, partitions: int) -> None:
        """A topic, whose partitions are led, and evenly."""
        with blocking.connect(self.addresses) as client:
            client.topic(name, partitions=partitions)
        self.calm()
        self.spread(name)

    def leaders(self, name: str) -> list[int]:
        """The node that leads each partition of a topic; 0: nobody is known to."""
        with blocking.connect(self.addresses) as client:
            detail = client.describe(name).details["partitions_detail"]
        return [int(partition["leader"]) for partition in detail]

    def spread(self, name: str) -> list[int]:
        """The same, once everybody leads something. Raises BrokerFailed."""
        found: list[int] = []

        def look() -> bool:
            found[:] = self.leaders(name)
            return 0 not in found and len(set(found)) == min(len(found), len(self.nodes))

        self._until(look, lambda: f"the leaders of {name} are {found}")
        return found

    def calm(self) -> None:
        """Return when every replica of every group is caught up. Raises BrokerFailed."""
        self._until(
            lambda: (
                sum(self.figures("plait_raft_under_replicated_groups")) == 0
                and sum(self.figures("plait_ready")) == len(self.nodes)
            ),
            lambda: "not every node is ready, or not every replica is caught up",
        )

    def asleep(self) -> list[int]:
        """How many replicas sleep on each node, when all do. Raises BrokerFailed."""
        found: list[tuple[int, int]] = []

        def look() -> bool:
            asleep, all_ = self.figures("plait_raft_asleep_replicas"), self.figures("plait_raft_replicas")
            found[:] = [(int(one), int(other)) for one, other in zip(asleep, all_, strict=True)]
            return all(one == other for one, other in found)

        self._until(look, lambda: f"of the replicas sleep {found}")
        return [one for one, _ in found]

    def figures(self, metric: str) -> list[float]:
        """A metric on each node; NaN where a node does not answer, so that no comparison holds."""
        return [_figure(node.http, metric) for node in self.nodes]

    def cpu_s(self) -> list[float]:
        """Processor time that each has used."""
        return [cpu_seconds(node.pid) for node in self.nodes]

    def memory_bytes(self) -> list[int]:
        """Resident memory of each."""
        return [memory_bytes(node.pid) for node in self.nodes]

    def busy(self, seconds: float) -> list[float]:
        """Percent of a core that each uses over some time."""
        before, begun = self.cpu_s(), time.perf_counter()
        time.sleep(seconds)
        passed = time.perf_counter() - begun
        return [100 * (after - earlier) / passed for after, earlier in zip(self.cpu_s(), before, strict=True)]

    def _make(self, peer: str, how: list[str]) -> BrokerProcess:
        number = len(self.nodes) + 1
        native, http = _free_ports(2)
        flags = ["--peer", peer, "--http", f"127.0.0.1:{http}", *how]
        variables = {}
        if self._profiles is not None:
            profile = self._profiles / f"{self._folder.name}-{number}.prof"
            variables["PLAIT_PROFILE"] = str(profile.resolve())
        node = BrokerProcess(self._folder / str(number), flags, variables, native)
        self.nodes.append(node)
        return node

    def _until(self, look: Callable[[], bool], what: Callable[[], str]) -> None:
        until = time.perf_counter() + CALM_S
        while not look():
            if time.perf_counter() > until:
                raise BrokerFailed(f"after {CALM_S:g} s {what()}; the nodes said:\n{self.said()}")
            time.sleep(LOOK_S)


@contextmanager
def brokers(folder: Path, size: int, profiles: Path | None = None) -> Iterator[Brokers]:
    """A cluster that runs inside the block, and of which nothing is left behind it. Raises BrokerFailed."""
    made = Brokers(folder, size, profiles)
    try:
        made.start()
        made.calm()
        yield made
        if profiles is not None:  # which nodes write as they end
            made.stop()
    finally:
        made.kill()


def _figure(http: str, metric: str) -> float:
    """A metric on a node's page, all its labels together."""
    try:
        with urllib.request.urlopen(f"http://{http}/metrics", timeout=PAGE_S) as answer:
            page = answer.read().decode()
    except OSError:
        return float("nan")
    found = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
    return sum(float(value) for name, _, value in found if name.partition("{")[0] == metric)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, of those that the kernel gives to no connection while a node is away."""
    found: list[int] = []
    while len(found) < count:
        port = randrange(10_000, 32_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    return found
