"""A follower whose log has holes: what it may say, what it must never cut off, and how its leader mends it."""

from __future__ import annotations

from random import Random

import pytest

from replication.machine import KIND_MEMBERSHIP, Entry, Proposal, Role
from replication.raft.core import RaftCore
from replication.raft.log import Vote, last_agreeing
from replication.raft.membership import Membership
from replication.raft.messages import Append, AppendAnswer, Beat, Message, SnapshotOffer, VoteAnswer
from replication.raft.settings import NS_PER_MS, RaftSettings
from tests.sim.raft.memory_log import MemoryLog, Snapshot

THREE = Membership({1: 1, 2: 2, 3: 3})
SETTINGS = RaftSettings()
SECOND_NS = 1_000 * NS_PER_MS


class HoledLog(MemoryLog):
    """A log of which some indexes cannot be read."""

    __slots__ = ("holes",)

    def __init__(self, replica: int, terms: list[int]) -> None:
        super().__init__(replica)
        self.holes: tuple[int, ...] = ()
        entries = [Entry(1, 1, KIND_MEMBERSHIP, 0, 0, THREE.encode())]
        entries += [Entry(index, term, 1, 0, 0, b"%d" % index) for index, term in enumerate(terms, 2)]
        self.found(entries, Vote(max(terms), 0))

    def term_at(self, index: int) -> int | None:
        return None if index in self.holes and index != self.last_index else super().term_at(index)


def core_of(log: MemoryLog, *, damaged: bool = False) -> RaftCore:
    vote = log.seen.vote
    return RaftCore(log.replica, log, vote, log.seen.memberships[-1:], SETTINGS, Random(1), 0, damaged=damaged)


def follower(terms: list[int], *holes: int) -> tuple[RaftCore, HoledLog]:
    log = HoledLog(2, terms)
    log.holes = holes
    return core_of(log, damaged=True), log


def append(term: int, previous: tuple[int, int], terms: list[int]) -> Append:
    entries = [Entry(index, each, 1, 0, 0, b"%d" % index) for index, each in enumerate(terms, previous[0] + 1)]
    return Append(1, 2, term, *previous, entries, 0, 7)


def answer(core: RaftCore) -> AppendAnswer:
    messages = core.take().messages
    assert len(messages) == 1
    assert isinstance(messages[0], AppendAnswer)
    return messages[0]


def test_entries_behind_damage_are_not_cut_off_by_entries_that_may_be_the_same() -> None:
    core, log = follower([1, 1, 1, 1, 1], 3, 4)  # indexes 2 to 6
    core.step(SECOND_NS, append(1, (2, 1), [1, 1]))
    refused = answer(core)
    assert (refused.success, refused.index, refused.hint_index, refused.damaged) == (False, 2, 2, True)
    assert log.last_index == 6


def test_a_known_entry_behind_damage_vouches_for_what_is_damaged() -> None:
    core, log = follower([1, 1, 1, 1, 1], 3, 4)
    core.step(SECOND_NS, append(1, (2, 1), [1, 1, 1, 1, 1]))
    core.persisted(SECOND_NS, core.io)
    accepted = answer(core)
    assert (accepted.success, accepted.index, accepted.damaged) == (True, 7, True)
    assert log.last_index == 7


def test_a_conflict_behind_damage_cuts_nothing_off() -> None:
    core, log = follower([1, 1, 1, 1, 1], 3, 4)
    core.step(SECOND_NS, append(2, (2, 1), [2, 2, 2]))
    assert log.last_index == 6
    core.persisted(SECOND_NS, core.io)
    assert answer(core).success is False


def test_a_conflict_before_any_damage_cuts_off_what_follows() -> None:
    core, log = follower([1, 1, 1, 1, 1], 5)
    core.step(SECOND_NS, append(2, (2, 1), [2]))
    assert log.last_index == 3
    core.persisted(SECOND_NS, core.io)
    assert answer(core).success is True


