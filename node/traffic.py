"""What went through a partition since this node opened it, as plain integers that only ever rise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """One partition's, or the sum of several."""

    batches: int = 0
    """Batches that were committed for somebody who published them here."""
    records: int = 0
    size_bytes: int = 0
    redelivered_records: int = 0
    """Records that were handed to a consumer not for the first time."""
    dead_lettered_records: int = 0
    """Records that were moved to a dead-letter queue."""

    def add(self, other: Traffic) -> None:
        """Sum up."""
        self.batches += other.batches
        self.records += other.records
        self.size_bytes += other.size_bytes
        self.redelivered_records += other.redelivered_records
        self.dead_lettered_records += other.dead_lettered_records
