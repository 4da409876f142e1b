"""What must hold of a group whatever happens, looked at from outside after every input of every core.

The checkers keep their own account of votes, terms, writers, commits and memberships, made of what replicas wrote
and sent, and never ask a core for its opinion where the facts can be had elsewhere. The properties are those of
the
Raft papers (Ongaro and Ousterhout 2014, figure 3; Ongaro's dissertation, chapters 3, 4 and 6), and the rules that
replication/raft/core.py promises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from replication.machine import KIND_MEMBERSHIP, Entry, Role
from replication.raft import invariants
from replication.raft.core import RaftCore
from replication.raft.log import Vote
from replication.raft.membership import Membership, decode_membership
from replication.raft.messages import (
    Append,
    AppendAnswer,
    Beat,
    Message,
    Sleep,
    SnapshotOffer,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)
from tests.sim.raft.memory_log import MemoryLog
from tests.sim.raft.replica import Replica
from tests.sim.raft.truth import Asked, Truth, Violation


class Checkers:
    """Told of every write, message, input and answer. Each check raises Violation with its own name."""

    def __init__(self, replicas: Mapping[int, Replica]) -> None:
        self.replicas = replicas
        self.truth = Truth()
        self.sometimes: Counter[str] = Counter()
        """Rare states, and how often they were reached."""
        self.leaders: dict[int, int] = {}
        """Term to the one that led it."""
        self._writers: dict[int, int] = {}
        """Term to the one that made its entries."""
        self._entries: dict[tuple[int, int], tuple[int, bytes, int]] = {}
        """(index, term) of every entry that ever stood in a log: kind, payload, term of the one before."""
        self._votes: dict[tuple[int, int], int] = {}
        """(voter, term): whom it said it votes for."""
        self._pre_votes: set[tuple[int, int, int]] = set()
        """(voter, term, candidate) of granted pre-votes."""
        self._bidden: set[tuple[int, int]] = set()
        """(replica, term): the leader of that term asked it to lead."""
        self._durable_terms: dict[int, int] = {}
        self.forgetful: set[int] = set()
        """Replicas whose disks lost what they had: leaders cannot know."""
        self._wrote: set[int] = set()

    # ---- writes

    def founded(self, entry: Entry) -> None:
        """A group begins with this entry in all its members' logs."""
        self._entries[entry.index, entry.term] = (entry.kind, bytes(entry.payload), 0)
        self._writers[entry.term] = 0

    def appending(self, log: MemoryLog, entries: Sequence[Entry], vote: Vote | None) -> None:
        """See Watcher."""
        previous, members = log.last_term, log.seen.memberships[-1]
        for entry in entries:
            content = (entry.kind, bytes(entry.payload), previous)
            key = (entry.index, entry.term)
            known = self._entries.get(key)
            if known is None:
                self._made(log, entry, content)
            elif known != content:
                raise Violation("log matching", f"{log.replica} has another entry {entry.index}/{entry.term}")
            if entry.term < previous:
                raise Violation("log matching", f"terms fall at {entry.index} in the log of {log.replica}")
            if entry.kind == KIND_MEMBERSHIP:
                members = self._membership_step(log, members, entry)
            previous = entry.term
        if vote is not None:
            self._vote_written(log, vote)

    def _made(self, log: MemoryLog, entry: Entry, content: tuple[int, bytes, int]) -> None:
        """An entry stands in a log for the first time anywhere: only the leader of its term makes one."""
        maker = self._writers.setdefault(entry.term, log.replica)
        if maker != log.replica:
            raise Violation(
                "one leader per term",
                f"{log.replica} made entry {entry.index}/{entry.term}, and {maker} made others",
            )
        self._entries[entry.index, entry.term] = content
        self._wrote.add(log.replica)

    def _membership_step(
        self, log: MemoryLog, members: tuple[int, Membership], entry: Entry
    ) -> tuple[int, Membership]:
        """Dissertation 4.3: the joint step between any two sets of voters, one change at a time. The next
        members."""
        (at, before), after = members, decode_membership(entry.payload)
        if before.joint:
            legal = after == before.left()
        elif after.joint:
            legal = dict(after.outgoing) == dict(before.voters)
        else:
            legal = dict(after.voters) == dict(before.voters)
        if before.voters and not legal:
            raise Violation("membership steps", f"{log.replica}: {before} to {after} at {entry.index}")
        replica = self.replicas[log.replica]
        core = replica.core
        if core is not None and core.role is Role.LEADER and core.commit < at:
            raise Violation(
                "membership steps", f"{log.replica} changes members before the last change is committed"
            )
        if core is not None and core.role is Role.LEADER:
            self._change_begun(replica, core, before, after)
        if after.joint:
            self.sometimes["joint membership entered"] += 1
        elif before.joint:
            self.sometimes["joint membership left"] += 1
        return entry.index, after

    def _change_begun(self, replica: Replica, core: RaftCore, before: Membership, after: Membership) -> None:
        """Behind a committed entry of its own term (the erratum of dissertation 4.1), and with voters that have
        caught up (4.2.1)."""
        log = replica.log
        if log.term_at(core.commit) != core.term:
            raise Violation("membership steps", f"{replica.id} changes members before it has committed anything")
        for voter in after.voters:
            other = self.replicas.get(voter)
            lacks = log.last_index - (other.log.durable.last_index if other is not None else 0)
            if not before.is_voter(voter) and lacks > replica.settings.promotion_entries:
                raise Violation("voters have caught up", f"{voter} is to vote and lacks {lacks} entries")

    def _vote_written(self, log: MemoryLog, vote: Vote) -> None:
        before = log.seen.vote
        if vote.term < before.term:
            raise Violation("monotone", f"{log.replica} writes term {vote.term} behind term {before.term}")
        if vote.term == before.term and before.replica not in (0, vote.replica):
            raise Violation("one vote", f"{log.replica} changes its vote of term {vote.term}")

    def truncating(self, log: MemoryLog, index: int) -> None:
        """See Watcher."""
        self.sometimes["truncated"] += 1
        if log.seen.memberships[-1][0] > index:
            self.sometimes["membership change reverted"] += 1
        replica = self.replicas[log.replica]
        core = replica.core
        if core is not None and core.commit > index:
            raise Violation("committed stays", f"{log.replica} cuts its log at {index} and knows {core.commit}")
        if replica.to_apply > index or replica.applied > index:
            raise Violation("committed stays", f"{log.replica} cuts its log at {index} and applied more")
        if core is not None and core.role is Role.LEADER:
            raise Violation("leaders only append", f"{log.replica} leads and cuts its log at {index}")
        if index + 1 <= self.truth.last_index and self._held_by_quorum_only_with(log, index + 1):
            raise Violation("committed stays", f"{log.replica} cuts committed entry {index + 1}")

    def _held_by_quorum_only_with(self, log: MemoryLog, index: int) -> bool:
        """Whether the committed entry there stands in this log and the quorum needs it."""
        term = self.truth.terms[index]
        if log.term_at(index) != term or not log.durable.holds(index, term):
            return False
        return not self._on_quorum(self.truth.in_force, index, term, without=log.replica)

    # ---- messages

    def sending(self, replica: Replica, message: Message) -> None:
        """A message leaves; it has not been seen by anybody."""
        if message.source != replica.id:
            raise Violation("messages", f"{replica.id} sends as {message.source}")
        if replica.core is not None and replica.core.role is Role.FENCED:
            raise Violation("fenced is silent", f"{replica.id} sends {type(message).__name__}")
        kind = type(message)
        if kind in _SAID_BY_LEADERS:
            self._leader_speaks(replica, message)
            if kind is TimeoutNow:
                self._hands_over(replica, message.target)
        elif kind is AppendAnswer:
            self._acknowledges(replica, message)  # type: ignore[arg-type]  # just looked
        elif kind is VoteAnswer:
            self._answers_vote(replica, message)  # type: ignore[arg-type]  # just looked
        elif kind is VoteRequest:
            self._asks_votes(replica, message)  # type: ignore[arg-type]  # just looked

    def _leader_speaks(self, replica: Replica, message: Message) -> None:
        core, seen, term = replica.core, replica.seen, message.term
        if core is not None and core.term == term and core.role is Role.LEADER:
            return
        if seen.term == term and seen.role is Role.LEADER:  # it stepped down in this very input
            return
        raise Violation("only leaders lead", f"{replica.id} sends {type(message).__name__} of term {term}")

    def _hands_over(self, replica: Replica, heir: int) -> None:
        """Dissertation 3.10: to a follower that has everything; unless the leader has to go in any case."""
        log, core = replica.log, replica.core
        if core is None or core.role is not Role.LEADER or heir not in self.replicas:
            return
        if not self.replicas[heir].log.durable.holds(log.last_index, log.last_term):
            raise Violation("heirs have everything", f"{replica.id} hands over to {heir}, which lacks entries")

    def _acknowledges(self, replica: Replica, message: AppendAnswer) -> None:
        if not message.success:
            return
        durable, term = replica.log.durable, replica.log.term_at(message.index)
        if durable.last_index < message.index or (term is not None and not durable.holds(message.index, term)):
            raise Violation(
                "durable before said",
                f"{replica.id} acknowledges {message.index}/{term}, has up to {durable.last_index} on disk",
            )
        if durable.vote.term < message.term:
            raise Violation(
                "durable before said", f"{replica.id} acknowledges in term {message.term}, not on disk"
            )

    def _answers_vote(self, replica: Replica, message: VoteAnswer) -> None:
        if not message.granted:
            self.sometimes["pre-vote refused" if message.pre else "vote refused"] += 1
        elif message.pre:
            self._pre_votes.add((replica.id, message.term, message.target))
        else:
            self._votes_for(replica, message.term, message.target)

    def _votes_for(self, replica: Replica, term: int, candidate: int) -> None:
        known = self._votes.setdefault((replica.id, term), candidate)
        if known != candidate:
            raise Violation("one vote", f"{replica.id} votes for {candidate} in term {term}, and did for {known}")
        vote = replica.log.durable.vote
        if vote.term < term or (vote.term == term and vote.replica != candidate):
            raise Violation("durable before said", f"{replica.id} votes for {candidate} in {term}, {vote} on disk")

    def _asks_votes(self, replica: Replica, message: VoteRequest) -> None:
        self._may_campaign(replica)
        if message.pre:
            return
        self._votes_for(replica, message.term, replica.id)
        if message.transfer and (replica.id, message.term - 1) in self._bidden:
            self.sometimes["transfer campaigned"] += 1
        elif not self._granted(replica, message.term, pre=True):
            raise Violation("pre-vote first", f"{replica.id} campaigns in term {message.term} without being let")

    def _may_campaign(self, replica: Replica) -> None:
        """Whoever cannot lead, or should not, asks for nothing."""
        core = replica.core
        if core is not None and core.candidate == replica.seen.candidate:
            return  # it began to campaign before this input
        if replica.damaged or replica.installing:
            raise Violation("only the whole campaign", f"{replica.id} campaigns, and its storage is not whole")
        if not any(membership.is_voter(replica.id) for _, membership in replica.log.seen.memberships):
            raise Violation("only voters campaign", f"{replica.id} campaigns, and is no voter")

    def _granted(self, replica: Replica, term: int, *, pre: bool) -> bool:
        """Whether a quorum of each set of voters that its log knows said yes."""
        for voters in replica.log.membership.voter_sets():
            if pre:
                yes = sum((one, term, replica.id) in self._pre_votes for one in voters if one != replica.id)
            else:
                yes = sum(self._votes.get((one, term)) == replica.id for one in voters if one != replica.id)
            if 2 * (yes + (replica.id in voters)) <= len(voters):
                return False
        return True

    # ---- after an input

    def delivered(self, replica: Replica, message: Message) -> None:
        """Its core was just given that message."""
        core, seen = replica.core, replica.seen
        assert core is not None
        if isinstance(message, VoteRequest) and message.pre and not seen.asleep:
            now = (core.term, core.vote, core.role, core.leader, core.election_ns)
            if now != (seen.term, seen.vote, seen.role, seen.leader, seen.election_ns):
                raise Violation("pre-votes change nothing", f"{replica.id} changes for one of {message.source}")
        elif isinstance(message, VoteRequest) and not message.pre:
            self._votes_where_it_may(replica, core, message)
        elif isinstance(message, AppendAnswer) and core.role is Role.LEADER:
            self._match(replica, core, message.source)
        elif isinstance(message, TimeoutNow):
            self._bidden.add((replica.id, message.term))

    def _votes_where_it_may(self, replica: Replica, core: RaftCore, request: VoteRequest) -> None:
        """Figure 2: whoever has not voted in the term votes for a candidate whose log is as good as its own."""
        log = replica.log
        free = core.term == request.term and core.vote == core.leader == 0 and core.role is Role.FOLLOWER
        if free and (request.last_term, request.last_index) >= (log.last_term, log.last_index):
            raise Violation("votes where it may", f"{replica.id} refuses {request.source} in term {core.term}")

    def _match(self, replica: Replica, core: RaftCore, follower: int) -> None:
        """What a leader believes of a follower is so, and never less than it was."""
        progress, other = core.progress.get(follower), self.replicas.get(follower)
        if progress is None or other is None or follower in self.forgetful:
            return
        if other.log.seen.vote.term > core.term:
            return  # it follows somebody else by now, who may have cut its log
        before, match = replica.seen.matches.get(follower, (progress, 0))
        if before is progress and progress.match < match:
            raise Violation("monotone", f"{replica.id} took {follower} for {match}, and now for {progress.match}")
        replica.seen.matches[follower] = (progress, progress.match)
        term = replica.log.term_at(progress.match)
        if term is not None and not other.log.durable.holds(progress.match, term):
            raise Violation(
                "matches are on disk",
                f"{replica.id} takes {follower} for {progress.match}/{term}, on its disk are"
                f" {other.log.durable.last_index}, there {other.log.durable.term_at(progress.match)}",
            )

    def told_down(self, replica: Replica, node: int) -> None:
        """Its links said that a node is silent: whoever sleeps and relies on it wakes."""
        core, seen = replica.core, replica.seen
        assert core is not None
        if seen.asleep and core.asleep and seen.leader and core.membership.members().get(seen.leader) == node:
            raise Violation("sleepers wake", f"{replica.id} sleeps on, and its leader's node is silent")

    def stands(self, replica: Replica, *, ready: bool) -> None:
        """It says what it is."""
        core = replica.core
        assert core is not None
        if ready and replica.log.term_at(replica.applied) != core.term:
            raise Violation("ready when applied", f"{replica.id} of {core.term}, applied {replica.applied}")

    def after(self, replica: Replica) -> None:
        """An input was given to this replica's core: look at what changed."""
        core = replica.core
        assert core is not None
        invariants.check(core)
        seen = replica.seen
        if core.term != seen.term or core.role is not seen.role or core.vote != seen.vote:
            self._standing(replica, core)
        if core.candidate != seen.candidate and core.candidate:
            self.sometimes[f"{core.candidate}-candidate"] += 1
        if core.commit != seen.commit:
            self._commit(replica, core)
        if self._wrote:
            self._made_by_leader(replica, core)
        in_force = replica.log.membership
        changed = core.membership is not seen.membership or in_force is not seen.in_force
        if changed and core.membership != in_force:
            raise Violation("membership in force", f"{replica.id}: {core.membership}, log: {in_force}")
        if core.applied_index < seen.applied or core.applied_index > core.commit:
            raise Violation("monotone", f"applied of {replica.id}: {seen.applied} to {core.applied_index}")
        seen.look(core, replica.log.membership)

    def _made_by_leader(self, replica: Replica, core: RaftCore) -> None:
        self._wrote.discard(replica.id)
        term = replica.log.last_term
        if self.leaders.get(term) != replica.id:
            raise Violation("only leaders lead", f"{replica.id} made entries of term {term} and does not lead it")

    def _standing(self, replica: Replica, core: RaftCore) -> None:
        seen = replica.seen
        if core.term < seen.term:
            raise Violation("monotone", f"term of {replica.id}: {seen.term} to {core.term}")
        if core.term == seen.term and core.vote != seen.vote and seen.vote:
            raise Violation(
                "one vote", f"{replica.id} votes for {core.vote} in term {core.term}, and did for {seen.vote}"
            )
        if core.role is Role.LEADER and (seen.role is not Role.LEADER or core.term != seen.term):
            self._elected(replica, core)

    def _elected(self, replica: Replica, core: RaftCore) -> None:
        term = core.term
        if self.leaders.setdefault(term, replica.id) != replica.id:
            raise Violation("one leader per term", f"{replica.id} and {self.leaders[term]} lead term {term}")
        self.sometimes["elected"] += 1
        if replica.log.membership.is_voter(replica.id) is False:
            self.sometimes["leads without a vote"] += 1
        if not self._granted(replica, term, pre=False):
            raise Violation("elected by a quorum", f"{replica.id} leads term {term} without a quorum's votes")
        index = self.truth.newest_before(term)
        if index and not replica.log.seen.holds(index, self.truth.terms[index]):
            raise Violation(
                "leader completeness", f"{replica.id} leads term {term} without committed entry {index}"
            )

    def _commit(self, replica: Replica, core: RaftCore) -> None:
        truth, log, first = self.truth, replica.log, replica.seen.commit + 1
        if core.commit < replica.seen.commit:
            raise Violation("monotone", f"commit of {replica.id}: {replica.seen.commit} to {core.commit}")
        if core.commit > log.last_index:
            raise Violation("commit within the log", f"{replica.id} commits {core.commit}, has {log.last_index}")
        known = truth.last_index
        for index in range(max(first, log.snapshot_index), min(core.commit, known) + 1):
            if log.term_at(index) != truth.terms[index]:
                raise Violation(
                    "state machine safety",
                    f"{replica.id} commits {index}/{log.term_at(index)}; committed before: {truth.terms[index]}",
                )
        if core.commit > known:
            self._first_committed(replica, core, known + 1)
        at, members = log.seen.memberships[-1]
        gone = at <= core.commit and not members.joint and replica.id not in members.voters
        if gone and core.role is Role.LEADER:
            raise Violation("leaders are voters", f"{replica.id} leads on, and {members} are the members")

    def _first_committed(self, replica: Replica, core: RaftCore, first: int) -> None:
        log, truth = replica.log, self.truth
        if core.role is not Role.LEADER and self.leaders.get(replica.seen.term) != replica.id:
            raise Violation("leaders commit", f"{replica.id} commits {core.commit}, which no leader committed")
        for index in range(first, core.commit + 1):
            entry = log.entry(index)
            truth.add(entry, core.term)
            if entry.kind == KIND_MEMBERSHIP:
                truth.memberships.append((index, decode_membership(entry.payload)))
        if log.term_at(core.commit) != core.term:
            raise Violation(
                "own term first", f"leader {replica.id} of {core.term} commits {core.commit} of before"
            )
        self._by_whom(replica)

    def _by_whom(self, replica: Replica) -> None:
        """By which membership it was committed: the one before this input or, if that was left in it, the next."""
        index, term = self.truth.last_index, self.truth.terms[-1]
        for membership in (replica.seen.in_force, replica.log.membership):
            self.truth.in_force = membership
            if self._on_quorum(membership, index, term):
                return
        self.on_quorum()

    def on_quorum(self) -> None:
        """What is committed is on the disks of a quorum, crashed ones included."""
        index = self.truth.last_index
        if index > 1 and not self._on_quorum(self.truth.in_force, index, self.truth.terms[index]):
            disks = {one: replica.log.durable.last_index for one, replica in self.replicas.items()}
            raise Violation("durable on a quorum", f"committed {index} by {self.truth.in_force}; on disk: {disks}")

    def _on_quorum(self, membership: Membership, index: int, term: int, without: int = 0) -> bool:
        for voters in membership.voter_sets():
            have = sum(
                one != without and one in self.replicas and self.replicas[one].log.durable.holds(index, term)
                for one in voters
            )
            if 2 * have <= len(voters):
                return False
        return True

    def applied(self, replica: Replica) -> None:
        """Its state machine moved."""
        index = replica.applied
        if index > self.truth.last_index or replica.state != self.truth.states[index]:
            raise Violation("state machine safety", f"{replica.id} has another state at {index}")

    # ---- lives

    def starting(self, replica: Replica) -> None:
        """A replica begins a life: what was durable in a former one still is."""
        term = replica.log.seen.vote.term
        if term < self._durable_terms.get(replica.id, 0):
            raise Violation("monotone", f"{replica.id} starts in term {term}, and had another")

    def crashed(self, replica: Replica) -> None:
        """Its memory is gone, its disk is not."""
        self._durable_terms[replica.id] = replica.log.durable.vote.term
        self.on_quorum()

    # ---- clients

    def proposed(self, payload: bytes, index: int, term: int) -> None:
        """A leader took a proposal."""
        self.truth.asked[payload] = Asked(index, term)

    def asked_read(self, replica: Replica, ticket: int) -> None:
        """A read begins: it must see all that was acknowledged before."""
        if ticket in replica.reads:
            raise Violation("reads", f"{replica.id} gives ticket {ticket} twice")
        replica.reads[ticket] = self.truth.last_index

    def answered_read(self, replica: Replica, ticket: int, index: int) -> None:
        """A read may be answered when `index` is applied."""
        floor = replica.reads.pop(ticket, None)
        if floor is None:
            raise Violation("reads", f"{replica.id} answers ticket {ticket}, which does not wait")
        if index < floor:
            raise Violation("linearizable reads", f"{replica.id} reads at {index}; {floor} was committed before")
        if index > self.truth.last_index:
            raise Violation("reads", f"{replica.id} reads at {index}, which is not committed")

    def lost_read(self, replica: Replica, ticket: int) -> None:
        """A read cannot be answered."""
        if replica.reads.pop(ticket, None) is None:
            raise Violation("reads", f"{replica.id} gives up ticket {ticket}, which does not wait")
        self.sometimes["read lost"] += 1


_SAID_BY_LEADERS = frozenset({Append, Beat, SnapshotOffer, Sleep, TimeoutNow})
