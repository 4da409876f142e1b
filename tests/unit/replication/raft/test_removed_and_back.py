"""A replica that was told that it is no member any more takes part again when a membership names it."""

from __future__ import annotations

from random import Random

from replication.machine import KIND_MEMBERSHIP, Entry, Proposal, Role
from replication.raft.core import RaftCore
from replication.raft.log import Vote
from replication.raft.membership import Membership
from replication.raft.messages import Append, AppendAnswer, Removed
from replication.raft.progress import Pace
from replication.raft.settings import RaftSettings
from tests.unit.replication.raft.test_damage import THREE, leading
from tests.unit.replication.raft.test_new_members import SECOND_NS, ListLog


def told_that_it_is_removed() -> RaftCore:
    with_it = Membership({1: 1}, {2: 2})
    log = ListLog([Entry(1, 1, KIND_MEMBERSHIP, 0, 0, with_it.encode())])
    core = RaftCore(2, log, Vote(1), [(1, with_it)], RaftSettings(), Random(1), 0)
    core.step(SECOND_NS, Removed(1, 2, 1, 2))
    core.take()
    return core


def test_a_removed_replica_does_not_campaign() -> None:
    core = told_that_it_is_removed()
    core.tick(100 * SECOND_NS)
    assert (core.role, core.candidate) == (Role.FOLLOWER, "")
    assert core.removed


def test_a_removed_replica_that_is_the_only_voter_of_a_later_membership_leads_the_group() -> None:
    core = told_that_it_is_removed()
    back = Membership({2: 2})
    entries = [
        Entry(2, 1, KIND_MEMBERSHIP, 0, 0, Membership({1: 1}).encode()),
        Entry(3, 1, KIND_MEMBERSHIP, 0, 0, back.encode()),
    ]
    core.step(2 * SECOND_NS, Append(1, 2, 1, 1, 1, entries, 3, 1))
    core.persisted(2 * SECOND_NS, core.io)
    core.tick(100 * SECOND_NS)
    core.persisted(100 * SECOND_NS, core.io)
    assert core.role is Role.LEADER


def test_late_answers_of_its_former_time_are_not_taken_for_a_loss() -> None:
    core, log = leading()

    def change(learners: dict[int, int]) -> None:
        core.change_membership(61 * SECOND_NS, THREE.voters, learners, 2)
        while log.pending:
            core.persisted(61 * SECOND_NS, log.sync_one())
        core.take()
        for other, progress in core.progress.items():
            core.step(
                61 * SECOND_NS, AppendAnswer(other, 1, 2, progress.sequence, True, log.last_index, 0, 0, False)
            )

    change({4: 4})
    core.propose(61 * SECOND_NS, [Proposal(1, 0, 0, b"more")], 2)
    core.take()
    late = AppendAnswer(4, 1, 2, core.progress[4].sequence, False, 5, 3, 1, False)
    change({})
    change({4: 4})
    core.step(61 * SECOND_NS, late)
    assert core.progress[4].pace is Pace.REPLICATE
