"""What a node finds on its disk when it starts.

    read_disk    (blocking)  folders and log files are synced, then read
    finish_disk  (blocking)  a torn tail is cut, and that synced, when the file that says so is durable

What the groups have of it is put together in replication/storage/rebuilding.py.

Every step may be cut short by another crash and done again: nothing is deleted but what a durable file makes
needless.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from replication.environment import Disk, File
from replication.machine import Range
from replication.storage import snapshots, wal
from replication.storage.damage import Damage
from replication.storage.format import (
    ECHO_BLOCKS,
    FIRST_BLOCK,
    SECTOR_BYTES,
    Echo,
    FileHeader,
    Note,
    decode_file_header,
    encode_entries,
    encode_note,
)
from replication.storage.scan import BadPayload, Block, Scan, scan_file
from replication.storage.segment_files import SegmentFiles
from replication.storage.segments import FOLDER as SEGMENT_FOLDER
from replication.storage.segments import file_name as segment_name
from replication.storage.snapshots import FOLDER as SNAPSHOT_FOLDER
from replication.storage.snapshots import SnapshotFiles
from replication.storage.wal import FirstBlock

ASIDE = ".damaged"
"""End of the name of a file that is kept for people only; its number is not given again."""
AGAIN = ".again"
"""End of a file's name for the moment between two."""
SPARE_BYTES_KEPT = 1 << 20
"""Unused bytes of a file that may stay in memory because its beginning is in use."""
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
    lost: list[tuple[int, Damage]] = field(default_factory=list)
    """Damage that may be of any group, with the number of the file behind whose content it has its place."""
    lost_segments: list[tuple[int, Damage]] = field(default_factory=list)
    """Segment files without a directory, by number."""
    last: Block | None = None
    """The last block of all, for which nobody vouches: it is in none of the files, and goes into the next one."""
    cuts: list[tuple[int, int]] = field(default_factory=list)
    """(file, end) of files to be cut to what they have of the log, when the next file is durable."""
    torn_file: str | None = None
    """The file in which a write that was never confirmed was cut off."""
    empty: list[int] = field(default_factory=list)
    """Files that have nothing of it."""

    @property
    def echo(self) -> Echo:
        """The groups of the last blocks, for the first one of the next file to name."""
        if self.last is not None:
            return self.last.echo
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

    def first_block(self) -> FirstBlock | None:
        """The last block as it is written again."""
        if self.last is None:
            return None
        block = FirstBlock(self.last.named() or ())
        for item in self.last.items:
            if isinstance(item, Note):
                block.table.append(encode_note(item.type, item.group, item.index, item.term, item.mark))
                block.records += 1
            else:
                assert not isinstance(item, BadPayload), "the last block is whole"
                block.payload_bytes += encode_entries(*item, block.table, block.payloads)
                block.records += len(item[1])
        return block


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
            elif name.endswith(AGAIN):
                disk.rename(f"{folder}/{name}", f"{folder}/{name.removesuffix(AGAIN)}")
        disk.sync_folder(folder)  # names that the last process had not synced are certain from here on
    numbers = _numbers(disk, SNAPSHOT_FOLDER, ".snap")
    for number in numbers:
        snapshot_files.load(number)
    if numbers:
        _name_again(disk, SNAPSHOT_FOLDER, [snapshots.file_name(numbers[-1])])
    found = _read_log(disk, snapshot_files)
    _read_segments(disk, segment_files, snapshot_files.covered, found)
    return found


def finish_disk(disk: Disk, found: Found) -> None:
    """Cut what is behind the end of the log (blocking); the next file, which says where that is, is durable."""
    for number, end in found.cuts:
        file = disk.open(wal.file_name(number))
        file.truncate(end)
        file.sync()
        file.close()
    for number in found.empty:
        disk.unlink(wal.file_name(number))


def _name_again(disk: Disk, folder: str, names: list[str]) -> None:
    """Give files their names once more and sync that.

    A folder's sync that failed may have lost names for good that this process still sees, and a later sync that
    succeeds does not bring them back. Whoever deletes something because of such a file makes sure of it first.
    """
    for name in names:
        disk.rename(name, name + AGAIN)
        disk.rename(name + AGAIN, name)
    disk.sync_folder(folder)


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
    found = Found(continues=FileHeader(max([covered, *numbers]) + 1, 0, 0, 0, 0))
    chain = _chain([_LogContent(disk, number) for number in numbers], covered, found)
    for at, content in enumerate(chain):
        _take_file(content, chain[at + 1] if at + 1 < len(chain) else None, found)
    return found


