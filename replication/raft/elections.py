"""Who leads: pre-votes, votes, terms.

    follower ──silence──> pre-candidate ──would win──> candidate ──wins──> leader
        ^────── a leader speaks, a higher term ──────────────┘

A pre-vote changes nothing in anybody (dissertation 9.6). A real request leaves when (term, own vote) is durable: a
candidate that forgot it could win the same term twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication.machine import Role
from replication.raft import changes, leading
from replication.raft.messages import (
    Append,
    Beat,
    Message,
    Sleep,
    SleepAnswer,
    SnapshotOffer,
    VoteAnswer,
    VoteRequest,
)
from replication.raft.quorum import Ballot, ballot
from replication.raft.settings import NS_PER_MS

if TYPE_CHECKING:
    from replication.raft.core import RaftCore


def wait(core: RaftCore, now_ns: int, *, eager: bool = False) -> None:
    """Give the leader, or somebody else, time to be heard."""
    if _alone(core):
        core.election_ns = now_ns
    elif eager:
        core.election_ns = now_ns + core.random.randrange(core.settings.beat_ms * NS_PER_MS)
    else:
        core.election_ns = now_ns + core.election_time_ns()


def leader_is_silent(core: RaftCore, now_ns: int) -> None:
    """The election deadline has passed."""
    if core.candidate == "real" and core.durable_term < core.term:
        core.election_ns = now_ns + core.election_time_ns()  # the disk is slow: for another term it would be, too
        return
    leader, core.leader = core.leader, 0
    if may_campaign(core):
        campaign(core, now_ns)
        return
    core.candidate = ""
    core.election_ns = None  # until somebody speaks
    if leader:  # it may sleep, and believe that this replica does too
        core.send(SleepAnswer(core.replica, leader, core.term, core.log.last_index, agreed=False))


def may_campaign(core: RaftCore) -> bool:
    """It could lead: it has everything that it stands for, and is a voter, or was one until a change that is not
    committed (it may hold the only copy of that change)."""
    if core.damaged or core.installing is not None or core.removed:
        return False
    if core.membership.is_voter(core.replica):
        return True
    uncommitted = core.membership_index > core.commit
    return uncommitted and len(core.memberships) > 1 and core.memberships[-2][1].is_voter(core.replica)


def campaign(core: RaftCore, now_ns: int, *, transfer: bool = False) -> None:
    """Ask the voters: first whether they would, unless the leader itself asked for this election."""
    core.leader = 0
    core.votes = {}
    core.election_ns = now_ns + core.election_time_ns()
    if transfer:
        _campaign_really(core, transfer=True)
    else:
        core.candidate = "pre"
        _ask(core, core.term + 1, pre=True, transfer=False)
        count(core, now_ns, core.replica, granted=True)


def count(core: RaftCore, now_ns: int, voter: int, *, granted: bool) -> None:
    """A vote came in; act if that decides it."""
    core.votes.setdefault(voter, granted)
    result = ballot(core.membership.voter_sets(), core.votes)
    if result is Ballot.WON and core.candidate == "pre":
        if may_campaign(core):
            _campaign_really(core, transfer=False)
        else:
            core.candidate = ""  # what is damaged was found meanwhile
    elif result is Ballot.WON and core.candidate == "real":
        leading.begin(core, now_ns)
    elif result is Ballot.LOST:
        core.candidate = ""


def on_vote_request(core: RaftCore, now_ns: int, request: VoteRequest) -> None:
    """Somebody wants to lead."""
    changes.remind(core, request)
    granted = _would_vote(core, now_ns, request)
    if request.pre:
        term = request.term if granted else core.term
        core.send(VoteAnswer(core.replica, request.source, term, granted, pre=True))
        return
    if not granted:
        core.send(VoteAnswer(core.replica, request.source, core.term, granted=False, pre=False))
        return
    if core.vote == 0:
        core.vote, core.vote_unsaved = request.source, True
        core.candidate = ""
        core.write()
        wait(core, now_ns)
    core.send_durable(VoteAnswer(core.replica, request.source, core.term, granted=True, pre=False))


def on_vote_answer(core: RaftCore, now_ns: int, answer: VoteAnswer) -> None:
    """A voter has decided."""
    if answer.pre and answer.granted and answer.term != core.term + 1:
        return  # of an older round
    if core.candidate == ("pre" if answer.pre else "real"):
        count(core, now_ns, answer.source, granted=answer.granted)


def may_follow(core: RaftCore, now_ns: int, message: Message) -> bool:
    """A message of a higher term: take its term over, where it has one to give. False: nothing more to do."""
    if isinstance(message, VoteRequest):
        if message.pre:
            return True
        if _hears_leader(core, now_ns, message):
            return False  # whoever disturbs a group that works is not even answered
    elif isinstance(message, VoteAnswer) and message.pre and message.granted:
        if message.term == core.term + 1:
            on_vote_answer(core, now_ns, message)
        return False
    speaks = isinstance(message, (Append, Beat, SnapshotOffer, Sleep))
    core.follow(now_ns, message.term, message.source if speaks else 0)
    return True


def _would_vote(core: RaftCore, now_ns: int, request: VoteRequest) -> bool:
    if request.last_term < core.log.last_term:
        return False
    if request.last_term == core.log.last_term and request.last_index < core.log.last_index:
        return False
    if request.pre:
        return request.term > core.term and not _hears_leader(core, now_ns, request)
    if core.vote:
        return core.vote == request.source
    return core.leader == 0 and core.role is Role.FOLLOWER


def _hears_leader(core: RaftCore, now_ns: int, request: VoteRequest) -> bool:
    """A leader was heard lately, other than the one who asks: there is no need for another."""
    if request.transfer or core.leader in (0, request.source):
        return False
    if core.role is Role.LEADER or core.asleep:
        return True
    return now_ns - core.heard_ns < core.settings.election_ms * NS_PER_MS


def _alone(core: RaftCore) -> bool:
    """It is the only voter, and may stand: nobody else's vote is needed."""
    membership = core.membership
    return list(membership.voters) == [core.replica] and not membership.joint and may_campaign(core)


def _campaign_really(core: RaftCore, *, transfer: bool) -> None:
    """The own vote counts when it is durable, and the others are asked then."""
    core.term += 1
    core.vote, core.vote_unsaved = core.replica, True
    core.candidate, core.votes = "real", {}
    core.write()
    _ask(core, core.term, pre=False, transfer=transfer)


def _ask(core: RaftCore, term: int, *, pre: bool, transfer: bool) -> None:
    asked = {voter: None for voters in core.membership.voter_sets() for voter in voters}
    for voter in asked:
        if voter == core.replica:
            continue
        request = VoteRequest(
            core.replica, voter, term, core.log.last_index, core.log.last_term, pre=pre, transfer=transfer
        )
        if pre:
            core.send(request)
        else:
            core.send_durable(request)
