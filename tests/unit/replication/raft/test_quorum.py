"""Majorities, against a slow obvious count."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from replication.raft.quorum import Ballot, agreed, ballot, has_quorum

VOTERS = st.sets(st.integers(1, 7), min_size=1, max_size=7)
SETS = st.lists(VOTERS, min_size=1, max_size=2)


@given(SETS, st.dictionaries(st.integers(1, 7), st.integers(0, 9)))
def test_the_agreed_value_is_the_highest_that_a_majority_of_every_set_has(
    sets: list[set[int]], values: dict[int, int]
) -> None:
    def majority_has(value: int) -> bool:
        return all(2 * sum(values.get(v, 0) >= value for v in voters) > len(voters) for voters in sets)

    assert agreed(sets, lambda voter: values.get(voter, 0)) == max(v for v in range(10) if majority_has(v))


@given(SETS, st.dictionaries(st.integers(1, 7), st.booleans()))
def test_a_ballot_is_won_or_lost_when_no_further_vote_can_change_it(
    sets: list[set[int]], votes: dict[int, bool]
) -> None:
    def wins(rest: bool) -> bool:
        return all(2 * sum(votes.get(v, rest) for v in voters) > len(voters) for voters in sets)

    expected = Ballot.WON if wins(rest=False) else Ballot.OPEN if wins(rest=True) else Ballot.LOST
    assert ballot(sets, votes) is expected


@given(SETS, st.sets(st.integers(1, 7)))
def test_a_quorum_is_a_majority_of_each_set_and_not_of_their_union(sets: list[set[int]], has: set[int]) -> None:
    assert has_quorum(sets, lambda voter: voter in has) == all(2 * len(s & has) > len(s) for s in sets)


def test_a_majority_of_the_union_is_no_quorum() -> None:
    old, new = {1, 2, 3}, {3, 4, 5}
    most = {1, 2, 4}
    assert 2 * len(most) > len(set(chain(old, new)))
    assert not has_quorum([old, new], lambda voter: voter in most)


def test_nobody_agrees_where_there_are_no_voters() -> None:
    assert agreed([], lambda _: 5) == 0
    assert agreed([{1}, set()], lambda _: 5) == 0
