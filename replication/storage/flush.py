"""From the write-ahead log to segments and snapshots: what is still needed of full log files moves on.

    capture (loop) ─> barrier ─> segment files ─> snapshot file N ─> memory released ─> log files up to N unlinked
                                 synced, renamed   the moment that counts

Cut short anywhere before snapshot file N is durable, nothing happened: the log files are there still, and recovery
removes the segments. What was consumed by now is never written a second time.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import structlog
import trio

from replication.environment import Environment
from replication.machine import Checkpoint, Entry, Range
from replication.storage import segments
from replication.storage.damage import Damage
from replication.storage.install import Install, Installs
from replication.storage.log import SLICE_NS, GroupLog
from replication.storage.new_segment import NewSegment
from replication.storage.ranges import touches
from replication.storage.recovery import set_aside
from replication.storage.segment_files import SegmentFiles
from replication.storage.segments import Part
from replication.storage.settings import StorageSettings
from replication.storage.snapshots import Cut, SnapshotFiles, SnapshotRow
from replication.storage.wal import FOLDER as WAL_FOLDER
from replication.storage.wal import Wal

_logger = structlog.get_logger("plait.storage")

PIECE_BYTES = 1 << 20
"""As below, in bytes."""
PIECE_ENTRIES = 1024
"""What one call in the thread encodes: short, because it holds the interpreter's lock most of the time."""
RETRY_MS = 1_000
"""Wait after the disk had no room for a flush."""
LANE = "flush"


@dataclass(slots=True)
class Captured:
    """What one group contributes to a flush, as of one moment."""

    log: GroupLog
    row: SnapshotRow
    state: bytes | None
    """None: the state that the row before has is still the one that counts."""
    entries: list[Entry]
    keep_above: int
    live: Sequence[Range] | None
    install: Install | None = None
    """The snapshot from elsewhere that the row is of."""
    rotten: Damage | None = None
    """Set when the state of the row before turned out to be."""
    parts: list[Part] = field(default_factory=list)


def needed(entry: Entry, keep_above: int, live: Sequence[Range] | None) -> bool:
    """True for entries behind the snapshot, and for those of which a mark is live (None: all are)."""
    if entry.index > keep_above:
        return True
    return entry.span > 0 and (live is None or touches(live, entry.mark, entry.mark + entry.span - 1))


