"""What replicas of a group say to each other.

    candidate ── VoteRequest ──> everyone            leader ── Append, Beat, SnapshotOffer, Sleep ──> follower
             <── VoteAnswer ──                              <── AppendAnswer, BeatAnswer, SleepAnswer ──

Each may be lost, doubled, late or out of order. The names follow the Raft papers (Ongaro and Ousterhout 2014,
figure 2; Ongaro's dissertation, chapters 3, 4, 6 and 9), spoken in Plait's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replication.machine import Entry


@dataclass(slots=True)
class VoteRequest:
    """A candidate asks for a vote; `pre`: asks only whether it would get one (dissertation 9.6)."""

    source: int
    target: int
    term: int
    """The term to be led; a pre-vote's is one more than the asker's own."""
    last_index: int
    last_term: int
    pre: bool
    transfer: bool
    """The leader itself asked for this election: a voter that still hears it may vote."""


@dataclass(slots=True)
class VoteAnswer:
    source: int
    target: int
    term: int
    """Granted pre-vote: the term that was asked for. Everything else: the voter's own."""
    granted: bool
    pre: bool


@dataclass(slots=True)
class Append:
    source: int
    target: int
    term: int
    previous_index: int
    previous_term: int
    entries: Sequence[Entry]
    commit: int
    sequence: int
    """Numbers the appends of this leader to this follower, so that an answer names its question."""


@dataclass(slots=True)
class AppendAnswer:
    source: int
    target: int
    term: int
    sequence: int
    """The append's; 0: unasked."""
    success: bool
    index: int
    """Success: everything up to here is on the follower's disk and the same as the leader's. Else: the
    `previous_index` that did not match."""
    hint_index: int
    """Refused: the last index at which the follower's log can agree with one that has `previous_term` there."""
    hint_term: int
    """Refused: the follower's term at `hint_index`."""
    damaged: bool
    """The follower's storage is damaged: it wants a snapshot, whatever it has."""


@dataclass(slots=True)
class Beat:
    """The leader is there; answers confirm that it still leads (dissertation 6.4)."""

    source: int
    target: int
    term: int
    commit: int
    """Never beyond what this follower is known to have."""
    read: int
    """Newest round of reads that an answer speaks for; rises by one with each round of this term."""


@dataclass(slots=True)
class BeatAnswer:
    source: int
    target: int
    term: int
    read: int


@dataclass(slots=True)
class SnapshotOffer:
    """The follower needs what the leader's log no longer has: it is to fetch the snapshot at `index`."""

    source: int
    target: int
    term: int
    index: int
    index_term: int
    sequence: int


@dataclass(slots=True)
class TimeoutNow:
    """The leader wants this follower to lead: campaign at once."""

    source: int
    target: int
    term: int


@dataclass(slots=True)
class Sleep:
    """Nothing is under way and all have everything: no beats from now on, until somebody speaks."""

    source: int
    target: int
    term: int
    index: int
    """The last entry, committed."""


@dataclass(slots=True)
class SleepAnswer:
    source: int
    target: int
    term: int
    index: int
    agreed: bool


@dataclass(slots=True)
class Removed:
    """The sender's committed configuration does not know the target any more."""

    source: int
    target: int
    term: int
    index: int
    """Of that configuration."""


@dataclass(slots=True)
class Lost:
    """The leader can prove that the target lost entries that it had acknowledged: it must not go on as it is."""

    source: int
    target: int
    term: int
    index: int
    """What it had acknowledged."""


Message = (
    VoteRequest
    | VoteAnswer
    | Append
    | AppendAnswer
    | Beat
    | BeatAnswer
    | SnapshotOffer
    | TimeoutNow
    | Sleep
    | SleepAnswer
    | Removed
    | Lost
)
