"""The log of one group, as the rest of the house sees it.

    snapshot ≤ S │ live entries ≤ S, with gaps │ entries > S, without gaps
                 └─ segments ─────────────────────────┴─ memory (and the write-ahead log) ─┘

All state is in memory and changes on the loop only; what is in segment files is read when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from plait.wire.errors import StorageDamaged
from replication.environment import Buffer, Clock
from replication.machine import KIND_MEMBERSHIP, Checkpoint, Entry, Range
from replication.run import Run, encoded
from replication.storage.damage import Damage, DamageKind, kind_of
from replication.storage.format import (
    DAMAGE,
    HARD_STATE,
    TRUNCATE,
    HardState,
    encode_note,
)
from replication.storage.ranges import range_of, touches
from replication.storage.reading import Rotten
from replication.storage.segment_files import SegmentFiles
from replication.storage.segments import Part, file_name
from replication.storage.snapshots import Cut, SnapshotFiles, SnapshotRow
from replication.storage.snapshots import file_name as snapshot_name
from replication.storage.stretches import Stretch, Stretches
from replication.storage.tail import Tail
from replication.storage.wal import Append, Done, Wal

if TYPE_CHECKING:
    from replication.storage.install import Install, Installs

__all__ = ["GroupLog", "HardState", "LogStatistics", "Source"]

REPLAY_BYTES = 256 * 1024
"""Payload bytes of one read while a log is replayed."""
SLICE_NS = 3_000_000
"""Time after which work on the loop lets others have a turn."""
SLICE_ENTRIES = 64
"""Entries given to a replay's sink before the time is looked at."""


class Source(Protocol):
    """Who can say what of a log is still needed."""

    def checkpoint(self) -> Checkpoint | None:
        """The state as of the last applied entry; None: not now. Asked when a log file is flushed."""


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """Figures of one log."""

    memory_bytes: int
    memory_entries: int
    segments: int
    segment_bytes: int
    first_mark: int
    """First mark that is stored, or the next one where none is."""
    last_mark: int


