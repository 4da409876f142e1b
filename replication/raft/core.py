"""One replica of a Raft group: what it must do about what happens. No clock, no I/O, no tasks.

    step, tick, propose, read_index, persisted, ... ──> RaftCore ──> take() -> Output
                                                           └──> log (visible at once, durable later)

After Ongaro and Ousterhout 2014 and Ongaro's dissertation (chapters 3, 4, 6, 9), with pre-votes and a leader that
watches its quorum always on. This module holds the state and the doors; what happens behind them is told in
elections.py, leading.py, following.py, changes.py and sleeping.py.

Nothing that promises durability leaves before the disk has it: votes, requests for votes, and answers to appends
wait in `held` for the number of the write that they speak of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from random import Random
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from plait.wire.errors import NotLeader, Overloaded
from replication.machine import Entry, Proposal, Role
from replication.raft import changes, elections, following, leading, sleeping
from replication.raft.log import Log, Vote
from replication.raft.membership import Membership
from replication.raft.messages import (
    Append,
    AppendAnswer,
    Beat,
    BeatAnswer,
    Lost,
    Message,
    Removed,
    Sleep,
    SleepAnswer,
    SnapshotOffer,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)
from replication.raft.output import Output, Standing
from replication.raft.progress import Progress
from replication.raft.reads import Reads
from replication.raft.settings import NS_PER_MS, RaftSettings

P = ParamSpec("P")
R = TypeVar("R")

RETRY_AFTER_MS = 100
"""What a proposal is told to wait that finds too much uncommitted."""


def _input(method: Callable[Concatenate[Any, int, P], R]) -> Callable[Concatenate[Any, int, P], R]:
    """A door of the core: whoever observes it hears of every call behind it."""

    @wraps(method)
    def observed(core: RaftCore, now_ns: int, *args: P.args, **kwargs: P.kwargs) -> R:
        core.now_ns = now_ns
        result = method(core, now_ns, *args, **kwargs)
        if core.observer is not None:
            core.observer(method.__name__, args)
        return result

    return cast("Callable[Concatenate[Any, int, P], R]", observed)


class RaftCore:
    """One replica. What is in the log when it begins is durable."""

    __slots__ = (
        "_output",
        "_standing",
        "_written",
        "applied_index",
        "asleep",
        "beat_ns",
        "candidate",
        "commit",
        "damaged",
        "dirty",
        "down",
        "durable_term",
        "election_ns",
        "failure",
        "first_of_term",
        "heard_ns",
        "held",
        "installing",
        "io",
        "leader",
        "leaving",
        "log",
        "lost",
        "memberships",
        "now_ns",
        "numbered",
        "observer",
        "progress",
        "quiet_beats",
        "random",
        "reads",
        "removed",
        "replica",
        "role",
        "settings",
        "stable_index",
        "term",
        "transfer_ns",
        "transferring_to",
        "uncommitted",
        "uncommitted_bytes",
        "vote",
        "vote_unsaved",
        "votes",
    )

    def __init__(
        self,
        replica: int,
        log: Log,
        vote: Vote,
        memberships: Sequence[tuple[int, Membership]],
        settings: RaftSettings,
        random: Random,
        now_ns: int,
        *,
        damaged: bool = False,
        eager: bool = False,
    ) -> None:
        """`memberships`: (index, membership), oldest first: the snapshot's, then those of the log behind it.

        `damaged`: some of its log cannot be read: it does not campaign. `eager`: it campaigns before others do.
        """
        self.replica = replica
        self.log = log
        self.settings = settings
        self.random = random
        self.now_ns = now_ns
        """Of the last input."""
        self.observer: Callable[[str, tuple[Any, ...]], None] | None = None

        self.term = vote.term
        """Never falls; durable before anything that promises something in it leaves."""
        self.vote = vote.replica
        """Whom it voted for in `term`; given once a term; 0: nobody."""
        self.vote_unsaved = False
        self.durable_term = vote.term
        self.role = Role.FOLLOWER
        self.candidate = ""
        """"" | "pre" | "real"."""
        self.votes: dict[int, bool] = {}
        self.leader = 0
        self.failure = ""
        self.lost = False
        """It is fenced because a leader proved that it lost what it had acknowledged."""

        self.commit = log.snapshot_index
        """applied_index <= commit <= log.last_index. Never falls."""
        self.applied_index = log.snapshot_index
        self.stable_index = log.last_index
        """Entries up to here are on this replica's disk."""
        self.memberships = list(memberships)
        """(index, membership): one at or below the commit, then those that are not committed."""
        self.installing: SnapshotOffer | None = None
        self.damaged = damaged
        self.removed = False

        self.heard_ns = now_ns
        """When a follower last heard its leader."""
        self.election_ns: int | None = None
        self.asleep = False
        self.down: dict[int, None] = {}
        """Nodes that are silent, as the peer links say."""

        self._begin_with_nothing()
        elections.wait(self, now_ns, eager=eager)

    def _begin_with_nothing(self) -> None:
        """What only a leader uses, and what waits for the disk."""
        self.io = 0
        """Number of the last write."""
        self._written: deque[list[int]] = deque()  # [io, last index then, term then], not durable yet
        self.held: deque[tuple[int, Message]] = deque()
        """(io, message): it leaves when that write is durable."""
        self._output = Output()
        self._standing = Standing(self.term, self.role, 0, ready=False)
        self.progress: dict[int, Progress] = {}
        """The other members, while this replica leads."""
        self.numbered = 0
        """Highest number of an append to a member that has left since: if it comes back, late answers to those
        are not taken for new ones."""
        self.first_of_term = 0
        self.beat_ns: int | None = None
        self.dirty = False
        """Some follower may have something to be sent."""
        self.uncommitted: deque[tuple[int, int]] = deque()  # (last index, bytes) of each proposal
        self.uncommitted_bytes = 0
        self.transferring_to = 0
        self.transfer_ns = 0
        self.quiet_beats = 0
        self.leaving: list[int] = []
        """Replicas that a change under way takes out: they are told when it is committed."""
        self.reads = Reads()

    # ---- what it is

    @property
    def membership(self) -> Membership:
        """The one in force: the newest in the log, committed or not."""
        return self.memberships[-1][1] if self.memberships else _NOBODY

    @property
    def membership_index(self) -> int:
        """Where it stands in the log."""
        return self.memberships[-1][0] if self.memberships else 0

    @property
    def ready(self) -> bool:
        """It leads, and the first entry of its term is applied: what it serves is not older than its term."""
        return self.role is Role.LEADER and self.applied_index >= self.first_of_term

    def next_deadline_ns(self) -> int | None:
        """When `tick` is to be called; None: something else has to happen first."""
        if self.role is Role.FENCED or self.asleep:
            return None
        if self.role is not Role.LEADER:
            return self.election_ns
        if not self.progress:
            return None  # nobody to be heard by
        if self.transferring_to and self.beat_ns is not None:
            return min(self.beat_ns, self.transfer_ns)
        return self.beat_ns

    # ---- doors

    @_input
    def step(self, now_ns: int, message: Message) -> None:
        """A message came. Any may be old, doubled or out of order."""
        if self.role is Role.FENCED or message.target != self.replica:
            return
        if self.asleep and not (message.term == self.term and isinstance(message, _LETS_SLEEP)):
            sleeping.wake(self, now_ns)
        if message.term > self.term:
            if not elections.may_follow(self, now_ns, message):
                return
        elif message.term < self.term:
            self._answer_old(message)
            return
        _STEPS[type(message)](self, now_ns, message)

    @_input
    def tick(self, now_ns: int) -> None:
        """The time of `next_deadline_ns` may have come."""
        if self.role is Role.FENCED or self.asleep:
            return
        if self.role is Role.LEADER:
            leading.tick(self, now_ns)
        elif self.election_ns is not None and now_ns >= self.election_ns:
            elections.leader_is_silent(self, now_ns)

    @_input
    def propose(self, now_ns: int, proposals: Sequence[Proposal], expected_term: int) -> int:
        """Append to the log as leader of `expected_term`; the first index.

        Raises NotLeader, or Overloaded when too much is uncommitted; then nothing was appended.
        """
        self.check_leads(expected_term)
        if self.uncommitted_bytes >= self.settings.uncommitted_bytes:
            raise Overloaded(
                f"{self.uncommitted_bytes} bytes wait for a majority of the replicas; nothing was done; try again",
                reason="uncommitted",
                retry_after_ms=RETRY_AFTER_MS,
            )
        sleeping.stir(self, now_ns)
        first = self.log.last_index + 1
        term = self.term
        entries = [
            Entry(index, term, proposal.kind, proposal.mark, proposal.span, proposal.payload)
            for index, proposal in enumerate(proposals, first)
        ]
        leading.append(self, now_ns, entries)
        return first

    @_input
    def change_membership(
        self, now_ns: int, voters: Mapping[int, int], learners: Mapping[int, int], expected_term: int
    ) -> int:
        """Begin the way to these members (replica to node); the index of its first entry.

        Raises NotLeader, Unavailable (not now) or BadRequest (never); then nothing was appended.
        """
        self.check_leads(expected_term)
        return changes.begin(self, now_ns, voters, learners)

    @_input
    def read_index(self, now_ns: int) -> int:
        """Ask for a moment to read at; a ticket, answered by Output.reads or Output.lost_reads.

        Raises NotLeader, or Overloaded when too many wait.
        """
        if self.role is not Role.LEADER:
            raise NotLeader("this replica does not lead; nothing was read; ask again")
        if len(self.reads) >= self.settings.reads_waiting:
            raise Overloaded(
                f"{self.settings.reads_waiting} reads wait for a majority; nothing was read; try again",
                reason="reads_waiting",
                retry_after_ms=RETRY_AFTER_MS,
            )
        if self.progress:
            sleeping.stir(self, now_ns)
        return self.reads.ask()

    @_input
    def transfer(self, now_ns: int, target: int) -> None:
        """Hand leadership to a voter; given up after an election's time. Raises NotLeader or Unavailable."""
        self.check_leads(self.term)
        leading.transfer(self, now_ns, target)

    @_input
    def persisted(self, now_ns: int, io: int) -> None:
        """Everything written with numbers up to `io` is durable."""
        if self.role is Role.FENCED:
            return
        while self._written and self._written[0][0] <= io:
            _, last_index, self.durable_term = self._written.popleft()
            self.stable_index = max(self.stable_index, last_index)
        while self.held and self.held[0][0] <= io:
            message = self.held.popleft()[1]
            if message.term == self.term:  # what was promised in an older term is of no use to anyone
                self._output.messages.append(message)
        if self.role is Role.LEADER:
            leading.advance(self, now_ns)
        elif self.candidate == "real" and self.durable_term == self.term:
            elections.count(self, now_ns, self.replica, granted=True)

    @_input
    def applied(self, now_ns: int, index: int) -> None:
        """The state machine has seen everything up to `index`."""
        assert index <= self.commit, "only what is committed is applied"
        self.applied_index = max(self.applied_index, index)

    @_input
    def loaded(self, now_ns: int, replica: int, first_index: int, entries: list[Entry]) -> None:
        """Entries that Output.wanted asked for; [] if they are gone."""
        if self.role is Role.LEADER and replica in self.progress:
            leading.loaded(self, now_ns, self.progress[replica], first_index, entries)

    @_input
    def installed(self, now_ns: int, index: int, membership: Membership) -> None:
        """A snapshot at `index` is durable in the log, and the state machine has it."""
        if self.role is not Role.FENCED:
            following.installed(self, now_ns, index, membership)

    @_input
    def install_failed(self, now_ns: int) -> None:
        """The snapshot that Output.install asked for could not be had; the leader will offer it again."""
        self.installing = None

    @_input
    def unreachable(self, now_ns: int, replica: int) -> None:
        """What was sent to that replica lately may be lost."""
        progress = self.progress.get(replica)
        if progress is not None:
            leading.pause(self, progress)

    @_input
    def node_down(self, now_ns: int, node: int) -> None:
        """A node is silent, or its process is gone."""
        self.down[node] = None
        if self.role is not Role.FENCED:
            sleeping.node_down(self, now_ns, node)

    @_input
    def node_up(self, now_ns: int, node: int) -> None:
        """A node is heard again."""
        self.down.pop(node, None)
        if self.role is Role.LEADER:
            sleeping.stir(self, now_ns)
            for progress in self.progress.values():
                if progress.node == node:
                    leading.restart(self, progress)

    @_input
    def wake(self, now_ns: int) -> None:
        """Somebody doubts that this group sleeps as it should."""
        if self.asleep:
            sleeping.wake(self, now_ns)

    @_input
    def found_damage(self, now_ns: int) -> None:
        """Some of the log is unreadable: a leader hands over, others tell theirs, and nobody campaigns."""
        self.damaged = True
        if self.role is not Role.FENCED:
            sleeping.stir(self, now_ns)
            following.report(self)

    @_input
    def repaired(self, now_ns: int) -> None:
        """All of the log can be read again."""
        self.damaged = False
        if self.role is Role.FOLLOWER and self.election_ns is None and not self.asleep:
            elections.wait(self, now_ns)
        following.report(self)

    @_input
    def fence(self, now_ns: int, reason: str) -> None:
        """End this replica for good: it says nothing any more."""
        if self.role is Role.FENCED:
            return
        self.end_leadership()
        self.role, self.leader, self.candidate, self.failure = Role.FENCED, 0, "", reason
        self.held.clear()
        self._output.messages.clear()
        self.asleep = False

    def take(self) -> Output:
        """What is to be done now. Afterwards it is the driver's."""
        if self.role is Role.LEADER:
            leading.collect(self)
        output, self._output = self._output, Output()
        output.commit = self.commit
        standing = self._standing
        now = (self.term, self.role, self.leader, self.ready)
        if now != (standing.term, standing.role, standing.leader, standing.ready):
            output.standing = self._standing = Standing(*now, self.failure)
        return output

    # ---- for elections.py, leading.py, following.py, changes.py, sleeping.py

    @property
    def output(self) -> Output:
        """What is collected for the next `take`."""
        return self._output

    def send(self, message: Message) -> None:
        """It promises nothing that is not durable: it may leave now."""
        self._output.messages.append(message)

    def send_durable(self, message: Message) -> None:
        """It may leave when everything that is written by now is durable."""
        if self._written:
            self.held.append((self.io, message))
        else:
            self._output.messages.append(message)

    def write(self, entries: Sequence[Entry] = ()) -> None:
        """Append entries, together with term and vote if they are not saved yet."""
        vote = Vote(self.term, self.vote) if self.vote_unsaved else None
        self.vote_unsaved = False
        self.io += 1
        self.log.append(entries, vote, self.io)
        self._written.append([self.io, self.log.last_index, self.term])

    def truncate_after(self, index: int) -> None:
        """Forget entries that conflict with the leader's, and memberships that stood in them."""
        assert index >= self.commit, "what is committed is never truncated"
        self.io += 1
        self.log.truncate_after(index, self.io)
        self.stable_index = min(self.stable_index, index)
        for written in self._written:  # the same indexes may be written again before these are durable
            written[1] = min(written[1], index)
        self._written.append([self.io, index, self.durable_term_written()])
        changes.truncated(self, index)

    def durable_term_written(self) -> int:
        """The term that will be durable with the last write."""
        return self._written[-1][2] if self._written else self.durable_term

    def reset_stable(self, index: int) -> None:
        """A snapshot at `index` replaced the log up to there, or all of it."""
        self.stable_index = max(index, min(self.stable_index, self.log.last_index))
        for written in self._written:
            written[1] = min(written[1], self.log.last_index)

    def follow(self, now_ns: int, term: int, leader: int) -> None:
        """Become a follower in `term`."""
        assert term >= self.term, "terms never fall"
        led = self.role is Role.LEADER
        if term > self.term:
            self.term, self.vote, self.vote_unsaved = term, 0, True
            self.write()
        self.end_leadership()
        self.role, self.candidate, self.leader = Role.FOLLOWER, "", leader
        self.votes.clear()
        if led or self.election_ns is None:
            elections.wait(self, now_ns)

    def end_leadership(self) -> None:
        """Forget what only a leader has."""
        if self.role is not Role.LEADER:
            return
        self._output.lost_reads += self.reads.drop()
        self.progress.clear()
        self.uncommitted.clear()
        self.uncommitted_bytes = 0
        self.transferring_to = 0
        self.leaving = []
        self.beat_ns = None
        self.dirty = False
        self.asleep = False

    def committed(self, index: int) -> None:
        """Entries up to `index` are committed."""
        assert self.commit <= index <= self.log.last_index, "the commit moves forward, within the log"
        self.commit = index
        while len(self.memberships) > 1 and self.memberships[1][0] <= index:
            del self.memberships[0]

    def check_leads(self, expected_term: int) -> None:
        """Raises NotLeader unless this replica leads that term and is not handing it over."""
        if self.role is not Role.LEADER or self.term != expected_term:
            raise NotLeader(f"this replica does not lead term {expected_term}; nothing was done; ask again")
        if self.transferring_to:
            raise NotLeader("this replica is handing its leadership over; nothing was done; ask again")

    def election_time_ns(self) -> int:
        """How long this replica waits for its leader this time."""
        least = self.settings.election_ms * NS_PER_MS
        return least + self.random.randrange(least)

    def _answer_old(self, message: Message) -> None:
        """The sender has missed a term: tell it, or it would go on for ever (etcd's rule for its pre-votes)."""
        if isinstance(message, VoteRequest):
            self.send(VoteAnswer(self.replica, message.source, self.term, granted=False, pre=message.pre))
        elif isinstance(message, (Append, Beat, SnapshotOffer, Sleep)):
            self.send(BeatAnswer(self.replica, message.source, self.term, read=0))


_NOBODY = Membership({})

_LETS_SLEEP = (Sleep, SleepAnswer, BeatAnswer)
"""Messages of a group that falls asleep, or late ones from before it did."""

_STEPS: dict[type, Callable[[RaftCore, int, Any], None]] = {
    VoteRequest: elections.on_vote_request,
    VoteAnswer: elections.on_vote_answer,
    Append: following.on_append,
    AppendAnswer: leading.on_append_answer,
    Beat: following.on_beat,
    BeatAnswer: leading.on_beat_answer,
    SnapshotOffer: following.on_snapshot_offer,
    TimeoutNow: following.on_timeout_now,
    Sleep: sleeping.on_sleep,
    SleepAnswer: sleeping.on_sleep_answer,
    Removed: changes.on_removed,
    Lost: following.on_lost,
}
