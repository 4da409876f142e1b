"""All that one node keeps on its disk: one write-ahead log for all groups, segments, snapshots.

    GroupLog ── append ──> Wal ──(file full)──> Flusher ──> segments/, snapshots/ <── Janitor, Scrubber
       └──────── read ──── memory, SegmentFiles

`open` recovers, `run` works until `close`. A data directory belongs to one process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from replication.environment import Environment
from replication.storage import snapshots
from replication.storage.damage import StorageFailed, StorageLocked
from replication.storage.evidence import Evidence
from replication.storage.flush import Flusher
from replication.storage.format import CREATE, DELETE, encode_note
from replication.storage.install import Installs
from replication.storage.janitor import Janitor, Scrubber
from replication.storage.life import begin_life
from replication.storage.log import GroupLog
from replication.storage.rebuilding import LogBuilder
from replication.storage.recovery import Found, finish_disk, read_disk
from replication.storage.restoring import still_damaged
from replication.storage.segment_files import SegmentFiles
from replication.storage.settings import StorageSettings
from replication.storage.snapshots import SnapshotFiles
from replication.storage.space import Pressure, Space
from replication.storage.wal import Append, Done, Wal

__all__ = ["Pressure", "StorageFailed", "StorageLocked", "StorageSettings", "StorageStatistics", "Store"]

_logger = structlog.get_logger("plait.storage")

LOCK = "lock"
RECOVERED_REST_MS = 2_000
"""Time that groups have to attach before recovered log files are flushed, if there are many."""


@dataclass(frozen=True, slots=True)
class StorageStatistics:
    """Figures of a node's storage."""

    groups: int
    damaged_groups: int
    memory_bytes: int
    """Payloads of entries that are not flushed yet."""
    memory_entries: int
    wal_files_waiting: int
    wal_bytes_written: int
    wal_syncs: int
    flushes: int
    segment_files: int
    segment_bytes: int
    segment_files_removed: int
    segment_files_rewritten: int
    snapshot_files: int


@dataclass(frozen=True, slots=True)
class StorageFigures:
    """What can be told at once, however many groups there are."""

    free_bytes: int
    wal_syncs: int
    wal_bytes: int
    wal_sync_ns: int
    wal_sync_under_way_ns: int
    """How long the write that is under way takes already; 0: none is."""
    wal_slow_syncs: int
    wal_files_waiting: int
    flushes: int
    segment_files: int
    snapshot_files: int


