"""Three brokers, three processes, one secret: who does not know it is not let in, and is told what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import plait
from tests.integration.brokers import NODES, READY_LIMIT_S, Brokers

SECRET = "correct horse battery staple"
OTHER = "incorrect horse battery staple"


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    brokers = Brokers(tmp_path)
    brokers.secrets = dict.fromkeys(NODES, SECRET)
    yield brokers
    brokers.kill_all()


async def said(brokers: Brokers, node: int, sentence: str) -> None:
    """Until a node has said so."""
    with anyio.fail_after(READY_LIMIT_S):
        while sentence not in brokers.log(node):  # noqa: ASYNC110 - a log sets no event
            await anyio.sleep(0.01)


async def test_nodes_with_the_same_secret_are_a_cluster_and_one_with_another_or_none_is_left_out(
    brokers: Brokers,
) -> None:
    await brokers.start(*NODES)
    async with plait.connect(brokers.addresses) as client:
        queue = await client.queue("orders")
        await queue.publish(b"one")
        for number, (secret, sentence) in enumerate(
            [(OTHER, "your cluster secret is another one than mine"), ("", "and you showed none")], 2
        ):
            brokers.kill(3)
            brokers.secrets[3] = secret
            outsider = brokers.spawn(3)
            await said(brokers, 3, sentence)
            await queue.publish(b"%d" % number)  # the others do without it
            assert outsider.poll() is None
            outsider.kill()
            outsider.wait()
            brokers.secrets[3] = SECRET
            await brokers.start(3)
        assert (await queue.backlog()).records == 3
    for node in NODES:
        assert "horse" not in brokers.log(node)
