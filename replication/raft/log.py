"""The log as a Raft core sees it: what is written is visible at once, and durable when the core is told so.

    core ── append, truncate_after (io number) ──> log ──(synced)──> driver ── core.persisted(io number) ──> core

Entries at or below `snapshot_index` are part of the snapshot. They may still be readable, with gaps, and mean
nothing to the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from replication.machine import Entry


@dataclass(frozen=True, slots=True)
class Vote:
    """What a replica must not forget: its term, and whom it voted for in it (0: nobody)."""

    term: int = 0
    replica: int = 0


WALK_ENTRIES = 4_096
"""Entries looked at, one by one, to find where two logs part; with more, another round goes on from there."""


class Log(Protocol):
    """A group's log. Only the core writes to it while the core is there."""

    @property
    def snapshot_index(self) -> int: ...

    @property
    def last_index(self) -> int:
        """The last entry's index; the snapshot's where there is none behind it."""

    @property
    def last_term(self) -> int: ...

    @property
    def last_mark(self) -> int:
        """The last mark that an entry covers."""

    def term_at(self, index: int) -> int | None:
        """From the snapshot's index to the last one; None for any other, and where damage hides what is there."""

    def cached(self, first_index: int, max_bytes: int) -> list[Entry] | None:
        """Entries from `first_index` on, without gaps, up to `max_bytes` but at least one; None: not in memory."""

    def append(self, entries: Sequence[Entry], vote: Vote | None, io: int) -> None:
        """Add entries behind the last one, and term and vote with them, all or nothing."""

    def truncate_after(self, index: int, io: int) -> None:
        """Forget what is behind `index`, which is not before the snapshot's."""


def last_agreeing(log: Log, index: int, term: int) -> int:
    """The last entry at or before `index` with a term, known, not above `term`: two logs may agree up to there.

    Stops early after WALK_ENTRIES, or at the snapshot.
    """
    for _ in range(WALK_ENTRIES):
        if index <= log.snapshot_index:
            break
        found = log.term_at(index)
        if found is not None and found <= term:
            break
        index -= 1
    return index
