"""What an input may do to a replica: the paper's receivers, one after the other.

    before ── term ── vote ── candidacy ── office ── log ── durability ── commit ── membership ── ... ──> after

Each function raises `Broken` unless the difference is one that a rule of the paper makes. What does not differ
needs no reason: any message may be lost, so ignoring it is always legal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replication.machine import KIND_MEMBERSHIP, KIND_NOOP
from replication.raft.membership import Membership
from replication.raft.messages import (
    AppendAnswer,
    Beat,
    BeatAnswer,
    Sleep,
    SleepAnswer,
    SnapshotOffer,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)
from tests.sim.reference.facts import Broken, Group, Made, Reign, Replica, Terms, decoded, quorum
from tests.sim.reference.trace import Append, Input, Said, Stamp, State, Write, key

LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a core promises beyond the paper's figure 2."""

    pre_vote: bool = True
    """It stands for election only when a quorum said that it would vote (dissertation 9.6)."""
    deaf_ns: int = 0
    """It ignores candidates for so long after it heard its leader (dissertation 4.2.3 and 6). 0: it does not."""


@dataclass(slots=True)
class Step:
    """One input, with what the replica was before and is after it."""

    group: Group
    rules: Rules
    replica: Replica
    number: int
    event: Input
    before: State
    after: State
    message: Said | None
    """Of a `step`, else None."""
    campaigned: bool = False
    appended: tuple[Stamp, ...] = ()

    @property
    def reign(self) -> Reign | None:
        """That it leads, or led when this began."""
        for state in (self.after, self.before):
            if state.role == LEADER:
                return self.group.reign(state.term)
        return None

    def of_leader(self) -> bool:
        """The message is from the leader of the term that the replica is in."""
        return self.message is not None and self.message.term == self.after.term and self.after.role != LEADER


def check(step: Step) -> None:
    """Everything about one input."""
    heard(step)
    term(step)
    vote(step)
    candidacy(step)
    office(step)
    log(step)
    durability(step)
    commit(step)
    _prove(step.group, step.replica)
    membership(step)
    sleep(step)
    standing(step)


def heard(step: Step) -> None:
    """What an answer tells the replica that asked, while it is still what it was when it asked."""
    message, before, replica = step.message, step.before, step.replica
    if message is None:
        return
    if message.target != replica.id or key(message) not in step.group.sent:
        raise Broken("a message is one that was sent to its receiver", "figure 2", f"{message} never was")
    if isinstance(message, VoteAnswer) and message.granted:
        if message.pre and before.candidate == "pre" and message.term == before.term + 1:
            replica.pre_votes.add(message.source)
        elif not message.pre and before.candidate == "real" and message.term == before.term:
            replica.votes.add(message.source)
    elif isinstance(message, TimeoutNow) and message.term >= before.term:
        replica.hurried = message.term
    if before.role == LEADER and message.term == before.term:
        _answered(step.group.reign(before.term), message)


def _answered(reign: Reign, message: Said) -> None:
    if isinstance(message, AppendAnswer) and message.success:
        reign.acked[message.source] = max(reign.acked.get(message.source, 0), message.index)
    elif isinstance(message, BeatAnswer):
        reign.heard[message.source] = max(reign.heard.get(message.source, 0), message.read)
    elif isinstance(message, SleepAnswer) and message.agreed:
        reign.agreed.add((message.source, message.index))


def _carries_term(message: Said | None) -> bool:
    """Its term is its sender's own (pre-votes ask about a term that nobody is in: dissertation 9.6)."""
    if isinstance(message, VoteRequest):
        return not message.pre
    return message is not None and not (isinstance(message, VoteAnswer) and message.pre and message.granted)


def term(step: Step) -> None:
    """A term rises to one that a message carries, or by one for a candidacy (figure 2, All Servers)."""
    before, after = step.before, step.after
    if after.term == before.term:
        return
    if after.term < before.term:
        raise Broken("a term never falls", "figure 2, currentTerm", f"from {before.term} to {after.term}")
    carried = step.message.term if step.message is not None and _carries_term(step.message) else 0
    if after.term == max(before.term, carried) + 1 and after.vote == step.replica.id:
        step.campaigned = True
    elif after.term != carried:
        found = f"from {before.term} to {after.term} in {step.event.name}, where no message has that term"
        raise Broken("a term rises for a reason", "figure 2, All Servers and Candidates", found)
    elif isinstance(step.message, VoteRequest) and _deaf(step, step.message):
        found = f"its leader is {before.leader}, and it heeds {step.message}"
        raise Broken("who hears a leader heeds no candidate", "dissertation 4.2.3", found)


