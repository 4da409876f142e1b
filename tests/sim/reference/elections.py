"""May this input do that to term, vote and office? (Ongaro and Ousterhout 2014, figure 2 and chapter 5.)"""

from __future__ import annotations

from replication.raft.messages import TimeoutNow, VoteAnswer, VoteRequest
from tests.sim.reference.facts import Broken, Reign, Replica, Terms, decoded, quorum
from tests.sim.reference.step import LEADER, Step
from tests.sim.reference.trace import Said, State


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
            _may_run(replica, after)
        replica.asked.add((True, after.term + 1, *mine))
    request = step.message
    if isinstance(request, VoteRequest) and request.pre and before.role != LEADER and request.term >= after.term:
        newer = (request.last_term, request.last_index) >= (replica.log.last_term, replica.log.last_index)
        free = request.term > after.term or after.vote in (0, request.source)
        if newer and free and not _deaf(step, request):
            replica.grants.add((request.term, request.source))


def _may_run(replica: Replica, state: State) -> None:
    """Voters do, with a whole log; also those of the last committed membership, while a later one is not: they may
    hold the only copy of the change that takes them out (figure 4.6)."""
    possible = [each for index, each in replica.configs if index > state.commit]
    possible += [each for index, each in replica.configs if index <= state.commit][-1:]
    if not any(decoded(each).is_voter(replica.id) for each in possible):
        raise Broken("only voters stand for election", "dissertation 4.2.2", f"{replica.configs}")
    if state.damaged:
        raise Broken("only who can read its whole log stands", "the core's rule for damage", f"{state}")


def _may_stand(step: Step) -> None:
    replica, before = step.replica, step.before
    _may_run(replica, before)
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
