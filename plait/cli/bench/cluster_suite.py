"""The measurements of a cluster: each starts brokers of its own and gives its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from plait.cli.bench.cluster_client import clients, rate_between, together
from plait.cli.bench.cluster_nodes import LOOK_S, Brokers, brokers
from plait.cli.bench.cluster_plan import CLUSTER_TARGETS, CLUSTER_WORKLOAD, Orders, Sizes, Span
from plait.cli.bench.figures import Figure
from plait.cli.bench.suite import LoadFailed
from plait.cli.output import Progress

MB = 10**6
LARGE_IN_SMALL = 5
"""Of the large records so many fewer are published than of the small ones."""
SETTLE_S = 2.0
"""After that an idle node has done what it does once."""
BUSY_S = 0.3
"""Publishes trickle for so long before a node is killed, every second time."""
MOVED_S = 300.0
"""Replicas that have not moved by then never will."""
WARM_S = 2.0
"""Producers have published for so long when their rate is watched."""


class ClusterSuite:
    """The parts, by name; each gives its figures."""

    def __init__(self, folder: Path, sizes: Sizes, profiles: Path | None = None) -> None:
        self._folder = folder
        self._sizes = sizes
        self._profiles = profiles
        self.parts: dict[str, Callable[[], Iterator[Figure]]] = {
            "batched": self.batched,
            "through": self.through,
            "failover": self.failover,
            "join": self.join,
            "queues": self.queues,
        }

    def batched(self) -> Iterator[Figure]:
        """Several producers, each a client of another node, to the partitions of one topic."""
        sizes, workload, targets = self._sizes, CLUSTER_WORKLOAD, CLUSTER_TARGETS
        with brokers(self._folder / "batched", workload.nodes, self._profiles) as three:
            what = f"publish, {sizes.producers} producers, {workload.small_bytes} bytes"
            rate, note = self._produced(three, workload.small_bytes, sizes.records)
            yield Figure(what=what, measured=rate, unit="records/s", target=targets.publish_rate, note=note)
            what = f"publish, {sizes.producers} producers, {workload.large_bytes:,} bytes"
            rate, note = self._produced(three, workload.large_bytes, sizes.records // LARGE_IN_SMALL)
            mb = rate * workload.large_bytes / MB
            yield Figure(what=what, measured=mb, unit="MB/s", target=targets.publish_mb, note=note)

    def through(self) -> Iterator[Figure]:
        """One producer, to the leader and through another node in turn."""
        sizes, workload = self._sizes, CLUSTER_WORKLOAD
        rates: dict[str, list[float]] = {"direct": [], "through": []}
        with brokers(self._folder / "through", workload.nodes, self._profiles) as three:
            three.create("through", 1)
            with Progress("to the leader, and through another node", 2 * sizes.rounds, "rounds") as bar:
                for _ in range(sizes.rounds):
                    (leader,) = three.spread("through")
                    other = next(node for node in three.nodes if node.node_id != leader)
                    for how, node in (("direct", three.with_id(leader)), ("through", other)):
                        orders = Orders("publish", node.address, "through", sizes.records, workload.small_bytes)
                        with clients([orders], self._profiles) as (client,):
                            client.go()
                            rates[how].append(together([client.span()]))
                        bar.advance(1)
        ratios = [through / direct for direct, through in zip(rates["direct"], rates["through"], strict=True)]
        yield Figure(what="one partition, to its leader", measured=median(rates["direct"]), unit="records/s")
        yield Figure(
            what="one partition, through another node", measured=median(rates["through"]), unit="records/s"
        )
        yield Figure(
            what="through another node / to the leader",
            measured=median(ratios),
            unit="",
            target=CLUSTER_TARGETS.through_ratio,
            note=f"{min(ratios):.2f} to {max(ratios):.2f} in {sizes.rounds} rounds",
        )

    def failover(self) -> Iterator[Figure]:
        """From the kill of a node until publishes to all partitions succeed, through a node that is left."""
        kills, workload = self._sizes.kills, CLUSTER_WORKLOAD
        times: dict[str, list[float]] = {"busy": [], "quiet": []}
        with (
            brokers(self._folder / "failover", workload.nodes, self._profiles) as three,
            Progress("killing nodes", kills, "nodes") as bar,
        ):
            three.create("failover", workload.partitions)
            for number in range(kills):
                how = "quiet" if number % 2 else "busy"
                times[how].append(self._outlived(three, "failover", BUSY_S if how == "busy" else 0.0))
                bar.advance(1)
        both = [f"{how} {median(found):.2f} s" for how, found in times.items() if found]
        every = times["busy"] + times["quiet"]
        yield Figure(
            what=f"publishing again after SIGKILL, median of {kills}",
            measured=median(every),
            unit="s",
            target=CLUSTER_TARGETS.failover_s,
            at_most=True,
            note=f"to each of {workload.partitions} partitions; medians: " + ", ".join(both),
        )
        yield Figure(what="publishing again after SIGKILL, longest", measured=max(every), unit="s")

    def join(self) -> Iterator[Figure]:
        """A fourth node joins, while producers publish as fast as they can."""
        sizes, workload = self._sizes, CLUSTER_WORKLOAD
        with (
            brokers(self._folder / "join", workload.nodes, self._profiles) as three,
            Progress("a fourth node joins", None, "") as _,
        ):
            three.create("join", workload.moved_partitions)
            orders = self._orders(three, "stream", "join", 0, workload.small_bytes)
            with clients(orders, self._profiles) as streams:
                for client in streams:
                    client.go()
                time.sleep(WARM_S)
                begun_s = time.perf_counter()
                time.sleep(sizes.join_s)
                joined_s = time.perf_counter()
                three.add().start()
                share = _share_arrived(three)
                moved_s = time.perf_counter()
                time.sleep(LOOK_S * 10)  # the clients say where they were then
                for client in streams:
                    client.enough()
                for client in streams:
                    client.span()
                before = sum(rate_between(client.ticks, begun_s, joined_s) for client in streams)
                during = sum(rate_between(client.ticks, joined_s, moved_s) for client in streams)
        yield Figure(what="publish, before a node joins", measured=before, unit="records/s")
        yield Figure(
            what="publish while it joins / before",
            measured=during / before,
            unit="",
            target=CLUSTER_TARGETS.join_ratio,
            note=f"{during:,.0f} records/s; {share}",
        )
        yield Figure(what="its share of replicas there, from its start", measured=moved_s - joined_s, unit="s")

    def queues(self) -> Iterator[Figure]:
        """Many queues: how fast they are made, and what they cost."""
        count, workload, targets = self._sizes.queues, CLUSTER_WORKLOAD, CLUSTER_TARGETS
        with brokers(self._folder / "queues", workload.nodes, self._profiles) as three:
            time.sleep(SETTLE_S)
            empty = three.memory_bytes()
            orders = Orders("create", three.addresses, "queue", count)
            with (
                Progress(f"{count:,} queues", count, "queues") as bar,
                clients([orders], self._profiles) as (client,),
            ):
                before_s = sum(three.cpu_s())
                client.go()
                done = client.span(bar.advance)
                used_ms = (sum(three.cpu_s()) - before_s) / count * 1000
            three.calm()
            asleep = three.asleep()
            time.sleep(SETTLE_S)
            memory = three.memory_bytes()
            busy = three.busy(self._sizes.idle_s)
        yield Figure(
            what=f"make {count:,} queues",
            measured=together([done]),
            unit="queues/s",
            target=targets.create_rate,
            note=f"{workload.creating} under way; {used_ms:.1f} ms of processor time of all nodes for each",
        )
        yield Figure(
            what=f"{count:,} queues, memory",
            measured=max(memory) / MB,
            unit="MB",
            target=targets.queues_mb,
            at_most=True,
            note=f"of the largest node; without queues {max(empty) / MB:.0f} MB",
        )
        yield Figure(
            what=f"{count:,} queues, idle processor",
            measured=max(busy),
            unit="% of a core",
            target=targets.queues_idle_percent,
            at_most=True,
            note=f"of the busiest node; {min(asleep):,} replicas sleep",
        )

    def _orders(self, three: Brokers, scenario: str, name: str, records: int, record_bytes: int) -> list[Orders]:
        """For each producer, which are clients of all nodes in turn."""
        addresses = [node.address for node in three.nodes]
        each = records // self._sizes.producers
        return [
            Orders(scenario, addresses[number % len(addresses)], name, each, record_bytes)
            for number in range(self._sizes.producers)
        ]

    def _produced(self, three: Brokers, record_bytes: int, records: int) -> tuple[float, str]:
        """Records per second of all producers together, the median of some rounds; and what there is to say."""
        name, rates, costs = f"batched-{record_bytes}", [], []
        three.create(name, CLUSTER_WORKLOAD.partitions)
        with Progress(f"records of {record_bytes} bytes", self._sizes.rounds, "rounds") as bar:
            for _ in range(self._sizes.rounds):
                with clients(
                    self._orders(three, "publish", name, records, record_bytes), self._profiles
                ) as producers:
                    before_s = sum(three.cpu_s())
                    for client in producers:
                        client.go()
                    spans = [client.span() for client in producers]
                    costs.append(_cost(spans, sum(three.cpu_s()) - before_s))
                rates.append(together(spans))
                bar.advance(1)
        rounds = f"{min(rates):,.0f} to {max(rates):,.0f} records/s in {self._sizes.rounds} rounds"
        return median(rates), f"{rounds}; {costs[-1]}"

    def _outlived(self, three: Brokers, name: str, busy_s: float) -> float:
        """Kill the node that leads most partitions; start it again. Returns the seconds without all of them."""
        leaders = three.spread(name)
        victim = three.with_id(max(leaders, key=leaders.count))
        others = ",".join(node.address for node in three.nodes if node is not victim)
        if not busy_s:
            three.asleep()
        orders = Orders("outlive", others, name, partitions=len(leaders), kill_pid=victim.pid, busy_s=busy_s)
        with clients([orders], self._profiles) as (client,):
            if not busy_s:
                three.asleep()  # again: the client has published
            client.go()
            span = client.span()
        victim.kill()  # it is dead; that is noticed here
        victim.start()
        three.calm()
        return span.ended_s - span.begun_s


def _share_arrived(nodes: Brokers) -> str:
    """Return when the last node has its share of the replicas. Raises LoadFailed."""
    until = time.perf_counter() + MOVED_S
    while True:
        held = nodes.figures("plait_raft_replicas")
        behind = sum(nodes.figures("plait_raft_under_replicated_groups"))
        if max(held) - min(held) <= 1 and not behind:
            return "replicas: " + ", ".join(f"{count:.0f}" for count in held)
        if time.perf_counter() > until:
            raise LoadFailed(f"after {MOVED_S:g} s the nodes have {held} replicas, {behind} groups lack some")
        time.sleep(LOOK_S)


def _cost(spans: Sequence[Span], nodes_s: float) -> str:
    """Processor time for a record, of all nodes and of all clients."""
    records = sum(span.count for span in spans)
    clients_s = sum(span.cpu_s for span in spans)
    nodes_us, clients_us = nodes_s / records * 1e6, clients_s / records * 1e6
    return f"a record took {nodes_us:.1f} us of processor time of all nodes and {clients_us:.1f} us of its client"
