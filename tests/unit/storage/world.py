"""A store on a simulated disk, for tests that say what happens to the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random

import trio

from replication.machine import Checkpoint, Entry, Range
from replication.storage.format import HardState
from replication.storage.log import GroupLog
from replication.storage.settings import StorageSettings
from replication.storage.store import Store
from tests.sim.disk import SimDisk
from tests.sim.environment import sim_environment

TINY = StorageSettings(
    wal_file_bytes=65_536,
    segment_own_bytes=16_384,
    segment_index_bytes=2_048,
    ballast_bytes=8_192,
    low_space_bytes=0,
    critical_space_bytes=0,
    scrub_bytes_per_s=0,
)


def new_disk() -> SimDisk:
    return SimDisk(Random(1))


@asynccontextmanager
async def opened(disk: SimDisk, settings: StorageSettings = TINY, *, run: bool = True) -> AsyncIterator[Store]:
    """A recovered store that works; at the end its process is killed, unless it was closed."""
    async with trio.open_nursery() as nursery:
        environment = sim_environment(nursery, 1, disk).environment
        store = await Store.open(environment, settings)
        if run:
            nursery.start_soon(store.run)
        yield store
        nursery.cancel_scope.cancel()


def killed(disk: SimDisk) -> SimDisk:
    """The disk as the next process finds it, everything that was written included."""
    return disk.copy(Random(0))


class Source:
    """A state machine that has applied everything up to an index."""

    def __init__(self) -> None:
        self.index = 0
        self.live: Sequence[Range] = ()
        self.state = b"state"

    def checkpoint(self) -> Checkpoint | None:
        return Checkpoint(self.index, 1, self.state, self.live) if self.index else None


def batch(index: int, size_bytes: int = 100, *, term: int = 1) -> Entry:
    """Entry `index` covers the ten marks from 10 * index on."""
    payload = b"%d/%d|" % (index, term) * size_bytes
    return Entry(index, term, 1, 10 * index, 10, payload[:size_bytes])


def batches(first: int, last: int, size_bytes: int = 100, *, term: int = 1) -> list[Entry]:
    return [batch(index, size_bytes, term=term) for index in range(first, last + 1)]


async def append(log: GroupLog, entries: Sequence[Entry], hard_state: HardState | None = None) -> None:
    """Append and wait until it is synced."""
    answers: list[Exception | None] = []
    synced = trio.Event()

    def done(error: Exception | None) -> None:
        answers.append(error)
        synced.set()

    log.append(entries, hard_state, done)
    await synced.wait()
    if answers[0] is not None:
        raise answers[0]


async def truncate(log: GroupLog, index: int) -> None:
    synced = trio.Event()
    log.truncate_after(index, lambda _: synced.set())
    await synced.wait()


async def delete(store: Store, group: int) -> None:
    synced = trio.Event()
    store.delete(group, lambda _: synced.set())
    await synced.wait()


async def fill_file(store: Store, log: GroupLog) -> None:
    """Append entries until the log file is full and a new one is begun."""
    before = store.statistics().flushes
    full = 0
    while not full and store.statistics().flushes == before:
        await append(log, batches(log.last_index + 1, log.last_index + 4, 1_000))
        full = store.statistics().wal_files_waiting
    await store.flush()


def plain(entries: Sequence[Entry] | None) -> list[tuple[int, int, int, int, int, bytes]]:
    """Entries as values that compare."""
    assert entries is not None
    return [(e.index, e.term, e.kind, e.mark, e.span, bytes(e.payload)) for e in entries]


async def replayed(log: GroupLog, after_index: int = 0) -> list[tuple[int, int, int, int, int, bytes]]:
    found: list[Entry] = []
    await log.replay(after_index, found.extend)
    return plain(found)


def kind(log: GroupLog) -> str:
    """What the log says of its damage."""
    return log.damage_kind
