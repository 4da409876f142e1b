"""Ranges and the stretches of segments made of them, against plain sets of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replication.machine import Range
from replication.storage.ranges import range_of, touches, within, without
from replication.storage.segments import Part
from replication.storage.stretches import Stretches

NUMBERS = st.integers(0, 40)


def ranges_of(numbers: set[int]) -> list[Range]:
    found: list[Range] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def numbers_of(ranges: list[Range]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(st.sets(NUMBERS), NUMBERS, NUMBERS)
def test_ranges_are_sets_of_numbers(numbers: set[int], one: int, other: int) -> None:
    ranges = ranges_of(numbers)
    first, last = min(one, other), max(one, other)
    middle = set(range(first, last + 1))
    assert without(ranges, first, last) == ranges_of(numbers - middle)
    assert within(ranges, first, last) == ranges_of(numbers & middle)
    assert touches(ranges, first, last) == bool(numbers & middle)
    found = range_of(ranges, one)
    assert (found is not None) == (one in numbers)
    assert found is None or one in numbers_of([found])


def test_a_part_brought_anew_stands_where_another_hides_something() -> None:
    old = Part(1, 5, 101, 200, first_mark=1_010, last_mark=2_009, marks=1_000, shown=[(101, 200)])
    new = Part(1, 9, 150, 160, first_mark=1_500, last_mark=1_609, piece=1, marks=110, shown=[(150, 160)])
    old.hide(150, 163)
    old.hide(190, 1 << 60)
    found = Stretches([new, old])
    assert [(s.part.origin, s.first, s.last) for s in found.all] == [(5, 101, 149), (9, 150, 160), (5, 164, 189)]
    assert [found.of_index(index).first for index in (1, 149, 150, 161, 189)] == [101, 101, 150, 164, 164]  # type: ignore[union-attr]  # there are stretches behind all of them
    assert found.of_index(190) is None
    assert [stretch.valid_mark for stretch in found.marked] == [1_499, 1_609, 2_009]
    assert found.of_mark(1_605, 0) is found.all[1]
    assert found.of_mark(1_605, 160) is found.all[2]
    assert found.of_mark(2_010, 0) is None


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6))
def test_what_is_hidden_stays_hidden(hidden: list[tuple[int, int]]) -> None:
    part = Part(1, 1, 1, 40, shown=[(1, 40)])
    left = set(range(1, 41))
    for one, other in hidden:
        first, last = min(one, other), max(one, other)
        part.hide(first, last)
        left -= set(range(first, last + 1))
    assert part.shown == ranges_of(left)
    assert part.valid_last == max(left, default=0)
