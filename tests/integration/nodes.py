"""A real node in the test's own loop: its disk in a temporary folder, its clock the machine's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from node.attachments import Attachment
from node.broker import Broker, ConsumerOptions
from node.consumers import LeasedRun
from node.node import Node, NodeSettings
from plait.wire.batch import BatchBuilder, encode_batch, iterate_run
from plait.wire.errors import PlaitError
from replication.real import real_environment
from replication.storage.store import LOCK


@asynccontextmanager
async def running_node(folder: Path, settings: NodeSettings | None = None) -> AsyncIterator[Node]:
    """A node that is closed in an orderly way at the end."""
    async with trio.open_nursery() as nursery:
        node = await Node.open(real_environment(str(folder), nursery), settings)
        yield node
        await node.close()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def crashing_node(folder: Path, settings: NodeSettings | None = None) -> AsyncIterator[Node]:
    """A node that ends in the middle of what it does, and leaves its lock as a dead process does."""
    async with trio.open_nursery() as nursery:
        environment = real_environment(str(folder), nursery)
        yield await Node.open(environment, settings)
        nursery.cancel_scope.cancel()
    environment.disk.unlock(LOCK)


def batch_of(*values: bytes, compression: str = "none") -> bytes:
    """A batch without a producer."""
    return encode_batch(values, 1_000, compression=compression)


def idempotent(producer: tuple[int, int], sequence: int, *values: bytes) -> bytes:
    """A batch of an idempotent producer."""
    builder = BatchBuilder(producer_id=producer[0], producer_epoch=producer[1], base_sequence=sequence)
    for value in values:
        builder.append(value, timestamp_ms=1_000)
    return builder.build()


class Inbox:
    """A consumer that collects what it is given."""

    def __init__(self) -> None:
        self.items: list[tuple[int, int, int, int, bytes]] = []  # partition, lease id, offset, deliveries, value
        self.error: PlaitError | None = None
        self._arrived = trio.Event()

    def deliver(self, partition: int, runs: list[LeasedRun]) -> None:
        for leased in runs:
            for record in iterate_run(leased.run):
                assert record.value is not None
                self.items.append(
                    (partition, leased.lease_id, record.offset, leased.deliveries, bytes(record.value))
                )
        self._arrived.set()

    def gone(self, error: PlaitError) -> None:
        self.error = error
        self._arrived.set()

    async def wait_for(self, count: int) -> None:
        """Until that many records have come (or the consumer was told to go)."""
        with trio.fail_after(10):
            while len(self.items) < count and self.error is None:
                self._arrived = trio.Event()
                await self._arrived.wait()

    @property
    def values(self) -> list[bytes]:
        return [item[4] for item in self.items]


async def consume(broker: Broker, name: str, prefetch: int = 100, lease_ms: int = 0) -> tuple[Inbox, Attachment]:
    """A consumer of a queue."""
    inbox = Inbox()
    options = ConsumerOptions(prefetch, lease_ms, "test")
    attachment = await broker.attach(name, "", options, inbox.deliver, inbox.gone).wait()
    return inbox, attachment
