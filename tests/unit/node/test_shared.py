"""What a shared subscription promises, sentence by sentence (every combination: test_shared_model.py)."""

from __future__ import annotations

import pytest

from node import recordstate, shared
from node.leases import LeaseChooser
from node.recordstate import NEVER_MS
from node.shared import SharedSubscription

A, B = "1.1.1", "1.1.2"


def test_leased_records_are_done_when_they_are_acknowledged() -> None:
    queue = SharedSubscription()
    assert queue.lease(100, 1, A, [(0, 9)], 30_000) == [(0, 9, 1)]
    assert queue.ack(200, [(1, 0, 9)]) == (10, [])
    assert (queue.floor, queue.end, queue.range_count) == (10, 10, 0)
    assert queue.backlog_records(15) == 5


def test_the_floor_stays_at_the_first_record_that_is_not_done() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 30_000)
    queue.ack(200, [(1, 1, 9)])
    assert queue.floor == 0
    assert queue.live_ranges(12) == [(0, 0), (10, 11)]


def test_a_returned_record_comes_next_where_it_was() -> None:
    queue = SharedSubscription()
    chooser = LeaseChooser(queue)
    queue.lease(100, 1, A, [(0, 9)], 30_000)
    queue.return_(150, [(1, 4, 5)])
    assert chooser.choose(3, 20) == [(4, 5), (10, 10)]


def test_deliveries_are_counted_and_the_first_is_remembered() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 1)], 30_000)
    queue.return_(150, [(1, 0, 1)])
    assert queue.lease(200, 2, B, [(0, 1)], 30_000) == [(0, 1, 2)]
    (listed,) = queue.pending(260)
    assert (listed.consumer, listed.deliveries, listed.idle_ms, listed.first_delivery_ms) == (B, 2, 60, 100)


def test_a_delivery_that_was_not_made_is_not_counted() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 30_000)
    queue.return_(150, [(1, 0, 9)], count_delivery=False)
    assert queue.snapshot() == SharedSubscription().snapshot()


def test_an_expired_lease_comes_back_when_the_leader_says_so_and_not_before() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    assert queue.next_deadline_ms() == 150
    assert queue.due(149) == 0
    assert queue.ack(151, [(1, 0, 0)]) == (1, [])  # late, and nobody else was given it
    assert queue.due(151) == 9
    assert queue.returned_within() == [(1, 9)]
    assert queue.next_deadline_ms() is None


def test_a_lease_without_deadline_never_expires() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 0)], NEVER_MS)
    assert queue.next_deadline_ms() is None
    assert queue.due(1 << 50) == 0


def test_a_stale_lease_settles_nothing_of_anybody_else() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    queue.due(150)
    queue.lease(160, 2, B, [(0, 9)], 50)
    for settle in (queue.ack, queue.return_):
        assert settle(170, [(1, 0, 9)]) == (0, [(0, 9)])
    assert queue.extend(170, [(1, 0, 9)], 1_000) == (0, [(0, 9)])
    assert queue.leased_by(B) == 10
    assert queue.next_deadline_ms() == 210


def test_what_is_lost_is_told_range_by_range() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    queue.ack(110, [(1, 3, 4)])
    assert queue.ack(120, [(1, 0, 12)]) == (8, [(3, 4), (10, 12)])
    assert queue.ack(130, [(1, 5, 6), (7, 7, 8)]) == (0, [(5, 8)])


def test_a_range_of_absurd_size_costs_nothing() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    assert queue.ack(110, [(1, 0, (1 << 62))]) == (10, [(10, 1 << 62)])


def test_extending_moves_the_deadline_of_just_those_records() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    assert queue.extend(120, [(1, 0, 4)], 500) == (5, [])
    assert queue.due(200) == 5
    assert queue.returned_within() == [(5, 9)]
    assert queue.next_deadline_ms() == 620
    queue.extend(210, [(1, 0, 0)], 0)
    assert queue.next_deadline_ms() == 210


def test_a_consumer_that_is_gone_gives_everything_back() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 4)], 50)
    queue.lease(100, 2, B, [(5, 9)], 50)
    queue.lease(100, 3, A, [(10, 14)], 50)
    queue.ack(110, [(1, 2, 2)])
    assert queue.consumers() == [A, B]
    assert queue.consumer_gone(120, A) == 9
    assert queue.consumers() == [B]
    assert queue.returned_within() == [(0, 1), (3, 4), (10, 14)]


