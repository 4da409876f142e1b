"""A snapshot from elsewhere takes the place of a log's beginning, with the entries that it needs.

    begin ─> add, add, ... (staged: segment files without a name that counts)
          ─> commit ─> the write-ahead log's file is closed ─> flush: its snapshot file has the new row
                                                                └─ the one moment at which the install counts

Cut short anywhere before that snapshot file is durable, nothing happened: recovery finds the old log, and removes
what was staged. Behind it the log is the new one. Entries that are here already are not brought again; where they
are damaged, or may be no part of the leader's log, they are hidden in the same moment.
"""

from __future__ import annotations

import errno
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import partial

import trio

from plait.wire.errors import StorageFull
from replication.environment import Environment
from replication.machine import Entry, Range
from replication.storage.damage import INDEX_UNKNOWN, Damage, InstallRefused, StorageFailed
from replication.storage.format import TOUCH, encode_note
from replication.storage.log import GroupLog
from replication.storage.new_segment import NewSegment
from replication.storage.ranges import range_of, touches, within, without
from replication.storage.segment_files import SegmentFiles
from replication.storage.segments import Part
from replication.storage.settings import StorageSettings
from replication.storage.snapshots import Cut, SnapshotRow
from replication.storage.wal import Append, Wal

LANE = "install"
STAGE_FILE_BYTES = 64 << 20
"""Size of a staged segment file from which on the next one is begun: compaction works file by file."""
STAGE_PIECE_BYTES = 1 << 20
"""Payload that one call in the thread writes: it holds the interpreter's lock most of the time."""


