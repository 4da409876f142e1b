"""What can be set about storage."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Sizes and intervals of one node's storage. The defaults suit a broker; tests make them tiny."""

    wal_file_bytes: int = 32 * MEBIBYTE
    """Preallocated size of a write-ahead log file; a full one is flushed to segments."""
    wal_file_entries: int = 65_536
    """Entries after which a file counts as full: bounds the memory that many tiny entries take."""
    wal_write_bytes: int = 8 * MEBIBYTE
    """Bytes of one group commit."""
    wal_files_waiting_max: int = 2
    """Full files that may wait for their flush before `Store.pressure` says "busy"."""
    seal_after_ms: int = 50
    """Idle time after which a seal block says that everything before it is synced."""
    segment_own_bytes: int = 4 * MEBIBYTE
    """Bytes of one group in one flush from which on it gets a segment file of its own."""
    segment_index_bytes: int = 64 * 1024
    """Distance between two points of a segment's sparse index."""
    compact_below_percent: int = 25
    """A segment file with less than this share of live bytes is rewritten."""
    low_space_bytes: int = 256 * MEBIBYTE
    """Free disk space under which `Store.pressure` says "low"."""
    critical_space_bytes: int = 96 * MEBIBYTE
    """Free disk space under which it says "critical"."""
    ballast_bytes: int = 16 * MEBIBYTE
    """Size of a file that is given up when the disk is full, so that the flush that frees space can be done."""
    janitor_interval_ms: int = 1_000
    """Time between two looks at dead files, free space and files worth compacting."""
    scrub_bytes_per_s: int = 4 * MEBIBYTE
    """Speed at which old files are read to find rot before a consumer does; 0: never."""