class Flusher:
    """Flushes full write-ahead log files, one flush at a time."""

    def __init__(
        self,
        environment: Environment,
        settings: StorageSettings,
        wal: Wal,
        segment_files: SegmentFiles,
        snapshot_files: SnapshotFiles,
        installs: Installs,
        touched: dict[int, dict[int, GroupLog]],
        free_space: Callable[[], bool],
    ) -> None:
        self._environment = environment
        self._settings = settings
        self._wal = wal
        self._segment_files = segment_files
        self._snapshot_files = snapshot_files
        self._installs = installs
        self._touched = touched
        self._free_space = free_space
        self._work = trio.Event()
        self.rested = trio.Event()
        """Set when nothing waits."""
        self.rested.set()
        self.full: list[int] = []
        """Log files that wait, oldest first."""
        self.damaged: dict[int, None] = {}
        """Those of them that are kept under another name, because something in them is damaged."""
        self.flushes = 0
        self.out_of_space = False

    def add(self, number: int) -> None:
        """A log file is full."""
        self.full.append(number)
        self.now()

    def now(self) -> None:
        """Flush what waits without waiting for more."""
        if self.full:
            if self.rested.is_set():
                self.rested = trio.Event()
            self._work.set()

    async def run(self) -> None:
        """Flush what is added until cancelled. Raises StorageFailed."""
        try:
            await self._run()
        finally:
            self._installs.end()

    async def _run(self) -> None:
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self.full:
                try:
                    await self.flush()
                    self.out_of_space = False
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise self._wal.fail(error)
                    await self._wait_for_space()
            self.rested.set()

    async def flush(self) -> None:
        """Flush everything that waits. Raises OSError; then nothing has changed."""
        through = self.full[-1]
        captured = await self._capture(through)
        await self._wal.barrier()
        written: list[int] = []
        try:
            await self._write_segments(captured, through, written)
            rows, old = await self._write_snapshots(captured, through)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                await self._environment.tasks.offload(LANE, partial(self._remove_segments, written))
                self._installs.flush_failed()
            raise
        await self._install(captured, rows, old, through)
        await self._remove(through)
        self.flushes += 1
        self._installs.flushed(through)

    # ---- what is to be written

    async def _capture(self, through: int) -> list[Captured]:
        """Of every group with something in the files, all at one moment; others have turns between groups."""
        logs: dict[int, GroupLog] = {}
        for number, touched in self._touched.items():
            if number <= through:
                logs.update(touched)
        captured: list[Captured] = []
        clock = self._environment.clock
        since_ns = clock.monotonic_ns()
        for log in logs.values():
            captured.append(self._capture_log(log, through))
            if clock.monotonic_ns() - since_ns > SLICE_NS:
                await trio.lowlevel.checkpoint()
                since_ns = clock.monotonic_ns()
        return captured

    def _capture_log(self, log: GroupLog, through: int) -> Captured:
        if log.deleted:
            return Captured(log, SnapshotRow(log.group, log.hard_state, deleted=True), b"", [], 0, ())
        if log.install is not None and log.install.due(through):
            install = log.install
            entries = install.captured(through)
            live = install.live
            row = install.row(through)
            return Captured(log, row, install.state, entries, install.index, live, install)
        checkpoint = _checkpoint(log)
        if checkpoint is not None and checkpoint.index <= log.snapshot_index:
            checkpoint = None
        old = log.snapshot_row
        entries = log.tail.captured(through)
        last_index, last_term = log.last_before(through)
        row = SnapshotRow(
            log.group,
            log.hard_state,
            has_state=checkpoint is not None or (old is not None and old.has_state),
            index=checkpoint.index if checkpoint is not None else log.snapshot_index,
            term=checkpoint.term if checkpoint is not None else log.snapshot_term,
            last_mark=log.last_mark,
            last_index=last_index,
            last_term=last_term,
            cuts=tuple(log.cuts),
            damages=tuple(log.damages),
            repaired=log.repaired,
        )
        state = checkpoint.state if checkpoint is not None else None
        if old is None and state is None:
            state = b""
        live = _live(log, checkpoint)
        return Captured(log, row, state, entries, row.index, live)

    # ---- segments

    async def _write_segments(self, captured: list[Captured], through: int, written: list[int]) -> None:
        own = self._settings.segment_own_bytes
        shared: list[Captured] = []
        for item in captured:
            if item.install is not None:
                await self._write_staged(item, item.install, through, written)
            if sum(len(entry.payload) for entry in item.entries) >= own:
                await self._write_file([item], through, written)
            else:
                shared.append(item)
        await self._write_file(shared, through, written)

    async def _write_file(self, items: list[Captured], through: int, written: list[int]) -> None:
        """One segment file; none if nothing in it is needed."""
        new = NewSegment(self._environment, self._settings, self._segment_files, LANE)
        try:
            for piece in _pieces(items):
                await self._environment.tasks.offload(LANE, partial(_write_piece, new, piece, through))
            number = await new.commit(written)
        except OSError:
            await new.abandon()
            raise
        by_group = {item.log.group: item for item in items}
        for part in new.parts:
            by_group[part.group].parts.append(part)
        self._add_file(number, new)

    async def _write_staged(self, item: Captured, install: Install, through: int, written: list[int]) -> None:
        """The files that a snapshot from elsewhere brought count with this flush."""
        for new in install.files:
            self._add_file(await new.commit(written, through), new)
            item.parts += new.parts

    def _add_file(self, number: int | None, new: NewSegment) -> None:
        if number is not None:
            self._segment_files.fresh[number] = None
            self._segment_files.add(number, new.salt, new.parts)

    def _remove_segments(self, numbers: list[int]) -> None:
        for number in numbers:
            self._segment_files.files.pop(number, None)
            self._segment_files.fresh.pop(number, None)
            self._environment.disk.unlink(segments.file_name(number))
        self._environment.disk.sync_folder(segments.FOLDER)

    # ---- snapshots

    async def _write_snapshots(
        self, captured: list[Captured], through: int
    ) -> tuple[list[SnapshotRow], list[int]]:
        """Snapshot file `through`; its rows, and the older files that are not needed any more."""
        carried, old = self._snapshot_files.carried()
        groups = {item.log.group for item in captured}
        carried = [row for row in carried if row.group not in groups and not self._forgettable(row)]
        salt = self._environment.random.getrandbits(64)
        return await self._environment.tasks.offload(
            LANE, partial(self._write_snapshot_file, captured, carried, old, through, salt)
        )

    def _write_snapshot_file(
        self, captured: list[Captured], carried: list[SnapshotRow], old: list[int], through: int, salt: int
    ) -> tuple[list[SnapshotRow], list[int]]:
        files = self._snapshot_files
        rows: list[tuple[SnapshotRow, bytes]] = []
        for item in captured:
            state = item.state
            if state is None:
                assert item.log.snapshot_row is not None, "only a group with a snapshot can keep it"
                state = files.read_state(item.log.snapshot_row)
                if state is None:
                    item.rotten = item.log.rotten_snapshot()
                    item.row.damages += (item.rotten,)
                    old = [number for number in old if number != item.log.snapshot_row.number]
                    state = b""
            rows.append((item.row, state))
        for row in carried:
            state = files.read_state(row)
            if state is not None:
                rows.append((row, state))
            else:
                old = [number for number in old if number != row.number]
        return files.write(through, salt, rows), old

    def _forgettable(self, row: SnapshotRow) -> bool:
        """A deleted group of which no file has anything any more."""
        return (
            row.deleted
            and not self._snapshot_files.has_other(row)
            and next(self._segment_files.parts_of(row.group), None) is None
        )

    # ---- afterwards

    async def _install(
        self, captured: list[Captured], written: list[SnapshotRow], old: list[int], through: int
    ) -> None:
        self._snapshot_files.added(through, written)
        by_group = {row.group: row for row in written}
        clock = self._environment.clock
        since_ns = clock.monotonic_ns()
        for item in captured:
            log = item.log
            log.install_snapshot(by_group[log.group])
            if item.install is not None:
                item.install.take_effect(item.row, item.parts)
            else:
                log.install_parts(item.parts)  # also where the log was deleted since: a crash may undo that
                if item.rotten is not None:
                    log.damaged(item.rotten)
            if item.live is not None or item.install is not None:
                log.live = item.live
            log.cuts = [cut for cut in log.cuts if self._hides(log, cut, through)]
            log.tail.release(through)
            if item.install is not None:
                item.install.taken_effect()
            if clock.monotonic_ns() - since_ns > SLICE_NS:
                await trio.lowlevel.checkpoint()
                since_ns = clock.monotonic_ns()
        self._segment_files.fresh.clear()
        for number in [number for number in self._touched if number <= through]:
            del self._touched[number]
        await self._environment.tasks.offload(LANE, partial(self._snapshot_files.unlink, old))
        self._snapshot_files.forgotten(old)

    def _hides(self, log: GroupLog, cut: Cut, through: int) -> bool:
        """True while there is a segment in which the cut hides something."""
        if cut.through >= through:
            return True
        return any(
            part.origin <= cut.through and part.last_index > cut.index and part.first_index <= cut.last
            for part in self._segment_files.parts_of(log.group)
        )

    async def _remove(self, through: int) -> None:
        """The log files are not needed any more."""
        gone = [number for number in self.full if number <= through]
        await self._environment.tasks.offload("wal-files", partial(self._unlink, gone))
        self.full = [number for number in self.full if number > through]

    def _unlink(self, numbers: list[int]) -> None:
        disk = self._environment.disk
        for number in numbers:
            set_aside(disk, number, keep=number in self.damaged)
        disk.sync_folder(WAL_FOLDER)

    async def _wait_for_space(self) -> None:
        self.out_of_space = True
        if await self._environment.tasks.offload(LANE, self._free_space):
            return
        clock = self._environment.clock
        await clock.sleep_until(clock.monotonic_ns() + RETRY_MS * 1_000_000)


