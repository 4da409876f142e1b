"""How much of replication is measured, what the project has promised, and the words between `plait bench raft` and
its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

PARTS = ("batched", "single", "idle", "start", "failover")
"""What can be measured, in this order."""


@dataclass(frozen=True)
class RaftTargets:
    """Three nodes on one machine, everything synced to disk; entries of 100 bytes."""

    batched_ratio: float = 0.5
    """Replicated entries per second, as a share of what a single node does in the same run."""
    single_ratio: float = 3
    """Median of one entry at a time, in medians of a single node."""
    idle_percent: float = 1
    """Of a core, for each node, with idle groups."""
    group_kb: float = 20
    """Memory of a group on each node."""
    start_s: float = 20
    """Until each group has a leader that is ready."""
    failover_s: float = 1.5
    """From the kill of the leader until a proposal succeeds on another, median."""


@dataclass(frozen=True)
class RaftWorkload:
    """How many of each."""

    entry_bytes: int = 100
    batch_bytes: int = 64 * 1024
    batches_under_way: int = 6
    """Proposed, and not applied yet."""
    trickle_ms: int = 10
    """Time between two proposals to a leader that is about to be killed, every second time."""


RAFT_TARGETS = RaftTargets()
RAFT_WORKLOAD = RaftWorkload()


class NodeOrders(msgspec.Struct, frozen=True):
    """How a node process begins; JSON on its command line."""

    node: int
    folder: str
    port: int = 0
    profile: str = ""
    """A file for a cProfile; empty: none."""


class Ask(msgspec.Struct, omit_defaults=True):
    """A line to a node."""

    id: int
    do: str
    """A method of raft_node.Work."""
    args: dict[str, Any] = {}


class Answer(msgspec.Struct, omit_defaults=True):
    """A line from a node: the answer to the question of that number."""

    id: int
    value: Any = None
    error: str = ""