def _deaf(step: Step, request: VoteRequest) -> bool:
    """It hears its leader, so candidates are none of its business, except that leader itself, come back."""
    silence_ns = step.event.time_ns - step.replica.heard_ns
    ignores = step.before.leader not in (0, request.source, step.replica.id) and not request.transfer
    return ignores and silence_ns < step.rules.deaf_ns


def vote(step: Step) -> None:
    """One vote in a term, for a candidate whose log is not older (figure 2, RequestVote, receiver 2)."""
    before, after, replica = step.before, step.after, step.replica
    if after.term == before.term and after.vote == before.vote:
        return
    if after.term == before.term and before.vote:
        found = f"in term {after.term} from {before.vote} to {after.vote}"
        raise Broken("a vote once cast stands", "figure 2, votedFor; 5.4.1", found)
    if after.vote and not step.campaigned:
        request = step.message
        if not isinstance(request, VoteRequest) or request.pre or request.source != after.vote:
            found = f"for {after.vote} in term {after.term} after {step.event.name}"
            raise Broken("a vote is cast for who asks for it", "figure 2, RequestVote", found)
        if request.term != after.term or (before.role == LEADER and before.term == after.term):
            found = f"{request} in term {after.term}"
            raise Broken("a vote is cast in the term that it is asked for", "figure 2, RequestVote", found)
        _up_to_date(request, replica.log)
    if after.vote:
        replica.cast[after.term] = after.vote


def _up_to_date(request: VoteRequest, log: Terms) -> None:
    if (request.last_term, request.last_index) < (log.last_term, log.last_index):
        found = f"its own log ends at {log.last_index} of term {log.last_term}: {request}"
        raise Broken("no vote for a log that is behind", "figure 2, RequestVote, receiver 2; 5.4.1", found)


def candidacy(step: Step) -> None:
    """Who may stand, and what it then stands with (figure 2, Candidates; dissertation 4.2.2, 9.6)."""
    before, after, replica = step.before, step.after, step.replica
    mine = replica.log.last_index, replica.log.last_term
    if step.campaigned:
        _may_stand(step)
        replica.votes = set()
        replica.asked.add((False, after.term, *mine))
    elif after.candidate == "real" and (before.candidate != "real" or after.term != before.term):
        raise Broken("a candidacy has a term of its own", "figure 2, Candidates", f"term {after.term}")
    if after.candidate == "pre":
        if before.candidate != "pre" or after.term != before.term:
            replica.pre_votes = set()
            if after.damaged or not replica.membership.is_voter(replica.id):
                raise Broken("only voters with a whole log stand", "dissertation 4.2.2", f"{after}")
        replica.asked.add((True, after.term + 1, *mine))
    request = step.message
    if isinstance(request, VoteRequest) and request.pre and before.role != LEADER and request.term >= after.term:
        newer = (request.last_term, request.last_index) >= (replica.log.last_term, replica.log.last_index)
        free = request.term > after.term or after.vote in (0, request.source)
        if newer and free and not _deaf(step, request):
            replica.grants.add((request.term, request.source))


def _may_stand(step: Step) -> None:
    replica, before = step.replica, step.before
    if before.damaged or not replica.membership.is_voter(replica.id):
        raise Broken("only voters with a whole log stand", "dissertation 4.2.2", f"{replica.membership}")
    if before.role == LEADER and not isinstance(step.message, TimeoutNow):
        raise Broken("a leader does not stand", "figure 4", f"it led term {before.term}")
    hurried = isinstance(step.message, TimeoutNow)
    if step.rules.pre_vote and not hurried and not quorum(replica.membership, replica.pre_votes | {replica.id}):
        found = f"only {sorted(replica.pre_votes)} would vote, of {replica.membership}"
        raise Broken("a term begins only if a quorum would vote", "dissertation 9.6", found)


