"""What a log store has been told and what it has confirmed: the slow and obvious model that crashes are judged by.

    told:       create, append, truncate, append, append, delete      in order, one list per group
    confirmed:  ^^^^^^^^^^^^^^^^^^^^^^^^                               a prefix of it
    found:      the state behind some prefix between the two           anything else is a bug of the store

The state machine on top is as simple: batches are live until a settling entry names their marks.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from replication.machine import Checkpoint, Entry, Range

KIND_BATCH = 1
KIND_SETTLE = 2
"""An entry without marks of its own whose payload lists ranges of marks that are live no more."""
_RANGE = struct.Struct(">qq")


def ranges_of(marks: Sequence[int]) -> list[Range]:
    """Sorted marks as ranges, both ends included."""
    found: list[Range] = []
    for mark in marks:
        if found and found[-1][1] == mark - 1:
            found[-1] = (found[-1][0], mark)
        else:
            found.append((mark, mark))
    return found


def settle_payload(ranges: Sequence[Range]) -> bytes:
    """The payload of a KIND_SETTLE entry."""
    return b"".join(_RANGE.pack(first, last) for first, last in ranges)


class Machine:
    """The state machine of one group: which marks are live, and a hash over everything applied."""

    def __init__(self) -> None:
        self.index = 0
        self.term = 0
        self.chain = b""
        self.live: dict[int, None] = {}

    def apply(self, entry: Entry) -> None:
        """Apply the next entry."""
        assert entry.index == self.index + 1, f"entry {entry.index} behind {self.index}"
        self.index, self.term = entry.index, entry.term
        payload = bytes(entry.payload)
        self.chain = hashlib.blake2b(
            self.chain + repr((entry.index, entry.term, entry.kind, entry.mark, entry.span)).encode() + payload,
            digest_size=16,
        ).digest()
        if entry.kind == KIND_SETTLE:
            for first, last in _RANGE.iter_unpack(payload):
                for mark in range(first, last + 1):
                    self.live.pop(mark, None)
        for mark in range(entry.mark, entry.mark + entry.span):
            self.live[mark] = None

    def live_ranges(self) -> list[Range]:
        """Live marks."""
        return ranges_of(sorted(self.live))

    def checkpoint(self) -> Checkpoint | None:
        """What a store asks for at rotation; None before the first entry."""
        if not self.index:
            return None
        live = self.live_ranges()
        state = self.chain + settle_payload(live)
        return Checkpoint(self.index, self.term, state, live)

    @classmethod
    def restored(cls, index: int, term: int, state: bytes) -> Machine:
        """The machine that gave a checkpoint."""
        machine = cls()
        machine.index, machine.term = index, term
        machine.chain = state[:16]
        for first, last in _RANGE.iter_unpack(state[16:]):
            machine.live.update(dict.fromkeys(range(first, last + 1)))
        return machine


@dataclass(frozen=True, slots=True)
class LogState:
    """One group's log as the model knows it: entries 1 to last, whether or not they are live."""

    exists: bool = False
    entries: tuple[Entry, ...] = ()
    hard_state: tuple[int, int] = (0, 0)
    """(term, vote)."""

    def machine(self) -> Machine:
        """The state machine behind the last entry."""
        machine = Machine()
        for entry in self.entries:
            machine.apply(entry)
        return machine


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that a store was told about a group."""

    kind: str
    """create | append | truncate | install | delete"""
    entries: tuple[Entry, ...] = ()
    hard_state: tuple[int, int] | None = None
    index: int = 0

    def behind(self, state: LogState) -> Iterator[LogState]:
        """The states that this may leave, the whole of it last: a crash may cut an append between two entries."""
        if self.kind == "create":
            yield LogState(exists=True)
        elif self.kind == "delete":
            yield LogState(exists=False)
        elif self.kind == "install":
            yield LogState(True, self.entries, state.hard_state)
        elif self.kind == "truncate":
            yield LogState(True, state.entries[: self.index], state.hard_state)
        else:
            hard_state = self.hard_state or state.hard_state
            for count in range(len(self.entries)):
                entries = state.entries + self.entries[:count]
                yield LogState(True, entries, state.hard_state)
                yield LogState(True, entries, hard_state)
            yield LogState(True, state.entries + self.entries, hard_state)


@dataclass(slots=True)
class GroupLedger:
    """Everything that one life of a store was told about a group, on top of what it began with."""

    start: LogState = field(default_factory=LogState)
    told: list[Told] = field(default_factory=list)
    confirmed: int = 0
    """How many of `told`, from the front, must survive any crash."""
    installing: Told | None = None
    """A snapshot from elsewhere that is on its way: it may have taken effect on top of any state, or not."""

    def tell(self, told: Told) -> int:
        """Note it; its number, for `confirm`."""
        self.told.append(told)
        return len(self.told)

    def confirm(self, number: int) -> None:
        """The store has called done(None) for it. Confirmations come in order."""
        assert number > self.confirmed, "confirmed out of order"
        self.confirmed = number

    def latest(self) -> LogState:
        """The state with everything told."""
        return self.after(len(self.told))

    def after(self, count: int) -> LogState:
        """The state behind the first `count` things told."""
        state = self.start
        for told in self.told[:count]:
            *_, state = told.behind(state)
        return state

    def possible(self, count: int, confirmed: int, installing: Told | None = None) -> list[LogState]:
        """The states that a crash may leave when `count` things were told and `confirmed` of them confirmed, and
        that install was under way."""
        states = [self.after(confirmed)]
        for told in self.told[confirmed:count]:
            states.extend(told.behind(states[-1]))
        if installing is not None:
            installed = [state for one in states if one.exists for state in installing.behind(one)]
            states = [*states, *installed]
        return states


@dataclass(frozen=True, slots=True)
class Reading:
    """How far one group's ledger was at some moment."""

    count: int
    confirmed: int
    installing: Told | None = None


class Ledger:
    """All groups of one life of a store."""

    def __init__(self, start: dict[int, LogState] | None = None) -> None:
        self.groups = {group: GroupLedger(state) for group, state in (start or {}).items()}

    def group(self, group: int) -> GroupLedger:
        """The group's ledger, begun if need be."""
        return self.groups.setdefault(group, GroupLedger())

    def reading(self) -> dict[int, Reading]:
        """How far all ledgers are."""
        return {group: Reading(len(one.told), one.confirmed, one.installing) for group, one in self.groups.items()}

    def possible(self, reading: dict[int, Reading]) -> dict[int, list[LogState]]:
        """What a crash at that moment may leave of each group."""
        return {
            group: self.groups[group].possible(at.count, at.confirmed, at.installing)
            for group, at in reading.items()
        }
