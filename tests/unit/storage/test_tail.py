"""Entries in memory: found by index and mark, moved between files as the writer decides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from replication.machine import KIND_MEMBERSHIP, Entry
from replication.storage.tail import Tail
from tests.unit.storage.world import batch, batches


def indexes(entries: list[Entry] | None) -> list[int] | None:
    return None if entries is None else [entry.index for entry in entries]


def tail_of(last: int) -> Tail:
    tail = Tail()
    tail.append(batches(1, last))
    return tail


def test_reads_by_index_stop_after_the_bytes_asked_for_but_give_one_entry() -> None:
    tail = tail_of(9)
    assert indexes(tail.from_index(3, 1)) == [3]
    assert indexes(tail.from_index(3, 250)) == [3, 4, 5]
    assert indexes(tail.from_index(8, 10_000)) == [8, 9]
    assert tail.from_index(10, 1) is None


def test_reads_by_mark_begin_with_the_entry_that_covers_it_or_the_next() -> None:
    tail = tail_of(3)
    tail.append([Entry(4, 1, 2, 40, 0, b"no marks"), batch(5)])
    assert indexes(tail.from_mark(15, 1)) == [1]
    assert indexes(tail.from_mark(30, 10_000)) == [3, 5]
    assert indexes(tail.from_mark(0, 1)) == [1]
    assert tail.from_mark(60, 1) == []


def test_entries_of_a_file_are_released_and_later_ones_stay() -> None:
    tail = tail_of(4)
    tail.placed(1, 4)
    tail.append(batches(5, 8))
    tail.placed(2, 6)
    assert indexes(tail.captured(1)) == [1, 2, 3, 4]
    tail.release(1)
    assert tail.from_index(4, 1) is None
    assert indexes(tail.from_index(5, 10_000)) == [5, 6, 7, 8]
    assert indexes(tail.captured(2)) == [5, 6]
    tail.release(2)
    assert indexes(tail.from_index(7, 10_000)) == [7, 8]
    tail.placed(3, 8)
    assert indexes(tail.captured(3)) == [7, 8]


def test_truncation_goes_through_all_files() -> None:
    tail = tail_of(4)
    tail.placed(1, 4)
    tail.append(batches(5, 8))
    tail.placed(2, 8)
    tail.truncate_after(2)
    tail.append(batches(3, 5, term=2))
    tail.placed(2, 5)
    assert indexes(tail.captured(1)) == [1, 2]
    assert [entry.term for entry in tail.from_index(1, 10_000) or []] == [1, 1, 2, 2, 2]
    assert indexes(tail.captured(2)) == [1, 2, 3, 4, 5]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4)),
        st.tuples(st.just("place"), st.integers(0, 6)),
        st.tuples(st.just("rotate"), st.just(0)),
        st.tuples(st.just("truncate"), st.integers(0, 6)),
        st.tuples(st.just("release"), st.integers(0, 2)),
    ),
    max_size=60,
)


@given(STEPS)
def test_a_tail_is_a_list_of_entries_with_a_file_each(steps: list[tuple[str, int]]) -> None:
    """Against the obvious model: (entry, file or None) in one list."""
    tail, number, term = Tail(), 1, 1
    model: list[tuple[Entry, int | None]] = []
    last = 0
    for action, count in steps:
        if action == "append":
            entries = batches(last + 1, last + count, term=term)
            tail.append(entries)
            model += [(entry, None) for entry in entries]
            last += count
        elif action == "place":
            waiting = [at for at, (_, file) in enumerate(model) if file is None][:count]
            for at in waiting:
                model[at] = model[at][0], number
            if waiting:
                tail.placed(number, model[waiting[-1]][0].index)
        elif action == "rotate":
            number += 1
        elif action == "truncate":
            keep = max(last - count, 0)
            if not model or keep < model[0][0].index - 1:
                continue
            model = [item for item in model if item[0].index <= keep]
            tail.truncate_after(keep)
            last, term = keep, term + 1
        else:
            through = number - 1 - count
            assert indexes(tail.captured(through)) == [
                entry.index for entry, file in model if file is not None and file <= through
            ]
            tail.release(through)
            model = [item for item in model if item[1] is None or item[1] > through]
        assert tail.entries == len(model)
        assert tail.size_bytes == sum(len(entry.payload) for entry, _ in model)
        if model:
            assert tail.from_index(model[0][0].index, 10_000_000) == [entry for entry, _ in model]
            assert tail.from_mark(model[-1][0].mark, 1) == [model[-1][0]]


def test_memberships_are_found_without_a_search() -> None:
    tail = Tail()
    member = [Entry(index, 1, KIND_MEMBERSHIP, 0, 0, b"") for index in (2, 4, 7)]
    tail.append([batch(1), member[0], batch(3), member[1]])
    tail.placed(1, 3)
    tail.placed(2, 4)
    tail.append([batch(5), batch(6), member[2]])
    assert tail.memberships(1) == member
    assert tail.memberships(3) == member[1:]
    tail.truncate_after(6)
    assert tail.memberships(1) == member[:2]
    tail.placed(2, 6)
    tail.release(1)
    assert tail.memberships(1) == member[1:2]
