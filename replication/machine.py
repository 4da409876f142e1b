"""The seam between a replicated group and the state machine that it drives.

    propose ──> group ──> log ──(synced, committed)──> group ──> apply ──> state machine

A group knows bytes; a state machine knows what they mean. The interface is final: one replica or five, the
state machine sees the same calls in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from msgspec import Struct

from replication.environment import Buffer

KIND_NOOP = 0
"""The entry with which a new leader opens its term; state machines never see it."""
KIND_MEMBERSHIP = 255
"""An entry with the group's new members; state machines never see it."""


class Entry(Struct, gc=False):
    """One element of a group's log. Never changed once made.

    Made by the hundred thousand a second: a Struct takes a third of a dataclass's time, and the garbage collector
    need not look at it.
    """

    index: int
    """From 1, without gaps."""
    term: int
    kind: int
    """The state machine's own number, 1 to 254; 0 is KIND_NOOP, 255 KIND_MEMBERSHIP."""
    mark: int
    """The first key that the payload covers (a partition: its base offset); never falls."""
    span: int
    """How many keys it covers: [mark, mark + span). 0: covers none, and is dead once a snapshot has it."""
    payload: Buffer


class Proposal(Struct, gc=False):
    """An entry before it has an index and a term."""

    kind: int
    mark: int
    span: int
    payload: Buffer


Range = tuple[int, int]
"""(first, last), both included. Lists of ranges are sorted and do not touch or overlap."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What must outlive the log: with it and the live entries, everything up to `index` can be forgotten."""

    index: int
    term: int
    state: bytes
    live: Sequence[Range]
    """Marks whose entries at or below `index` are still needed."""


class Role(Enum):
    FOLLOWER = "follower"
    LEADER = "leader"
    FENCED = "fenced"
    """This replica serves nothing any more: damaged storage, or an entry that cannot be applied."""


@dataclass(frozen=True, slots=True)
class RoleChange:
    term: int
    role: Role
    ready: bool
    """A leader is ready when the first entry of its own term has been applied."""
    reason: str = ""
    """For people: why a replica is fenced."""


class StateMachine(Protocol):
    """What a group drives. All calls are synchronous and come from the group alone."""

    def apply(self, entries: Sequence[Entry]) -> None:
        """Apply committed entries, in order, each once. Raising fences the replica: nothing is skipped."""

    def snapshot(self) -> bytes:
        """The state as of the last applied entry; equal states give equal bytes."""

    def restore(self, state: bytes) -> None:
        """Become the state that `snapshot` gave, whatever it was before."""

    def live_entries(self) -> Sequence[Range]:
        """Marks whose payloads are still needed."""

    def role_changed(self, change: RoleChange) -> None:
        """Leadership came or went; proposals of an older term whose entry was not applied are unknown now."""
