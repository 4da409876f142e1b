"""The log of one group, as the rest of the house sees it.

    snapshot ≤ S │ live entries ≤ S, with gaps │ entries > S, without gaps
                 └─ segments ─────────────────────────┴─ memory (and the write-ahead log) ─┘

All state is in memory and changes on the loop only; what is in segment files is read when somebody asks for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from replication.environment import Clock
from replication.machine import Checkpoint, Entry, Range
from replication.storage.damage import INDEX_UNKNOWN, Damage
from replication.storage.format import HARD_STATE, TRUNCATE, HardState, Note, encode_entries, encode_note
from replication.storage.reading import Rotten
from replication.storage.segment_files import SegmentFiles
from replication.storage.segments import Part, file_name
from replication.storage.snapshots import Cut, SnapshotFiles, SnapshotRow
from replication.storage.snapshots import file_name as snapshot_name
from replication.storage.tail import Tail
from replication.storage.wal import Append, Done, Wal

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
        self, group: int, wal: Wal, segments: SegmentFiles, snapshots: SnapshotFiles, clock: Clock, touch: Touch
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
        """Called when damage is found while running."""
        self.deleted = False
        self.tail = Tail()
        self.parts: list[Part] = []
        """What is in segments, by rising index."""
        self._marked: list[Part] = []  # those with marks, by rising valid_mark
        self.cuts: list[Cut] = []
        self.live: Sequence[Range] | None = None
        """Marks still needed, as last heard from the source; None: nobody said, so all are."""
        self.source: Source | None = None
        self._wal = wal
        self._segments = segments
        self._snapshots = snapshots
        self._clock = clock
        self._touch = touch
        self._touched = 0
        self._truncations = 0

    # ---- what is where

    @property
    def first_index(self) -> int:
        """The first index behind the snapshot: from here on there are no gaps."""
        return self.snapshot_index + 1

    @property
    def damage(self) -> Damage | None:
        """What is damaged; such a group must not serve."""
        return self.damages[0] if self.damages else None

    def term_at(self, index: int) -> int | None:
        """The term of an entry behind the snapshot, or of the snapshot itself; None for any other index."""
        if index == self.snapshot_index:
            return self.snapshot_term
        if not self.snapshot_index < index <= self.last_index:
            return None
        entry = self.tail.find(index)
        if entry is not None:
            return entry.term
        part = self._part_of_index(index)
        return part.term_at(index) if part is not None and part.first_index <= index else None

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
        payloads: list[bytes | bytearray | memoryview] = []
        payload_bytes = last_index = 0
        if entries:
            payload_bytes = encode_entries(self.group, entries, table, payloads)
            last_index = self._extend(entries)
            self.tail.append(entries)
        records = len(entries) + (hard_state is not None)
        self._wal.append(Append(self, table, records, payloads, payload_bytes, last_index, done))

    def truncate_after(self, index: int, done: Done) -> None:
        """Forget the entries behind `index`, which must not be before the snapshot. `done` as for `append`."""
        assert self.snapshot_index <= index <= self.last_index, "only what is behind the snapshot can be truncated"
        self._wal.clip(self, index)
        self.forget_after(index, self._wal.number - 1)
        self._wal.append(Append(self, [encode_note(TRUNCATE, self.group, index)], 1, done=done))

    def placed(self, number: int, last_index: int) -> None:
        """Called by the writer: entries up to `last_index` (0: none) go to that file."""
        if number != self._touched:
            self._touched = number
            self._touch(number, self)
        if last_index:
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
        return self.tail.from_index(first_index, max_bytes)

    async def read(self, first_index: int, max_bytes: int) -> list[Entry]:
        """As `cached`, from wherever they are; [] where there is no such entry. Raises StorageDamaged."""
        while True:
            entries = self.cached(first_index, max_bytes)
            if entries is not None:
                return entries
            self._check_index(first_index)
            part = self._part_of_index(first_index)
            if part is None or part.first_index > first_index:
                return self._nothing(first_index)
            truncations = self._truncations
            try:
                entries = await self._segments.read_index(part, first_index, max_bytes)
            except Rotten as error:
                raise self._rotten(part, error).error(self.group)
            if truncations == self._truncations:
                return _without_gaps(entries, first_index, part.valid_last) or self._nothing(first_index)

    def cached_marks(self, mark: int, max_bytes: int) -> list[Entry] | None:
        """Entries with a span, from the one that covers `mark` or the first behind it, up to `max_bytes` but at
        least one; [] where there is none; None: not in memory."""
        if self.damages or (self._marked and self._marked[-1].valid_mark >= mark):
            return None
        return self.tail.from_mark(mark, max_bytes)

    async def read_marks(self, mark: int, max_bytes: int) -> list[Entry]:
        """As `cached_marks`, from wherever they are. Raises StorageDamaged."""
        behind = 0
        while True:
            part = self._part_of_mark(mark, behind)
            if part is None:
                self._check_marks()
                return self.tail.from_mark(mark, max_bytes)
            truncations = self._truncations
            try:
                entries = await self._segments.read_mark(part, mark, max_bytes)
            except Rotten as error:
                raise self._rotten(part, error).error(self.group)
            if truncations != self._truncations:
                continue
            self._check_marks()
            entries = [entry for entry in entries if entry.index <= part.valid_last]
            if entries:
                return entries
            behind = part.last_index

    async def load_snapshot(self) -> tuple[int, int, bytes] | None:
        """(index, term, state) of the snapshot; None if there is none. Raises StorageDamaged."""
        row = self.snapshot_row
        if row is None or not row.has_state:
            return None
        state = await self._snapshots.read(row)
        if state is not None:
            return row.index, row.term, state
        if row is not self.snapshot_row:  # a flush replaced it meanwhile
            return await self.load_snapshot()
        damage = Damage(snapshot_name(row.number), row.state_position, "the snapshot has rotted", 0, row.index)
        raise self.damaged(damage).error(self.group)

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

    # ---- for recovery

    def restore_row(self, row: SnapshotRow) -> None:
        """Begin with what a snapshot file knows."""
        self.hard_state = row.hard_state
        self.deleted = row.deleted
        self.snapshot_index, self.snapshot_term = row.index, row.term
        self.last_index, self.last_term, self.last_mark = row.index, row.term, row.last_mark
        self.cuts = list(row.cuts)
        if row.damage:
            self.damages.append(Damage(snapshot_name(row.number), 0, row.damage))

    def restore_parts(self, parts: list[Part]) -> None:
        """Then with what is in segments."""
        self.install_parts(parts)
        if self.parts and self.parts[-1].valid_last > self.last_index:
            last = self.parts[-1]
            self.last_index, self.last_term = last.valid_last, last.term_at(last.valid_last)
        self.last_mark = max([self.last_mark, *(part.last_mark for part in self.parts)])

    def restore_entries(self, number: int, entries: list[Entry]) -> Range | None:
        """Entries were read from a write-ahead log file; the indexes that are missing before or among them."""
        missing: Range | None = None
        start = 0
        for at, entry in enumerate(entries):
            if entry.index != self.last_index + 1:
                if at > start:
                    self.tail.restore(number, entries[start:at])
                if entry.index <= self.last_index:
                    self.forget_after(entry.index - 1, number - 1)
                else:
                    missing = self.last_index + 1, entry.index - 1
                start = at
            self.last_index, self.last_term = entry.index, entry.term
            self._note_mark(entry)
        self.tail.restore(number, entries[start:])
        return missing

    def restore_missing(self, index: int) -> None:
        """An entry of a write-ahead log file is damaged."""
        self.last_index = max(self.last_index, index)

    def restore_note(self, number: int, note: Note) -> None:
        """A hard state or truncation was read from a write-ahead log file."""
        if note.type == HARD_STATE:
            self.hard_state = HardState(note.term, note.index)
        elif note.type == TRUNCATE:
            self.forget_after(note.index, number - 1)

    # ---- for the flush and the janitor

    def damaged(self, damage: Damage) -> Damage:
        """Note damage, once for each place."""
        for known in self.damages:
            if (known.file, known.position) == (damage.file, damage.position):
                return known
        self.damages.append(damage)
        if self.on_damage is not None:
            self.on_damage(damage)
        return damage

    def rotten(self, part: Part, error: Rotten) -> Damage:
        """Note what was found while a part was read."""
        return self._rotten(part, error)

    def install_parts(self, parts: Sequence[Part]) -> None:
        """Add parts of segments, cut where truncations say so."""
        for part in parts:
            for cut in self.cuts:
                if part.origin <= cut.through:
                    part.valid_last = min(part.valid_last, cut.index)
        self._segments.changed = True
        usable = [part for part in [*self.parts, *parts] if part.valid_last >= part.first_index]
        self.parts = sorted(usable, key=lambda part: part.first_index)
        self._marked = [part for part in self.parts if part.marks]
        following: int | None = None
        for part in reversed(self._marked):  # a part that was cut may name marks that others have now
            part.valid_mark = part.last_mark if following is None else min(part.last_mark, following - 1)
            following = part.first_mark if following is None else min(part.first_mark, following)

    def replace_parts(self, old: Sequence[Part], new: Sequence[Part]) -> None:
        """Parts were rewritten, or are not needed any more."""
        self.parts = [part for part in self.parts if not any(part is gone for gone in old)]
        self.install_parts(new)

    def install_snapshot(self, row: SnapshotRow) -> None:
        """A snapshot file is durable."""
        self.snapshot_index, self.snapshot_term = row.index, row.term
        self._segments.changed = True

    @property
    def snapshot_row(self) -> SnapshotRow | None:
        """Where the snapshot and what goes with it are."""
        return self._snapshots.newest.get(self.group)

    def forget_after(self, index: int, through: int) -> None:
        """Entries behind `index` are no part of the log; those in segments of flushes up to `through` neither."""
        term = self.term_at(index) or 0
        self._truncations += 1
        self.tail.truncate_after(index)
        self.cuts = [cut for cut in self.cuts if cut.through > through or cut.index < index]
        self.cuts.append(Cut(through, index))
        self.install_parts(self._take_parts())
        self.last_index, self.last_term = index, term
        self.damages = [damage for damage in self.damages if damage.first_index <= index]

    def _take_parts(self) -> list[Part]:
        parts, self.parts = self.parts, []
        return parts

    # ---- within

    def _extend(self, entries: Sequence[Entry]) -> int:
        index = self.last_index
        for entry in entries:
            index += 1
            assert entry.index == index, "entries are appended without gaps"
            self._note_mark(entry)
        self.last_index, self.last_term = index, entries[-1].term
        return index

    def _note_mark(self, entry: Entry) -> None:
        mark = entry.mark + entry.span - 1 if entry.span else entry.mark
        if mark > self.last_mark:
            self.last_mark = mark

    def _part_of_index(self, index: int) -> Part | None:
        """The part that has this index, or else the first behind it."""
        at = bisect_left(self.parts, index, key=lambda part: part.valid_last)
        return self.parts[at] if at < len(self.parts) else None

    def _part_of_mark(self, mark: int, behind: int) -> Part | None:
        """The first part behind index `behind` that has this mark or one behind it."""
        marked = self._marked
        for at in range(bisect_left(marked, mark, key=lambda part: part.valid_mark), len(marked)):
            if marked[at].first_index > behind:
                return marked[at]
        return None

    def _rotten(self, part: Part, error: Rotten) -> Damage:
        last = min(error.last_index, part.valid_last)
        return self.damaged(
            Damage(file_name(part.number), error.position, error.what, min(error.first_index, last), last)
        )

    def _check_index(self, index: int) -> None:
        for damage in self.damages:
            if damage.first_index <= index <= damage.last_index:
                raise damage.error(self.group)

    def _check_marks(self) -> None:
        """Marks cannot be placed around damage whose extent is unknown, or that is no part of a segment."""
        for damage in self.damages:
            if damage.last_index == INDEX_UNKNOWN or not damage.file.endswith(".seg"):
                raise damage.error(self.group)

    def _nothing(self, index: int) -> list[Entry]:
        """There is no such entry: right before the snapshot and behind the end, damage between."""
        if self.snapshot_index < index <= self.last_index:
            raise self._nowhere(index).error(self.group)
        return []

    def _nowhere(self, index: int) -> Damage:
        return self.damaged(Damage("segments", 0, f"entry {index} is missing", index, index))


Touch = Callable[[int, GroupLog], None]
"""Called with a file number and a log when the log gets its first record in that file."""


def _without_gaps(entries: list[Entry], first_index: int, last_index: int) -> list[Entry]:
    for at, entry in enumerate(entries):
        if entry.index != first_index + at or entry.index > last_index:
            return entries[:at]
    return entries
