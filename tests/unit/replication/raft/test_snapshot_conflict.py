"""A follower may have another entry where its leader's snapshot ends: then there is nothing earlier to ask for."""

from __future__ import annotations

from random import Random

from replication.machine import KIND_MEMBERSHIP, Entry, Role
from replication.raft.core import RaftCore
from replication.raft.log import Vote
from replication.raft.membership import Membership
from replication.raft.messages import Append, AppendAnswer, SnapshotOffer, VoteAnswer
from replication.raft.settings import NS_PER_MS, RaftSettings
from tests.sim.raft.memory_log import MemoryLog, Snapshot

THREE = Membership({1: 1, 2: 2, 3: 3})
NOW_NS = 10_000 * NS_PER_MS


def leader_of_term_3() -> RaftCore:
    """Its snapshot ends with entry 4 of term 2."""
    log = MemoryLog(1)
    entries = [Entry(1, 1, KIND_MEMBERSHIP, 0, 0, THREE.encode())]
    entries += [Entry(index, term, 1, 0, 0, b"") for index, term in ((2, 1), (3, 1), (4, 2))]
    log.found(entries, Vote(2, 0))
    log.compact(Snapshot(4, 2, THREE, 0))
    core = RaftCore(1, log, Vote(2), [(4, THREE)], RaftSettings(), Random(1), 0)
    core.tick(NOW_NS)
    core.step(NOW_NS, VoteAnswer(3, 1, 3, granted=True, pre=True))
    core.persisted(NOW_NS, core.io)
    core.step(NOW_NS, VoteAnswer(3, 1, 3, granted=True, pre=False))
    assert core.role is Role.LEADER
    return core


def test_a_follower_that_contradicts_the_snapshots_own_entry_is_offered_the_snapshot() -> None:
    core = leader_of_term_3()
    asked = [each for each in core.take().messages if isinstance(each, Append) and each.target == 2]
    assert [(each.previous_index, each.previous_term) for each in asked] == [(4, 2)]
    core.step(NOW_NS, AppendAnswer(2, 1, 3, asked[0].sequence, False, 4, 4, 1, False))
    answers = [each for each in core.take().messages if each.target == 2]
    assert len(answers) == 1
    assert isinstance(answers[0], SnapshotOffer)
    assert (answers[0].index, answers[0].index_term) == (4, 2)