Piece = list[tuple[Captured, int, int]]
"""Stretches of captured entries that one call writes."""


def _pieces(items: list[Captured]) -> Iterator[Piece]:
    """All entries, in pieces of PIECE_BYTES or PIECE_ENTRIES."""
    piece: Piece = []
    entries = size_bytes = 0
    for item in items:
        start = 0
        for at, entry in enumerate(item.entries):
            entries += 1
            size_bytes += len(entry.payload)
            if entries >= PIECE_ENTRIES or size_bytes >= PIECE_BYTES:
                piece.append((item, start, at + 1))
                yield piece
                piece, start = [], at + 1
                entries = size_bytes = 0
        if start < len(item.entries):
            piece.append((item, start, len(item.entries)))
    if piece:
        yield piece


def _write_piece(new: NewSegment, piece: Piece, origin: int) -> None:
    for item, start, end in piece:
        kept = [entry for entry in item.entries[start:end] if needed(entry, item.keep_above, item.live)]
        if item.install is None:
            new.add(item.log.group, origin, kept)
            continue
        for number, run in groupby(kept, key=item.install.piece_of):
            new.add(item.log.group, origin, list(run), number)


def _checkpoint(log: GroupLog) -> Checkpoint | None:
    if log.source is None or log.held:
        return None
    try:
        return log.source.checkpoint()
    except Exception as error:  # one group's defect must not stop the node: without a checkpoint all of it is kept
        _logger.error("a group cannot be checkpointed", group=log.group, exc_info=error)
        return None


def _live(log: GroupLog, checkpoint: Checkpoint | None) -> Sequence[Range] | None:
    return checkpoint.live if checkpoint is not None else log.live
