"""Nodes that are drained, taken back and removed, and topics that grow, by the command line of a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import plait
from tests.integration.brokers import NODES, Brokers
from tests.integration.test_cli import CommandLine


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    brokers = Brokers(tmp_path)
    yield brokers
    brokers.kill_all()


async def run(command: CommandLine, *words: str, code: int = 0) -> str:
    return await anyio.to_thread.run_sync(lambda: command.run(*words, code=code))


async def node_of(client: plait.Client, number: int) -> dict[str, Any] | None:
    nodes = (await client.cluster_status())["nodes"]
    return next((node for node in nodes if node["node"] == number), None)


async def test_a_node_is_drained_taken_back_and_removed_while_everybody_goes_on(brokers: Brokers) -> None:
    await brokers.start(*NODES)
    command = CommandLine(f"{brokers.native[1]},{brokers.native[2]}")
    async with plait.connect([brokers.native[1], brokers.native[2]]) as client:
        topic = await client.topic("events", partitions=6)
        await topic.publish_many([b"%d" % number for number in range(50)])
        assert "node 3 is draining, and done" in await run(command, "node", "drain", "3", "--wait")
        found = await node_of(client, 3)
        assert found is not None
        assert (found["state"], found["leads"]) == ("draining", 0)
        await topic.publish_many([b"%d" % number for number in range(50)])
        assert "node 3 is active" in await run(command, "node", "activate", "3")
        assert "node 3 is leaving, and done" in await run(command, "node", "remove", "3", "--wait")
        assert await node_of(client, 3) is None
        await topic.publish_many([b"%d" % number for number in range(50)])
        assert len([message async for message in topic.read(to_end=True)]) == 150
        assert "no node 9" in await run(command, "node", "drain", "9", code=1)
        assert await brokers.ended(3) == 0, "a node that is removed ends by itself"
        brokers.begin(3)
        assert await brokers.ended(3) == 1
        assert "node 3 was removed from this cluster" in brokers.log(3).splitlines()[-1]


async def test_a_topic_grows_while_it_serves(brokers: Brokers) -> None:
    await brokers.start(*NODES)
    command = CommandLine(brokers.addresses)
    async with plait.connect(brokers.addresses) as client:
        topic = await client.topic("events", partitions=2, replicas=1)
        await topic.publish(b"one")
        assert "topic events has 4 partitions now" in await run(
            command, "topic", "resize", "events", "--partitions", "4", "--replicas", "3"
        )
        assert (await client.describe("events")).partitions == 4
        assert "cannot have fewer" in await run(command, "topic", "resize", "events", "--partitions", "1", code=1)
        assert "say --partitions" in await run(command, "topic", "resize", "events", code=2)
        found: list[Any] = []
        with anyio.fail_after(30):
            while [len(each or ()) for each in found] != [3] * 4:
                details = (await client.describe("events")).details["partitions_detail"]
                found = [detail["replicas"] for detail in details]