def test_a_return_with_a_delay_comes_back_when_it_is_due() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    queue.return_(110, [(1, 0, 9)], delay_ms=1_000)
    assert queue.lease(200, 2, B, [(0, 9)], 50) == []
    assert queue.next_deadline_ms() == 1_110
    assert queue.due(1_110) == 10
    assert queue.lease(1_200, 3, B, [(0, 9)], 50) == [(0, 9, 2)]


def test_what_is_no_longer_available_is_skipped() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    queue.return_(110, [(1, 3, 4)])
    assert queue.lease(120, 2, B, [(2, 12)], 50) == [(3, 4, 2), (10, 12, 1)]


def test_a_choice_that_was_never_applied_leaves_its_records_to_be_delivered() -> None:
    queue = SharedSubscription()
    assert queue.lease(100, 2, A, [(10, 19)], 50) == [(10, 19, 1)]
    assert queue.returned_within() == [(0, 9)]
    assert queue.lease(100, 3, A, [(0, 9)], 50) == [(0, 9, 1)]


def test_a_lease_id_that_still_holds_records_leases_nothing() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    assert queue.lease(100, 1, B, [(10, 19)], 50) == []
    assert queue.end == 10


def test_dropping_spares_what_somebody_holds() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 4)], 50)
    assert queue.drop_oldest(110, 3, 20) == 3
    assert queue.live_ranges(20) == [(0, 4), (8, 19)]
    assert queue.ack(120, [(1, 0, 4)]) == (5, [])


def test_a_purge_takes_all_that_is_waiting() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 4)], 50)
    queue.return_(105, [(1, 0, 1)])
    assert queue.drop(110, last=19) == 17
    assert queue.live_ranges(20) == [(2, 4)]
    assert queue.drop(110, last=19, leased=True) == 3
    assert (queue.floor, queue.end) == (20, 20)
    assert queue.ack(120, [(1, 2, 4)]) == (0, [(2, 4)])


def test_what_is_given_up_waits_for_the_dead_letter_queue_and_is_then_done() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 4)], 50)
    queue.return_(105, [(1, 1, 2)])
    assert queue.give_up_oldest(110, 4, 20) == [(1, 2), (5, 6)]
    assert queue.lease(120, 2, B, [(0, 7)], 50) == [(7, 7, 1)]
    assert queue.drop(125, last=19, leased=True) == 16
    assert queue.live_ranges(20) == [(1, 2), (5, 6)]
    assert queue.given_up(1, 5) == 3
    assert queue.given_up(6, 6) == 1
    assert queue.backlog_records(20) == 0


def test_records_before_the_logs_start_are_gone() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    assert queue.trim(5) == 5
    assert queue.ack(110, [(1, 0, 9)]) == (5, [(0, 4)])
    assert queue.trim(25) == 15
    assert (queue.floor, queue.end) == (25, 25)
    assert queue.trim(3) == 0


def test_seeking_back_delivers_again_and_ends_every_lease() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    queue.seek(5)
    assert queue.consumers() == []
    assert queue.ack(110, [(1, 5, 9)]) == (0, [(5, 9)])
    assert queue.lease(120, 2, A, [(5, 6)], 50) == [(5, 6, 1)]


def test_a_full_window_leases_only_what_was_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "WINDOW_RANGES_MAX", 3)
    monkeypatch.setattr("node.leases.WINDOW_RANGES_MAX", 3)
    queue = SharedSubscription()
    chooser = LeaseChooser(queue)
    for lease_id in range(3):
        queue.lease(100, lease_id, A, [(lease_id, lease_id)], 50)
    assert queue.room == 0
    assert queue.lease(100, 9, A, [(3, 3)], 50) == []
    assert (chooser.available(100), chooser.choose(5, 100)) == (0, [])
    queue.return_(110, [(1, 1, 1)])
    assert (chooser.available(100), chooser.choose(5, 100)) == (1, [(1, 1)])
    chooser.reset()
    queue.ack(120, [(0, 0, 0)])
    assert chooser.choose(5, 100) == [(1, 1), (3, 6)]


