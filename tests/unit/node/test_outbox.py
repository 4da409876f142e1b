"""The outbox: in order, in batches that follow from the log alone, and idempotent."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import outbox as outbox_module
from node.outbox import MOVE_RECORDS, OUTBOX_PRODUCERS, Letter, Outbox, pack
from node.source import RecordSource
from plait.wire.batch import iterate, read_header
from replication.machine import Range
from replication.storage.log import GroupLog
from tests.unit.node.memory_log import MemoryLog, batch_entry

LETTER = Letter("jobs", 7, "overflow")


def test_what_was_given_up_first_is_moved_first() -> None:
    outbox = Outbox()
    outbox.add([(5, 6), (2, 2)])
    assert (outbox.head(), outbox.records) == ((5, 6), 3)
    assert outbox.done(5, 6)
    assert outbox.head() == (2, 2)
    assert outbox.done(2, 2)
    assert not outbox
    assert (outbox.moved, outbox.records) == (3, 0)


def test_a_long_range_is_moved_piece_by_piece() -> None:
    outbox = Outbox()
    outbox.add([(0, 2 * MOVE_RECORDS)])
    assert outbox.head() == (0, MOVE_RECORDS - 1)
    assert outbox.done(0, 9)
    assert outbox.head() == (10, MOVE_RECORDS + 9)


def test_the_first_range_stays_what_it_is_and_the_others_grow() -> None:
    outbox = Outbox()
    for offset in range(10):
        outbox.add([(offset, offset)])
    assert outbox.head() == (0, 0), "it may be under way already"
    outbox.done(0, 0)
    assert outbox.head() == (1, 9)
    outbox.add([(10, 10)])
    assert outbox.head() == (1, 9)


@pytest.mark.parametrize("moved", [(0, 0), (3, 3), (2, 9), (2, 1)])
def test_word_of_a_move_that_is_not_of_the_head_changes_nothing(moved: Range) -> None:
    outbox = Outbox()
    outbox.add([(2, 4)])
    before = outbox.snapshot()
    assert not outbox.done(*moved)
    assert outbox.snapshot() == before
    assert not Outbox().done(0, 0)


RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)).map(lambda pair: (pair[0], sum(pair))))


@given(RANGES, st.integers(0, 10), RANGES)
def test_a_restored_outbox_goes_on_like_the_one_that_was_kept(
    before: list[Range], moves: int, after: list[Range]
) -> None:
    outbox = Outbox()
    outbox.add(before)
    for _ in range(min(moves, len(before))):
        outbox.done(*outbox.head()) if outbox else None
    restored = Outbox.restored(outbox.snapshot())
    for each in (outbox, restored):
        each.add(after)
    assert restored.snapshot() == outbox.snapshot()
    assert restored.records == outbox.records
    while outbox:
        assert restored.head() == outbox.head()
        head = outbox.head()
        assert restored.done(*head)
        assert outbox.done(*head)


def source_of(*values: bytes) -> tuple[MemoryLog, RecordSource]:
    log = MemoryLog([batch_entry(offset + 1, offset, value) for offset, value in enumerate(values)])
    return log, RecordSource(cast(GroupLog, log))


async def test_a_packed_batch_says_where_each_record_comes_from_and_continues_the_sequence() -> None:
    _, source = source_of(b"a", b"b", b"c")
    outbox = Outbox()
    outbox.add([(0, 2)])
    outbox.done(0, 0)
    batch, moved = await pack(source, outbox, LETTER)
    header = read_header(batch)
    assert moved == (1, 2)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (OUTBOX_PRODUCERS + 7, 0, 1)
    records = list(iterate(batch))
    assert [record.value for record in records] == [b"b", b"c"]
    assert dict(records[1].headers) == {
        "plait.dead-letter.reason": b"overflow",
        "plait.dead-letter.queue": b"jobs",
        "plait.dead-letter.offset": b"2",
    }


@pytest.mark.parametrize("cold", [0, 2, 10])
async def test_a_batch_ends_where_it_is_large_enough_wherever_its_records_lie(
    cold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MOVE_BYTES", 1_000)
    log, source = source_of(*([b"x" * 400] * 10))
    log.hot_from = cold
    outbox = Outbox()
    outbox.add([(0, 9)])
    moves: list[Any] = []
    while outbox:
        batch, moved = await pack(source, outbox, LETTER)
        assert [record.value for record in iterate(batch)] == [b"x" * 400] * (moved[1] - moved[0] + 1)
        again, same = await pack(source, outbox, LETTER)
        assert (bytes(again), same) == (bytes(batch), moved)
        outbox.done(*moved)
        moves.append(moved)
    assert moves == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
