"""A run map behaves as a dict of offsets does, whatever its blocks are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node import runs
from node.runs import HIGHEST_OFFSET, RunMap

LAST = 60
VALUES = st.sampled_from([None, "a", "b", "c"])
ASSIGNMENTS = st.lists(st.tuples(st.integers(0, LAST), st.integers(0, 12), VALUES), max_size=60)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "BLOCK_BOUNDARIES_MAX", 4)


def runs_of(values: dict[int, str]) -> list[tuple[int, int, str]]:
    """The slow way to the runs."""
    result: list[tuple[int, int, str]] = []
    for offset in sorted(values):
        if result and result[-1][1] == offset - 1 and result[-1][2] == values[offset]:
            result[-1] = (result[-1][0], offset, values[offset])
        else:
            result.append((offset, offset, values[offset]))
    return result


@given(ASSIGNMENTS)
def test_a_run_map_holds_what_a_dict_holds(assignments: list[tuple[int, int, str | None]]) -> None:
    fast: RunMap[str] = RunMap()
    slow: dict[int, str] = {}
    for first, length, value in assignments:
        last = first + length
        fast.assign(first, last, value)
        for offset in range(first, last + 1):
            slow.pop(offset, None)
            if value is not None:
                slow[offset] = value
        expected = runs_of(slow)
        assert list(fast) == expected
        assert len(fast) == len(expected)
        assert fast.first_offset() == (min(slow) if slow else None)
        assert fast.get(first) == slow.get(first)
        assert fast.get(last + 1) == slow.get(last + 1)
        assert fast.overlapping(first, last + 3) == [r for r in expected if r[0] <= last + 3 and r[1] >= first]
        inside = {offset: value for offset, value in slow.items() if first - 2 <= offset <= last + 2}
        assert fast.within(max(0, first - 2), last + 2) == runs_of(inside)


@given(ASSIGNMENTS)
def test_filling_gives_the_same_map(assignments: list[tuple[int, int, str | None]]) -> None:
    made: RunMap[str] = RunMap()
    for first, length, value in assignments:
        made.assign(first, first + length, value)
    filled: RunMap[str] = RunMap()
    filled.assign(1, 5, "old")
    filled.fill(list(made))
    assert list(filled) == list(made)
    assert len(filled) == len(made)
    for first, length, value in assignments[::-1]:  # and it goes on in the same way
        made.assign(first, first + length, value)
        filled.assign(first, first + length, value)
        assert list(filled) == list(made)
        assert len(filled) == len(made)


def test_a_cleared_map_is_empty() -> None:
    cleared: RunMap[str] = RunMap()
    cleared.assign(5, 9, "a")
    cleared.clear()
    assert list(cleared) == []
    assert cleared.first_offset() is None


def test_offsets_go_up_to_the_highest() -> None:
    high: RunMap[str] = RunMap()
    high.assign(HIGHEST_OFFSET - 1, HIGHEST_OFFSET - 1, "a")
    assert high.within(0, HIGHEST_OFFSET) == [(HIGHEST_OFFSET - 1, HIGHEST_OFFSET - 1, "a")]