def office(step: Step) -> None:
    """Who gets a quorum's votes leads, one in a term, with all that is committed (figure 2, Candidates; 5.4)."""
    before, after, replica, group = step.before, step.after, step.replica, step.group
    if after.role != LEADER or (before.role == LEADER and before.term == after.term):
        return
    if not step.campaigned and before.candidate != "real":
        raise Broken("only candidates become leaders", "figure 4", f"it was {before}")
    if not quorum(replica.membership, replica.votes | {replica.id}) or replica.cast.get(after.term) != replica.id:
        found = f"term {after.term}: {sorted(replica.votes)} of {replica.membership}"
        raise Broken("a leader has the votes of a quorum", "figure 2, Candidates; dissertation 4.3", found)
    if after.term in group.reigns:
        found = f"{group.reigns[after.term].leader} and {replica.id} in term {after.term}"
        raise Broken("a term has one leader", "figure 3, Election Safety", found)
    reached = max((index for term, index in group.reach.items() if term < after.term), default=0)
    if reached > replica.log.base and replica.log.term_at(reached) != group.committed[reached]:
        found = f"entry {reached} of term {group.committed[reached]} is committed, and not in its log"
        raise Broken("a leader has all that is committed", "figure 3, Leader Completeness", found)
    group.reigns[after.term] = Reign(replica.id, replica.log.copy(), replica.log.last_index + 1)


def log(step: Step) -> None:
    """Leaders only append, followers follow an append (figure 2, AppendEntries, receivers 1 to 4)."""
    replica, message = step.replica, step.message
    if step.event.name == "installed":
        _install(step)
    keep, tail = _change(step.event.writes, replica.log.last_index)
    if isinstance(message, Append) and step.of_leader():
        _follow(step, message, keep, tail)
    elif step.reign is not None:
        _lead(step, step.reign, keep, tail)
    elif tail or keep < replica.log.last_index:
        found = f"in {step.event.name} it kept {keep} entries and added {len(tail)}"
        raise Broken("only a leader, or its append, changes a log", "figure 2, AppendEntries", found)
    else:
        return
    replica.log.cut(keep)
    while replica.configs[-1][0] > keep and len(replica.configs) > 1:
        replica.configs.pop()
    for entry in tail:
        replica.log.behind.append(entry.term)
        if entry.kind == KIND_MEMBERSHIP:
            assert isinstance(entry.digest, bytes)
            replica.configs.append((entry.at, entry.digest))
    step.appended = tail
    if isinstance(message, Append) and step.of_leader():
        _accept(step, message)


def _change(writes: Sequence[Write], last: int) -> tuple[int, tuple[Stamp, ...]]:
    """What writes come to: how much of the log stays, and what is behind it then."""
    keep = last
    tail: list[Stamp] = []
    for write in writes:
        if write.after < 0:
            for entry in write.entries:
                if entry.at != keep + len(tail) + 1:
                    raise Broken(
                        "a log has no gaps", "figure 2, log[]", f"entry {entry.at} behind {keep + len(tail)}"
                    )
                tail.append(entry)
        elif write.after >= keep:
            del tail[write.after - keep :]
        else:
            keep, tail = write.after, []
    return keep, tuple(tail)


def _expected(log: Terms, append: Append) -> tuple[int, tuple[Stamp, ...]] | None:
    """What an append makes of a log; None: it does not follow it."""
    found = log.term_at(append.previous_index)
    if found != append.previous_term and append.previous_index >= log.base:
        return None
    for at, entry in enumerate(append.entries):
        if entry.at > log.base and log.term_at(entry.at) != entry.term:
            return min(entry.at - 1, log.last_index), append.entries[at:]
    return log.last_index, ()


def _follow(step: Step, append: Append, keep: int, tail: tuple[Stamp, ...]) -> None:
    if keep < step.before.commit:
        found = f"kept {keep}, committed {step.before.commit}"
        raise Broken("what is committed is never cut", "figure 3, State Machine Safety", found)
    if tail or keep < step.replica.log.last_index:
        expected = _expected(step.replica.log, append)
        if expected is None:
            found = f"its log ends at {step.replica.log.last_index}: {append}"
            raise Broken("an append follows what it names", "figure 2, AppendEntries, receiver 2", found)
        if (keep, tail) != expected:
            found = f"kept {keep} and added {len(tail)}, not {expected[0]} and {len(expected[1])}: {append}"
            raise Broken("only a conflict cuts a log", "figure 2, AppendEntries, receivers 3 and 4", found)