def _chain(contents: list[_LogContent], covered: int, found: Found) -> list[_LogContent]:
    """The files that the log is in, oldest first: each says which one it continues.

    A file that is passed over was found without any block when its successor was made, and was not unlinked yet.
    """
    chain: list[_LogContent] = []
    due: int | None = None
    for content in reversed(contents):
        if due is not None and content.number > due:
            found.empty.append(content.number)
            continue
        if due is not None and content.number < due:
            _report_missing(chain[-1], found)
        chain.append(content)
        due = content.header.previous_number if content.header is not None else None
    if due is not None and due > covered and due != chain[-1].number:
        _report_missing(chain[-1], found)
    return chain[::-1]


def _report_missing(content: _LogContent, found: Found) -> None:
    damage = Damage(content.name, 0, "a write-ahead log file is missing before this one")
    found.lost.append((content.number - 1, damage))


def _take_file(content: _LogContent, successor: _LogContent | None, found: Found) -> None:
    """Scan a file and note where the log ends in it."""
    after = found.continues
    header = content.header
    if header is None:
        damage = Damage(content.name, 0, "the header of a write-ahead log file is damaged")
        found.lost.append((content.number, damage))
        scan = Scan(end=content.size_bytes, last_seq=after.previous_seq + content.size_bytes // SECTOR_BYTES)
    else:
        scan = scan_file(content.data, header, successor.header if successor else None, content.unreadable)
        if successor is None and content.size_bytes - scan.end > SPARE_BYTES_KEPT and not content.unreadable:
            # Payloads are slices of what was read: do not hold an almost empty file in memory for them.
            whole, torn = scan_file(memoryview(bytes(content.data[: scan.end])), header, None), scan.torn
            assert whole.end == scan.end, "the log ends where it ended before"
            scan = whole
            scan.torn = torn
        if scan.torn and successor is not None:
            found.lost.append((content.number, Damage(content.name, scan.end, LOST)))
        elif scan.torn:
            found.torn_file = content.name
    last = scan.items[-1] if scan.items and successor is None else None
    if isinstance(last, Block):
        scan.items.pop()
        scan.end, scan.last_seq = last.position, last.seq - 1
        found.last = last
    if not scan.items and header is not None:
        found.empty.append(content.number)
        previous = header.previous_number, header.previous_seq, header.previous_end
    else:
        damaged = header is None or (scan.torn and successor is not None)
        found.files.append(LogFile(content.number, scan, damaged))
        previous = content.number, scan.last_seq, scan.end
        if successor is None and scan.end < content.size_bytes:
            found.cuts.append((content.number, scan.end))
    found.continues = FileHeader(after.number, 0, *previous)


def set_aside(disk: Disk, number: int, *, keep: bool) -> None:
    """Remove a write-ahead log file that was flushed (blocking), or only rename it where something is damaged."""
    name = wal.file_name(number)
    if keep:
        disk.rename(name, name + ASIDE)
    else:
        disk.unlink(name)


class _LogContent:
    """The bytes of a file, synced before they are read: what the last process wrote is certain or gone."""

    def __init__(self, disk: Disk, number: int) -> None:
        self.number = number
        self.name = wal.file_name(number)
        file = disk.open(self.name)
        file.sync()
        self.size_bytes = file.size()
        self.unreadable: list[Range] = []
        self.data = memoryview(_read_all(file, self.size_bytes, self.unreadable))
        file.close()
        self.header = decode_file_header(self.data[:FIRST_BLOCK])
        if self.header is not None and self.header.number != number:
            self.header = None


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


def _read_segments(disk: Disk, segment_files: SegmentFiles, covered: int, found: Found) -> None:
    unflushed = {file.number for file in found.files}
    segment_files.last_number = max(_numbers(disk, SEGMENT_FOLDER, ".seg" + ASIDE), default=0)
    orphans: list[int] = []
    for number in _numbers(disk, SEGMENT_FOLDER, ".seg"):
        file = segment_files.load(number)
        if file is None:
            what = "the directory of a segment file is damaged"
            damage = Damage(segment_name(number), 0, what, lost=False, segment=number)
            found.lost_segments.append((number, damage))
            continue
        origin = max((part.origin for part in file.parts), default=0)
        if origin <= covered:
            continue
        if origin in unflushed:  # of a flush that was cut short: all of it is in the write-ahead log still
            orphans.append(number)
        else:
            found.lost.append((0, Damage(segment_name(number), 0, f"snapshot file {origin} is missing")))
    _name_again(disk, SEGMENT_FOLDER, [segment_name(number) for number in _rewritten(segment_files)])
    for number in orphans:
        del segment_files.files[number]
        disk.unlink(segment_name(number))
    if orphans:
        disk.sync_folder(SEGMENT_FOLDER)


def _rewritten(segment_files: SegmentFiles) -> list[int]:
    """Files with parts that stand in for older ones which are still there."""
    seen: dict[tuple[int, int, int], None] = {}
    found: dict[int, None] = {}
    for number, file in segment_files.files.items():
        for part in file.parts:
            if part.key in seen:
                found[number] = None
            seen[part.key] = None
    return list(found)
