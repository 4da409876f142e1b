"""Collects a node's figures when somebody asks for them, from what is there anyway.

    scrape() ──> sources, one by one ──> partitions, in slices ──> the page

Nothing is counted for it where work is done, but for a few integers a batch. One scrape runs at a time, and
whoever asks meanwhile or at once again gets its page, so that asking often costs little.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import trio

from node import figures
from node.counting import PartitionSum, ReplicaSum, in_slices
from node.exposition import Page, Source
from node.health import Health
from node.node import Node
from plait.version import __version__
from replication.environment import Environment

METRICS_TOPICS_MAX = 200
"""Topics and queues with figures of their own, the oldest first; the others are summed up as OTHER."""
SCRAPE_INTERVAL_MS = 200
"""A page that is not older than this is given out once more."""
NS_PER_S = 1_000_000_000
OTHER = "(other)"
"""Stands for all topics that have no figures of their own; no name of a topic has brackets."""
PRESSURES = {"none": 0, "busy": 1, "low": 2, "critical": 3}


class Metrics:
    """One per process, from its start on; `node` is told when it is open."""

    def __init__(self, environment: Environment, health: Health) -> None:
        self.node: Node | None = None
        self.sources: list[Source] = []
        """Those who have figures of their own, such as gateways."""
        self._clock = environment.clock
        self._memory = environment.memory
        self.health = health
        self._began_ns = environment.clock.monotonic_ns()
        self._lock = trio.Lock()
        self._page = b""
        self._page_ns = 0

    async def scrape(self) -> bytes:
        """All figures of this moment, in Prometheus' text format."""
        asked_ns = self._clock.monotonic_ns()
        async with self._lock:
            if self._page and self._page_ns > asked_ns - SCRAPE_INTERVAL_MS * 1_000_000:
                return self._page
            began_ns = self._clock.monotonic_ns()
            page = Page()
            await self._collect(page)
            page.put(figures.SCRAPE, (self._clock.monotonic_ns() - began_ns) / NS_PER_S)
            self._page, self._page_ns = page.encode(), self._clock.monotonic_ns()
            return self._page

    async def _collect(self, page: Page) -> None:
        self._put_process(page)
        for source in self.sources:
            source(page)
        node = self.node
        if node is None:
            return
        self._put_node(page, node)
        self._put_storage(page, node)
        _put_peers(page, node)
        await trio.lowlevel.checkpoint()
        replicas = await self._count_groups(page, node)
        await self._count_partitions(page, node, replicas)

    # at once

    def _put_process(self, page: Page) -> None:
        health = self.health
        page.put(figures.HEALTHY, int(not health.ailments()))
        page.put(figures.READY, int(not health.hindrances()))
        page.put(figures.UPTIME, (self._clock.monotonic_ns() - self._began_ns) / NS_PER_S)
        page.put(figures.MEMORY, self._memory().used_bytes)

    def _put_node(self, page: Page, node: Node) -> None:
        host, pressure, standings = node.host, node.pressure, node.groups.standings
        metadata = node.metadata
        page.put(figures.INFO, 1, metadata.cluster_id, str(metadata.node_id), __version__)
        page.put(figures.INCARNATION, metadata.incarnation)
        page.put(figures.NODES, len(metadata.catalogue.nodes()))
        page.put(figures.MEMORY_PERCENT, pressure.memory_percent)
        page.put(figures.LOOP_LAG, node.watch.lag_ms / 1_000)
        page.put(figures.LOOP_STALLS, node.watch.stalls)
        page.put(figures.OVERFLOWS, host.overflows)
        page.put(figures.ACTORS_READY, host.ready)
        page.put(figures.ACTOR_FAILURES, host.failures)
        page.put(figures.IN_FLIGHT, pressure.in_flight_bytes)
        page.put(figures.WAITING, pressure.room.size_bytes)
        for reason, count in pressure.refused.items():
            page.put(figures.REFUSED, count, reason)
        page.put(figures.GAINED, standings.gained)
        page.put(figures.LOST, standings.lost)

    def _put_storage(self, page: Page, node: Node) -> None:
        found = node.store.figures(self._clock.monotonic_ns())
        page.put(figures.DISK_FREE, found.free_bytes)
        page.put(figures.DISK_PRESSURE, PRESSURES[node.store.pressure])
        page.put(figures.WAL_SYNCS, found.wal_syncs)
        page.put(figures.WAL_BYTES, found.wal_bytes)
        page.put(figures.WAL_SECONDS, found.wal_sync_ns / NS_PER_S)
        page.put(figures.WAL_SLOW, found.wal_slow_syncs)
        page.put(figures.WAL_UNDER_WAY, found.wal_sync_under_way_ns / NS_PER_S)
        page.put(figures.WAL_WAITING, found.wal_files_waiting)
        page.put(figures.FLUSHES, found.flushes)
        page.put(figures.SEGMENTS, found.segment_files)
        page.put(figures.SNAPSHOTS, found.snapshot_files)

    # in slices

    async def _count_groups(self, page: Page, node: Node) -> ReplicaSum:
        found = ReplicaSum()
        async for group in in_slices(self._clock, list(node.groups.opened.values())):
            found.count(group, self._clock.monotonic_ns())
        page.put(figures.REPLICAS, found.replicas)
        page.put(figures.LEADERS, found.leaders)
        page.put(figures.ASLEEP, found.asleep)
        page.put(figures.FENCED, found.fenced)
        page.put(figures.LAGGING, found.lagging)
        page.put(figures.UNDER_REPLICATED, found.under_replicated)
        page.put(figures.APPLY_LAG, found.apply_lag)
        return found

    async def _count_partitions(self, page: Page, node: Node, replicas: ReplicaSum) -> None:
        total, other, kinds = PartitionSum(), PartitionSum(), {"queue": 0, "topic": 0}
        shown: dict[str, PartitionSum] = {}
        every = chain.from_iterable(node.replicas.by_topic())
        async for partition in in_slices(self._clock, every):
            topic = partition.topic
            own = shown.get(topic.name)
            if own is None and len(shown) < METRICS_TOPICS_MAX:
                own = shown[topic.name] = PartitionSum()
            (own if own is not None else other).count(partition)
        for partitions in node.replicas.by_topic():
            kinds[partitions[0].topic.kind] += 1
        if other.partitions:
            shown[OTHER] = other
        for name, found in shown.items():
            _put_topic(page, name, found)
            total.add(found)
        total.traffic.add(node.replicas.past)
        _put_total(page, total, replicas)
        for kind, count in kinds.items():
            page.put(figures.TOPICS, count, kind)


