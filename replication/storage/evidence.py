"""Files that cannot be read, for as long as a log may need what was in them.

A segment file without a directory, or a snapshot file without one, puts groups in doubt at every start. When a
snapshot from elsewhere has repaired them all, durably, the file is given another name: people may still want to
look at it, and no start takes it into account any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from replication.environment import Disk
from replication.storage.log import GroupLog
from replication.storage.recovery import ASIDE
from replication.storage.snapshots import SnapshotFiles


@dataclass(slots=True)
class UnreadableFile:
    """One of them, and the groups that it puts in doubt."""

    name: str
    groups: dict[int, None]
    snapshot: int = 0
    """Its number, if it is a snapshot file."""


class Evidence:
    """All of them."""

    def __init__(self, snapshot_files: SnapshotFiles) -> None:
        self._snapshot_files = snapshot_files
        self._since = 0
        self.files: list[UnreadableFile] = []

    def found(self, segments: Iterable[str], snapshots: Mapping[int, str], logs: Iterable[GroupLog]) -> None:
        """These files were found unreadable; the logs are as they were put together from the others."""
        self._since = self._snapshot_files.covered
        self.files = [UnreadableFile(name, {}) for name in segments]
        self.files += [UnreadableFile(name, {}, number) for number, name in snapshots.items()]
        by_name = {file.name: file for file in self.files}
        for log in logs:
            for damage in log.damages:
                if damage.file in by_name:
                    by_name[damage.file].groups[log.group] = None

    def settled(self, logs: Mapping[int, GroupLog]) -> list[UnreadableFile]:
        """Those that no log of these needs any more."""
        return [file for file in self.files if not self._needed(file, logs)]

    def _needed(self, file: UnreadableFile, logs: Mapping[int, GroupLog]) -> bool:
        if file.snapshot and file.snapshot >= self._snapshot_files.covered:
            return True  # its number alone says that the write-ahead log up to there was given up
        return any(self._needs(logs.get(group), file) for group in file.groups)

    def _needs(self, log: GroupLog | None, file: UnreadableFile) -> bool:
        if log is None:
            return False
        row = log.snapshot_row
        if row is None or row.number <= self._since:
            return True  # nothing durable says that it is repaired
        return any(damage.file == file.name for damage in (*log.damages, *row.damages))

    def set_aside(self, disk: Disk, files: Iterable[UnreadableFile]) -> None:
        """Give them other names (blocking). Raises OSError."""
        for file in files:
            disk.rename(file.name, file.name + ASIDE)
            disk.sync_folder(file.name.rpartition("/")[0])

    def forget(self, files: Iterable[UnreadableFile]) -> None:
        """They have other names."""
        for file in files:
            self.files.remove(file)
            if file.snapshot:
                self._snapshot_files.unreadable.pop(file.snapshot, None)
                self._snapshot_files.forgotten([file.snapshot])