class Store:
    """The storage of one node. Make it with `open`."""

    def __init__(self, environment: Environment, settings: StorageSettings) -> None:
        self._environment = environment
        self._settings = settings
        self._segment_files = SegmentFiles(environment)
        self._snapshot_files = SnapshotFiles(environment)
        self._evidence = Evidence(self._snapshot_files)
        self._logs: dict[int, GroupLog] = {}
        self._running = self._closed = False
        self._stopped = trio.Event()
        self._dying: dict[int, GroupLog] = {}  # deleted, but not durably: a crash may bring them back
        self._deleted: dict[int, None] = {}
        self._touched: dict[int, dict[int, GroupLog]] = {}
        self._recovered: dict[int, None] = {}
        self.life = 0
        """How many times this directory was opened, this time included; it only ever rises. 1: it was new."""
        self.empty_at_open = False
        """Nothing was in the directory, and nothing is known to be missing: no promise was ever made from it."""
        self.forgot = False
        """Records were lost of which nobody knows whose they were: whole groups may be missing."""

    @classmethod
    async def open(cls, environment: Environment, settings: StorageSettings | None = None) -> Store:
        """Recover what is in the data directory. Appends are taken at once, and written when `run` runs.

        Raises StorageLocked if another process has it open, StorageFailed if the disk cannot be read or written.
        """
        store = cls(environment, settings or StorageSettings())
        offload = environment.tasks.offload
        try:
            await offload("wal", partial(environment.disk.lock, LOCK))
        except BlockingIOError:
            raise StorageLocked("another process has this data directory open; nothing was read")
        try:
            found = await offload("wal", store._read_disk)
            store._build(found)
            await store._wal.start(found.first_block(), found.echo)
            await offload("wal", partial(store._finish, found))
        except OSError as error:
            environment.disk.unlock(LOCK)
            raise StorageFailed(f"the data directory cannot be opened: {error}") from error
        store._report(found)
        return store

    def _read_disk(self) -> Found:
        self._space = Space(self._environment.disk, self._settings)
        self._space.look()
        return read_disk(self._environment.disk, self._snapshot_files, self._segment_files)

    def _build(self, found: Found) -> None:
        environment, settings = self._environment, self._settings
        self._wal = Wal(environment, settings, found.continues, self._on_full, self._space.free)
        self._installs = Installs(environment, settings, self._segment_files, self._wal)
        self._flusher = Flusher(
            environment,
            settings,
            self._wal,
            self._segment_files,
            self._snapshot_files,
            self._installs,
            self._touched,
            self._space.free,
        )
        self._janitor = Janitor(environment, settings, self._segment_files, self._with_data, self._wal.fail)
        self._scrubber = Scrubber(environment, settings, self._segment_files, self._logs)

    def _finish(self, found: Found) -> None:
        finish_disk(self._environment.disk, found)
        builder = LogBuilder(found, self._snapshot_files, self._segment_files, self._new_log)
        builder.build()
        for log in builder.logs.values():  # the disk may have refused a read once, and not now
            files = self._segment_files, self._snapshot_files
            log.damages = [damage for damage in log.damages if still_damaged(log, damage, *files)]
        self._logs.update(builder.logs)
        self._deleted.update(builder.deleted)
        self._touched.update(builder.touched)
        self._flusher.full = [file.number for file in found.files]
        self._flusher.damaged = {file.number: None for file in found.files if file.damaged}
        self._recovered = dict.fromkeys(self._flusher.full)
        self.forgot = builder.forgot
        unreadable = {number: snapshots.file_name(number) for number in self._snapshot_files.unreadable}
        lost_segments = [damage.file for _, damage in found.lost_segments]
        self._evidence.found(lost_segments, unreadable, builder.logs.values())
        nothing = not (builder.logs or builder.deleted or builder.forgot or self._segment_files.files)
        self.life, known = begin_life(self._environment.disk, self._wal.number)
        self.empty_at_open = nothing and known < self._wal.number

    def _report(self, found: Found) -> None:
        """Tell people what was found."""
        if found.torn_file is not None:
            _logger.warning("a torn write at the end of the log was cut off", file=found.torn_file)
        for log in self._logs.values():
            if log.damage is not None:
                _logger.error("storage is damaged", group=log.group, damage=str(log.damage))

    # ---- groups

    def groups(self) -> Sequence[int]:
        """The ids of all groups, also of damaged ones."""
        return list(self._logs)

    def has(self, group: int) -> bool:
        """Whether there is a group of that id."""
        return group in self._logs

    def log(self, group: int) -> GroupLog:
        """A group's log. Raises KeyError if there is none."""
        return self._logs[group]

    def create(self, group: int) -> GroupLog:
        """A new group; its id must never have been used. It exists durably as soon as an append to it does."""
        assert group not in self._logs, "a group's id is given once"
        assert group not in self._deleted, "the id of a deleted group is never used again"
        log = self._logs[group] = self._new_log(group)
        self._wal.append(Append(log, [encode_note(CREATE, group)], 1))
        return log

    def delete(self, group: int, done: Done) -> None:
        """Forget a group and all its data. `done` is called when that is durable, or with the error.

        Raises KeyError if there is none.
        """
        log = self._dying[group] = self._logs.pop(group)
        log.deleted = True
        self._deleted[group] = None
        self._installs.forget(log)

        def deleted(error: Exception | None) -> None:
            if error is None:
                del self._dying[group]
                self._segment_files.changed = True
            done(error)

        self._wal.append(Append(log, [encode_note(DELETE, group)], 1, done=deleted, deletes=True))

    # ---- how it is doing

    @property
    def pressure(self) -> Pressure:
        """What the disk can take: "busy" when flushing falls behind, "low" and "critical" when space runs out.

        Appends always work; whoever admits new work looks here first.
        """
        if self._wal.no_room or self._flusher.out_of_space:
            return "critical"
        if self._space.pressure != "none":
            return self._space.pressure
        waiting = sum(number not in self._recovered for number in self._flusher.full)
        return "busy" if waiting > self._settings.wal_files_waiting_max else "none"

    @property
    def failure(self) -> str:
        """Why nothing is written any more; "" while all is well, and behind an orderly end."""
        return str(self._wal.failed) if self._wal.failed is not None and not self._wal.closed else ""

    def figures(self, now_ns: int) -> StorageFigures:
        """Figures for metrics."""
        wal = self._wal
        return StorageFigures(
            free_bytes=self._space.free_bytes,
            wal_syncs=wal.blocks_written,
            wal_bytes=wal.bytes_written,
            wal_sync_ns=wal.sync_ns,
            wal_sync_under_way_ns=now_ns - wal.sync_began_ns if wal.sync_began_ns else 0,
            wal_slow_syncs=wal.slow_syncs,
            wal_files_waiting=len(self._flusher.full),
            flushes=self._flusher.flushes,
            segment_files=len(self._segment_files.files),
            snapshot_files=len(self._snapshot_files.files),
        )

    def statistics(self) -> StorageStatistics:
        """Figures for people. Takes time in proportion to the number of groups."""
        logs = self._logs.values()
        return StorageStatistics(
            groups=len(self._logs),
            damaged_groups=sum(log.damage is not None for log in logs),
            memory_bytes=sum(log.tail.size_bytes for log in logs),
            memory_entries=sum(log.tail.entries for log in logs),
            wal_files_waiting=len(self._flusher.full),
            wal_bytes_written=self._wal.bytes_written,
            wal_syncs=self._wal.blocks_written,
            flushes=self._flusher.flushes,
            segment_files=len(self._segment_files.files),
            segment_bytes=sum(file.size_bytes for file in self._segment_files.files.values()),
            segment_files_removed=self._janitor.removed,
            segment_files_rewritten=self._janitor.rewritten,
            snapshot_files=len(self._snapshot_files.files),
        )

    # ---- work

    async def run(self) -> None:
        """Write, flush and tidy until closed. Raises StorageFailed when the disk fails; then the node must end."""
        if self._closed:
            return
        self._running = True
        try:
            async with trio.open_nursery() as nursery:
                for work in (self._wal.keep_spare, self._flusher.run, self._tidy, self._scrubber.run):
                    nursery.start_soon(self._guarded, work)
                await self._wal.run()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            failed, others = group.split(StorageFailed)
            if others is not None:
                raise
            assert failed is not None, "a group that is split has something on one side"
            error = _first(failed)
            raise error from error.__cause__
        finally:
            self._stopped.set()

    async def close(self) -> None:
        """Write what waits and a last seal, then let go of the directory, when `run` has returned."""
        self._closed = True
        await self._wal.close()
        if self._running:
            await self._stopped.wait()
        await self._segment_files.close()
        await self._environment.tasks.offload("wal", partial(self._environment.disk.unlock, LOCK))

    async def flush(self) -> None:
        """Flush all full log files, and return when none is left (for tests and tools)."""
        self._flusher.now()
        await self._flusher.rested.wait()

    async def tidy(self) -> None:
        """One round of the janitor, now. Raises StorageFailed."""
        await self._janitor.tidy()

    async def scrub(self, group: int) -> None:
        """Read now all that a group has in segments; what has rotted is noted as its damage."""
        await self._scrubber.scrub(group)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except StorageFailed:
            if self._wal.closed:
                return  # a flush met the end of the log; the next process does it again
            if self._wal.failed is None:
                raise
            raise self._wal.failed

    async def _tidy(self) -> None:
        clock = self._environment.clock
        if self._many_recovered():
            await clock.sleep_until(clock.monotonic_ns() + RECOVERED_REST_MS * 1_000_000)
            self._flusher.now()
        while True:
            await clock.sleep_until(clock.monotonic_ns() + self._settings.janitor_interval_ms * 1_000_000)
            try:
                await self._environment.tasks.offload("wal-files", self._space.look)
            except OSError as error:
                raise self._wal.fail(error)
            await self._janitor.tidy()
            await self._set_aside()

    async def _set_aside(self) -> None:
        """Rename unreadable files that nobody needs any more."""
        logs = {log.group: log for log in self._with_data()}
        settled = self._evidence.settled(logs) if self._evidence.files else []
        if settled:
            work = partial(self._evidence.set_aside, self._environment.disk, settled)
            try:
                await self._environment.tasks.offload("wal-files", work)
            except OSError as error:
                raise self._wal.fail(error)
            self._evidence.forget(settled)

    def _many_recovered(self) -> bool:
        entries = sum(log.tail.entries for log in self._logs.values())
        return (
            len(self._recovered) > self._settings.wal_files_waiting_max
            or entries > self._settings.wal_file_entries
        )

    def _with_data(self) -> list[GroupLog]:
        """The logs whose files must stay."""
        return [*self._logs.values(), *self._dying.values()]

    def _new_log(self, group: int) -> GroupLog:
        return GroupLog(
            group,
            self._wal,
            self._segment_files,
            self._snapshot_files,
            self._installs,
            self._environment.clock,
            self._touch,
        )

    def _touch(self, number: int, log: GroupLog) -> None:
        self._touched.setdefault(number, {})[log.group] = log

    def _on_full(self, number: int) -> None:
        self._flusher.add(number)


def _first(group: BaseExceptionGroup[StorageFailed]) -> StorageFailed:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, StorageFailed), "the group was split by that class"
    return found
