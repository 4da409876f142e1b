"""One group's log, put together again piece by piece, in the order in which the pieces were written.

restore_row ─> restore_parts ─> restore_entries, restore_rotten, restore_note, ... ─> missing, still_damaged
"""

from __future__ import annotations

from replication.machine import Entry, Range
from replication.storage.damage import Damage
from replication.storage.format import DAMAGE, HARD_STATE, TRUNCATE, HardState, Note
from replication.storage.log import GroupLog
from replication.storage.segment_files import SegmentFiles
from replication.storage.segments import Part, file_name
from replication.storage.snapshots import SnapshotFiles, SnapshotRow
from replication.storage.snapshots import file_name as snapshot_name

FOUND_BEFORE = "found by a former process"
THE_SNAPSHOT = "the snapshot"


def restore_row(log: GroupLog, row: SnapshotRow) -> None:
    """Begin with what a snapshot file knows."""
    log.hard_state = row.hard_state
    log.deleted = row.deleted
    log.snapshot_index, log.snapshot_term = row.index, row.term
    log.last_index, log.last_term, log.last_mark = row.index, row.term, row.last_mark
    if row.last_index > row.index:
        log.last_index, log.last_term = row.last_index, row.last_term
    log.cuts = list(row.cuts)
    log.damages += row.damages
    log.repaired = row.repaired


def restore_parts(log: GroupLog, parts: list[Part]) -> None:
    """Then with what is in segments."""
    log.install_parts(parts)
    last = log.stretches.last
    if last is not None and last.last > log.last_index:
        log.last_index, log.last_term = last.last, last.part.term_at(last.last)
    log.last_mark = max([log.last_mark, *(part.last_mark for part in log.parts)])


def restore_entries(log: GroupLog, number: int, entries: list[Entry]) -> Range | None:
    """Entries were read from write-ahead log file `number`; the indexes that are missing before or among them."""
    missing: Range | None = None
    start = 0
    for at, entry in enumerate(entries):
        if entry.index != log.last_index + 1:
            if at > start:
                log.tail.restore(number, entries[start:at])
            if entry.index <= log.last_index:
                log.forget_after(entry.index - 1, number - 1)
            else:
                missing = log.last_index + 1, entry.index - 1
            start = at
        log.last_index, log.last_term = entry.index, entry.term
        log.note_mark(entry)
    log.tail.restore(number, entries[start:])
    return missing


def restore_rotten(log: GroupLog, number: int, index: int, term: int, mark: int) -> Range | None:
    """The payload of an entry of that file has rotted; the indexes that are missing before it."""
    if index <= log.last_index:
        log.forget_after(index - 1, number - 1)
    missing = (log.last_index + 1, index - 1) if index > log.last_index + 1 else None
    log.last_index, log.last_term = index, term
    log.last_mark = max(log.last_mark, mark)
    return missing


def restore_note(log: GroupLog, number: int, note: Note) -> None:
    """A hard state, a truncation or damage was read from that file."""
    if note.type == HARD_STATE:
        log.hard_state = HardState(note.term, note.index)
    elif note.type == TRUNCATE:
        log.forget_after(note.index, number - 1)
    elif note.type == DAMAGE:
        file = file_name(note.mark) if note.mark else "segments" if note.index else THE_SNAPSHOT
        hidden = bool(note.index and not note.mark)
        log.damaged(Damage(file, 0, FOUND_BEFORE, note.index, note.term, lost=False, hidden=hidden))


def missing(log: GroupLog) -> list[Range]:
    """Indexes behind the snapshot that are nowhere."""
    held = [(stretch.first, stretch.last) for stretch in log.stretches.all]
    held += [(chunk.first_index, chunk.last_index) for chunk in log.tail.chunks]
    index, found = log.snapshot_index + 1, list[Range]()
    for first, last in [*held, (log.last_index + 1, log.last_index)]:
        if first > index:
            found.append((index, first - 1))
        index = max(index, last + 1)
    return found


def still_damaged(log: GroupLog, damage: Damage, segments: SegmentFiles, snapshots: SnapshotFiles) -> bool:
    """False if what a former process could not read can be read now (blocking): the disk refused it once."""
    if damage.lost or damage.hidden or damage.segment:
        return True
    if damage.last_index == 0:
        row = log.snapshot_row
        if row is None or damage.file not in (THE_SNAPSHOT, snapshot_name(row.number)):
            return True  # what took its place since is empty
        return snapshots.read_state(row) is None
    first, last = damage.first_index, damage.last_index
    for stretch in log.stretches.all:
        low, high = max(stretch.first, first), min(stretch.last, last)
        if low <= high and not segments.reads_whole(stretch.part, low, high):
            return True
    return False
