"""How the members of a group change (dissertation, chapter 4).

    begin ──> entry: joint or learners only ──committed──> (joint: the second step) ──committed──> done

A membership is in force from the moment that its entry stands in the log, and no longer when it is truncated. One
change at a time, and only behind a committed entry of the leader's own term.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from plait.wire.errors import BadRequest, Unavailable
from replication.machine import KIND_MEMBERSHIP, Entry, Role
from replication.raft import leading, sleeping
from replication.raft.membership import MEMBERS_MAX, Membership, decode_membership
from replication.raft.messages import Removed, VoteRequest
from replication.raft.progress import Pace

if TYPE_CHECKING:
    from replication.raft.core import RaftCore


def begin(core: RaftCore, now_ns: int, voters: Mapping[int, int], learners: Mapping[int, int]) -> int:
    """Append the first step. Raises BadRequest for members that can never be, Unavailable for not now."""
    if not voters or voters.keys() & learners.keys() or len(voters) + len(learners) > MEMBERS_MAX:
        raise BadRequest(
            f"a group has one to {MEMBERS_MAX} members, at least one of them a voter, and none is both voter and "
            "learner; nothing was changed; name other members"
        )
    if core.commit < core.first_of_term:
        raise Unavailable("the leader is new; the members were not changed; try again")
    if core.membership_index > core.commit or core.membership.joint:
        raise Unavailable("another change of members is under way; the members were not changed; try again")
    for voter in voters:
        _check_caught_up(core, now_ns, voter)
    sleeping.stir(core, now_ns)
    return _append(core, now_ns, core.membership.entering(voters, learners))


def appended(core: RaftCore, now_ns: int, entries: Sequence[Entry]) -> None:
    """Entries stand in the log: memberships among them are in force."""
    found = [entry for entry in entries if entry.kind == KIND_MEMBERSHIP]
    if found:
        core.memberships += [(entry.index, decode_membership(entry.payload)) for entry in found]
        belongs(core)
        effective(core, now_ns)


def belongs(core: RaftCore) -> None:
    """What was removed takes part again when a membership names it: it may be the only voter of the group."""
    if core.replica in core.membership:
        core.removed = False


def truncated(core: RaftCore, index: int) -> None:
    """Entries behind `index` are gone: the membership before them is in force again."""
    changed = False
    while core.memberships and core.memberships[-1][0] > index:
        core.memberships.pop()
        changed = True
    if changed:
        core.output.membership = core.membership


def effective(core: RaftCore, now_ns: int) -> None:
    """Another membership is in force."""
    core.output.membership = core.membership
    if core.role is Role.LEADER:
        leading.track(core, now_ns)


def committed(core: RaftCore, now_ns: int) -> None:
    """The leader's commit moved on: go on with a change that it covers."""
    if core.membership_index > core.commit:
        return
    if core.membership.joint:
        _append(core, now_ns, core.membership.left())
        return
    for replica in core.leaving:
        if replica != core.replica:
            core.send(Removed(core.replica, replica, core.term, core.membership_index))
    core.leaving = []
    if core.replica not in core.membership.voters:
        leading.step_down(core, now_ns)


def remind(core: RaftCore, request: VoteRequest) -> None:
    """Whoever campaigns without being a member was not reached when it was told, and would do so for ever."""
    known = request.source in core.membership or core.membership_index > core.commit
    if core.role is Role.LEADER and not known and request.term <= core.term + 1:
        core.send(Removed(core.replica, request.source, core.term, core.membership_index))


def on_removed(core: RaftCore, now_ns: int, removed: Removed) -> None:
    """A committed membership does not have this replica any more: it disturbs nobody from now on."""
    if removed.index > core.membership_index or core.replica not in core.membership:
        core.removed = True
        core.election_ns = None
        if core.role is Role.FOLLOWER and core.candidate:
            core.candidate = ""


def _append(core: RaftCore, now_ns: int, membership: Membership) -> int:
    index, former = core.log.last_index + 1, core.membership
    entry = Entry(index, core.term, KIND_MEMBERSHIP, core.log.last_mark, 0, membership.encode())
    leading.append(core, now_ns, [entry])
    core.memberships.append((index, membership))
    core.leaving = [replica for replica in former.members() if replica not in membership]
    effective(core, now_ns)
    return index


def _check_caught_up(core: RaftCore, now_ns: int, voter: int) -> None:
    """A new voter must be a learner that is there, and has nearly everything, in a log that is whole: else the
    group could lose its quorum to it, or be left with nobody who may lead."""
    if core.membership.is_voter(voter):
        return
    progress = core.progress.get(voter)
    if progress is None or voter not in core.membership.learners:
        raise Unavailable(f"replica {voter} is no learner yet; the members were not changed; add it as one first")
    lacks = core.log.last_index - progress.match
    if progress.pace is not Pace.REPLICATE or lacks > core.settings.promotion_entries:
        raise Unavailable(
            f"replica {voter} lacks {lacks} entries; the members were not changed; try again when it has caught up"
        )
    silent = progress.node in core.down or not leading.hears(core, now_ns, progress)
    if silent or progress.damaged:
        why = "has damaged storage" if progress.damaged else "is silent"
        raise Unavailable(f"replica {voter} {why}; the members were not changed; try again when that is over")
