"""A group's log in memory, with a disk that is slower than it: what a crash leaves is what had been synced.

    append, truncate_after ──> seen at once ──> pending ──(sync_one, in order)──> durable ──(crash)──> all that
    is left

It decodes memberships by itself, so that a core's idea of who belongs to the group can be held against it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from replication.machine import KIND_MEMBERSHIP, Entry
from replication.raft.log import Vote
from replication.raft.membership import Membership, decode_membership

NOBODY = Membership({})
"""The membership of a log that has none: of a replica that is to join."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What stands for the entries up to `index`."""

    index: int = 0
    term: int = 0
    membership: Membership = NOBODY
    state: int = 0
    """The state machine's: a running checksum of what it applied."""


class Image:
    """What a log holds, in one of its two forms: as seen, or as durable."""

    __slots__ = ("entries", "memberships", "snapshot", "vote")

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.entries: list[Entry] = []
        """Those behind the snapshot."""
        self.memberships: list[tuple[int, Membership]] = [(0, NOBODY)]
        """The snapshot's, then those of entries behind it."""
        self.vote = Vote()

    @property
    def last_index(self) -> int:
        return self.snapshot.index + len(self.entries)

    def term_at(self, index: int) -> int | None:
        """From the snapshot's index to the last one; None for any other."""
        at = index - self.snapshot.index - 1
        if 0 <= at < len(self.entries):
            return self.entries[at].term
        return self.snapshot.term if at == -1 else None

    def holds(self, index: int, term: int) -> bool:
        """That entry, or a snapshot that covers it."""
        return index <= self.snapshot.index or self.term_at(index) == term

    def append(self, entries: Sequence[Entry], vote: Vote | None) -> None:
        """All of them, and the vote."""
        self.entries.extend(entries)
        for entry in entries:
            if entry.kind == KIND_MEMBERSHIP:
                self.memberships.append((entry.index, decode_membership(entry.payload)))
        if vote is not None:
            self.vote = vote

    def truncate_after(self, index: int) -> None:
        """Forget what is behind."""
        del self.entries[max(index - self.snapshot.index, 0) :]
        while len(self.memberships) > 1 and self.memberships[-1][0] > index:
            self.memberships.pop()

    def begin_at(self, snapshot: Snapshot) -> None:
        """Put a snapshot in the place of what it covers; entries behind it stay if they follow it."""
        if self.term_at(snapshot.index) == snapshot.term:
            del self.entries[: snapshot.index - self.snapshot.index]
            behind = [one for one in self.memberships if one[0] > snapshot.index]
        else:
            self.entries, behind = [], []
        self.snapshot = snapshot
        self.memberships = [(snapshot.index, snapshot.membership), *behind]

    def copy(self) -> Image:
        """Another one with the same content."""
        twin = Image()
        twin.snapshot, twin.vote = self.snapshot, self.vote
        twin.entries, twin.memberships = list(self.entries), list(self.memberships)
        return twin


class Watcher(Protocol):
    """Who is told what is written, before it is."""

    def appending(self, log: MemoryLog, entries: Sequence[Entry], vote: Vote | None) -> None: ...

    def truncating(self, log: MemoryLog, index: int) -> None: ...


Write = tuple[int, Sequence[Entry], Vote | None, int]
"""io number, entries and vote to append, index to truncate after (-1: none)."""


