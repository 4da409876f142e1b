"""How much is measured, and what the project has promised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Targets:
    """On two cores, every acknowledgement synced to disk; messages of 100 bytes."""

    publish_rate: float = 200_000
    """Records per second of one producer, pipelined and batched."""
    read_rate: float = 300_000
    """Records per second of one reader of a stream."""
    queue_rate: float = 60_000
    """Messages per second that ten consumers lease and acknowledge."""
    publish_in_syncs: float = 2.5
    """Median of a single publish, in fdatasyncs of the same disk; plus `publish_extra_s`."""
    publish_extra_s: float = 0.0003
    ready_s: float = 0.3
    """From `plait serve` to ready."""
    idle_mb: float = 50
    backlog_mb: float = 300
    """With the long backlog."""
    backlog_speed: float = 0.9
    """Speed with the long backlog, as a share of that with the short one."""
    backlog_ready_s: float = 3


@dataclass(frozen=True)
class Workload:
    """How many of each, at scale 1."""

    stream: int = 2_000_000
    queue: int = 400_000
    hold: int = 100_000
    """Acknowledged while the backlog is held at its length."""
    hold_rounds: int = 3
    short_backlog: int = 1_000
    publishes: int = 500
    """Single publishes, each beside a synced write."""
    starts: int = 5
    consumers: int = 10
    prefetch: int = 500
    hold_prefetch: int = 50
    """With 1,000 waiting, ten consumers must not have them all on lease."""
    refill: int = 250
    """Published at a time while the backlog is held."""
    values: int = 1_000
    """Different payloads; every batch of work is a multiple of it."""


TARGETS = Targets()
WORKLOAD = Workload()
