"""Idle groups cost nothing: no beats, no timers, while the nodes of their members hear each other.

    awake ──quiet for some beats, all on live nodes have everything──> leader: Sleep ──all agree──> asleep
      ^──────── any message or request, a node that falls silent or comes back ──────────────────────┘

A follower asleep relies on the links: they say when its leader's node is silent. A leader asleep relies on them
for its quorum. Neither is believed in what it serves: a read still asks a quorum, a write still needs one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replication.machine import Role
from replication.raft import elections, following
from replication.raft.messages import Sleep, SleepAnswer
from replication.raft.progress import Pace, Progress
from replication.raft.settings import NS_PER_MS

if TYPE_CHECKING:
    from replication.raft.core import RaftCore


def fall_asleep(core: RaftCore, now_ns: int) -> bool:
    """The leader's beat is due; True if there is none, because the group sleeps or is asked to."""
    if not _idle(core):
        core.quiet_beats = 0
        return False
    core.quiet_beats += 1
    if core.quiet_beats <= core.settings.quiet_beats:
        return False
    waking = [progress for progress in _present(core) if not progress.asleep]
    for progress in waking:
        core.send(Sleep(core.replica, progress.replica, core.term, core.log.last_index))
    core.asleep = not waking
    return True


def stir(core: RaftCore, now_ns: int) -> None:
    """Something is about to happen: a leader is awake for it, and begins to count its quiet beats anew."""
    core.quiet_beats = 0
    if core.asleep:
        wake(core, now_ns)
    elif core.role is Role.LEADER:
        for progress in core.progress.values():
            progress.asleep = False


def wake(core: RaftCore, now_ns: int) -> None:
    """End the sleep."""
    core.asleep = False
    if core.role is not Role.LEADER:
        core.heard_ns = now_ns  # until now its node was heard for it
        elections.wait(core, now_ns)
        return
    core.quiet_beats = 0
    core.beat_ns = now_ns
    for progress in core.progress.values():
        progress.asleep = False
        progress.heard_ns = now_ns


def node_down(core: RaftCore, now_ns: int, node: int) -> None:
    """A node is silent. If the leader lives there, somebody else has to lead, and soon."""
    if core.role is Role.LEADER:
        if core.asleep and any(progress.node == node for progress in core.progress.values()):
            wake(core, now_ns)
        return
    if core.leader == 0 or core.membership.members().get(core.leader) != node:
        return
    core.asleep = False
    core.leader = 0
    soon = now_ns + core.random.randrange(core.settings.election_ms * NS_PER_MS)
    core.election_ns = soon if core.election_ns is None else min(core.election_ns, soon)


def on_sleep(core: RaftCore, now_ns: int, sleep: Sleep) -> None:
    """The leader has nothing to say. Agree if there is nothing to wait for."""
    if not following.hear(core, now_ns, sleep.source):
        return
    agreed = (
        core.stable_index == core.log.last_index == sleep.index
        and not core.held
        and not core.damaged
        and core.installing is None
    )
    if agreed:
        core.committed(max(core.commit, sleep.index))
    core.asleep = agreed
    core.send(SleepAnswer(core.replica, sleep.source, core.term, sleep.index, agreed))


def on_sleep_answer(core: RaftCore, now_ns: int, answer: SleepAnswer) -> None:
    """A follower sleeps, or cannot."""
    progress = core.progress.get(answer.source)
    if core.role is not Role.LEADER or progress is None:
        return
    progress.heard_ns = now_ns
    tired = core.quiet_beats > core.settings.quiet_beats
    if core.asleep and not answer.agreed:
        wake(core, now_ns)  # that one is awake, and hears nothing
        return
    if not tired or answer.index != core.log.last_index or not answer.agreed:
        if answer.agreed:
            core.beat_ns = now_ns  # it sleeps while others do not: the next beat wakes it
        return
    progress.asleep = True
    core.asleep = all(present.asleep for present in _present(core))


def _idle(core: RaftCore) -> bool:
    if (
        not core.settings.sleeps
        or not core.progress
        or not core.ready
        or core.damaged
        or core.transferring_to
        or len(core.reads)
    ):
        return False
    last = core.log.last_index
    if core.applied_index != last or core.membership_index > core.commit or core.membership.joint:
        return False
    return all(
        progress.pace is Pace.REPLICATE and progress.match == last and not progress.damaged
        for progress in _present(core)
    )


def _present(core: RaftCore) -> list[Progress]:
    """Followers on nodes that are there; the others are remembered, and wake the group when they come back."""
    return [
        progress
        for progress in core.progress.values()
        if progress.node not in core.down and progress.pace is not Pace.LOST
    ]
