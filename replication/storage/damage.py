"""What storage says when the disk did not keep its word.

    none        everything that was synced can be read back
    repairable  term and vote are known, and so is which entry the log ends with: what a replica has promised to
                others stands. Payloads, whole entries before the last one, or the snapshot are gone; a snapshot
                from the leader brings them back. Such a replica may vote, and follow; it must not lead
    lost        a record may be gone that held a vote, or entries that were acknowledged and that nothing later
                names. Under its id the replica could break promises that it has forgotten: it is to stay silent
                for good. The same data directory may serve a replica with a new id, by a snapshot from the leader

What makes damage a loss: blocks of the write-ahead log, or the newest directory of a snapshot file, that cannot be
read, unless the log has both a hard state and an entry of the group behind them: the later word replaces the lost
one, and entries up to that later one are merely missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from plait.wire.errors import StorageDamaged

INDEX_UNKNOWN = (1 << 63) - 1
"""Last index of a damaged range whose end nobody knows."""

DamageKind = Literal["none", "repairable", "lost"]


class StorageFailed(Exception):
    """A write or sync of this node's disk failed. Nothing is acknowledged any more and nothing is tried again:
    the kernel may have dropped the pages (fsyncgate). The node ends; a restart syncs, reads and recovers."""


class StorageLocked(Exception):
    """Another process has the data directory open."""


class InstallRefused(Exception):
    """A snapshot from elsewhere is not installed; the log is what it was before."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Part of a group's synced data that cannot be read back as it was written.

    The entries of indexes `first_index` to `last_index` (both included) are in doubt; 0 to INDEX_UNKNOWN where
    not even that is known. Index 0 stands for the snapshot's state.
    """

    file: str
    position: int
    what: str
    first_index: int = 0
    last_index: int = INDEX_UNKNOWN
    lost: bool = True
    """A vote, or the identity of acknowledged entries, may be gone with it."""
    hidden: bool = True
    """Reading does not come across it: whoever reads by mark could miss an entry and not know."""
    term: int = 0
    """Of a single entry whose record is whole: its term; 0: unknown."""
    segment: int = 0
    """The segment file that cannot be read at all; 0: it is something else."""

    def __str__(self) -> str:
        return f"{self.what}, in {self.file} at byte {self.position}"

    def covers(self, other: Damage) -> bool:
        """It says all that the other one says."""
        return (
            self.file == other.file
            and self.first_index <= other.first_index
            and other.last_index <= self.last_index
            and (self.lost or not other.lost)
            and (self.hidden or not other.hidden)
        )

    def behind(self, index: int) -> Damage:
        """The part of it behind that index."""
        return replace(self, first_index=max(self.first_index, index + 1))

    def until(self, index: int) -> Damage:
        """The part of it up to that index."""
        return replace(self, last_index=min(self.last_index, index))

    def error(self, group: int) -> StorageDamaged:
        """The error for whoever asked for what is damaged."""
        return StorageDamaged(
            f"group {group}: {self}; nothing was served from there. Restore the file from a backup or a replica",
            group=group,
            file=self.file,
            position=self.position,
        )


def kind_of(damages: Sequence[Damage]) -> DamageKind:
    """What it means for the replica, all together."""
    if not damages:
        return "none"
    return "lost" if any(damage.lost for damage in damages) else "repairable"
