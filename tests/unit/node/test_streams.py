"""Pieces that overtook each other are taken in the order in which they were sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.streams import HELD_MAX, Stream


@given(st.permutations(range(30)))
def test_whatever_comes_first_all_are_taken_in_order(places: list[int]) -> None:
    stream: Stream[int] = Stream()
    taken: list[int] = []
    stream.begin((1, 1))
    for place in places:
        assert stream.accepts((1, 1), place)
        taken += stream.take(place, place)
    assert taken == list(range(30))


def test_behind_a_refused_one_nothing_is_taken() -> None:
    stream: Stream[str] = Stream()
    stream.begin((1, 1))
    assert stream.take(1, "b") == []
    assert stream.end() == ["b"], "it is to be refused as well"
    assert not stream.accepts((1, 1), 0)


def test_a_new_stream_ends_the_old_one_which_never_comes_back() -> None:
    stream: Stream[str] = Stream()
    stream.begin((1, 1))
    stream.take(1, "b")
    assert stream.begin((1, 2)) == ["b"]
    assert not stream.accepts((1, 1), 0)
    assert stream.begin((1, 1)) == []
    assert not stream.accepts((1, 1), 0)
    assert stream.take(0, "a") == ["a"]
    assert stream.begin((2, 1)) == [], "the sender was started anew"
    assert stream.accepts((2, 1), 0)


def test_what_waits_is_bounded_and_no_place_is_taken_twice() -> None:
    stream: Stream[str] = Stream()
    stream.begin((1, 1))
    assert not stream.accepts((1, 1), HELD_MAX)
    stream.take(0, "a")
    assert not stream.accepts((1, 1), 0)