def _accept(step: Step, append: Append) -> None:
    """What the follower now knows of the leader's log."""
    replica, last = step.replica, append.last_index
    if _expected(replica.log, append) != (replica.log.last_index, ()):
        return
    if last >= replica.log.base and not step.group.agrees(step.group.reign(append.term), replica.log, last):
        raise Broken("logs that agree in one entry agree before it", "figure 3, Log Matching", f"{append}")
    replica.accepted[append.term, append.sequence] = last
    replica.matched[append.term] = max(replica.matched.get(append.term, 0), last)


def _lead(step: Step, reign: Reign, keep: int, tail: tuple[Stamp, ...]) -> None:
    group, replica = step.group, step.replica
    if keep < replica.log.last_index:
        raise Broken("a leader never cuts its log", "figure 3, Leader Append-Only", f"kept {keep}")
    term = step.after.term if step.after.role == LEADER else step.before.term
    for entry in tail:
        previous = reign.log.last_term
        if entry.term != term or (entry.at, entry.term) in group.made:
            raise Broken(
                "a leader makes entries of its term, each once", "figure 2, Leaders", f"{entry} in term {term}"
            )
        group.made[entry.at, entry.term] = Made(previous, entry.kind, entry.digest)
        reign.log.behind.append(entry.term)
    if step.event.name == "propose":
        proposals, expected_term = step.event.arguments
        if tail and (tuple((each.kind, each.digest) for each in tail) != proposals or term != expected_term):
            raise Broken("a leader appends what is proposed to it in that term", "figure 2, Leaders", f"{tail}")
    elif any(each.kind not in (KIND_NOOP, KIND_MEMBERSHIP) for each in tail):
        raise Broken("nothing is appended that was not proposed", "figure 2, Leaders", f"{tail}")


def _install(step: Step) -> None:
    """A snapshot: of committed entries only, with their membership (figure 13; dissertation 5.3)."""
    group, replica, listing = step.group, step.replica, step.event.listing
    index, membership = step.event.arguments
    if not step.before.commit <= index <= group.commit:
        found = f"up to {index}; committed are {group.commit}, and here {step.before.commit}"
        raise Broken("a snapshot is of what is committed", "figure 13", found)
    if membership != group.config_at(index):
        found = f"{decoded(membership)} at {index}, not {decoded(group.config_at(index))}"
        raise Broken("a snapshot has the membership of its last entry", "dissertation 5.1", found)
    for write in replica.pending:
        _sync(replica, write)
    replica.pending.clear()
    behind = [each for each in replica.configs if each[0] > index]
    keeps = replica.log.term_at(index) == group.committed[index]
    replica.log.install(index, group.committed[index])
    replica.durable.install(index, group.committed[index])
    replica.configs = [(index, membership), *(behind if keeps else [])]
    if listing is not None and replica.log != Terms(listing.snapshot_index, listing.snapshot_term, listing.terms):
        found = f"{listing}, not {replica.log.base} and {replica.log.behind}"
        raise Broken("a snapshot replaces what it covers", "figure 13, receivers 6 and 7", found)
    term = step.before.term
    # it may be from the leader of an earlier term: the present one has all that was committed before (5.4.3)
    if term in group.reigns and group.agrees(group.reign(term), replica.log, index):
        replica.matched[term] = max(replica.matched.get(term, 0), index)


def _sync(replica: Replica, write: Write) -> None:
    replica.durable.write(write)
    if write.term:
        replica.vote_durable = (write.term, write.vote)


def durability(step: Step) -> None:
    """What is written is durable when `persisted` says so, in the order in which it was written."""
    replica, event = step.replica, step.event
    for write in event.writes:
        if write.term:
            _writes_vote(step, write)
        replica.pending.append(write)
    if event.name == "persisted":
        while replica.pending and replica.pending[0].io <= event.arguments[0]:
            _sync(replica, replica.pending.popleft())
            _prove(step.group, replica)


def _writes_vote(step: Step, write: Write) -> None:
    replica, (term, vote) = step.replica, step.replica.vote_written
    if write.term < term or (write.term == term and vote not in (0, write.vote)):
        found = f"({write.term}, {write.vote}) over ({term}, {vote})"
        raise Broken("a vote once cast stands", "figure 2, persistent state", found)
    if write.term > step.after.term or (write.term == step.after.term and write.vote not in (0, step.after.vote)):
        found = f"({write.term}, {write.vote}), and is in term {step.after.term} with vote {step.after.vote}"
        raise Broken("what is written is what is", "figure 2, persistent state", found)
    replica.vote_written = write.term, write.vote


