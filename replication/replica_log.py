"""A group's log on disk, as its Raft core sees it, and the entries that wait to be applied.

core ── append, truncate_after ──> ReplicaLog ──> GroupLog ──(synced)──> on_durable(io)
                                       └── unapplied: what was appended here and not applied yet
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from replication.machine import Entry
from replication.raft.log import Vote
from replication.storage.log import GroupLog, HardState


class ReplicaLog:
    """The Log of a core, over a GroupLog. See replication/raft/log.py."""

    __slots__ = ("_log", "_on_durable", "_unapplied", "writing")

    def __init__(self, log: GroupLog, on_durable: Callable[[int, Exception | None], None]) -> None:
        """`on_durable(io, error)` is called on the loop, in order of io."""
        self.writing = False
        """The core is within `append` or `truncate_after`: a disk that has failed before says so at once."""
        self._log = log
        self._on_durable = on_durable
        self._unapplied: deque[Entry] = deque()  # a run without gaps up to the end of the log, or empty

    @property
    def snapshot_index(self) -> int:
        return self._log.snapshot_index

    @property
    def last_index(self) -> int:
        return self._log.last_index

    @property
    def last_term(self) -> int:
        return self._log.last_term

    @property
    def last_mark(self) -> int:
        return self._log.last_mark

    def term_at(self, index: int) -> int | None:
        """See raft.log.Log."""
        return self._log.term_at(index)

    def cached(self, first_index: int, max_bytes: int) -> list[Entry] | None:
        """See raft.log.Log."""
        return self._log.cached(first_index, max_bytes)

    def append(self, entries: Sequence[Entry], vote: Vote | None, io: int) -> None:
        """See raft.log.Log."""
        hard_state = HardState(vote.term, vote.replica) if vote is not None else None
        if entries:
            self._unapplied.extend(entries)
        self.writing = True
        self._log.append(entries, hard_state, partial(self._on_durable, io))
        self.writing = False

    def truncate_after(self, index: int, io: int) -> None:
        """See raft.log.Log."""
        while self._unapplied and self._unapplied[-1].index > index:
            self._unapplied.pop()
        self.writing = True
        self._log.truncate_after(index, partial(self._on_durable, io))
        self.writing = False

    def take_unapplied(self, first_index: int, last_index: int, count: int) -> list[Entry]:
        """Up to `count` entries from `first_index` to `last_index` if they were appended in this life, else []."""
        unapplied = self._unapplied
        while unapplied and unapplied[0].index < first_index:
            unapplied.popleft()
        if not unapplied or unapplied[0].index != first_index:
            return []
        count = min(count, last_index - first_index + 1)
        if count >= len(unapplied):
            entries = list(unapplied)
            unapplied.clear()
            return entries
        return [unapplied.popleft() for _ in range(count)]

    def forget_unapplied(self) -> None:
        """A snapshot took their place."""
        self._unapplied.clear()
