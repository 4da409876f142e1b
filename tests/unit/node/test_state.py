"""A partition's replicated state: equal entries make equal states, whoever restores whatever in between."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.settings import TopicSettings
from node.entries import KIND_BATCH, VERSION, Command
from node.state import LEASE_POSITIONS, SNAPSHOT_VERSION, PartitionState
from plait.wire.batch import BatchBuilder
from replication.machine import Entry
from tests.unit.node.memory_log import batch_entry, command_entry, entry_with


def entry_of(state: PartitionState, index: int, producer: int, count: int, stamp_ms: int) -> Entry:
    """A batch of that producer that follows what the state has of it."""
    known = state.producers.get(producer)
    sequence = known.batches[-1][1] + 1 if known is not None else 0
    builder = BatchBuilder(producer_id=producer, producer_epoch=0, base_sequence=sequence)
    for _ in range(count):
        builder.append(b"x" * count, timestamp_ms=stamp_ms)
    return entry_with(index, state.next_offset, builder.build(), stamp_ms)


class Leader:
    """Makes plausible entries from drawn numbers: what they mean depends on the state alone."""

    def __init__(self) -> None:
        self.state = PartitionState(is_queue=True)
        self.index = 0
        self.leases: list[tuple[int, int, int]] = []

    def entry(self, what: int, a: int, b: int, stamp_ms: int) -> Entry:
        self.index += 1
        state = self.state
        if what == 0:
            return entry_of(state, self.index, a % 3, b % 4 + 1, stamp_ms)
        end = max(state.next_offset - 1, 0)
        lease = self.leases[a % len(self.leases)] if self.leases else (1, 0, 0)
        items = [list(lease)]
        head = state.outbox.head() if state.outbox else (0, 0)
        commands: list[list[Any]] = [
            [Command.LEASE, "", f"1.{a % 2 + 1}.{b % 3}", 50, [[min(a, end), min(a + b, end)]]],
            [Command.ACK, "", items],
            [Command.RETURN, "", items, b * 10],
            [Command.EXTEND, "", items, b * 20],
            [Command.CONSUMER_GONE, f"1.{a % 2 + 1}.{b % 3}"],
            [Command.DUE],
            [Command.DROP, "", a, end],
            [Command.DEAD_LETTER, "", b, end],
            [Command.DEAD_LETTERED, "", *head],
            [Command.NODE_RESTARTED, 1, 2],
            [Command.SUBSCRIBE, "other", 0],
        ]
        return command_entry(self.index, stamp_ms, commands[what % len(commands)])

    def apply(self, entry: Entry) -> list[Any]:
        results = self.state.apply(entry)
        for result in results:
            if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], list) and result[0] > 99:
                self.leases += [(result[0], first, last) for first, last, _ in result[1]]
        return results


STEPS = st.lists(
    st.tuples(st.integers(0, 11), st.integers(0, 20), st.integers(0, 5), st.integers(0, 300), st.booleans()),
    max_size=40,
)


@given(STEPS)
@settings(deadline=None)
def test_a_replica_that_was_restored_at_any_point_goes_on_equally(
    steps: list[tuple[int, int, int, int, bool]],
) -> None:
    leader = Leader()
    follower = PartitionState(is_queue=True)
    for what, a, b, stamp_ms, restart in steps:
        entry = leader.entry(what, a, b, stamp_ms)
        expected = leader.apply(entry)
        assert follower.apply(entry) == expected
        if restart:
            snapshot = follower.snapshot()
            follower = PartitionState(is_queue=True)
            follower.restore(snapshot)
        assert follower.snapshot() == leader.state.snapshot()
        assert follower.live_entries() == leader.state.live_entries()
        assert follower.backlog_records() == leader.state.backlog_records()
        assert follower.backlog_bytes() == leader.state.backlog_bytes()


def test_time_never_goes_back() -> None:
    state = PartitionState(is_queue=True)
    state.apply(batch_entry(1, 0, b"a", stamp_ms=500))
    assert state.apply(batch_entry(2, 1, b"b", stamp_ms=100)) == [(1, 500)]
    state.apply(command_entry(3, 50, [Command.LEASE, "", "1.1.1", 100, [[0, 0]]]))
    assert state.shared[""].next_deadline_ms() == 600


def test_lease_ids_follow_from_the_place_in_the_log() -> None:
    state = PartitionState(is_queue=True)
    state.apply(batch_entry(1, 0, b"a", b"b"))
    leases = [[Command.LEASE, "", "1.1.1", 100, [[offset, offset]]] for offset in (0, 1)]
    first, second = state.apply(command_entry(2, 1, *leases))
    assert (first, second) == (
        (2 * LEASE_POSITIONS, [(0, 0, 1)]),
        (2 * LEASE_POSITIONS + 1, [(1, 1, 1)]),
    )


def test_a_queue_begins_where_its_first_unacknowledged_record_lies() -> None:
    state = PartitionState(is_queue=True)
    state.apply(batch_entry(1, 0, b"a", b"b", b"c"))
    state.apply(command_entry(2, 1, [Command.LEASE, "", "1.1.1", 100, [[0, 2]]]))
    lease = 2 * LEASE_POSITIONS
    state.apply(command_entry(3, 1, [Command.ACK, "", [[lease, 1, 1]]]))
    assert (state.start_offset, state.live_entries()) == (0, [(0, 0), (2, 2)])
    state.apply(command_entry(4, 1, [Command.ACK, "", [[lease, 0, 0]]]))
    assert (state.start_offset, state.live_entries()) == (2, [(2, 2)])


def test_a_dead_letter_is_live_until_it_is_known_to_be_moved_and_no_longer_backlog() -> None:
    state = PartitionState(is_queue=True)
    state.apply(batch_entry(1, 0, b"a", b"b"))
    state.apply(command_entry(2, 1, [Command.DEAD_LETTER, "", 1, 2]))
    assert (state.live_entries(), state.backlog_records()) == ([(0, 1)], 1)
    for index in (3, 4):  # the second one is word of the same move, from a leader that did not hear of the first
        state.apply(command_entry(index, 1, [Command.DEAD_LETTERED, "", 0, 0]))
        assert (state.live_entries(), state.backlog_records()) == ([(1, 1)], 1)


def test_what_is_dropped_lies_before_the_offset_that_the_leader_named() -> None:
    state = PartitionState(is_queue=True)
    state.apply(batch_entry(1, 0, b"a", b"b", b"c"))
    state.apply(command_entry(2, 1, [Command.LEASE, "", "1.1.1", 100, [[0, 0]]]))
    state.apply(command_entry(3, 1, [Command.DROP, "", 5, 2]))
    assert state.live_entries() == [(0, 0), (2, 2)]


def test_a_topic_is_trimmed_and_its_retention_looks_at_stamps() -> None:
    state = PartitionState(is_queue=False)
    state.apply(batch_entry(1, 0, b"a", stamp_ms=1_000))
    state.apply(batch_entry(2, 1, b"b", stamp_ms=2_000))
    settings_ = TopicSettings(retention_ms=500)
    assert state.retention_due_ms(settings_) == 1_500
    assert state.retention_point(settings_, 1_499) == 0
    assert state.retention_point(settings_, 1_500) == 1
    state.apply(command_entry(3, 2_000, [Command.TRIM, 1]))
    assert (state.start_offset, state.live_entries(), state.retention_due_ms(settings_)) == (1, [(1, 1)], 2_500)
    state.apply(command_entry(4, 2_000, [Command.TRIM, 99]))
    assert (state.start_offset, state.live_entries(), state.retention_due_ms(settings_)) == (2, [], None)


def test_settling_in_a_subscription_that_is_not_there_loses_everything() -> None:
    state = PartitionState(is_queue=False)
    (settled,) = state.apply(command_entry(1, 1, [Command.ACK, "gone", [[1, 0, 4]]]))
    assert (settled.records, settled.lost) == (0, [(0, 4)])


def test_what_a_newer_version_wrote_is_not_applied() -> None:
    state = PartitionState(is_queue=True)
    newer = bytearray(batch_entry(1, 0, b"a").payload)
    newer[0] = VERSION + 1
    wrong = [
        Entry(1, 1, KIND_BATCH, 0, 1, bytes(newer)),
        Entry(1, 1, 99, 0, 0, b""),
        command_entry(1, 1, [99, "what"]),
        Entry(1, 1, 2, 0, 0, cbor2.dumps([VERSION + 1, 0, []])),
    ]
    for entry in wrong:
        with pytest.raises(ValueError, match="version"):
            state.apply(entry)
    with pytest.raises(ValueError, match="version"):
        state.restore(cbor2.dumps([SNAPSHOT_VERSION + 1, "whatever"]))
    assert state.next_offset == 0


def test_a_snapshot_replaces_whatever_was_there() -> None:
    ahead, behind = Leader(), Leader()
    for number in range(200):
        ahead.state.apply(ahead.entry(number % 5, number, number * 7, number))
    for number in range(40):
        behind.state.apply(behind.entry(number % 4, number * 3, number, number))
    behind.state.restore(ahead.state.snapshot())
    assert behind.state.snapshot() == ahead.state.snapshot()
    assert behind.state.live_entries() == ahead.state.live_entries()
