"""The figures of real nodes: they agree with what was done, and collecting them holds nobody up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from node import metrics as metrics_module
from node.metrics import OTHER, Metrics
from node.node import Node
from plait.wire.errors import Overloaded
from replication.environment import Environment
from replication.real import RealClock
from tests.integration.clusters import patiently, running_cluster, until
from tests.integration.nodes import batch_of, consume, running_node
from tests.tidy.metrics import PREFIX, all_metrics

Figures = dict[tuple[str, ...], float]


class EagerClock(RealClock):
    """A millisecond passes whenever somebody looks."""

    looks = 0

    def monotonic_ns(self) -> int:
        self.looks += 1
        return super().monotonic_ns() + self.looks * 1_000_000


def metrics_of(node: Node, clock: RealClock | None = None) -> Metrics:
    environment: Environment = node._environment
    if clock is not None:
        environment = replace(environment, clock=clock)
    metrics = Metrics(environment, node.health)
    metrics.node = node
    return metrics


async def figures_of(scrape: Callable[[], Awaitable[bytes]]) -> Figures:
    """(name, label values...) to value; names without prefix."""
    page = (await scrape()).decode()
    return {
        (sample.name.removeprefix(PREFIX), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


async def test_figures_agree_with_what_was_done(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "dead", {}).wait()
        await broker.create("queue", "orders", {"max_backlog_records": 5}).wait()
        await broker.create("topic", "events", {"partitions": 3}).wait()
        for _ in range(2):
            await broker.publish("orders", 0, batch_of(b"a", b"b"), "test").wait()
        await broker.publish("events", 1, batch_of(b"x"), "test").wait()
        with pytest.raises(Overloaded):
            await broker.publish("orders", 0, batch_of(b"a", b"b"), "test").wait()
        inbox, attachment = await consume(broker, "orders", prefetch=3)
        await inbox.wait_for(3)
        _, lease_id, offset, *_ = inbox.items[0]
        await attachment.settle(0, "ack", 0, [(lease_id, offset, offset)]).wait()
        await inbox.wait_for(4)
        await attachment.detach().wait()
        again, _ = await consume(broker, "orders", prefetch=1)
        await again.wait_for(1)
        found = await figures_of(metrics_of(node).scrape)
        assert found[("published_batches_total",)] == 3
        assert found[("published_records_total",)] == 5
        assert found[("topic_published_records_total", "orders")] == 4
        assert found[("topic_published_records_total", "events")] == 1
        assert found[("backlog_records",)] == 3 + 1
        assert found[("topic_backlog_records", "orders")] == 3
        assert found[("leased_records",)] == found[("topic_leased_records", "orders")] == 1
        assert found[("consumers",)] == 1
        assert found[("redelivered_records_total",)] == 1
        assert found[("refused_publishes_total", "backlog")] == 1
        assert (found[("topics", "queue")], found[("topics", "topic")]) == (2, 1)
        assert found[("partitions",)] == found[("partitions_led",)] == 5
        assert found[("raft_leaders",)] == found[("raft_replicas",)] == 7
        assert found[("wal_syncs_total",)] > 0
        assert found[("ready",)] == found[("healthy",)] == 1


async def test_dead_letters_are_counted(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        await broker.create("queue", "dead", {}).wait()
        settings = {"dead_letter": "dead", "max_backlog_records": 1, "overflow": "dead-letter"}
        await broker.create("queue", "orders", settings).wait()
        for _ in range(3):
            await broker.publish("orders", 0, batch_of(b"a"), "test").wait()
        inbox, _ = await consume(broker, "dead")
        await inbox.wait_for(2)
        metrics = metrics_of(node, EagerClock())

        found: Figures = {}
        with trio.fail_after(10):
            while found.get(("dead_lettered_records_total",)) != 2:
                found = await figures_of(metrics.scrape)


async def test_totals_keep_what_went_through_topics_that_are_gone(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        broker = node.broker
        for name in ("one", "two"):
            await broker.create("topic", name, {}).wait()
            await broker.publish(name, 0, batch_of(b"a"), "test").wait()
        await broker.delete("one").wait()
        found = await figures_of(metrics_of(node).scrape)
        assert found[("published_records_total",)] == 2
        assert found[("topic_published_records_total", "two")] == 1
        assert ("topic_published_records_total", "one") not in found


async def test_only_so_many_topics_have_figures_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "METRICS_TOPICS_MAX", 2)
    async with running_node(tmp_path) as node:
        broker = node.broker
        for name in ("a", "b", "c", "d"):
            await broker.create("topic", name, {}).wait()
            await broker.publish(name, 0, batch_of(b"1"), "test").wait()
        found = await figures_of(metrics_of(node).scrape)
        shown = {key[1]: value for key, value in found.items() if key[0] == "topic_published_records_total"}
        assert shown == {"a": 1, "b": 1, OTHER: 2}


async def test_collecting_lets_others_have_their_turn(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.broker.create("topic", "wide", {"partitions": 1_000}).wait()
        metrics = metrics_of(node, EagerClock())
        turns = 0

        async def live() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(live)
            found = await figures_of(metrics.scrape)
            nursery.cancel_scope.cancel()
        assert found[("partitions",)] == 1_000
        assert turns >= 10


async def test_whoever_asks_at_once_again_gets_the_same_page(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        metrics = metrics_of(node)
        pages: list[bytes] = []

        async def ask() -> None:
            pages.append(await metrics.scrape())

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        assert len(set(pages)) == 1


async def test_before_the_node_is_open_there_is_a_page_already(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        metrics = Metrics(node._environment, node.health)
        found = await figures_of(metrics.scrape)
        assert found[("healthy",)] == 1
        assert ("raft_replicas",) not in found


async def test_a_replica_that_is_down_shows_and_comes_back(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        await patiently(lambda: cluster.node(1).broker.create("queue", "orders", {"partitions": 4}))
        other = 3
        staying = [cluster.node(1), cluster.node(2)]
        metrics = [metrics_of(node, EagerClock()) for node in staying]

        async def lagging_is(wanted: int) -> Figures:
            """Those of both nodes that stay, added up."""
            with trio.fail_after(30):
                while True:
                    one, two = [await figures_of(each.scrape) for each in metrics]
                    found = {key: one.get(key, 0) + two.get(key, 0) for key in {**one, **two}}
                    if found[("raft_lagging_replicas",)] == wanted:
                        return found
                    await trio.sleep(0.01)

        await lagging_is(0)
        await cluster.kill(other)
        await until(lambda: not any(node.peers.is_up(other) for node in staying))
        found = await lagging_is(6)
        assert found[("raft_under_replicated_groups",)] == 6
        assert found[("peer_up", str(other))] == 0
        assert found[("peers",)] == 4
        await cluster.start(other)
        found = await lagging_is(0)
        assert found[("raft_under_replicated_groups",)] == 0
        assert found[("peer_sent_bytes_total",)] > 0
        assert found[("peer_messages_total", "sent")] > 0


async def test_nothing_is_told_that_is_not_in_the_documentation(tmp_path: Path) -> None:
    known = {metric.name for metric in all_metrics()}
    async with running_node(tmp_path) as node:
        await node.broker.create("queue", "orders", {}).wait()
        found = await figures_of(metrics_of(node).scrape)
        assert {key[0] for key in found} <= known
