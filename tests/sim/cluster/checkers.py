"""What must be true of groups, whatever happened to them. Knows no scenario: it is told facts, and compares.

    a replica applied an entry       the same everywhere at that index; asked for; not refused; each number once
    a replica leads a term           no other does
    a leader sent entries            an entry of an index and term is the same wherever it stands
    a leader committed               a majority of each set of voters has it on disk
    an operation was acknowledged    behind all that were acknowledged before it was begun
    a read was answered              it saw all that was acknowledged before it was begun
    the end                          all replicas are in the same state, and it has all that was acknowledged

What is found to be wrong is noted, not raised: whoever tells the facts may be an actor, whose failures are caught.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from zlib import crc32

from replication.machine import Entry, Role
from replication.raft.core import RaftCore
from replication.raft.messages import Append
from tests.sim.cluster.machine import ChainMachine

Broken = Callable[[str], None]
"""Takes a sentence about what was found to be wrong."""


@dataclass(slots=True)
class Operation:
    """One operation of a client, written again and again until it is acknowledged."""

    client: int
    sequence: int
    floor: int
    """The highest index that anybody had been told when it was begun."""
    attempts: int = 0
    index: int = 0
    """Where it stands, when it is acknowledged."""


@dataclass(slots=True)
class GroupChecker:
    """All that is known of one group."""

    group: int
    broken: Broken
    floor: int = 0
    """The highest index that a client has been told, by an acknowledgement or a read."""
    acknowledged: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (client, sequence), the index."""
    unknown: int = 0
    doubled: int = 0
    """Entries that the machine took for what they were: attempts of what it had."""
    last_index: int = 0
    """The last index that anybody applied."""
    _applied: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    _counted: dict[tuple[int, int], int] = field(default_factory=dict)
    _attempted: dict[tuple[int, int, int], str] = field(default_factory=dict)
    _leaders: dict[int, int] = field(default_factory=dict)
    _entries: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)
    _committed: int = 0

    # ---- clients

    def begin(self, client: int, sequence: int) -> Operation:
        """A client begins an operation."""
        return Operation(client, sequence, self.floor)

    def attempt(self, operation: Operation) -> int:
        """It writes it (again); the attempt's number."""
        operation.attempts += 1
        self._attempted[operation.client, operation.sequence, operation.attempts] = "under way"
        return operation.attempts

    def refused(self, operation: Operation, attempt: int) -> None:
        """It was told that this attempt was not done and never will be."""
        self._attempted[operation.client, operation.sequence, attempt] = "refused"

    def acknowledge(self, operation: Operation, index: int) -> None:
        """It was told that the operation stands at that index."""
        who = operation.client, operation.sequence
        if index <= operation.floor:
            self._say(f"operation {who} stands at {index}, and {operation.floor} was known before it was begun")
        if self._counted.get(who) != index:
            self._say(f"operation {who} is acknowledged at {index}, and stands at {self._counted.get(who)}")
        operation.index = index
        self.acknowledged[who] = index
        self.floor = max(self.floor, index)

    def read(self, floor: int, index: int) -> None:
        """A read that was begun when `floor` was known has shown the state at `index`."""
        if index < floor:
            self._say(f"a read shows index {index}, and {floor} had been acknowledged before it was begun")
        self.floor = max(self.floor, index)

    # ---- replicas

    def applied(self, machine: ChainMachine, entry: Entry, who: tuple[int, int, int], counts: bool) -> None:
        """A state machine has applied an entry."""
        index, state = entry.index, (entry.term, machine.chain)
        known = self._applied.get(index)
        if known is not None:
            if known != state:
                self._say(f"two states at index {index}: terms {known[0]} and {entry.term}")
            return
        if index < self.last_index:
            self._say(f"index {index} is applied, and others that applied {self.last_index} know none there")
        self.last_index = index
        self._applied[index] = state
        attempt = self._attempted.get(who)
        if attempt is None:
            self._say(f"index {index} holds {who}, which nobody has written")
        elif attempt == "refused":
            self._say(f"index {index} holds attempt {who}, which was refused")
        if counts and self._counted.setdefault(who[:2], index) != index:
            self._say(f"operation {who[:2]} counts at {index} and at {self._counted[who[:2]]}")
        self.doubled += not counts

    def restored(self, machine: ChainMachine) -> None:
        """A state machine was restored from a snapshot."""
        if machine.index and self._applied.get(machine.index) != (machine.term, machine.chain):
            self._say(f"a snapshot of index {machine.index} is of a state that nobody was in")

    def leads(self, term: int, replica: int) -> None:
        """A replica is the leader of a term."""
        first = self._leaders.setdefault(term, replica)
        if first != replica:
            self._say(f"replicas {first} and {replica} lead term {term}")

    @property
    def leaders(self) -> Mapping[int, int]:
        """By term."""
        return self._leaders

    def sent(self, message: Append) -> None:
        """A replica takes an append."""
        previous = message.previous_term
        for at, entry in enumerate(message.entries, 1):
            if entry.index != message.previous_index + at:
                self._say(f"an append behind {message.previous_index} has entry {entry.index} at place {at}")
            self._same(entry, previous)
            previous = entry.term

    def stands(self, entries: Iterable[Entry], previous: int | None) -> None:
        """Entries stand in a replica's log, behind one of term `previous` (None: unknown)."""
        for entry in entries:
            if previous is not None:
                self._same(entry, previous)
            previous = entry.term

    def _same(self, entry: Entry, previous_term: int) -> None:
        """Log matching (Ongaro 2014, figure 3): index and term say what the entry is, and all before it."""
        seen = previous_term, entry.kind, crc32(entry.payload)
        if self._entries.setdefault((entry.index, entry.term), seen) != seen:
            self._say(f"two entries of index {entry.index}, term {entry.term}: {seen}")

    def committed(self, leader: RaftCore, cores: Mapping[int, RaftCore]) -> None:
        """A leader has moved its commit index; `cores`: of all replicas, the dead as they died."""
        index = leader.commit
        if index <= self._committed:
            return
        self._committed = index
        term = leader.log.term_at(index)
        for voters in leader.membership.voter_sets():
            have = [replica for replica in voters if _has_durably(cores.get(replica), index, term)]
            if 2 * len(have) <= len(voters):
                who = f"of {list(voters)} only {have} have"
                self._say(f"replica {leader.replica} commits {index} of term {term}, which {who}")

    # ---- the end

    def finish(self, machines: Mapping[str, ChainMachine]) -> None:
        """All replicas of the group, when everything has come to rest."""
        states = {(machine.index, machine.chain, machine.snapshot()) for machine in machines.values()}
        if len(states) > 1:
            at = {name: machine.index for name, machine in machines.items()}
            self._say(f"replicas differ at the end: {at}")
        for machine in machines.values():
            for (client, sequence), index in self.acknowledged.items():
                if machine.clients.get(client, (0, 0))[0] < sequence:
                    self._say(f"operation {(client, sequence)}, acknowledged at {index}, is lost")

    def _say(self, what: str) -> None:
        self.broken(f"group {self.group}: {what}")


