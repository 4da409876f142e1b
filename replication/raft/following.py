"""What a follower does: takes the leader's log over, and says what of it is on its disk.

Append ──previous matches──> drop what conflicts, add what is missing ──(synced)──> AppendAnswer(success)
       ──does not──> AppendAnswer(refused, where the logs may agree)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from replication.machine import Entry, Role
from replication.raft import changes, elections
from replication.raft.log import last_agreeing
from replication.raft.membership import Membership
from replication.raft.messages import (
    Append,
    AppendAnswer,
    Beat,
    BeatAnswer,
    Lost,
    SnapshotOffer,
    TimeoutNow,
)

if TYPE_CHECKING:
    from replication.raft.core import RaftCore


def on_append(core: RaftCore, now_ns: int, append: Append) -> None:
    """Entries of the leader, or a question whether the logs match."""
    if not hear(core, now_ns, append.source) or core.installing is not None:
        return
    entries = append.entries
    last = append.previous_index + len(entries)
    if append.previous_index < core.commit:
        # what is committed is the same on both sides, and the first entry behind it follows it
        entries = entries[core.commit - append.previous_index :]
    elif core.log.term_at(append.previous_index) != append.previous_term:
        _refuse(core, append)
        return
    if entries and not _take_over(core, now_ns, append, entries):
        return
    if append.commit > core.commit:
        core.committed(max(core.commit, min(append.commit, last)))
    answer = AppendAnswer(core.replica, append.source, core.term, append.sequence, True, last, 0, 0, core.damaged)
    core.send_durable(answer)


def on_beat(core: RaftCore, now_ns: int, beat: Beat) -> None:
    """The leader is there."""
    if not hear(core, now_ns, beat.source):
        return
    if core.commit < beat.commit <= core.log.last_index and core.installing is None:
        core.committed(beat.commit)
    core.send(BeatAnswer(core.replica, beat.source, core.term, beat.read))


def on_snapshot_offer(core: RaftCore, now_ns: int, offer: SnapshotOffer) -> None:
    """The leader's log does not reach back to where this one ends."""
    if not hear(core, now_ns, offer.source):
        return
    if core.installing is not None:
        return
    known = offer.index <= core.commit or core.log.term_at(offer.index) == offer.index_term
    hidden = core.log.term_at(offer.index) is None and core.commit < offer.index < core.log.last_index
    unsafe = hidden and offer.index_term <= core.log.last_term  # what follows, acknowledged, would go with it
    if core.damaged and (offer.index < core.log.snapshot_index or unsafe):
        report(core)  # of no use here: the leader is to make a newer one
        return
    if core.damaged or not known:
        core.installing = offer
        core.output.install = offer
        return
    if offer.index > core.commit:
        core.committed(offer.index)
    core.send_durable(
        AppendAnswer(core.replica, offer.source, core.term, offer.sequence, True, offer.index, 0, 0, False)
    )


def installed(core: RaftCore, now_ns: int, index: int, membership: Membership) -> None:
    """The log begins with the snapshot now."""
    core.installing = None
    assert core.log.snapshot_index == index, "the log has the snapshot"
    core.reset_stable(index)
    later = [item for item in core.memberships if index < item[0] <= core.log.last_index]
    core.memberships = [(index, membership), *later]
    changes.belongs(core)
    core.commit = max(core.commit, index)
    core.committed(core.commit)
    core.applied_index = max(core.applied_index, index)
    changes.effective(core, now_ns)
    if core.election_ns is None and not core.asleep and core.role is Role.FOLLOWER:
        elections.wait(core, now_ns)
    report(core)


def report(core: RaftCore) -> None:
    """Tell the leader unasked what is here for certain, and whether storage is damaged."""
    if core.role is Role.FOLLOWER and core.leader not in (0, core.replica) and core.installing is None:
        answer = AppendAnswer(core.replica, core.leader, core.term, 0, True, core.commit, 0, 0, core.damaged)
        core.send_durable(answer)


def on_timeout_now(core: RaftCore, now_ns: int, request: TimeoutNow) -> None:
    """The leader wants this replica to lead."""
    if core.role is Role.FOLLOWER and elections.may_campaign(core):
        elections.campaign(core, now_ns, transfer=True)


def on_lost(core: RaftCore, now_ns: int, lost: Lost) -> None:
    """The leader can prove that acknowledged entries are gone from this log."""
    core.lost = True
    core.fence(
        now_ns,
        f"entries up to {lost.index} were acknowledged and are not here: this disk is older than it was; "
        "the replica has to be replaced under a new id",
    )


def hear(core: RaftCore, now_ns: int, leader: int) -> bool:
    """The leader of this term speaks. False: it cannot be one."""
    if core.role is Role.LEADER or core.leader not in (0, leader):
        core.fence(now_ns, f"replicas {core.leader} and {leader} both lead term {core.term}")
        return False
    if core.candidate:
        core.follow(now_ns, core.term, leader)
    core.leader = leader
    core.heard_ns = now_ns
    if core.down:  # the links were wrong about its node, if they said so
        core.down.pop(core.membership.members().get(leader, 0), None)
    core.election_ns = now_ns + core.election_time_ns()
    return True


def _take_over(core: RaftCore, now_ns: int, append: Append, entries: Sequence[Entry]) -> bool:
    """Make the log agree with these entries. False: it cannot be."""
    log = core.log
    known = 0  # entries that are here
    for at, entry in enumerate(entries):
        if entry.index > log.last_index:
            break
        term = log.term_at(entry.index)
        if term == entry.term:
            known = at + 1  # and all before it, by the matching of logs
        elif term is not None:
            if known < at:
                break  # damage hides where they part
            if entry.index <= core.commit:
                core.fence(now_ns, f"the leader contradicts entry {entry.index}, which is committed")
                return False
            core.truncate_after(entry.index - 1)
            break
    if known:
        entries = entries[known:]
    if entries and entries[0].index <= log.last_index:
        _refuse(core, append)  # what was acknowledged may stand behind the damage: nothing is cut off
        return False
    if entries:
        core.write(entries)
        changes.appended(core, now_ns, entries)
    return True


def _refuse(core: RaftCore, append: Append) -> None:
    """Say where the logs may agree, so that the leader need not ask for every entry."""
    hint = last_agreeing(core.log, min(append.previous_index, core.log.last_index), append.previous_term)
    term = core.log.term_at(hint)
    core.send(
        AppendAnswer(
            core.replica,
            append.source,
            core.term,
            append.sequence,
            False,
            append.previous_index,
            hint,
            term if term is not None else 0,
            core.damaged,
        )
    )
