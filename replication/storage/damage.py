"""What storage says when the disk did not keep its word."""

from __future__ import annotations

from dataclasses import dataclass

from plait.wire.errors import StorageDamaged

INDEX_UNKNOWN = (1 << 63) - 1
"""Last index of a damaged range whose end nobody knows."""


class StorageFailed(Exception):
    """A write or sync of this node's disk failed. Nothing is acknowledged any more and nothing is tried again:
    the kernel may have dropped the pages (fsyncgate). The node ends; a restart syncs, reads and recovers."""


class StorageLocked(Exception):
    """Another process has the data directory open."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Part of a group's synced data that cannot be read back as it was written.

    The entries of indexes `first_index` to `last_index` (both included) are in doubt; 0 to INDEX_UNKNOWN where
    not even that is known.
    """

    file: str
    position: int
    what: str
    first_index: int = 0
    last_index: int = INDEX_UNKNOWN

    def __str__(self) -> str:
        return f"{self.what}, in {self.file} at byte {self.position}"

    def error(self, group: int) -> StorageDamaged:
        """The error for whoever asked for what is damaged."""
        return StorageDamaged(
            f"group {group}: {self}; nothing was served from there. Restore the file from a backup or a replica",
            group=group,
            file=self.file,
            position=self.position,
        )
