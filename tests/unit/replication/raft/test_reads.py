"""Reads and the rounds that vouch for them."""

from __future__ import annotations

from replication.raft.reads import Reads


def test_a_read_is_safe_when_a_round_that_began_after_it_is_confirmed() -> None:
    reads = Reads()
    ticket = reads.ask()
    assert reads.confirmed(reads.round) == []
    reads.begin(index=5)
    assert reads.confirmed(reads.round) == [(ticket, 5)]
    assert len(reads) == 0


def test_a_read_that_comes_during_a_round_waits_for_the_next() -> None:
    reads = Reads()
    first = reads.ask()
    reads.begin(index=5)
    second = reads.ask()
    assert reads.confirmed(1) == [(first, 5)]
    assert reads.asked
    reads.begin(index=9)
    assert reads.confirmed(1) == []
    assert reads.confirmed(2) == [(second, 9)]


def test_a_later_round_vouches_for_all_before_it_each_at_its_own_index() -> None:
    reads = Reads()
    first = reads.ask()
    reads.begin(index=5)
    second = reads.ask()
    reads.begin(index=9)
    assert reads.confirmed(2) == [(first, 5), (second, 9)]


def test_dropped_reads_are_named_and_their_rounds_confirm_nothing_any_more() -> None:
    reads = Reads()
    first = reads.ask()
    reads.begin(index=5)
    second = reads.ask()
    assert reads.drop() == [first, second]
    assert reads.confirmed(1) == []
    assert len(reads) == 0


def test_neither_tickets_nor_rounds_are_used_again_after_a_drop() -> None:
    reads = Reads()
    used = reads.ask()
    reads.begin(index=5)
    reads.drop()
    fresh = reads.ask()
    reads.begin(index=6)
    assert fresh != used
    assert reads.round == 2
