"""The SDK through the death of its broker: what was promised holds, and work goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

import plait
from tests.integration.clusters import free_port

ROOT = Path(__file__).resolve().parents[2]
READY_LIMIT_S = 20.0
"""A broker that is not ready by then does not start."""


class Broker:
    """A broker process that can be killed and started again on the same address and data."""

    def __init__(self, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        self._ready = folder / "ready.json"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        process = self._process = self._spawn()
        with anyio.fail_after(READY_LIMIT_S):
            while not self._ready.exists():
                assert process.poll() is None, (self._folder / "log").read_text()
                await anyio.sleep(0.005)
        assert json.loads(self._ready.read_text())["native"] == self.address

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._ready.unlink(missing_ok=True)
        options = [
            "--native",
            self.address,
            "--data",
            str(self._folder / "data"),
            "--ready-file",
            str(self._ready),
        ]
        return subprocess.Popen(
            [sys.executable, "-m", "plait", "serve", *options],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=(self._folder / "log").open("ab"),
        )

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    yield broker
    broker.kill()


async def test_a_producer_goes_on_and_nothing_is_lost_or_doubled(broker: Broker) -> None:
    await broker.start()
    values = [b"%d" % number for number in range(20_000)]
    async with plait.connect(broker.address) as client, anyio.create_task_group() as tasks:
        topic = await client.topic("events")
        sent = anyio.Event()

        async def produce() -> None:
            async with topic.producer(batch_bytes=2_000, linger_ms=1) as producer:
                for number, value in enumerate(values):
                    await producer.send(value)
                    if number % 5000 == 2500:
                        sent.set()
                        await anyio.sleep(0.05)

        tasks.start_soon(produce)
        await sent.wait()
        for _ in range(2):
            broker.kill()
            await broker.start()
    async with plait.connect(broker.address) as client:
        topic = await client.topic("events")
        assert [message.value async for message in topic.read(to_end=True)] == values


async def test_consumers_and_subscriptions_go_on(broker: Broker) -> None:
    await broker.start()
    async with plait.connect(broker.address) as client:
        topic, queue = await client.topic("events"), await client.queue("orders")
        await topic.publish_many([b"1", b"2"])
        await queue.publish_many([b"1", b"2"])
        async with topic.subscribe("billing") as subscription, queue.consume(prefetch=1) as consumer:
            assert (await anext(subscription)).value == b"1"
            first = await anext(consumer)
            await first.ack()
            broker.kill()
            await broker.start()
            assert (await anext(subscription)).value == b"2"
            await topic.publish(b"3")
            assert (await anext(subscription)).value == b"3"
            second = await anext(consumer)
            assert second.value == b"2"
            await second.ack()
        assert (await queue.backlog()).records == 0
