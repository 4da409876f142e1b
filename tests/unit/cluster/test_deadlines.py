"""Deadlines: what is due comes once, at its time, however often it was put off."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.deadlines import Deadlines

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abc"), st.integers(0, 30)),
        st.tuples(st.just("drop"), st.sampled_from("abc"), st.just(0)),
        st.tuples(st.just("pass"), st.just(""), st.integers(0, 10)),
    ),
    max_size=40,
)


@given(STEPS)
def test_deadlines_are_what_a_dict_would_say(steps: list[tuple[str, str, int]]) -> None:
    deadlines: Deadlines[str] = Deadlines()
    slow: dict[str, int] = {}
    now = 0
    for what, key, number in steps:
        if what == "set":
            deadlines.set(key, now + number)
            slow[key] = now + number
        elif what == "drop":
            deadlines.drop(key)
            slow.pop(key, None)
        else:
            now += number
            due = deadlines.due(now)
            assert sorted(due) == sorted(key for key, at in slow.items() if at <= now)
            assert [slow[each] for each in due] == sorted(slow[each] for each in due)
            slow = {key: at for key, at in slow.items() if at > now}
        assert {each for each in "abc" if each in deadlines} == set(slow)
        if slow:
            assert deadlines.next_ns is not None
            assert deadlines.next_ns <= min(slow.values())


def test_nothing_is_left_after_a_clearance() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 5)
    deadlines.clear()
    assert deadlines.next_ns is None
    assert deadlines.due(9) == []


def test_what_was_put_off_comes_behind_what_was_due_before_its_new_time() -> None:
    deadlines: Deadlines[str] = Deadlines()
    deadlines.set("a", 0)
    deadlines.set("a", 2)
    deadlines.set("b", 1)
    assert deadlines.due(2) == ["b", "a"]
