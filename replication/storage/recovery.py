"""What a node finds on its disk when it starts.

    read_disk   (blocking)  folders and log files are synced, then read; a torn tail is cut, and that synced
    LogBuilder  (memory)    snapshot rows, then segments, then the write-ahead log in order

Every step may be cut short by another crash and done again: nothing is deleted but what a durable file makes
needless.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from replication.environment import Disk, File
from replication.machine import Range
from replication.storage import snapshots, wal
from replication.storage.damage import Damage
from replication.storage.format import (
    CREATE,
    DELETE,
    ECHO_BLOCKS,
    ECHO_DELETED,
    FIRST_BLOCK,
    SECTOR_BYTES,
    Echo,
    FileHeader,
    Record,
    decode_file_header,
)
from replication.storage.log import GroupLog
from replication.storage.scan import Block, Hole, Scan, scan_file
from replication.storage.segment_files import SegmentFiles
from replication.storage.segments import FOLDER as SEGMENT_FOLDER
from replication.storage.segments import Part
from replication.storage.segments import file_name as segment_name
from replication.storage.snapshots import FOLDER as SNAPSHOT_FOLDER
from replication.storage.snapshots import SnapshotFiles

LOST = "synced records of the write-ahead log are damaged"


@dataclass(slots=True)
class LogFile:
    """One write-ahead log file that was read."""

    number: int
    scan: Scan
    damaged: bool = False


@dataclass(slots=True)
class Found:
    """What was on the disk."""

    files: list[LogFile] = field(default_factory=list)
    """Not flushed yet, oldest first, none of them empty."""
    continues: FileHeader = field(default_factory=lambda: FileHeader(1, 0, 0, 0, 0))
    """What the header of the next file says."""
    lost: list[Damage] = field(default_factory=list)
    """Damage that may be of any group."""
    lost_segments: list[Damage] = field(default_factory=list)

    @property
    def echo(self) -> Echo:
        """The groups of the last blocks, for the first new one to name."""
        named: list[tuple[int, ...] | None] = []
        for file in reversed(self.files):
            for item in reversed(file.scan.items):
                if isinstance(item, Block):
                    named.append(item.named())
                else:
                    named += [None] * min(item.last_seq - item.first_seq + 1, ECHO_BLOCKS)
                if len(named) >= ECHO_BLOCKS:
                    return tuple(named[:ECHO_BLOCKS])
        return tuple(named)


# ---- the disk


def read_disk(disk: Disk, snapshot_files: SnapshotFiles, segment_files: SegmentFiles) -> Found:
    """Read everything that opening needs (blocking). Raises OSError."""
    for folder in (wal.FOLDER, SEGMENT_FOLDER, SNAPSHOT_FOLDER):
        disk.make_folder(folder)
    disk.sync_folder("")
    for folder in (wal.FOLDER, SEGMENT_FOLDER, SNAPSHOT_FOLDER):
        for name in disk.list(folder):
            if name.endswith(".tmp"):
                disk.unlink(f"{folder}/{name}")
        disk.sync_folder(folder)  # names that the last process had not synced are certain from here on
    for number in _numbers(disk, SNAPSHOT_FOLDER, ".snap"):
        snapshot_files.load(number)
    found = _read_log(disk, snapshot_files)
    _read_segments(disk, segment_files, snapshot_files.covered, found)
    return found


def _numbers(disk: Disk, folder: str, suffix: str) -> list[int]:
    names = (name.removesuffix(suffix) for name in disk.list(folder) if name.endswith(suffix))
    return sorted(int(name) for name in names if name.isdigit())


def _read_log(disk: Disk, snapshot_files: SnapshotFiles) -> Found:
    covered = snapshot_files.covered
    numbers = _numbers(disk, wal.FOLDER, ".wal")
    for number in numbers:
        if number <= covered:
            set_aside(disk, number, keep=bool(snapshot_files.unreadable))
    numbers = [number for number in numbers if number > covered]
    contents = [_LogContent(disk, number) for number in numbers]
    found = Found()
    last_seq, last_number, end = 0, 0, 0
    for at, content in enumerate(contents):
        header, last = content.header, at == len(contents) - 1
        if header is None:
            found.lost.append(Damage(content.name, 0, "the header of a write-ahead log file is damaged"))
            header = FileHeader(content.number, 0, last_number, last_seq, end)
        elif header.previous_number > covered and header.previous_number not in numbers:
            found.lost.append(Damage(content.name, 0, "a write-ahead log file is missing before this one"))
        scan = scan_file(content.data, header, _successor(contents[at + 1 :], content.number), content.unreadable)
        if content.header is None:
            scan = Scan(end=content.size_bytes, last_seq=last_seq + content.size_bytes // SECTOR_BYTES)
        elif scan.torn and not last:
            found.lost.append(Damage(content.name, scan.end, LOST))
        elif last:
            content.cut(scan.end)
        content.file.close()
        if scan.items or content.header is None:
            damaged = content.header is None or (scan.torn and not last)
            found.files.append(LogFile(content.number, scan, damaged))
            last_number, last_seq, end = content.number, scan.last_seq, scan.end
        else:
            disk.unlink(content.name)
            last_number, last_seq, end = header.previous_number, header.previous_seq, header.previous_end
    found.continues = FileHeader(max([covered, *numbers]) + 1, 0, last_number, last_seq, end)
    return found


def set_aside(disk: Disk, number: int, *, keep: bool) -> None:
    """Remove a write-ahead log file that was flushed (blocking), or only rename it where something is damaged."""
    name = wal.file_name(number)
    if keep:
        disk.rename(name, f"{name}.damaged")
    else:
        disk.unlink(name)


class _LogContent:
    """The bytes of a file, synced before they are read: what the last process wrote is certain or gone."""

    def __init__(self, disk: Disk, number: int) -> None:
        self.number = number
        self.name = wal.file_name(number)
        self.file = disk.open(self.name)
        self.file.sync()
        self.size_bytes = self.file.size()
        self.unreadable: list[Range] = []
        self.data = memoryview(_read_all(self.file, self.size_bytes, self.unreadable))
        self.header = decode_file_header(self.data[:FIRST_BLOCK])
        if self.header is not None and self.header.number != number:
            self.header = None

    def cut(self, end: int) -> None:
        if end < self.size_bytes:
            self.file.truncate(end)
            self.file.sync()


def _read_all(file: File, size_bytes: int, unreadable: list[Range]) -> bytes:
    try:
        return file.pread(size_bytes, 0)
    except OSError:
        parts: list[bytes] = []
        for position in range(0, size_bytes, SECTOR_BYTES):
            length = min(SECTOR_BYTES, size_bytes - position)
            try:
                parts.append(file.pread(length, position))
            except OSError:
                parts.append(bytes(length))
                unreadable.append((position, position + length - 1))
        return b"".join(parts)


def _successor(later: list[_LogContent], number: int) -> FileHeader | None:
    for content in later:
        if content.header is not None and content.header.previous_number == number:
            return content.header
    return None


def _read_segments(disk: Disk, segment_files: SegmentFiles, covered: int, found: Found) -> None:
    unflushed = {file.number for file in found.files}
    orphans: list[int] = []
    for number in _numbers(disk, SEGMENT_FOLDER, ".seg"):
        file = segment_files.load(number)
        if file is None:
            damage = Damage(segment_name(number), 0, "the directory of a segment file is damaged")
            found.lost_segments.append(damage)
            continue
        origin = max((part.origin for part in file.parts), default=0)
        if origin <= covered:
            continue
        if origin in unflushed:  # of a flush that was cut short: all of it is in the write-ahead log still
            orphans.append(number)
        else:
            found.lost.append(Damage(segment_name(number), 0, f"snapshot file {origin} is missing"))
    for number in orphans:
        del segment_files.files[number]
        disk.unlink(segment_name(number))
    if orphans:
        disk.sync_folder(SEGMENT_FOLDER)


# ---- the logs


class LogBuilder:
    """Puts together what each group has. Memory only."""

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
        self._found = found
        self._snapshot_files = snapshot_files
        self._segment_files = segment_files
        self._new_log = new_log
        self._nameless: dict[int, Damage] = {}  # lost blocks by seq, until an echo names their groups
        self._lost: list[Damage] = list(found.lost)

    def build(self) -> None:
        """All of it, in the order in which it was written."""
        self._rows()
        self._segments()
        for file in self._found.files:
            self.touched[file.number] = {}
            for item in file.scan.items:
                if isinstance(item, Hole):
                    self._hole(file, item)
                else:
                    self._block(file, item)
        self._lost += self._nameless.values()
        for damage in self._lost + self._found.lost_segments:
            for log in self.logs.values():
                log.damaged(damage)
        if self._lost and self.touched:  # the next flush writes down what is damaged, of every group
            self.touched[max(self.touched)].update(self.logs)

    def _rows(self) -> None:
        unreadable = max(self._snapshot_files.unreadable, default=0)
        for group, row in self._snapshot_files.newest.items():
            if row.deleted:
                self.deleted[group] = None
                continue
            log = self.logs[group] = self._new_log(group)
            log.restore_row(row)
            if row.number < unreadable:  # that file may have had a newer one
                log.damaged(
                    Damage(snapshots.file_name(unreadable), 0, "the directory of a snapshot file is damaged")
                )

    def _segments(self) -> None:
        parts: dict[int, dict[int, Part]] = {}
        for file in self._segment_files.files.values():  # rising numbers: a rewritten part replaces its original
            for part in file.parts:
                parts.setdefault(part.group, {})[part.origin] = part
        for group, found in parts.items():
            if group not in self.deleted:
                damage = Damage(segment_name(next(iter(found.values())).number), 0, "what goes with it is missing")
                self._log(group, damage).restore_parts(list(found.values()))

    def _log(self, group: int, damage: Damage) -> GroupLog:
        """A group's log; where it should be known and is not, an empty and damaged one."""
        log = self.logs.get(group)
        if log is None:
            log = self.logs[group] = self._new_log(group)
            log.damaged(damage)
        return log

    def _hole(self, file: LogFile, hole: Hole) -> None:
        file.damaged = True
        damage = Damage(wal.file_name(file.number), hole.position, LOST)
        if hole.last_seq - hole.first_seq >= ECHO_BLOCKS:
            self._lost.append(damage)
        else:
            for seq in range(hole.first_seq, hole.last_seq + 1):
                self._nameless[seq] = damage

    def _block(self, file: LogFile, block: Block) -> None:
        for back, groups in enumerate(block.echo):
            damage = self._nameless.pop(block.seq - 1 - back, None)
            if damage is not None and groups is not None:
                self._named(file, groups, damage)
        name = wal.file_name(file.number)
        touched = self.touched[file.number]
        for item in block.items:
            group = item.group if isinstance(item, Record) else item[0]
            if group in self.deleted:
                continue
            if isinstance(item, Record) and item.type == CREATE and group not in self.logs:
                self.logs[group] = self._new_log(group)
            log = self._log(group, Damage(name, block.position, "the group's creation is missing"))
            touched[group] = log
            if not isinstance(item, Record):
                index = log.last_index + 1
                if not log.restore_entry(file.number, item[1]):
                    log.damaged(Damage(name, block.position, "entries are missing", index, item[1].index - 1))
            elif item.type == DELETE:
                self._delete(group)
            else:
                log.restore_note(file.number, item)
        self._rotten(file, block)

    def _rotten(self, file: LogFile, block: Block) -> None:
        name = wal.file_name(file.number)
        for bad in block.bad_payloads:
            file.damaged = True
            if bad.group in self.deleted:
                continue
            damage = Damage(
                name, bad.position, f"the payload of entry {bad.index} has rotted", bad.index, bad.index
            )
            log = self._log(bad.group, damage)
            self.touched[file.number][bad.group] = log
            log.damaged(damage)
            log.restore_missing(bad.index)
        if block.lost_records:
            file.damaged = True
            self._nameless[block.seq] = Damage(name, block.position, LOST)

    def _named(self, file: LogFile, groups: tuple[int, ...], damage: Damage) -> None:
        for number in groups:
            group = number & ~ECHO_DELETED
            if group in self.deleted:
                continue
            log = self._log(group, damage)
            self.touched[file.number][group] = log
            if number & ECHO_DELETED:
                self._delete(group)
            else:
                log.damaged(damage)

    def _delete(self, group: int) -> None:
        self.logs.pop(group).deleted = True
        self.deleted[group] = None
