"""From what recovery found on the disk to the logs of all groups. Memory only.

    snapshot rows ─> segments ─> write-ahead log, in order ─> what is missing, what is in doubt

Where records are lost, a *doubt* is raised for every group that may have had some among them. Later records settle
it: behind a later hard state no vote is in doubt, and behind a later entry everybody knows how the log went on, so
that what lies between is merely missing (a snapshot from the leader brings it). A doubt that nothing settles is a
loss: replication/storage/damage.py says what that means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from replication.machine import Entry
from replication.storage import snapshots, wal
from replication.storage.damage import Damage
from replication.storage.format import CREATE, DELETE, ECHO_BLOCKS, ECHO_DELETED, HARD_STATE, Note
from replication.storage.log import GroupLog
from replication.storage.recovery import LOST, Found, LogFile
from replication.storage.restoring import (
    missing,
    restore_entries,
    restore_note,
    restore_parts,
    restore_rotten,
    restore_row,
)
from replication.storage.scan import BadPayload, Block, Hole, Scan
from replication.storage.segment_files import SegmentFiles
from replication.storage.segments import Part
from replication.storage.segments import file_name as segment_name
from replication.storage.snapshots import SnapshotFiles


@dataclass(slots=True)
class Doubt:
    """Records of a group may have been lost here."""

    damage: Damage
    hard_state: bool = False
    """A hard state has been seen since."""
    entry_index: int | None = None
    """The first entry that has been seen since."""

    def outcome(self, log: GroupLog) -> Damage | None:
        """What it comes to when everything was read; None: nothing that counts was lost."""
        if not self.hard_state or self.entry_index is None:
            return self.damage
        first, last = log.snapshot_index + 1, min(self.entry_index - 1, log.last_index)
        if first > last:
            return None
        # also what seems to be there of it: a truncation may be among the lost
        return replace(self.damage, first_index=first, last_index=last, lost=False)


class LogBuilder:
    """Puts together what each group has."""

    def __init__(
        self,
        found: Found,
        snapshot_files: SnapshotFiles,
        segment_files: SegmentFiles,
        new_log: Callable[[int], GroupLog],
    ) -> None:
        self.logs: dict[int, GroupLog] = {}
        self.deleted: dict[int, None] = {}
        self.touched: dict[int, dict[int, GroupLog]] = {}
        """By file, the logs that have something in it."""
        self.forgot = False
        """Records were lost of which nobody knows whose they were: whole groups may be missing."""
        self._found = found
        self._snapshot_files = snapshot_files
        self._segment_files = segment_files
        self._new_log = new_log
        self._doubts: dict[int, list[Doubt]] = {}
        self._nameless: dict[int, Damage] = {}  # lost blocks by seq, until an echo names their groups

    def build(self) -> None:
        """All of it, in the order in which it was written."""
        self._rows()
        self._segments()
        lost = sorted(self._found.lost, key=lambda item: item[0])
        for file in self._found.files:
            while lost and lost[0][0] < file.number:
                self._doubt_everyone(lost.pop(0)[1])
            self.touched[file.number] = {}
            for item in file.scan.items:
                if isinstance(item, Hole):
                    self._hole(file, item)
                else:
                    self._block(file, item)
        for _, damage in lost:
            self._doubt_everyone(damage)
        if self._found.last is not None:
            number = self._found.continues.number
            self.touched[number] = {}
            self._block(LogFile(number, Scan()), self._found.last)
        for damage in self._nameless.values():
            self._doubt_everyone(damage)
        self._conclude()

    # ---- files

    def _rows(self) -> None:
        unreadable = max(self._snapshot_files.unreadable, default=0)
        self.forgot = bool(unreadable)
        for group, row in self._snapshot_files.newest.items():
            if row.deleted:
                self.deleted[group] = None
                continue
            log = self.logs[group] = self._new_log(group)
            restore_row(log, row)
            if row.number < unreadable:  # that file, or an older one of its kind, may have had a newer one
                what = "the directory of a snapshot file is damaged"
                self._doubt(log, Damage(snapshots.file_name(unreadable), 0, what))

    def _segments(self) -> None:
        parts: dict[int, dict[tuple[int, ...], Part]] = {}
        for file in self._segment_files.files.values():  # rising numbers: a rewritten part replaces its original
            for part in file.parts:
                parts.setdefault(part.group, {})[part.key] = part
        for group, found in parts.items():
            if group not in self.deleted:
                damage = Damage(segment_name(next(iter(found.values())).number), 0, "what goes with it is missing")
                restore_parts(self._log(group, damage), list(found.values()))

    # ---- the write-ahead log

    def _hole(self, file: LogFile, hole: Hole) -> None:
        file.damaged = True
        damage = Damage(wal.file_name(file.number), hole.position, LOST)
        if hole.last_seq - hole.first_seq >= ECHO_BLOCKS:
            self._doubt_everyone(damage)
        else:
            for seq in range(hole.first_seq, hole.last_seq + 1):
                self._nameless[seq] = damage

    def _block(self, file: LogFile, block: Block) -> None:
        for back, groups in enumerate(block.echo):
            damage = self._nameless.pop(block.seq - 1 - back, None)
            if damage is not None and groups is not None:
                self._named(file, groups, damage)
        for seq in [seq for seq in self._nameless if seq < block.seq - ECHO_BLOCKS]:
            self._doubt_everyone(self._nameless.pop(seq))  # nobody will name it any more
        name = wal.file_name(file.number)
        for item in block.items:
            group = item[0] if isinstance(item, tuple) else item.group
            if group in self.deleted:
                continue
            if isinstance(item, Note) and item.type == CREATE and group not in self.logs:
                self.logs[group] = self._new_log(group)
            log = self._log(group, Damage(name, block.position, "the group's creation is missing"))
            self.touched[file.number][group] = log
            if isinstance(item, Note):
                self._note(file, log, item)
            else:
                self._entries(file, log, item)
        if block.lost_records:
            file.damaged = True
            self._nameless[block.seq] = Damage(name, block.position, LOST)

    def _note(self, file: LogFile, log: GroupLog, note: Note) -> None:
        if note.type == DELETE:
            self._delete(log.group)
            return
        restore_note(log, file.number, note)
        if note.type == HARD_STATE:
            for doubt in self._doubts.get(log.group, ()):
                doubt.hard_state = True

    def _entries(self, file: LogFile, log: GroupLog, item: tuple[int, list[Entry]] | BadPayload) -> None:
        name = wal.file_name(file.number)
        if isinstance(item, BadPayload):
            file.damaged = True
            index = item.index
            gap = restore_rotten(log, file.number, index, item.term, item.mark)
            what = f"the payload of entry {index} has rotted"
            log.damaged(Damage(name, item.position, what, index, index, lost=False, term=item.term))
        else:
            index = item[1][0].index
            gap = restore_entries(log, file.number, item[1])
        if gap is not None:
            log.damaged(Damage(name, 0, "entries are missing", *gap, lost=False))
        for doubt in self._doubts.get(log.group, ()):
            if doubt.entry_index is None:
                doubt.entry_index = index

    def _named(self, file: LogFile, groups: tuple[int, ...], damage: Damage) -> None:
        for number in groups:
            group = number & ~ECHO_DELETED
            if group in self.deleted:
                continue
            log = self.logs.get(group) or self._log(group, damage)
            self.touched[file.number][group] = log
            if number & ECHO_DELETED:
                self._delete(group)
            else:
                self._doubt(log, damage)

    def _log(self, group: int, damage: Damage) -> GroupLog:
        """A group's log; where it should be known and is not, an empty one in doubt."""
        log = self.logs.get(group)
        if log is None:
            log = self.logs[group] = self._new_log(group)
            self._doubt(log, damage)
        return log

    def _delete(self, group: int) -> None:
        self.logs.pop(group).deleted = True
        self._doubts.pop(group, None)
        self.deleted[group] = None

    # ---- what it comes to

    def _doubt(self, log: GroupLog, damage: Damage) -> None:
        self._doubts.setdefault(log.group, []).append(Doubt(damage))

    def _doubt_everyone(self, damage: Damage) -> None:
        self.forgot = True
        for log in self.logs.values():
            self._doubt(log, damage)

    def _conclude(self) -> None:
        for group, doubts in self._doubts.items():
            log = self.logs[group]
            for doubt in doubts:
                damage = doubt.outcome(log)
                if damage is not None:
                    log.damaged(damage)
        for number, damage in self._found.lost_segments:
            for log in self.logs.values():  # what is missing behind the snapshot shows by itself
                if log.snapshot_index and number not in log.repaired:
                    log.damaged(replace(damage, first_index=1, last_index=log.snapshot_index))
        for log in self.logs.values():
            for first, last in missing(log):
                if not any(known.first_index <= first and last <= known.last_index for known in log.damages):
                    log.damaged(Damage("segments", 0, "entries are missing", first, last, lost=False))
        if self.forgot and self.touched:  # the flush that removes what tells of it writes down what is damaged
            self.touched[min(self.touched)].update(self.logs)