class MemoryLog:
    """Implements replication.raft.log.Log; the driver's part is `sync_one`, `compact`, `install`, `crash`."""

    __slots__ = (
        *("cache_entries", "durable", "last_index", "last_mark", "last_term"),
        *("pending", "replica", "seen", "snapshot_index", "watcher"),
    )

    def __init__(self, replica: int, watcher: Watcher | None = None) -> None:
        self.replica = replica
        self.watcher = watcher
        self.seen = Image()
        self.durable = Image()
        self.pending: deque[Write] = deque()
        self.cache_entries = 1 << 30
        """How many of the last entries are in memory, for `cached`."""
        self._follow()

    def _follow(self) -> None:
        """Keep what the core asks all the time as plain fields."""
        self.snapshot_index = self.seen.snapshot.index
        self.last_index = self.seen.last_index
        self.last_term = self.seen.entries[-1].term if self.seen.entries else self.seen.snapshot.term
        self.last_mark = 0

    # ---- what the core uses

    def term_at(self, index: int) -> int | None:
        """See replication.raft.log.Log."""
        return self.seen.term_at(index)

    def cached(self, first_index: int, max_bytes: int) -> list[Entry] | None:
        """See replication.raft.log.Log."""
        at = first_index - self.snapshot_index - 1
        if at < 0 or first_index <= self.last_index - self.cache_entries or first_index > self.last_index:
            return None
        return self.read(first_index, max_bytes)

    def append(self, entries: Sequence[Entry], vote: Vote | None, io: int) -> None:
        """See replication.raft.log.Log."""
        if entries:
            assert entries[0].index == self.last_index + 1, "entries are appended behind the last one"
            assert entries[-1].index == self.last_index + len(entries), "without gaps"
        if self.watcher is not None:
            self.watcher.appending(self, entries, vote)
        self.seen.append(entries, vote)
        if entries:
            self.last_index, self.last_term = entries[-1].index, entries[-1].term
        self._write((io, list(entries), vote, -1))

    def truncate_after(self, index: int, io: int) -> None:
        """See replication.raft.log.Log."""
        assert self.snapshot_index <= index <= self.last_index, "only what is behind the snapshot can go"
        if self.watcher is not None:
            self.watcher.truncating(self, index)
        self.seen.truncate_after(index)
        self._follow()
        self._write((io, (), None, index))

    def _write(self, write: Write) -> None:
        assert not self.pending or self.pending[-1][0] <= write[0], "io numbers never fall"
        self.pending.append(write)

    # ---- what its driver uses

    def read(self, first_index: int, max_bytes: int) -> list[Entry]:
        """Entries from there on, up to that many bytes but at least one; [] where there is no such entry."""
        found: list[Entry] = []
        at = first_index - self.snapshot_index - 1
        if at < 0:
            return found
        entries = self.seen.entries
        while at < len(entries):
            max_bytes -= len(entries[at].payload)
            if max_bytes < 0 and found:
                break
            found.append(entries[at])
            at += 1
        return found

    def entry(self, index: int) -> Entry:
        """One that is behind the snapshot."""
        return self.seen.entries[index - self.snapshot_index - 1]

    @property
    def membership(self) -> Membership:
        """The one in force by this log: its last, committed or not."""
        return self.seen.memberships[-1][1]

    def sync_one(self) -> int:
        """Make the oldest pending write durable; its io number."""
        io, entries, vote, after = self.pending.popleft()
        if after >= 0:
            self.durable.truncate_after(after)
        else:
            self.durable.append(entries, vote)
        return io

    def compact(self, snapshot: Snapshot) -> None:
        """A snapshot of this replica's own state is durable: entries that it covers may go."""
        assert self.durable.holds(snapshot.index, snapshot.term)
        self.seen.begin_at(snapshot)
        self.durable.begin_at(snapshot)
        self._follow()

    def install(self, snapshot: Snapshot) -> None:
        """Somebody else's snapshot is durable. Nothing is pending."""
        assert not self.pending
        self.seen.begin_at(snapshot)
        self.durable.begin_at(snapshot)
        self._follow()

    def found(self, entries: Sequence[Entry], vote: Vote) -> None:
        """What a founding member of a group begins with; durable."""
        self.durable.append(entries, vote)
        self.crash(0)

    def crash(self, survivors: int) -> None:
        """Forget what was not durable, but for that many of the oldest pending writes, which came through."""
        for _ in range(survivors):
            self.sync_one()
        self.pending.clear()
        self.seen = self.durable.copy()
        self._follow()