_INPUT_STATES = {
    "installed": "snapshot installed",
    "install_failed": "snapshot not had",
    "loaded": "follower caught up from disk",
}
"""Inputs of a core that are states to be reached."""


def _has_durably(core: RaftCore | None, index: int, term: int | None) -> bool:
    """The replica has the entry on disk, as far as its own core was told so."""
    if core is None:
        return False
    if index <= core.log.snapshot_index:
        return True
    return core.stable_index >= index and core.log.term_at(index) == term


class Watch:
    """Looks at one core after each of its inputs: its invariants hold, and the checker hears what it shows."""

    def __init__(
        self,
        core: RaftCore,
        checker: GroupChecker,
        cores: Mapping[int, RaftCore],
        check: Callable[[RaftCore], None],
        reached: Callable[[str], None],
    ) -> None:
        self._core = core
        self._checker = checker
        self._cores = cores
        self._check = check
        self._reached = reached
        self._term = 0
        self._role: Role | None = None
        self._candidate = ""
        self._commit = 0
        self._last_index = core.log.last_index
        self._memberships = 1
        self._asleep = False
        self._damaged = core.damaged
        if core.damaged:
            reached("damage found")

    def __call__(self, name: str, arguments: tuple[object, ...]) -> None:
        """See RaftCore.observer."""
        core = self._core
        if name == "step" and type(arguments[0]) is Append:
            self._checker.sent(arguments[0])
        elif name in _INPUT_STATES:
            self._reached(_INPUT_STATES[name])
        try:
            self._check(core)
        except AssertionError as error:
            self._checker.broken(f"group {self._checker.group}: behind {name}: {error}")
        if core.role is not self._role or core.term != self._term:
            self._standing(core)
        if core.candidate != self._candidate:
            if self._candidate == "real" and core.role is not Role.LEADER:
                self._reached("candidate lost")
            self._candidate = core.candidate
        if core.commit != self._commit:
            self._commit = core.commit
            if core.role is Role.LEADER:
                self._checker.committed(core, self._cores)
        if core.log.last_index != self._last_index:
            if core.log.last_index < self._last_index:
                self._reached("log truncated")
            self._last_index = core.log.last_index
        if len(core.memberships) != self._memberships:
            self._members(core, name)
        if core.damaged is not self._damaged:
            self._damaged = core.damaged
            self._reached("damage found" if core.damaged else "damage repaired")
        if core.asleep is not self._asleep:
            self._asleep = core.asleep
            self._reached("group slept" if core.asleep else "group woke")

    def _standing(self, core: RaftCore) -> None:
        leads = core.role is Role.LEADER
        if self._role is Role.LEADER and not leads and core.leader == 0 and core.term == self._term:
            self._reached("leader stepped down without a new one")
        self._term, self._role = core.term, core.role
        if leads:
            if len(self._checker.leaders) and core.term not in self._checker.leaders:
                self._reached("leader changed")
            self._checker.leads(core.term, core.replica)

    def _members(self, core: RaftCore, name: str) -> None:
        if len(core.memberships) < self._memberships and name == "step" and core.membership_index > core.commit:
            self._reached("membership change reverted")
        self._memberships = len(core.memberships)
        if core.membership.joint:
            self._reached("joint membership")
