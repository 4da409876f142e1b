"""What a core wants done, collected until its driver takes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from replication.machine import Role
from replication.raft.membership import Membership
from replication.raft.messages import Message, SnapshotOffer


@dataclass(frozen=True, slots=True)
class Standing:
    """What a replica is, for those above."""

    term: int
    role: Role
    leader: int
    """Replica id of the leader; 0: unknown."""
    ready: bool
    """It leads, and the first entry of its term has been applied."""
    reason: str = ""
    """For people: why it is fenced."""


@dataclass(slots=True)
class Output:
    """Act on it in any order, except that messages to one target keep theirs. What is written was written already:
    messages that speak of it are held back until it is durable."""

    messages: list[Message] = field(default_factory=list)
    wanted: list[tuple[int, int]] = field(default_factory=list)
    """(replica, first index): entries for a follower that are not in memory; read and call `loaded`."""
    install: SnapshotOffer | None = None
    """Fetch that snapshot, install it, call `installed` (or `install_failed`)."""
    checkpoint: bool = False
    """A follower whose storage is damaged waits for a newer snapshot: have one made of what is applied."""
    commit: int = 0
    """Entries up to here are committed; apply them and call `applied`."""
    reads: list[tuple[int, int]] = field(default_factory=list)
    """(ticket, index): safe to answer when `index` is applied."""
    lost_reads: list[int] = field(default_factory=list)
    """Tickets of reads that this replica cannot vouch for any more."""
    standing: Standing | None = None
    """Set when it changed."""
    membership: Membership | None = None
    """Set when the effective one changed."""
