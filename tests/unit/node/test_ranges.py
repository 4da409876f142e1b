"""Range sets and lists behave as sets of offsets do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import ranges
from node.ranges import Range, RangeSet

OFFSETS = st.integers(0, 40)
RANGES = st.tuples(OFFSETS, OFFSETS)
OPERATIONS = st.lists(st.tuples(st.sampled_from(["add", "remove", "take"]), RANGES), max_size=30)


def offsets_of(pieces: list[Range]) -> set[int]:
    return {offset for first, last in pieces for offset in range(first, last + 1)}


def tidy_of(offsets: set[int]) -> list[Range]:
    """The slow way to a tidy list."""
    result: list[Range] = []
    for offset in sorted(offsets):
        if result and result[-1][1] == offset - 1:
            result[-1] = (result[-1][0], offset)
        else:
            result.append((offset, offset))
    return result


@given(OPERATIONS)
def test_a_range_set_holds_what_a_set_holds(operations: list[tuple[str, Range]]) -> None:
    fast = RangeSet()
    slow: set[int] = set()
    for name, (first, last) in operations:
        span = set(range(first, last + 1))
        if name == "add":
            assert fast.add(first, last) == len(span - slow)
            slow |= span
        elif name == "remove":
            assert fast.remove(first, last) == len(span & slow)
            slow -= span
        else:
            lowest = set(sorted(slow)[:last])
            assert fast.take(last) == tidy_of(lowest)
            slow -= lowest
        assert list(fast) == tidy_of(slow)
        assert fast.count == len(slow)
        assert len(fast) == len(tidy_of(slow))
        assert bool(fast) == bool(slow)
        assert (fast.first, fast.last) == ((min(slow), max(slow)) if slow else (None, None))
        assert [offset in fast for offset in range(42)] == [offset in slow for offset in range(42)]


@given(st.sets(OFFSETS), RANGES)
def test_questions_about_a_range_are_answered_as_by_a_set(offsets: set[int], asked: Range) -> None:
    fast = RangeSet(tidy_of(offsets))
    first, last = asked
    span = set(range(first, last + 1))
    assert fast.within(first, last) == tidy_of(offsets & span)
    assert fast.missing(first, last) == tidy_of(span - offsets)
    assert list(fast.ranges_from(first)) == tidy_of({offset for offset in offsets if offset >= first})
    if first <= last:
        assert fast.covers(first, last) == (span <= offsets)


@given(st.lists(RANGES), st.lists(RANGES))
def test_lists_are_combined_as_sets_are(some: list[Range], others: list[Range]) -> None:
    left, right = ranges.tidy(some), ranges.tidy(others)
    assert left == tidy_of(offsets_of(some))
    assert ranges.intersect(left, right) == tidy_of(offsets_of(some) & offsets_of(others))
    assert ranges.subtract(left, right) == tidy_of(offsets_of(some) - offsets_of(others))
    assert ranges.count(left) == len(offsets_of(some))
    for offset in range(42):
        assert ranges.contains(left, offset) == (offset in offsets_of(some))


@given(st.sets(OFFSETS))
def test_a_filled_set_is_the_set_that_was_added_to(offsets: set[int]) -> None:
    filled = RangeSet([(3, 7)])
    filled.fill(tidy_of(offsets))
    assert filled == RangeSet((offset, offset) for offset in offsets)
    assert filled.count == len(offsets)


def test_ranges_that_touch_become_one() -> None:
    both = RangeSet([(0, 4), (5, 9)])
    assert list(both) == [(0, 9)]
    assert len(both) == 1


def test_extending_joins_only_what_touches() -> None:
    pieces = [(0, 4)]
    ranges.extend(pieces, 5, 6)
    ranges.extend(pieces, 8, 9)
    assert pieces == [(0, 6), (8, 9)]


def test_a_range_set_cannot_be_a_key() -> None:
    with pytest.raises(TypeError):
        hash(RangeSet())
