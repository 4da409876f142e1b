"""Which partition a publish goes to, and what is known of leaders."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.routing import (
    REST_MS_MAX,
    REST_MS_MIN,
    STICKY_BYTES,
    Ask,
    Leader,
    LeaderTable,
    PartitionChooser,
    Rest,
    Search,
)
from plait.wire.partitioning import partition_for_key


@given(st.binary(), st.integers(1, 100), st.integers(0, 1_000))
def test_a_key_always_goes_to_the_same_partition(key, partitions, start):
    chooser = PartitionChooser(partitions, start)
    assert chooser.choose(key, 10) == partition_for_key(key, partitions)
    assert chooser.choose(key, 10, range(partitions)) == partition_for_key(key, partitions)


def test_what_has_no_key_stays_for_a_while_and_then_moves_on():
    chooser = PartitionChooser(3)
    chosen = [chooser.choose(None, STICKY_BYTES // 2) for _ in range(7)]
    assert chosen == [0, 0, 1, 1, 2, 2, 0]


def test_nodes_start_at_different_partitions():
    assert [PartitionChooser(3, node).choose(None, 1) for node in (1, 2, 3)] == [1, 2, 0]


def test_partitions_without_a_leader_are_avoided_while_there_are_others():
    chooser = PartitionChooser(3)
    assert chooser.choose(None, 1, {0, 1}) == 2
    assert chooser.choose(None, 1) == 2
    assert chooser.choose(None, 1, {0, 1, 2}) in range(3)


def test_old_news_about_leaders_changes_nothing():
    table = LeaderTable()
    assert table.leader(5) is None
    assert table.heard(5, Leader(1, term=3))
    assert not table.heard(5, Leader(2, term=3))
    assert not table.heard(5, Leader(2, term=2))
    assert table.leader(5) == Leader(1, 3)
    assert table.heard(5, Leader(2, term=4))
    table.lost(5, term=3)
    assert table.leader(5) == Leader(2, 4)


def test_a_lost_leader_does_not_come_back_by_old_news():
    table = LeaderTable()
    table.heard(5, Leader(1, term=3))
    table.lost(5, term=3)
    assert table.leader(5) is None
    assert not table.heard(5, Leader(1, term=3))
    assert table.heard(5, Leader(1, term=4))


def test_a_deleted_group_is_forgotten():
    table = LeaderTable()
    table.heard(5, Leader(1, term=3))
    table.forget(5)
    assert table.leader(5) is None


def test_who_answers_as_leader_is_believed_against_older_news_only() -> None:
    table = LeaderTable()
    table.heard(7, Leader(2, 5))
    table.lost(7, 5)
    assert not table.heard(7, Leader(2, 5)), "it was there and did not lead"
    table.proved(7, 2, 5)
    assert table.leader(7) == Leader(2, 5)
    table.proved(7, 3, 4)
    assert table.leader(7) == Leader(2, 5)


def test_a_search_asks_the_hint_then_the_leader_then_everybody_once_and_then_rests() -> None:
    search = Search()
    replicas = (1, 2, 3)
    assert search.next(3, replicas) == Ask(3)
    assert search.next(3, replicas) == Ask(1)
    assert search.next(2, replicas) == Ask(2), "a hint comes first"
    assert search.next(3, replicas) == Rest(REST_MS_MIN), "a hint that points back changes nothing"
    assert search.next(3, replicas) == Ask(3)


def test_it_rests_longer_each_time_up_to_a_bound() -> None:
    search = Search()
    rests = [step.rest_ms for _ in range(20) if isinstance(step := search.next(0, ()), Rest)]
    assert rests[:3] == [REST_MS_MIN, 2 * REST_MS_MIN, 4 * REST_MS_MIN]
    assert rests[-1] == REST_MS_MAX


def test_a_node_that_says_that_it_leads_since_later_is_asked_once_more() -> None:
    search = Search()
    assert search.next(1, ()) == Ask(1)
    search.retract(1)
    assert search.next(1, ()) == Ask(1)
    assert isinstance(search.next(1, ()), Rest)