def test_where_logs_may_agree_is_looked_for_before_the_damage() -> None:
    _, log = follower([1, 1, 1, 1, 1], 3, 4)
    assert last_agreeing(log, 4, 1) == 2
    assert last_agreeing(log, 5, 1) == 5
    log.holes = (2, 3, 4)
    assert last_agreeing(log, 4, 1) == 1


def test_a_damaged_replica_votes_but_never_stands() -> None:
    core, _ = follower([1, 1, 1], 2)
    core.tick(60 * SECOND_NS)
    assert (core.candidate, core.term) == ("", 1)
    leader = core_of(HoledLog(1, [1, 1, 1]))
    leader.tick(60 * SECOND_NS)
    requests = [each for each in leader.take().messages if each.target == 2]
    core.step(61 * SECOND_NS, requests[0])
    (vote,) = core.take().messages
    assert isinstance(vote, VoteAnswer)
    assert vote.granted


def leading() -> tuple[RaftCore, MemoryLog]:
    """Replica 1 leads term 2 with everything committed and applied; 2 and 3 have it all."""
    log = HoledLog(1, [1, 1, 1])
    core = core_of(log)
    core.tick(60 * SECOND_NS)
    for pre in (True, False):
        core.step(60 * SECOND_NS, VoteAnswer(3, 1, 2, granted=True, pre=pre))
        core.persisted(60 * SECOND_NS, core.io)
    assert core.role is Role.LEADER
    for other in (2, 3):
        core.step(60 * SECOND_NS, AppendAnswer(other, 1, 2, 1, True, log.last_index, 0, 0, False))
    core.applied(60 * SECOND_NS, core.commit)
    while log.pending:
        core.persisted(60 * SECOND_NS, log.sync_one())
    core.take()
    assert core.commit == log.last_index == 5
    return core, log


def beat(core: RaftCore, now_ns: int) -> list[Message]:
    """One beat later."""
    for other in (2, 3):
        core.step(now_ns, AppendAnswer(other, 1, 2, 2, True, core.commit, 0, 0, other == 2))
    core.tick(now_ns)
    return [each for each in core.take().messages if each.target == 2 and not isinstance(each, Beat)]


def test_a_leader_has_a_snapshot_made_that_covers_the_damage_and_offers_it() -> None:
    core, log = leading()
    core.step(61 * SECOND_NS, AppendAnswer(2, 1, 2, 0, True, core.commit, 0, 0, True))
    core.take()
    core.tick(61 * SECOND_NS + SETTINGS.beat_ms * NS_PER_MS)
    output = core.take()
    assert output.checkpoint, "its own snapshot would not reach so far"
    assert not [each for each in output.messages if isinstance(each, SnapshotOffer)]
    log.compact(Snapshot(5, 2, THREE, 0))
    (offer,) = [each for each in beat(core, 63 * SECOND_NS) if isinstance(each, SnapshotOffer)]
    assert offer.index == 5


def test_a_follower_that_is_still_damaged_behind_a_snapshot_gets_a_newer_one() -> None:
    core, log = leading()
    log.compact(Snapshot(5, 2, THREE, 0))
    core.propose(61 * SECOND_NS, [Proposal(1, 0, 0, b"more")], 2)
    core.persisted(61 * SECOND_NS, core.io)
    core.step(61 * SECOND_NS, AppendAnswer(3, 1, 2, 3, True, 6, 0, 0, False))
    core.applied(61 * SECOND_NS, 6)
    core.take()
    core.step(61 * SECOND_NS, AppendAnswer(2, 1, 2, 0, True, 6, 0, 0, True))
    core.tick(61 * SECOND_NS + SETTINGS.beat_ms * NS_PER_MS)
    assert core.take().checkpoint


