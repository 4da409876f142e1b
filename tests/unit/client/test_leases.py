"""The lease book against sets of offsets: what is sent is what was settled, each once, in as few ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.client.leases import SETTLE_FRAME_RANGES_MAX, LeaseBook, Settling
from plait.wire.errors import LeaseLost


def offsets_of(settling: Settling) -> list[int]:
    return [offset for frame in settling.frames() for _, first, last in frame for offset in range(first, last + 1)]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=5), st.randoms(use_true_random=False), st.booleans())
def test_every_settled_offset_is_sent_once(runs: list[int], random: object, shuffle: bool) -> None:
    book = LeaseBook(lambda: None)
    records = []
    first = 0
    for number, count in enumerate(runs):
        lease = book.grant(0, number, first, count, 1, 0.0)
        records += [(lease, offset) for offset in range(first, first + count)]
        first += count
    if shuffle:
        random.shuffle(records)  # type: ignore[attr-defined]  # a random.Random
    for lease, offset in records:
        book.settle(lease, offset, "ack")
    assert book.open_records == 0
    [settling] = book.collect()
    frames = settling.frames()
    assert len(frames) == 1
    assert [(lease_id, last - start + 1) for lease_id, start, last in frames[0]] == list(enumerate(runs))


def test_acks_returns_and_partitions_go_separately() -> None:
    book = LeaseBook(lambda: None)
    zero, one = book.grant(0, 1, 0, 4, 1, 0.0), book.grant(1, 2, 0, 4, 1, 0.0)
    book.settle(zero, 0, "ack")
    book.settle(zero, 1, "return")
    book.settle(one, 0, "ack")
    found = {(each.partition, each.action): offsets_of(each) for each in book.collect()}
    assert found == {(0, "ack"): [0], (0, "return"): [1], (1, "ack"): [0]}
    assert book.collect() == []


def test_dirty_is_said_once_a_turn() -> None:
    turns: list[None] = []
    book = LeaseBook(lambda: turns.append(None))
    lease = book.grant(0, 1, 0, 4, 1, 0.0)
    for offset in range(4):
        book.settle(lease, offset, "ack")
    assert len(turns) == 1


def test_many_gaps_need_many_frames() -> None:
    book = LeaseBook(lambda: None)
    lease = book.grant(0, 1, 0, 2 * SETTLE_FRAME_RANGES_MAX + 2, 1, 0.0)
    for offset in range(0, lease.last + 1, 2):
        book.settle(lease, offset, "ack")
    [settling] = book.collect()
    frames = settling.frames()
    assert [len(frame) for frame in frames] == [SETTLE_FRAME_RANGES_MAX, 1]
    settling.answered([])
    assert not settling.answer.done
    settling.answered([])
    assert settling.answer.done


async def test_the_lease_of_a_lost_connection_is_lost() -> None:
    book = LeaseBook(lambda: None)
    lease = book.grant(0, 1, 0, 2, 1, 0.0)
    book.settle(lease, 0, "ack")
    [unsent] = book.forget()
    assert offsets_of(unsent) == [0]
    with pytest.raises(LeaseLost):
        await book.settle(lease, 1, "ack").confirmed(1)
    book.settle_soon(lease, 1, "ack")
    assert book.lost_records == 1
    with pytest.raises(LeaseLost):
        await book.extend(lease, 1, 1000)


async def test_only_those_are_told_whose_lease_was_lost() -> None:
    book = LeaseBook(lambda: None)
    lease = book.grant(0, 1, 0, 3, 1, 0.0)
    for offset in range(3):
        book.settle(lease, offset, "ack")
    [settling] = book.collect()
    settling.frames()
    settling.answered([(1, 1)])
    await settling.confirmed(0)
    with pytest.raises(LeaseLost):
        await settling.confirmed(1)


def test_leases_are_extended_when_they_are_old_enough() -> None:
    book = LeaseBook(lambda: None)
    book.grant(0, 1, 0, 2, 1, now_s=0.0)
    book.grant(0, 2, 2, 2, 1, now_s=9.0)
    book.renew(10.0, older_s=5.0, extend_ms=30_000)
    [settling] = book.collect()
    assert (settling.action, settling.extend_ms, offsets_of(settling)) == ("extend", 30_000, [0, 1])
    book.renew(10.0, older_s=5.0, extend_ms=30_000)
    assert book.collect() == []
