"""Which fault strikes which operation of a simulated disk: a plan, or a seeded draw.

A plan is a list of plain values, so that hypothesis can shrink it: a fault waits for the first operation at or
behind its number that it can strike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Protocol


class OperationKind(Enum):
    """What is asked of a disk."""

    READ = "read"
    WRITE = "write"
    SYNC = "sync"
    TRUNCATE = "truncate"
    CREATE = "create"
    OPEN = "open"
    LIST = "list"
    MAKE_FOLDER = "make_folder"
    RENAME = "rename"
    UNLINK = "unlink"
    SYNC_FOLDER = "sync_folder"
    LOCK = "lock"


CHANGES = frozenset(
    {
        OperationKind.WRITE,
        OperationKind.SYNC,
        OperationKind.TRUNCATE,
        OperationKind.CREATE,
        OperationKind.MAKE_FOLDER,
        OperationKind.RENAME,
        OperationKind.UNLINK,
        OperationKind.SYNC_FOLDER,
    }
)
"""Operations behind which a disk is not as it was before: where a crash makes a difference."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a disk or of one of its files."""

    number: int
    """From 1, over all operations of this life of the disk."""
    kind: OperationKind
    name: str
    position: int = 0
    size_bytes: int = 0


class FaultKind(Enum):
    """What goes wrong. `argument` of Fault says how."""

    IO_ERROR = "io_error"
    """EIO. A write has put `argument` bytes (modulo its length) into the cache; a sync has dropped its pages: some
    of them are on the platter, later syncs succeed, and with an odd `argument` reads see the old bytes."""
    NO_SPACE = "no_space"
    """ENOSPC. A write has put `argument` bytes (modulo its length) into the cache."""
    LOST_WRITE = "lost_write"
    """The write is reported done and seen by reads, and never reaches the platter."""
    MISDIRECTED_WRITE = "misdirected_write"
    """The write lands `argument` sectors further (modulo the file), on the platter, instead of at its place."""
    BIT_FLIP = "bit_flip"
    """Bit `argument` (modulo the file) of the platter's copy of the file turns round just before the operation."""
    CRASH_BEFORE = "crash_before"
    CRASH_DURING = "crash_during"
    """A write is cut after `argument` bytes (modulo its length); of a sync, some sectors reached the platter."""
    CRASH_AFTER = "crash_after"


_WRITES = frozenset({OperationKind.WRITE})
_FILE = frozenset({OperationKind.READ, OperationKind.WRITE, OperationKind.SYNC})
_STRIKES: Mapping[FaultKind, frozenset[OperationKind]] = {
    FaultKind.IO_ERROR: _FILE | {OperationKind.CREATE, OperationKind.SYNC_FOLDER},
    FaultKind.NO_SPACE: frozenset({OperationKind.WRITE, OperationKind.CREATE}),
    FaultKind.LOST_WRITE: _WRITES,
    FaultKind.MISDIRECTED_WRITE: _WRITES,
    FaultKind.BIT_FLIP: _FILE,
    FaultKind.CRASH_BEFORE: CHANGES,
    FaultKind.CRASH_DURING: CHANGES,
    FaultKind.CRASH_AFTER: CHANGES,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a plan."""

    at: int
    """The number of the first operation that it may strike."""
    kind: FaultKind
    argument: int = 0
    name: str = ""
    """Only operations on names that contain this."""
    only: OperationKind | None = None
    """Only operations of this kind."""

    def strikes(self, operation: Operation) -> bool:
        """True if the fault can happen to the operation."""
        return (
            operation.number >= self.at
            and operation.kind in _STRIKES[self.kind]
            and self.name in operation.name
            and self.only in (None, operation.kind)
        )


class Faults(Protocol):
    """Decides what goes wrong."""

    def at(self, operation: Operation) -> Fault | None:
        """The fault that strikes the operation, if one does. Asked once for each, in order."""


class PlannedFaults:
    """Faults from a list, each once."""

    def __init__(self, plan: Sequence[Fault] = ()) -> None:
        self._left = list(plan)

    def at(self, operation: Operation) -> Fault | None:
        for fault in self._left:
            if fault.strikes(operation):
                self._left.remove(fault)
                return fault
        return None


class SeededFaults:
    """Faults drawn with a probability per operation that they can strike."""

    def __init__(
        self, random: Random, rates: Mapping[FaultKind, float], spares: Callable[[Operation], bool] | None = None
    ) -> None:
        self._random = random
        self._rates = sorted(rates.items(), key=lambda item: item[0].value)
        self._spares = spares

    def at(self, operation: Operation) -> Fault | None:
        if self._spares is not None and self._spares(operation):
            return None
        for kind, rate in self._rates:
            if operation.kind in _STRIKES[kind] and self._random.random() < rate:
                return Fault(operation.number, kind, self._random.getrandbits(20))
        return None
