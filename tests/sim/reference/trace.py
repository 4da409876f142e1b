"""What a run of replicas leaves behind for the reference model: one record per input of a core, in order of time.

    Started ─> (Input ─> Input ─> Taken)* ─> Crashed ─> Started ─> ...         of each replica, all in one list

Nothing in it refers to living objects: what is recorded does not change any more.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, NamedTuple

from replication.environment import Buffer
from replication.machine import KIND_MEMBERSHIP, Entry, Proposal
from replication.raft import messages
from replication.raft.log import Vote


class Stamp(NamedTuple):
    """What tells an entry from any other."""

    at: int
    """Its index."""
    term: int
    kind: int
    digest: int | bytes
    """A checksum of mark, span and payload; of a membership the payload itself."""


def digest(kind: int, mark: int, span: int, payload: Buffer) -> int | bytes:
    """See `Stamp.digest`."""
    return bytes(payload) if kind == KIND_MEMBERSHIP else zlib.crc32(b"%d %d " % (mark, span) + bytes(payload))


def stamp(entry: Entry) -> Stamp:
    """An entry's."""
    return Stamp(entry.index, entry.term, entry.kind, digest(entry.kind, entry.mark, entry.span, entry.payload))


def proposed(proposal: Proposal) -> tuple[int, int | bytes]:
    """Kind and digest of the entry that the proposal is to become."""
    return proposal.kind, digest(proposal.kind, proposal.mark, proposal.span, proposal.payload)


@dataclass(frozen=True, slots=True)
class Append:
    """messages.Append with stamps for entries; every other message is in a trace as it is."""

    source: int
    target: int
    term: int
    previous_index: int
    previous_term: int
    entries: tuple[Stamp, ...]
    commit: int
    sequence: int

    @property
    def last_index(self) -> int:
        """Of what it speaks of."""
        return self.previous_index + len(self.entries)


Said = (
    Append
    | messages.VoteRequest
    | messages.VoteAnswer
    | messages.AppendAnswer
    | messages.Beat
    | messages.BeatAnswer
    | messages.SnapshotOffer
    | messages.TimeoutNow
    | messages.Sleep
    | messages.SleepAnswer
    | messages.Removed
    | messages.Lost
)


def said(message: messages.Message) -> Said:
    """A message as a trace has it. The message must not change any more."""
    if isinstance(message, messages.Append):
        head = (message.source, message.target, message.term, message.previous_index, message.previous_term)
        return Append(*head, tuple(map(stamp, message.entries)), message.commit, message.sequence)
    return message


@dataclass(frozen=True, slots=True)
class Write:
    """One call of the log's `append` or `truncate_after`."""

    io: int
    after: int
    """What is behind this index goes; -1: nothing goes."""
    entries: tuple[Stamp, ...]
    term: int
    """Term and vote that are written too; 0, 0: none are."""
    vote: int


@dataclass(frozen=True, slots=True)
class State:
    """What a core shows of itself after an input."""

    term: int
    vote: int
    role: str
    candidate: str
    leader: int
    commit: int
    applied: int
    last_index: int
    last_term: int
    snapshot_index: int
    membership_index: int
    membership: bytes
    ready: bool
    asleep: bool
    damaged: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A whole log."""

    term: int
    vote: int
    snapshot_index: int
    snapshot_term: int
    terms: tuple[int, ...]
    """Of the entries behind the snapshot."""


@dataclass(frozen=True, slots=True)
class Started:
    """A core was made of what is durable."""

    time_ns: int
    replica: int
    listing: Listing
    memberships: tuple[tuple[int, bytes], ...]
    state: State


@dataclass(frozen=True, slots=True)
class Input:
    """A public method of the core was called, and returned."""

    time_ns: int
    replica: int
    name: str
    arguments: tuple[Any, ...]
    """As the core was given them: messages as `Said`, proposals as (kind, digest), mappings as sorted pairs."""
    writes: tuple[Write, ...]
    state: State
    listing: Listing | None = None
    """The log after it, where others than the core changed it: for `installed`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The `read_index` that was the replica's last input gave this ticket."""

    time_ns: int
    replica: int
    ticket: int


@dataclass(frozen=True, slots=True)
class Taken:
    """The driver took what the core had put out: from now on others can see it."""

    time_ns: int
    replica: int
    messages: tuple[Said, ...]
    commit: int
    reads: tuple[tuple[int, int], ...]
    lost_reads: tuple[int, ...]
    install: int
    """Index of the snapshot that is to be fetched; 0: none."""
    standing: tuple[int, str, int, bool] | None
    """(term, role, leader, ready)."""


@dataclass(frozen=True, slots=True)
class Crashed:
    """The core is gone, and all that was not durable with it."""

    time_ns: int
    replica: int


Event = Started | Input | Asked | Taken | Crashed


# ---- as numbers that can be compared


def _columns(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    return attrgetter(*(each.name for each in fields(kind)))


_KEYS = {kind: _columns(kind) for kind in Said.__args__}


def key(message: Said) -> int:
    """Equal for equal messages, and as good as never for others (64 bits)."""
    return hash((type(message).__name__, *_KEYS[type(message)](message)))


# ---- as lines of text


def line(event: Event) -> str:
    """One event for people, without what they rarely need."""
    head = f"{event.time_ns / 1e6:>11.3f} ms  replica {event.replica}  "
    if isinstance(event, Input):
        given = ", ".join(_short(each) for each in event.arguments)
        wrote = "".join(f" wrote {_written(each)}" for each in event.writes)
        return f"{head}{event.name}({given}) -> {_standing(event.state)}{wrote}"
    if isinstance(event, Taken):
        read = f" reads {list(event.reads)}" if event.reads else ""
        return f"{head}released {', '.join(map(_short, event.messages)) or 'nothing'}{read}"
    if isinstance(event, Started):
        return f"{head}started: {_standing(event.state)} terms {_listed(event.listing)}"
    return f"{head}{'crashed' if isinstance(event, Crashed) else f'ticket {event.ticket}'}"


def _short(value: Any) -> str:
    if not isinstance(value, Said):
        return repr(value)
    shown = [f"{each.name}={getattr(value, each.name)}" for each in fields(value) if each.name != "entries"]
    if isinstance(value, Append):
        shown.append(f"terms={[each.term for each in value.entries]}")
    return f"{type(value).__name__}({' '.join(shown)})"


def _standing(state: State) -> str:
    shown = state.candidate + " candidate" if state.candidate else state.role
    return (
        f"{shown} of term {state.term} (vote {state.vote}, leader {state.leader}), log up to {state.last_index}"
        f" of term {state.last_term}, commit {state.commit}, applied {state.applied}"
    )


def _written(write: Write) -> str:
    if write.after >= 0:
        return f"io {write.io}: cut after {write.after}"
    vote = f" term {write.term} vote {write.vote}" if write.term else ""
    return f"io {write.io}: {[(each.at, each.term) for each in write.entries]}{vote}"


def _listed(listing: Listing) -> str:
    return f"behind {listing.snapshot_index}: {list(listing.terms)}, term {listing.term} vote {listing.vote}"


def written(io: int, after: int, entries: Sequence[Entry], vote: Vote | None) -> Write:
    """A write as a trace has it."""
    return Write(
        *(io, after, tuple(map(stamp, entries))),
        term=vote.term if vote is not None else 0,
        vote=vote.replica if vote is not None else 0,
    )
