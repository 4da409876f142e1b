"""What one Raft replica is told about time and sizes. The defaults are for a local network."""

from __future__ import annotations

from dataclasses import dataclass

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Times in milliseconds, sizes in bytes. The same on all replicas of a group."""

    beat_ms: int = 100
    """A leader that has said nothing else says that it is there, this often."""
    election_ms: int = 750
    """Silence after which a follower doubts its leader, and a leader its quorum. Each draws its own between this
    and twice this, so that two rarely campaign at once."""
    resend_ms: int = 500
    """Appends unanswered for this long are taken for lost."""
    append_bytes: int = 1 << 20
    """Payload of one append message; one larger entry travels alone."""
    window_messages: int = 256
    """Append messages to one follower that may be unanswered."""
    window_bytes: int = 8 << 20
    """Their payload together; at least one message is let through, however large."""
    uncommitted_bytes: int = 64 << 20
    """Payload that a leader holds appended and not committed; more is refused. Admission's limits are far below:
    this one bounds what a lost quorum can pile up."""
    reads_waiting: int = 100_000
    """Reads that wait for a quorum's word in one group; more are refused."""
    promotion_entries: int = 1_024
    """A learner may become a voter when it lacks no more than this many entries."""
    quiet_beats: int = 5
    """Beats with nothing to do after which a group goes to sleep."""
    sleeps: bool = True
    """Idle groups go to sleep: no beats, no timers, while the nodes of their members hear each other."""
