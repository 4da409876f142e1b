"""One replica under test: a core, its log, and as much of a state machine as shows what was applied.

A crash takes the core and what was not durable; `start` makes another core of what is left. What was under way
for a
former life must not reach the next one: whatever is scheduled says for which `life` it is.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random

from replication.machine import KIND_MEMBERSHIP, Entry, Role
from replication.raft.core import RaftCore
from replication.raft.log import Vote
from replication.raft.membership import Membership
from replication.raft.progress import Progress
from replication.raft.settings import RaftSettings
from tests.sim.raft.memory_log import MemoryLog, Snapshot, Watcher
from tests.sim.reference.record import Recorder


class Seen:
    """What the checkers saw of a core when they last looked."""

    __slots__ = (
        "applied",
        "asleep",
        "candidate",
        "commit",
        "election_ns",
        "in_force",
        "leader",
        "matches",
        "membership",
        "role",
        "stable",
        "term",
        "vote",
    )

    def __init__(self, core: RaftCore, in_force: Membership) -> None:
        self.matches: dict[int, tuple[Progress, int]] = {}
        """How far each follower was thought to be."""
        self.look(core, in_force)

    def look(self, core: RaftCore, in_force: Membership) -> None:
        """Remember how it is now."""
        self.term, self.vote, self.role, self.candidate = core.term, core.vote, core.role, core.candidate
        self.leader, self.commit, self.applied = core.leader, core.commit, core.applied_index
        self.stable, self.membership = core.stable_index, core.membership
        self.in_force = in_force
        self.asleep, self.election_ns = core.asleep, core.election_ns


class Replica:
    """A core with its driver's state. `core` is None while it is down."""

    def __init__(self, replica: int, node: int, settings: RaftSettings, random: Random, watcher: Watcher) -> None:
        self.id = replica
        self.node = node
        self.settings = settings
        self.random = random
        self.log = MemoryLog(replica, watcher)
        self.core: RaftCore | None = None
        self.seen: Seen
        self.life = 0
        self.eager = False
        self.damaged = False
        """Its storage needs a snapshot from somebody else."""
        self.state = 0
        """The state machine's."""
        self.applied = 0
        self.to_apply = 0
        self.installing = 0
        """Index of the snapshot that is on its way; 0: none."""
        self.held: list[Callable[[], None]] | None = None
        """While it is paused: what happens when it goes on."""
        self.armed_ns = 0
        """When its timer rings, in the world's time; 0: never."""
        self.syncing = False
        self.applying = False
        self.rate = 1_000
        """Of its clock, in thousandths of the world's."""
        self.offset_ns = 0
        self.reads: dict[int, int] = {}
        """Tickets that wait, and what each must at least give."""

    def start(self, now_ns: int, recorder: Recorder | None = None) -> RaftCore:
        """Begin another life with what is durable; `recorder` writes down what it does."""
        log = self.log
        self.life += 1
        snapshot = log.seen.snapshot
        self.applied = self.to_apply = snapshot.index
        self.state = snapshot.state
        self.installing = self.armed_ns = 0
        self.syncing = self.applying = False
        memberships = list(log.seen.memberships)
        core = RaftCore(
            *(
                self.id,
                log if recorder is None else recorder.log(self.id, log),
                log.seen.vote,
                memberships,
                self.settings,
                Random(self.random.getrandbits(64)),
                now_ns,
            ),
            damaged=self.damaged,
            eager=self.eager,
        )
        self.core = core
        if recorder is not None:
            recorder.started(core, log, log.seen.vote)
        self.seen = Seen(core, log.membership)
        return core

    def crash(self, survivors: int) -> None:
        """End this life; that many writes that were under way are durable all the same."""
        self.core = None
        self.life += 1
        self.reads.clear()
        self.log.crash(survivors)

    def apply(self, most: int) -> int:
        """Apply what is committed, at most that many entries; how many."""
        log, state, index = self.log, self.state, self.applied
        last = min(self.to_apply, index + most)
        while index < last:
            index += 1
            state = fold(state, log.entry(index))
        done, self.applied, self.state = index - self.applied, index, state
        return done

    def snapshot(self, index: int) -> Snapshot:
        """Of the state as of its last applied entry, which is `index`."""
        assert index == self.applied
        term = self.log.term_at(index)
        assert term is not None
        membership = next(each for at, each in reversed(self.log.seen.memberships) if at <= index)
        return Snapshot(index, term, membership, self.state)

    def restore(self, snapshot: Snapshot) -> None:
        """Become what somebody else's snapshot says."""
        self.state, self.applied = snapshot.state, snapshot.index
        self.to_apply = max(self.to_apply, snapshot.index)

    @property
    def leads(self) -> bool:
        """Its core thinks so."""
        return self.core is not None and self.core.role is Role.LEADER


def fold(state: int, entry: Entry) -> int:
    """The state after an entry: a checksum of all of them, in order."""
    return zlib.crc32(b"%d %d %d " % (entry.index, entry.term, entry.kind) + bytes(entry.payload), state)


def founding_entry(voters: dict[int, int]) -> tuple[Entry, Vote]:
    """What every founding member's log begins with, and its vote."""
    membership = Membership(dict(voters))
    return Entry(1, 1, KIND_MEMBERSHIP, 0, 0, membership.encode()), Vote(1, 0)