def _prove(group: Group, replica: Replica) -> None:
    """What of its leaders' logs is durable here."""
    for term, matched in replica.matched.items():
        proved = replica.proved.get(term, 0)
        if proved < matched:
            reign, index = group.reign(term), min(matched, replica.durable.last_index)
            while index > proved and not group.agrees(reign, replica.durable, index):
                index -= 1
            replica.proved[term] = max(index, proved)


def commit(step: Step) -> None:
    """What a quorum has, or a leader says (figure 2, Leaders; AppendEntries, receiver 5; 5.4.2)."""
    group, replica, before, after = step.group, step.replica, step.before, step.after
    if after.commit < before.commit:
        raise Broken("a commit never falls", "figure 2, commitIndex", f"from {before.commit} to {after.commit}")
    _told(step)
    if after.commit == before.commit:
        return
    if step.event.name != "installed":
        reign = step.reign
        if reign is not None and not isinstance(step.message, Append | Beat | Sleep):
            _counted(step, reign)
        else:
            bound = min(replica.told.get(after.term, 0), replica.matched.get(after.term, 0))
            if after.commit > bound:
                found = f"{after.commit}, told {replica.told}, in agreement up to {replica.matched}"
                rule = "a follower commits what its leader says, as far as they agree"
                raise Broken(rule, "figure 2, AppendEntries, receiver 5", found)
    elif after.commit != step.event.arguments[0]:
        raise Broken("a snapshot commits what it covers", "figure 13", f"{after.commit}")
    for index in range(max(before.commit, replica.log.base) + 1, after.commit + 1):
        group.commits(index, replica.log.term_at(index))


def _told(step: Step) -> None:
    group, replica, message = step.group, step.replica, step.message
    if not step.of_leader():
        return
    if isinstance(message, Append):
        replica.told[message.term] = max(replica.told.get(message.term, 0), message.commit)
    elif isinstance(message, Beat | Sleep):
        told = message.commit if isinstance(message, Beat) else message.index
        known = min(told, replica.log.last_index)
        if not group.agrees(group.reign(message.term), replica.log, known):
            found = f"not at {known}: {message}"
            raise Broken("a follower has what it has confirmed", "figure 3, Log Matching", found)
        replica.told[message.term] = max(replica.told.get(message.term, 0), told)
        replica.matched[message.term] = max(replica.matched.get(message.term, 0), known)
    elif isinstance(message, SnapshotOffer):
        replica.offered[message.term, message.sequence] = message.index
        _retains(replica, message)
    if isinstance(message, Append | Beat | SnapshotOffer | Sleep):
        replica.heard_ns = step.event.time_ns
    if isinstance(message, Beat):
        replica.beats.add((message.term, message.read))


def _retains(replica: Replica, offer: SnapshotOffer) -> None:
    """Who has the last entry of a snapshot has all of it: it says so, and knows that it is committed.

    Figure 13, receiver 6; only what is committed is in a snapshot, so what is below the own commit is the same.
    """
    if replica.log.term_at(offer.index) == offer.index_term or offer.index <= replica.state.commit:
        replica.told[offer.term] = max(replica.told.get(offer.term, 0), offer.index)
        replica.matched[offer.term] = max(replica.matched.get(offer.term, 0), offer.index)


def _counted(step: Step, reign: Reign) -> None:
    group, replica, index = step.group, step.replica, step.after.commit
    term = step.before.term if step.before.role == LEADER else step.after.term
    if replica.log.term_at(index) != term:
        found = f"entry {index} has term {replica.log.term_at(index)}, it leads term {term}"
        raise Broken("a leader counts answers for entries of its own term only", "5.4.2, figure 8", found)
    present = [each for each, acked in reign.acked.items() if acked >= index and each != replica.id]
    if replica.synced_index >= index:
        present.append(replica.id)
    # the membership in force may have changed in this very step, by what the commit before it made possible
    if not any(quorum(each, present) for each in (replica.membership, decoded(step.before.membership))):
        found = f"entry {index} is on {sorted(present)} of {replica.membership}"
        raise Broken(
            "what is committed is on a quorum's disks", "figure 2, Leaders; dissertation 4.3, 10.2.1", found
        )
    group.reach[term] = max(group.reach.get(term, 0), index)


