"""How well a leader's followers follow: what people ask about under-replicated partitions. Pure.

A follower is caught up when it has everything that is committed, or takes what it is sent while there is more.
"""

from __future__ import annotations

from dataclasses import dataclass

from replication.machine import Role
from replication.raft.core import RaftCore
from replication.raft.progress import Pace, Progress
from replication.raft.settings import NS_PER_MS

CAUGHT_UP_MS = 2_000
"""A follower that lacks committed entries counts as caught up while it took some within this time."""


@dataclass(frozen=True, slots=True)
class Follower:
    """One of the leader's other members."""

    replica: int
    node: int
    voter: bool
    caught_up: bool
    lag_entries: int
    """Committed entries that it is not known to have on its disk."""


def followers(core: RaftCore, now_ns: int) -> list[Follower]:
    """All other members, by replica; [] where this replica does not lead."""
    if core.role is not Role.LEADER:
        return []
    return [
        Follower(
            progress.replica,
            progress.node,
            core.membership.is_voter(progress.replica),
            _caught_up(core, progress, now_ns),
            max(0, core.commit - progress.match),
        )
        for _, progress in sorted(core.progress.items())
    ]


def lagging(core: RaftCore, now_ns: int) -> int:
    """How many of the other members are not caught up; 0 where this replica does not lead."""
    if core.role is not Role.LEADER:
        return 0
    return sum(not _caught_up(core, progress, now_ns) for progress in core.progress.values())


def _caught_up(core: RaftCore, progress: Progress, now_ns: int) -> bool:
    if progress.node in core.down or progress.damaged or progress.pace in (Pace.LOST, Pace.SNAPSHOT):
        return False
    return progress.match >= core.commit or now_ns - progress.acked_ns <= CAUGHT_UP_MS * NS_PER_MS
