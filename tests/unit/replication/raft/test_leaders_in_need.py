"""What a leader does for those who cannot help themselves: damaged storage, voters that left and were not told."""

from __future__ import annotations

import pytest

from plait.wire.errors import Unavailable
from replication.raft.messages import (
    AppendAnswer,
    Beat,
    BeatAnswer,
    Removed,
    SnapshotOffer,
    TimeoutNow,
    VoteRequest,
)
from replication.raft.settings import NS_PER_MS
from tests.sim.raft.memory_log import Snapshot
from tests.unit.replication.raft.test_damage import SECOND_NS, SETTINGS, THREE, leading


def test_a_damaged_leader_hands_over_to_one_whose_storage_is_sound() -> None:
    core, _ = leading()
    core.step(61 * SECOND_NS, AppendAnswer(2, 1, 2, 0, True, core.commit, 0, 0, True))
    core.found_damage(61 * SECOND_NS)
    core.take()
    core.tick(61 * SECOND_NS + SETTINGS.beat_ms * NS_PER_MS)
    assert [each.target for each in core.take().messages if isinstance(each, TimeoutNow)] == [3]


def test_a_damaged_leader_whose_followers_are_damaged_too_goes_on_serving() -> None:
    core, _ = leading()
    for other in (2, 3):
        core.step(61 * SECOND_NS, AppendAnswer(other, 1, 2, 0, True, core.commit, 0, 0, True))
    core.found_damage(61 * SECOND_NS)
    core.tick(61 * SECOND_NS + SETTINGS.beat_ms * NS_PER_MS)
    assert core.transferring_to == 0
    with pytest.raises(Unavailable):
        core.transfer(62 * SECOND_NS, 2)


def test_reads_do_not_wait_for_voters_that_have_left() -> None:
    core, log = leading()
    core.change_membership(61 * SECOND_NS, {1: 1}, {}, 2)
    core.take()
    ticket = core.read_index(61 * SECOND_NS)
    beats = [each for each in core.take().messages if isinstance(each, Beat)]
    while log.pending:
        core.persisted(61 * SECOND_NS, log.sync_one())
    joint = core.log.last_index
    core.step(61 * SECOND_NS, AppendAnswer(2, 1, 2, core.progress[2].sequence, True, joint, 0, 0, False))
    assert (core.membership.voters, core.membership.joint) == ({1: 1}, False)
    answered = core.take().reads
    for beat in beats:
        core.step(61 * SECOND_NS, BeatAnswer(beat.target, 1, 2, beat.read))
    assert [found for found, _ in answered + core.take().reads] == [ticket]


def test_a_leader_that_cannot_read_what_a_follower_lacks_has_a_snapshot_made_that_covers_it() -> None:
    core, log = leading()
    log.cache_entries = 0
    core.progress[2].match = 1
    core.progress[2].probe()
    core.dirty = True
    assert core.take().wanted == [(2, 2)]
    core.loaded(61 * SECOND_NS, 2, 2, [])
    assert core.take().checkpoint
    log.compact(Snapshot(5, 2, THREE, 0))
    core.step(62 * SECOND_NS, BeatAnswer(2, 1, 2, 0))
    core.tick(62 * SECOND_NS)
    assert [each.target for each in core.take().messages if isinstance(each, SnapshotOffer)] == [2]


def test_whoever_campaigns_and_is_no_member_any_more_is_told_so() -> None:
    core, log = leading()
    core.change_membership(61 * SECOND_NS, {1: 1, 2: 2}, {}, 2)
    for _ in range(2):
        core.take()
        while log.pending:
            core.persisted(61 * SECOND_NS, log.sync_one())
        sent = core.progress[2].sequence
        core.step(61 * SECOND_NS, AppendAnswer(2, 1, 2, sent, True, log.last_index, 0, 0, False))
    lost = core.take().messages
    assert [each.target for each in lost if isinstance(each, Removed)] == [3]
    for source in (3, 2):
        core.step(62 * SECOND_NS, VoteRequest(source, 1, 3, log.last_index, 2, pre=True, transfer=False))
    assert [each.target for each in core.take().messages if isinstance(each, Removed)] == [3]
