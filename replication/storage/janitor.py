"""Keeps segment files few and young: unlinks dead ones, merges small ones, rewrites those that are mostly dead.

A part of a segment is dead when a durable snapshot covers it and none of its marks is live, or when its group is
deleted. A new file has its parts under the same origins as the old ones: should both be found after a crash, the
higher number counts.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import trio

from replication.environment import Environment
from replication.machine import Entry, Range
from replication.storage.flush import needed
from replication.storage.log import SLICE_NS, GroupLog
from replication.storage.new_segment import NewSegment
from replication.storage.reading import Rotten
from replication.storage.segment_files import SegmentFiles
from replication.storage.segments import Part
from replication.storage.settings import StorageSettings
from replication.storage.stretches import Stretch

LANE = "compaction"
READ_BYTES = 512 * 1024
"""Bytes of one read during compaction."""
COMPACT_FILES_MAX = 64
"""Files that are rewritten into one at a time."""
COMPACT_BYTES_MAX = 16 << 20
"""Live bytes that are rewritten at a time, as estimated; a larger file is done alone."""
SMALL_FILE_BYTES = 256 * 1024
"""Size under which files are merged once there are SMALL_FILES_MAX of them."""
SMALL_FILES_MAX = 16
"""Small files from which on merging them is worth a new file."""


class Janitor:
    """Looks after the segment files. `tidy` is called from time to time."""

    def __init__(
        self,
        environment: Environment,
        settings: StorageSettings,
        segment_files: SegmentFiles,
        logs: Callable[[], list[GroupLog]],
        fail: Callable[[OSError], Exception],
    ) -> None:
        self._environment = environment
        self._settings = settings
        self._files = segment_files
        self._logs = logs
        self._fail = fail
        self._damaged: dict[int, None] = {}  # files that are never rewritten: what is left in them is evidence
        self.removed = 0
        self.rewritten = 0

    async def tidy(self) -> None:
        """One round. Raises StorageFailed."""
        if not self._files.changed and not self._files.retired:
            return
        self._files.changed = False
        try:
            live_bytes = await self._survey()
            self.removed += await self._files.remove_retired()
            chosen = self._choose(live_bytes)
            if chosen:
                await self._rewrite(chosen)
                self.removed += await self._files.remove_retired()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise self._fail(error)

    # ---- what is dead

    async def _survey(self) -> dict[int, int]:
        """Let go of dead parts and retire files without living ones; about how many bytes live in the others."""
        live_bytes: dict[int, int] = {}
        clock = self._environment.clock
        since_ns = clock.monotonic_ns()
        # a flush may add files during this, and those of one under way have no logs yet
        seen = self._files.files.keys() - self._files.fresh.keys()
        for log in self._logs():
            dead = [part for part in log.parts if is_dead(log, part)]
            if dead:
                log.replace_parts(dead, ())
            for part in log.parts:
                live_bytes[part.number] = live_bytes.get(part.number, 0) + estimate(log, part)
            if clock.monotonic_ns() - since_ns > SLICE_NS:
                await trio.lowlevel.checkpoint()
                since_ns = clock.monotonic_ns()
        for number in sorted(seen):
            if number in self._files.files and number not in live_bytes:
                self._files.retire(number)
        return live_bytes

    def _choose(self, live_bytes: Mapping[int, int]) -> list[int]:
        """Files to rewrite into one."""
        candidates: list[int] = []
        small: list[int] = []
        for number, file in self._files.files.items():
            if number not in live_bytes or number in self._damaged or number in self._files.fresh:
                continue
            if file.size_bytes < SMALL_FILE_BYTES:
                small.append(number)
            elif live_bytes[number] * 100 < file.size_bytes * self._settings.compact_below_percent:
                candidates.append(number)
        if len(small) >= SMALL_FILES_MAX:
            candidates += small
        chosen: list[int] = []
        left = COMPACT_BYTES_MAX
        for number in candidates[:COMPACT_FILES_MAX]:
            left -= live_bytes[number]
            if chosen and left < 0:
                break
            chosen.append(number)
        return chosen

    # ---- rewriting

    async def _rewrite(self, numbers: Sequence[int]) -> None:
        new = NewSegment(self._environment, self._settings, self._files, LANE)
        replaced: list[tuple[GroupLog, Part]] = []
        try:
            for log in self._logs():
                for part in [part for part in log.parts if part.number in numbers]:
                    await self._copy(log, part, new)
                    replaced.append((log, part))
            number = await new.commit([])
        except Rotten:
            await new.abandon()
            return
        except OSError:
            await new.abandon()
            raise
        if number is not None:
            self._files.add(number, new.salt, new.parts)
        self._replace(replaced, new.parts)
        for number in numbers:
            self._files.retire(number)
        self.rewritten += len(numbers)
        self._files.changed = True

    async def _copy(self, log: GroupLog, part: Part, new: NewSegment) -> None:
        """Copy what is needed of a part. Raises Rotten, and then the file is never touched again."""
        for first, last in list(part.shown):
            index = first
            while index <= last:
                try:
                    entries = await self._files.read_index(part, index, READ_BYTES)
                except Rotten as error:
                    if error.first_index > last:
                        break  # in what another part has anew
                    log.rotten(Stretch(part, first, last), error)
                    self._damaged[part.number] = None
                    raise
                kept = [entry for entry in entries if entry.index <= last]
                if not kept:
                    break
                index = entries[-1].index + 1
                add = partial(_add, new, part, kept, log.snapshot_index, log.live)
                await self._environment.tasks.offload(LANE, add)

    def _replace(self, replaced: Sequence[tuple[GroupLog, Part]], parts: Sequence[Part]) -> None:
        """The logs have their entries in the new file now."""
        made = {part.key: part for part in parts}
        for log, old in replaced:
            if any(part is old for part in log.parts):  # else it was deleted or died meanwhile
                new = made.get(old.key)
                log.replace_parts([old], [new] if new is not None else [])


def _add(
    new: NewSegment, part: Part, entries: Sequence[Entry], keep_above: int, live: Sequence[Range] | None
) -> None:
    kept = [entry for entry in entries if needed(entry, keep_above, live)]
    new.add(part.group, part.origin, kept, part.piece)


def is_dead(log: GroupLog, part: Part) -> bool:
    """True if nothing of the part is needed any more."""
    if part.valid_last > log.snapshot_index or log.damages:
        return False
    return not part.marks or (log.live is not None and _live_marks(log.live, part) == 0)


def estimate(log: GroupLog, part: Part) -> int:
    """About how many bytes of a part are needed: by the share of its marks that are live."""
    if part.valid_last > log.snapshot_index or log.live is None or log.damages:
        return part.size_bytes
    return part.size_bytes * min(_live_marks(log.live, part), part.marks) // max(part.marks, 1)


def _live_marks(live: Sequence[Range], part: Part) -> int:
    """How many live marks lie between the first and the last of a part."""
    count = 0
    for at in range(bisect_left(live, part.first_mark, key=lambda item: item[1]), len(live)):
        first, last = live[at]
        if first > part.last_mark:
            break
        count += min(last, part.last_mark) - max(first, part.first_mark) + 1
    return count


class Scrubber:
    """Reads old segments slowly, to find rot before a consumer does."""

    def __init__(
        self,
        environment: Environment,
        settings: StorageSettings,
        segment_files: SegmentFiles,
        logs: Mapping[int, GroupLog],
    ) -> None:
        self._clock = environment.clock
        self._bytes_per_s = settings.scrub_bytes_per_s
        self._files = segment_files
        self._logs = logs
        self.bytes_read = 0
        self.rounds = 0

    async def run(self) -> None:
        """Go round until cancelled."""
        while self._bytes_per_s:
            await self._clock.sleep_until(self._clock.monotonic_ns() + SCRUB_PAUSE_MS * 1_000_000)
            for group in list(self._logs):
                await self.scrub(group)
            self.rounds += 1

    async def scrub(self, group: int) -> None:
        """Read all that a group has in segments; what has rotted is noted as its damage."""
        log = self._logs.get(group)
        index = 0
        while log is not None:
            stretch = log.stretches.of_index(index + 1)
            if stretch is None:
                return
            index = max(index + 1, stretch.first)
            try:
                entries = await self._files.read_index(stretch.part, index, SCRUB_READ_BYTES)
                index = min(entries[-1].index if entries else stretch.last, stretch.last)
            except Rotten as error:
                if error.first_index <= stretch.last:
                    log.rotten(stretch, error)
                entries, index = [], min(error.last_index, stretch.last)
            entries_bytes = sum(len(entry.payload) for entry in entries)
            self.bytes_read += entries_bytes
            pause_ns = max(entries_bytes, 1) * 1_000_000_000 // self._bytes_per_s
            await self._clock.sleep_until(self._clock.monotonic_ns() + pause_ns)
            log = self._logs.get(group)


SCRUB_PAUSE_MS = 3_600_000
"""Rest between two rounds of the scrub."""
SCRUB_READ_BYTES = 128 * 1024
"""What the scrub reads at a time."""