def test_the_window_is_bounded_in_records_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "WINDOW_RECORDS_MAX", 10)
    queue = SharedSubscription()
    assert LeaseChooser(queue).choose(100, 100) == [(0, 9)]
    assert queue.lease(100, 1, A, [(0, 50)], 50) == [(0, 9, 1)]
    assert queue.lease(100, 2, A, [(10, 10)], 50) == []
    queue.ack(110, [(1, 4, 4)])
    assert queue.lease(120, 3, A, [(10, 50)], 50) == [(10, 10, 1)]


def test_many_due_leases_come_back_in_bounded_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "DUE_RUNS_MAX", 4)
    queue = SharedSubscription()
    for lease_id in range(10):
        queue.lease(100, lease_id, A, [(2 * lease_id, 2 * lease_id + 1)], 50 - lease_id)
    turns = []
    while (due_ms := queue.next_deadline_ms()) is not None and due_ms <= 150:
        turns.append(queue.due(150))
    assert turns == [8, 8, 4]
    assert queue.returned_count == 20


def test_a_restored_replica_takes_the_same_turns_as_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "DUE_RUNS_MAX", 2)
    steady = SharedSubscription()
    steady.lease(100, 1, A, [(0, 19)], 50)
    steady.extend(100, [(1, 2, 3)], 90)  # later, in the middle of what the lease's first deadline covers
    steady.extend(100, [(1, 8, 12)], 90)
    steady.extend(100, [(1, 11, 14)], 50)  # and back, reaching further
    steady.extend(100, [(1, 10, 10)], 50)
    reborn = SharedSubscription.restored(steady.snapshot())
    while steady.leased_count:
        assert steady.due(200) == reborn.due(200)
        assert steady.snapshot() == reborn.snapshot()
    assert reborn.leased_count == 0


def test_outdated_deadlines_do_not_pile_up() -> None:
    queue = SharedSubscription()
    for turn in range(20_000):
        queue.lease(turn, turn, A, [(turn, turn)], 30_000)
        queue.ack(turn, [(turn, turn, turn)])
    assert len(queue._deadlines) <= 2 * queue.range_count + 1_100  # memory is what this is about


def test_memory_follows_what_is_outstanding_and_not_the_backlog() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 49)], 50)
    assert queue.backlog_records(5_000_000) == 5_000_000
    assert queue.range_count == 1


def test_ranges_of_one_state_are_one_run() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    queue.lease(100, 2, A, [(10, 19)], 50)
    queue.return_(110, [(1, 0, 9)])
    queue.return_(110, [(2, 10, 19)])
    assert queue.runs() == [(0, 19, recordstate.RecordState(recordstate.RETURNED, 1, 100))]


def test_equal_states_have_equal_snapshots_whatever_their_histories() -> None:
    one, other = SharedSubscription(), SharedSubscription()
    one.lease(100, 1, A, [(0, 9)], 50)
    one.ack(110, [(1, 0, 4)])
    other.lease(100, 1, A, [(0, 9)], 50)
    for offset in (3, 0, 4, 2, 1):
        other.ack(105 + offset, [(1, offset, offset)])
    assert one.snapshot() == other.snapshot()


def test_a_snapshot_of_a_newer_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 2"):
        SharedSubscription.restored([2, 0, [], []])


def test_pending_lists_by_offset_and_in_bounded_pages() -> None:
    queue = SharedSubscription()
    for lease_id in range(5):
        queue.lease(100, lease_id, A if lease_id % 2 else B, [(2 * lease_id, 2 * lease_id)], 50)
    assert [(each.first, each.consumer) for each in queue.pending(100, limit=2)] == [(0, B), (2, A)]
    assert [each.first for each in queue.pending(100, first=3, consumer=A)] == [6]
    assert queue.summary()[:5] == (0, 9, 5, 4, 0)


def test_a_new_leaders_chooser_starts_from_what_is_returned() -> None:
    queue = SharedSubscription()
    queue.lease(100, 1, A, [(0, 9)], 50)
    queue.return_(110, [(1, 2, 5)])
    assert LeaseChooser(queue).choose(2, 10) == [(2, 3)]  # promised by a leader that is no more
    again = LeaseChooser(queue)
    assert again.available(12) == 6
    assert again.choose(10, 12) == [(2, 5), (10, 11)]
    assert again.promised_count == 6
    again.release([(2, 5), (10, 11)])  # given up
    assert again.choose(1, 12) == [(2, 2)]