class Install:
    """One snapshot on its way into one log. Made by GroupLog.begin_install.

    Calls come one at a time. While `commit` runs nothing may be appended to the log but hard states, and nothing
    truncated.
    """

    def __init__(self, desk: Installs, log: GroupLog, index: int, term: int, agreed_index: int) -> None:
        self.index = index
        self.term = term
        self.files: list[NewSegment] = []
        """What is staged, by rising index."""
        self.state: bytes | None = None
        self.live: Sequence[Range] | None = None
        self.committing = False
        self.staged_bytes = 0
        """Payload that was staged."""
        self.last_staged = 0
        """Index of the last entry that was staged."""
        self.next_mark: int | None = None
        """The mark behind it; None: none was staged."""
        self.broken = False
        """What was staged is unusable: the disk refused something."""
        self.in_flush = False
        """A flush is writing it: only that flush can still refuse it."""
        self._desk = desk
        self._log = log
        self._agreed_index = agreed_index
        self._known = tuple(log.damages)
        self._repaired = [damage.segment for damage in self._known if damage.segment]
        self._limit = self._kept_until()
        self.present = self._present()
        """Indexes whose live entries are here and intact: they need not be brought."""
        self._firsts: list[int] = []  # first index of each staged piece
        self._last_mark = 0
        self._number: int | None = None  # the log file whose flush lets it take effect
        self._ended = trio.Event()
        self._error: Exception | None = None
        self._then: Callable[[], None] = lambda: None

    # ---- what is here

    @property
    def keeps_rest(self) -> bool:
        """The log has the snapshot's last entry itself: what follows it stays."""
        return self._limit == self.index

    def has(self, index: int) -> bool:
        """True if the entry of this index, should it be live, is here already and intact."""
        return index <= self.last_staged or range_of(self.present, index) is not None

    def _kept_until(self) -> int:
        """Up to here the log is the leader's."""
        log = self._log
        if log.damage_kind == "lost":
            return 0
        agreed = min(self._agreed_index, self.index, log.last_index)
        return self.index if log.term_at(self.index) == self.term else agreed

    def _present(self) -> list[Range]:
        found: list[Range] = [(1, self._limit)] if self._limit else []
        for damage in self._known:
            found = without(found, damage.first_index, damage.last_index)
        return found

    # ---- staging

    async def add(self, entries: Sequence[Entry]) -> None:
        """Stage entries by rising index, with gaps; those that are here already are passed over.

        Raises StorageFull, and then only `abandon` is left; StorageFailed; InstallRefused.
        """
        self._check()
        fresh = [entry for entry in entries if not self.has(entry.index)]
        piece: list[Entry] = []
        size_bytes = 0
        for entry in fresh:
            if entry.index > self.index:
                raise InstallRefused(f"entry {entry.index} is behind the snapshot at {self.index}")
            piece.append(entry)
            size_bytes += len(entry.payload)
            if size_bytes >= STAGE_PIECE_BYTES:
                await self._stage(piece, size_bytes)
                piece, size_bytes = [], 0
        if piece:
            await self._stage(piece, size_bytes)

    async def _stage(self, entries: list[Entry], size_bytes: int) -> None:
        full: NewSegment | None = None
        if self.files and self.files[-1].size_bytes >= STAGE_FILE_BYTES:
            full = self.files[-1]
        if not self.files or full is not None:
            self.files.append(self._desk.new_file())
        runs = self._runs(entries, begin=full is not None)
        await self._offload(partial(_write, full, self.files[-1], self._log.group, runs))
        self.last_staged = entries[-1].index
        self.next_mark = max(entry.mark + entry.span for entry in entries)
        self.staged_bytes += size_bytes

    def _runs(self, entries: list[Entry], *, begin: bool) -> list[tuple[int, list[Entry]]]:
        """The entries by piece: one ends where something follows that is here already."""
        runs: list[tuple[int, list[Entry]]] = []
        last = self.last_staged
        for entry in entries:
            if begin or not self._firsts or touches(self.present, last + 1, entry.index - 1):
                self._firsts.append(entry.index)
                begin = False
            number = 2 * len(self._firsts) - 1
            if not runs or runs[-1][0] != number:
                runs.append((number, []))
            runs[-1][1].append(entry)
            last = entry.index
        return runs

    async def _offload(self, work: Callable[[], None]) -> None:
        try:
            with trio.CancelScope(shield=True):  # what was staged is known exactly, or never used
                await self._desk.offload(work)
        except OSError as error:
            self.broken = True
            if error.errno != errno.ENOSPC:
                raise self._desk.fail(error)
            raise StorageFull("the disk has no room for the snapshot that was being fetched; nothing was changed")

    async def abandon(self) -> None:
        """Leave nothing behind. Not while `commit` runs."""
        assert not self.committing, "an install that is being committed cannot be abandoned"
        if self._log.install is self:
            self._log.install = None
        self.broken = True
        files, self.files = self.files, []
        if self._desk.failed is not None:
            return  # the next process clears it away
        try:
            for file in files:
                await file.abandon()
        except OSError as error:
            raise self._desk.fail(error)

    # ---- taking effect

    async def commit(
        self,
        state: bytes,
        live: Sequence[Range] | None,
        last_mark: int,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Let the snapshot, with what was staged, take the place of everything up to its index.

        It has happened, durably, when this returns. `live`: marks still needed (None: nobody knows yet, so all
        are). `last_mark`: the last one that the leader's log covers. `then` is called in the moment in which the
        log becomes the new one, before anybody else can look. It takes a flush; it cannot be cancelled.
        Raises StorageFull, InstallRefused (the group was deleted): the log is what it was and the install is
        abandoned. StorageFailed: the next process knows.
        """
        self._check()
        self.state, self.live, self._last_mark, self._then = state, live, last_mark, then
        with trio.CancelScope(shield=True):
            try:
                await self._offload(partial(_save, self.files[-1:]))
                self._check()
                self.committing = True
                self._desk.submit(self._log, self)
                await self._ended.wait()
                if self._error is not None:
                    raise self._error
            except (StorageFull, StorageFailed, InstallRefused):
                self.committing = False
                await self.abandon()
                raise

    def _check(self) -> None:
        if self._log.deleted:
            raise InstallRefused(f"group {self._log.group} was deleted")
        if self.broken or self._log.install is not self:
            raise InstallRefused("this install was abandoned")
        if self._desk.failed is not None:
            raise self._desk.failed

    def written(self, number: int) -> None:
        """Everything of the log so far is in files up to that number."""
        self._number = number

    def due(self, through: int) -> bool:
        """The flush of files up to `through` lets it take effect. Refused where the log has a later snapshot."""
        if self._ended.is_set() or self._number is None or self._number > through:
            return False
        if self.index < self._log.snapshot_index:
            self._desk.leave(self)
            self.end(InstallRefused(f"the log has a snapshot at {self._log.snapshot_index} by now"))
            return False
        return True

    def end(self, error: Exception | None) -> None:
        """It has taken effect, or never will."""
        self._error = error
        self._ended.set()

    def captured(self, through: int) -> list[Entry]:
        """The log's entries in files up to `through` that stay part of it."""
        entries = self._log.tail.captured(through)
        kept = [*self.present, (self.index + 1, INDEX_UNKNOWN)] if self.keeps_rest else self.present
        found: list[Entry] = []
        for first, last in kept:
            start = bisect_left(entries, first, key=lambda entry: entry.index)
            found += entries[start : bisect_right(entries, last, key=lambda entry: entry.index)]
        return found

    def piece_of(self, entry: Entry) -> int:
        """The piece for one of those entries: pieces do not overlap, and those staged have the odd numbers."""
        return 2 * bisect_right(self._firsts, entry.index)

    def row(self, through: int) -> SnapshotRow:
        """What snapshot file `through` is to say; from here on the flush decides."""
        self.in_flush = True
        log = self._log
        last, mark = (self.index, self.term), self._last_mark
        if self.keeps_rest:
            last, mark = log.last_before(through), max(mark, log.last_mark)
        return SnapshotRow(
            log.group,
            log.hard_state,
            has_state=True,
            index=self.index,
            term=self.term,
            last_mark=mark,
            last_index=last[0],
            last_term=last[1],
            cuts=self._cuts(through - 1),
            damages=self._damages_left(),
            repaired=tuple(sorted({*log.repaired, *self._repaired})),
        )

    def take_effect(self, row: SnapshotRow, parts: Sequence[Part]) -> None:
        """The snapshot file is durable."""
        self._log.replaced(row, self._damages_left(), parts, keeps_rest=self.keeps_rest)

    def taken_effect(self) -> None:
        """The log is the new one in everything."""
        self._desk.leave(self)
        self.end(None)
        self._then()

    def _cuts(self, through: int) -> tuple[Cut, ...]:
        """What of older segments is no part of the log any more."""
        cuts = list(self._log.cuts)
        if not self.keeps_rest:
            cuts = [cut for cut in cuts if cut.through > through or cut.index < self._limit]
            cuts.append(Cut(through, self._limit))
        holes = within(((damage.first_index, damage.last_index) for damage in self._known), 1, self._limit)
        return (*cuts, *(Cut(through, first - 1, last) for first, last in holes))

    def _damages_left(self) -> tuple[Damage, ...]:
        """What stays damaged: behind the snapshot, or found since this began."""
        left: list[Damage] = []
        for damage in self._log.damages:
            if damage not in self._known:
                if self.keeps_rest or damage.first_index <= self._limit:
                    left.append(damage)
            elif self.keeps_rest and damage.last_index > self.index:
                left.append(damage.behind(self.index))
        return tuple(left)

    def continues(self, former: Install) -> bool:
        """What a former attempt has staged is what this one would have by now."""
        if former.broken or former.committing or former.last_staged > self.index:
            return False
        end = former.last_staged
        return within(former.present, 1, end) == within(self.present, 1, end)

    def inherit(self, former: Install) -> None:
        """Go on with what it has staged."""
        self.files, former.files = former.files, []
        self.staged_bytes, self.last_staged, self.next_mark = (
            former.staged_bytes,
            former.last_staged,
            former.next_mark,
        )
        self._firsts = former._firsts
        former.broken = True


class Installs:
    """All installs of a node: what they need of it, and who waits for a flush."""

    def __init__(
        self, environment: Environment, settings: StorageSettings, segment_files: SegmentFiles, wal: Wal
    ) -> None:
        self._environment = environment
        self._settings = settings
        self._segment_files = segment_files
        self._wal = wal
        self._waiting: list[Install] = []
        self._flushes: list[tuple[int, trio.Event]] = []
        self._over = False
        wal.on_no_room = self.no_room

    @property
    def failed(self) -> StorageFailed | None:
        """Set when nothing is written any more."""
        return self._wal.failed

    def begin(self, log: GroupLog, index: int, term: int, agreed_index: int) -> Install:
        """See GroupLog.begin_install."""
        former = log.install
        if former is not None and former.committing:
            raise InstallRefused("another snapshot is being installed")
        if index < log.snapshot_index or (index == log.snapshot_index and log.damage is None):
            raise InstallRefused(f"the log has a snapshot at {log.snapshot_index}, which is not before {index}")
        hidden = log.term_at(index) is None and agreed_index < index < log.last_index
        if hidden and term <= log.last_term and log.damage_kind != "lost":
            raise InstallRefused(f"damage hides whether what follows entry {index} here is the leader's too")
        install = log.install = Install(self, log, index, term, agreed_index)
        if former is not None:
            if install.continues(former):
                install.inherit(former)
            else:
                self._environment.tasks.spawn("install/abandon", former.abandon)
        return install

    def forget(self, log: GroupLog) -> None:
        """The group was deleted."""
        if log.install is not None and not log.install.committing:
            self._environment.tasks.spawn("install/abandon", log.install.abandon)

    async def snapshot_now(self, log: GroupLog) -> None:
        """See GroupLog.snapshot_now."""
        synced = trio.Event()
        self._close_file(log, lambda number: self._flushes.append((number, synced)), synced.set)
        await synced.wait()
        if self._wal.failed is not None:
            raise self._wal.failed
        if self._wal.no_room:
            raise _full()

    def submit(self, log: GroupLog, install: Install) -> None:
        """Have it take effect."""
        self._waiting.append(install)
        self._close_file(log, install.written, lambda: self._refuse(self._wal.failed or _full(), [install]))

    def leave(self, install: Install) -> None:
        """It has taken effect, or never will."""
        self._waiting.remove(install)

    def _close_file(self, log: GroupLog, written: Callable[[int], None], refuse: Callable[[], None]) -> None:
        """Close the file that everything appended to the log so far is in, once it is; its number is told then."""

        def done(error: Exception | None) -> None:
            if error is not None or self._over:
                refuse()
                return
            number = self._wal.number
            written(number)
            self._wal.rotate(number)

        if self._wal.no_room or self._over:
            refuse()
            return
        self._wal.append(Append(log, [encode_note(TOUCH, log.group)], 1, done=done))

    def flushed(self, through: int) -> None:
        """A flush of files up to `through` is done."""
        for install in [install for install in self._waiting if install.due(through)]:
            self.leave(install)
            install.end(InstallRefused("the group was deleted"))
        for number, synced in [item for item in self._flushes if item[0] <= through]:
            self._flushes.remove((number, synced))
            synced.set()

    def no_room(self) -> None:
        """The disk is full: what is staged and in no flush must go."""
        self._refuse(_full(), [install for install in self._waiting if not install.in_flush])

    def flush_failed(self) -> None:
        """The disk is too full for a flush, which has not happened."""
        self._refuse(_full(), self._waiting)

    def end(self) -> None:
        """Nothing is flushed any more."""
        self._over = True
        self._refuse(self._wal.failed or StorageFailed("the store was closed"), self._waiting)

    def _refuse(self, error: Exception, installs: Sequence[Install]) -> None:
        for install in list(installs):
            self.leave(install)
            install.end(error)
        flushes, self._flushes = self._flushes, []
        for _, synced in flushes:
            synced.set()

    def new_file(self) -> NewSegment:
        """A file to stage entries in."""
        return NewSegment(self._environment, self._settings, self._segment_files, LANE)

    async def offload(self, work: Callable[[], None]) -> None:
        """Run it in the lane of installs."""
        await self._environment.tasks.offload(LANE, work)

    def fail(self, error: OSError) -> StorageFailed:
        """The disk failed: the node ends."""
        return self._wal.fail(error)


def _full() -> StorageFull:
    return StorageFull("the disk has no room to install or take a snapshot; nothing was changed")


def _write(full: NewSegment | None, new: NewSegment, group: int, runs: list[tuple[int, list[Entry]]]) -> None:
    if full is not None:
        full.save()
    for piece, entries in runs:
        new.add(group, 0, entries, piece)


def _save(files: Sequence[NewSegment]) -> None:
    for file in files:
        file.save()
