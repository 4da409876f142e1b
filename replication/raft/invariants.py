"""What must hold in a core between any two inputs. Checked after every one under test."""

from __future__ import annotations

from replication.machine import Role
from replication.raft.core import RaftCore
from replication.raft.progress import Pace


def check(core: RaftCore) -> None:
    """Raises AssertionError that says what does not hold."""
    if core.role is Role.FENCED:
        return  # it says nothing any more, whatever becomes of its log
    log = core.log
    behind = log.snapshot_index <= core.commit or core.installing is not None  # until it is told `installed`
    _holds(core, behind and core.commit <= log.last_index, "snapshot <= commit <= last")
    _holds(core, core.applied_index <= core.commit, "applied <= commit")
    _holds(core, core.stable_index <= log.last_index, "stable <= last")
    _holds(core, core.durable_term <= core.term, "the durable term is not ahead")
    _holds(core, log.last_term <= core.term, "no entry of a later term")
    indexes = [index for index, _ in core.memberships]
    _holds(core, indexes == sorted(set(indexes)), "memberships rise")
    _holds(core, not indexes or indexes[-1] <= log.last_index, "memberships stand in the log")
    _holds(core, all(index > core.commit for index in indexes[1:]), "one membership at or below the commit")
    _holds(
        core, all(core.held[at][0] <= core.held[at + 1][0] for at in range(len(core.held) - 1)), "held in order"
    )
    if core.role is Role.LEADER:
        _check_leader(core)
    else:
        _holds(core, not core.progress, "only a leader follows others")
        _holds(core, not core.uncommitted and not core.uncommitted_bytes, "only a leader counts the uncommitted")
        _holds(core, not core.transferring_to, "only a leader hands over")
        _holds(core, len(core.reads) == 0, "only a leader has reads")
    if core.candidate:
        _holds(core, core.role is Role.FOLLOWER and core.leader == 0, "a candidate has no leader")
        _holds(core, core.candidate == "pre" or core.vote == core.replica, "a candidate voted for itself")


def _check_leader(core: RaftCore) -> None:
    _holds(core, core.leader == core.replica and not core.candidate, "a leader knows itself")
    _holds(core, core.vote == core.replica, "a leader voted for itself")
    _holds(core, core.log.last_term == core.term, "a leader's log ends in its term")
    _holds(core, core.installing is None, "a leader installs nothing")
    members = core.membership.members()
    _holds(core, core.progress.keys() == members.keys() - {core.replica}, "a leader follows its members")
    _holds(core, core.uncommitted_bytes == sum(size for _, size in core.uncommitted), "the uncommitted add up")
    for progress in core.progress.values():
        _holds(core, progress.match < progress.next, "match < next")
        _holds(core, progress.match <= core.log.last_index, "match <= last")
        _holds(core, progress.next <= core.log.last_index + 1, "next <= last + 1")
        _holds(core, progress.window_bytes == sum(size for _, size in progress.window), "the window adds up")
        _holds(core, not progress.window or progress.pace is Pace.REPLICATE, "a window only when replicating")
        _holds(core, len(progress.window) <= core.settings.window_messages, "the window is bounded")
    if core.asleep:
        awake = [
            p
            for p in core.progress.values()
            if not p.asleep and p.node not in core.down and p.pace is not Pace.LOST
        ]
        _holds(core, not awake, "all that are there sleep with their leader")
        _holds(core, core.commit == core.log.last_index, "nothing is under way in a group that sleeps")


def _holds(core: RaftCore, truth: bool, what: str) -> None:
    assert truth, f"replica {core.replica} in term {core.term}: not true that {what}"
