"""A replica that was told that it is no member any more takes part again when a membership names it."""

from __future__ import annotations

from random import Random

from replication.machine import KIND_MEMBERSHIP, Entry, Role
from replication.raft.core import RaftCore
from replication.raft.log import Vote
from replication.raft.membership import Membership
from replication.raft.messages import Append, Removed
from replication.raft.settings import RaftSettings
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
