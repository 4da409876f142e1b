"""An idempotent producer's batch is stored once, in order, whatever is sent again."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import producers
from node.producers import (
    NEW,
    PRODUCER_QUIET_MS_MAX,
    SEQUENCES,
    Duplicate,
    InFlight,
    ProducerTable,
    SpeculativeProducers,
)
from plait.wire.errors import OutcomeUnknown, ProducerFenced, SequenceOutOfOrder


@dataclass(frozen=True)
class Header:
    base_sequence: int
    count: int = 10
    producer_epoch: int = 0
    producer_id: int = 7


def table_of(*batches: tuple[int, int]) -> ProducerTable:
    """Producer 7, epoch 0: (first sequence, count) of its batches, from offset 100 on."""
    table = ProducerTable()
    offset = 100
    for first, count in batches:
        table.record(7, 0, first, count, offset, 1_000)
        offset += count
    return table


def test_batches_in_order_are_new() -> None:
    table = table_of((0, 10), (10, 5))
    assert table.check(7, 0, 15, 3) is NEW


def test_a_repetition_of_one_of_the_last_five_gets_its_first_offset() -> None:
    table = table_of(*((10 * n, 10) for n in range(6)))
    assert [table.check(7, 0, 10 * n, 10) for n in range(1, 6)] == [Duplicate(100 + 10 * n) for n in range(1, 6)]
    with pytest.raises(SequenceOutOfOrder):
        table.check(7, 0, 0, 10)


def test_a_gap_and_a_batch_cut_otherwise_are_out_of_order() -> None:
    table = table_of((0, 10))
    for first, count in ((11, 10), (0, 9), (5, 10), (9, 1)):
        with pytest.raises(SequenceOutOfOrder) as caught:
            table.check(7, 0, first, count)
        assert caught.value.details["expected"] == 10


def test_sequences_begin_again_behind_the_highest() -> None:
    table = ProducerTable()
    table.record(7, 0, SEQUENCES - 4, 4, 0, 0)
    assert table.check(7, 0, 0, 1) is NEW
    table = ProducerTable()
    table.record(7, 0, SEQUENCES - 4, 10, 0, 0)  # crosses it
    assert table.check(7, 0, 6, 1) is NEW
    assert table.check(7, 0, SEQUENCES - 4, 10) == Duplicate(0)


def test_a_new_epoch_begins_with_zero_and_fences_the_old_one() -> None:
    table = table_of((0, 10))
    with pytest.raises(SequenceOutOfOrder):
        table.check(7, 1, 10, 1)
    assert table.check(7, 1, 0, 10) is NEW  # and is no repetition of epoch 0's first batch
    table.record(7, 1, 0, 10, 110, 1_000)
    with pytest.raises(ProducerFenced):
        table.check(7, 0, 10, 1)
    with pytest.raises(ProducerFenced):
        table.check(7, 0, 0, 10)


def test_a_producer_that_is_not_known_may_begin_anywhere() -> None:
    assert ProducerTable().check(7, 3, 12_345, 1) is NEW


def test_producers_that_say_nothing_for_long_are_forgotten() -> None:
    table = ProducerTable()
    table.record(1, 0, 0, 1, 0, 0)
    table.record(2, 0, 0, 1, 1, 5)
    table.record(1, 0, 1, 1, 2, 10)
    assert table.expire(PRODUCER_QUIET_MS_MAX + 4) == 0
    assert table.expire(PRODUCER_QUIET_MS_MAX + 5) == 1
    assert (table.get(1) is not None, table.get(2)) == (True, None)
    table.record(3, 0, 0, 1, 3, PRODUCER_QUIET_MS_MAX + 10)
    assert len(table) == 1


@pytest.mark.parametrize(("known", "kept"), [(2, 2), (3, 3), (4, 3)])
def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch, known: int, kept: int) -> None:
    monkeypatch.setattr(producers, "PRODUCERS_MAX", 3)
    table = ProducerTable()
    for number in range(known):
        table.record(number, 0, 0, 1, number, 0)
    assert len(table) == kept
    assert table.get(known - 1) is not None


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 2), st.integers(1, 5), st.integers(0, 50)), max_size=40)
)
def test_a_restored_table_goes_on_as_the_first_one(steps: list[tuple[int, int, int, int]]) -> None:
    table = ProducerTable()
    reborn = ProducerTable()
    offset = stamp = 0
    for producer_id, epoch, count, later in steps:
        stamp += later * PRODUCER_QUIET_MS_MAX // 60
        for each in (table, reborn):
            each.record(producer_id, epoch, offset % 7, count, offset, stamp)
        assert reborn.snapshot() == table.snapshot()
        reborn = ProducerTable.restored(reborn.snapshot())
        offset += count
    assert reborn.snapshot() == table.snapshot()


def test_a_table_of_a_newer_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 2"):
        ProducerTable.restored([2, []])


def test_batches_under_way_are_followed_before_they_are_applied() -> None:
    table = table_of((0, 10))
    leader = SpeculativeProducers(table)
    leader.begin(Header(10), 110)
    leader.begin(Header(20), 120)
    assert leader.find(Header(30)) is None
    assert leader.find(Header(10)) == InFlight((7, 0, 10))
    assert leader.find(Header(0)) == Duplicate(100)
    with pytest.raises(SequenceOutOfOrder):
        leader.begin(Header(31), 130)
    assert leader.check(Header(30)) is NEW


def test_an_applied_batch_is_no_longer_under_way() -> None:
    table = ProducerTable()
    leader = SpeculativeProducers(table)
    leader.begin(Header(0), 0)
    leader.begin(Header(10), 10)
    table.record(7, 0, 0, 10, 0, 0)
    assert leader.find(Header(0)) == Duplicate(0)
    assert leader.find(Header(10)) == InFlight((7, 0, 10))
    assert len(leader) == 1
    table.record(7, 0, 10, 10, 10, 0)
    assert len(leader) == 0
    assert leader.check(Header(20)) is NEW


def test_a_repetition_is_never_proposed() -> None:
    table = table_of((0, 10))
    leader = SpeculativeProducers(table)
    leader.begin(Header(10), 110)
    for again in (Header(0), Header(10)):
        with pytest.raises(OutcomeUnknown):
            leader.begin(again, 120)
    assert len(leader) == 1


def test_an_epoch_under_way_fences_too() -> None:
    leader = SpeculativeProducers(table_of((0, 10)))
    leader.begin(Header(0, producer_epoch=1), 110)
    with pytest.raises(ProducerFenced):
        leader.begin(Header(10), 120)
    leader.begin(Header(10, producer_epoch=1), 120)


def test_a_new_term_knows_only_what_was_applied() -> None:
    leader = SpeculativeProducers(table_of((0, 10)))
    leader.begin(Header(10), 110)
    leader.reset()
    assert leader.find(Header(10)) is None
    leader.begin(Header(10), 110)


def test_a_batch_that_is_not_proposed_after_all_leaves_no_trace() -> None:
    speculative = SpeculativeProducers(table_of((0, 10)))
    speculative.begin(Header(10), 110)
    speculative.begin(Header(20), 120)
    speculative.withdraw()
    assert speculative.find(Header(20)) is None
    assert isinstance(speculative.find(Header(10)), InFlight)
    speculative.begin(Header(20), 120)
    speculative.withdraw()
    speculative.withdraw()
    assert len(speculative) == 0
    speculative.begin(Header(10), 110)
