"""A Raft replica as small as it can be: the reference model's touchstone, and a home for its mutants.

It is written for being read: one append under way to each follower, no pre-vote, no windows. It has the interface
of replication.raft.core as far as it goes. `bug` names a deliberate mistake; "" is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Any

from replication.machine import KIND_MEMBERSHIP, KIND_NOOP, Entry, Proposal, Role
from replication.raft.log import Log, Vote
from replication.raft.membership import Membership, decode_membership
from replication.raft.messages import (
    Append,
    AppendAnswer,
    Beat,
    BeatAnswer,
    Message,
    SnapshotOffer,
    VoteAnswer,
    VoteRequest,
)
from replication.raft.output import Output

BEAT_NS = 20_000_000
"""Between two beats, and two tries to send the same entries."""
APPEND_ENTRIES = 3
"""Entries of one append."""


class Refused(Exception):
    """Nothing was done."""


class Toy:
    """One replica. Inputs are its public methods, all with the time in nanoseconds."""

    def __init__(
        self,
        replica: int,
        log: Log,
        vote: Vote,
        memberships: Sequence[tuple[int, Membership]],
        random: Random,
        now_ns: int,
        election_ns: int,
        bug: str = "",
    ) -> None:
        self.replica, self.log, self.random, self.bug = replica, log, random, bug
        self.election_ns = election_ns
        """Least silence before an election; at most three times this."""
        self.observer: Callable[[str, tuple[Any, ...]], None] | None = None
        self.memberships = list(memberships)
        self.term = max(vote.term, log.last_term)
        self.vote = vote.replica if vote.term == self.term else 0
        self.role, self.candidate, self.leader = Role.FOLLOWER, "", 0
        self.commit = self.applied_index = log.snapshot_index
        self.asleep = self.damaged = False
        self.failure = ""
        self.first = 0
        self.votes: set[int] = set()
        self.next: dict[int, int] = {}
        self.match: dict[int, int] = {}
        self.heard: dict[int, int] = {}
        self.sequence = self.round = self.ticket = 0
        self.reads: dict[int, tuple[int, int]] = {}
        """Ticket: round and index; round 0: nothing of this term is committed yet."""
        self.io = self.synced = self.voted_io = 0
        self.stable = log.last_index
        self.unsynced: deque[tuple[int, int]] = deque()
        self.held: list[tuple[int, Message]] = []
        self.offer: SnapshotOffer | None = None
        self.out = Output()
        self.deadline = now_ns
        self._wait(now_ns)

    # ---- what it shows

    @property
    def membership(self) -> Membership:
        return self.memberships[-1][1]

    @property
    def ready(self) -> bool:
        return self.role is Role.LEADER and self.applied_index >= self.first

    @property
    def others(self) -> list[int]:
        return [each for each in self.membership.members() if each != self.replica]

    def take(self) -> Output:
        """What is to be done."""
        out, self.out = self.out, Output(commit=self.commit)
        out.commit = self.commit
        return out

    # ---- inputs

    def step(self, now_ns: int, message: Message) -> None:
        """A message has come."""
        granted = isinstance(message, VoteAnswer) and message.granted
        if message.term > self.term:
            self._adopt(now_ns, message.term)
        if message.term == self.term or self._takes_old(message) or isinstance(message, VoteRequest):
            _HANDLERS[type(message)](self, now_ns, message)
        elif isinstance(message, Append) and not granted:
            self._refuse(message, message.previous_index)
        self._seen("step", message)

    def _takes_old(self, message: Message) -> bool:
        return (
            (self.bug == "votes of older terms" and isinstance(message, VoteAnswer))
            or (self.bug == "acks of older terms" and isinstance(message, AppendAnswer))
            or (
                self.bug == "appends of older terms" and isinstance(message, Append) and self.role is Role.FOLLOWER
            )
        )

    def tick(self, now_ns: int) -> None:
        """The deadline may have come."""
        if now_ns >= self.deadline:
            if self.role is Role.LEADER:
                self._wait(now_ns)
                for each in self.others:
                    self._replicate(each)
                    self._beat(each)
            else:
                self._campaign(now_ns)
        self._seen("tick")

    def propose(self, now_ns: int, proposals: Sequence[Proposal], expected_term: int) -> int:
        """First index. Raises Refused."""
        if self.role is not Role.LEADER or expected_term != self.term:
            raise Refused("not the leader of that term")
        first = self.log.last_index + 1
        self._append_own([(each.kind, each.payload) for each in proposals])
        self._seen("propose", proposals, expected_term)
        return first

    def change_membership(
        self, now_ns: int, voters: Mapping[int, int], learners: Mapping[int, int], expected_term: int
    ) -> int:
        """The entry's index. Raises Refused."""
        index, former = self.memberships[-1]
        if self.role is not Role.LEADER or expected_term != self.term:
            raise Refused("not the leader of that term")
        if self.commit < self.first and self.bug != "change before own commit":
            raise Refused("nothing of this term is committed")
        if self.bug != "second change" and (self.commit < index or former.joint):
            raise Refused("a change is under way")
        new = former.entering(voters, learners)
        if self.bug == "change in one step":
            new = Membership(dict(voters), dict(learners))
        if new == former:
            raise Refused("nothing changes")
        self._append_own([(KIND_MEMBERSHIP, new.encode())])
        self._seen("change_membership", voters, learners, expected_term)
        return self.log.last_index

    def read_index(self, now_ns: int) -> int:
        """A ticket. Raises Refused."""
        if self.role is not Role.LEADER:
            raise Refused("not the leader")
        self.ticket += 1
        own = self.commit >= self.first or self.bug == "read before own commit"
        self.reads[self.ticket] = (self._new_round(), self.commit) if own else (0, 0)
        self._answer_reads()
        self._seen("read_index")
        return self.ticket

    def persisted(self, now_ns: int, io: int) -> None:
        """What was written up to that number is durable."""
        self.synced = max(self.synced, io)
        while self.unsynced and self.unsynced[0][0] <= io:
            self.stable = self.unsynced.popleft()[1]
        self.out.messages += [message for after, message in self.held if after <= io]
        self.held = [each for each in self.held if each[0] > io]
        self._count(now_ns)
        self._seen("persisted", io)

    def applied(self, now_ns: int, index: int) -> None:
        """The state machine has applied entries up to there."""
        self.applied_index = max(index, self.applied_index)
        self._seen("applied", index)

    def installed(self, now_ns: int, index: int, membership: Membership) -> None:
        """The log begins at that snapshot now, and everything in it is durable."""
        behind = [each for each in self.memberships if index < each[0] <= self.log.last_index]
        stale = [(index, self.membership)] if self.bug == "stale membership with snapshot" else None
        self.memberships = stale or [(index, membership), *behind]
        self.commit = self.applied_index = index
        self.stable, self.synced = self.log.last_index, self.io
        self.unsynced.clear()
        if self.offer is not None and self.offer.term == self.term:
            self._accept(self.offer.source, self.offer.sequence, index)
        self._seen("installed", index, membership)

    def _seen(self, name: str, *arguments: Any) -> None:
        if self.observer is not None:
            self.observer(name, arguments)

    # ---- log

    def _write(self, entries: Sequence[Entry] = (), *, vote: bool = False) -> None:
        self.io += 1
        self.log.append(entries, Vote(self.term, self.vote) if vote else None, self.io)
        self.unsynced.append((self.io, self.log.last_index))
        self.voted_io = self.io if vote else self.voted_io
        for entry in entries:
            if entry.kind == KIND_MEMBERSHIP:
                self.memberships.append((entry.index, decode_membership(entry.payload)))

    def _cut(self, index: int) -> None:
        self.io += 1
        self.log.truncate_after(index, self.io)
        self.stable = min(self.stable, index)
        self.unsynced = deque((io, min(last, index)) for io, last in self.unsynced)
        self.unsynced.append((self.io, index))
        if self.bug != "membership of cut entries":
            while len(self.memberships) > 1 and self.memberships[-1][0] > index:
                self.memberships.pop()

    def _append_own(self, contents: Sequence[tuple[int, Any]]) -> None:
        first = self.log.last_index + 1
        self._write([Entry(first + at, self.term, kind, 0, 0, what) for at, (kind, what) in enumerate(contents)])
        for each in self.others:
            self._replicate(each)

    # ---- elections

    def _wait(self, now_ns: int) -> None:
        leads = self.role is Role.LEADER
        self.deadline = now_ns + (
            BEAT_NS if leads else self.random.randrange(self.election_ns, 3 * self.election_ns)
        )

    def _adopt(self, now_ns: int, term: int) -> None:
        self.term, self.vote = term, 0
        self._write(vote=True)
        self._step_down(now_ns)

    def _step_down(self, now_ns: int) -> None:
        self.role, self.candidate, self.leader = Role.FOLLOWER, "", 0
        self.out.lost_reads += self.reads
        self.reads.clear()
        if self.bug == "forgets its vote":
            self.vote = 0
        self._wait(now_ns)

    def _campaign(self, now_ns: int) -> None:
        self._wait(now_ns)
        if not self.membership.is_voter(self.replica):
            return
        self.term += 1
        self.vote, self.candidate, self.leader, self.votes = self.replica, "real", 0, {self.replica}
        self._write(vote=True)
        for each in self.others:
            head = (self.replica, each, self.term, self.log.last_index, self.log.last_term)
            self._send_synced(VoteRequest(*head, pre=False, transfer=False))
        self._maybe_lead(now_ns)

    def _vote_request(self, now_ns: int, message: VoteRequest) -> None:
        free = self.vote in (0, message.source) or self.bug == "double vote"
        theirs, mine = (message.last_term, message.last_index), (self.log.last_term, self.log.last_index)
        newer = theirs >= mine
        if self.bug == "longer log wins":
            newer = theirs[1] >= mine[1]
        granted = (
            message.term == self.term and free and newer and self.role is Role.FOLLOWER and not self.candidate
        )
        if granted and self.vote != message.source:
            self.vote = message.source
            self._write(vote=True)
            self._wait(now_ns)
        answer = VoteAnswer(self.replica, message.source, self.term, granted, pre=False)
        if granted and self.bug != "vote before sync":
            self._send_synced(answer)
        else:
            self.out.messages.append(answer)

    def _vote_answer(self, now_ns: int, message: VoteAnswer) -> None:
        if self.candidate and (message.granted or self.bug == "refusal taken for a vote"):
            self.votes.add(message.source)
            self._maybe_lead(now_ns)

    def _maybe_lead(self, now_ns: int) -> None:
        if not self._quorum(self.votes):
            return
        self.role, self.candidate, self.leader = Role.LEADER, "", self.replica
        self.first = self.log.last_index + 1
        self.next = dict.fromkeys(self.others, self.first)
        self.match, self.heard, self.round = {}, {}, 0
        self._append_own([(KIND_NOOP, b"")])
        self._wait(now_ns)

    def _quorum(self, present: Collection[int]) -> bool:
        voters, outgoing = self.membership.voters, self.membership.outgoing
        sets = [each for each in (voters, outgoing) if each]
        if self.bug == "quorum of the new set":
            sets = [voters]
        elif self.bug == "quorum of the union":
            sets = [{**voters, **outgoing}]
        elif self.bug == "learners count":
            sets = [{**voters, **self.membership.learners}]
        return all(2 * len([each for each in one if each in present]) > len(one) for one in sets)

    # ---- the leader

    def _replicate(self, follower: int) -> None:
        following = self.next.setdefault(follower, self.log.last_index + 1)
        self.sequence += 1
        head = (self.replica, follower, self.term)
        if following <= self.log.snapshot_index:
            index = self.log.snapshot_index
            self._send_leading(SnapshotOffer(*head, index, self.log.term_at(index) or 0, self.sequence))
            return
        most = APPEND_ENTRIES if follower in self.match else 0
        entries = (self.log.cached(following, 1 << 20) or [])[:most]
        previous = following - 1
        named = (previous, self.log.term_at(previous) or 0)
        self._send_leading(Append(*head, *named, entries, self.commit, self.sequence))

    def _beat(self, follower: int) -> None:
        commit = min(self.commit, self.match.get(follower, 0))
        if self.bug == "beat tells all":
            commit = self.commit
        self._send_leading(Beat(self.replica, follower, self.term, commit, self.round))

    def _append_answer(self, now_ns: int, message: AppendAnswer) -> None:
        if self.role is not Role.LEADER:
            return
        follower = message.source
        if message.success or self.bug == "commit on refusal":
            news = follower not in self.match or message.index >= self.next.get(follower, 1)
            self.match[follower] = max(self.match.get(follower, 0), message.index)
            self.next[follower] = max(self.next.get(follower, 1), message.index + 1)
            self._count(now_ns)
            if self.role is Role.LEADER and news and self.next[follower] <= self.log.last_index:
                self._replicate(follower)
        elif message.index == self.next.get(follower, 0) - 1:
            self.next[follower] = max(min(message.index, message.hint_index + 1), 1)
            self._replicate(follower)

    def _count(self, now_ns: int) -> None:
        """Commit what a quorum has."""
        if self.role is not Role.LEADER:
            return
        mine = self.log.last_index if self.bug == "counts itself unsynced" else self.stable
        for index in sorted({mine, *self.match.values()}, reverse=True):
            if index <= self.commit or (self.log.term_at(index) != self.term and self.bug != "old term counts"):
                break
            present = [each for each, match in self.match.items() if match >= index and each != self.replica]
            if self._quorum([*present, *([self.replica] if mine >= index else [])]):
                self.commit = index
                self._committed(now_ns)
                break

    def _committed(self, now_ns: int) -> None:
        index, membership = self.memberships[-1]
        if index <= self.commit and membership.joint:
            self._append_own([(KIND_MEMBERSHIP, membership.left().encode())])
        elif index <= self.commit and not (
            self.replica in membership.voters or self.bug == "removed leader stays"
        ):
            self._step_down(now_ns)
            return
        if self.commit >= self.first:
            waiting = [ticket for ticket, (round, _) in self.reads.items() if not round]
            for ticket in waiting:
                self.reads[ticket] = (self._new_round(), self.commit)
            self._answer_reads()

    # ---- reads

    def _new_round(self) -> int:
        if self.bug != "reused read number" or not self.round:
            self.round += 1
        for each in self.others:
            self._beat(each)
        return self.round

    def _answer_reads(self) -> None:
        for ticket, (round, index) in list(self.reads.items()):
            heard = [each for each, read in self.heard.items() if read >= round]
            if round and (self._quorum([self.replica, *heard]) or self.bug == "read without asking"):
                del self.reads[ticket]
                self.out.reads.append((ticket, index))

    def _beat_answer(self, now_ns: int, message: BeatAnswer) -> None:
        if self.role is Role.LEADER:
            self.heard[message.source] = max(self.heard.get(message.source, 0), message.read)
            self._answer_reads()

    # ---- followers

    def _heard_leader(self, now_ns: int, source: int) -> None:
        self.leader, self.candidate = source, ""
        self._wait(now_ns)

    def _append(self, now_ns: int, message: Append) -> None:
        if message.term == self.term:
            self._heard_leader(now_ns, message.source)
        log, previous = self.log, message.previous_index
        if previous > log.snapshot_index and log.term_at(previous) != message.previous_term:
            if self.bug == "cut on refusal" and previous <= log.last_index:
                self._cut(max(previous - 1, log.snapshot_index))
            self._refuse(message, min(previous - 1, log.last_index))
            return
        entries = [each for each in message.entries if each.index > log.snapshot_index]
        if self.bug == "stale append cuts" and entries:
            self._cut(entries[0].index - 1)
        while entries and log.term_at(entries[0].index) == entries[0].term:
            entries.pop(0)
        if entries:
            if entries[0].index <= log.last_index:
                self._cut(entries[0].index - 1)
            self._write(entries)
        last = previous + len(message.entries)
        known = log.last_index if self.bug == "commit beyond agreement" else last
        self.commit = max(self.commit, min(message.commit, known))
        self._accept(message.source, message.sequence, log.last_index if self.bug == "ack of the tail" else last)

    def _accept(self, leader: int, sequence: int, index: int) -> None:
        answer = AppendAnswer(self.replica, leader, self.term, sequence, True, index, 0, 0, damaged=False)
        if self.bug == "ack before sync":
            self.out.messages.append(answer)
        else:
            self._send_synced(answer)

    def _refuse(self, message: Append, hint: int) -> None:
        head = (self.replica, message.source, self.term, message.sequence)
        term = self.log.term_at(hint) or 0
        self.out.messages.append(AppendAnswer(*head, False, message.previous_index, hint, term, damaged=False))

    def _beat_heard(self, now_ns: int, message: Beat) -> None:
        self._heard_leader(now_ns, message.source)
        self.commit = max(self.commit, min(message.commit, self.log.last_index))
        self.out.messages.append(BeatAnswer(self.replica, message.source, self.term, message.read))

    def _offered(self, now_ns: int, message: SnapshotOffer) -> None:
        self._heard_leader(now_ns, message.source)
        if message.index > self.commit:
            self.offer = self.out.install = message

    def _send_synced(self, message: Message) -> None:
        """Leaves when all that is written is durable."""
        self._send_after(self.io, message)

    def _send_leading(self, message: Message) -> None:
        """Leaves when the term is durable: a sole voter may lead before that."""
        self._send_after(0 if self.bug == "leads before sync" else self.voted_io, message)

    def _send_after(self, io: int, message: Message) -> None:
        if self.synced >= io:
            self.out.messages.append(message)
        else:
            self.held.append((io, message))


_HANDLERS: dict[type[Any], Callable[[Toy, int, Any], None]] = {
    VoteRequest: Toy._vote_request,
    VoteAnswer: Toy._vote_answer,
    Append: Toy._append,
    AppendAnswer: Toy._append_answer,
    Beat: Toy._beat_heard,
    BeatAnswer: Toy._beat_answer,
    SnapshotOffer: Toy._offered,
}

BUGS = (
    *("double vote", "vote before sync", "leads before sync", "longer log wins", "forgets its vote"),
    *("votes of older terms",),
    *("refusal taken for a vote", "ack before sync", "ack of the tail", "acks of older terms"),
    *("appends of older terms", "stale append cuts", "cut on refusal", "commit beyond agreement"),
    *("commit on refusal", "old term counts", "counts itself unsynced", "beat tells all"),
    *("quorum of the new set", "quorum of the union", "learners count", "second change"),
    *("change in one step", "change before own commit", "membership of cut entries", "removed leader stays"),
    *("stale membership with snapshot", "read before own commit", "read without asking", "reused read number"),
)
"""Everything that `bug` may be."""
