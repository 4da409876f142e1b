"""What a partition takes, and what its node lets it take: the figures that admission decides by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from cluster.settings import Overflow, QueueSettings, Settings
from cluster.waiting_room import NODE_WAITING_BYTES, WaitingRoom

IN_FLIGHT_BYTES = 8 * 1_048_576
"""Bytes of a partition's publishes that are proposed and not committed."""
IN_FLIGHT_PUBLISHES = 1_024
"""A partition's publishes that are proposed and not committed."""
NODE_IN_FLIGHT_BYTES = 64 * 1_048_576
"""Bytes of all of a node's partitions' publishes that are proposed and not committed."""
MEMORY_TIGHT_PERCENT = 80
"""Share of the node's memory watermark from which in-flight limits shrink; at 100 nothing is admitted."""
MEMORY_CAP_DIVISOR = 8
"""What is left of an in-flight limit just below the memory watermark: one such part."""

Storage = Literal["none", "busy", "low", "critical"]


class NodePressure:
    """What all partitions of a node share; the node keeps the first two up to date, admission the sums.

    `storage` is the log's pressure: busy (behind with flushing), low or critical (space). `memory_percent` is
    memory in use as a share of the node's watermark.
    """

    __slots__ = (
        "in_flight_bytes",
        "in_flight_bytes_max",
        "leaving",
        "memory_percent",
        "refused",
        "room",
        "scarce",
        "storage",
    )

    def __init__(
        self, in_flight_bytes_max: int = NODE_IN_FLIGHT_BYTES, waiting_bytes_max: int = NODE_WAITING_BYTES
    ) -> None:
        self.storage: Storage = "none"
        self.memory_percent = 0
        self.scarce: dict[int, Storage] = {}
        """Other nodes that are short of disk space ("low", "critical")."""
        self.leaving: dict[int, None] = {}
        """Groups that are led here, and about to be led by nodes with more space."""
        self.in_flight_bytes = 0
        """Sum over all partitions' permits; 0 <= it <= in_flight_bytes_max."""
        self.in_flight_bytes_max = in_flight_bytes_max
        self.room = WaitingRoom(waiting_bytes_max)
        self.refused: dict[str, int] = {}
        """How many publishes admission has refused, by reason."""

    def tightened(self, cap: int) -> int:
        """What is left of a cap: all of it up to MEMORY_TIGHT_PERCENT, then less and less, never nothing."""
        if self.memory_percent <= MEMORY_TIGHT_PERCENT:
            return cap
        left = cap * (100 - self.memory_percent) // (100 - MEMORY_TIGHT_PERCENT)
        return max(left, cap // MEMORY_CAP_DIVISOR, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLimits:
    """What one partition takes; None is no limit."""

    in_flight_bytes: int = IN_FLIGHT_BYTES
    in_flight_publishes: int = IN_FLIGHT_PUBLISHES
    backlog_records: int | None = None
    backlog_bytes: int | None = None
    records_per_s: int | None = None
    bytes_per_s: int | None = None
    overflow: Overflow = "refuse"

    @property
    def evicts(self) -> bool:
        """Whether a full backlog makes room by itself."""
        return self.overflow in ("drop-oldest", "dead-letter")


def limits_of(settings: Settings) -> PartitionLimits:
    """The limits of a partition of the topic or queue with these settings."""
    if isinstance(settings, QueueSettings):
        return PartitionLimits(
            backlog_records=settings.max_backlog_records,
            backlog_bytes=settings.max_backlog_bytes,
            records_per_s=settings.max_publish_records_per_s,
            bytes_per_s=settings.max_publish_bytes_per_s,
            overflow=settings.overflow,
        )
    return PartitionLimits(
        records_per_s=settings.max_publish_records_per_s, bytes_per_s=settings.max_publish_bytes_per_s
    )


class Backlog(NamedTuple):
    """Committed records that are not acknowledged yet, as of the last applied entry."""

    records: int
    size_bytes: int


NO_BACKLOG = Backlog(0, 0)
"""For a partition without backlog limits, which need not count."""