def test_a_damaged_follower_says_so_at_once_and_takes_no_snapshot_that_cannot_help() -> None:
    log = HoledLog(2, [1, 1, 1])
    core = core_of(log)
    core.step(SECOND_NS, append(1, (4, 1), []))
    core.take()
    core.found_damage(SECOND_NS)
    told = answer(core)
    assert (told.sequence, told.success, told.damaged) == (0, True, True)
    core.step(SECOND_NS, Append(1, 2, 1, 4, 1, [], 4, 8))
    core.applied(SECOND_NS, 4)
    log.compact(Snapshot(4, 1, THREE, 0))
    core.take()
    core.step(SECOND_NS, SnapshotOffer(1, 2, 1, 3, 1, 9))
    output = core.take()
    assert output.install is None
    assert isinstance(output.messages[0], AppendAnswer)
    assert output.messages[0].damaged
    core.step(SECOND_NS, SnapshotOffer(1, 2, 1, 4, 1, 10))
    assert core.take().install is not None, "the one at the same index brings back a snapshot that has rotted"


@pytest.mark.parametrize("index", [2, 4])
def test_a_question_that_a_damaged_follower_cannot_answer_is_not_asked_again_at_once(index: int) -> None:
    core, log = leading()
    progress = core.progress[2]
    progress.match = 1
    progress.probe()
    progress.next = index + 1
    core.dirty = True
    (question,) = [each for each in core.take().messages if isinstance(each, Append) and each.target == 2]
    core.step(
        61 * SECOND_NS, AppendAnswer(2, 1, 2, question.sequence, False, question.previous_index, index, 1, True)
    )
    assert not [each for each in core.take().messages if each.target == 2]
    assert progress.next == index + 1
    assert log.last_index == 5


def test_entries_that_cannot_be_read_for_a_follower_are_not_asked_for_without_end() -> None:
    core, log = leading()
    log.cache_entries = 0
    progress = core.progress[2]
    progress.next = 3
    core.dirty = True
    assert core.take().wanted == [(2, 3)]
    core.loaded(61 * SECOND_NS, 2, 3, [])
    assert core.take().wanted == [], "the disk is not asked again at once"


def test_damage_found_during_a_pre_vote_ends_the_candidacy() -> None:
    log = HoledLog(2, [1, 1])
    core = core_of(log)
    core.tick(SECOND_NS)
    assert core.candidate == "pre"
    core.found_damage(SECOND_NS)
    core.step(SECOND_NS, VoteAnswer(1, 2, 2, granted=True, pre=True))
    assert (core.candidate, core.term) == ("", 1)
    deadline_ns = core.next_deadline_ns()
    assert deadline_ns is not None
    core.tick(deadline_ns)
    assert (core.candidate, core.next_deadline_ns()) == ("", None)
    core.repaired(deadline_ns)
    assert core.next_deadline_ns() is not None


def test_a_follower_that_came_back_is_asked_until_it_says_how_it_stands() -> None:
    core, _ = leading()
    core.node_up(60 * SECOND_NS, 2)
    for round_ in range(1, 4):  # every question gets lost
        questions = [each for each in core.take().messages if isinstance(each, Append) and each.target == 2]
        assert len(questions) == 1, f"round {round_}"
        now_ns = 60 * SECOND_NS + round_ * SETTINGS.resend_ms * NS_PER_MS
        for step_ns in range(now_ns - 100 * NS_PER_MS, now_ns + 1, SETTINGS.beat_ms * NS_PER_MS):
            core.step(step_ns, AppendAnswer(3, 1, 2, 2, True, core.commit, 0, 0, False))
            core.tick(step_ns)


@pytest.mark.parametrize(("index_term", "taken"), [(1, False), (2, True)])
def test_a_snapshot_within_damage_does_not_cost_what_was_acknowledged_behind_it(
    index_term: int, taken: bool
) -> None:
    core, _ = follower([1] * 9, 3, 4, 5, 6)  # up to index 10
    core.step(SECOND_NS, append(2, (12, 2), []))  # beyond its end: it learns of no commit
    assert answer(core).success is False
    core.step(SECOND_NS, SnapshotOffer(1, 2, 2, 5, index_term, 8))
    assert (core.take().install is not None) is taken, "a later term than all that is here contradicts the rest"
    core.step(SECOND_NS, append(2, (10, 1), []))
    core.step(SECOND_NS, Beat(1, 2, 2, 5, 0))
    core.step(SECOND_NS, SnapshotOffer(1, 2, 2, 5, index_term, 9))
    assert core.installing is not None, "once it knows that this much is committed, the rest stays"