def _put_topic(page: Page, name: str, found: PartitionSum) -> None:
    page.put(figures.TOPIC_PARTITIONS, found.led, name)
    page.put(figures.TOPIC_RECORDS, found.traffic.records, name)
    page.put(figures.TOPIC_BYTES, found.traffic.size_bytes, name)
    page.put(figures.TOPIC_BACKLOG, found.backlog_records, name)
    page.put(figures.TOPIC_BACKLOG_BYTES, found.backlog_bytes, name)
    page.put(figures.TOPIC_LEASED, found.leased, name)


def _put_total(page: Page, found: PartitionSum, replicas: ReplicaSum) -> None:
    page.put(figures.PARTITIONS, found.partitions)
    page.put(figures.PARTITIONS_LED, found.led)
    page.put(figures.BATCHES, found.traffic.batches)
    page.put(figures.RECORDS, found.traffic.records)
    page.put(figures.BYTES, found.traffic.size_bytes)
    page.put(figures.REDELIVERED, found.traffic.redelivered_records)
    page.put(figures.DEAD_LETTERED, found.traffic.dead_lettered_records)
    page.put(figures.BACKLOG, found.backlog_records)
    page.put(figures.BACKLOG_BYTES, found.backlog_bytes)
    page.put(figures.LEASED, found.leased)
    page.put(figures.CONSUMERS, found.consumers)
    page.put(figures.MAILBOX, found.waiting + replicas.waiting)
    page.put(figures.MAILBOX_MAX, max(found.waiting_max, replicas.waiting_max))


def _put_peers(page: Page, node: Node) -> None:
    peers = node.peers
    known: Iterable[int] = peers.nodes_known()
    for count, other in enumerate(known, 1):
        page.put(figures.PEER_UP, int(peers.is_up(other)), str(other))
        page.put(figures.PEERS, count)
    counters = peers.counters
    sent, received = peers.bytes_total()
    page.put(figures.PEER_FRAMES, counters.frames_sent)
    page.put(figures.PEER_SENT, sent)
    page.put(figures.PEER_RECEIVED, received)
    page.put(figures.PEER_MESSAGES, counters.messages_sent, "sent")
    page.put(figures.PEER_MESSAGES, counters.messages_received, "received")
    page.put(figures.PEER_DROPPED, counters.dropped_down, "node_down")
    page.put(figures.PEER_DROPPED, counters.dropped_full, "queue_full")
    page.put(figures.PEER_DROPPED, counters.mailbox_full, "mailbox_full")
    page.put(figures.PEER_DROPPED, counters.unknown_group, "unknown_group")
    page.put(figures.PEER_LOST, counters.connections_lost)
    page.put(figures.PEER_REFUSED, counters.handshakes_refused)
    page.put(figures.CAMPAIGNS, counters.campaigns)
