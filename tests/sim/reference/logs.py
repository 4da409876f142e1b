"""May this input do that to the log, to what of it is durable, to what is committed? (Figure 2; 5.3, 5.4.)"""

from __future__ import annotations

from collections.abc import Sequence

from replication.machine import KIND_MEMBERSHIP, KIND_NOOP
from replication.raft.messages import Beat, Sleep, SnapshotOffer
from tests.sim.reference.facts import Broken, Made, Reign, Replica, Terms, decoded, quorum
from tests.sim.reference.step import LEADER, Step
from tests.sim.reference.trace import Append, Stamp, Write


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
            prove(step)


def _writes_vote(step: Step, write: Write) -> None:
    replica, (term, vote) = step.replica, step.replica.vote_written
    if write.term < term or (write.term == term and vote not in (0, write.vote)):
        found = f"({write.term}, {write.vote}) over ({term}, {vote})"
        raise Broken("a vote once cast stands", "figure 2, persistent state", found)
    if write.term > step.after.term or (write.term == step.after.term and write.vote not in (0, step.after.vote)):
        found = f"({write.term}, {write.vote}), and is in term {step.after.term} with vote {step.after.vote}"
        raise Broken("what is written is what is", "figure 2, persistent state", found)
    replica.vote_written = write.term, write.vote


def prove(step: Step) -> None:
    """What of its leaders' logs is durable here."""
    group, replica, now = step.group, step.replica, step.after
    if now.term in group.reigns:  # what is committed is in its leader's log (figure 3, Leader Completeness)
        replica.matched[now.term] = max(replica.matched.get(now.term, 0), now.commit)
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
