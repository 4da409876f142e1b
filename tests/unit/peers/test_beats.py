"""Two nodes compare who sleeps: equal sides are left alone, a lasting difference wakes its bucket and no other."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.wire.errors import BadRequest
from replication.peers.beats import BUCKETS, Beat, Rounds, Sleepers, mix, read_beat

MISMATCH = 5


class Side:
    """One node of two."""

    def __init__(self) -> None:
        self.led, self.followed = Sleepers(), Sleepers()
        self.rounds = Rounds(self.led, self.followed, MISMATCH)


def talk(a: Side, b: Side, beats: int = 1) -> list[tuple[list[int], list[int]]]:
    """What each round wakes at a and at b; words go through their bytes' form."""
    found = []
    for _ in range(beats):
        at_b = b.rounds.hear(read_beat(a.rounds.speak().words()))
        at_a = a.rounds.hear(read_beat(b.rounds.speak().words()))
        found.append((at_a, at_b))
    return found


def asleep(leader: Side, follower: Side, *groups: int, term: int = 3) -> None:
    for group in groups:
        leader.led.add(group, term)
        follower.followed.add(group, term)


QUIET: tuple[list[int], list[int]] = ([], [])


def test_sides_that_agree_wake_nobody_and_say_nothing_more() -> None:
    a, b = Side(), Side()
    asleep(a, b, *range(100))
    asleep(b, a, *range(100, 150))
    assert talk(a, b, 20) == [QUIET] * 20
    assert a.rounds.speak().slept == []


def test_a_follower_alone_asleep_wakes_its_bucket_after_some_beats_and_asks_the_leader_to() -> None:
    a, b = Side(), Side()
    asleep(a, b, 1, 2, 1 + BUCKETS)
    talk(a, b, 3)
    a.led.discard(1)  # woke, and nobody was told
    woken = talk(a, b, MISMATCH + 1)
    assert woken == [QUIET] * (MISMATCH - 1) + [([1 + BUCKETS], [1, 1 + BUCKETS]), QUIET]


def test_a_leader_alone_asleep_is_asked_to_wake() -> None:
    a, b = Side(), Side()
    a.led.add(9, 3)
    woken = talk(a, b, MISMATCH + 1)
    assert all(at_b == [] for _, at_b in woken)
    assert [9] in [at_a for at_a, _ in woken]


def test_the_same_groups_in_different_terms_differ() -> None:
    a, b = Side(), Side()
    a.led.add(9, 3)
    b.followed.add(9, 4)
    assert any(at_b == [9] for _, at_b in talk(a, b, MISMATCH + 1))


def test_what_moves_all_the_time_is_not_taken_for_a_loss() -> None:
    a, b = Side(), Side()
    for group in range(0, 100 * BUCKETS, BUCKETS):  # all in one bucket, the follower always first
        b.followed.add(group, 1)
        assert talk(a, b) == [QUIET]
        a.led.add(group, 1)


def test_a_beat_that_is_missing_is_made_good_by_a_whole_one() -> None:
    a, b = Side(), Side()
    asleep(a, b, 1)
    talk(a, b)
    asleep(a, b, 2)
    a.rounds.speak()  # lost, with the news of 2
    assert talk(a, b, 20) == [QUIET] * 20
    assert not b.rounds.speak().again


def test_one_that_comes_twice_or_late_says_nothing() -> None:
    a, b = Side(), Side()
    asleep(a, b, 1)
    first = a.rounds.speak()
    assert b.rounds.hear(first) == []
    asleep(a, b, 2)
    second, third = a.rounds.speak(), a.rounds.speak()
    assert b.rounds.hear(third) == []
    assert b.rounds.hear(second) == []
    assert b.rounds.speak().again
    for _ in range(20):
        assert b.rounds.hear(first) == []


def test_a_lost_beat_with_the_request_to_wake_is_repeated() -> None:
    a, b = Side(), Side()
    a.led.add(9, 3)
    for _ in range(3 * MISMATCH):
        b.rounds.hear(a.rounds.speak())
        heard = b.rounds.speak()
        if heard.wake and heard.sequence > MISMATCH + 1:
            assert a.rounds.hear(heard) == [9]
            return
    raise AssertionError("it never asked again")


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9), st.booleans()), max_size=40))
def test_digests_depend_on_what_sleeps_and_on_nothing_else(steps: list[tuple[int, int, bool]]) -> None:
    grown, expected = Sleepers(), dict[int, int]()
    for group, term, falls in steps:
        if falls:
            grown.add(group, term)
            expected[group] = term
        else:
            grown.discard(group)
            expected.pop(group, None)
    fresh = Sleepers()
    for group in sorted(expected, reverse=True):
        fresh.add(group, expected[group])
    assert (grown.counts, grown.digests, grown.terms) == (fresh.counts, fresh.digests, expected)


def test_the_mix_tells_pairs_apart() -> None:
    pairs = list(permutations(range(60), 2))
    assert len({mix(*pair) for pair in pairs}) == len(pairs)
    assert sum(mix(group, 1) >> 63 for group in range(1_000)) in range(400, 600)


@pytest.mark.parametrize(
    "words",
    [
        None,
        [],
        [1, True, False, []],
        ["1", True, False, [], []],
        [-1, True, False, [], []],
        [1, 1, False, [], []],
        [1, True, False, [BUCKETS], []],
        [1, True, False, [-1], []],
        [1, True, False, [True], []],
        [1, True, False, [], [0, 1]],
        [1, True, False, [], [BUCKETS, 1, 1]],
        [1, True, False, [], [0, 1, 1 << 64]],
        [1, True, False, [], [0, 1, None]],
    ],
)
def test_words_that_are_no_beat_are_refused(words: Any) -> None:
    with pytest.raises(BadRequest, match="beat"):
        read_beat(words)


def test_the_words_of_a_beat_are_these() -> None:
    beat = Beat(7, True, False, [3], [0, 1, 2**64 - 1])
    assert beat.words() == [7, True, False, [3], [0, 1, 2**64 - 1]]
    assert read_beat(beat.words()) == beat
