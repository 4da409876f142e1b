"""What a replica may let others see: each message by what it promises, and the answers to reads.

A message may leave long after it was made, so each is judged by its own term, never by the replica's present one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from replication.raft import messages
from tests.sim.reference.facts import Ask, Broken, Group, Reign, Replica, decoded, quorum
from tests.sim.reference.trace import Append, Said, Taken, key


def check(group: Group, replica: Replica, number: int, taken: Taken) -> None:
    """All that left at once; it counts as sent from now on."""
    if replica.state.failed and (taken.messages or taken.reads):
        raise Broken("who has failed is silent", "the core's rule for fence", f"{taken}")
    if taken.commit > replica.state.commit:
        raise Broken("only what is committed is given to be applied", "figure 2, All Servers", f"{taken.commit}")
    if taken.install and taken.install not in replica.offered.values():
        raise Broken("a snapshot is fetched when it is offered", "figure 13", f"{taken.install}")
    for message in taken.messages:
        if message.source != replica.id:
            raise Broken("a message says who speaks", "figure 2", f"{message}")
        _RULES[type(message)](group, replica, number, message)
        group.sent.add(key(message))
    for ticket, index in taken.reads:
        _read(group, replica, ticket, index)
    for ticket in taken.lost_reads:
        replica.asks.pop(ticket, None)
    _stands(group, taken)


def _stands(group: Group, taken: Taken) -> None:
    if taken.standing is None:
        return
    term, role, leader, _ = taken.standing
    if leader and (term not in group.reigns or group.reigns[term].leader != leader):
        raise Broken("who is taken for leader has been elected", "figure 3, Election Safety", f"{taken.standing}")
    if role == "leader" and leader != taken.replica:
        raise Broken("a leader knows that it leads", "figure 3, Election Safety", f"{taken.standing}")


# ---- elections


def _vote_request(group: Group, replica: Replica, number: int, message: messages.VoteRequest) -> None:
    asked = (message.pre, message.term, message.last_index, message.last_term)
    if asked not in replica.asked:
        found = f"{message}, it stood with {sorted(replica.asked)[-3:]}"
        raise Broken("a candidate says what its log is", "figure 2, RequestVote", found)
    if message.pre:
        return
    if message.transfer and replica.hurried + 1 != message.term:
        raise Broken("a candidate hurries when its leader told it to", "dissertation 3.10", f"{message}")
    _promise(group, replica, message.term, replica.id, message)


def _vote_answer(group: Group, replica: Replica, number: int, message: messages.VoteAnswer) -> None:
    if message.granted and message.pre:
        if (message.term, message.target) not in replica.grants:
            raise Broken("a pre-vote is as true as a vote", "dissertation 9.6", f"{message}")
    elif message.granted:
        _promise(group, replica, message.term, message.target, message)
    else:
        _own_term(replica, message)


def _promise(group: Group, replica: Replica, term: int, candidate: int, message: Said) -> None:
    if replica.cast.get(term) != candidate:
        found = f"{message}, but its vote in {term} is {replica.cast.get(term)}"
        raise Broken("a voter says what it did", "figure 2, RequestVote, receiver 2", found)
    if not replica.vote_is_durable(term, candidate):
        found = f"{message}, durable are {replica.vote_durable}"
        raise Broken("a vote is durable before anybody knows", "figure 2, persistent state", found)
    if group.promises.setdefault((replica.id, term), candidate) != candidate:
        found = f"{message}, and before for {group.promises[replica.id, term]}"
        raise Broken("one vote in a term", "5.2", found)


def _own_term(replica: Replica, message: Said) -> None:
    if message.term > replica.state.term:
        raise Broken("an answer has the term of who answers", "figure 2", f"{message}")


# ---- what leaders say


def _leading(group: Group, replica: Replica, message: Said) -> Reign:
    reign = group.reign(message.term)
    if reign.leader != replica.id:
        found = f"{message}, but {reign.leader} led that term"
        raise Broken("only leaders speak as leaders", "figure 2, Leaders", found)
    if replica.durable_term < message.term:
        found = f"{message}, durable is {replica.durable_term}"
        raise Broken("a term is durable before anybody knows", "figure 2, persistent state", found)
    return reign


def _question(reign: Reign, message: Append | messages.SnapshotOffer) -> None:
    asked = key(message)
    if reign.questions.setdefault((message.target, message.sequence), asked) != asked:
        raise Broken("a number names one append", "the core's rule for sequence", f"{message}, and another")


def _append(group: Group, replica: Replica, number: int, message: Append) -> None:
    reign = _leading(group, replica, message)
    _question(reign, message)
    index, term = message.previous_index, message.previous_term
    if group.term_under(reign, index) != term:
        found = f"{message}, its entry {index} has term {group.term_under(reign, index)}"
        raise Broken("an append names what is before it", "figure 2, AppendEntries", found)
    for entry in message.entries:
        made = group.made.get((entry.at, entry.term))
        index += 1
        if entry.at != index or group.term_under(reign, index) != entry.term or made is None:
            raise Broken("a leader sends its own log", "figure 2, Leaders", f"{entry} at {index}")
        if made.previous_term != term or (made.kind, made.digest) != (entry.kind, entry.digest):
            raise Broken("an entry never changes", "figure 3, Log Matching", f"{entry}, made as {made}")
        term = entry.term
    if message.commit > replica.state.commit:
        raise Broken("a leader tells what it knows", "figure 2, AppendEntries, leaderCommit", f"{message}")


def _beat(group: Group, replica: Replica, number: int, message: messages.Beat) -> None:
    reign = _leading(group, replica, message)
    if message.commit > min(replica.state.commit, reign.acked.get(message.target, 0)):
        found = f"{message}, which has confirmed {reign.acked.get(message.target, 0)}"
        raise Broken("a beat commits what its receiver has confirmed", "the core's rule for Beat.commit", found)
    if message.read and message.read not in reign.rounds:
        if message.read < max(reign.rounds, default=0):
            raise Broken(
                "each round of reads has a new number", "dissertation 6.4; etcd-io/raft 397", f"{message}"
            )
        reign.rounds[message.read] = number


def _offer(group: Group, replica: Replica, number: int, message: messages.SnapshotOffer) -> None:
    _question(_leading(group, replica, message), message)
    if message.index > replica.state.snapshot_index or message.index_term != group.committed[message.index]:
        found = f"{message}, its own is at {replica.state.snapshot_index}"
        raise Broken("a leader offers a snapshot that it has", "figure 13", found)


def _timeout_now(group: Group, replica: Replica, number: int, message: messages.TimeoutNow) -> None:
    reign = _leading(group, replica, message)
    acked = reign.acked.get(message.target, 0)
    # a leader that was just taken out must go, whoever has its last entries: whom it names is about speed only
    leads = replica.state.role == "leader" and replica.state.term == message.term
    needed = reign.log.last_index if leads else min(replica.state.commit, reign.log.last_index)
    if acked < needed or not replica.membership.is_voter(message.target):
        found = f"{message}, which has {acked} of {needed}"
        raise Broken("office is handed to a voter that has everything", "dissertation 3.10", found)


def _sleep(group: Group, replica: Replica, number: int, message: messages.Sleep) -> None:
    reign = _leading(group, replica, message)
    acked = reign.acked.get(message.target, 0)
    if message.index > min(acked, replica.state.commit):
        found = f"{message}, which has {acked}; committed are {replica.state.commit}"
        raise Broken("only who has everything is sent to sleep", "the core's rule for sleep", found)


def _removed(group: Group, replica: Replica, number: int, message: messages.Removed) -> None:
    later = [each for index, each in [*group.configs, *replica.configs] if index > message.index]
    found = [decoded(each) for each in (group.config_at(min(message.index, group.commit)), *later)]
    if message.index > replica.state.commit or any(message.target in each for each in found):
        raise Broken("only who was taken out is told so", "dissertation 4.2.2", f"{message}, but {found}")


def _lost(group: Group, replica: Replica, number: int, message: messages.Lost) -> None:
    reign, target = _leading(group, replica, message), group.replicas.get(message.target)
    if target is not None and group.agrees(reign, target.log, message.index):
        found = f"{message}, which has all of it"
        raise Broken("only who lost what it confirmed is told so", "the core's rule for Lost", found)


# ---- what followers answer


def _append_answer(group: Group, replica: Replica, number: int, message: messages.AppendAnswer) -> None:
    _own_term(replica, message)
    if not message.success:
        return
    if group.reign(message.term).leader != message.target:
        raise Broken("who is answered has asked", "figure 2, AppendEntries", f"{message}")
    if replica.durable_term < message.term:
        found = f"{message}, durable is {replica.durable_term}"
        raise Broken("a term is durable before anybody knows", "figure 2, persistent state", found)
    proved, asked = replica.proved.get(message.term, 0), (message.term, message.sequence)
    known = replica.accepted.get(asked)
    if asked in replica.offered or not message.sequence:
        known = proved
    if known is None or message.index > known or (asked in replica.accepted and message.index != known):
        found = f"{message}, the append went up to {known}"
        raise Broken("an answer covers what was asked, and no more", "figure 2, AppendEntries, receiver", found)
    if message.index > proved:
        found = f"{message}, durable and the leader's is {proved}"
        raise Broken("what is confirmed is durable", "figure 2, persistent state: log[]", found)


def _beat_answer(group: Group, replica: Replica, number: int, message: messages.BeatAnswer) -> None:
    _own_term(replica, message)
    reign = group.reigns.get(message.term)
    to_leader = reign is not None and reign.leader == message.target
    if message.read and to_leader and (message.term, message.read) not in replica.beats:
        raise Broken("who is answered has asked", "dissertation 6.4", f"{message}")


def _sleep_answer(group: Group, replica: Replica, number: int, message: messages.SleepAnswer) -> None:
    _own_term(replica, message)
    if message.agreed and (message.term, message.index) not in replica.sleeps:
        raise Broken("a follower sleeps when told, with everything", "the core's rule for sleep", f"{message}")


_RULES: dict[type[Any], Callable[[Group, Replica, int, Any], None]] = {
    messages.VoteRequest: _vote_request,
    messages.VoteAnswer: _vote_answer,
    Append: _append,
    messages.AppendAnswer: _append_answer,
    messages.Beat: _beat,
    messages.BeatAnswer: _beat_answer,
    messages.SnapshotOffer: _offer,
    messages.TimeoutNow: _timeout_now,
    messages.Sleep: _sleep,
    messages.SleepAnswer: _sleep_answer,
    messages.Removed: _removed,
    messages.Lost: _lost,
}


# ---- reads


def _read(group: Group, replica: Replica, ticket: int, index: int) -> None:
    """Linearizable: a quorum confirmed after it was asked that this replica still led (dissertation 6.4)."""
    if ticket not in replica.asks:
        raise Broken("a read is answered once, where it was asked", "dissertation 6.4", f"ticket {ticket}")
    ask = replica.asks.pop(ticket)
    reign = group.reign(ask.term)
    if not max(ask.floor, reign.first) <= index <= replica.state.commit:
        found = f"ticket {ticket} at {index}; {ask.floor} when asked, first of its term {reign.first}"
        raise Broken("a read sees all that was committed before it", "dissertation 6.4, step 1", found)
    rounds = [read for read, since in reign.rounds.items() if since > ask.number]
    newer = min(rounds, default=0)
    heard = [each for each, read in reign.heard.items() if newer and read >= newer and each != replica.id]
    if not any(quorum(decoded(each), [replica.id, *heard]) for each in _since(replica, ask)):
        found = f"ticket {ticket} of {ask}: rounds {rounds}, answered by {heard} of {replica.membership}"
        raise Broken("a quorum confirms that a reader leads", "dissertation 6.4, step 3", found)


def _since(replica: Replica, ask: Ask) -> list[bytes]:
    """The memberships that were in force while the read waited."""
    later = [membership for since, membership in replica.in_force if since > ask.number]
    before = [membership for since, membership in replica.in_force if since <= ask.number]
    return [*before[-1:], *later]