class GroupLog:
    """One group's log. Made by Store."""

    def __init__(
        self,
        group: int,
        wal: Wal,
        segments: SegmentFiles,
        snapshots: SnapshotFiles,
        installs: Installs,
        clock: Clock,
        touch: Touch,
    ) -> None:
        self.group = group
        self.hard_state = HardState()
        self.snapshot_index = 0
        self.snapshot_term = 0
        self.last_index = 0
        self.last_term = 0
        self.last_mark = 0
        """The last mark that an entry covered; marks never fall."""
        self.damages: list[Damage] = []
        self.on_damage: Callable[[Damage], None] | None = None
        """Called when damage is found while running, by a read or by the scrub."""
        self.deleted = False
        self.repaired: tuple[int, ...] = ()
        """Segment files that cannot be read, from which nothing is missing: an install has brought it."""
        self.tail = Tail()
        self.stretches = Stretches()
        """What is in segments."""
        self.cuts: list[Cut] = []
        self.live: Sequence[Range] | None = None
        """Marks still needed, as last heard from the source; None: nobody said, so all are."""
        self.source: Source | None = None
        self.held = 0
        """Above 0 somebody copies the snapshot: none is taken meanwhile, and nothing behind it is forgotten."""
        self.install: Install | None = None
        """The snapshot from elsewhere that is being staged."""
        self._installs = installs
        self._wal = wal
        self._segments = segments
        self._snapshots = snapshots
        self._clock = clock
        self._touch = touch
        self._touched = 0
        self._truncations = 0
        self._newest: Run | None = None  # what the log ends with, until its place is known: leaders send it next

    # ---- what is where

    @property
    def first_index(self) -> int:
        """The first index behind the snapshot: from here on there are no gaps."""
        return self.snapshot_index + 1

    @property
    def damage(self) -> Damage | None:
        """What is damaged; such a group must not serve."""
        return self.damages[0] if self.damages else None

    @property
    def damage_kind(self) -> DamageKind:
        """What that means for the replica: see replication/storage/damage.py."""
        return kind_of(self.damages)

    @property
    def parts(self) -> list[Part]:
        """What is in segments, by rising index."""
        return self.stretches.parts

    def term_at(self, index: int) -> int | None:
        """The term of an entry behind the snapshot, or of the snapshot itself; None for any other index."""
        if index == self.snapshot_index:
            return self.snapshot_term
        if not self.snapshot_index < index <= self.last_index:
            return None
        if index == self.last_index:
            return self.last_term
        for damage in self.damages:
            if damage.first_index <= index <= damage.last_index and (damage.hidden or damage.term):
                return damage.term or None  # what seems to be there may have been truncated
        entry = self.tail.find(index)
        if entry is not None:
            return entry.term
        stretch = self.stretches.of_index(index)
        return stretch.part.term_at(index) if stretch is not None and stretch.first <= index else None

    def statistics(self) -> LogStatistics:
        """Figures for people and for admission."""
        first_mark = next((part.first_mark for part in self.parts if part.marks), None)
        if first_mark is None:
            first_mark = self.tail.first_mark()
        return LogStatistics(
            memory_bytes=self.tail.size_bytes,
            memory_entries=self.tail.entries,
            segments=len(self.parts),
            segment_bytes=sum(part.size_bytes for part in self.parts),
            first_mark=self.last_mark + 1 if first_mark is None else first_mark,
            last_mark=self.last_mark,
        )

    # ---- writing

    def append(self, entries: Sequence[Entry], hard_state: HardState | None, done: Done) -> None:
        """Add entries behind the last one, and term and vote with them, all or nothing.

        Reads see them at once. `done` is called on the loop when they are synced, in order of append, or with the
        error after which nothing is written any more. The payloads are kept, not copied.
        """
        table: list[bytes] = []
        if hard_state is not None:
            table.append(encode_note(HARD_STATE, self.group, hard_state.vote, hard_state.term))
            self.hard_state = hard_state
        payloads: Sequence[Buffer] = ()
        payload_bytes = last_index = 0
        if entries:
            assert self.install is None or not self.install.committing, "the log is being replaced"
            found = encoded(self.group, entries)
            table.append(found.records)
            payloads, payload_bytes = found.payloads, found.payload_bytes
            last_index = self._extend(entries)
            self.tail.append(entries)
            self._newest = entries if type(entries) is Run else None
        records = len(entries) + (hard_state is not None)
        self._wal.append(Append(self, table, records, payloads, payload_bytes, last_index, done))

    def truncate_after(self, index: int, done: Done) -> None:
        """Forget the entries behind `index`, which must not be before the snapshot. `done` as for `append`."""
        assert self.snapshot_index <= index <= self.last_index, "only what is behind the snapshot can be truncated"
        assert self.install is None or not self.install.committing, "the log is being replaced"
        self._wal.clip(self, index)
        self.forget_after(index, self._wal.number - 1)
        self._wal.append(Append(self, [encode_note(TRUNCATE, self.group, index)], 1, done=done))

    def placed(self, number: int, last_index: int) -> None:
        """Called by the writer: entries up to `last_index` (0: none) go to that file."""
        if number != self._touched:
            self._touched = number
            self._touch(number, self)
        if last_index:
            self._newest = None
            self.tail.placed(number, last_index)

    def attach(self, source: Source) -> None:
        """From now on this source is asked for checkpoints."""
        self.source = source

    def retain(self, live: Sequence[Range]) -> None:
        """Only these marks are still needed of what the snapshot covers: files without any may go.

        Threads read the sequence: it must not be changed afterwards.
        """
        self.live = live
        self._segments.changed = True

    # ---- reading

    def cached(self, first_index: int, max_bytes: int) -> list[Entry] | None:
        """Entries from `first_index` on, without gaps, up to `max_bytes` but at least one; None: not in memory."""
        newest = self._newest
        if newest is not None and newest[0].index == first_index and newest.payload_bytes <= max_bytes:
            return newest
        entries = self.tail.from_index(first_index, max_bytes)
        return self._sound(entries) or None if entries and self.damages else entries

    async def read(self, first_index: int, max_bytes: int) -> list[Entry]:
        """As `cached`, from wherever they are; [] where there is no such entry. Raises StorageDamaged."""
        while True:
            entries = self.cached(first_index, max_bytes)
            if entries is not None:
                return entries
            self._check_index(first_index)
            stretch = self.stretches.of_index(first_index)
            if stretch is None or stretch.first > first_index:
                return self._nothing(first_index)
            truncations = self._truncations
            try:
                entries = await self._segments.read_index(stretch.part, first_index, max_bytes)
            except Rotten as error:
                if truncations != self._truncations:
                    continue  # what has rotted may be no part of the log any more
                if error.first_index > stretch.last:
                    return self._nothing(first_index)  # rot in what another part has anew
                raise self._rotten(stretch, error).error(self.group)
            if truncations == self._truncations:
                entries = _without_gaps(entries, first_index, stretch.last)
                return self._sound(entries) or self._nothing(first_index)

    def cached_marks(self, mark: int, max_bytes: int) -> list[Entry] | None:
        """Entries with a span, from the one that covers `mark` or the first behind it, up to `max_bytes` but at
        least one; [] where there is none; None: not in memory."""
        marked = self.stretches.marked
        if self.damages or (marked and marked[-1].valid_mark >= mark):
            return None
        return self.tail.from_mark(mark, max_bytes)

    async def read_marks(self, mark: int, max_bytes: int) -> list[Entry]:
        """As `cached_marks`, from wherever they are. Raises StorageDamaged."""
        behind = 0
        while True:
            stretch = self.stretches.of_mark(mark, behind)
            if stretch is None:
                self._check_marks()
                return self.tail.from_mark(mark, max_bytes)
            truncations = self._truncations
            entries = await self._read_marks(stretch, mark, max_bytes)
            if truncations != self._truncations:
                continue
            self._check_marks()
            if entries:
                return entries
            behind = stretch.last

    async def live_below(self, mark: int, max_bytes: int, skip: Sequence[Range] = ()) -> list[Entry]:
        """Entries with a live mark, at or below the snapshot, by rising index: from the one that covers `mark` or
        the first behind it, up to `max_bytes` but at least one; [] where there is none.

        Indexes in `skip` (sorted ranges) are left out. Raises StorageDamaged.
        """
        following: int | None = mark
        while following is not None:
            entries, following = await self.live_piece(following, max_bytes, skip)
            if entries:
                return entries
        return []

    async def live_piece(
        self, mark: int, max_bytes: int, skip: Sequence[Range] = ()
    ) -> tuple[list[Entry], int | None]:
        """As `live_below`, but only as far as one read goes: what it found, and the mark to go on from (None: that
        was all)."""
        while True:
            stretch = self.stretches.of_mark(mark, 0)
            if stretch is None:
                self._check_marks()
                return self._wanted(self.tail.from_mark(mark, max_bytes), None, skip)
            if stretch.first > self.snapshot_index:
                return [], None
            if _inside(skip, stretch):
                return [], stretch.valid_mark + 1
            truncations = self._truncations
            read = await self._read_marks(stretch, mark, max_bytes)
            if truncations == self._truncations:
                self._check_marks()
                return self._wanted(read, stretch.valid_mark + 1, skip)

    async def memberships(self) -> list[Entry]:
        """The entries of KIND_MEMBERSHIP behind the snapshot, by rising index, but for those that are damaged.

        What is in segments is read, in slices.
        """
        found: list[Entry] = []
        index = self.snapshot_index + 1
        while index <= self.last_index and index < self._first_in_memory():
            try:
                entries = await self.read(index, REPLAY_BYTES)
            except StorageDamaged:
                index = 1 + max(each.last_index for each in self.damages if each.first_index <= index)
                continue
            found += [entry for entry in entries if entry.kind == KIND_MEMBERSHIP]
            index = entries[-1].index + 1 if entries else self._first_in_memory()
            await trio.lowlevel.checkpoint()
        for entry in self.tail.memberships(index):
            found += self._sound([entry])
        return found

    async def load_snapshot(self) -> tuple[int, int, bytes] | None:
        """(index, term, state) of the snapshot; None if there is none. Raises StorageDamaged."""
        self._check_index(0)
        row = self.snapshot_row
        if row is None or not row.has_state:
            return None
        state = await self._snapshots.read(row)
        if state is not None:
            return row.index, row.term, state
        if row is not self.snapshot_row:  # a flush replaced it meanwhile
            return await self.load_snapshot()
        raise self._found(self.rotten_snapshot(), 0).error(self.group)

    async def read_snapshot(self, position: int, max_bytes: int) -> tuple[SnapshotRow, bytes] | None:
        """The row of the snapshot and a piece of its state, which is not checked (`load_snapshot` does that).

        None if there is none, or if it went away meanwhile. Raises StorageDamaged.
        """
        self._check_index(0)
        row = self.snapshot_row
        if row is None or not row.has_state:
            return None
        piece = await self._snapshots.read_piece(row, position, max_bytes)
        return (row, piece) if piece is not None and row is self.snapshot_row else None

    def begin_install(self, index: int, term: int, agreed_index: int) -> Install:
        """Begin, or go on, to replace everything up to `index` by a snapshot from the leader: see Install.

        The entries up to `agreed_index` are known to be the leader's too. Raises InstallRefused.
        """
        return self._installs.begin(self, index, term, agreed_index)

    async def snapshot_now(self) -> None:
        """Return when the snapshot is one that the source gave during this call, if it gave one.

        Closes the write-ahead log's file for it. Raises StorageFull, StorageFailed.
        """
        await self._installs.snapshot_now(self)

    async def replay(self, after_index: int, sink: Callable[[list[Entry]], None]) -> None:
        """Give all entries behind `after_index` to `sink`, in order, in slices between which others have a turn.

        Raises StorageDamaged when it comes to one that cannot be read.
        """
        index = after_index + 1
        since_ns = self._clock.monotonic_ns()
        while index <= self.last_index:
            entries = await self.read(index, REPLAY_BYTES)
            for at in range(0, len(entries), SLICE_ENTRIES):
                sink(entries[at : at + SLICE_ENTRIES])
                if self._clock.monotonic_ns() - since_ns > SLICE_NS:
                    await trio.lowlevel.checkpoint()
                    since_ns = self._clock.monotonic_ns()
            if not entries:
                raise self._nowhere(index).error(self.group)
            index = entries[-1].index + 1

    # ---- for the flush and the janitor

    def damaged(self, damage: Damage) -> Damage:
        """Note damage, once for each place."""
        for known in self.damages:
            if known.covers(damage):
                return known
        self.damages.append(damage)
        if self.on_damage is not None:
            self.on_damage(damage)
        return damage

    def rotten_snapshot(self) -> Damage:
        """What to note when the snapshot's state cannot be read."""
        row = self.snapshot_row
        assert row is not None, "there is a snapshot"
        place = snapshot_name(row.number), row.state_position
        return Damage(*place, "the snapshot has rotted", 0, 0, lost=False, hidden=False)

    def last_before(self, through: int) -> tuple[int, int]:
        """Index and term of the last entry that is not in files behind `through`, nor on its way to one."""
        index = (self.tail.first_behind(through) or self.last_index + 1) - 1
        return index, self.term_at(index) or 0

    def rotten(self, stretch: Stretch, error: Rotten) -> None:
        """Note what was found while a stretch was read, if it is part of the log still."""
        index = max(error.first_index, stretch.first)
        now = self.stretches.of_index(index)
        if now is not None and now.part is stretch.part and now.first <= index:
            self._rotten(now, error)

    def install_parts(self, parts: Iterable[Part]) -> None:
        """Add parts of segments, without what is no part of the log."""
        found = list(parts)
        for part in found:
            for cut in self.cuts:
                if part.origin <= cut.through:
                    part.hide(cut.index + 1, cut.last)
        self._segments.changed = True
        self.stretches = Stretches([*self.parts, *found])

    def replace_parts(self, old: Sequence[Part], new: Sequence[Part]) -> None:
        """Parts were rewritten, or are not needed any more."""
        self.stretches = Stretches(part for part in self.parts if not any(part is gone for gone in old))
        self.install_parts(new)

    def install_snapshot(self, row: SnapshotRow) -> None:
        """A snapshot file is durable."""
        self.snapshot_index, self.snapshot_term = row.index, row.term
        self._segments.changed = True

    def replaced(
        self, row: SnapshotRow, damages: Sequence[Damage], parts: Sequence[Part], *, keeps_rest: bool
    ) -> None:
        """A snapshot that came from elsewhere is durable, as are the entries that came with it, in these parts.

        What the log ends with from now on stands in the row; so does what of the older parts is no part of it.
        `keeps_rest`: what follows the snapshot here stays.
        """
        if not keeps_rest:
            self.tail.replaced(row.index)
        self._truncations += 1
        self._newest = None
        self.cuts = list(row.cuts)
        self.install_parts([*self._take_parts(), *parts])
        self.last_index, self.last_term = row.last_index, row.last_term
        self.last_mark = row.last_mark
        self.damages = list(damages)
        self.repaired = row.repaired
        self.install = None

    @property
    def snapshot_row(self) -> SnapshotRow | None:
        """Where the snapshot and what goes with it are."""
        return self._snapshots.newest.get(self.group)

    def forget_after(self, index: int, through: int) -> None:
        """Entries behind `index` are no part of the log; those in segments of flushes up to `through` neither."""
        term = self.term_at(index) or 0
        self._truncations += 1
        self._newest = None
        self.tail.truncate_after(index)
        self.cuts = [cut for cut in self.cuts if cut.through > through or cut.index < index]
        self.cuts.append(Cut(through, index))  # those that it implies were left out
        self.install_parts(self._take_parts())
        self.last_index, self.last_term = index, term
        left = [damage for damage in self.damages if damage.first_index <= index]
        self.damages = [damage if damage.lost else damage.until(index) for damage in left]

    def _take_parts(self) -> list[Part]:
        parts, self.stretches = self.parts, Stretches()
        return parts

    # ---- within

    def _extend(self, entries: Sequence[Entry]) -> int:
        index, last_mark = self.last_index, self.last_mark
        for entry in entries:  # as `note_mark`, but a call for each entry would take as long as all the rest
            index += 1
            assert entry.index == index, "entries are appended without gaps"
            mark = entry.mark + (entry.span or 1) - 1
            if mark > last_mark:
                last_mark = mark
        self.last_mark = last_mark
        self.last_index, self.last_term = index, entries[-1].term
        return index

    def note_mark(self, entry: Entry) -> None:
        """The log has this entry now."""
        self.last_mark = max(self.last_mark, entry.mark + (entry.span or 1) - 1)

    async def _read_marks(self, stretch: Stretch, mark: int, max_bytes: int) -> list[Entry]:
        """What the stretch has from the mark on; worth nothing if the log was cut or replaced meanwhile."""
        truncations = self._truncations
        try:
            entries = await self._segments.read_mark(stretch.part, mark, max_bytes, stretch.first)
        except Rotten as error:
            if truncations != self._truncations or error.first_index > stretch.last:
                return []  # as in `read`
            raise self._rotten(stretch, error).error(self.group)
        return [entry for entry in entries if entry.index <= stretch.last]

    def _wanted(
        self, entries: Sequence[Entry], following: int | None, skip: Sequence[Range]
    ) -> tuple[list[Entry], int | None]:
        """Those that are live, covered by the snapshot and not in `skip`, and the mark to go on from: `following`
        where there are no entries."""
        if entries:
            last = entries[-1]
            following = last.mark + last.span if last.index <= self.snapshot_index else None
        wanted = [
            entry
            for entry in entries
            if entry.index <= self.snapshot_index
            and (self.live is None or touches(self.live, entry.mark, entry.mark + entry.span - 1))
            and range_of(skip, entry.index) is None
        ]
        return wanted, following

    def _first_in_memory(self) -> int:
        """From here on all entries are in memory."""
        chunks = self.tail.chunks
        first = self.last_index + 1
        for chunk in reversed(chunks):
            if chunk.last_index + 1 < first:
                break
            first = chunk.first_index
        return first

    def _rotten(self, stretch: Stretch, error: Rotten) -> Damage:
        number = stretch.part.number
        first = min(max(error.first_index, stretch.first), stretch.last)
        last = max(min(error.last_index, stretch.last), first)
        damage = Damage(file_name(number), error.position, error.what, first, last, lost=False, hidden=False)
        return self._found(damage, number)

    def _found(self, damage: Damage, segment: int) -> Damage:
        """Note damage found at run time, also on disk, so that the next process knows of it at once."""
        known = self.damaged(damage)
        if known is damage and not self.deleted:
            note = encode_note(DAMAGE, self.group, damage.first_index, damage.last_index, segment)
            self._wal.append(Append(self, [note], 1))
        return known

    def _check_index(self, index: int) -> None:
        for damage in self.damages:
            if damage.first_index <= index <= damage.last_index:
                raise damage.error(self.group)

    def _sound(self, entries: list[Entry]) -> list[Entry]:
        """Those before the first that is damaged."""
        for damage in self.damages:
            at = max(damage.first_index - entries[0].index, 0) if entries else 0
            if at < len(entries) and entries[at].index <= damage.last_index:
                entries = entries[:at]
        return entries

    def _check_marks(self) -> None:
        """Marks cannot be placed around damage that reading does not come across."""
        for damage in self.damages:
            if damage.hidden:
                raise damage.error(self.group)

    def _nothing(self, index: int) -> list[Entry]:
        """There is no such entry: right before the snapshot and behind the end, damage between."""
        if self.snapshot_index < index <= self.last_index:
            raise self._nowhere(index).error(self.group)
        return []

    def _nowhere(self, index: int) -> Damage:
        damage = Damage("segments", 0, f"entry {index} is missing", index, index, lost=False)
        return self._found(damage, 0)


def _inside(skip: Sequence[Range], stretch: Stretch) -> bool:
    found = range_of(skip, stretch.first)
    return found is not None and found[1] >= stretch.last


Touch = Callable[[int, GroupLog], None]
"""Called with a file number and a log when the log gets its first record in that file."""


def _without_gaps(entries: list[Entry], first_index: int, last_index: int) -> list[Entry]:
    for at, entry in enumerate(entries):
        if entry.index != first_index + at or entry.index > last_index:
            return entries[:at]
    return entries