def membership(step: Step) -> None:
    """One change at a time, in joint steps, in force when appended (dissertation 4.1 to 4.3)."""
    replica, after = step.replica, step.after
    reign = step.reign
    if reign is not None and reign.leader == replica.id and not isinstance(step.message, Append):
        for entry in step.appended:
            if entry.kind == KIND_MEMBERSHIP:
                _changes(step, reign, entry.at)
    index, encoded = replica.configs[-1]
    if after.membership != encoded or (index > after.snapshot_index and after.membership_index != index):
        found = (
            f"{decoded(after.membership)} of {after.membership_index}, its log has {decoded(encoded)} at {index}"
        )
        raise Broken("the last membership of the log is in force", "dissertation 4.1", found)
    in_force = decoded(encoded)
    if after.role == LEADER and index <= after.commit and not in_force.is_voter(replica.id):
        raise Broken("who is taken out leads no longer", "dissertation 4.2.2", f"{in_force} is committed")
    if replica.in_force[-1][1] != encoded:
        replica.in_force.append((step.number, encoded))


def _changes(step: Step, reign: Reign, index: int) -> None:
    configs = step.replica.configs
    at = next(at for at, each in enumerate(configs) if each[0] == index)
    (former_index, former_bytes), new = configs[at - 1], decoded(configs[at][1])
    former = decoded(former_bytes)
    if former_index > step.after.commit:
        found = f"{former} of {former_index} is not committed"
        raise Broken("one change of members at a time", "dissertation 4.1", found)
    if step.after.commit < reign.first:
        found = f"entry {reign.first} is the first of its term, {step.after.commit} are committed"
        raise Broken("no change before a commit in the own term", "Ongaro, raft-dev, 10 July 2015", found)
    if not _one_step(former, new):
        raise Broken("a change of voters goes through both sets", "dissertation 4.3", f"{former} to {new}")


def _one_step(former: Membership, new: Membership) -> bool:
    if former.outgoing:
        return not new.outgoing and new.voters == former.voters
    return new.outgoing == former.voters or (not new.outgoing and new.voters == former.voters)


def sleep(step: Step) -> None:
    """Only a group in which all that live have everything goes quiet (the core's own rule)."""
    replica, before, after, message = step.replica, step.before, step.after, step.message
    everything = after.last_index == after.commit
    if isinstance(message, Sleep) and step.of_leader() and everything and after.last_index == message.index:
        replica.sleeps.add((message.term, message.index))
    if step.event.name == "node_down":
        replica.down.add(step.event.arguments[0])
    elif step.event.name == "node_up":
        replica.down.discard(step.event.arguments[0])
    if before.asleep or not after.asleep:
        return
    source = "the core's rule for sleep"
    if after.role != LEADER:
        if not isinstance(message, Sleep) or (message.term, message.index) not in replica.sleeps:
            raise Broken("a follower sleeps when told, with everything", source, f"{after}")
        return
    agreed = step.group.reign(after.term).agreed
    live = [each for each, node in replica.membership.members().items() if node not in replica.down]
    awake = [each for each in live if each != replica.id and (each, after.last_index) not in agreed]
    if awake or not everything:
        raise Broken("a leader sleeps when all that live agreed", source, f"{awake} did not: {after}")


def standing(step: Step) -> None:
    """What it shows fits together, and what it believes of others is so."""
    group, replica, before, after = step.group, step.replica, step.before, step.after
    wrote = replica.log.last_index, replica.log.last_term
    if (after.last_index, after.last_term) != wrote:
        found = f"{after.last_index} of term {after.last_term}, it wrote {wrote}"
        raise Broken("a log is what was written", "figure 2, log[]", found)
    if after.leader and (after.term not in group.reigns or group.reigns[after.term].leader != after.leader):
        raise Broken("who is taken for leader has been elected", "figure 3, Election Safety", f"{after.leader}")
    if not before.applied <= after.applied <= after.commit:
        raise Broken("what is applied is committed", "figure 2, lastApplied", f"{after.applied} of {after.commit}")
    if after.ready and (after.role != LEADER or after.applied < group.reign(after.term).first):
        raise Broken("a leader is ready when it has applied its first entry", "dissertation 6.4", f"{after}")
    if step.event.name == "installed" or after.snapshot_index == before.snapshot_index:
        return
    if not before.snapshot_index < after.snapshot_index <= min(before.applied, replica.synced_index):
        found = f"up to {after.snapshot_index}, applied {before.applied}, durable {replica.synced_index}"
        raise Broken("only what is applied is forgotten", "dissertation 5.1", found)
